"""Linear classifiers from a handful of labelled rows, in closed form.

Ridge regression of one-hot labels; or the nearest class mean (J. Snell et al., "Prototypical
networks for few-shot learning", NeurIPS 2017, section 2.3). The penalty and the temperature of the
softmax are those under which every labelled row is explained best by the others (leave one out, in
closed form).

Shape legend: N rows, n labelled ones, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pointzoo.cloud import FloatArray, IntArray

PENALTIES = np.logspace(-3, 4, 15)
_TEMPERATURES = np.logspace(-2.5, 2, 19)
_PENALTY, _TEMPERATURE = 10.0, 0.1
"""Of ridge regression where no class has two rows to choose them by."""


@dataclass(frozen=True, eq=False)
class Space:
    """Features of a cloud, standardised: (N, C), mean (C,) and scale (C,)."""

    features: FloatArray
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, features: FloatArray, widths: Sequence[int]) -> Space:
        """Standardise; the variance of every block is the same, and C in all."""
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        constant = deviation <= 1e-6 * deviation.max()
        share = np.repeat(np.sqrt(np.array(widths) * len(widths) / sum(widths)), widths)
        scale = (np.where(constant, 1.0, deviation) * share).astype(np.float32)
        return cls((features - mean) / scale, mean, scale)


@dataclass(frozen=True, eq=False)
class Solution:
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


def ridge(known: FloatArray, labels: IntArray, counts: IntArray) -> Solution:
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

    penalty = min(PENALTIES.tolist(), key=error) if repeated.any() else _PENALTY
    temperature = _temperature(left_out(penalty), labels, weights, repeated, _TEMPERATURE)
    solved = right.T @ ((sizes / (sizes**2 + penalty))[:, None] * along)  # (C, K)
    bias = middle - center @ solved
    shrunk = sizes**2 / (sizes**2 + penalty)
    return Solution(solved / temperature, bias / temperature, center, right, shrunk, penalty)


def prototype(known: FloatArray, labels: IntArray, counts: IntArray) -> Solution:
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
    return Solution(weight, bias / temperature, center, right, shrunk, float(channels))


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
