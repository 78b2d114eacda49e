"""What every program of furnishing uses: pieces at walls, things on top and on the floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_mesh import Mesh, box
from pointzoo.data.builders.rooms_pieces import Piece
from pointzoo.data.builders.rooms_plan import Item, Plan, footprint
from pointzoo.data.scene_classes import SCANNET20

LABEL = {name: index for index, name in enumerate(SCANNET20)}
UNNAMED = -1


def front(item: Item, distance: float) -> tuple[float, float]:
    """Point on the floor, ``distance`` before the middle of a piece."""
    x, y = item.position[:2]
    return x + np.sin(item.yaw) * distance, y - np.cos(item.yaw) * distance


def chance(plan: Plan, probability: float) -> bool:
    """Draw whether something with this probability happens."""
    return bool(plan.rng.random() < probability)


def at_wall(plan: Plan, role: str, *, front: float = 0.0, tries: int = 36) -> Item | None:
    """Put a piece of a role to any wall, with less space before it where there is none."""
    for space in (front, front, front / 4):
        piece = plan.pick(role)
        item = None if piece is None else plan.put_at_wall(piece, front=space, tries=tries)
        if item is not None:
            return item
    return None


def maybe(plan: Plan, probability: float, role: str, *, front: float = 0.0) -> Item | None:
    """Put a piece of a role to a wall with some probability."""
    return at_wall(plan, role, front=front) if chance(plan, probability) else None


def litter(plan: Plan, item: Item, roles: Sequence[str], most: int) -> None:
    """Small things on top of a piece."""
    for _ in range(int(plan.rng.integers(0, most + 1))):
        role = roles[int(plan.rng.integers(len(roles)))]
        piece = plan.pick(role)
        if piece is not None:
            plan.put_on(piece, item)
    if chance(plan, 0.4) and item.top is not None:
        _drawn_on(plan, props.stack_of_paper(plan.rng), item)


def _drawn_on(plan: Plan, mesh: Mesh, item: Item) -> None:
    """Put something drawn on top of a piece."""
    low, high = mesh.bounds
    piece = Piece("", item.piece.use, mesh, np.array(high - low, dtype=float), None, "") \
        if item.piece is not None else None  # fmt: skip
    if piece is None:
        return
    placed = plan.put_on(piece, item)
    if placed is not None:
        plan.items[-1] = Item(placed.mesh, UNNAMED, placed.instance)


def decorate(plan: Plan, item: Item | None) -> None:
    """Put small things on a piece that is not too high for it."""
    if item is not None and item.top is not None and item.top < 1.5:
        litter(plan, item, ("plant_small", "vase", "table_lamp", "office_thing", "toy"), 3)


def rug(plan: Plan, place: tuple[float, float], yaw: float) -> None:
    """Lay a rug, its middle as near to a place as the room allows."""
    piece = plan.pick("rug")
    if piece is not None and chance(plan, 0.4):
        plan.put(piece, [*place, 0.003], yaw, solid=False, check=False)
        return
    size = (float(plan.rng.uniform(1.2, 2.4)), float(plan.rng.uniform(0.9, 1.7)), 0.012)
    half = footprint(np.array(size), yaw)
    middle = np.clip(np.array(place), half + 0.05, plan.size[:2] - half - 0.05)
    if plan.inside(middle - half, middle + half):
        mesh = box(size, textures.rug(plan.rng)).moved((*middle, 0.001), yaw)
        plan.add_mesh(mesh, LABEL["floor"], solid=False)


def hang_drawn(
    plan: Plan, mesh: Mesh, size: tuple[float, float, float], height: float | None, label: int
) -> None:
    """Hang something drawn on any wall where nothing is in the way."""
    for _ in range(8):
        side = plan.walls[int(plan.rng.integers(len(plan.walls)))]
        space = side.length - size[0] - 0.1
        if space <= 0:
            continue
        where = 0.05 + size[0] / 2 + float(plan.rng.random()) * space
        low_z = height if height is not None else float(plan.rng.uniform(1.05, 1.7))
        if low_z + size[2] > plan.size[2] - 0.1:
            continue
        x, y = side.start + side.along * where + side.inward * 0.01
        moved = mesh.moved((x, y, low_z), side.yaw)
        low, high = (bound.astype(np.float64) for bound in moved.bounds)
        if plan.is_free(low, high) and not _over_opening(plan, side, where, size, low_z):
            plan.add_mesh(moved, label)
            return


def _over_opening(
    plan: Plan, side: object, where: float, size: tuple[float, float, float], low: float
) -> bool:
    index = next(i for i, wall in enumerate(plan.walls) if wall is side)
    return any(
        o.wall == index
        and o.left < where + size[0] / 2 + 0.05
        and o.right > where - size[0] / 2 - 0.05
        and o.low < low + size[2]
        and o.high > low
        for o in plan.openings
    )


def _drawn_on_floor(plan: Plan, mesh: Mesh) -> None:
    """Put something drawn on the floor, mostly along a wall."""
    low, high = mesh.bounds
    size = (high - low).astype(np.float64)
    for _ in range(8):
        yaw = float(plan.rng.random() * 2 * np.pi)
        half = footprint(size, yaw)
        if chance(plan, 0.7):  # things end up along walls
            side = plan.walls[int(plan.rng.integers(len(plan.walls)))]
            where = plan.rng.random() * side.length
            place = side.start + side.along * where + side.inward * (half.max() + 0.05)
        else:
            place = plan.rng.random(2) * plan.size[:2]
        corner = np.array([*(place - half), 0.0])
        if plan.is_free(corner, np.array([*(place + half), size[2]])):
            plan.add_mesh(mesh.moved((*place, 0.0), yaw), UNNAMED)
            return


def carton(plan: Plan) -> None:
    """Put a box on the floor."""
    mesh = props.carton(plan.rng)
    _drawn_on_floor(plan, mesh)


def floor_things(plan: Plan, roles: Sequence[str], most: int) -> None:
    """Let up to so many things of some roles lie about."""
    for _ in range(int(plan.rng.integers(0, most + 1))):
        draw = plan.rng.random()
        if draw < 0.25:
            size = tuple(plan.rng.uniform(0.3, 0.8, 2))
            heap = props.cover(plan.rng, size, 0.07, textures.fabric(plan.rng))
            _drawn_on_floor(plan, heap)
            continue
        piece = plan.pick(roles[int(plan.rng.integers(len(roles)))])
        if piece is not None and piece.size[:2].max() < 1.3:
            if draw < 0.6:
                plan.put_at_wall(piece, gap=float(plan.rng.uniform(0.02, 0.3)), tries=4)
            else:
                plan.put_free(piece, margin=0.05, tries=4, turned=True)


def board(plan: Plan) -> None:
    """A whiteboard on the wall."""
    size = (float(plan.rng.uniform(1.0, 2.2)), 0.025, float(plan.rng.uniform(0.8, 1.2)))
    white = np.full((64, 64, 3), 238.0)
    scrawl = textures.smooth_noise(plan.rng, 64, 1.0) > 2.0
    white[scrawl] = textures.pick_color(plan.rng, (0.5, 1.0), (0.2, 0.7))
    hang_drawn(plan, box(size, white.astype(np.uint8)), size, 0.95, UNNAMED)


def shelves(plan: Plan, count: int) -> None:
    """Bookshelves of the catalogue, or drawn ones with books."""
    for _ in range(count):
        piece = plan.pick("bookshelf")
        if piece is not None and chance(plan, 0.55):
            decorate(plan, plan.put_at_wall(piece, front=0.3))
            continue
        rng = plan.rng
        width, depth = float(rng.uniform(0.4, 1.6)), float(rng.uniform(0.24, 0.38))
        size = (width, depth, float(rng.uniform(0.75, 2.15)))
        wall = int(rng.integers(len(plan.walls)))
        side = plan.walls[wall]
        space = side.length - size[0]
        if space < 0.1:
            continue
        where = size[0] / 2 + float(rng.random()) * space
        x, y = side.start + side.along * where + side.inward * (size[1] / 2 + 0.02)
        half = footprint(np.array(size), side.yaw)
        low, high = np.array([x - half[0], y - half[1], 0.0]), np.array([0.0, 0.0, size[2]])
        high[:2] = (x + half[0], y + half[1])
        if plan.is_free(low, high):
            unit, content = props.shelf_unit(rng, size)
            plan.add_mesh(unit.moved((x, y, 0.0), side.yaw), LABEL["bookshelf"])
            plan.add_mesh(content.moved((x, y, 0.0), side.yaw), UNNAMED, solid=False)


def beside(plan: Plan, item: Item, role: str, on_top: Sequence[str]) -> Item | None:
    """Put a piece to the left or right, backs in line, and things on it."""
    piece = plan.pick(role)
    if piece is None or item.piece is None:
        return None
    sides = [1.0, -1.0] if chance(plan, 0.5) else [-1.0, 1.0]
    for side in sides:
        across = side * (item.piece.size[0] + piece.size[0] + 0.08) / 2
        back = (item.piece.size[1] - piece.size[1]) / 2
        cos, sin = np.cos(item.yaw), np.sin(item.yaw)
        x = item.position[0] + cos * across - sin * back
        y = item.position[1] + sin * across + cos * back
        placed = plan.put(piece, [x, y, 0.0], item.yaw)
        if placed is not None:
            if on_top:
                litter(plan, placed, on_top, 2)
            return placed
    return None


def opposite_wall(plan: Plan, item: Item) -> int | None:
    """Index of a wall that a piece faces, None where there is none."""
    facing = np.array([np.sin(item.yaw), -np.cos(item.yaw)])
    found = [i for i, wall in enumerate(plan.walls) if wall.inward @ facing < -0.9]
    return found[0] if found else None
