"""Test-time views as Pointcept @ d74c646 evaluates scenes ("precise eval").

Each view is cut into fragments with one point per voxel, until every point was in one; the class
probabilities of all of them are summed.

Shape legend: N points, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi
from types import MappingProxyType

import numpy as np
import torch

from pointzoo import transforms
from pointzoo.augment import grid_cells
from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import UnknownNameError
from pointzoo.features import evaluating
from pointzoo.finetuning.model import Model
from pointzoo.finetuning.renamed import with_classes
from pointzoo.finetuning.segmentation import Segmentation, point_labels, raw_items
from pointzoo.finetuning.task import Score
from pointzoo.metrics import confusion_matrix


@dataclass(frozen=True)
class View:
    """A cloud as a network is shown it.

    Attributes:
        turn: Rotation about z, radians.
        scale: Factor of the coordinates.
        mirror: Whether x and y are both mirrored.
    """

    turn: float = 0.0
    scale: float = 1.0
    mirror: bool = False

    def of(self, cloud: PointCloud) -> PointCloud:
        """Return the changed cloud; normals turn along."""
        angle = self.turn + pi * self.mirror  # both mirrored: half a turn
        turned = transforms.rotate_z(cloud, angle) if angle else cloud
        return transforms.scale(turned, self.scale)


VIEWS: Mapping[str, tuple[View, ...]] = MappingProxyType(
    {
        "one": (View(),),
        "scannet": (
            *(
                View(turn=quarter * pi / 2, scale=scale)
                for scale, quarter in itertools.product((1.0, 0.95, 1.05), range(4))
            ),
            View(mirror=True),
        ),
        "s3dis": tuple(
            View(scale=scale, mirror=mirror)
            for mirror, scale in itertools.product((False, True), (0.9, 0.95, 1.0, 1.05, 1.1))
        ),
    }
)
"""By name: ``one`` is the cloud itself, without fragments; the others are those of Pointcept's
configs for ScanNet and S3DIS."""


def get_views(name: str) -> tuple[View, ...]:
    """Return views by name.

    Raises:
        UnknownNameError: There are none of that name.
    """
    if name not in VIEWS:
        raise UnknownNameError.of("set of views", name, VIEWS)
    return VIEWS[name]


def evaluate_views(model: Model, data: PointDataset, views: str) -> Score:
    """Classify every point by the sum over views and fragments, and compare with its label.

    Args:
        model: For semantic segmentation.
        data: With labels of points.
        views: A key of :data:`VIEWS`; for ``one`` this is ``model.evaluate``.

    Raises:
        ConfigError: There are no labels, or they are out of range.
        UnknownNameError: There are no such views.
    """
    chosen = get_views(views)
    if len(chosen) == 1 or not isinstance(model.task, Segmentation):
        return model.evaluate(data)
    classes = len(model.class_names)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for item in raw_items(with_classes(data, model.class_names)):
        labels = point_labels(item, classes)
        found = torch.from_numpy(sum_probabilities(model, item.cloud, chosen).argmax(axis=1))
        confusion += confusion_matrix(found, labels, classes)
    return model.task.score(confusion)


def sum_probabilities(model: Model, cloud: PointCloud, views: tuple[View, ...]) -> FloatArray:
    """Return the summed class probabilities (N, K) of all views and fragments."""
    grid = getattr(model.network.encoder.config, "grid_size", None)
    total = np.zeros((len(cloud), len(model.class_names)), np.float32)
    with evaluating(model.network):
        for view in views:
            shown = view.of(cloud)
            for rows in fragments(shown.coords, grid):
                logits = torch.from_numpy(model.network.rows(shown.select(rows)))
                total[rows] += logits.softmax(dim=1).numpy()
    return total


def fragments(coords: FloatArray, grid: float | None) -> Iterator[IntArray]:
    """Yield rows with one point of each voxel, until every point was among them.

    A voxel with fewer points than the fullest one shows them again in turn.

    Args:
        coords: (N, 3).
        grid: Edge of a voxel; None: all points at once.
    """
    if grid is None:
        yield np.arange(len(coords))
        return
    cells = grid_cells((coords - coords.min(axis=0)).T, grid)
    _, inverse, counts = np.unique(cells, axis=1, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    starts = np.cumsum(counts) - counts
    for number in range(int(counts.max())):
        yield order[starts + number % counts]
