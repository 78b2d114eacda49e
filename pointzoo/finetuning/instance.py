"""Instance segmentation: a class for every point, and which points make one object.

The network is PointGroup (:mod:`pointzoo.tasks.pointgroup`), judged by ScanNet's average precision
(:mod:`pointzoo.tasks.average_precision`).

Shape legend: N points, K classes, Q predicted objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import Segmentation, point_labels, raw_items
from pointzoo.finetuning.task import Encoded, Item, Prediction, Score, Task, TaskOptions
from pointzoo.tasks.average_precision import (
    Instances,
    average_precision,
    count_overlaps,
)
from pointzoo.tasks.pointgroup import (
    Clusters,
    PointGroupHead,
    best_clusters,
    group_points,
    object_centers,
    offset_losses,
    score_targets,
    without_stuff,
)

FIELD = "instance"
"""Field of a cloud that tells its objects apart: integers, -1 for no object."""


@dataclass(frozen=True)
class InstanceOptions(TaskOptions):
    """Settings of instance segmentation.

    Attributes:
        stuff: Names of classes that have no objects; those that the data lacks do not matter.
        radius: Largest step within a cluster, metres (for an encoder that scales to the unit
            sphere, in its unit). At least 1.5 times the distance of neighbouring points.
        min_points: Points of the smallest cluster.
        overlap: Largest intersection over union of two objects that are both kept.
        score: ``probability``: the mean probability of the class over the points (Pointcept);
            ``learned``: that times what a score layer says about the overlap with a true object.
        min_region: Points of the smallest object that counts in the score.
    """

    stuff: tuple[str, ...] = ("wall", "floor", "ceiling")
    radius: float = 0.03
    min_points: int = 50
    overlap: float = 0.3
    score: str = "probability"
    min_region: int = 100

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is out of range.
        """
        if min(self.min_points, self.min_region) < 1 or not self.radius > 0:
            raise ConfigError(
                expected="a positive radius, min_points and min_region of at least 1",
                got=f"{self.radius}, {self.min_points} and {self.min_region}",
                fix="Correct the setting.",
            )
        if not 0 <= self.overlap <= 1 or self.score not in ("probability", "learned"):
            raise ConfigError(
                expected="overlap from 0 to 1 and score 'probability' or 'learned'",
                got=f"{self.overlap} and {self.score!r}",
                fix="Correct the setting.",
            )


@dataclass(frozen=True, eq=False)
class InstancePrediction(Prediction):
    """Objects, the best first, and a class for every point.

    Attributes:
        instances: (N,) int64, the object of each point, -1 for none; of overlapping objects the
            better one.
        labels: (N,) int64, the class of each point.
        probabilities: (N, K) float32, rows sum to 1.
        scores: (Q,) float32, how sure each object is.
        classes: (Q,) int64.
        objects: All points of each object, also those that a better object takes.
    """

    instances: IntArray
    labels: IntArray
    probabilities: FloatArray
    scores: FloatArray
    classes: IntArray
    objects: Instances

    def point_fields(self, points: int) -> Mapping[str, NDArray[Any]]:
        """Return ``label``, ``instance``, and ``confidence``, the probability of the label."""
        assert points == len(self.labels), "one row per point"
        confidence = self.probabilities.max(axis=1)
        return {"label": self.labels, "instance": self.instances, "confidence": confidence}


@dataclass(frozen=True, eq=False)
class InstanceTarget:
    """What the loss compares with.

    Attributes:
        coords: (N, 3) in the frame of the encoder.
        offsets: (B,) cumulative row counts.
        labels: (N,) int64, -1 where unknown.
        objects: (N,) int64, unique over the batch, -1 for points of no object.
    """

    coords: Tensor
    offsets: Tensor
    labels: Tensor
    objects: Tensor

    def to(self, device: torch.device, /) -> InstanceTarget:
        """Return it on a device."""
        parts = (self.coords, self.offsets, self.labels, self.objects)
        return InstanceTarget(*(part.to(device) for part in parts))


