"""Average precision of instances, as ScanNet's benchmark defines it.

The rules are those of ``evaluate_semantic_instance.py`` (ScanNet @ 2021, BenchmarkScripts) and of
Pointcept's InsSegEvaluator @ d74c646, written anew:

- A true object is the points of one class with one instance number. It counts from
  ``min_points`` points on; predictions with fewer points do not exist.
- A prediction finds an object of its class where their intersection over union is above the
  threshold. Objects are taken in order, predictions in theirs; an object found twice is found once,
  at the higher score, and the other prediction is wrong.
- A prediction that finds nothing is wrong, unless the share of its points that lie outside all
  objects (points without label, of classes that have no objects) or in small objects of its class
  is above the threshold: then it is ignored.
- The precision-recall curve has a point for every score that occurs; precision is summed over
  steps of recall that reach half-way to the neighbouring points, without interpolation.
- AP is the mean over the thresholds 0.5, 0.55 ... 0.9 (the script's ``arange(0.5, 0.95, 0.05)``
  leaves 0.95 out), AP50 and AP25 are those of one threshold; each is the mean over the classes of
  which there is an object.

Shape legend: N points of a scene, G objects, Q predictions, P points of all predictions, K classes,
T thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray
from pointzoo.errors import ConfigError

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Of AP."""

