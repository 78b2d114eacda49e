"""What stands in each kind of room, and where: the rules of furnishing.

A program is a function of a :class:`~pointzoo.data.builders.rooms_plan.Plan`; big things come
first, then what belongs to them, then what lies about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders.rooms_basics import (
    LABEL,
    at_wall,
    beside,
    board,
    carton,
    chance,
    decorate,
    floor_things,
    front,
    hang_drawn,
    litter,
    maybe,
    opposite_wall,
    rug,
    shelves,
)
from pointzoo.data.builders.rooms_pieces import Piece
from pointzoo.data.builders.rooms_plan import Item, Plan, footprint
from pointzoo.data.builders.rooms_sets import (
    around_sofa,
    bedding,
    chairs_around,
    desk_set,
    dining_set,
    seat,
    stools_at,
    television,
)
from pointzoo.data.builders.rooms_wet import bathroom, kitchen

_OPENINGS = ("door", "double_door", "window")
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


def furnish(plan: Plan, kind: str) -> None:
    """Put the furniture of a kind of room into it."""
    PROGRAMS[kind](plan)
    _everywhere(plan, kind)


def _living(plan: Plan) -> None:
    role = "sofa_corner" if chance(plan, 0.25) and plan.size[:2].min() > 3.4 else "sofa"
    sofa = at_wall(plan, role, front=0.5) or at_wall(plan, "sofa", front=0.4)
    if sofa is None and (piece := plan.pick("sofa")) is not None:
        sofa = plan.put_free(piece, margin=0.1)
    if sofa is not None and sofa.piece is not None:
        around_sofa(plan, sofa, sofa.piece)
    for _ in range(int(plan.rng.integers(0, 3))):
        _armchair(plan)
    shelves(plan, int(plan.rng.integers(0, 3)))
    if chance(plan, 0.5):
        decorate(plan, at_wall(plan, "dresser", front=0.3))
    maybe(plan, 0.3, "fireplace", front=0.4)
    maybe(plan, 0.12, "piano", front=0.4)
    if plan.size[:2].prod() > 11 and chance(plan, 0.65):
        dining_set(plan)
    if chance(plan, 0.25):
        desk_set(plan)
    maybe(plan, 0.2, "aquarium")


def _armchair(plan: Plan) -> None:
    """An armchair near a wall or anywhere."""
    armchair = plan.pick("armchair")
    if armchair is None:
        return
    if chance(plan, 0.6):
        plan.put_at_wall(armchair, gap=0.15)
    else:
        plan.put_free(armchair, turned=True)


def _bedroom(plan: Plan) -> None:
    double = plan.size[:2].min() > 2.8 and chance(plan, 0.7)
    bed = at_wall(plan, "bed_double" if double else "bed_single", front=0.4)
    bed = bed or at_wall(plan, "bed_single", front=0.3)
    if bed is not None and bed.piece is not None:
        _around_bed(plan, bed, bed.piece, stands=2 if double else 1)
    for _ in range(int(plan.rng.integers(1, 3))):
        at_wall(plan, "wardrobe", front=0.5)
    if chance(plan, 0.5):
        decorate(plan, at_wall(plan, "dresser", front=0.4))
    if chance(plan, 0.3):
        _dressing_place(plan)
    if chance(plan, 0.45):
        desk_set(plan)
    shelves(plan, int(plan.rng.integers(0, 2)))
    armchair = plan.pick("armchair") if chance(plan, 0.3) else None
    if armchair is not None:
        plan.put_at_wall(armchair, gap=0.1)
    maybe(plan, 0.25, "clothes_rack")
    if chance(plan, 0.2):
        television(plan, None if bed is None else opposite_wall(plan, bed))
    floor_things(plan, ("shoes", "bed_thing", "floor_thing"), 4)


def _around_bed(plan: Plan, bed: Item, piece: Piece, *, stands: int) -> None:
    """Bedding, bedside tables and a rug."""
    bedding(plan, bed, piece)
    for _ in range(stands):
        if chance(plan, 0.8):
            beside(plan, bed, "nightstand", ("table_lamp", "office_thing", "tableware"))
    if chance(plan, 0.35):
        rug(plan, front(bed, piece.size[1] / 2 + 0.3), bed.yaw)


def _dressing_place(plan: Plan) -> None:
    """A dressing table with a stool before it."""
    dressing = at_wall(plan, "dressing_table", front=0.5)
    stool = plan.pick("stool")
    if dressing is not None and stool is not None:
        x, y = front(dressing, 0.6)
        plan.put(stool, [x, y, 0.0], dressing.yaw)


def _children(plan: Plan) -> None:
    bed = at_wall(plan, "bed_child", front=0.3) or at_wall(plan, "bed_single", front=0.3)
    if bed is not None and bed.piece is not None:
        bedding(plan, bed, bed.piece)
    if chance(plan, 0.8):
        at_wall(plan, "wardrobe", front=0.4)
    shelves(plan, int(plan.rng.integers(1, 3)))
    if chance(plan, 0.6):
        desk_set(plan)
    table = plan.pick("child_table")
    if table is not None and chance(plan, 0.6):
        item = plan.put_free(table)
        chair = plan.pick("child_chair")
        if item is not None and chair is not None:
            chairs_around(plan, item, chair)
    if chance(plan, 0.6):
        rug(plan, (float(plan.size[0] / 2), float(plan.size[1] / 2)), 0.0)
    floor_things(plan, ("toy", "toy", "shoes", "floor_thing"), 8)


def _office(plan: Plan) -> None:
    for _ in range(int(np.clip(plan.size[:2].prod() / 6, 1, 5))):
        desk_set(plan)
    for _ in range(int(plan.rng.integers(0, 4))):
        item = at_wall(plan, "filing", front=0.3)
        decorate(plan, item)
    shelves(plan, int(plan.rng.integers(1, 4)))
    for role, share in (("cooler", 0.3), ("safe", 0.15), ("drawing_table", 0.2), ("bin", 0.7)):
        if chance(plan, share):
            at_wall(plan, role)
    if chance(plan, 0.4):
        dining_set(plan)
    if chance(plan, 0.5):
        board(plan)
    if chance(plan, 0.25):
        at_wall(plan, "sofa", front=0.3)
    floor_things(plan, ("floor_thing",), 3)


def _dining(plan: Plan) -> None:
    dining_set(plan)
    for _ in range(int(plan.rng.integers(1, 3))):
        decorate(plan, at_wall(plan, "dresser", front=0.3))
    shelves(plan, int(plan.rng.integers(0, 3)))
    if chance(plan, 0.4):
        at_wall(plan, "fireplace", front=0.3)
    if chance(plan, 0.3):
        at_wall(plan, "piano", front=0.3)
    if chance(plan, 0.3):
        at_wall(plan, "armchair")


def _classroom(plan: Plan) -> None:
    """Tables in rows with chairs, a board in front."""
    table = plan.pick("desk") if chance(plan, 0.3) else plan.pick("dining_table")
    chair = plan.pick("chair") if chance(plan, 0.7) else plan.pick("class_seat")
    board(plan)
    if table is None:
        return
    step = np.array([table.size[0] + 0.5, table.size[1] + 1.1])
    counts = np.maximum(((plan.size[:2] - 0.8) // step).astype(int), 1)
    for column in range(int(counts[0])):
        for row in range(int(counts[1])):
            if chance(plan, 0.15):
                continue
            centre = 0.5 + step * (np.array([column, row]) + 0.5)
            item = plan.put(table, [*centre, 0.0], 0.0)
            if item is None or chair is None:
                continue
            for across in (-0.25, 0.25) if table.size[0] > 1.2 else (0.0,):
                out = table.size[1] / 2 + chair.size[1] / 2 + plan.rng.uniform(-0.1, 0.2)
                seat(plan, item, chair, (across * table.size[0], out), 0.0)
            litter(plan, item, ("office_thing", "tableware", "computer"), 2)
    shelves(plan, int(plan.rng.integers(0, 3)))
    floor_things(plan, ("bin", "floor_thing"), 3)


def _lounge(plan: Plan) -> None:
    for _ in range(int(plan.rng.integers(1, 4))):
        sofa = at_wall(plan, "sofa", front=0.4)
        if sofa is not None and sofa.piece is not None:
            around_sofa(plan, sofa, sofa.piece)
    for _ in range(int(plan.rng.integers(1, 5))):
        armchair = plan.pick("armchair")
        if armchair is not None:
            plan.put_free(armchair, turned=True)
    if chance(plan, 0.3) and (game := plan.pick("table_other")) is not None:
        plan.put_free(game, margin=0.4)
    bar = plan.pick("bar_table")
    if bar is not None and chance(plan, 0.5):
        item = plan.put_free(bar, margin=0.4)
        if item is not None:
            stools_at(plan, item)
    shelves(plan, int(plan.rng.integers(0, 3)))


def _store(plan: Plan) -> None:
    """A store or hobby room: shelves, appliances, boxes."""
    shelves(plan, int(plan.rng.integers(1, 4)))
    roles = ("washer", "bench_work", "fitness", "wardrobe", "fridge", "safe", "clothes_rack")
    for role in roles:
        if chance(plan, 0.5):
            at_wall(plan, role, front=0.2)
    for _ in range(int(plan.rng.integers(3, 10))):
        carton(plan)
    floor_things(plan, ("floor_thing", "shoes", "bin", "broom"), 6)


PROGRAMS: dict[str, Callable[[Plan], None]] = {
    "living": _living,
    "bedroom": _bedroom,
    "kitchen": kitchen,
    "bathroom": bathroom,
    "office": _office,
    "dining": _dining,
    "children": _children,
    "classroom": _classroom,
    "lounge": _lounge,
    "store": _store,
}
"""What a kind of room is furnished by."""


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
            desk_set(plan)
        elif chance(plan, 0.25):
            shelves(plan, 1)
        else:
            decorate(plan, at_wall(plan, role, tries=12))


def _everywhere(plan: Plan, kind: str) -> None:
    """More furniture, then pictures, plants, lamps, cartons and things on the floor."""
    _fill(plan, kind)
    if kind not in ("bathroom", "store"):
        _pictures(plan)
        for _ in range(int(plan.rng.integers(0, 3))):
            at_wall(plan, "plant_big", tries=6)
    for _ in range(int(plan.rng.choice([0, 0, 1, 2, 4]))):
        carton(plan)
    if chance(plan, 0.4) and kind != "bathroom":
        at_wall(plan, "floor_lamp", tries=6)
    _on_walls(plan)
    floor_things(plan, ("floor_thing", "bin"), 2)
    _lamp(plan)


def _pictures(plan: Plan) -> None:
    for _ in range(int(plan.rng.integers(0, 6))):
        width = float(plan.rng.choice([0.3, 0.45, 0.6, 0.9, 1.2]) * plan.rng.uniform(0.8, 1.2))
        height = width * float(plan.rng.choice([0.7, 0.8, 1.0, 1.3]))
        mesh = props.picture(plan.rng, width, height)
        hang_drawn(plan, mesh, (width, 0.05, height), None, LABEL["picture"])


def _on_walls(plan: Plan) -> None:
    """Clocks and the like, an air conditioner, a radiator where there is none."""
    thing = plan.pick("wall_thing") if chance(plan, 0.35) else None
    if thing is not None:
        plan.put_at_wall(thing, height=float(plan.rng.uniform(1.3, 1.9)), gap=0.005)
    cooling = plan.pick("ac") if chance(plan, 0.15) else None
    if cooling is not None:
        plan.put_at_wall(cooling, height=float(plan.size[2] - 0.45), gap=0.005)
    heated = any(i.piece and i.piece.use.role == "radiator" for i in plan.items)
    radiator = plan.pick("radiator") if chance(plan, 0.3) and not heated else None
    if radiator is not None:
        plan.put_at_wall(radiator, height=0.08, gap=0.03)


def _lamp(plan: Plan) -> None:
    """A lamp at the ceiling, over the middle."""
    piece = plan.pick("hanging_lamp" if chance(plan, 0.6) else "ceiling_lamp")
    if piece is not None and piece.size[2] < 1.2:
        x, y = plan.rectangles[0][0] + (plan.rectangles[0][1] - plan.rectangles[0][0]) / 2
        height = float(plan.size[2] - piece.size[2])
        plan.put(piece, [float(x), float(y), height], 0.0)
