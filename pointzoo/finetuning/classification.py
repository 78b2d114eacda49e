"""Classification: a class for every cloud.

Shape legend: B clouds, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError, WeightError
from pointzoo.features import evaluating
from pointzoo.finetuning.heads import Head
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import raw_items
from pointzoo.finetuning.task import Item, Prediction, Score, Task, TaskOptions
from pointzoo.finetuning.votes import views


@dataclass(frozen=True, eq=False)
class ClassPrediction(Prediction):
    """A class for a cloud.

    Attributes:
        label: Its class.
        probabilities: (K,) float32, sums to 1.
    """

    label: int
    probabilities: FloatArray

    def point_fields(self, points: int) -> Mapping[str, NDArray[Any]]:
        """Return ``label`` and ``confidence``, the same for every point."""
        return {
            "label": np.full(points, self.label, np.int64),
            "confidence": np.full(points, self.probabilities[self.label], np.float32),
        }


class Classification(Task[Tensor]):
    """A class for every cloud; labels are those of the data set, -1 where unknown."""

    name = "classification"
    metric = "accuracy"
    reads_points = False
    per_point = False
    crops = False
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "batch_size": 32, "epochs": 40, "crop_points": 2048, "augmentation": "object",
            "learning_rate": 1e-3, "weight_decay": 0.05, "label_smoothing": 0.1, "thin": 0.0,
        }
    )  # fmt: skip

    @classmethod
    def from_data(cls, train: PointDataset, options: TaskOptions | None = None) -> Classification:
        """Take the class names of the data set.

        Raises:
            ConfigError: Its clouds have no classes.
        """
        if train.labels is None or not train.class_names:
            raise ConfigError(
                expected=f"clouds with a class in {train.name!r}",
                got="none",
                fix="Sort the files into a folder per class, or use task='segmentation'.",
            )
        return cls(train.class_names, options)

    def build_head(self, point_channels: int, scene_channels: int, *, hidden: int) -> nn.Module:  # noqa: ARG002
        """Build a linear layer or an MLP on the scene features."""
        return Head(scene_channels, len(self.class_names), hidden=hidden, reads="scene")

    def require_labels(self, item: Item) -> None:
        """Refuse a cloud whose class is out of range; one without a class does not count.

        Raises:
            ConfigError: See above.
        """
        if not -1 <= item.label < len(self.class_names):
            raise ConfigError(
                expected=f"classes from -1 to {len(self.class_names) - 1}",
                got=f"{item.label} for {item.name!r}",
                fix="Name every class of the data set.",
            )

    def class_counts(self, items: Iterable[Item]) -> Tensor:
        """Return (K,) clouds per class."""
        labels = self.target(list(items))
        return torch.bincount(labels[labels >= 0], minlength=len(self.class_names))

    def target(self, items: Sequence[Item]) -> Tensor:
        """Return (B,) int64, -1 where unknown."""
        for item in items:
            self.require_labels(item)
        return torch.tensor([item.label for item in items], dtype=torch.int64)

    def loss(
        self, output: Tensor, target: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the mean cross-entropy of the clouds with a class; 0 where there is none."""
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

    def predict(self, network: Network, cloud: PointCloud, *, votes: int = 1) -> ClassPrediction:
        """Classify a cloud; see :meth:`Task.predict`.

        Raises:
            CloudError: The cloud cannot be used.
            ConfigError: ``votes`` is out of range.
            WeightError: The network gives NaN.
        """
        total = torch.zeros(len(self.class_names))
        with evaluating(network), torch.inference_mode():
            for view in views(cloud.require_usable(), votes):
                total += network(network.batch([view]))[0].float().softmax(dim=0).cpu()
        probabilities: FloatArray = (total / votes).numpy()
        if not np.isfinite(probabilities).all():
            raise WeightError(
                expected="finite probabilities",
                got="NaN",
                fix="The training went astray: lower the learning rate and train again.",
            )
        return ClassPrediction(int(probabilities.argmax()), probabilities)

    def evaluate(self, network: Network, data: PointDataset, *, votes: int = 1) -> Score:
        """Count what every cloud with a class is taken for; see :meth:`Task.evaluate`.

        Raises:
            ConfigError: No cloud has a class, or one is out of range.
        """
        classes = len(self.class_names)
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        for item in raw_items(data):
            self.require_labels(item)
            if item.label >= 0:
                confusion[item.label, self.predict(network, item.cloud, votes=votes).label] += 1
        return self.score(confusion)

    def score(self, confusion: Tensor) -> Score:
        """Summarise a confusion matrix (K, K).

        Raises:
            ConfigError: It is empty.
        """
        total = confusion.sum()
        if not bool(total > 0):
            raise ConfigError(
                expected="clouds with a class", got="none", fix="Evaluate on labelled clouds."
            )
        counts = confusion.sum(1)
        recall = confusion.diagonal().double() / counts
        occurs = counts > 0
        shown = [float(r) if o else None for r, o in zip(recall, occurs, strict=True)]
        return Score(
            metric="accuracy",
            values={
                "accuracy": float(confusion.diagonal().sum() / total),
                "mean accuracy": float(recall[occurs].mean()),
            },
            per_class={"recall": tuple(shown)},
            class_names=self.class_names,
            confusion=tuple(map(tuple, confusion.tolist())),
        )