class InstanceHead(nn.Module):
    """PointGroup's head on the rows of points."""

    def __init__(self, channels: int, classes: int, *, hidden: int, scored: bool) -> None:
        """Build it; see :class:`~pointzoo.tasks.pointgroup.PointGroupHead`."""
        super().__init__()
        self.layers = PointGroupHead(channels, classes, hidden=hidden, scored=scored)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (N, K + 3), or (N, K + 4) with scores."""
        output: Tensor = self.layers(encoded.rows())
        return output


class Instance(Task[InstanceTarget]):
    """Objects of every class but those that are stuff."""

    name = "instance"
    metric = "ap50"
    options_class = InstanceOptions
    defaults = MappingProxyType({"crop_points": 30_000})
    options: InstanceOptions

    def __init__(self, class_names: Sequence[str], options: TaskOptions | None = None) -> None:
        """Keep the names and which classes have objects."""
        super().__init__(class_names, options)
        self.countable = tuple(name not in self.options.stuff for name in self.class_names)
        self._points = Segmentation(class_names, self.options)

    @classmethod
    def from_data(cls, train: PointDataset, options: TaskOptions | None = None) -> Instance:
        """Take the class names of the data set, or number the classes of its points.

        Raises:
            ConfigError: The points have no labels, or all classes are stuff.
        """
        task = cls(Segmentation.from_data(train).class_names, options)
        if not any(task.countable):
            raise ConfigError(
                expected="at least one class with objects",
                got=f"{task.class_names}, all of them in stuff {task.options.stuff}",
                fix="Set stuff to the classes that have no objects.",
            )
        return task

    def build_head(self, point_channels: int, scene_channels: int, *, hidden: int) -> nn.Module:  # noqa: ARG002
        """Build PointGroup's head on the rows of points."""
        classes, scored = len(self.class_names), self.options.score == "learned"
        return InstanceHead(point_channels, classes, hidden=hidden, scored=scored)

    def require_labels(self, item: Item) -> None:
        """Refuse points without labels or objects.

        Raises:
            ConfigError: See above.
        """
        point_labels(item, len(self.class_names))
        point_objects(item)

    def class_counts(self, items: Iterable[Item]) -> Tensor:
        """Return (K,) labelled points per class."""
        return self._points.class_counts(items)

    def target(self, items: Sequence[Item]) -> InstanceTarget:
        """Return coordinates, labels and objects of all points."""
        labels = self._points.target(items)
        first, objects = 0, []
        for item in items:
            numbers = point_objects(item)
            objects.append(np.where(numbers >= 0, numbers + first, -1))
            first += int(numbers.max(initial=-1)) + 1
        alone = torch.from_numpy(np.concatenate(objects))
        coords = np.concatenate([item.cloud.coords for item in items]).astype(np.float32)
        return InstanceTarget(
            torch.from_numpy(coords),
            torch.tensor([len(item.cloud) for item in items]).cumsum(0),
            labels,
            torch.where(without_stuff(labels, self.countable) >= 0, alone, -1),
        )

    def loss(
        self, output: Tensor, target: InstanceTarget, class_weights: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return cross-entropy, plus distance and direction of the offsets, plus the scores'.

        All weights are 1; offsets count where a point belongs to an object.
        """
        output, classes = output.float(), len(self.class_names)
        semantic, _ = self._points.loss(output[:, :classes], target.labels, class_weights)
        parts = {"semantic": semantic}
        known = (target.objects >= 0).nonzero()[:, 0]
        if len(known):
            wanted = object_centers(target.coords, target.objects) - target.coords
            parts["offset"], parts["direction"] = offset_losses(
                output[known, classes : classes + 3], wanted[known]
            )
        if self.options.score == "learned":
            parts["score"] = self._score_loss(output, target)
        return torch.stack([*parts.values()]).sum(), {
            k: float(v.detach()) for k, v in parts.items()
        }

    def _score_loss(self, output: Tensor, target: InstanceTarget) -> Tensor:
        """Return the mean cross-entropy of the scores of the clusters that are there now."""
        clusters = self._clusters(output.detach(), target.coords, target.offsets)
        if not len(clusters):
            return output.sum() * 0.0
        overlaps = count_overlaps(
            _packed(clusters, np.zeros(len(clusters))),
            target.labels.cpu().numpy(),
            target.objects.cpu().numpy(),
            self.countable,
        )
        same = overlaps.classes[:, None] == overlaps.true_classes
        union = overlaps.sizes[:, None] + overlaps.true_sizes - overlaps.shared
        best = np.max(overlaps.shared / union * same, axis=1, initial=0.0)
        wanted = score_targets(torch.from_numpy(best).float()).to(output.device)
        logits = clusters.mean(output[:, -1])
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted)

    def _clusters(self, output: Tensor, coords: Tensor, offsets: Tensor) -> Clusters:
        classes = len(self.class_names)
        labels = without_stuff(output[:, :classes].argmax(dim=1), self.countable)
        return group_points(
            coords,
            offsets,
            output[:, classes : classes + 3],
            labels,
            radius=self.options.radius,
            min_points=self.options.min_points,
        )

    def predict(self, network: Network, cloud: PointCloud, *, votes: int = 1) -> InstancePrediction:
        """Find the objects of a cloud; see :meth:`Task.predict`.

        Raises:
            CloudError: The cloud cannot be used.
            ConfigError: More than one vote is asked for: clusters of views have no mean.
        """
        if votes != 1:
            raise ConfigError(
                expected="one vote for instances", got=str(votes), fix="Leave votes at 1."
            )
        output = torch.from_numpy(network.rows(cloud.require_usable()))
        coords, _ = network.encoder.preprocess(cloud)
        clusters = self._clusters(output, coords, torch.tensor([len(coords)]))
        probabilities = output[:, : len(self.class_names)].softmax(dim=1)
        kept, scores = best_clusters(
            clusters, self._scores(clusters, probabilities, output), self.options.overlap
        )
        objects = _packed(kept, scores.numpy())
        return InstancePrediction(
            instances=objects.ids(len(cloud)),
            labels=probabilities.argmax(dim=1).numpy(),
            probabilities=probabilities.numpy(),
            scores=scores.numpy(),
            classes=kept.classes.numpy(),
            objects=objects,
        )

    def _scores(self, clusters: Clusters, probabilities: Tensor, output: Tensor) -> Tensor:
        scores = clusters.mean(probabilities.amax(dim=1))
        if self.options.score == "learned":
            scores = scores * clusters.mean(output[:, -1]).sigmoid()
        return scores

    def evaluate(self, network: Network, data: PointDataset, *, votes: int = 1) -> Score:
        """Return AP, AP50 and AP25 of a data set; see :mod:`pointzoo.tasks.average_precision`.

        Raises:
            ConfigError: Labels or objects are missing or out of range, or no object counts.
        """
        scenes = []
        for item in raw_items(data):
            labels = point_labels(item, len(self.class_names)).numpy()
            objects = self.predict(network, item.cloud, votes=votes).objects
            scenes.append(count_overlaps(objects, labels, point_objects(item), self.countable))
        found = average_precision(scenes, self.countable, min_points=self.options.min_region)
        return Score(
            metric="ap50",
            values={"ap": found.ap, "ap50": found.ap50, "ap25": found.ap25},
            per_class={"ap": found.class_ap, "ap50": found.class_ap50, "ap25": found.class_ap25},
            class_names=self.class_names,
        )


def point_objects(item: Item) -> IntArray:
    """Return the number of the object of each point, (N,) int64, -1 for none.

    Raises:
        ConfigError: The cloud has no integer field of that name.
    """
    found = item.cloud.fields.get(FIELD)
    if found is None or found.ndim != 1 or found.dtype.kind not in "iu":
        raise ConfigError(
            expected=f"clouds with a field {FIELD!r} of one integer per point",
            got=f"{item.name!r} with fields {sorted(item.cloud.fields)}",
            fix="Number the objects of a cloud from 0 on, and give -1 to points of none.",
        )
    return np.maximum(found.astype(np.int64), -1)


def _packed(clusters: Clusters, scores: FloatArray) -> Instances:
    rows, offsets = clusters.rows.cpu().numpy(), clusters.offsets.cpu().numpy()
    return Instances(rows, offsets, clusters.classes.cpu().numpy(), scores)
