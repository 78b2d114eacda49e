"""PointGroup: objects as clusters of points that were moved towards the centre of their object.

L. Jiang et al., "PointGroup: dual-set point grouping for 3D instance segmentation", CVPR 2020,
arXiv 2004.01658; settings as in Pointcept's configs @ d74c646. Every point gets a class and an
offset; points of one class are clustered where they are and where their offsets move them; both
sets of clusters are scored, and of clusters that overlap the best one stays.

Shape legend: N points, O objects, Q clusters, P points of all clusters, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.ops import ragged

LOW, HIGH = 0.25, 0.75
"""Overlaps up to which a cluster counts as no object, and from which it counts as one."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Candidates for objects; they may share points.

    Attributes:
        rows: (P,) int64, points of each cluster, each once, clusters one after the other.
        offsets: (Q,) int64, cumulative numbers of points.
        classes: (Q,) int64, the class that all points of a cluster were taken for.
    """

    rows: Tensor
    offsets: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """Return Q."""
        return len(self.offsets)

    def mean(self, values: Tensor) -> Tensor:
        """Return (Q,) the mean of values (N,) over the points of each cluster."""
        owner = ragged.cloud_index(ragged.sizes_of(self.offsets))
        return ops.segment_reduce(values[self.rows][:, None], owner, len(self), "mean")[:, 0]

    def select(self, chosen: Tensor) -> Clusters:
        """Return some of the clusters (Q,), in that order."""
        sizes = ragged.sizes_of(self.offsets)
        starts = (self.offsets - sizes)[chosen]
        rows = self.rows[ragged.rows_of(sizes[chosen], starts)]
        return Clusters(rows, sizes[chosen].cumsum(0), self.classes[chosen])


def object_centers(coords: Tensor, objects: Tensor) -> Tensor:
    """Return (N, 3), for every point the mean of the points of its object.

    Args:
        coords: (N, 3).
        objects: (N,) int64 number of the object; points with -1 get their own place.
    """
    known = (objects >= 0).nonzero()[:, 0]
    _, index = torch.unique(objects[known], return_inverse=True)
    means = ops.segment_reduce(coords[known], index, len(index), "mean")
    return coords.index_put((known,), means[index])


def offset_losses(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far offsets are off and how far they point elsewhere (section 3.2).

    Args:
        predicted: (N, 3) of points that belong to objects, at least one.
        wanted: (N, 3) from each point to the centre of its object.

    Returns:
        The mean L1 distance, and the mean of the negative cosine.
    """
    distance = (predicted - wanted).abs().sum(dim=1).mean()
    unit, target = (nn.functional.normalize(v, dim=1, eps=1e-8) for v in (predicted, wanted))
    return distance, -(unit * target).sum(dim=1).mean()


def group_points(
    coords: Tensor,
    offsets: Tensor,
    shifts: Tensor,
    labels: Tensor,
    *,
    radius: float,
    min_points: int,
) -> Clusters:
    """Cluster points where they are and where they are moved to (section 3.3).

    Args:
        coords: (N, 3) points, metres.
        offsets: (B,) cumulative row counts.
        shifts: (N, 3) predicted offsets.
        labels: (N,) int64 predicted classes; -1 for points of classes without objects.
        radius: Largest step within a cluster, see :func:`pointzoo.ops.cluster`.
        min_points: Points of the smallest cluster.
    """
    found = []
    for places in (coords, coords + shifts):
        number = ops.cluster(places, offsets, labels, radius, min_points=min_points)
        rows = number.argsort(stable=True)[int((number < 0).sum()) :]
        sizes = torch.bincount(number[rows])
        found.append((rows, sizes, labels[rows[sizes.cumsum(0) - sizes]]))
    rows, sizes, classes = (torch.cat(part) for part in zip(*found, strict=True))
    return Clusters(rows, sizes.cumsum(0), classes)


def score_targets(overlap: Tensor) -> Tensor:
    """Return what the score of a cluster should be (section 3.4).

    Args:
        overlap: (Q,) its largest intersection over union with an object.

    Returns:
        (Q,) 0 up to :data:`LOW`, 1 from :data:`HIGH` on, and a line between.
    """
    return ((overlap - LOW) / (HIGH - LOW)).clamp(0.0, 1.0)


class PointGroupHead(nn.Module):
    """A class, an offset and, where asked for, a score for every row of point features.

    The score of a cluster is the sigmoid of the mean of its points' scores: a linear layer on the
    mean feature, where the paper has a small U-Net on the cluster's voxels.
    """

    def __init__(self, channels: int, classes: int, *, hidden: int, scored: bool) -> None:
        """Build it.

        Args:
            channels: Of the point features.
            classes: K.
            hidden: Width of a hidden layer that all parts share; 0 for none.
            scored: Whether there is a score.
        """
        super().__init__()
        width = hidden or channels
        self.shared: nn.Module = nn.Identity()
        if hidden:
            self.shared = nn.Sequential(
                nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.GELU()
            )
        self.classes = nn.Linear(width, classes)
        self.hidden = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width, eps=1e-3)
        self.offset = nn.Linear(width, 3)
        self.score = nn.Linear(width, 1) if scored else None

    def forward(self, rows: Tensor) -> Tensor:
        """Return (N, K + 3), or (N, K + 4) with scores: logits, offsets in metres, scores."""
        rows = self.shared(rows)
        parts = [self.classes(rows), self.offset(self._norm(self.hidden(rows)).relu())]
        if self.score is not None:
            parts.append(self.score(rows))
        return torch.cat(parts, dim=1)

    def _norm(self, rows: Tensor) -> Tensor:
        """Normalise; a single row has no variance and takes the running statistics."""
        norm = self.norm
        if self.training and len(rows) > 1:
            normal: Tensor = norm(rows)
            return normal
        return nn.functional.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )


def best_clusters(clusters: Clusters, scores: Tensor, overlap: float) -> tuple[Clusters, Tensor]:
    """Drop clusters that overlap a better one (section 3.4); return the rest and their scores.

    Args:
        clusters: Q clusters.
        scores: (Q,).
        overlap: Largest intersection over union of two that stay.
    """
    kept = ops.suppress(clusters.rows, clusters.offsets, scores, overlap)
    return clusters.select(kept), scores[kept]


def without_stuff(labels: Tensor, countable: Sequence[bool]) -> Tensor:
    """Return labels (N,) with -1 for classes that have no objects."""
    kept = torch.tensor([*countable, False], device=labels.device)[labels]  # -1: the last entry
    return torch.where(kept, labels, -1)
