"""Rooms and objects made of random numbers, so that the examples need no data of yours.

Anything with these attributes is a data set: a name, names, class names, labels (of whole clouds,
or None), a length, and a cloud for each index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import pointzoo as pz

CLASSES = ("floor", "ball", "box", "post")
COLORS = np.array([[0.6, 0.55, 0.5], [0.8, 0.3, 0.2], [0.2, 0.4, 0.8], [0.3, 0.6, 0.3]])


@dataclass(frozen=True)
class Rooms:
    """Rooms with balls, boxes and posts on a floor; a class and an object number per point."""

    name: str
    names: tuple[str, ...]
    class_names: tuple[str, ...] = CLASSES
    labels: None = None  # rooms have no class, their points have

    def __len__(self) -> int:
        """Return the number of rooms."""
        return len(self.names)

    def __getitem__(self, index: int) -> pz.PointCloud:
        """Make a room, always the same for the same name."""
        return make_room(np.random.default_rng([*self.names[index].encode()]))


def rooms(name: str, count: int) -> Rooms:
    return Rooms(name, tuple(f"{name} {number}" for number in range(count)))


def make_room(rng: np.random.Generator) -> pz.PointCloud:
    """Return a floor of 3 m with five to eight objects."""
    coords = [rng.uniform(-1.5, 1.5, (5000, 3)) * (1, 1, 0)]
    labels, instances = [0] * 5000, [-1] * 5000
    places = [(x, y, 0.0) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    for number, place in enumerate(rng.permutation(places)[: rng.integers(5, 9)]):
        kind = int(rng.integers(1, len(CLASSES)))
        coords.append(make_object(kind, rng) + place + rng.uniform(-0.15, 0.15, 3) * (1, 1, 0))
        labels += [kind] * 600
        instances += [number] * 600
    tint = rng.normal(0, 0.05, (len(labels), 3))
    return pz.PointCloud(
        np.concatenate(coords),
        colors=np.clip(COLORS[labels] + tint, 0, 1),
        labels=np.array(labels),
        fields={"instance": np.array(instances)},
    )


def make_object(kind: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 600 points on a ball, a box or a post that stands on the floor."""
    size = rng.uniform(0.2, 0.35)
    points = rng.normal(size=(600, 3))
    if kind == 3:
        points[:, :2] *= 0.1 / np.linalg.norm(points[:, :2], axis=1, keepdims=True)
        points[:, 2] = rng.uniform(0, 4 * size, 600)
    else:
        order = 2 if kind == 1 else np.inf
        points *= size / np.linalg.norm(points, ord=order, axis=1, keepdims=True)
        points[:, 2] += size
    return points
