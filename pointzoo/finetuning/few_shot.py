"""A head from a handful of labelled points, in closed form, and where the next label helps most.

A head of :mod:`pointzoo.finetuning.closed_form` on all that a frozen encoder has about a point: the
features of every level and what it read (:data:`pointzoo.finetuning.network.Reads`), standardised
over the whole cloud, every block of the same weight.

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
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.features import Source, as_cloud
from pointzoo.finetuning.closed_form import Solution, Space, prototype, ridge
from pointzoo.finetuning.linear import set_head
from pointzoo.finetuning.model import Model
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import Segmentation
from pointzoo.finetuning.source import resolve_encoder
from pointzoo.tasks.scene_probe import LinearProbe

METHODS = ("ridge", "prototype")
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
    _space: Space = field(repr=False)
    _solution: Solution = field(repr=False)

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
    space = Space.of(base.network.features(ready), base.network.widths)
    return _fit(base, ready, space, rows, numbers)


def _fit(base: Model, cloud: PointCloud, space: Space, rows: IntArray, labels: IntArray) -> FewShot:
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
    solved = (ridge if base.method == "ridge" else prototype)(known, labels, counts)
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
