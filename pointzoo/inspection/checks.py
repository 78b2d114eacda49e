"""The measurements and checks behind :func:`pointzoo.inspection.inspect`.

The thresholds are the constants below; each is a judgement, so findings say "maybe" where they
guess. Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pointzoo.errors import FormatError
from pointzoo.io import RawCloud

Severity = Literal["problem", "warning", "note"]

FEW_POINTS = 32
"""Fewer points than this are pointed out: one patch of a 3D-ViT."""
LARGE_COORDINATE = 1e5
"""A coordinate beyond this is taken for a map coordinate (UTM has 1e5 to 1e7 metres)."""
BULKY_MILLIMETRES = 100.0
"""If no side is shorter than this many metres, millimetres are more likely than a mountain (unless
the coordinates are those of a map)."""
TINY_EXTENT = 1e-3
"""A cloud smaller than this many metres is probably not in metres."""
UNIT_RADIUS_TOLERANCE = 1e-3
"""How far the largest distance from the origin may be from 1 for a cloud to count as normalised."""
UNIT_CENTRE_TOLERANCE = 0.3
"""How far its centroid may be from the origin (the bounding box may have been centred instead)."""
FLAT_RATIO = 1e-6
"""A side this much thinner than the longest makes a cloud a plane, a line or a point."""
DUPLICATES = 0.01
"""A larger share of repeated points is a warning, a smaller one a note."""
UNIT_LENGTH_TOLERANCE = 0.01
"""How far the length of a normal may be from 1."""
DARK = 0.1
"""If no colour is brighter than this, the full scale may be wrong."""
GRID = 16
"""Cells along the longest side in which separate clusters are sought."""
FAR_GAP = 0.5
"""A gap is far if it is this large against the longest side of the largest cluster."""
UNEVEN = 20.0
"""How many times sparser the sparsest 5 % may be than the densest 5 %, by neighbour distance."""
QUERIES = 20_000
"""Points whose neighbours are measured; evenly spread over the rows."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Attributes:
        severity: ``"problem"`` (most uses fail or mislead), ``"warning"`` or ``"note"``.
        text: A sentence, and what to do.
    """

    severity: Severity
    text: str


class Facts:
    """A cloud with the measurements that several checks share."""

    def __init__(self, raw: RawCloud) -> None:
        """Measure what takes one pass over the points; the rest when it is asked for."""
        self.raw = raw
        self.count = len(raw.coords)
        finite = np.isfinite(raw.coords).all(axis=1)
        self.lost = self.count - int(finite.sum())
        with np.errstate(over="ignore"):
            self.points = raw.coords[finite].astype(np.float64)
        if len(self.points):
            self.low, self.high = self.points.min(axis=0), self.points.max(axis=0)
        else:
            self.low = self.high = np.full(3, np.nan)
        self.extent = self.high - self.low
        self.longest = float(self.extent.max()) if len(self.points) else 0.0

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Distinct points, sorted."""
        return np.unique(self.points, axis=0)

    @cached_property
    def neighbours(self) -> NDArray[np.float64]:
        """Distances (Q, 8) of some distinct points to their nearest, ascending; none: (0, 8)."""
        if len(self.places) < 9:
            return np.empty((0, 8))
        step = -(-len(self.places) // QUERIES)
        distances, _ = cKDTree(self.places).query(self.places[::step], k=9)
        return np.asarray(distances[:, 1:])

    @cached_property
    def spacing(self) -> float | None:
        """Median distance to the nearest other place, None where there is but one."""
        if len(self.places) < 2:
            return None
        if len(self.neighbours) == 0:
            distances, _ = cKDTree(self.places).query(self.places, k=2)
            return float(np.median(distances[:, 1]))
        return float(np.median(self.neighbours[:, 0]))


def _check_points(facts: Facts) -> Iterator[Finding]:
    if facts.count == 0:
        yield Finding("problem", "There is no point in it.")
    elif facts.count == facts.lost:
        yield Finding("problem", "No point has finite coordinates.")
    elif facts.lost:
        text = f"{facts.lost:,} points have NaN or infinite coordinates; cloud.drop_nonfinite()"
        yield Finding("warning", f"{text} removes them.")
    if 0 < facts.count < FEW_POINTS:
        yield Finding("note", f"Only {facts.count} points; features will say little.")


def _check_shape(facts: Facts) -> Iterator[Finding]:
    if facts.count < 2 or not len(facts.points):
        return
    if facts.longest == 0.0:
        yield Finding("problem", "All points lie in one place.")
        return
    if not np.isfinite(facts.longest):
        return
    scaled = (facts.points - facts.low) / facts.longest
    centred = scaled - scaled.mean(axis=0)
    values = np.linalg.eigvalsh(centred.T @ centred / len(centred)).clip(0.0)
    thin = int((np.sqrt(values) < FLAT_RATIO).sum())
    if thin and len(facts.places) > 3:
        yield Finding("warning", f"All points lie on one {'plane' if thin == 1 else 'line'}.")


def _check_unit(facts: Facts) -> Iterator[Finding]:
    if facts.raw.unit == "foot":
        text = "The file says that its unit is feet; transforms.scale(cloud, 0.3048) gives metres."
        yield Finding("warning", text)
    if facts.longest == 0.0 or not np.isfinite(facts.longest):
        return
    radius = float(np.linalg.norm(facts.points, axis=1).max())
    off_centre = float(np.abs(facts.points.mean(axis=0)).max())
    side = f"{facts.longest:.4g}"
    if abs(radius - 1.0) <= UNIT_RADIUS_TOLERANCE and off_centre <= UNIT_CENTRE_TOLERANCE:
        text = "The cloud is normalised to the unit sphere: its real size is lost."
        yield Finding("note", text)
    elif facts.longest < TINY_EXTENT:
        yield Finding("warning", f"The longest side is {side}: maybe the unit is not the metre.")
    elif radius < LARGE_COORDINATE and facts.extent.min() > BULKY_MILLIMETRES:
        text = (
            f"No side is shorter than {facts.extent.min():.4g}: maybe the unit is the millimetre; "
            "transforms.scale(cloud, 0.001) gives metres."
        )
        yield Finding("warning", text)


def _check_large(facts: Facts) -> Iterator[Finding]:
    if not len(facts.points):
        return
    largest = float(max(np.abs(facts.low).max(), np.abs(facts.high).max()))
    if largest <= LARGE_COORDINATE:
        return
    text = f"Coordinates up to {largest:.10g}, as maps have (UTM?): fine, float64 loses nothing."
    yield Finding("note", text)
    if facts.raw.coords.dtype == np.float32:
        step = float(np.spacing(np.float32(min(largest, 3e38))))
        text = f"But the file holds them as 32-bit floats, in steps of {step:.2g}."
        yield Finding("warning", text)


def _check_duplicates(facts: Facts) -> Iterator[Finding]:
    repeated = len(facts.points) - len(facts.places)
    if repeated:
        share = repeated / len(facts.points)
        severity: Severity = "warning" if share > DUPLICATES else "note"
        text = f"{repeated:,} points ({share:.1%}) repeat the place of another."
        yield Finding(severity, text)


def _check_clusters(facts: Facts) -> Iterator[Finding]:
    """Look for groups of points with a wide empty space between them."""
    if len(facts.places) < FEW_POINTS or not 0.0 < facts.longest < np.inf:
        return
    cells = ((facts.points - facts.low) / facts.longest * (GRID - 1)).astype(np.int64)
    occupied = np.zeros((GRID, GRID, GRID), dtype=np.int8)
    occupied[tuple(cells.T)] = 1
    groups, _ = ndimage.label(occupied, structure=np.ones((3, 3, 3)))
    group = groups[tuple(cells.T)]
    apart, gap, size = _far_from_main(facts.points, group)
    if apart:
        text = (
            f"{apart:,} points ({apart / len(facts.points):.2%}) lie far from the rest: {gap:.4g} "
            f"away from a cluster of {size:.4g}. Stray points, or two clouds in one?"
        )
        yield Finding("warning", text)


def _far_from_main(
    points: NDArray[np.float64], group: NDArray[np.integer[Any]]
) -> tuple[int, float, float]:
    """Grow the largest group by all that are near it.

    Returns:
        How many points are left, how far the nearest of them is, and the longest side of the group.
    """
    inside = group == np.argmax(np.bincount(group))
    while True:
        size = float(np.ptp(points[inside], axis=0).max())
        if inside.all():
            return 0, 0.0, size
        step = -(-int(inside.sum()) // QUERIES)
        distances, _ = cKDTree(points[inside][::step]).query(points[~inside])
        gaps = np.full(group.max() + 1, np.inf)
        np.minimum.at(gaps, group[~inside], distances)
        near = np.flatnonzero(gaps <= FAR_GAP * size)
        if len(near) == 0:
            return int((~inside).sum()), float(distances.min()), size
        inside |= np.isin(group, near)


def _check_density(facts: Facts) -> Iterator[Finding]:
    if len(facts.neighbours) < FEW_POINTS:
        return
    dense, sparse = np.percentile(facts.neighbours[:, -1], [5, 95])
    if sparse > UNEVEN * dense > 0.0:
        text = f"The density is very uneven: neighbours lie {dense:.3g} to {sparse:.3g} apart."
        yield Finding("note", f"{text} Grid sampling evens it out.")


def _check_colors(facts: Facts) -> Iterator[Finding]:
    colors = facts.raw.colors
    if colors is None or colors.size == 0:
        return
    try:
        unit = facts.raw.to_cloud().colors
    except FormatError as error:
        yield Finding("problem", f"read() refuses the colours: {error}")
        return
    assert unit is not None, "the cloud has colours"
    top = float(colors.max())
    if colors.dtype.kind == "f" and top > 1.0 + 1e-5:
        scale = 255 if top <= 255 else 65_535
        text = f"Colours are stored as floating point up to {top:g}; read() divides by {scale}."
        yield Finding("note", text)
    if facts.raw.full_scale == 255 and colors.dtype.itemsize == 2 and top:
        yield Finding("note", "Colours of 8 bits are stored in 16; read() divides by 255.")
    if bool((unit == unit[0]).all()):
        yield Finding("warning", f"All points have one colour: {unit[0].tolist()}.")
    elif float(unit.max()) < DARK:
        yield Finding("warning", f"No colour is brighter than {unit.max():.2g}; wrong full scale?")


def _check_normals(facts: Facts) -> Iterator[Finding]:
    normals = facts.raw.normals
    if normals is None:
        yield Finding("note", "No normals; transforms.estimate_normals(cloud) computes them.")
        return
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(normals.astype(np.float64), axis=1)
    cases = (
        (~np.isfinite(lengths), "are NaN or infinite"),
        (lengths == 0.0, "are zero"),
        ((lengths > 0.0) & (np.abs(lengths - 1.0) > UNIT_LENGTH_TOLERANCE), "have not length 1"),
    )
    for which, words in cases:
        number = int((which & (np.isfinite(lengths) | (words == cases[0][1]))).sum())
        if number:
            yield Finding("warning", f"{number:,} of {facts.count:,} normals {words}.")


def _check_labels(facts: Facts) -> Iterator[Finding]:
    labels = facts.raw.labels
    if labels is not None and len(np.unique(labels)) == 1:
        yield Finding("note", f"All points have the label {int(labels[0])}.")


def _check_notes(facts: Facts) -> Iterator[Finding]:
    return (Finding("note", text) for text in facts.raw.notes)


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _check_points,
    _check_shape,
    _check_unit,
    _check_large,
    _check_duplicates,
    _check_clusters,
    _check_density,
    _check_colors,
    _check_normals,
    _check_labels,
    _check_notes,
)

QUICK_CHECKS = (_check_unit, _check_large, _check_colors, _check_normals)
"""Those on values that take one pass over the points, for whole data sets."""
