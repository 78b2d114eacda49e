"""Fast point feature histograms, and how to pool them over a cloud.

Paper: R. B. Rusu, N. Blodow, M. Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration",
ICRA 2009. As in PCL and Open3D, 11 bins per angle, the point of a pair whose normal is nearer to
the connecting line is the source, and a neighbour's weight is the inverse squared distance.
Differences: each of the three histograms sums to 1 (theirs to 100); the neighbourhood is the k
nearest points, so that it adapts to the density.

Shape legend: N points, K neighbours, M clouds, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from pointzoo.cloud import FloatArray

BINS = 11
"""Bins per angle; a histogram row has three times as many."""


def point_feature_histograms(
    coords: FloatArray, normals: FloatArray, *, k: Sequence[int] = (32,)
) -> list[FloatArray]:
    """Return the histogram of every point, for one or several sizes of the neighbourhood.

    Args:
        coords: (N, 3).
        normals: (N, 3) unit length, with consistent signs.
        k: Neighbours of a point, the point itself not counted; all others where there are fewer.

    Returns:
        For each size, (N, 33) float64: 11 bins each for the angles theta, alpha and phi. Each third
        sums to 1, or to 0 where no neighbour lies apart from the point.
    """
    rows, squared = _neighbours(coords, max(k))
    return [_histograms(coords, normals, rows[:, :size], squared[:, :size]) for size in k]


def mean_and_deviation(histograms: FloatArray) -> FloatArray:
    """Pool point histograms (N, H) to the mean and standard deviation per bin, (2 H,)."""
    return np.concatenate([histograms.mean(axis=0), histograms.std(axis=0)])


def bag_of_words(
    histograms: Sequence[FloatArray], words: int, generator: np.random.Generator
) -> FloatArray:
    """Pool by counting words of a codebook that k-means learns from all clouds, unlabelled.

    Args:
        histograms: M matrices (N, H).
        words: W.
        generator: Source of the sample that k-means sees and of its start.

    Returns:
        (M, W) square roots of the shares of the words (Hellinger distance).
    """
    share = max(1, 100 * words // len(histograms))
    sample = [h[generator.permutation(len(h))[:share]] for h in histograms]
    codebook = _k_means(np.sqrt(np.concatenate(sample)), words, generator)
    tree = cKDTree(codebook)
    counts = [np.bincount(tree.query(np.sqrt(h))[1], minlength=words) / len(h) for h in histograms]
    return np.sqrt(np.stack(counts))


def _neighbours(coords: FloatArray, k: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Nearest other points (N, K) and their squared distances; a lone point neighbours itself."""
    k = max(1, min(k, len(coords) - 1))
    distance, rows = cKDTree(coords).query(coords, k=range(1, k + 2))
    # a duplicate may stand before the point itself: then the point takes the duplicate's place, at
    # distance 0 like it, which has no effect
    rows, squared = rows[:, 1:], distance[:, 1:] ** 2
    missing = rows >= len(coords)  # a single point has no other
    return np.where(missing, 0, rows).astype(np.int64), np.where(missing, 0.0, squared)


def _histograms(
    coords: FloatArray, normals: FloatArray, rows: NDArray[np.int64], squared: FloatArray
) -> FloatArray:
    simple = _normalised(_simple_histograms(coords, normals, rows, squared))
    apart = squared > 0.0
    weight = np.where(apart, 1.0 / np.where(apart, squared, 1.0), 0.0)  # (N, K)
    indptr = np.arange(0, rows.size + 1, rows.shape[1])
    graph = csr_matrix((weight.ravel(), rows.ravel(), indptr), shape=(len(coords), len(coords)))
    # the neighbours together weigh as much as the point itself
    return _normalised(_normalised(graph @ simple) + simple)


def _simple_histograms(
    coords: FloatArray, normals: FloatArray, rows: NDArray[np.int64], squared: FloatArray
) -> FloatArray:
    """Histograms (N, 33) of the pairs of each point with its own neighbours (SPFH)."""
    counts = np.zeros((len(coords), 3 * BINS))
    angles, usable = _pair_angles(coords, normals, rows, squared)
    first = np.arange(len(coords))[:, None] * (BINS + 1)  # one more bin for unusable pairs
    for part, place in enumerate(angles):
        bins = np.clip((place * BINS).astype(np.int64), 0, BINS - 1)
        flat = first + np.where(usable, bins, BINS)
        table = np.bincount(flat.ravel(), minlength=len(coords) * (BINS + 1))
        counts[:, part * BINS : (part + 1) * BINS] = table.reshape(len(coords), -1)[:, :BINS]
    return counts


def _pair_angles(
    coords: FloatArray, normals: FloatArray, rows: NDArray[np.int64], squared: FloatArray
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], NDArray[np.bool_]]:
    """Theta, alpha and phi of every pair scaled to 0..1, (N, K) each, and where they are defined.

    Component by component (x, y, z apart): several times faster than rows of three.
    """
    apart = squared > 0.0
    inverse = np.where(apart, 1.0 / np.sqrt(np.where(apart, squared, 1.0)), 0.0)
    line = [(axis[rows] - axis[:, None]) * inverse for axis in coords.T]
    here = [np.broadcast_to(axis[:, None], rows.shape) for axis in normals.T]
    there = [axis[rows] for axis in normals.T]
    phi_here, phi_there = _dot(here, line), _dot(there, line)
    swap = np.abs(phi_here) < np.abs(phi_there)
    source = [np.where(swap, b, a) for a, b in zip(here, there, strict=True)]
    target = [np.where(swap, a, b) for a, b in zip(here, there, strict=True)]
    phi = np.where(swap, -phi_there, phi_here)
    v = _cross(line, source)  # the Darboux frame is (source, v, source x v)
    if_swapped = np.where(swap, -1.0, 1.0)  # the line then runs from the neighbour to the point
    length = np.sqrt(_dot(v, v))
    usable = apart & (length > 0.0)
    unit = if_swapped / np.where(usable, length, 1.0)
    v = [axis * unit for axis in v]
    theta = np.arctan2(_dot(_cross(source, v), target), _dot(source, target))
    alpha = _dot(v, target)
    return (theta / (2 * np.pi) + 0.5, alpha / 2 + 0.5, phi / 2 + 0.5), usable


def _normalised(histograms: FloatArray) -> FloatArray:
    thirds = histograms.reshape(len(histograms), 3, -1)  # (N, 33) -> (N, 3, 11)
    total = thirds.sum(axis=2, keepdims=True)
    return (thirds / np.where(total > 0.0, total, 1.0)).reshape(len(histograms), -1)


def _dot(a: Sequence[FloatArray], b: Sequence[FloatArray]) -> FloatArray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Sequence[FloatArray], b: Sequence[FloatArray]) -> list[FloatArray]:
    return [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]


def _k_means(values: FloatArray, words: int, generator: np.random.Generator) -> FloatArray:
    """Lloyd's algorithm from a random start; an empty word moves to a random value."""
    centres = values[generator.permutation(len(values))[:words]].copy()
    for _ in range(20):
        nearest = cKDTree(centres).query(values)[1]
        members = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, values)
        centres = sums / np.maximum(members, 1)[:, None]
        empty = np.flatnonzero(members == 0)
        centres[empty] = values[generator.integers(len(values), size=len(empty))]
    return centres
