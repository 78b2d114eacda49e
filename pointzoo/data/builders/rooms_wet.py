"""Kitchens and bathrooms: cabinets in a row under one worktop, baths with curtains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointzoo.data.builders import rooms_props as props
from pointzoo.data.builders import rooms_textures as textures
from pointzoo.data.builders.rooms_basics import (
    LABEL,
    UNNAMED,
    at_wall,
    chance,
    floor_things,
    front,
    litter,
    rug,
)
from pointzoo.data.builders.rooms_mesh import box, plain
from pointzoo.data.builders.rooms_plan import Item, Plan
from pointzoo.data.builders.rooms_sets import dining_set, stools_at


def kitchen(plan: Plan) -> None:
    """Furnish a kitchen."""
    order = sorted(range(len(plan.walls)), key=lambda i: -plan.walls[i].length)
    doors = {o.wall for o in plan.openings if o.low < 0.5}
    order = sorted(order, key=lambda i: i in doors)  # stable: long walls without a door first
    placed = 0
    for wall in order:
        if placed < 1 or (placed < 2 and chance(plan, 0.3)):
            placed += _kitchen_run(plan, wall, sink=placed == 0)
    at_wall(plan, "fridge", front=0.5)
    if chance(plan, 0.6):
        at_wall(plan, "stove", front=0.5)
    if chance(plan, 0.35):
        at_wall(plan, "washer", front=0.4)
    island = plan.pick("kitchen_island")
    if island is not None and plan.size[:2].min() > 3.4 and chance(plan, 0.35):
        item = plan.put_free(island, margin=0.7)
        if item is not None:
            litter(plan, item, ("tableware", "worktop"), 3)
            stools_at(plan, item)
    if chance(plan, 0.75):
        dining_set(plan)
    floor_things(plan, ("bin", "floor_thing", "broom"), 2)


def _kitchen_run(plan: Plan, wall: int, *, sink: bool) -> bool:
    """Put lower cabinets under one worktop and cabinets above; False where there is no room."""
    rng = plan.rng
    side = plan.walls[wall]
    base = plan.pick("kitchen_base", lambda p: p.size[0] > 0.4 and p.size[2] > 0.8)
    if base is None:
        return False
    top, depth = float(min(base.size[2], 0.9)), float(base.size[1])
    count = int(min((side.length - 0.1) // base.size[0], rng.integers(3, 7)))
    begin = 0.03 if chance(plan, 0.5) else side.length - 0.03 - count * base.size[0]
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
    image = textures.stone(rng) if chance(plan, 0.6) else textures.wood(rng)
    deep = depth + 0.03
    counter, basin = props.sink_worktop(rng, length, deep, image, at)
    place = side.start + side.along * middle + side.inward * (deep / 2 + 0.005)
    where = (float(place[0]), float(place[1]), top)
    plan.add_mesh(counter.moved(where, side.yaw), LABEL["counter"])
    if basin is not None:
        plan.add_mesh(basin.moved(where, side.yaw), LABEL["sink"])
    for _ in range(int(rng.integers(2, 7))):
        piece = plan.pick("worktop" if chance(plan, 0.55) else "tableware")
        if piece is not None and piece.size[1] < depth and piece.size[0] < length:
            along = span[0] + piece.size[0] / 2 + rng.random() * (length - piece.size[0])
            out = rng.random() * max(depth - piece.size[1] - 0.05, 0.0)
            plan.put_at_wall(
                piece, wall=wall, along=float(along), height=top + 0.042, gap=0.03 + out, tries=1
            )


def _upper_row(plan: Plan, wall: int, start: float, stop: float) -> None:
    upper = plan.pick("kitchen_upper")
    if upper is None or not chance(plan, 0.8):
        return
    height = float(plan.rng.uniform(1.38, 1.5))
    width = float(upper.size[0])
    hood = plan.pick("hood")
    gap = int(plan.rng.integers(0, 4))
    for k in range(int((stop - start) / width)):
        along = start + (k + 0.5) * width
        if k == gap and hood is not None and hood.size[0] < width + 0.1:
            plan.put_at_wall(hood, wall=wall, along=along, height=1.6, tries=1)
        elif chance(plan, 0.85):
            plan.put_at_wall(upper, wall=wall, along=along, height=height, gap=0.005, tries=1)


def bathroom(plan: Plan) -> None:
    """Furnish a bathroom."""
    draw = plan.rng.random()
    if draw < 0.8:
        bath = at_wall(plan, "bathtub", front=0.3, tries=40)
        if bath is not None and chance(plan, 0.7):
            _shower_curtain(plan, bath)
    at_wall(plan, "toilet", front=0.4)
    if draw > 0.6:
        at_wall(plan, "shower_stall", front=0.3)
    basin = _washing_place(plan)
    if basin is not None:
        _mirror(plan, basin)
    for role, share in (("washer", 0.3), ("basket", 0.3), ("kitchen_tall", 0.1), ("bin", 0.4)):
        if chance(plan, share):
            at_wall(plan, role)
    if chance(plan, 0.25):
        at_wall(plan, "toilet")
    if chance(plan, 0.4):
        rug(plan, (float(plan.size[0] / 2), float(plan.size[1] / 2)), 0.0)
    rack = plan.pick("towel_rack")
    if rack is not None:
        plan.put_at_wall(rack, height=float(plan.rng.uniform(0.9, 1.3)), gap=0.01)
    floor_things(plan, ("toilet_small", "basket"), 2)


def _washing_place(plan: Plan) -> Item | None:
    draw = plan.rng.random()
    if draw < 0.3 and (hung := plan.pick("washbasin_wall")) is not None:
        return plan.put_at_wall(hung, height=float(0.86 - min(hung.size[2], 0.5)), front=0.4)
    if draw < 0.55 and (vanity := plan.pick("vanity")) is not None:
        return plan.put_at_wall(vanity, front=0.4)
    standing = plan.pick("washbasin") or plan.pick("washbasin_wall")
    return None if standing is None else plan.put_at_wall(standing, front=0.4)


def _mirror(plan: Plan, basin: Item) -> None:
    if basin.piece is None or basin.piece.size[2] > 1.3 or chance(plan, 0.3):
        return
    width, height = float(plan.rng.uniform(0.4, 0.8)), float(plan.rng.uniform(0.5, 0.9))
    grey = textures.smooth_noise(plan.rng, 32, 3.0)[..., None] * 25 + [150, 160, 165]
    mesh = box((width, 0.02, height), np.clip(grey, 0, 255).astype(np.uint8))
    x, y = front(basin, -(basin.piece.size[1] / 2 - 0.0))
    plan.add_mesh(mesh.moved((x, y, 1.15), basin.yaw), UNNAMED)


def _shower_curtain(plan: Plan, bath: Item) -> None:
    """A curtain along the open side of a bathtub, drawn more or less."""
    assert bath.piece is not None
    rng = plan.rng
    width, depth = bath.piece.size[:2]
    span = float(width * rng.uniform(0.25, 0.85))
    model = plan.pick("shower_curtain")
    x, y = front(bath, depth / 2 - 0.05)
    across = rng.choice([-1.0, 1.0]) * (width - span) / 2
    place = (x + np.cos(bath.yaw) * across, y + np.sin(bath.yaw) * across)
    if model is not None and chance(plan, 0.3):
        plan.put(model, [*place, 0.25], bath.yaw, check=False)
    else:
        image = textures.fabric(rng, light=True)
        mesh = props.curtain(rng, span, 1.65, image)
        plan.add_mesh(mesh.moved((*place, 0.3), bath.yaw), LABEL["shower curtain"])
    rod = box((width, 0.02, 0.02), plain((200, 200, 205)))
    plan.add_mesh(rod.moved((x, y, 1.97), bath.yaw), UNNAMED, solid=False)
