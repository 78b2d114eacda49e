"""Hand-made descriptors of whole clouds: what learnt features have to beat.

=================== ============================================================================
name                what it is
=================== ============================================================================
extents             box sides, principal variances, moments up to order 4, quantiles per axis
profiles            histograms of x, y, z and the distance from the vertical axis; counts over
                    (height, distance from the axis), which a turn about z does not change
occupancy           share of the points in each cell of an 8 x 8 x 8 grid over the unit ball
shape_distributions D1, D2, D3, D4 and A3 of Osada et al., "Shape distributions", ACM Transactions
                    on Graphics 21(4), 2002: 64 bins each
fpfh                mean and deviation of fast point feature histograms, two neighbourhoods
fpfh_words          256 words of a codebook of fast point feature histograms
all                 all of these, each block with the same weight
all_z               those that a turn about z does not change, each block with the same weight
=================== ============================================================================

A descriptor sees what an encoder sees: coordinates, centred and scaled to the unit sphere. Every
channel is standardised over the whole data set (labels unseen), and each block divided by the
square root of its width.

Shape legend: M clouds, N points, D channels of the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from pointzoo import transforms
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.errors import UnknownNameError
from pointzoo.tasks.fpfh import bag_of_words, mean_and_deviation, point_feature_histograms

_TUPLES = 16_384
_BINS = 64
_CELLS = 8
_SCALES = (16, 64)
_WORDS = 256


def describe(name: str, clouds: Iterable[PointCloud], generator: np.random.Generator) -> FloatArray:
    """Return a hand-made descriptor of every cloud.

    Args:
        name: One of :data:`DESCRIPTORS`.
        clouds: M clouds.
        generator: Source of the sample from which the codebook is learnt.

    Returns:
        (M, D) float32.

    Raises:
        UnknownNameError: There is no such descriptor.
        CloudError: A cloud is empty or not finite.
    """
    if name not in DESCRIPTORS:
        raise UnknownNameError.of("descriptor", name, DESCRIPTORS)
    blocks = describe_blocks(DESCRIPTORS[name], clouds, generator)
    return np.concatenate([blocks[block] for block in DESCRIPTORS[name]], axis=1)


def describe_blocks(
    names: Sequence[str], clouds: Iterable[PointCloud], generator: np.random.Generator
) -> Mapping[str, FloatArray]:
    """Return blocks of descriptors, each (M, D) float32, by name; see :func:`describe`.

    Raises:
        CloudError: A cloud is empty or not finite.
    """
    rows: dict[str, list[FloatArray]] = {name: [] for name in names}
    words: list[FloatArray] = []
    for cloud in clouds:
        coords = transforms.unit_sphere(cloud).coords
        small, large = _point_histograms(coords) if _NEED_FPFH & set(names) else (coords, coords)
        for name in rows.keys() & _ROWS.keys():
            rows[name].append(_ROWS[name](coords))
        if "fpfh" in names:
            pooled = [mean_and_deviation(small), mean_and_deviation(large)]
            rows["fpfh"].append(np.concatenate(pooled))
        if "fpfh_words" in names:
            words.append(large.astype(np.float32))
    found = {name: np.stack(values) for name, values in rows.items() if values}
    if words:
        found["fpfh_words"] = bag_of_words(words, _WORDS, generator)
    return {name: _standardised(block).astype(np.float32) for name, block in found.items()}


def _standardised(block: FloatArray) -> FloatArray:
    centred = block - block.mean(axis=0)
    deviation = centred.std(axis=0)
    constant = deviation <= 1e-9
    scaled = np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))
    weighted: FloatArray = scaled / np.sqrt(max(1, int((~constant).sum())))
    return weighted


def _extents(coords: FloatArray) -> FloatArray:
    sides = np.ptp(coords, axis=0)
    centred = coords - coords.mean(axis=0)
    variances = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred / len(coords)), 0.0, None))
    x, y, z = centred.T
    moments = [
        (x**i * y**j * z**k).mean()
        for i in range(5)
        for j in range(5 - i)
        for k in range(5 - i - j)
        if i + j + k >= 2
    ]
    quantiles = np.quantile(coords, np.linspace(0, 1, 9), axis=0).ravel()
    return np.concatenate([sides, np.sort(sides[:2]), variances, moments, quantiles])


def _profiles(coords: FloatArray) -> FloatArray:
    radius = np.linalg.norm(coords[:, :2], axis=1)
    along = [_histogram(column, -1.0, 1.0, 24) for column in coords.T]
    return np.concatenate([*along, _histogram(radius, 0.0, 1.0, 24), _height_and_radius(coords)])


def _profiles_z(coords: FloatArray) -> FloatArray:
    radius = np.linalg.norm(coords[:, :2], axis=1)
    height = _histogram(coords[:, 2], -1.0, 1.0, 24)
    return np.concatenate([height, _histogram(radius, 0.0, 1.0, 24), _height_and_radius(coords)])


def _height_and_radius(coords: FloatArray) -> FloatArray:
    radius = np.linalg.norm(coords[:, :2], axis=1)
    # relative to the object's own height and reach, so that slim and flat objects fill the table
    height = (coords[:, 2] - coords[:, 2].min()) / max(float(np.ptp(coords[:, 2])), 1e-9)
    counts, _, _ = np.histogram2d(
        height, radius / max(float(radius.max()), 1e-9), bins=(12, 8), range=((0, 1), (0, 1))
    )
    shares: FloatArray = np.sqrt(counts.ravel() / len(coords))
    return shares


def _occupancy(coords: FloatArray) -> FloatArray:
    cells = np.clip(((coords + 1.0) * (_CELLS / 2)).astype(np.int64), 0, _CELLS - 1)
    flat = (cells[:, 0] * _CELLS + cells[:, 1]) * _CELLS + cells[:, 2]
    return np.sqrt(np.bincount(flat, minlength=_CELLS**3) / len(coords))


def _shape_distributions(coords: FloatArray) -> FloatArray:
    generator = np.random.default_rng(0)  # the same tuples for every cloud
    a, b, c, d = coords[generator.integers(len(coords), size=(4, _TUPLES))]  # (_TUPLES, 3) each
    ab, ac, ad = b - a, c - a, d - a
    normal = np.cross(ab, ac)
    lengths = np.linalg.norm(ab, axis=1) * np.linalg.norm(ac, axis=1)
    cosine = np.einsum("tc,tc->t", ab, ac) / np.where(lengths > 0.0, lengths, 1.0)
    parts = (
        (np.linalg.norm(coords, axis=1), 1.0),  # D1: distance from the centroid
        (np.linalg.norm(ab, axis=1), 2.0),  # D2: distance of two points
        (np.sqrt(np.linalg.norm(normal, axis=1) / 2.0), 1.14),  # D3: root of a triangle's area
        (np.cbrt(np.abs(np.einsum("tc,tc->t", normal, ad)) / 6.0), 0.81),  # D4: of a tetrahedron
        (np.arccos(np.clip(cosine, -1.0, 1.0)), np.pi),  # A3: angle at a
    )
    return np.concatenate([_histogram(values, 0.0, top, _BINS) for values, top in parts])


def _histogram(values: FloatArray, low: float, high: float, bins: int) -> FloatArray:
    """Square roots of the shares of the bins; values beyond the ends count in the last bin."""
    position = ((values - low) * (bins / (high - low))).astype(np.int64)
    return np.sqrt(np.bincount(np.clip(position, 0, bins - 1), minlength=bins) / len(values))


def _point_histograms(coords: FloatArray) -> list[FloatArray]:
    cloud = transforms.estimate_normals(PointCloud(coords), k=16)
    assert cloud.normals is not None
    return point_feature_histograms(coords, cloud.normals.astype(np.float64), k=_SCALES)


_ROWS: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {
        "extents": _extents,
        "profiles": _profiles,
        "profiles_z": _profiles_z,
        "occupancy": _occupancy,
        "shape_distributions": _shape_distributions,
    }
)
_NEED_FPFH = frozenset({"fpfh", "fpfh_words"})
BLOCKS = (*_ROWS, "fpfh", "fpfh_words")
"""Everything that :func:`describe_blocks` knows."""

DESCRIPTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{name: (name,) for name in BLOCKS},
        "all": ("extents", "profiles", "occupancy", "shape_distributions", "fpfh", "fpfh_words"),
        "all_z": ("profiles_z", "shape_distributions", "fpfh", "fpfh_words"),
    }
)
"""The blocks that each descriptor puts side by side."""
