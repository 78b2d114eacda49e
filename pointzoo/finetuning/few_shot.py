"""A head from a handful of labelled points, in closed form, and where the next label helps most.

Ridge regression of the one-hot labels on all that a frozen encoder has about a point: the features
of every level and what it read (:data:`pointzoo.finetuning.network.Reads`), standardised over the
whole cloud, every block of the same weight. The penalty and the temperature of the softmax are
those under which every labelled point is explained best by the others (leave one out, in closed
form). Or the nearest class mean of the labelled points (J. Snell et al., "Prototypical networks for
few-shot learning", NeurIPS 2017, section 2.3), its temperature found likewise.

Shape legend: N points, n labelled ones, C channels, K classes.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.features import Source, as_cloud
from pointzoo.finetuning.linear import set_head
from pointzoo.finetuning.model import Model
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import Segmentation
from pointzoo.finetuning.source import resolve_encoder
from pointzoo.tasks.scene_probe import LinearProbe

METHODS = ("ridge", "prototype")
_PENALTIES = np.logspace(-3, 4, 15)
_TEMPERATURES = np.logspace(-2.5, 2, 19)
_PENALTY, _TEMPERATURE = 10.0, 0.1
"""Of ridge regression where no class has two points to choose them by."""
_CANDIDATES = 2000


@dataclass(frozen=True, eq=False)
class FewShot:
    """A head from labelled points of one cloud, and what it says about all points of it.

    Attributes:
        model: For other clouds; has ``predict``, ``evaluate`` and ``save``.
        cloud: The cloud, N points.
        labels: (N,) int64, the class of every point.
        probabilities: (N, K) float32.
        uncertainty: (N,) float32 in 0..1: one less the margin between the two likeliest classes,
            which shrinks with the leverage of a point, that is where no labelled point is alike.
        seconds: Time to fit the head, without the features and what it says about the points.
        points: (n,) rows of the labelled points.
        point_labels: (n,) int64, their classes.
    """

    model: Model
    cloud: PointCloud
    labels: IntArray
    probabilities: FloatArray
    uncertainty: FloatArray
    seconds: float
    points: IntArray
    point_labels: IntArray
    _space: _Space = field(repr=False)
    _solution: _Solution = field(repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that labels index, (K,)."""
        return self.model.class_names

    def predict(self, source: Any, *, votes: int = 1) -> Any:
        """Apply the head to another cloud, or several; see :meth:`Model.predict`."""
        return self.model.predict(source, votes=votes)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the head as a model that :func:`pointzoo.load_model` reads.

        Raises:
            ConfigError: The folder holds something else.
            WeightError: The disk refuses.
        """
        return self.model.save(folder)

    def next_points(self, count: int = 1) -> IntArray:
        """Return the rows of the points whose labels would help most, the first one first.

        Each is the one that takes away most doubt from the whole cloud: the variance that a label
        there would take from every other point, under the covariance of the ridge regression,
        weighted by what the margin of that point lacks to 1 (a greedy V-optimal design). So it is a
        point like many doubtful ones, no outlier, and none like those chosen before. 2,000 points
        spread over the cloud are looked at.

        Args:
            count: How many points.

        Returns:
            (count,) rows, fewer where the cloud has fewer points without a label.

        Raises:
            ConfigError: ``count`` is below 1.
        """
        if count < 1:
            raise ConfigError(expected="a count of at least 1", got=str(count), fix="Raise it.")
        free = np.setdiff1d(np.arange(len(self.cloud)), self.points)
        steps = np.linspace(0, len(free) - 1, min(len(free), _CANDIDATES)).astype(np.int64)
        rows = np.unique(free[steps])
        shared = self._solution.shared(self._space.features[rows])
        doubt = 1.0 - _margin(self.probabilities[rows])
        chosen: list[int] = []
        for _ in range(min(count, len(rows))):
            own = 1.0 + np.maximum(np.diagonal(shared), 0.0)
            gain = (doubt @ shared**2) / own
            gain[chosen] = -np.inf
            best = int(gain.argmax())
            chosen.append(best)
            shared = shared - np.outer(shared[:, best], shared[best]) / own[best]
        found: IntArray = rows[chosen]
        return found

    def add(self, points: ArrayLike, labels: Sequence[Any] | ArrayLike) -> FewShot:
        """Return a head that knows more labelled points; features are not computed again.

        Args:
            points: See :func:`few_shot`.
            labels: See there; classes must be known already.

        Raises:
            ConfigError: Points or labels do not fit.
            UnknownNameError: A class is unknown.
        """
        rows = _rows(self.cloud, points)
        numbers = _numbers(np.asarray(labels).tolist(), self.class_names, len(rows))
        keep = ~np.isin(self.points, rows)  # a new label replaces an old one
        return _fit(
            self.model,
            self.cloud,
            self._space,
            np.concatenate([self.points[keep], rows]),
            np.concatenate([self.point_labels[keep], numbers]),
        )


def few_shot(
    encoder: PointEncoder | str | os.PathLike[str],
    cloud: Source,
    points: ArrayLike,
    labels: Sequence[Any] | ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    method: str = "ridge",
) -> FewShot:
    """Classify all points of a cloud from a handful of labelled ones.

    Args:
        encoder: A pretrained name, a weight folder, or an encoder. It is used as it is.
        cloud: A path, a cloud or an array; see :func:`pointzoo.extract`.
        points: (n,) rows of the labelled points, or (n, 3) coordinates, each of which stands for
            the nearest point.
        labels: (n,) class of each: a name, or its number in ``classes``.
        classes: Names of the K classes; None: the different labels in order.
        method: ``ridge``, or ``prototype`` for the nearest class mean.

    Raises:
        ConfigError: Points or labels do not fit, there are fewer than two classes, or the method
            is unknown.
        UnknownNameError: A class or the encoder is unknown.
        CloudError: The cloud cannot be used.
    """
    if method not in METHODS:
        raise UnknownNameError.of("few-shot method", method, METHODS)
    ready = as_cloud(cloud).require_usable()
    rows = _rows(ready, points)
    given = np.asarray(labels).tolist()
    names = tuple(classes) if classes is not None else _names(given)
    numbers = _numbers(given, names, len(rows))
    network, source = resolve_encoder(encoder, seed=0, storable=False)
    with torch.random.fork_rng(devices=[]):
        base = Model(Network(network, Segmentation(names), reads="levels").eval(), method, source)
    space = _Space.of(base.network.features(ready), base.network.widths)
    return _fit(base, ready, space, rows, numbers)


@dataclass(frozen=True, eq=False)
class _Space:
    """Features of a cloud, standardised: (N, C), mean (C,) and scale (C,)."""

    features: FloatArray
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, features: FloatArray, widths: Sequence[int]) -> _Space:
        """Standardise; the variance of every block is the same, and C in all."""
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        constant = deviation <= 1e-6 * deviation.max()
        share = np.repeat(np.sqrt(np.array(widths) * len(widths) / sum(widths)), widths)
        scale = (np.where(constant, 1.0, deviation) * share).astype(np.float32)
        return cls((features - mean) / scale, mean, scale)


@dataclass(frozen=True, eq=False)
class _Solution:
    """Logits ``x @ weight + bias``, and the covariance of the regression.

    The inverse of (known - center)^T (known - center) + penalty is identity over penalty but along
    the few ``axes`` (n, C) that the labelled points span, where it has ``shrunk`` (n,) less.
    """

    weight: FloatArray
    bias: FloatArray
    center: FloatArray
    axes: FloatArray
    shrunk: FloatArray
    penalty: float

    def leverage(self, features: FloatArray) -> FloatArray:
        """Return (N,) for features (N, C), without a copy of them."""
        along = (features @ self.axes.T.astype(np.float32)) - (self.axes @ self.center)
        apart = np.einsum("nc,nc->n", features, features) - 2 * (
            features @ self.center.astype(np.float32)
        )
        apart = apart + float(self.center @ self.center)
        found: FloatArray = (apart - along**2 @ self.shrunk) / self.penalty
        return np.maximum(found, 0.0)

    def shared(self, features: FloatArray) -> FloatArray:
        """Return the covariance (n, n) between features (n, C)."""
        apart = (features - self.center).astype(np.float32)
        along = apart @ self.axes.T.astype(np.float32)
        shrunk = along * self.shrunk.astype(np.float32)
        found: FloatArray = (apart @ apart.T - shrunk @ along.T) / np.float32(self.penalty)
        return found


def _fit(
    base: Model, cloud: PointCloud, space: _Space, rows: IntArray, labels: IntArray
) -> FewShot:
    started = time.perf_counter()
    classes = len(base.class_names)
    known = space.features[rows].astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    if int((counts > 0).sum()) < 2:
        raise ConfigError(
            expected="labelled points of at least two classes",
            got=f"{len(rows)} points of {int((counts > 0).sum())}",
            fix="Label a point of another class.",
        )
    solved = (_ridge if base.method == "ridge" else _prototype)(known, labels, counts)
    with torch.random.fork_rng(devices=[]):
        old = base.network
        network = Network(old.encoder, base.task, reads=old.reads, widths=old.widths)
    parts = (space.mean, space.scale, solved.weight, solved.bias)
    set_head(network, LinearProbe(*(torch.from_numpy(v.astype(np.float32)) for v in parts)))
    seconds = time.perf_counter() - started
    logits = space.features @ solved.weight.astype(np.float32) + solved.bias.astype(np.float32)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    sure = _margin(probabilities) / (1.0 + solved.leverage(space.features))
    return FewShot(
        model=dataclasses.replace(base, network=network.eval().requires_grad_(False)),
        cloud=cloud,
        labels=probabilities.argmax(axis=1),
        probabilities=probabilities,
        uncertainty=(1.0 - sure).astype(np.float32),
        seconds=seconds,
        points=rows,
        point_labels=labels,
        _space=space,
        _solution=solved,
    )


def _ridge(known: FloatArray, labels: IntArray, counts: IntArray) -> _Solution:
    """Solve ridge regression of one-hot labels, every class of the same weight."""
    classes = len(counts)
    target = np.eye(classes)[labels]
    weights = 1.0 / counts[labels]
    weights = weights / weights.sum()
    center, middle = weights @ known, weights @ target
    root = np.sqrt(weights * len(labels))[:, None]
    left, sizes, right = np.linalg.svd(root * (known - center), full_matrices=False)
    along = left.T @ (root * (target - middle))
    repeated = counts[labels] > 1  # what can be left out without losing a class

    def left_out(penalty: float) -> FloatArray:
        shrunk = sizes**2 / (sizes**2 + penalty)
        fitted = left @ (shrunk[:, None] * along) / root + middle
        own = (left**2) @ shrunk + weights
        found: FloatArray = target - (target - fitted) / np.maximum(1.0 - own, 1e-6)[:, None]
        return found

    def error(penalty: float) -> float:
        wrong = ((left_out(penalty) - target) ** 2).sum(axis=1)
        return float((weights * wrong)[repeated].sum())

    penalty = min(_PENALTIES.tolist(), key=error) if repeated.any() else _PENALTY
    temperature = _temperature(left_out(penalty), labels, weights, repeated, _TEMPERATURE)
    solved = right.T @ ((sizes / (sizes**2 + penalty))[:, None] * along)  # (C, K)
    bias = middle - center @ solved
    shrunk = sizes**2 / (sizes**2 + penalty)
    return _Solution(solved / temperature, bias / temperature, center, right, shrunk, penalty)


def _prototype(known: FloatArray, labels: IntArray, counts: IntArray) -> _Solution:
    """Classify by the nearest class mean; a class without a point is far from everything."""
    classes, channels = len(counts), known.shape[1]
    means = np.zeros((classes, channels))
    np.add.at(means, labels, known)
    means /= np.maximum(counts, 1)[:, None]
    scores = _closeness(known, means)
    repeated = counts[labels] > 1
    size = counts[labels][repeated, None]
    others = (size * means[labels][repeated] - known[repeated]) / (size - 1)
    apart = ((known[repeated] - others) ** 2).mean(axis=1) - (known[repeated] ** 2).mean(axis=1)
    scores[repeated, labels[repeated]] = -apart / 2
    weights = 1.0 / counts[labels]
    temperature = _temperature(scores, labels, weights, repeated, 1.0)
    bias = -(means**2).mean(axis=1) / 2
    bias = np.where(counts > 0, bias, bias.min() - 1e3 * temperature)
    center = means[counts > 0].mean(axis=0)
    _, sizes, right = np.linalg.svd(known - center, full_matrices=False)
    shrunk, weight = sizes**2 / (sizes**2 + channels), means.T / channels / temperature
    return _Solution(weight, bias / temperature, center, right, shrunk, float(channels))


def _closeness(known: FloatArray, means: FloatArray) -> FloatArray:
    """Return minus half the mean squared distance to each mean, up to a term of the point alone."""
    scores: FloatArray = known @ means.T / known.shape[1] - (means**2).mean(axis=1) / 2
    return scores


def _temperature(
    scores: FloatArray,
    labels: IntArray,
    weights: FloatArray,
    judged: NDArray[np.bool_],
    otherwise: float,
) -> float:
    """Return the temperature under which the labels are likeliest, judged on some rows."""
    if not judged.any():
        return otherwise
    rows = np.flatnonzero(judged)

    def surprise(temperature: float) -> float:
        logits = torch.from_numpy(scores[rows] / temperature)
        found = logits.log_softmax(dim=1).numpy()[np.arange(len(rows)), labels[rows]]
        return float(-(weights[rows] * found).sum())

    best: float = min(_TEMPERATURES.tolist(), key=surprise)
    return best


def _margin(probabilities: FloatArray) -> FloatArray:
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    margin: FloatArray = two[:, 1] - two[:, 0]
    return margin


def _rows(cloud: PointCloud, points: ArrayLike) -> IntArray:
    """Return the rows that labelled points stand for.

    Raises:
        ConfigError: They are neither rows of the cloud nor coordinates.
    """
    given = np.asarray(points)
    if given.ndim == 2 and given.shape[1] == 3 and np.isfinite(given.astype(np.float64)).all():
        given = np.asarray(cKDTree(cloud.coords).query(given)[1])
    fits = given.ndim == 1 and given.dtype.kind in "iu" and len(given)
    if not fits or not 0 <= given.min() <= given.max() < len(cloud):
        raise ConfigError(
            expected=f"rows from 0 to {len(cloud) - 1}, or coordinates (n, 3)",
            got=f"shape {given.shape} of {given.dtype}",
            fix="Pass which points of the cloud are labelled.",
        )
    rows: IntArray = given.astype(np.int64)
    if len(np.unique(rows)) != len(rows):
        raise ConfigError(
            expected="each point once", got="a point with two labels", fix="Keep one of them."
        )
    return rows


def _names(labels: Sequence[Any]) -> tuple[str, ...]:
    """Name the classes by the labels: as they are, or by number up to the largest."""
    if labels and all(isinstance(label, int) and label >= 0 for label in labels):
        return tuple(map(str, range(max(labels) + 1)))
    return tuple(sorted({str(label) for label in labels}))


def _numbers(labels: Sequence[Any], names: tuple[str, ...], count: int) -> IntArray:
    """Return the number of each label.

    Raises:
        ConfigError: There are as many as there should not be, or a number is out of range.
        UnknownNameError: A name is unknown.
    """
    given = np.asarray(labels).tolist()
    if not isinstance(given, list) or len(given) != count:
        raise ConfigError(
            expected=f"a label for each of the {count} points",
            got=f"{len(given)} labels" if isinstance(given, list) else "a single value",
            fix="Pass as many labels as points.",
        )
    for label in given:
        if isinstance(label, str) and label not in names:
            raise UnknownNameError.of("class", label, names)
    numbers = [names.index(label) if isinstance(label, str) else label for label in given]
    if any(not isinstance(n, int) or not 0 <= n < len(names) for n in numbers):
        raise ConfigError(
            expected=f"labels from 0 to {len(names) - 1}, or names",
            got=repr(numbers[:5]),
            fix=f"The classes are {', '.join(names)}.",
        )
    return np.array(numbers, dtype=np.int64)
