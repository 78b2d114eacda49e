"""Part segmentation: a part for every point of an object whose category may be known.

As in ShapeNetPart's protocol (L. Yi et al., "A scalable active framework for region annotation in
3D shape collections", SIGGRAPH Asia 2016): a point can only be one of the parts that its object's
category has, and the score is the mean over objects of the mean IoU over these parts, where a part
that neither the object has nor the network finds counts as 1.

Shape legend: N points, K parts, G categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.finetuning.heads import Head
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import (
    Segmentation,
    SegmentationPrediction,
    mean_probabilities,
    point_labels,
    raw_items,
)
from pointzoo.finetuning.task import Item, Score, Task, TaskOptions, names_of
from pointzoo.metrics import confusion_matrix

_MOST_PARTS = 10_000_000  # cells of the table of parts by category


class Part(Task[Tensor]):
    """A part for every point; categories are the classes of the data set's clouds, if it has any.

    Attributes:
        categories: Names of the G categories; empty where clouds have none.
        parts: (G, K) which parts each category has.
    """

    name = "part"
    metric = "instance miou"
    per_point = False
    crops = False

    def __init__(
        self,
        class_names: Sequence[str],
        options: TaskOptions | None = None,
        *,
        categories: Sequence[str] = (),
        parts: NDArray[np.bool_] | None = None,
    ) -> None:
        """Keep the names and which parts a category has."""
        super().__init__(class_names, options)
        self.categories = tuple(categories)
        none = np.ones((len(self.categories), len(self.class_names)), dtype=bool)
        self.parts = none if parts is None else parts
        self._points = Segmentation(class_names, self.options)

    @classmethod
    def from_data(cls, train: PointDataset, options: TaskOptions | None = None) -> Part:
        """See which parts occur in which category; every cloud is read once.

        Raises:
            ConfigError: Points have no labels.
        """
        categories = train.class_names if train.labels is not None else ()
        seen: dict[int, set[int]] = {}
        for item in raw_items(train):
            labels = point_labels(item, np.iinfo(np.int64).max)
            seen.setdefault(item.label, set()).update(labels[labels >= 0].tolist())
        highest = max((max(found, default=-1) for found in seen.values()), default=-1)
        if highest < 0:
            raise ConfigError(
                expected=f"points with a part in {train.name!r}",
                got="none",
                fix="Label points from 0 on; -1 marks those without a part.",
            )
        names = getattr(train, "part_names", ()) or tuple(map(str, range(highest + 1)))
        parts = np.zeros((len(categories), len(names)), dtype=bool)
        for category, found in seen.items():
            if category >= 0 and categories:
                parts[category, list(found)] = True
        return cls(names, options, categories=categories, parts=parts)

    def to_dict(self) -> dict[str, Any]:
        """Add the categories and their parts."""
        parts = [np.flatnonzero(row).tolist() for row in self.parts]
        return {**super().to_dict(), "categories": list(self.categories), "parts": parts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Part:
        """Build the task again.

        Raises:
            KeyError: Something is missing.
            TypeError: An option is unknown, or something is of another type.
            ValueError: A category or a part does not exist.
        """
        names, categories = names_of(values), names_of(values, "categories")
        listed = values["parts"]
        highest = max((max(row, default=0) for row in listed), default=0)
        sizes = len(listed) == len(categories) and len(names) * len(categories) <= _MOST_PARTS
        if not sizes or not 0 <= highest < max(len(names), 1):
            raise ValueError(f"parts {str(listed)[:100]} of {len(categories)} categories")
        parts = np.zeros((len(categories), len(names)), dtype=bool)
        for row, found in enumerate(listed):
            parts[row, found] = True
        return cls(names, cls.options_of(values), categories=categories, parts=parts)

    def build_head(self, point_channels: int, scene_channels: int, *, hidden: int) -> nn.Module:
        """Build a linear layer or an MLP on the rows of points beside that of their object."""
        channels = point_channels + scene_channels
        return Head(channels, len(self.class_names), hidden=hidden, reads="both")

    def require_labels(self, item: Item) -> None:
        """Refuse points without labels, or with labels out of range.

        Raises:
            ConfigError: See above.
        """
        self._points.require_labels(item)

    def class_counts(self, items: Iterable[Item]) -> Tensor:
        """Return (K,) labelled points per part."""
        return self._points.class_counts(items)

    def target(self, items: Sequence[Item]) -> Tensor:
        """Return (N,) int64, -1 where unknown."""
        return self._points.target(items)

    def loss(
        self, output: Tensor, target: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the mean cross-entropy of the labelled points; 0 where there is none."""
        return self._points.loss(output, target, class_weights)

    def predict(
        self,
        network: Network,
        cloud: PointCloud,
        *,
        votes: int = 1,
        category: str | int | None = None,
    ) -> SegmentationPrediction:
        """Find the part of every point; see :meth:`Task.predict`.

        Args:
            network: See there.
            cloud: See there.
            votes: See there.
            category: Name or number of the object's category, which leaves its parts alone to
                choose from; None: all parts.

        Raises:
            CloudError: The cloud cannot be used.
            ConfigError: ``votes`` is out of range.
            UnknownNameError: There is no such category.
        """
        probabilities = mean_probabilities(network, cloud, votes)
        return SegmentationPrediction.of(self._restricted(probabilities, category))

    def evaluate(self, network: Network, data: PointDataset, *, votes: int = 1) -> Score:
        """Score the parts of every object with a labelled point, its category given.

        Raises:
            ConfigError: No point has a label, or one is out of range.
        """
        classes = len(self.class_names)
        total = torch.zeros(classes, classes, dtype=torch.int64)
        ious: list[tuple[int, float]] = []
        for item in raw_items(data):
            labels = point_labels(item, classes)
            if not bool((labels >= 0).any()):
                continue
            category = item.label if 0 <= item.label < len(self.categories) else None
            found = self.predict(network, item.cloud, votes=votes, category=category).labels
            confusion = confusion_matrix(torch.from_numpy(found), labels, classes)
            ious.append((item.label, self._object_iou(confusion, category)))
            total += confusion
        points = self._points.score(total)  # refuses a set without labels
        each: dict[int, list[float]] = {}
        for label, value in ious:
            each.setdefault(label, []).append(value)
        by_class = [sum(values) / len(values) for values in each.values()]
        return Score(
            metric=self.metric,
            values={
                "instance miou": sum(value for _, value in ious) / len(ious),
                "class miou": sum(by_class) / len(by_class),
                "accuracy": points.values["accuracy"],
            },
            per_class=points.per_class,
            class_names=self.class_names,
            confusion=points.confusion,
        )

    def _object_iou(self, confusion: Tensor, category: int | None) -> float:
        own = torch.from_numpy(self.parts[category]) if category is not None else None
        counts = confusion.double()
        inside = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - inside
        iou = torch.where(union > 0, inside / union, 1.0)
        chosen = union > 0 if own is None else own | (union > 0)
        return float(iou[chosen].mean())

    def _restricted(self, probabilities: FloatArray, category: str | int | None) -> FloatArray:
        if category is None:
            return probabilities
        row = category
        if isinstance(row, str):
            if row not in self.categories:
                raise UnknownNameError.of("category", row, self.categories)
            row = self.categories.index(row)
        own = self.parts[row]
        if not own.any():  # a category that the training set did not hold
            return probabilities
        kept = np.where(own, probabilities + np.finfo(np.float32).tiny, np.float32(0.0))
        restricted: FloatArray = kept / kept.sum(axis=1, keepdims=True)
        return restricted
