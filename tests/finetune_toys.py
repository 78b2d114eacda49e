"""Small labelled data for the tests of fine-tuning: rooms with three classes, and two shapes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud


def make_room(seed: int, points: int = 250) -> PointCloud:
    """Return a grey floor (0), a bluish wall (1) and a reddish box (2); some points unlabelled."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, points)
    u, v = rng.uniform(0, 3, points), rng.uniform(0, 2, points)
    z = np.select([kinds == 0, kinds == 1], [0.0 * v, v], 0.47)
    coords = np.stack([u, np.where(kinds == 1, 0.0, v), z], axis=1)
    shades = np.array([[0.5, 0.5, 0.5], [0.2, 0.3, 0.8], [0.8, 0.3, 0.2]])[kinds]
    colors = (shades + rng.normal(0, 0.05, (points, 3))).clip(0, 1)
    labels = np.where(rng.random(points) < 0.1, -1, kinds)
    return PointCloud(coords, colors=colors, labels=labels, fields={"time": rng.random(points)})


def make_shape(label: int, seed: int, points: int = 64) -> PointCloud:
    """Return a flat disk (0) or a long rod (1); the upper half of either is part 1."""
    rng = np.random.default_rng([label, seed])
    size = ([1.0, 1.0, 0.05], [0.05, 0.05, 1.0])[label]
    coords = rng.normal(size=(points, 3)) * size
    return PointCloud(coords, labels=(coords[:, 2] > 0) + 2 * label)


@dataclass
class Rooms:
    """Rooms as a data set; ``seeds`` tell them apart."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)
    name: str = "rooms"
    class_names: tuple[str, ...] = ("floor", "wall", "box")
    labels: None = None
    reads: list[int] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"room{seed}" for seed in self.seeds)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> PointCloud:
        self.reads.append(index)
        return make_room(self.seeds[index])


@dataclass
class Shapes:
    """Disks and rods as a data set."""

    each: int = 8
    name: str = "shapes"
    class_names: tuple[str, ...] = ("disk", "rod")
    first: int = 0

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.arange(2 * self.each) % 2

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.class_names[i % 2]}/{i}" for i in range(2 * self.each))

    def __len__(self) -> int:
        return 2 * self.each

    def __getitem__(self, index: int) -> PointCloud:
        return make_shape(range(2 * self.each)[index] % 2, self.first + index)
