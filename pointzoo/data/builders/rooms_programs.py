"""What stands in each kind of room, and where: the rules of furnishing.

A program is a function of a :class:`~pointzoo.data.builders.rooms_plan.Plan`; big things come
first, then what belongs to them, then what lies about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_mesh import Mesh, box, plain
from pointzoo.data.builders.rooms_pieces import Piece
from pointzoo.data.builders.rooms_plan import Item, Plan, footprint
from pointzoo.data.scene_classes import SCANNET20

_LABEL = {name: index for index, name in enumerate(SCANNET20)}
_UNNAMED = -1
_OPENINGS = ("door", "double_door", "window")


def furnish(plan: Plan, kind: str) -> None:
    """Put the furniture of a kind of room into it."""
    PROGRAMS[kind](plan)
    _everywhere(plan, kind)


def _front(item: Item, distance: float) -> tuple[float, float]:
    """Point on the floor, ``distance`` before the middle of a piece."""
    x, y = item.position[:2]
    return x + np.sin(item.yaw) * distance, y - np.cos(item.yaw) * distance


def _chance(plan: Plan, probability: float) -> bool:
    return bool(plan.rng.random() < probability)


def _at_wall(plan: Plan, role: str, *, front: float = 0.0, tries: int = 36) -> Item | None:
    """Put a piece of a role to any wall, with less space before it where there is none."""
    for space in (front, front, front / 4):
        piece = plan.pick(role)
        item = None if piece is None else plan.put_at_wall(piece, front=space, tries=tries)
        if item is not None:
            return item
    return None


def _living(plan: Plan) -> None:
    role = "sofa_corner" if _chance(plan, 0.25) and plan.size[:2].min() > 3.4 else "sofa"
    sofa = _at_wall(plan, role, front=0.5) or _at_wall(plan, "sofa", front=0.4)
    if sofa is None and (piece := plan.pick("sofa")) is not None:
        sofa = plan.put_free(piece, margin=0.1)
    if sofa is not None and sofa.piece is not None:
        _around_sofa(plan, sofa, sofa.piece)
    for _ in range(int(plan.rng.integers(0, 3))):
        armchair = plan.pick("armchair")
        if armchair is not None:
            plan.put_at_wall(armchair, gap=0.15) if _chance(plan, 0.6) else plan.put_free(
                armchair, turned=True
            )
    _shelves(plan, int(plan.rng.integers(0, 3)))
    if _chance(plan, 0.5):
        _decorate(plan, _at_wall(plan, "dresser", front=0.3))
    if _chance(plan, 0.3):
        _at_wall(plan, "fireplace", front=0.4)
    if _chance(plan, 0.12):
        _at_wall(plan, "piano", front=0.4)
    if plan.size[:2].prod() > 11 and _chance(plan, 0.65):
        _dining_set(plan)
    if _chance(plan, 0.25):
        _desk_set(plan)
    if _chance(plan, 0.2):
        _at_wall(plan, "aquarium")


def _around_sofa(plan: Plan, sofa: Item, piece: Piece) -> None:
    """Cushions on it, a low table before it, a television opposite."""
    _cushions(plan, sofa, piece)
    if (table := plan.pick("coffee_table")) is not None and _chance(plan, 0.8):
        reach = piece.size[1] / 2 + table.size[1] / 2 + plan.rng.uniform(0.25, 0.45)
        x, y = _front(sofa, reach)
        item = plan.put(table, [x, y, 0.0], sofa.yaw)
        if item is not None:
            _litter(plan, item, ("tableware", "office_thing", "plant_small", "vase"), 3)
    if _chance(plan, 0.5):
        _rug(plan, _front(sofa, piece.size[1] / 2 + 0.7), sofa.yaw)
    if _chance(plan, 0.5):
        _beside(plan, sofa, "side_table", ("table_lamp", "plant_small", "tableware"))
    if _chance(plan, 0.4):
        _beside(plan, sofa, "floor_lamp", ())
    if _chance(plan, 0.8):
        _television(plan, _opposite_wall(plan, sofa))


def _opposite_wall(plan: Plan, item: Item) -> int | None:
    facing = np.array([np.sin(item.yaw), -np.cos(item.yaw)])
    found = [i for i, wall in enumerate(plan.walls) if wall.inward @ facing < -0.9]
    return found[0] if found else None


def _television(plan: Plan, wall: int | None) -> None:
    stand = plan.pick("tv_stand") or plan.pick("dresser")
    if stand is None or _chance(plan, 0.25):
        stand = plan.pick("dresser")
    if stand is None:
        return
    item = plan.put_at_wall(stand, wall=wall, front=0.3)
    if item is None or item.top is None or item.piece is None:
        return
    set_ = plan.pick("tv" if _chance(plan, 0.6) else "wall_tv")
    if set_ is None:
        return
    if set_.use.role == "tv" and item.piece.size[2] < 1.0:
        plan.put(set_, [*item.position[:2], item.top], item.yaw)
    else:
        _hang(plan, set_, item, 1.0 + 0.2 * plan.rng.random())
    _litter(plan, item, ("stereo", "plant_small", "vase"), 2)


def _hang(plan: Plan, piece: Piece, over: Item, height: float) -> Item | None:
    """Hang something on the wall behind a piece."""
    assert over.piece is not None
    back = -(over.piece.size[1] / 2 - piece.size[1] / 2 + 0.01)
    x, y = _front(over, back)
    return plan.put(piece, [x, y, max(height, over.piece.size[2] + 0.05)], over.yaw)


def _beside(plan: Plan, item: Item, role: str, on_top: Sequence[str]) -> Item | None:
    """Put a piece to the left or right, backs in line, and things on it."""
    piece = plan.pick(role)
    if piece is None or item.piece is None:
        return None
    sides = [1.0, -1.0] if _chance(plan, 0.5) else [-1.0, 1.0]
    for side in sides:
        across = side * (item.piece.size[0] + piece.size[0] + 0.08) / 2
        back = (item.piece.size[1] - piece.size[1]) / 2
        cos, sin = np.cos(item.yaw), np.sin(item.yaw)
        x = item.position[0] + cos * across - sin * back
        y = item.position[1] + sin * across + cos * back
        placed = plan.put(piece, [x, y, 0.0], item.yaw)
        if placed is not None:
            if on_top:
                _litter(plan, placed, on_top, 2)
            return placed
    return None


def _cushions(plan: Plan, sofa: Item, piece: Piece) -> None:
    image = textures.fabric(plan.rng)
    for _ in range(int(plan.rng.integers(0, 4))):
        size = (0.42, 0.42, 0.13)
        pillow = props.cushion(plan.rng, size, image).moved((0, 0, -0.065))
        tilt = plan.rng.uniform(0.9, 1.3)
        cos, sin = np.cos(tilt), np.sin(tilt)
        lean = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=np.float32)
        mesh = Mesh(
            pillow.triangles @ lean.T, pillow.uv, pillow.texture, pillow.textures, pillow.glass
        )
        across = plan.rng.uniform(-0.35, 0.35) * piece.size[0]
        back = -piece.size[1] * 0.08
        x, y = _front(sofa, back)
        x += np.cos(sofa.yaw) * across
        y += np.sin(sofa.yaw) * across
        plan.add_mesh(mesh.moved((x, y, 0.62), sofa.yaw), _UNNAMED, solid=False)
    if _chance(plan, 0.3):
        blanket = props.cover(plan.rng, (0.6, 0.5), 0.05, textures.fabric(plan.rng))
        x, y = _front(sofa, piece.size[1] * 0.15)
        plan.add_mesh(blanket.moved((x, y, 0.45), sofa.yaw), _UNNAMED, solid=False)


def _rug(plan: Plan, place: tuple[float, float], yaw: float) -> None:
    piece = plan.pick("rug")
    if piece is not None and _chance(plan, 0.4):
        plan.put(piece, [*place, 0.003], yaw, solid=False, check=False)
        return
    size = (float(plan.rng.uniform(1.2, 2.4)), float(plan.rng.uniform(0.9, 1.7)), 0.012)
    half = footprint(np.array(size), yaw)
    middle = np.clip(np.array(place), half + 0.05, plan.size[:2] - half - 0.05)
    if plan.inside(middle - half, middle + half):
        mesh = box(size, textures.rug(plan.rng)).moved((*middle, 0.001), yaw)
        plan.add_mesh(mesh, _LABEL["floor"], solid=False)


def _shelves(plan: Plan, count: int) -> None:
    """Bookshelves of the catalogue, or drawn ones with books."""
    for _ in range(count):
        piece = plan.pick("bookshelf")
        if piece is not None and _chance(plan, 0.55):
            _decorate(plan, plan.put_at_wall(piece, front=0.3))
            continue
        rng = plan.rng
        size = (rng.uniform(0.4, 1.6), rng.uniform(0.24, 0.38), rng.uniform(0.75, 2.15))
        size = tuple(map(float, size))
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
            plan.add_mesh(unit.moved((x, y, 0.0), side.yaw), _LABEL["bookshelf"])
            plan.add_mesh(content.moved((x, y, 0.0), side.yaw), _UNNAMED, solid=False)


def _dining_set(plan: Plan, role: str = "dining_table") -> None:
    table = plan.pick(role)
    if table is None:
        return
    item = plan.put_free(table, margin=0.55) or plan.put_free(table, margin=0.3)
    item = item or plan.put_free(table, margin=0.1, tries=60)
    if item is None:
        item = plan.put_at_wall(table, front=0.5)
    if item is None:
        return
    chair = plan.pick("chair")
    if chair is None:
        return
    _chairs_around(plan, item, chair)
    if _chance(plan, 0.3):
        _rug(plan, (item.position[0], item.position[1]), item.yaw)
    _litter(plan, item, ("tableware", "tableware", "vase", "plant_small", "office_thing"), 5)


def _chairs_around(plan: Plan, table: Item, chair: Piece) -> None:
    """Chairs along the long sides and maybe at the ends, pushed in more or less."""
    assert table.piece is not None
    width, depth = table.piece.size[:2]
    seats = max(1, int(width / 0.68))
    offsets = (np.arange(seats) - (seats - 1) / 2) * width / seats
    places = [(x, side * depth / 2, side) for x in offsets for side in (-1.0, 1.0)]
    for across, edge, side in places:
        if _chance(plan, 0.92):
            out = plan.rng.uniform(-0.15, 0.25) + chair.size[1] / 2
            _seat(plan, table, chair, (across, edge + side * out), 0.0 if side > 0 else np.pi)
    if width > 1.1:
        for side in (-1.0, 1.0):
            if _chance(plan, 0.45):
                out = plan.rng.uniform(-0.08, 0.2) + chair.size[1] / 2
                turn = -side * np.pi / 2
                _seat(plan, table, chair, (side * (width / 2 + out), 0.0), turn)


def _seat(
    plan: Plan, table: Item, chair: Piece, offset: tuple[float, float], turn: float
) -> Item | None:
    """Put a chair at an offset in the frame of the table; it may reach under the table."""
    cos, sin = np.cos(table.yaw), np.sin(table.yaw)
    x = table.position[0] + cos * offset[0] - sin * offset[1]
    y = table.position[1] + sin * offset[0] + cos * offset[1]
    yaw = table.yaw + turn + plan.rng.normal(0, 0.15)
    hidden = [s for s in plan.solids if not _is_of(s.low, s.high, table)]
    solids, plan.solids = plan.solids, hidden
    try:
        item = plan.put(chair, [x, y, 0.0], yaw, margin=-0.03)
    finally:
        plan.solids = solids
    if item is not None:
        half = footprint(chair.size, yaw)
        plan.block([x - half[0], y - half[1], 0], [x + half[0], y + half[1], chair.size[2]])
    return item


def _is_of(low: np.ndarray, high: np.ndarray, item: Item) -> bool:  # type: ignore[type-arg]
    middle = (low[:2] + high[:2]) / 2
    return bool(np.abs(middle - item.position[:2]).max() < 1e-6 and abs(low[2]) < 0.02)


def _desk_set(plan: Plan) -> Item | None:
    desk = plan.pick("desk")
    if desk is None:
        return None
    item = plan.put_at_wall(desk, front=0.6)
    if item is None:
        return None
    chair = plan.pick("office_chair" if _chance(plan, 0.75) else "chair")
    if chair is not None:
        out = desk.size[1] / 2 + chair.size[1] / 2 + plan.rng.uniform(-0.2, 0.3)
        across = plan.rng.uniform(-0.15, 0.15)
        item_yaw = plan.rng.normal(0, 0.4)
        _seat(plan, item, chair, (across, -out), np.pi + item_yaw)
    if (computer := plan.pick("computer")) is not None and _chance(plan, 0.8):
        plan.put_on(computer, item, back=True)
    _litter(plan, item, ("office_thing", "office_thing", "table_lamp", "tableware", "printer"), 5)
    return item


def _litter(plan: Plan, item: Item, roles: Sequence[str], most: int) -> None:
    """Small things on top of a piece."""
    for _ in range(int(plan.rng.integers(0, most + 1))):
        role = roles[int(plan.rng.integers(len(roles)))]
        piece = plan.pick(role)
        if piece is not None:
            plan.put_on(piece, item)
    if _chance(plan, 0.4) and item.top is not None:
        _drawn_on(plan, props.stack_of_paper(plan.rng), item)


def _drawn_on(plan: Plan, mesh: Mesh, item: Item) -> None:
    low, high = mesh.bounds
    piece = Piece("", item.piece.use, mesh, np.array(high - low, dtype=float), None, "") \
        if item.piece is not None else None  # fmt: skip
    if piece is None:
        return
    placed = plan.put_on(piece, item)
    if placed is not None:
        plan.items[-1] = Item(placed.mesh, _UNNAMED, placed.instance)


def _decorate(plan: Plan, item: Item | None) -> None:
    if item is not None and item.top is not None and item.top < 1.5:
        _litter(plan, item, ("plant_small", "vase", "table_lamp", "office_thing", "toy"), 3)


def _bedroom(plan: Plan) -> None:
    double = plan.size[:2].min() > 2.8 and _chance(plan, 0.7)
    bed = _at_wall(plan, "bed_double" if double else "bed_single", front=0.4)
    bed = bed or _at_wall(plan, "bed_single", front=0.3)
    if bed is not None and bed.piece is not None:
        _bedding(plan, bed, bed.piece)
        for _ in range(2 if double else 1):
            if _chance(plan, 0.8):
                _beside(plan, bed, "nightstand", ("table_lamp", "office_thing", "tableware"))
        if _chance(plan, 0.35):
            _rug(plan, _front(bed, bed.piece.size[1] / 2 + 0.3), bed.yaw)
    for _ in range(int(plan.rng.integers(1, 3))):
        _at_wall(plan, "wardrobe", front=0.5)
    if _chance(plan, 0.5):
        _decorate(plan, _at_wall(plan, "dresser", front=0.4))
    if _chance(plan, 0.3):
        dressing = _at_wall(plan, "dressing_table", front=0.5)
        stool = plan.pick("stool")
        if dressing is not None and stool is not None:
            x, y = _front(dressing, 0.6)
            plan.put(stool, [x, y, 0.0], dressing.yaw)
    if _chance(plan, 0.45):
        _desk_set(plan)
    _shelves(plan, int(plan.rng.integers(0, 2)))
    if _chance(plan, 0.3):
        armchair = plan.pick("armchair")
        if armchair is not None:
            plan.put_at_wall(armchair, gap=0.1)
    if _chance(plan, 0.25):
        _at_wall(plan, "clothes_rack")
    if _chance(plan, 0.2):
        _television(plan, None if bed is None else _opposite_wall(plan, bed))
    _floor_things(plan, ("shoes", "bed_thing", "floor_thing"), 4)


def _bedding(plan: Plan, bed: Item, piece: Piece) -> None:
    """Pillows and a rumpled blanket; the blanket counts as bed."""
    width, depth = piece.size[:2]
    level = min(0.55, piece.size[2] * 0.62)
    if piece.size[2] > 1.3 or not _chance(plan, 0.75):
        return
    size = (width * 0.85, depth * plan.rng.uniform(0.4, 0.65))
    blanket = props.cover(plan.rng, size, 0.1, textures.fabric(plan.rng))
    x, y = _front(bed, depth * 0.12)
    plan.add_mesh(blanket.moved((x, y, level - 0.06), bed.yaw), _LABEL["bed"], solid=False)
    plan.items[-1] = Item(plan.items[-1].mesh, _LABEL["bed"], bed.instance)
    image = textures.fabric(plan.rng, light=True)
    count = 2 if width > 1.2 else 1
    for k in range(count):
        pillow = props.cushion(plan.rng, (0.62, 0.4, 0.14), image)
        across = (k - (count - 1) / 2) * width * 0.42
        x, y = _front(bed, -depth * 0.33)
        x += np.cos(bed.yaw) * across
        y += np.sin(bed.yaw) * across
        yaw = bed.yaw + plan.rng.normal(0, 0.12)
        plan.add_mesh(pillow.moved((x, y, level - 0.02), yaw), _UNNAMED, solid=False)


def _children(plan: Plan) -> None:
    bed = _at_wall(plan, "bed_child", front=0.3) or _at_wall(plan, "bed_single", front=0.3)
    if bed is not None and bed.piece is not None:
        _bedding(plan, bed, bed.piece)
    if _chance(plan, 0.8):
        _at_wall(plan, "wardrobe", front=0.4)
    _shelves(plan, int(plan.rng.integers(1, 3)))
    if _chance(plan, 0.6):
        _desk_set(plan)
    table = plan.pick("child_table")
    if table is not None and _chance(plan, 0.6):
        item = plan.put_free(table)
        chair = plan.pick("child_chair")
        if item is not None and chair is not None:
            _chairs_around(plan, item, chair)
    if _chance(plan, 0.6):
        _rug(plan, (float(plan.size[0] / 2), float(plan.size[1] / 2)), 0.0)
    _floor_things(plan, ("toy", "toy", "shoes", "floor_thing"), 8)


def _kitchen(plan: Plan) -> None:
    order = sorted(range(len(plan.walls)), key=lambda i: -plan.walls[i].length)
    doors = {o.wall for o in plan.openings if o.low < 0.5}
    order = sorted(order, key=lambda i: i in doors)  # stable: long walls without a door first
    placed = 0
    for wall in order:
        if placed < 1 or (placed < 2 and _chance(plan, 0.3)):
            placed += _kitchen_run(plan, wall, sink=placed == 0)
    _at_wall(plan, "fridge", front=0.5)
    if _chance(plan, 0.6):
        _at_wall(plan, "stove", front=0.5)
    if _chance(plan, 0.35):
        _at_wall(plan, "washer", front=0.4)
    island = plan.pick("kitchen_island")
    if island is not None and plan.size[:2].min() > 3.4 and _chance(plan, 0.35):
        item = plan.put_free(island, margin=0.7)
        if item is not None:
            _litter(plan, item, ("tableware", "worktop"), 3)
            _stools_at(plan, item)
    if _chance(plan, 0.75):
        _dining_set(plan)
    _floor_things(plan, ("bin", "floor_thing", "broom"), 2)


def _stools_at(plan: Plan, item: Item) -> None:
    stool = plan.pick("bar_stool" if _chance(plan, 0.5) else "bar_chair")
    if stool is not None and item.piece is not None:
        for across in (-0.35, 0.35):
            _seat(plan, item, stool, (across, item.piece.size[1] / 2 + 0.25), 0.0)


def _kitchen_run(plan: Plan, wall: int, *, sink: bool) -> bool:
    """Put lower cabinets under one worktop and cabinets above; False where there is no room."""
    rng = plan.rng
    side = plan.walls[wall]
    base = plan.pick("kitchen_base", lambda p: 0.4 < p.size[0] and p.size[2] > 0.8)
    if base is None:
        return False
    top, depth = float(min(base.size[2], 0.9)), float(base.size[1])
    count = int(min((side.length - 0.1) // base.size[0], rng.integers(3, 7)))
    begin = 0.03 if _chance(plan, 0.5) else side.length - 0.03 - count * base.size[0]
    placed = []
    for k in range(count):
        along = begin + (k + 0.5) * float(base.size[0])
        item = plan.put_at_wall(base, wall=wall, along=along, tries=1)
        if item is not None:
            placed.append((along, item))
    for start, stop in _stretches([along for along, _ in placed], float(base.size[0])):
        _worktop(plan, wall, (start, stop), top, depth, sink=sink)
        sink = False
        _upper_row(plan, wall, start, stop)
    return bool(placed)


def _stretches(places: Sequence[float], step: float) -> list[tuple[float, float]]:
    """Intervals covered by neighbours of one width."""
    found: list[tuple[float, float]] = []
    for place in places:
        low, high = place - step / 2, place + step / 2
        if found and low - found[-1][1] < 0.02:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return found


def _worktop(
    plan: Plan, wall: int, span: tuple[float, float], top: float, depth: float, *, sink: bool
) -> None:
    rng, side = plan.rng, plan.walls[wall]
    length, middle = span[1] - span[0], (span[0] + span[1]) / 2
    at = float(rng.uniform(-1, 1) * (length / 2 - 0.4)) if sink and length > 0.85 else None
    image = textures.stone(rng) if _chance(plan, 0.6) else textures.wood(rng)
    deep = depth + 0.03
    counter, basin = props.sink_worktop(rng, length, deep, image, at)
    place = side.start + side.along * middle + side.inward * (deep / 2 + 0.005)
    where = (float(place[0]), float(place[1]), top)
    plan.add_mesh(counter.moved(where, side.yaw), _LABEL["counter"])
    if basin is not None:
        plan.add_mesh(basin.moved(where, side.yaw), _LABEL["sink"])
    for _ in range(int(rng.integers(2, 7))):
        piece = plan.pick("worktop" if _chance(plan, 0.55) else "tableware")
        if piece is not None and piece.size[1] < depth and piece.size[0] < length:
            along = span[0] + piece.size[0] / 2 + rng.random() * (length - piece.size[0])
            out = rng.random() * max(depth - piece.size[1] - 0.05, 0.0)
            plan.put_at_wall(
                piece, wall=wall, along=float(along), height=top + 0.042, gap=0.03 + out, tries=1
            )


def _upper_row(plan: Plan, wall: int, start: float, stop: float) -> None:
    upper = plan.pick("kitchen_upper")
    if upper is None or not _chance(plan, 0.8):
        return
    height = float(plan.rng.uniform(1.38, 1.5))
    width = float(upper.size[0])
    hood = plan.pick("hood")
    gap = int(plan.rng.integers(0, 4))
    for k in range(int((stop - start) / width)):
        along = start + (k + 0.5) * width
        if k == gap and hood is not None and hood.size[0] < width + 0.1:
            plan.put_at_wall(hood, wall=wall, along=along, height=1.6, tries=1)
        elif _chance(plan, 0.85):
            plan.put_at_wall(upper, wall=wall, along=along, height=height, gap=0.005, tries=1)


def _bathroom(plan: Plan) -> None:
    draw = plan.rng.random()
    if draw < 0.8:
        bath = _at_wall(plan, "bathtub", front=0.3, tries=40)
        if bath is not None and _chance(plan, 0.7):
            _shower_curtain(plan, bath)
    _at_wall(plan, "toilet", front=0.4)
    if draw > 0.6:
        _at_wall(plan, "shower_stall", front=0.3)
    basin = _washing_place(plan)
    if basin is not None:
        _mirror(plan, basin)
    for role, chance in (("washer", 0.3), ("basket", 0.3), ("kitchen_tall", 0.1), ("bin", 0.4)):
        if _chance(plan, chance):
            _at_wall(plan, role)
    if _chance(plan, 0.25):
        _at_wall(plan, "toilet")
    if _chance(plan, 0.4):
        _rug(plan, (float(plan.size[0] / 2), float(plan.size[1] / 2)), 0.0)
    rack = plan.pick("towel_rack")
    if rack is not None:
        plan.put_at_wall(rack, height=float(plan.rng.uniform(0.9, 1.3)), gap=0.01)
    _floor_things(plan, ("toilet_small", "basket"), 2)


def _washing_place(plan: Plan) -> Item | None:
    draw = plan.rng.random()
    if draw < 0.3 and (hung := plan.pick("washbasin_wall")) is not None:
        return plan.put_at_wall(hung, height=float(0.86 - min(hung.size[2], 0.5)), front=0.4)
    if draw < 0.55 and (vanity := plan.pick("vanity")) is not None:
        return plan.put_at_wall(vanity, front=0.4)
    standing = plan.pick("washbasin") or plan.pick("washbasin_wall")
    return None if standing is None else plan.put_at_wall(standing, front=0.4)


def _mirror(plan: Plan, basin: Item) -> None:
    if basin.piece is None or basin.piece.size[2] > 1.3 or _chance(plan, 0.3):
        return
    width, height = float(plan.rng.uniform(0.4, 0.8)), float(plan.rng.uniform(0.5, 0.9))
    grey = textures.smooth_noise(plan.rng, 32, 3.0)[..., None] * 25 + [150, 160, 165]
    mesh = box((width, 0.02, height), np.clip(grey, 0, 255).astype(np.uint8))
    x, y = _front(basin, -(basin.piece.size[1] / 2 - 0.0))
    plan.add_mesh(mesh.moved((x, y, 1.15), basin.yaw), _UNNAMED)


def _shower_curtain(plan: Plan, bath: Item) -> None:
    """A curtain along the open side of a bathtub, drawn more or less."""
    assert bath.piece is not None
    rng = plan.rng
    width, depth = bath.piece.size[:2]
    span = float(width * rng.uniform(0.25, 0.85))
    model = plan.pick("shower_curtain")
    x, y = _front(bath, depth / 2 - 0.05)
    across = rng.choice([-1.0, 1.0]) * (width - span) / 2
    place = (x + np.cos(bath.yaw) * across, y + np.sin(bath.yaw) * across)
    if model is not None and _chance(plan, 0.3):
        plan.put(model, [*place, 0.25], bath.yaw, check=False)
    else:
        image = textures.fabric(rng, light=True)
        mesh = props.curtain(rng, span, 1.65, image)
        plan.add_mesh(mesh.moved((*place, 0.3), bath.yaw), _LABEL["shower curtain"])
    rod = box((width, 0.02, 0.02), plain((200, 200, 205)))
    plan.add_mesh(rod.moved((x, y, 1.97), bath.yaw), _UNNAMED, solid=False)


def _office(plan: Plan) -> None:
    for _ in range(int(np.clip(plan.size[:2].prod() / 6, 1, 5))):
        _desk_set(plan)
    for _ in range(int(plan.rng.integers(0, 4))):
        item = _at_wall(plan, "filing", front=0.3)
        _decorate(plan, item)
    _shelves(plan, int(plan.rng.integers(1, 4)))
    for role, chance in (("cooler", 0.3), ("safe", 0.15), ("drawing_table", 0.2), ("bin", 0.7)):
        if _chance(plan, chance):
            _at_wall(plan, role)
    if _chance(plan, 0.4):
        _dining_set(plan)
    if _chance(plan, 0.5):
        _board(plan)
    if _chance(plan, 0.25):
        _at_wall(plan, "sofa", front=0.3)
    _floor_things(plan, ("floor_thing",), 3)


def _board(plan: Plan) -> None:
    """A whiteboard on the wall."""
    size = (float(plan.rng.uniform(1.0, 2.2)), 0.025, float(plan.rng.uniform(0.8, 1.2)))
    white = np.full((64, 64, 3), 238.0)
    scrawl = textures.smooth_noise(plan.rng, 64, 1.0) > 2.0
    white[scrawl] = textures.pick_color(plan.rng, (0.5, 1.0), (0.2, 0.7))
    _hang_drawn(plan, box(size, white.astype(np.uint8)), size, 0.95, _UNNAMED)


def _dining(plan: Plan) -> None:
    _dining_set(plan)
    for _ in range(int(plan.rng.integers(1, 3))):
        _decorate(plan, _at_wall(plan, "dresser", front=0.3))
    _shelves(plan, int(plan.rng.integers(0, 3)))
    if _chance(plan, 0.4):
        _at_wall(plan, "fireplace", front=0.3)
    if _chance(plan, 0.3):
        _at_wall(plan, "piano", front=0.3)
    if _chance(plan, 0.3):
        _at_wall(plan, "armchair")


def _classroom(plan: Plan) -> None:
    """Tables in rows with chairs, a board in front."""
    table = plan.pick("desk") if _chance(plan, 0.3) else plan.pick("dining_table")
    chair = plan.pick("chair") if _chance(plan, 0.7) else plan.pick("class_seat")
    _board(plan)
    if table is None:
        return
    step = np.array([table.size[0] + 0.5, table.size[1] + 1.1])
    counts = np.maximum(((plan.size[:2] - 0.8) // step).astype(int), 1)
    for column in range(int(counts[0])):
        for row in range(int(counts[1])):
            if _chance(plan, 0.15):
                continue
            centre = 0.5 + step * (np.array([column, row]) + 0.5)
            item = plan.put(table, [*centre, 0.0], 0.0)
            if item is None or chair is None:
                continue
            for across in (-0.25, 0.25) if table.size[0] > 1.2 else (0.0,):
                out = table.size[1] / 2 + chair.size[1] / 2 + plan.rng.uniform(-0.1, 0.2)
                _seat(plan, item, chair, (across * table.size[0], out), 0.0)
            _litter(plan, item, ("office_thing", "tableware", "computer"), 2)
    _shelves(plan, int(plan.rng.integers(0, 3)))
    _floor_things(plan, ("bin", "floor_thing"), 3)


def _lounge(plan: Plan) -> None:
    for _ in range(int(plan.rng.integers(1, 4))):
        sofa = _at_wall(plan, "sofa", front=0.4)
        if sofa is not None and sofa.piece is not None:
            _around_sofa(plan, sofa, sofa.piece)
    for _ in range(int(plan.rng.integers(1, 5))):
        armchair = plan.pick("armchair")
        if armchair is not None:
            plan.put_free(armchair, turned=True)
    if _chance(plan, 0.3) and (game := plan.pick("table_other")) is not None:
        plan.put_free(game, margin=0.4)
    bar = plan.pick("bar_table")
    if bar is not None and _chance(plan, 0.5):
        item = plan.put_free(bar, margin=0.4)
        if item is not None:
            _stools_at(plan, item)
    _shelves(plan, int(plan.rng.integers(0, 3)))


def _store(plan: Plan) -> None:
    """A store or hobby room: shelves, appliances, boxes."""
    _shelves(plan, int(plan.rng.integers(1, 4)))
    roles = ("washer", "bench_work", "fitness", "wardrobe", "fridge", "safe", "clothes_rack")
    for role in roles:
        if _chance(plan, 0.5):
            _at_wall(plan, role, front=0.2)
    for _ in range(int(plan.rng.integers(3, 10))):
        _carton(plan)
    _floor_things(plan, ("floor_thing", "shoes", "bin", "broom"), 6)


PROGRAMS: dict[str, Callable[[Plan], None]] = {
    "living": _living,
    "bedroom": _bedroom,
    "kitchen": _kitchen,
    "bathroom": _bathroom,
    "office": _office,
    "dining": _dining,
    "children": _children,
    "classroom": _classroom,
    "lounge": _lounge,
    "store": _store,
}
"""What a kind of room is furnished by."""


_FILLERS: dict[str, tuple[str, ...]] = {
    "living": (
        "armchair",
        "dresser",
        "side_table",
        "chair",
        "sofa",
        "plant_big",
        "tv_stand",
        "stool",
    ),
    "bedroom": ("wardrobe", "dresser", "armchair", "nightstand", "chair", "stool", "clothes_rack"),
    "kitchen": ("kitchen_tall", "chair", "bin", "washer", "kitchen_base", "side_table", "fridge"),
    "bathroom": ("basket", "washer", "stool", "washbasin", "bin", "nightstand"),
    "office": ("filing", "desk", "office_chair", "chair", "dining_table", "plant_big", "armchair"),
    "dining": ("dresser", "chair", "chair", "armchair", "side_table", "plant_big", "sofa"),
    "children": ("dresser", "wardrobe", "toy", "child_chair", "nightstand", "stool"),
    "classroom": ("chair", "filing", "dresser", "side_table", "class_seat"),
    "lounge": ("sofa", "armchair", "side_table", "stool", "coffee_table", "plant_big"),
    "store": ("filing", "dresser", "chair", "side_table", "wardrobe", "fridge", "desk"),
}


def _fill(plan: Plan, kind: str) -> None:
    """Add furniture until a good part of the floor is taken."""
    wanted = plan.rng.uniform(0.35, 0.6)
    area = plan.size[:2].prod() - plan.notch.prod()
    roles = _FILLERS[kind]
    for _ in range(22):
        taken = sum(
            float(footprint(i.piece.size, i.yaw).prod() * 4)
            for i in plan.items
            if i.piece is not None and i.piece.use.role not in _OPENINGS and i.position[2] < 0.05
        )
        if taken > wanted * area:
            return
        role = roles[int(plan.rng.integers(len(roles)))]
        if role == "desk":
            _desk_set(plan)
        elif _chance(plan, 0.25):
            _shelves(plan, 1)
        else:
            _decorate(plan, _at_wall(plan, role, tries=12))


def _everywhere(plan: Plan, kind: str) -> None:
    """Pictures, plants, lamps, cartons and things on the floor."""
    _fill(plan, kind)
    if kind not in ("bathroom", "store"):
        for _ in range(int(plan.rng.integers(0, 6))):
            width = float(plan.rng.choice([0.3, 0.45, 0.6, 0.9, 1.2]) * plan.rng.uniform(0.8, 1.2))
            height = width * float(plan.rng.choice([0.7, 0.8, 1.0, 1.3]))
            mesh = props.picture(plan.rng, width, height)
            _hang_drawn(plan, mesh, (width, 0.05, height), None, _LABEL["picture"])
        for _ in range(int(plan.rng.integers(0, 3))):
            _at_wall(plan, "plant_big", tries=6)
    for _ in range(int(plan.rng.choice([0, 0, 1, 2, 4]))):
        _carton(plan)
    if _chance(plan, 0.4) and kind != "bathroom":
        _at_wall(plan, "floor_lamp", tries=6)
    if _chance(plan, 0.35):
        thing = plan.pick("wall_thing")
        if thing is not None:
            plan.put_at_wall(thing, height=float(plan.rng.uniform(1.3, 1.9)), gap=0.005)
    if _chance(plan, 0.15) and (cooling := plan.pick("ac")) is not None:
        plan.put_at_wall(cooling, height=float(plan.size[2] - 0.45), gap=0.005)
    if _chance(plan, 0.3) and not any(
        i.piece and i.piece.use.role == "radiator" for i in plan.items
    ):
        radiator = plan.pick("radiator")
        if radiator is not None:
            plan.put_at_wall(radiator, height=0.08, gap=0.03)
    _floor_things(plan, ("floor_thing", "bin"), 2)
    _lamp(plan)


def _lamp(plan: Plan) -> None:
    """A lamp at the ceiling, over the middle."""
    piece = plan.pick("hanging_lamp" if _chance(plan, 0.6) else "ceiling_lamp")
    if piece is not None and piece.size[2] < 1.2:
        x, y = plan.rectangles[0][0] + (plan.rectangles[0][1] - plan.rectangles[0][0]) / 2
        height = float(plan.size[2] - piece.size[2])
        plan.put(piece, [float(x), float(y), height], 0.0)


def _carton(plan: Plan) -> None:
    mesh = props.carton(plan.rng)
    _drawn_on_floor(plan, mesh)


def _drawn_on_floor(plan: Plan, mesh: Mesh) -> None:
    low, high = mesh.bounds
    size = (high - low).astype(np.float64)
    for _ in range(8):
        yaw = float(plan.rng.random() * 2 * np.pi)
        half = footprint(size, yaw)
        if _chance(plan, 0.7):  # things end up along walls
            side = plan.walls[int(plan.rng.integers(len(plan.walls)))]
            where = plan.rng.random() * side.length
            place = side.start + side.along * where + side.inward * (half.max() + 0.05)
        else:
            place = plan.rng.random(2) * plan.size[:2]
        corner = np.array([*(place - half), 0.0])
        if plan.is_free(corner, np.array([*(place + half), size[2]])):
            plan.add_mesh(mesh.moved((*place, 0.0), yaw), _UNNAMED)
            return


def _floor_things(plan: Plan, roles: Sequence[str], most: int) -> None:
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


def _hang_drawn(
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
