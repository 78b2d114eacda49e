"""A cloud as a file holds it, and how its colours are understood.

Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError

_ROUNDING = 1e-5
"""How far outside 0..1 a colour may lie and still be taken for a rounded one."""


@dataclass(frozen=True, eq=False)
class RawCloud:
    """N points as a file holds them: nothing scaled, nothing refused for its values.

    Attributes:
        coords: (N, 3) real numbers, in the unit of the file.
        colors: (N, 3) as stored, whatever their range; None where there are none.
        normals: (N, 3) as stored, or None.
        labels: (N,) whole numbers, or None.
        fields: Other per-point arrays by name.
        full_scale: The stored colour that means 1, where the format fixes it.
        unit: ``"metre"`` or ``"foot"``, where the file says so.
        notes: What the reader noticed and left out, as sentences.
    """

    coords: NDArray[Any]
    colors: NDArray[Any] | None = None
    normals: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    fields: Mapping[str, NDArray[Any]] = field(default_factory=lambda: MappingProxyType({}))
    full_scale: float | None = None
    unit: str | None = None
    notes: tuple[str, ...] = ()

    def to_cloud(self, color_scale: float | None = None) -> PointCloud:
        """Return the point cloud, its colours in 0..1.

        Args:
            color_scale: The stored colour that means 1; None: see :func:`full_scale_of`.

        Raises:
            FormatError: The colours cannot be brought to 0..1.
        """
        colors = self.colors
        if colors is not None:
            colors = unit_colors(colors, color_scale or self.full_scale)
        return PointCloud(
            coords=self.coords.astype(np.float64, copy=False),
            colors=colors,
            normals=None if self.normals is None else self.normals.astype(np.float32),
            labels=None if self.labels is None else self.labels.astype(np.int64),
            fields=self.fields,
        )


def unit_colors(values: NDArray[Any], full_scale: float | None = None) -> NDArray[np.float32]:
    """Bring colours to 0..1.

    Args:
        values: (N, 3) as stored.
        full_scale: The value that means 1; None: see :func:`full_scale_of`.

    Raises:
        FormatError: A colour is NaN, negative or too large.
    """
    if values.size == 0:
        return values.astype(np.float32)
    scale = full_scale_of(values) if full_scale is None else full_scale
    colors = values.astype(np.float32) / np.float32(scale)
    low, high = float(colors.min()), float(colors.max())
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):  # also where one is NaN
        raise _bad_colors(values, f"0 to {scale:g}")
    return colors.clip(np.float32(0.0), np.float32(1.0))


def full_scale_of(values: NDArray[Any]) -> float:
    """Tell which stored colour means 1.

    8 and 16 bit unsigned: the largest of the type. Floating point: 1, unless every value is whole
    and one is above 1. Whole numbers of any other type: 255 if none is larger, else 65,535.

    Args:
        values: (N, 3) as stored, N at least 1.

    Raises:
        FormatError: No scale makes sense.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return float(np.iinfo(values.dtype).max)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if low >= -_ROUNDING and high <= 1.0 + _ROUNDING:
            return 1.0
        if not bool((values == np.floor(values)).all()):
            raise _bad_colors(values, "0 to 1, or whole numbers")
    if high > 65_535:
        raise _bad_colors(values, "0 to 65535 at most")
    return 255.0 if high <= 255 else 65_535.0


def _bad_colors(values: NDArray[Any], expected: str) -> FormatError:
    return FormatError(
        expected=f"colours from {expected}",
        got=f"{values.dtype} from {float(values.min()):g} to {float(values.max()):g}",
        fix="If they have another full scale, pass it: read(path, color_scale=255).",
    )
