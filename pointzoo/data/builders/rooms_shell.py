"""Walls, floor and ceiling of a room, with doors, windows and curtains in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_mesh import Image, Mesh, box, join, plain, quads
from pointzoo.data.builders.rooms_pieces import Piece
from pointzoo.data.builders.rooms_plan import Opening, Plan, Wall
from pointzoo.data.builders.rooms_roles import Use
from pointzoo.data.scene_classes import SCANNET20

WALL, FLOOR, DOOR = (SCANNET20.index(name) for name in ("wall", "floor", "door"))
WINDOW, CURTAIN = SCANNET20.index("window"), SCANNET20.index("curtain")
CEILING = -1
THICKNESS = 0.18
_WET = ("kitchen", "bathroom")

Floats = NDArray[np.float64]


def cut_openings(plan: Plan, kind: str) -> None:
    """Choose doors and windows, and keep the way in free."""
    rng = plan.rng
    door = plan.pick("door")
    wide = rng.random() < 0.15 and kind in ("living", "dining", "office", "lounge")
    if wide and (double := plan.pick("double_door")) is not None:
        door = double
    if door is not None:
        _add_opening(plan, door, "door", 0.0)
        if rng.random() < 0.12 and (second := plan.pick("door")) is not None:
            _add_opening(plan, second, "door", 0.0)
    count = int(rng.choice([0, 1, 2], p=[0.12, 0.55, 0.33]))
    if kind == "bathroom":
        count = int(rng.random() < 0.5)
    style = rng.random()
    for k in range(count):
        window = plan.pick("window", None if k == 0 else _is_low)
        if window is None or style < 0.5:
            window = _drawn_window(rng)
        french = window.size[2] > 1.6
        sill = 0.02 if french else min(rng.uniform(0.75, 1.1), 2.2 - window.size[2])
        _add_opening(plan, window, "window", float(sill))


def _is_low(piece: Piece) -> bool:
    return bool(piece.size[2] < 1.6)


def _drawn_window(rng: np.random.Generator) -> Piece:
    size = np.array([rng.uniform(0.6, 1.9), 0.1, rng.uniform(0.8, 1.35)])
    mesh = props.window_frame(rng, size[0], size[2], glass=bool(rng.random() < 0.4))
    return Piece("", Use("window", WINDOW), mesh, size, None, "window")


def _add_opening(plan: Plan, piece: Piece, kind: str, low: float) -> None:
    width, height = piece.size[0], piece.size[2]
    if low + height > plan.size[2] - 0.1:
        return
    for _ in range(12):
        index = int(plan.rng.integers(len(plan.walls)))
        wall = plan.walls[index]
        space = wall.length - width - 0.2
        if space <= 0:
            continue
        left = 0.1 + float(plan.rng.random()) * space
        opening = Opening(index, left, left + width, low, low + height, kind)
        if any(o.wall == index and _overlap(o, opening) for o in plan.openings):
            continue
        plan.openings.append(opening)
        fill = _fill_door if kind == "door" else _fill_window
        fill(plan, wall, opening, piece)
        return


def _overlap(first: Opening, second: Opening) -> bool:
    return first.left < second.right + 0.25 and second.left < first.right + 0.25


def _at(wall: Wall, along: float, out: float) -> Floats:
    """Point (2,) on a wall, ``out`` metres into the room."""
    point: Floats = wall.start + wall.along * along + wall.inward * out
    return point


def _keep_free(plan: Plan, wall: Wall, opening: Opening, depth: float, low: float) -> None:
    a, b = _at(wall, opening.left, 0.0), _at(wall, opening.right, depth)
    plan.block([*np.minimum(a, b), low], [*np.maximum(a, b), opening.high])


def _fill_door(plan: Plan, wall: Wall, opening: Opening, piece: Piece) -> None:
    rng = plan.rng
    middle = (opening.left + opening.right) / 2
    width = opening.right - opening.left
    _keep_free(plan, wall, opening, 0.75 if width < 1.2 else 0.6, 0.0)
    draw = rng.random()
    if draw < 0.6 or width > 1.2:
        depth = piece.size[1]
        place = _at(wall, middle, 0.03 - depth / 2)
        plan.put(piece, [*place, 0.0], wall.yaw, solid=False, check=False)
        _backdrop(plan, wall, opening, 0.35)
        return
    leaf = props.door_leaf(rng, width - 0.04, opening.high - 0.02)
    if rng.random() < 0.5:
        leaf = leaf.moved(scale=(1, 1, 1), position=(-(width - 0.04), 0, 0))
        hinge, turn = opening.right - 0.02, rng.uniform(0.3, 1.5)
    else:
        hinge, turn = opening.left + 0.02, -rng.uniform(0.3, 1.5)
    along = float(np.arctan2(wall.along[1], wall.along[0]))
    if draw < 0.9:  # the others are open holes
        place = _at(wall, hinge, 0.02)
        plan.add_mesh(leaf.moved([*place, 0.01], along - turn), DOOR, solid=False)
    _frame(plan, wall, opening)
    _backdrop(plan, wall, opening, float(rng.uniform(0.6, 1.2)))


def _frame(plan: Plan, wall: Wall, opening: Opening) -> None:
    """Door frame: two posts and a lintel, part of the door."""
    image = textures.wood(plan.rng)
    width, height = opening.right - opening.left, opening.high
    post, depth = 0.07, THICKNESS + 0.05
    parts = [
        box((post, depth, height), image, position=(-width / 2, 0, 0)),
        box((post, depth, height), image, position=(width / 2, 0, 0)),
        box((width + post, depth, post), image, position=(0, 0, height - post / 2)),
    ]
    place = _at(wall, (opening.left + opening.right) / 2, -THICKNESS / 2)
    plan.add_mesh(join(parts).moved([*place, 0.0], wall.yaw), DOOR, solid=False)


def _backdrop(plan: Plan, wall: Wall, opening: Opening, depth: float) -> None:
    """A bit of corridor behind a door."""
    a, b = opening.left - 0.5, opening.right + 0.5
    near, far = -THICKNESS, -THICKNESS - depth
    ground = [_at(wall, a, near), _at(wall, b, near), _at(wall, b, far), _at(wall, a, far)]
    floor = quads([[(*p, 0.0) for p in ground]], textures.planks(plan.rng))
    plan.add_mesh(floor, FLOOR, solid=False)
    left, right = _at(wall, a, far), _at(wall, b, far)
    top = opening.high + 0.2
    corners = [(*left, 0.0), (*right, 0.0), (*right, top), (*left, top)]
    plan.add_mesh(quads([corners], textures.paint(plan.rng)), WALL, solid=False)


def _fill_window(plan: Plan, wall: Wall, opening: Opening, piece: Piece) -> None:
    rng = plan.rng
    middle = (opening.left + opening.right) / 2
    mesh = piece.mesh if rng.random() < 0.4 else piece.mesh.without_glass()
    place = _at(wall, middle, 0.05 - piece.size[1] / 2)
    item = plan.add_mesh(mesh.moved([*place, opening.low], wall.yaw), WINDOW, solid=False)
    plan.items[-1] = type(item)(item.mesh, WINDOW, item.instance, piece)
    _keep_free(plan, wall, opening, 0.25, max(opening.low, 0.95))
    if opening.low < 0.3:
        _keep_free(plan, wall, opening, 0.5, 0.0)
    elif rng.random() < 0.5:
        radiator = plan.pick("radiator", lambda p: p.size[2] < opening.low - 0.05)
        if radiator is not None:
            plan.put_at_wall(
                radiator, wall=opening.wall, along=middle, height=0.08, gap=0.04, tries=1
            )
    if rng.random() < 0.6:
        _hang_curtains(plan, wall, opening)


def _hang_curtains(plan: Plan, wall: Wall, opening: Opening) -> None:
    rng = plan.rng
    image = textures.fabric(rng, light=bool(rng.random() < 0.6))
    top = min(opening.high + rng.uniform(0.08, 0.25), plan.size[2] - 0.03)
    low = 0.03 if rng.random() < 0.6 or opening.low < 0.3 else max(opening.low - 0.2, 0.05)
    width = opening.right - opening.left
    closed = rng.random()
    share = rng.uniform(0.15, 0.35) if closed < 0.75 else 0.55
    span = width * share + 0.12
    ends = [opening.left - 0.12 + span / 2, opening.right + 0.12 - span / 2]
    if rng.random() < 0.2:
        ends = ends[:1]
    for middle in ends:
        end = float(np.clip(middle, span / 2, wall.length - span / 2))
        mesh = props.curtain(rng, span, top - low, image)
        place = _at(wall, end, 0.13)
        plan.add_mesh(mesh.moved([*place, low], wall.yaw), CURTAIN)
    rod = box((width + 0.5, 0.025, 0.025), plain(textures.pick_color(rng, (0, 0.3), (0.1, 0.9))))
    place = _at(wall, (opening.left + opening.right) / 2, 0.11)
    plan.add_mesh(rod.moved([*place, top], wall.yaw), -1, solid=False)


def build_shell(plan: Plan, kind: str) -> None:
    """Add floor, ceiling and walls, each wall an object of its own."""
    rng = plan.rng
    floor, base = _floor_image(rng, kind), textures.paint(rng)
    ceiling = textures.paint(rng) if rng.random() < 0.2 else plain((rng.uniform(215, 245),) * 3)
    height = float(plan.size[2])
    turned = rng.random() < 0.5
    for z, image, label in ((0.0, floor, FLOOR), (height, ceiling, CEILING)):
        meshes = [_slab(low, high, z, image, turned) for low, high in plan.rectangles]
        plan.add_mesh(join(meshes), label, solid=False)
    accent = int(rng.integers(len(plan.walls))) if rng.random() < 0.3 else -1
    special = textures.wallpaper(rng) if rng.random() < 0.4 else textures.paint(rng, strong=True)
    tiles = textures.tiles(rng, light=True)
    tiled = 0.0
    if kind in _WET:
        tiled = float(rng.choice([0.0, 1.3, 1.6, 2.05, height]))
    skirting = plain(textures.pick_color(rng, (0.0, 0.2), (0.3, 0.97)))
    board = float(rng.uniform(0.05, 0.12)) if tiled == 0.0 and rng.random() < 0.8 else 0.0
    for index, wall in enumerate(plan.walls):
        image = special if index == accent else base
        bands = [(0.0, board, skirting), (board, tiled, tiles), (max(board, tiled), height, image)]
        holes = [o for o in plan.openings if o.wall == index]
        plan.add_mesh(_wall_mesh(wall, bands, holes), WALL, solid=False)


def _floor_image(rng: np.random.Generator, kind: str) -> Image:
    draw = rng.random()
    if kind in _WET:
        return textures.tiles(rng) if draw < 0.75 else textures.planks(rng)
    if draw < 0.6:
        return textures.planks(rng)
    return textures.carpet(rng) if draw < 0.85 else textures.tiles(rng)


def _slab(low: Floats, high: Floats, z: float, image: Image, turned: bool) -> Mesh:
    corners = [
        (low[0], low[1], z),
        (high[0], low[1], z),
        (high[0], high[1], z),
        (low[0], high[1], z),
    ]
    uv = np.array([corner[:2] for corner in corners]) / textures.TILE
    return quads([corners], image, [uv[:, ::-1] if turned else uv])


def _wall_mesh(
    wall: Wall, bands: Sequence[tuple[float, float, Image]], holes: Sequence[Opening]
) -> Mesh:
    """Rectangles of a wall around its holes, and the reveals of the holes."""
    meshes = []
    xs = sorted({0.0, wall.length, *(o.left for o in holes), *(o.right for o in holes)})
    levels = {z for low, high, _ in bands for z in (low, high)}
    zs = sorted(levels | {o.low for o in holes} | {o.high for o in holes})
    for low, high, image in bands:
        cells = [
            _cell(wall, a, b, c, d)
            for a, b in pairwise(xs)
            for c, d in pairwise(zs)
            if low <= (c + d) / 2 < high and not _in_hole((a + b) / 2, (c + d) / 2, holes)
        ]
        if cells:
            uv = [cell[1] for cell in cells]
            meshes.append(quads([cell[0] for cell in cells], image, np.array(uv)))
    image = bands[-1][2]
    meshes += [_reveal(wall, opening, image) for opening in holes]
    return join(meshes)


def _in_hole(x: float, z: float, holes: Sequence[Opening]) -> bool:
    return any(o.left < x < o.right and o.low < z < o.high for o in holes)


def _cell(wall: Wall, a: float, b: float, c: float, d: float) -> tuple[Floats, Floats]:
    left, right = wall.start + wall.along * a, wall.start + wall.along * b
    corners = np.array([(*left, c), (*right, c), (*right, d), (*left, d)])
    return corners, np.array([(a, c), (b, c), (b, d), (a, d)]) / textures.TILE


def _reveal(wall: Wall, opening: Opening, image: Image) -> Mesh:
    a, b = _at(wall, opening.left, 0.0), _at(wall, opening.right, 0.0)
    back = -wall.inward * THICKNESS
    low, high = opening.low, opening.high
    sides = [
        [(*a, low), (*(a + back), low), (*(a + back), high), (*a, high)],
        [(*b, low), (*(b + back), low), (*(b + back), high), (*b, high)],
        [(*a, high), (*b, high), (*(b + back), high), (*(a + back), high)],
        [(*a, low), (*b, low), (*(b + back), low), (*(a + back), low)],
    ]
    return quads(sides, image, np.array([[(0, 0), (0.1, 0), (0.1, 1), (0, 1)]] * 4))
