"""The point cloud that every reader returns and every encoder accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pointzoo.errors import CloudError

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class PointCloud:
    """N points with optional colours, normals, labels and any other per-point field.

    Nothing is moved, scaled or dropped: coordinates stay in float64, so that UTM-sized values lose
    nothing, and may hold NaN where a sensor saw nothing (:meth:`drop_nonfinite` removes those).
    The arrays are read-only views.

    Attributes:
        coords: (N, 3) float64, metres.
        colors: (N, 3) float32 in 0..1, or None. Integer input is divided by the largest value of
            its type (255 for uint8, 65535 for uint16).
        normals: (N, 3) float32, unit length where known, or None.
        labels: (N,) int64, or None.
        fields: Other per-point arrays of length N, by name, as the file had them.

    Raises:
        CloudError: An array has the wrong shape, length or type, or float colours lie outside 0..1.
    """

    coords: FloatArray
    colors: FloatArray | None = None
    normals: FloatArray | None = None
    labels: IntArray | None = None
    fields: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert, check and freeze the arrays."""
        coords = _matrix("coords", self.coords, np.float64)
        count = len(coords)
        self._set("coords", coords)
        if self.colors is not None:
            self._set("colors", _same_length("colors", _unit_colors(self.colors), count))
        if self.normals is not None:
            normals = _matrix("normals", self.normals, np.float32)
            self._set("normals", _same_length("normals", normals, count))
        if self.labels is not None:
            self._set("labels", _same_length("labels", _labels(self.labels), count))
        fields = {
            name: _read_only(_same_length(f"field {name!r}", _array(name, value), count))
            for name, value in self.fields.items()
        }
        object.__setattr__(self, "fields", MappingProxyType(fields))

    def __len__(self) -> int:
        """Return N, the number of points."""
        return len(self.coords)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle through the constructor (a mapping proxy cannot be pickled)."""
        parts = (self.coords, self.colors, self.normals, self.labels, dict(self.fields))
        return PointCloud, parts

    def _set(self, name: str, value: NDArray[Any]) -> None:
        object.__setattr__(self, name, _read_only(value))

    def replace(self, **changes: Any) -> PointCloud:
        """Return a copy with some attributes replaced.

        Raises:
            CloudError: The new value does not fit the other arrays.
        """
        return dataclasses.replace(self, **changes)

    def select(self, index: ArrayLike) -> PointCloud:
        """Return the points at ``index`` (integer rows or a boolean mask), every field with them.

        Args:
            index: (M,) integers, or (N,) booleans.

        Raises:
            CloudError: The index has another shape or type, or names a row that is not there.
        """
        rows = np.asarray(index)
        if rows.shape == (0,) and rows.dtype == np.float64:  # what numpy makes of an empty list
            rows = rows.astype(np.int64)
        try:
            if rows.dtype == bool and rows.shape != (len(self),):  # numpy takes an empty mask
                raise IndexError("a mask of another length")
            coords = self.coords[rows]
        except IndexError as error:
            raise CloudError(
                expected=f"integers below {len(self)}, or {len(self)} booleans",
                got=f"shape {rows.shape} of {rows.dtype}: {error}",
                fix="Pass row numbers, or a mask such as cloud.coords[:, 2] > 0.",
            ) from error

        def take(value: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if value is None else value[rows]

        return PointCloud(
            coords=coords,
            colors=take(self.colors),
            normals=take(self.normals),
            labels=take(self.labels),
            fields={name: value[rows] for name, value in self.fields.items()},
        )

    def drop_nonfinite(self) -> PointCloud:
        """Return the points whose three coordinates are finite."""
        return self.select(np.isfinite(self.coords).all(axis=1))

    def require_usable(self) -> PointCloud:
        """Return the cloud itself if an encoder can use it.

        Raises:
            CloudError: There is no point, or a coordinate is NaN or infinite.
        """
        if len(self) == 0:
            raise CloudError(
                expected="at least one point",
                got="an empty point cloud",
                fix="Check the file or the filter that produced it.",
            )
        bad = int((~np.isfinite(self.coords).all(axis=1)).sum())
        if bad:
            raise CloudError(
                expected="finite coordinates",
                got=f"{bad} of {len(self)} points with NaN or infinite coordinates",
                fix="Remove them with cloud.drop_nonfinite(), or mend the source.",
            )
        return self


def _read_only(value: NDArray[Any]) -> NDArray[Any]:
    view = value.view()
    view.flags.writeable = False
    return view


def _array(name: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors with a gradient
        raise CloudError(
            expected=f"{name} as an array",
            got=f"a {type(value).__name__}: {error}",
            fix="Pass one row per point, all of one length; of a tensor x.detach().cpu().",
        ) from error


def _matrix(name: str, value: ArrayLike, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    array = _array(name, value)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise CloudError(
            expected=f"{name} as an (N, 3) array of real numbers",
            got=f"shape {array.shape} of {array.dtype}",
            fix="Pass one row per point: x, y, z.",
        )
    with np.errstate(over="ignore"):  # too large for the type: infinite, refused where it is used
        return array.astype(dtype, copy=False)


def _same_length(name: str, value: NDArray[Any], count: int) -> NDArray[Any]:
    if value.ndim == 0 or len(value) != count:
        got = "a single value" if value.ndim == 0 else f"{len(value)} rows"
        raise CloudError(
            expected=f"{name} with one row for each of the {count} points",
            got=got,
            fix="Select the same points from every array.",
        )
    return value


def _unit_colors(value: ArrayLike) -> NDArray[Any]:
    array = _array("colors", value)
    scale = float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else 1.0
    if array.dtype.kind == "i":  # a signed type holds 0..255 by convention
        scale = 255.0
    colors = (_matrix("colors", array, np.float32) / np.float32(scale)).astype(np.float32)
    if colors.size and not (colors.min() >= 0.0 and colors.max() <= 1.0):
        raise CloudError(
            expected="colors in 0..1",
            got=f"values from {float(colors.min()):g} to {float(colors.max()):g}",
            fix="Divide 0..255 colours by 255, or pass them as uint8.",
        )
    return colors


def _labels(value: ArrayLike) -> NDArray[Any]:
    array = _array("labels", value)
    too_large = array.dtype == np.uint64 and bool((array > np.iinfo(np.int64).max).any())
    if array.ndim != 1 or array.dtype.kind not in "iub" or too_large:
        raise CloudError(
            expected="labels as an (N,) array of integers below 2**63",
            got=f"shape {array.shape} of {array.dtype}{' with larger ones' * too_large}",
            fix="Pass one integer per point.",
        )
    return array.astype(np.int64, copy=False)
