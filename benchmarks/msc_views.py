"""Time the view generation of MSC against a plain numpy pipeline written op by op, in one run.

The plain side does what the released configuration lists, in its order, each operation on all
points of the view in float64, with voxels found by a hash and np.unique, as public code does it.
Both sides make two views of the same furnished box.

    python benchmarks/msc_views.py [--points 150000] [--grid-size 0.02] [--repeats 7] [--step]

``--step`` also times a training step of sparseunet14 on such views: what the views must keep up
with.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pointzoo.cloud import PointCloud
from pointzoo.pretrain.msc import MSC, PRESETS
from pointzoo.pretrain.scene_views import SceneAugmentation, scene_views
from pointzoo.zoo import create_encoder


def furnished_box(points: int, seed: int = 0) -> PointCloud:
    """Walls, floor and thirty boxes, with normals and smooth colours."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate([[[6.0, 5.0, 2.6]], random.uniform(0.3, 1.2, (30, 3))])
    corners = np.concatenate([[[0.0, 0.0, 0.0]], random.random((30, 3)) * (5.0, 4.0, 0.0)])
    areas = sizes[:, [1, 2, 0]] * sizes[:, [2, 0, 1]]
    which = random.choice(31, points, p=areas.sum(1) / areas.sum())
    axis = (random.random((points, 1)) > np.cumsum(areas / areas.sum(1)[:, None], 1)[which]).sum(1)
    axis = np.minimum(axis, 2)
    side = random.integers(2, size=points)
    place = random.random((points, 3))
    place[np.arange(points), axis] = side
    normals = np.zeros((points, 3))
    normals[np.arange(points), axis] = 2 * side - 1
    coords = corners[which] + place * sizes[which]
    colors = (np.sin(coords * (1.0, 1.7, 2.3) + which[:, None]) + 1) / 2
    return PointCloud(coords, colors=colors.astype(np.float32), normals=normals)


