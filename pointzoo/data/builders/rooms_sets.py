"""Pieces that belong together: table and chairs, desk and chair, sofa and television, bedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_basics import (
    LABEL,
    UNNAMED,
    beside,
    chance,
    front,
    litter,
    opposite_wall,
    rug,
)
from pointzoo.data.builders.rooms_mesh import Mesh
from pointzoo.data.builders.rooms_pieces import Piece
from pointzoo.data.builders.rooms_plan import Item, Plan, footprint


def television(plan: Plan, wall: int | None) -> None:
    """Put a low cabinet to a wall and a television on it or over it."""
    stand = plan.pick("tv_stand") or plan.pick("dresser")
    if stand is None or chance(plan, 0.25):
        stand = plan.pick("dresser")
    if stand is None:
        return
    item = plan.put_at_wall(stand, wall=wall, front=0.3)
    if item is None or item.top is None or item.piece is None:
        return
    set_ = plan.pick("tv" if chance(plan, 0.6) else "wall_tv")
    if set_ is None:
        return
    if set_.use.role == "tv" and item.piece.size[2] < 1.0:
        plan.put(set_, [*item.position[:2], item.top], item.yaw)
    else:
        _hang(plan, set_, item, 1.0 + 0.2 * plan.rng.random())
    litter(plan, item, ("stereo", "plant_small", "vase"), 2)


def _hang(plan: Plan, piece: Piece, over: Item, height: float) -> Item | None:
    """Hang something on the wall behind a piece."""
    assert over.piece is not None
    back = -(over.piece.size[1] / 2 - piece.size[1] / 2 + 0.01)
    x, y = front(over, back)
    return plan.put(piece, [x, y, max(height, over.piece.size[2] + 0.05)], over.yaw)


def around_sofa(plan: Plan, sofa: Item, piece: Piece) -> None:
    """Cushions on it, a low table before it, a television opposite."""
    _cushions(plan, sofa, piece)
    if (table := plan.pick("coffee_table")) is not None and chance(plan, 0.8):
        reach = piece.size[1] / 2 + table.size[1] / 2 + plan.rng.uniform(0.25, 0.45)
        x, y = front(sofa, reach)
        item = plan.put(table, [x, y, 0.0], sofa.yaw)
        if item is not None:
            litter(plan, item, ("tableware", "office_thing", "plant_small", "vase"), 3)
    if chance(plan, 0.5):
        rug(plan, front(sofa, piece.size[1] / 2 + 0.7), sofa.yaw)
    if chance(plan, 0.5):
        beside(plan, sofa, "side_table", ("table_lamp", "plant_small", "tableware"))
    if chance(plan, 0.4):
        beside(plan, sofa, "floor_lamp", ())
    if chance(plan, 0.8):
        television(plan, opposite_wall(plan, sofa))


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
        x, y = front(sofa, back)
        x += np.cos(sofa.yaw) * across
        y += np.sin(sofa.yaw) * across
        plan.add_mesh(mesh.moved((x, y, 0.62), sofa.yaw), UNNAMED, solid=False)
    if chance(plan, 0.3):
        blanket = props.cover(plan.rng, (0.6, 0.5), 0.05, textures.fabric(plan.rng))
        x, y = front(sofa, piece.size[1] * 0.15)
        plan.add_mesh(blanket.moved((x, y, 0.45), sofa.yaw), UNNAMED, solid=False)


def dining_set(plan: Plan, role: str = "dining_table") -> None:
    """Put a table with chairs around it, freely or at a wall."""
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
    chairs_around(plan, item, chair)
    if chance(plan, 0.3):
        rug(plan, (item.position[0], item.position[1]), item.yaw)
    litter(plan, item, ("tableware", "tableware", "vase", "plant_small", "office_thing"), 5)


def chairs_around(plan: Plan, table: Item, chair: Piece) -> None:
    """Chairs along the long sides and maybe at the ends, pushed in more or less."""
    assert table.piece is not None
    width, depth = table.piece.size[:2]
    seats = max(1, int(width / 0.68))
    offsets = (np.arange(seats) - (seats - 1) / 2) * width / seats
    places = [(x, side * depth / 2, side) for x in offsets for side in (-1.0, 1.0)]
    for across, edge, side in places:
        if chance(plan, 0.92):
            out = plan.rng.uniform(-0.15, 0.25) + chair.size[1] / 2
            seat(plan, table, chair, (across, edge + side * out), 0.0 if side > 0 else np.pi)
    if width > 1.1:
        for side in (-1.0, 1.0):
            if chance(plan, 0.45):
                out = plan.rng.uniform(-0.08, 0.2) + chair.size[1] / 2
                turn = -side * np.pi / 2
                seat(plan, table, chair, (side * (width / 2 + out), 0.0), turn)


def seat(
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


def _is_of(low: NDArray[np.float64], high: NDArray[np.float64], item: Item) -> bool:
    middle = (low[:2] + high[:2]) / 2
    return bool(np.abs(middle - item.position[:2]).max() < 1e-6 and abs(low[2]) < 0.02)


def desk_set(plan: Plan) -> Item | None:
    """Put a desk to a wall, with a chair and what lies on a desk."""
    desk = plan.pick("desk")
    if desk is None:
        return None
    item = plan.put_at_wall(desk, front=0.6)
    if item is None:
        return None
    chair = plan.pick("office_chair" if chance(plan, 0.75) else "chair")
    if chair is not None:
        out = desk.size[1] / 2 + chair.size[1] / 2 + plan.rng.uniform(-0.2, 0.3)
        across = plan.rng.uniform(-0.15, 0.15)
        item_yaw = plan.rng.normal(0, 0.4)
        seat(plan, item, chair, (across, -out), np.pi + item_yaw)
    if (computer := plan.pick("computer")) is not None and chance(plan, 0.8):
        plan.put_on(computer, item, back=True)
    litter(plan, item, ("office_thing", "office_thing", "table_lamp", "tableware", "printer"), 5)
    return item


def bedding(plan: Plan, bed: Item, piece: Piece) -> None:
    """Pillows and a rumpled blanket; the blanket counts as bed."""
    width, depth = piece.size[:2]
    level = min(0.55, piece.size[2] * 0.62)
    if piece.size[2] > 1.3 or not chance(plan, 0.75):
        return
    size = (width * 0.85, depth * plan.rng.uniform(0.4, 0.65))
    blanket = props.cover(plan.rng, size, 0.1, textures.fabric(plan.rng))
    x, y = front(bed, depth * 0.12)
    plan.add_mesh(blanket.moved((x, y, level - 0.06), bed.yaw), LABEL["bed"], solid=False)
    plan.items[-1] = Item(plan.items[-1].mesh, LABEL["bed"], bed.instance)
    image = textures.fabric(plan.rng, light=True)
    count = 2 if width > 1.2 else 1
    for k in range(count):
        pillow = props.cushion(plan.rng, (0.62, 0.4, 0.14), image)
        across = (k - (count - 1) / 2) * width * 0.42
        x, y = front(bed, -depth * 0.33)
        x += np.cos(bed.yaw) * across
        y += np.sin(bed.yaw) * across
        yaw = bed.yaw + plan.rng.normal(0, 0.12)
        plan.add_mesh(pillow.moved((x, y, level - 0.02), yaw), UNNAMED, solid=False)


def stools_at(plan: Plan, item: Item) -> None:
    """Put two high seats before a counter or a bar table."""
    stool = plan.pick("bar_stool" if chance(plan, 0.5) else "bar_chair")
    if stool is not None and item.piece is not None:
        for across in (-0.35, 0.35):
            seat(plan, item, stool, (across, item.piece.size[1] / 2 + 0.25), 0.0)
