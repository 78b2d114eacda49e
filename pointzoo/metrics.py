"""How good and how varied features are: kNN accuracy, effective rank, spectrum; IoU of labels.

Pure functions on (M, D) feature matrices, quick enough to be called while a network trains, and on
the classes of N points.

Shape legend: M items, D channels, R items of a reference bank, K classes, N points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pointzoo.errors import ConfigError


def effective_rank(features: Tensor, *, covariance: bool = False) -> float:
    """Return how many directions the centred features use, between 1 and min(M - 1, D).

    The exponential of the entropy of the singular values, normalised to sum 1 (Roy and Vetterli,
    "The effective rank", EUSIPCO 2007). Features without any variation have effective rank 1.

    Args:
        features: (M, D) with at least one row, finite.
        covariance: Take the effective rank of the covariance matrix: its singular values are the
            squares, so that weak directions, noise among them, hardly count.

    Raises:
        ConfigError: There is no row, or a value is not finite.
    """
    values = torch.linalg.svdvals(_centred(features))
    values = values.square() if covariance else values
    total = float(values.sum())
    if total == 0.0:
        return 1.0
    share = values / total
    return float(torch.special.entr(share).sum().exp())


def feature_spectrum(features: Tensor) -> Tensor:
    """Return the eigenvalues of the covariance, divided by the largest, in descending order.

    Their logarithms are what DCGLR, section 5.4 and figure 5 b, draws as a histogram: a collapsed
    representation shows a few large values and a heap near zero.

    Args:
        features: (M, D) with at least one row, finite.

    Returns:
        (D,) float64 in 0..1; all zeros when the features do not vary.

    Raises:
        ConfigError: There is no row, or a value is not finite.
    """
    values: Tensor = torch.linalg.svdvals(_centred(features)).square()
    spectrum = values.new_zeros(features.shape[1])
    spectrum[: len(values)] = values / values[0] if float(values[0]) > 0.0 else 0.0
    return spectrum


def feature_std(features: Tensor) -> float:
    """Return the spread of L2-normalised features: 1 for isotropic ones, 0 after a collapse.

    The standard deviation per channel of the normalised features, averaged over the channels and
    multiplied by sqrt(D) (Chen and He, "Exploring simple Siamese representation learning",
    CVPR 2021, section 4.1).

    Args:
        features: (M, D) with at least one row, finite.

    Raises:
        ConfigError: There is no row, or a value is not finite.
    """
    unit = torch.nn.functional.normalize(_checked(features), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(features.shape[1])


def knn_predict(
    features: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    leave_self_out: bool = False,
) -> Tensor:
    """Classify by a weighted vote of the k nearest items of a bank, in cosine similarity.

    A neighbour votes with weight exp(similarity / temperature), as in Wu et al., "Unsupervised
    feature learning via non-parametric instance discrimination", CVPR 2018, and in DINO. A tie
    goes to the lower class.

    Args:
        features: (M, D) items to classify.
        bank: (R, D) items with known labels.
        bank_labels: (R,) int64, at least 0.
        k: How many neighbours vote; a smaller bank votes as a whole.
        temperature: How fast a vote loses weight with distance.
        leave_self_out: Whether item m is row m of the bank and must not vote on itself.

    Returns:
        (M,) int64 classes.

    Raises:
        ConfigError: The bank is too small, a label is negative, or ``k`` is below 1.
    """
    available = len(bank) - int(leave_self_out)
    if k < 1 or available < 1 or len(bank_labels) != len(bank) or int(bank_labels.min()) < 0:
        raise ConfigError(
            expected="k of at least 1 and a bank with a label from 0 up for every row",
            got=f"k = {k}, {len(bank)} rows and {len(bank_labels)} labels",
            fix="Drop the items without a label, and give at least one neighbour.",
        )
    unit, unit_bank = (torch.nn.functional.normalize(_checked(x), dim=1) for x in (features, bank))
    similarity = unit @ unit_bank.T  # (M, R)
    if leave_self_out:
        similarity.fill_diagonal_(-torch.inf)
    nearest, rows = similarity.topk(min(k, available), dim=1)  # (M, k)
    votes = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    score = votes.new_zeros(len(unit), int(bank_labels.max()) + 1)
    score.scatter_add_(1, bank_labels[rows], votes)
    return score.argmax(dim=1)


def knn_accuracy(
    features: Tensor,
    labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    bank: tuple[Tensor, Tensor] | None = None,
) -> float:
    """Return the share of items that :func:`knn_predict` classifies rightly.

    Args:
        features: (M, D) items.
        labels: (M,) int64, at least 0.
        k: How many neighbours vote.
        temperature: How fast a vote loses weight with distance.
        bank: Features (R, D) and labels (R,) of the neighbours; None lets every item be classified
            by all the others (leave one out).

    Raises:
        ConfigError: See :func:`knn_predict`.
    """
    known, known_labels = (features, labels) if bank is None else bank
    predicted = knn_predict(
        features, known, known_labels, k=k, temperature=temperature, leave_self_out=bank is None
    )
    return float((predicted == labels).double().mean())


def confusion_matrix(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Count how often each class is taken for each other one.

    Args:
        predicted: (N,) int64 classes from 0 on.
        target: (N,) int64 classes; items below 0 have no label and do not count.
        classes: K.

    Returns:
        (K, K) int64, true class (row) by predicted class (column). Matrices of parts may be added.

    Raises:
        ConfigError: Shapes differ, or a class is out of range.
    """
    known = target >= 0
    if predicted.shape != target.shape or target.ndim != 1:
        raise ConfigError(
            expected="as many predictions as targets, (N,) each",
            got=f"{tuple(predicted.shape)} and {tuple(target.shape)}",
            fix="Carry predictions to the points that have labels.",
        )
    pairs = torch.stack([target[known], predicted[known]])
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < classes:
        raise ConfigError(
            expected=f"classes from 0 to {classes - 1}",
            got=f"{int(pairs.min())} to {int(pairs.max())}",
            fix="Raise the number of classes, or mark what does not count with -1.",
        )
    counts = torch.bincount(pairs[0] * classes + pairs[1], minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Return (K,) float64 intersection over union; NaN for a class that never occurs.

    Intersection and union are summed over all items before they are divided, so that a class counts
    by its points, not by the scenes it is in.

    Args:
        confusion: (K, K), see :func:`confusion_matrix`.
    """
    counts = confusion.double()
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    return torch.where(counts.sum(1) > 0, intersection / union, torch.nan)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean of :func:`class_iou` over the classes that occur among the targets.

    Raises:
        ConfigError: No item has a label.
    """
    if not bool(confusion.sum() > 0):
        raise ConfigError(
            expected="labelled items",
            got="none",
            fix="Evaluate on a set with labels from 0 on.",
        )
    return float(class_iou(confusion).nanmean())


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or 0 in features.shape or not bool(features.isfinite().all()):
        raise ConfigError(
            expected="finite features (M, D) with at least one row and channel",
            got=f"shape {tuple(features.shape)}, finite: {bool(features.isfinite().all())}",
            fix="Look at what the encoder returned.",
        )
    return features.detach().double()


def _centred(features: Tensor) -> Tensor:
    values = _checked(features)
    return values - values.mean(dim=0)