MIN_POINTS = 100
"""Points of the smallest object that counts."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Instances:
    """Predicted objects of one scene; they may share points.

    Attributes:
        rows: (P,) int64, points of each object, each once, objects one after the other.
        offsets: (Q,) int64, cumulative numbers of points.
        classes: (Q,) int64.
        scores: (Q,) how sure the prediction is; only the order counts.
    """

    rows: IntArray
    offsets: IntArray
    classes: IntArray
    scores: Floats

    def __len__(self) -> int:
        """Return Q."""
        return len(self.offsets)

    def ids(self, points: int) -> IntArray:
        """Return (N,) the object of each point, the one with the highest score; -1: none.

        Args:
            points: N.
        """
        sizes = np.diff(self.offsets, prepend=0)
        rank = np.argsort(np.argsort(-self.scores, kind="stable"))  # 0: the best
        owner = np.repeat(np.arange(len(self)), sizes)
        order = np.argsort(-rank[owner], kind="stable")  # the last one written is the best
        found: IntArray = np.full(points, -1, dtype=np.int64)
        found[self.rows[order]] = owner[order]
        return found


@dataclass(frozen=True, eq=False)
class Overlaps:
    """What the metric needs to know of one scene.

    Attributes:
        shared: (Q, G) points that a prediction and an object have in common.
        outside: (Q,) points of a prediction that belong to no object.
        sizes: (Q,) points of a prediction.
        classes: (Q,) its class.
        scores: (Q,) its score.
        true_sizes: (G,) points of an object.
        true_classes: (G,) its class.
    """

    shared: IntArray
    outside: IntArray
    sizes: IntArray
    classes: IntArray
    scores: Floats
    true_sizes: IntArray
    true_classes: IntArray


@dataclass(frozen=True)
class InstanceScore:
    """Average precision, 0..1.

    Attributes:
        ap: Mean over classes and :data:`THRESHOLDS`.
        ap50: At threshold 0.5.
        ap25: At threshold 0.25.
        class_ap: (K,) None for a class without objects that count.
        class_ap50: (K,)
        class_ap25: (K,)
    """

    ap: float
    ap50: float
    ap25: float
    class_ap: tuple[float | None, ...]
    class_ap50: tuple[float | None, ...]
    class_ap25: tuple[float | None, ...]


def count_overlaps(
    predicted: Instances, labels: IntArray, instances: IntArray, countable: Sequence[bool]
) -> Overlaps:
    """Compare the predictions for a scene with its objects.

    Args:
        predicted: Q objects.
        labels: (N,) class of each point, -1 where unknown.
        instances: (N,) number of the object that each point belongs to, -1 for none.
        countable: (K,) whether a class has objects; walls and floors have none.

    Raises:
        ConfigError: A class is out of range, or the lengths differ.
    """
    classes = len(countable)
    every = (labels, predicted.classes)
    if labels.shape != instances.shape or any(len(x) and x.max() >= classes for x in every):
        raise ConfigError(
            expected=f"labels and instances (N,), classes below {classes}",
            got=f"{labels.shape}, {instances.shape}, classes {[x.max(initial=-1) for x in every]}",
            fix="Pass one label and one instance number per point.",
        )
    known = (labels >= 0) & (instances >= 0)
    known[known] = np.asarray(countable, dtype=bool)[labels[known]]
    objects = np.full(len(labels), -1)
    pairs = np.stack([labels[known], instances[known]], axis=1)
    names, objects[known], true_sizes = np.unique(
        pairs, axis=0, return_inverse=True, return_counts=True
    )
    sizes = np.diff(predicted.offsets, prepend=0)
    width = len(names) + 1  # the first column: no object
    place = np.repeat(np.arange(len(sizes)) * width, sizes) + objects[predicted.rows] + 1
    counts = np.bincount(place, minlength=len(sizes) * width).reshape(len(sizes), width)
    return Overlaps(
        shared=counts[:, 1:],
        outside=counts[:, 0],
        sizes=sizes,
        classes=predicted.classes,
        scores=predicted.scores,
        true_sizes=true_sizes,
        true_classes=names[:, 0],
    )


def average_precision(
    scenes: Iterable[Overlaps], countable: Sequence[bool], *, min_points: int = MIN_POINTS
) -> InstanceScore:
    """Return the average precision over scenes.

    Args:
        scenes: Of :func:`count_overlaps`.
        countable: (K,) whether a class has objects.
        min_points: Points of the smallest object and prediction that count.

    Raises:
        ConfigError: There is no object that counts.
    """
    every = list(scenes)
    thresholds = (*THRESHOLDS, 0.25)
    table = np.full((len(countable), len(thresholds)), np.nan)
    for k in np.flatnonzero(np.asarray(countable, dtype=bool)):
        of_class = [_class_part(scene, int(k), min_points) for scene in every]
        if any((scene.true_sizes >= min_points).any() for scene in of_class):
            table[k] = [_class_precision(of_class, t, min_points) for t in thresholds]
    if np.isnan(table).all():
        raise ConfigError(
            expected=f"at least one object of {min_points} points",
            got="none",
            fix="Give points of a class with objects instance numbers from 0 on.",
        )
    means = table[:, :-1].mean(axis=1), table[:, 0], table[:, -1]
    ap, ap50, ap25 = (float(np.nanmean(column)) for column in means)
    plain = (tuple(None if np.isnan(v) else float(v) for v in column) for column in means)
    return InstanceScore(ap, ap50, ap25, *plain)


def _class_part(scene: Overlaps, k: int, min_points: int) -> Overlaps:
    """Keep the objects of a class, and its predictions that are large enough."""
    rows = np.flatnonzero((scene.classes == k) & (scene.sizes >= min_points))
    columns = np.flatnonzero(scene.true_classes == k)
    return Overlaps(
        scene.shared[np.ix_(rows, columns)],
        scene.outside[rows],
        scene.sizes[rows],
        scene.classes[rows],
        scene.scores[rows],
        scene.true_sizes[columns],
        scene.true_classes[columns],
    )


def _class_precision(scenes: Iterable[Overlaps], threshold: float, min_points: int) -> float:
    right: list[float] = []
    wrong: list[float] = []
    missed = 0
    for scene in scenes:
        found, doubles, lost = _found(scene, threshold, min_points)
        right += found
        wrong += doubles + _false(scene, threshold, min_points)
        missed += lost
    return _area(np.array(right), np.array(wrong), missed)


def _hits(scene: Overlaps, threshold: float) -> NDArray[np.bool_]:
    """Say which prediction finds which object, (Q, G)."""
    union = scene.sizes[:, None] + scene.true_sizes - scene.shared
    found: NDArray[np.bool_] = scene.shared / union > threshold
    return found


def _found(
    scene: Overlaps, threshold: float, min_points: int
) -> tuple[list[float], list[float], int]:
    """Return scores at which objects are found, scores of second finds, and objects not found."""
    hits = _hits(scene, threshold)
    free = np.ones(len(scene.sizes), dtype=bool)
    found, doubles, lost = [], [], 0
    for g in np.flatnonzero(scene.true_sizes >= min_points):
        finders = np.flatnonzero(hits[:, g] & free)
        if not len(finders):
            lost += 1
            continue
        free[finders[0]] = False  # the script lets the others find another object
        best, *others = sorted(scene.scores[finders].tolist(), reverse=True)
        found.append(best)
        doubles += others
    return found, doubles, lost


def _false(scene: Overlaps, threshold: float, min_points: int) -> list[float]:
    """Return the scores of predictions that find nothing and are not to be ignored."""
    small = scene.true_sizes < min_points
    ignored = (scene.outside + scene.shared[:, small].sum(axis=1)) / scene.sizes
    wrong: list[float] = scene.scores[
        ~_hits(scene, threshold).any(axis=1) & (ignored <= threshold)
    ].tolist()
    return wrong


def _area(right: Floats, wrong: Floats, missed: int) -> float:
    """Return the area below the precision-recall curve.

    Args:
        right: Scores of objects that were found.
        wrong: Scores of predictions that are none.
        missed: Objects that were not found.
    """
    levels = np.unique(np.concatenate([right, wrong]))
    positive, negative = (len(s) - np.searchsorted(np.sort(s), levels) for s in (right, wrong))
    precision = np.append(positive / (positive + negative), 1.0)
    recall = np.append(positive / max(1, len(right) + missed), 0.0)
    neighbours = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (neighbours[:-2] - neighbours[2:])) / 2
