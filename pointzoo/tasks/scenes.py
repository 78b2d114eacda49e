"""Labelled scenes as a network trains on them: thinned, cut, changed at random, put into batches.

The augmentation is the small part of Pointcept's ScanNet recipe (@ d74c646) that matters on few
steps: turn about z, mirror, scale, jitter, and a change of brightness, contrast and noise of
colours. Randomness comes from a numpy generator that is passed in.

Shape legend: N points, C channels after the coordinates, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.ops import grid_sample


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


@dataclass(frozen=True)
class SceneChanges:
    """Random changes of a training scene.

    Attributes:
        turn: Largest rotation about z, radians.
        flip: Probability of mirroring x, and of mirroring y.
        scale: Range of the factor of the scene.
        jitter: Standard deviation of the noise on every coordinate, clipped at three of them.
        brightness: Largest change of colours by addition.
        contrast: Largest change of colours by a factor around 1.
        color_noise: Standard deviation of the noise on every colour.
    """

    turn: float = math.pi
    flip: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    jitter: float = 0.005
    brightness: float = 0.1
    contrast: float = 0.2
    color_noise: float = 0.02


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
        cloud = cloud.select(_thinned(cloud, cloud.labels, thin))
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
    scene: LabelledScene,
    change: SceneChanges,
    channels: Sequence[str],
    generator: np.random.Generator,
) -> LabelledScene:
    """Change a scene at random; normals turn with it.

    Args:
        scene: The scene.
        change: How strongly.
        channels: Names of the channels, three columns each.
        generator: Source of the random numbers.
    """
    angle = generator.uniform(-change.turn, change.turn)
    mirror = np.where(generator.random(2) < change.flip, -1.0, 1.0)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = torch.eye(3)
    matrix[:2, :2] = torch.from_numpy(np.diag(mirror) @ turn)
    noise = generator.standard_normal((len(scene), 3), dtype=np.float32).clip(-3, 3)
    coords = scene.coords @ matrix.T * float(generator.uniform(*change.scale))
    coords = coords + torch.from_numpy(noise) * change.jitter
    columns = list(scene.channels.split(3, dim=1)) if channels else []
    for place, name in enumerate(channels):
        if name == "normals":
            columns[place] = columns[place] @ matrix.T
        if name == "colors":
            columns[place] = _recolor(columns[place], change, generator)
    return LabelledScene(coords, torch.cat([scene.channels[:, :0], *columns], 1), scene.labels)


def collate(scenes: Iterable[LabelledScene]) -> tuple[PointBatch, Tensor]:
    """Put scenes into a batch; return it and the labels (N,) of all its points."""
    every = list(scenes)
    batch = PointBatch.collate([s.coords for s in every], [s.channels for s in every])
    return batch, torch.cat([s.labels for s in every])


def _recolor(colors: Tensor, change: SceneChanges, generator: np.random.Generator) -> Tensor:
    factor = 1.0 + generator.uniform(-change.contrast, change.contrast)
    shift = generator.uniform(-change.brightness, change.brightness, 3).astype(np.float32)
    noise = generator.standard_normal(tuple(colors.shape), dtype=np.float32) * change.color_noise
    middle = colors.mean(dim=0)
    changed = (colors - middle) * factor + middle + torch.from_numpy(shift + noise)
    return changed.clamp(0.0, 1.0)


def _thinned(cloud: PointCloud, labels: IntArray, edge: float) -> IntArray:
    """Return the rows, ascending, of one point per voxel, labelled ones first."""
    order = np.argsort(labels < 0, kind="stable")
    coords = torch.from_numpy(cloud.coords[order] - cloud.coords.min(axis=0))
    kept = grid_sample(coords, torch.tensor([len(coords)]), edge).index
    rows: IntArray = np.sort(order[kept.numpy()])
    return rows
