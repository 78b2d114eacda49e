"""Accuracy over seeds and folds, with confidence intervals.

Shape legend: M items, K classes, F folds, E seeds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pointzoo.cloud import IntArray
from pointzoo.errors import ConfigError
from pointzoo.tasks.labelled import Labelled, Rows

Predict = Callable[[int, Rows, Rows], IntArray]
"""From a seed, training rows and test rows to the predicted classes of the test rows."""


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one classifier on the features of one subject.

    Attributes:
        subject: What was evaluated: an encoder's name, ``random:...``, ``descriptor:...``.
        dataset: Name of the data set.
        classifier: Name of the classifier, see :mod:`pointzoo.tasks.classifiers`.
        points: Points drawn from each cloud (all of them where a cloud has fewer).
        rotation: How the clouds were turned: ``none`` or ``z``.
        class_names: (K,) names of the classes.
        seeds: (E,) seeds, each for one choice of folds, points and angles.
        accuracy: (E, F) accuracy per seed and fold, 0..1.
        mean: Mean of :attr:`accuracy`.
        interval: 95 % confidence interval of the mean, see :func:`confidence_interval`.
        class_accuracy: Accuracy per class averaged over the classes.
        confusion: (K, K) items of class k (row) classified as (column), summed over the seeds.
        channels: D, width of the features.
        effective_rank: Of the features of all items (first seed); see
            :func:`pointzoo.metrics.effective_rank`. None where there are no features.
        seconds: Time spent on features and classifiers.
        settings: Further settings, as JSON types.
    """

    subject: str
    dataset: str
    classifier: str
    points: int
    rotation: str
    class_names: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: tuple[tuple[float, ...], ...]
    mean: float
    interval: tuple[float, float]
    class_accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    channels: int | None
    effective_rank: float | None
    seconds: float
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps({**values, "settings": dict(self.settings)}))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeResult:
        """Rebuild a result from what :meth:`to_dict` returned.

        Raises:
            ConfigError: A key is missing or unknown.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            raise ConfigError(
                expected=f"the keys {sorted(names)}",
                got=f"others: {sorted(set(values) ^ names)}",
                fix="Write the result with ProbeResult.to_dict.",
            )
        return cls(**{k: v if k == "settings" else _tuples(v) for k, v in values.items()})

    def metric(self, data: str) -> tuple[str, str]:
        """Return name and value as a card says them (:class:`pointzoo.cards.Metric`).

        Args:
            data: What it was measured on.
        """
        low, high = (100 * value for value in self.interval)
        turned = f", turned about {self.rotation}" if self.rotation != "none" else ""
        name = f"{data} accuracy, {self.subject}, {self.classifier}, {self.points} points{turned}"
        return name, f"{100 * self.mean:.1f} % ({low:.1f} to {high:.1f})"

    def summary(self) -> str:
        """Return one line: subject, setting, accuracy in percent with its interval."""
        low, high = (100 * value for value in self.interval)
        return (
            f"{self.subject} {self.classifier} points={self.points} rotation={self.rotation}: "
            f"{100 * self.mean:.1f} % ({low:.1f} to {high:.1f}), "
            f"class mean {100 * self.class_accuracy:.1f} %"
        )


def evaluate(
    predict: Predict,
    data: Labelled,
    *,
    subject: str,
    classifier: str,
    channels: int | None = None,
    rank: float | None = None,
    seconds: float = 0.0,
    settings: Mapping[str, Any] = MappingProxyType({}),
    advance: Callable[[], object] = lambda: None,
) -> ProbeResult:
    """Predict every test part for every seed and collect the accuracies.

    Args:
        predict: Trains on some rows and classifies others.
        data: The labels and splits.
        subject: See :class:`ProbeResult`, as for ``classifier``, ``channels`` and ``settings``.
        classifier: See there.
        channels: See there.
        rank: Effective rank of the features, if there are any.
        seconds: Time spent already; that of this function is added.
        settings: See there.
        advance: Called after every fold, for a progress bar.
    """
    start = time.perf_counter()
    classes, seeds = len(data.class_names), data.setting.seeds
    confusion = np.zeros((classes, classes), dtype=np.int64)
    table = np.zeros((len(seeds), data.folds))
    for row, seed in enumerate(seeds):
        for column, (train, test) in enumerate(data.splits(seed)):
            predicted, truth = predict(seed, train, test), data.labels[test]
            np.add.at(confusion, (truth, predicted), 1)
            table[row, column] = (predicted == truth).mean()
            advance()
    counts = confusion.sum(axis=1)
    return ProbeResult(
        subject=subject,
        dataset=data.name,
        classifier=classifier,
        points=data.setting.points,
        rotation=data.setting.rotation,
        class_names=data.class_names,
        seeds=seeds,
        accuracy=tuple(map(tuple, table.tolist())),
        mean=float(table.mean()),
        interval=confidence_interval(table, items=int(counts.sum()) // len(seeds)),
        class_accuracy=float((np.diag(confusion)[counts > 0] / counts[counts > 0]).mean()),
        confusion=tuple(map(tuple, confusion.tolist())),
        channels=channels,
        effective_rank=rank,
        seconds=seconds + time.perf_counter() - start,
        settings=settings,
    )


def confidence_interval(accuracy: NDArray[np.float64], *, items: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean accuracy.

    With folds, the accuracies share training items, so that their plain standard error is too
    small; the variance of the mean is s^2 (1 / n + test / train) instead, with Student's t on n - 1
    degrees of freedom (Nadeau and Bengio, "Inference for the generalization error", Machine
    Learning 52, 2003, section 3). With one given split the test items are the sample: the normal
    approximation of the binomial.

    Args:
        accuracy: (E, F) per seed and fold; F = 1 for a given split.
        items: Test items per seed.
    """
    mean = float(accuracy.mean())
    if accuracy.shape[1] == 1:
        half = 1.96 * math.sqrt(mean * (1.0 - mean) / items)
    else:
        half = _corrected_half_width(accuracy)
    return max(0.0, mean - half), min(1.0, mean + half)


def difference(a: ProbeResult, b: ProbeResult) -> tuple[float, tuple[float, float]]:
    """Return by how much ``a`` is more accurate than ``b``, with a 95 % confidence interval.

    The comparison is paired by seed and fold, with the correction of :func:`confidence_interval`.

    Raises:
        ConfigError: The two do not have the same seeds and folds, or are not cross-validated.
    """
    x, y = np.array(a.accuracy), np.array(b.accuracy)
    if a.seeds != b.seeds or x.shape != y.shape or x.shape[1] < 2 or a.dataset != b.dataset:
        raise ConfigError(
            expected="two cross-validated results on the same data set, seeds and folds",
            got=f"{a.dataset} {a.seeds} {x.shape} and {b.dataset} {b.seeds} {y.shape}",
            fix="Probe both with the same settings.",
        )
    mean = float((x - y).mean())
    half = _corrected_half_width(x - y)
    return mean, (mean - half, mean + half)


def _corrected_half_width(values: NDArray[np.float64]) -> float:
    count, folds = values.size, values.shape[1]
    variance = float(values.var(ddof=1)) * (1.0 / count + 1.0 / (folds - 1))
    return float(stats.t.ppf(0.975, count - 1)) * math.sqrt(variance)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
