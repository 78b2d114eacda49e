"""What training on a data set would cost on this machine, from a short measurement.

Shape legend: M clouds, N points.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from pointzoo.augment import grid_cells, nearest
from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder

CROP_POINTS = 12_000
"""Points of a training cloud that one step sees, as in fine-tuning."""
_SAMPLES = 2
_SECONDS = 5.0
"""After this time no further step is measured."""


@dataclass(frozen=True)
class Cost:
    """What one pass over the training clouds costs.

    Attributes:
        clouds: M, of the training split.
        points: In them.
        voxels: Voxels of the encoder's grid in them; None where it has no grid.
        train_seconds: One epoch of training all weights, each cloud seen as one crop.
        features_seconds: Features of all points once, for a head on a frozen encoder.
    """

    clouds: int
    points: int
    voxels: int | None
    train_seconds: float
    features_seconds: float

    def __str__(self) -> str:
        """Return one line."""
        voxels = "" if self.voxels is None else f", {self.voxels:,} voxels"
        return (
            f"training: {self.clouds:,} clouds, {self.points:,} points{voxels}; about "
            f"{_brief(self.train_seconds)} per epoch for all weights, "
            f"{_brief(self.features_seconds)} once for frozen features"
        )


class Meter:
    """Counts training clouds as they are read, and times the encoder on some of them."""

    def __init__(self, encoder: PointEncoder) -> None:
        """Keep a copy of the encoder: training steps move its batch statistics."""
        self.encoder = copy.deepcopy(encoder)
        self.grid: float | None = getattr(encoder.config, "grid_size", None)
        self.clouds = self.points = self.voxels = 0
        self._samples: list[PointCloud] = []

    def count(self, cloud: PointCloud, *, trained: bool) -> None:
        """Take a cloud into account if it is trained on.

        Args:
            cloud: At least one point, finite coordinates.
            trained: Whether it belongs to the training split.
        """
        if not trained:
            return
        self.clouds += 1
        self.points += len(cloud)
        if self.grid is not None:
            near = cloud.coords - cloud.coords.min(axis=0)
            self.voxels += len(np.unique(grid_cells(near.T, self.grid), axis=1).T)
        if len(self._samples) < _SAMPLES:
            self._samples.append(_crop(cloud))

    def cost(self) -> Cost | None:
        """Time the encoder; None where no training cloud was read."""
        if not self._samples:
            return None
        batch = self._batch()
        seen = len(batch.coords) / len(self._samples)
        train = self._time(batch, train=True) / len(self._samples)
        features = self._time(batch, train=False) / len(batch.coords)
        return Cost(
            clouds=self.clouds,
            points=self.points,
            voxels=None if self.grid is None else self.voxels,
            train_seconds=train * self.clouds * min(1.0, self.points / self.clouds / seen),
            features_seconds=features * self.points,
        )

    def _batch(self) -> PointBatch:
        pairs = [self.encoder.preprocess(cloud) for cloud in self._samples]
        return PointBatch.collate([c for c, _ in pairs], [f for _, f in pairs])

    def _time(self, batch: PointBatch, *, train: bool) -> float:
        """Return the seconds of the quickest of up to three passes."""
        self.encoder.train(train)
        device = next(self.encoder.parameters()).device
        batch = batch.to(device)
        start, best = time.perf_counter(), math.inf
        for _ in range(3):
            begin = time.perf_counter()
            with torch.set_grad_enabled(train):
                output = self.encoder(batch)
                if train:
                    (output.point.float().mean() + output.scene.float().mean()).backward()
            best = min(best, time.perf_counter() - begin)
            if time.perf_counter() - start > _SECONDS:
                break
        return best


def _crop(cloud: PointCloud) -> PointCloud:
    if len(cloud) <= CROP_POINTS:
        return cloud
    return cloud.select(nearest(cloud.coords.T, len(cloud) // 2, CROP_POINTS))


def _brief(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
