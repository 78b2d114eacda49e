"""Linear probe on frozen point features: multinomial logistic regression, scored on all points.

Features are computed once per scene: of a training scene those of a random sample of its labelled
points are kept, of a test scene those of every voxel, in float16.

Shape legend: N points, R rows of features, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.features import evaluating
from pointzoo.io.chunks import CloudChunks
from pointzoo.metrics import confusion_matrix
from pointzoo.tasks.segmentation import SegmentationScore
from pointzoo.tiling import VoxelEncoder, compute_tiles, whole_points

PENALTY = 1e-3
"""Half of the squared norm of the weights counts this much beside the mean cross-entropy."""


@dataclass(frozen=True, eq=False)
class SceneFeatures:
    """Frozen features of a labelled scene.

    Attributes:
        rows: (R, C) float16.
        index: (N,) the row of each point.
        labels: (N,) int64, -1 where unknown.
    """

    rows: Tensor
    index: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted classifier: ``((features - mean) / scale) @ weight + bias``.

    Attributes:
        mean: (C,) of the training features.
        scale: (C,) their standard deviation.
        weight: (C, K)
        bias: (K,)
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return the class (R,) of features (R, C)."""
        standard = (features.float() - self.mean) / self.scale
        return (standard @ self.weight + self.bias).argmax(dim=1)


def scene_features(encoder: PointEncoder, cloud: PointCloud) -> SceneFeatures:
    """Compute the features of a scene with labels, one row per voxel where the encoder has voxels.

    Raises:
        ConfigError: The cloud has no labels.
        CloudError: The points cannot be used.
    """
    if cloud.labels is None:
        raise ConfigError(
            expected="a cloud with a label per point", got="none", fix="Use a labelled data set."
        )
    labels = torch.from_numpy(np.array(cloud.labels, dtype=np.int64))
    if whole_points(encoder) is None:
        rows = torch.from_numpy(encoder.extract(cloud).point)
        return SceneFeatures(rows.half(), torch.arange(len(cloud)), labels)
    with evaluating(encoder):
        scan = compute_tiles(cast(VoxelEncoder, encoder), CloudChunks(cloud), half=True)
    index = torch.from_numpy(scan.positions[scan.table.rows_of(cloud.coords)])
    return SceneFeatures(
        torch.from_numpy(scan.store.read(np.arange(len(scan.table)))), index, labels
    )


def sample_points(
    scene: SceneFeatures, count: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return features and labels of up to ``count`` random labelled points.

    Args:
        scene: The scene.
        count: R; the first r of them are what a smaller ``count`` would give.
        generator: Source of the choice.
    """
    known = np.flatnonzero(scene.labels.numpy() >= 0)
    chosen = torch.from_numpy(generator.permutation(known)[:count])
    return scene.rows[scene.index[chosen]], scene.labels[chosen]


def fit_probe(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    penalty: float = PENALTY,
    steps: int = 100,
    class_weights: Tensor | None = None,
) -> LinearProbe:
    """Fit multinomial logistic regression on standardised features, by L-BFGS from zero.

    Args:
        features: (R, C) of any floating type.
        labels: (R,) int64 from 0 on.
        classes: K.
        penalty: See :data:`PENALTY`.
        steps: Iterations at most.
        class_weights: (K,) how much a row counts by its class; None: all alike.

    Raises:
        ConfigError: There is no row.
    """
    if not len(features):
        raise ConfigError(expected="labelled points", got="none", fix="Label some points.")
    values = features.float()
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)  # of a constant channel
    standard = (values - mean) / scale
    weight = torch.zeros(values.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(standard @ weight + bias, labels, class_weights)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearProbe(mean, scale, weight.detach(), bias.detach())


def score_probe(
    probe: LinearProbe, scenes: Iterable[SceneFeatures], classes: int
) -> SegmentationScore:
    """Classify every point of every scene.

    Raises:
        ConfigError: No point has a label.
    """
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for scene in scenes:
        predicted = probe.predict(scene.rows)[scene.index]
        confusion += confusion_matrix(predicted, scene.labels, classes)
    return SegmentationScore.of(confusion)


def stack(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Put features and labels of several scenes together."""
    features, labels = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(labels)
