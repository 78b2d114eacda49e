"""Semantic segmentation: a class for every point.

Shape legend: N points, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError
from pointzoo.finetuning.heads import Head
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.task import Item, Prediction, Score, Task, TaskOptions
from pointzoo.finetuning.votes import views
from pointzoo.metrics import confusion_matrix
from pointzoo.tasks.segmentation import SegmentationScore


@dataclass(frozen=True, eq=False)
class SegmentationPrediction(Prediction):
    """A class for every point.

    Attributes:
        labels: (N,) int64, the class of each point.
        probabilities: (N, K) float32, rows sum to 1.
    """

    labels: IntArray
    probabilities: FloatArray

    @classmethod
    def of(cls, probabilities: FloatArray) -> SegmentationPrediction:
        """Take the class with the highest probability; of equals the lowest."""
        return cls(probabilities.argmax(axis=1), probabilities)

    def point_fields(self, points: int) -> Mapping[str, NDArray[Any]]:
        """Return ``label``, and ``confidence``, the probability of that class."""
        assert points == len(self.labels), "one row per point"
        return {"label": self.labels, "confidence": self.probabilities.max(axis=1)}


class Segmentation(Task[Tensor]):
    """A class for every point; labels are those of the points, -1 where unknown."""

    name = "segmentation"
    metric = "miou"
    mixes = True
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"reads": "levels"})

    @classmethod
    def from_data(cls, train: PointDataset, options: TaskOptions | None = None) -> Segmentation:
        """Take the class names of the data set, or number the classes of its points.

        Raises:
            ConfigError: The points have no labels.
        """
        return cls(train.class_names or _numbered(train), options)

    def build_head(self, point_channels: int, scene_channels: int, *, hidden: int) -> nn.Module:  # noqa: ARG002
        """Build a linear layer or an MLP on the rows of points."""
        return Head(point_channels, len(self.class_names), hidden=hidden, reads="point")

    def require_labels(self, item: Item) -> None:
        """Refuse points without labels, or with labels out of range.

        Raises:
            ConfigError: See above.
        """
        point_labels(item, len(self.class_names))

    def class_counts(self, items: Iterable[Item]) -> Tensor:
        """Return (K,) labelled points per class."""
        classes = len(self.class_names)
        counts = torch.zeros(classes, dtype=torch.int64)
        for item in items:
            labels = point_labels(item, classes)
            counts += torch.bincount(labels[labels >= 0], minlength=classes)
        return counts

    def target(self, items: Sequence[Item]) -> Tensor:
        """Return (N,) int64, -1 where unknown."""
        return torch.cat([point_labels(item, len(self.class_names)) for item in items])

    def loss(
        self, output: Tensor, target: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the mean cross-entropy of the labelled points; 0 where there is none."""
        known = (target >= 0).nonzero()[:, 0]
        if not len(known):
            return output.sum() * 0.0, {}
        loss = nn.functional.cross_entropy(
            output[known].float(),
            target[known],
            class_weights,
            label_smoothing=self.options.label_smoothing,
        )
        return loss, {}

    def predict(
        self, network: Network, cloud: PointCloud, *, votes: int = 1
    ) -> SegmentationPrediction:
        """Classify every point; see :meth:`Task.predict`.

        Raises:
            CloudError: The cloud cannot be used.
            ConfigError: ``votes`` is out of range.
        """
        return SegmentationPrediction.of(mean_probabilities(network, cloud, votes))

    def evaluate(self, network: Network, data: PointDataset, *, votes: int = 1) -> Score:
        """Count what every labelled point is taken for; see :meth:`Task.evaluate`.

        Raises:
            ConfigError: No point has a label, or one is out of range.
        """
        classes = len(self.class_names)
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        for item in raw_items(data):
            labels = point_labels(item, classes)
            found = self.predict(network, item.cloud, votes=votes).labels
            confusion += confusion_matrix(torch.from_numpy(found), labels, classes)
        return self.score(confusion)

    def score(self, confusion: Tensor) -> Score:
        """Summarise a confusion matrix (K, K).

        Raises:
            ConfigError: No point has a label.
        """
        found = SegmentationScore.of(confusion)
        recall = [value for value in _recall(confusion) if value is not None]
        return Score(
            metric="miou",
            values={
                "miou": found.miou,
                "mean accuracy": sum(recall) / len(recall),
                "accuracy": found.accuracy,
            },
            per_class={"iou": found.iou, "recall": tuple(_recall(confusion))},
            class_names=self.class_names,
            confusion=tuple(map(tuple, confusion.tolist())),
        )


def mean_probabilities(network: Network, cloud: PointCloud, votes: int) -> FloatArray:
    """Return (N, K) float32: the mean of the softmax over views of a cloud.

    Raises:
        CloudError: The cloud cannot be used.
        ConfigError: ``votes`` is out of range.
    """
    found = (network.rows(view) for view in views(cloud.require_usable(), votes))
    total = sum(torch.from_numpy(rows).softmax(dim=1) for rows in found)
    mean: FloatArray = (torch.as_tensor(total) / votes).numpy()
    return mean


def point_labels(item: Item, classes: int) -> Tensor:
    """Return the labels of an item's points, (N,) int64, -1 where unknown.

    Raises:
        ConfigError: There are none, or one is out of range.
    """
    labels = item.cloud.labels
    if labels is None:
        raise ConfigError(
            expected="clouds with a label per point",
            got=f"{item.name!r} without",
            fix="Use a data set with labels of points; -1 marks single points without one.",
        )
    if len(labels) and not -1 <= labels.min() <= labels.max() < classes:
        raise ConfigError(
            expected=f"labels from -1 to {classes - 1}",
            got=f"{labels.min()} to {labels.max()} in {item.name!r}",
            fix="Remap them, or give the ignored value; `pointzoo data check` lists all labels.",
        )
    return torch.from_numpy(np.array(labels, dtype=np.int64))


def raw_items(data: PointDataset) -> Iterator[Item]:
    """Yield the clouds of a data set as they are, one at a time."""
    labels = data.labels
    for row, name in enumerate(data.names):
        label = -1 if labels is None else int(labels[row])
        yield Item(data[row], label, name)


def _numbered(data: PointDataset) -> tuple[str, ...]:
    """Name classes by number, up to the largest label."""
    highest = -1
    for item in raw_items(data):
        labels = item.cloud.labels
        highest = max(highest, -1 if labels is None or not len(labels) else int(labels.max()))
    if highest < 0:
        raise ConfigError(
            expected="clouds with a label per point",
            got=f"{data.name!r} without",
            fix="Use a data set with labels of points, or task='classification' for clouds.",
        )
    return tuple(map(str, range(highest + 1)))


def _recall(confusion: Tensor) -> list[float | None]:
    rows = confusion.double()
    shares = (rows.diagonal() / rows.sum(1)).tolist()
    return [None if total == 0 else share for share, total in zip(shares, rows.sum(1), strict=True)]
