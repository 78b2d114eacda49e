"""The walk of the scanner through a room: where it stands and looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders.rooms_plan import Plan

Floats = NDArray[np.float64]
_CELL = 0.15
STEPS_A_TURN = 9


def walk(
    plan: Plan, count: int, rng: np.random.Generator, *, steps: int = STEPS_A_TURN
) -> list[Floats]:
    """Poses of a walk through a furnished room, see :func:`walk_among`."""

    def ahead(place: Floats, angle: float) -> float:
        return _ahead(plan, place, angle)

    return walk_among(_free_places(plan), ahead, float(plan.size[2]), count, rng, steps)


def walk_among(
    free: Floats,
    ahead: Callable[[Floats, float], float],
    ceiling: float,
    count: int,
    rng: np.random.Generator,
    steps: int = STEPS_A_TURN,
) -> list[Floats]:
    """Poses (4, 4) of a camera that a person carries about, turning, mostly looking down.

    A pose takes camera coordinates (x right, y down, z forward) to those of the room.

    Args:
        free: (F, 2) places where a person can stand.
        ahead: Distance to the next wall from a place (2,) in a direction in radians.
        ceiling: Height of the room.
        count: How many poses.
        rng: Source of randomness.
        steps: Poses for a full turn on average.
    """
    route = _route(free, max(2, round(count / 6)), rng)
    times = np.linspace(0, len(route) - 1, count)
    index = np.minimum(times.astype(np.int64), len(route) - 2)
    part = (times - index)[:, None]
    places = route[index] * (1 - part) + route[index + 1] * part
    height = 1.45 + 0.15 * np.sin(np.arange(count) * 0.9 + rng.random() * 6) + rng.normal(0, 0.05)
    turn = rng.choice([-1.0, 1.0]) * 2 * np.pi / steps
    yaw = rng.random() * 2 * np.pi
    poses = []
    for k in range(count):
        yaw += turn * rng.uniform(0.5, 1.5)
        choices = [yaw, yaw + turn * 0.5, yaw - turn * 0.5]
        reach = [ahead(places[k], angle) for angle in choices]
        pitch = np.radians(np.clip(rng.normal(-27, 14), -60, 20))
        place = np.array([*places[k], min(height[k], ceiling - 0.4)])
        poses.append(_pose(place, choices[int(np.argmax(reach))], pitch))
    return poses


def _free_places(plan: Plan) -> Floats:
    """Centres (F, 2) of cells in which a person can stand, never none."""
    found = []
    for low, high in plan.rectangles:
        xs = np.arange(low[0] + 0.3, high[0] - 0.3, _CELL)
        ys = np.arange(low[1] + 0.3, high[1] - 0.3, _CELL)
        found.append(np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2))
    cells = np.concatenate(found)
    taken = np.zeros(len(cells), dtype=bool)
    for solid in plan.solids:
        if solid.high[2] - solid.low[2] > 0.45 and solid.low[2] < 1.7 and solid.high[2] > 0.6:
            inside = (cells > solid.low[:2] - 0.12) & (cells < solid.high[:2] + 0.12)
            door = solid.low[2] == 0.0 and 1.9 < solid.high[2] < 2.2
            taken |= inside.all(axis=1) & (not door)
    return cells[~taken] if (~taken).any() else plan.size[None, :2] * 0.5


def _route(free: Floats, stops: int, rng: np.random.Generator) -> Floats:
    """Places far from each other, visited one after the nearest."""
    chosen = [free[int(rng.integers(len(free)))]]
    distance = np.linalg.norm(free - chosen[0], axis=1)
    for _ in range(stops - 1):
        chosen.append(free[int(distance.argmax())])
        distance = np.minimum(distance, np.linalg.norm(free - chosen[-1], axis=1))
    route = [chosen.pop(0)]
    while chosen:
        lengths = [float(np.linalg.norm(place - route[-1])) for place in chosen]
        route.append(chosen.pop(int(np.argmin(lengths))))
    return np.array(route)


def _ahead(plan: Plan, place: Floats, angle: float) -> float:
    """Distance to the outer walls in a direction."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    with np.errstate(divide="ignore"):
        far = np.where(direction > 0, plan.size[:2] - place, -place) / direction
    return float(np.min(far))


def _pose(place: Floats, yaw: float, pitch: float) -> Floats:
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = place
    return pose
