"""What a point cloud holds, and what looks wrong with it, in words.

Nothing here refuses a cloud: it reads files as they are (:func:`pointzoo.io.read_raw`) and reports.
:mod:`pointzoo.inspection.checks` holds the checks and their thresholds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.inspection.checks import CHECKS, Facts, Finding
from pointzoo.io import RawCloud, read_raw

__all__ = ["Finding", "Inspection", "inspect", "render"]

LISTED_LABELS = 20
"""Labels that are listed one by one."""


@dataclass(frozen=True)
class Inspection:
    """What a point cloud holds; ``str()`` puts it in words.

    Attributes:
        name: File name, or ``"point cloud"``.
        count: N.
        low: Smallest finite x, y and z; NaN where there is none.
        high: Largest finite x, y and z.
        spacing: Median distance of a point to its nearest neighbour elsewhere, None without one.
        unit: ``"metre"`` or ``"foot"`` where the file says so.
        colors: Smallest and largest stored colour, None without colours.
        has_normals: Whether there are normals.
        labels: Points of each label, None without labels.
        fields: Type and range of every other field.
        findings: The most severe first.
    """

    name: str
    count: int
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    spacing: float | None
    unit: str | None
    colors: tuple[float, float] | None
    has_normals: bool
    labels: Mapping[int, int] | None
    fields: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Sides of the bounding box."""
        x, y, z = (high - low for low, high in zip(self.low, self.high, strict=True))
        return x, y, z

    def __str__(self) -> str:
        """Return :func:`render` of it."""
        return render(self)


def inspect(source: str | os.PathLike[str] | PointCloud) -> Inspection:
    """Look at a file or a cloud, and say what it holds and what looks wrong.

    Args:
        source: A file that :func:`pointzoo.io.read` takes, or a cloud.

    Raises:
        FormatError: The file cannot be read as a point cloud at all.
        FileNotFoundError: There is no such file.
        MissingExtraError: The format needs a package that is not installed.
    """
    if isinstance(source, PointCloud):
        name = "point cloud"
        raw = RawCloud(source.coords, source.colors, source.normals, source.labels, source.fields)
    else:
        name = Path(source).name
        raw = read_raw(source)
    with np.errstate(all="ignore"):  # coordinates may be as large as a float64 holds
        facts = Facts(raw)
        spacing = facts.spacing
        findings = [finding for check in CHECKS for finding in check(facts)]
    order = ("problem", "warning", "note")
    return Inspection(
        name=name,
        count=facts.count,
        low=_triple(facts.low),
        high=_triple(facts.high),
        spacing=spacing,
        unit=raw.unit,
        colors=_range(raw.colors),
        has_normals=raw.normals is not None,
        labels=_histogram(raw.labels),
        fields={key: _describe(values) for key, values in raw.fields.items()},
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


def render(inspection: Inspection) -> str:
    """Put an inspection in words, one fact a line."""
    unit = {"foot": " ft", "metre": " m"}.get(inspection.unit or "", "")
    lines = [f"{inspection.name}: {inspection.count:,} points"]
    if inspection.count:
        sides = " x ".join(f"{side:.6g}" for side in inspection.extent)
        lines.append(f"  extent    {sides}{unit}")
        pairs = zip("xyz", inspection.low, inspection.high, strict=True)
        lines.append("  bounds    " + ", ".join(f"{n} {a:.10g} to {b:.10g}" for n, a, b in pairs))
    if inspection.spacing is not None:
        lines.append(f"  spacing   {inspection.spacing:.4g}{unit} to the nearest point (median)")
    if inspection.colors is None:
        lines.append("  colours   none")
    else:
        lines.append("  colours   stored from {:g} to {:g}".format(*inspection.colors))
    lines.append(f"  normals   {'yes' if inspection.has_normals else 'none'}")
    lines.append(f"  labels    {_label_words(inspection.labels)}")
    lines.append("  fields    " + (", ".join(inspection.fields) or "none"))
    lines += [f"    {key}: {words}" for key, words in inspection.fields.items()]
    lines += [f"  {finding.severity}: {finding.text}" for finding in inspection.findings]
    return "\n".join(lines)


def _label_words(labels: Mapping[int, int] | None) -> str:
    if labels is None:
        return "none"
    shown = sorted(labels.items(), key=lambda item: -item[1])[:LISTED_LABELS]
    more = f", and {len(labels) - len(shown)} more" if len(labels) > len(shown) else ""
    return f"{len(labels)}: " + ", ".join(f"{key} ({n:,})" for key, n in shown) + more


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _range(values: NDArray[Any] | None) -> tuple[float, float] | None:
    if values is None or values.size == 0:
        return None
    return float(values.min()), float(values.max())


def _histogram(labels: NDArray[Any] | None) -> dict[int, int] | None:
    if labels is None:
        return None
    keys, counts = np.unique(labels.astype(np.int64), return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def _describe(values: NDArray[Any]) -> str:
    shape = "" if values.ndim == 1 else f" x {values.shape[1]}"
    kind = f"{values.dtype}{shape}"
    if values.size == 0 or values.dtype.kind not in "fiu":
        return kind
    known = values[~np.isnan(values)]
    if known.size == 0:
        return f"{kind}, all NaN"
    return f"{kind}, {known.min():g} to {known.max():g}"