class Plain:
    """The released pipeline, one operation after the other."""

    def __init__(self, grid_size: float, seed: int) -> None:
        self.grid_size, self.random = grid_size, np.random.default_rng(seed)

    def views(self, cloud: PointCloud) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {
            "coord": cloud.coords.copy(),
            "color": cloud.colors.astype(np.float64) * 255,
            "normal": cloud.normals.astype(np.float64),
        }
        self.center(data, z=True)
        data["coord"] = data["coord"] * self.random.uniform(0.9, 1.1)
        data["origin_coord"] = data["coord"].copy()
        return self.view(data), self.view(data)

    def view(self, scene: dict[str, Any]) -> dict[str, Any]:
        data = {key: value.copy() for key, value in scene.items()}
        self.rotate(data, "z", 1.0, np.zeros(3))
        for axis in "xy":
            low, high = data["coord"].min(0), data["coord"].max(0)
            self.rotate(data, axis, 1 / 64, (low + high) / 2)
        for axis in (0, 1):
            if self.random.random() < 0.5:
                data["coord"][:, axis] = -data["coord"][:, axis]
                data["normal"][:, axis] = -data["normal"][:, axis]
        noise = self.random.normal(0, 0.005, data["coord"].shape)
        data["coord"] = data["coord"] + np.clip(noise, -0.02, 0.02)
        self.color_jitter(data)
        if self.random.random() < 0.95:
            noise = self.random.normal(0, 0.05 * 255, data["color"].shape)
            data["color"] = np.clip(data["color"] + noise, 0, 255)
        self.grid_sample(data)
        self.sphere_crop(data)
        self.center(data, z=False)
        data["color"] = data["color"] / 255
        return data

    def center(self, data: dict[str, Any], *, z: bool) -> None:
        low, high = data["coord"].min(0), data["coord"].max(0)
        middle = (low + high) / 2
        middle[2] = low[2] if z else 0
        data["coord"] = data["coord"] - middle

    def rotate(self, data: dict[str, Any], axis: str, share: float, center: Any) -> None:
        angle = self.random.uniform(-share, share) * np.pi
        c, s = np.cos(angle), np.sin(angle)
        matrix = {
            "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
            "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
            "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
        }[axis]
        data["coord"] = (data["coord"] - center) @ matrix.T + center
        data["normal"] = data["normal"] @ matrix.T

    def color_jitter(self, data: dict[str, Any]) -> None:
        for step in self.random.permutation(4):
            if self.random.random() >= 0.8:
                continue
            color = data["color"]
            grey = (color * (0.2989, 0.587, 0.114)).sum(1, keepdims=True)
            if step == 3:
                data["color"] = self.hue(color, self.random.uniform(-0.02, 0.02))
                continue
            reach = (0.4, 0.4, 0.2)[step]
            factor = self.random.uniform(1 - reach, 1 + reach)
            other = (np.zeros(1), grey.mean(), grey)[step]
            data["color"] = np.clip(factor * color + (1 - factor) * other, 0, 255)

    def hue(self, color: Any, shift: float) -> Any:
        high, low = color.max(1), color.min(1)
        span = high - low
        safe = np.where(span == 0, 1, span)
        r, g, b = ((high[:, None] - color) / safe[:, None]).T
        cases = [span == 0, color[:, 0] == high, color[:, 1] == high]
        hue = np.select(cases, [0, b - g, 2 + r - b], 4 + g - r)
        hue = (hue / 6 + shift) % 1.0
        sector = np.floor(hue * 6).astype(int)
        rest = hue * 6 - sector
        ratio = span / np.where(high == 0, 1, high)
        p, q, t = high * (1 - ratio), high * (1 - ratio * rest), high * (1 - ratio * (1 - rest))
        table = [(high, t, p), (q, high, p), (p, high, t), (p, q, high), (t, p, high), (high, p, q)]
        sector = sector % 6
        return np.stack([np.choose(sector, [row[c] for row in table]) for c in range(3)], axis=1)

    def grid_sample(self, data: dict[str, Any]) -> None:
        grid = np.floor(data["coord"] / self.grid_size).astype(int)
        grid = grid - grid.min(0)
        key = np.full(len(grid), 14695981039346656037, dtype=np.uint64)  # FNV-1a
        for axis in range(3):
            key = (key * np.uint64(1099511628211)) ^ grid[:, axis].astype(np.uint64)
        order = np.argsort(key)
        _, counts = np.unique(key[order], return_counts=True)
        first = np.cumsum(np.insert(counts, 0, 0)[:-1])
        rows = order[first + self.random.integers(0, counts.max(), counts.size) % counts]
        data["grid_coord"] = grid
        for name in list(data):
            data[name] = data[name][rows]

    def sphere_crop(self, data: dict[str, Any]) -> None:
        count = int(0.6 * len(data["coord"]))
        center = data["coord"][self.random.integers(len(data["coord"]))]
        rows = np.argsort(np.sum(np.square(data["coord"] - center), 1))[:count]
        for name in list(data):
            data[name] = data[name][rows]


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_per_scene(cloud: PointCloud, change: SceneAugmentation, batch: int = 2) -> float:
    """Return the time of a training step of sparseunet14, views left out, per scene."""
    config = dataclasses.replace(
        PRESETS["cpu"], views=change, batch_size=batch,
        match_radius=1.5 * change.grid_size, mask_size=5 * change.grid_size,
    )  # fmt: skip
    objective = MSC(create_encoder("sparseunet14", grid_size=change.grid_size), config).train()
    random = np.random.default_rng(0)
    made = objective.collate([objective.prepare(cloud, random) for _ in range(batch)])

    def step() -> None:
        loss, _ = objective.loss(made, torch.Generator().manual_seed(0))
        loss.backward()

    step()
    return min(seconds_of(step) for _ in range(3)) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=150_000)
    parser.add_argument("--grid-size", type=float, default=0.02)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--step", action="store_true")
    options = parser.parse_args()
    cloud = furnished_box(options.points)
    change = SceneAugmentation(grid_size=options.grid_size)
    plain, random = Plain(options.grid_size, 0), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"plain": [], "pointzoo": []}
    sizes = {
        "plain": len(plain.views(cloud)[0]["coord"]),  # and warm both up
        "pointzoo": len(scene_views(cloud, change, random)[0].cells),
    }
    for _ in range(options.repeats):
        seconds["plain"].append(seconds_of(lambda: plain.views(cloud)))
        seconds["pointzoo"].append(seconds_of(lambda: scene_views(cloud, change, random)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [p / o for p, o in zip(seconds["plain"], seconds["pointzoo"], strict=True)]
    found: dict[str, Any] = {
        "points": len(cloud),
        "grid_size": options.grid_size,
        "points_of_a_view": sizes,
        "milliseconds_for_two_views": {k: round(1e3 * v, 1) for k, v in medians.items()},
        "times_faster": round(medians["plain"] / medians["pointzoo"], 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
    }
    if options.step:
        step = seconds_per_scene(cloud, change)
        found["threads"] = torch.get_num_threads()
        found["step_milliseconds_per_scene"] = round(1e3 * step, 1)
        found["views_per_step_time"] = round(medians["pointzoo"] / step, 3)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
