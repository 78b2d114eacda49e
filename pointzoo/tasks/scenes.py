"""Labelled scenes as a network trains on them: thinned, cut, changed at random, put into batches.

Randomness comes from a numpy generator that is passed in.

Shape legend: N points, C channels after the coordinates, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.ops import grid_sample
from pointzoo.tasks.changes import Points, change_points
from pointzoo.tasks.recipes import Recipe


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene as an encoder reads it.

    Attributes:
        coords: (N, 3) float32, in the frame of the encoder's preprocessing.
        channels: (N, C) float32.
        labels: (N,) int64, -1 where unknown.
    """

    coords: Tensor
    channels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.coords)

    def select(self, rows: Tensor) -> LabelledScene:
        """Return some of the points."""
        return LabelledScene(self.coords[rows], self.channels[rows], self.labels[rows])


def load_scene(
    cloud: PointCloud, encoder: PointEncoder, *, thin: float | None = None
) -> LabelledScene:
    """Prepare a labelled cloud for an encoder.

    Args:
        cloud: Points with labels.
        encoder: Whose preprocessing is used.
        thin: Keep one point of each voxel of this edge (metres), a labelled one where there is one.

    Raises:
        ConfigError: The cloud has no labels.
        CloudError: See :meth:`PointEncoder.preprocess`.
    """
    if cloud.labels is None:
        raise ConfigError(
            expected="clouds with a label per point",
            got="one without",
            fix="Use a data set with labels; -1 marks single points without one.",
        )
    if thin is not None:
        cloud = thinned(cloud, thin)
    coords, channels = encoder.preprocess(cloud)
    labels = torch.from_numpy(np.array(cloud.labels, dtype=np.int64))
    return LabelledScene(coords, channels, labels)


def keep_labels(scene: LabelledScene, count: int, generator: np.random.Generator) -> LabelledScene:
    """Return the scene with the labels of ``count`` random points (fewer where it has fewer)."""
    known = np.flatnonzero(scene.labels.numpy() >= 0)
    chosen = torch.from_numpy(generator.permutation(known)[:count])
    labels = torch.full_like(scene.labels, -1)
    labels[chosen] = scene.labels[chosen]
    return LabelledScene(scene.coords, scene.channels, labels)


def crop(scene: LabelledScene, points: int, generator: np.random.Generator) -> LabelledScene:
    """Return the ``points`` points nearest to a random labelled one; a smaller scene as it is."""
    if len(scene) <= points:
        return scene
    known = np.flatnonzero(scene.labels.numpy() >= 0)
    middle = scene.coords[int(generator.choice(known)) if len(known) else 0]
    away = (scene.coords - middle).square().sum(dim=1)
    return scene.select(away.topk(points, largest=False, sorted=False).indices)


def change_scene(
    scene: LabelledScene, recipe: Recipe, channels: Sequence[str], generator: np.random.Generator
) -> LabelledScene:
    """Change a scene at random; normals turn with it, labels and other channels follow the points.

    Args:
        scene: The scene.
        recipe: What is changed.
        channels: Names of the channels, three columns each.
        generator: Source of the random numbers.
    """
    columns = dict(zip(channels, scene.channels.split(3, dim=1), strict=False))
    known = {name: columns[name].numpy() for name in ("colors", "normals") if name in columns}
    changed = change_points(Points.of(scene.coords.numpy(), **known), recipe, generator)
    rows = torch.from_numpy(changed.rows)
    columns = {name: values[rows] for name, values in columns.items()}
    columns.update({name: torch.from_numpy(getattr(changed, name)) for name in known})
    features = torch.cat([scene.channels[rows, :0], *columns.values()], dim=1)
    return LabelledScene(torch.from_numpy(changed.coords), features, scene.labels[rows])


def collate(scenes: Iterable[LabelledScene]) -> tuple[PointBatch, Tensor]:
    """Put scenes into a batch; return it and the labels (N,) of all its points."""
    every = list(scenes)
    batch = PointBatch.collate([s.coords for s in every], [s.channels for s in every])
    return batch, torch.cat([s.labels for s in every])


def thinned(cloud: PointCloud, edge: float) -> PointCloud:
    """Return one point per voxel, a labelled one where there is one, in the order of the cloud.

    Args:
        cloud: At least one point, finite.
        edge: Of a voxel, metres.
    """
    unlabelled = np.zeros(len(cloud), dtype=bool) if cloud.labels is None else cloud.labels < 0
    order = np.argsort(unlabelled, kind="stable")
    coords = torch.from_numpy(cloud.coords[order] - cloud.coords.min(axis=0))
    kept = grid_sample(coords, torch.tensor([len(coords)]), edge).index
    return cloud.select(np.sort(order[kept.numpy()]))
