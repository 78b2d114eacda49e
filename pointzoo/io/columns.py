"""Point clouds as named columns: which names mean what, for every format that has names.

Names are compared without case. The first column of a meaning is taken, any further one is kept as
a field under its own name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io.raw import RawCloud, unit_colors

Columns = Mapping[str, NDArray[Any]]

COORD_NAMES = (("x", "y", "z"),)
COLOR_NAMES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
NORMAL_NAMES = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classification", "class_id", "semantic_label"),
    *("scalar_label", "scalar_labels", "scalar_class", "scalar_classification"),  # CloudCompare
)


def from_columns(columns: Columns, notes: tuple[str, ...] = ()) -> RawCloud:
    """Build a cloud from named columns of equal length.

    A label column counts as one only if all its values are whole; a format that stores labels as
    floating point is understood, and a score under that name stays a field.

    Args:
        columns: One array of length N each.
        notes: What the reader noticed.

    Raises:
        FormatError: x, y or z is missing or is not a plain column of real numbers.
    """
    left = dict(columns)
    coords = _take_triple(left, COORD_NAMES)
    if coords is None:
        raise FormatError(
            expected="columns x, y and z of real numbers",
            got=", ".join(left) or "none",
            fix="Name them x, y and z.",
        )
    return RawCloud(
        coords=coords,
        colors=_take_triple(left, COLOR_NAMES),
        normals=_take_triple(left, NORMAL_NAMES),
        labels=take_labels(left),
        fields=MappingProxyType(left),
        notes=notes,
    )


def take_labels(columns: dict[str, NDArray[Any]]) -> NDArray[np.int64] | None:
    """Remove the label column from ``columns`` and return it, None where there is none."""
    known = {name.lower(): name for name in reversed(columns)}
    for name in LABEL_NAMES:
        if name in known and is_whole(columns[known[name]]):
            return columns.pop(known[name]).astype(np.int64)
    return None


def is_whole(values: NDArray[Any]) -> bool:
    """Whether these are one whole number per point that int64 can hold."""
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        return False
    if values.dtype.kind in "ib" or values.size == 0:
        return True
    if not (np.abs(values) < 2.0**53).all():  # also where one is NaN
        return False
    return bool((values == np.floor(values)).all())


def _take_triple(
    columns: dict[str, NDArray[Any]], triples: Iterable[tuple[str, str, str]]
) -> NDArray[Any] | None:
    known = {name.lower(): name for name in reversed(columns)}
    for triple in triples:
        names = [known[name] for name in triple if name in known]
        parts = [columns[name] for name in names]
        if len(parts) == 3 and all(p.ndim == 1 and p.dtype.kind in "fiu" for p in parts):
            return np.column_stack([columns.pop(name) for name in names])
    return None


def plain_coords(cloud: PointCloud) -> NDArray[np.floating[Any]]:
    """Coordinates as float32 where that loses nothing, else as float64."""
    with np.errstate(over="ignore"):
        short = cloud.coords.astype(np.float32)
    same = np.array_equal(short, cloud.coords, equal_nan=True)
    return short if same else cloud.coords


def plain_colors(colors: NDArray[Any]) -> NDArray[Any]:
    """Colours as uint8 or uint16 where that loses nothing, else as float32."""
    for dtype in (np.uint8, np.uint16):
        levels = np.rint(colors.astype(np.float64) * np.iinfo(dtype).max).astype(dtype)
        if np.array_equal(unit_colors(levels), colors):
            return levels
    return colors


def label_column(fields: Columns, preferred: str = "label") -> str:
    """Choose the name that labels are written under.

    Args:
        fields: Fields that are written beside them.
        preferred: The name to use if no field has it.

    Raises:
        FormatError: A field has such a name that a reader would take it for the labels.
    """
    taken = {name.lower(): name for name in fields}
    chosen = next((name for name in (preferred, *LABEL_NAMES) if name not in taken), None)
    for name in itertools.takewhile(lambda name: name != chosen, LABEL_NAMES):
        whole = name in taken and is_whole(fields[taken[name]])  # a reader would find it first
        if whole or chosen is None:
            raise clashing(taken[name], "labels")
    assert chosen is not None, "the first name raises where none is free"
    return chosen


def clashing(name: str, meaning: str) -> FormatError:
    """Build the error for a field whose name already means something else in the file."""
    return FormatError(
        expected=f"field names that do not mean {meaning}",
        got=repr(name),
        fix="Rename the field: cloud.replace(fields={...}).",
    )


def with_plain_names(fields: Columns, taken: Iterable[str], kind: str) -> dict[str, NDArray[Any]]:
    """Return the fields under names that a header can hold: spaces become underscores.

    Args:
        fields: Fields to write.
        taken: Names of the other columns.
        kind: Name of the format.

    Raises:
        FormatError: A name is empty, is taken, or has other than printable ASCII characters.
    """
    seen = set(taken)
    plain = {}
    for name, values in fields.items():
        new = name.replace(" ", "_")
        if new in seen:
            raise clashing(name, "another column")
        if not new or not new.isascii() or not new.isprintable():
            raise FormatError(
                expected=f"field names of printable ASCII for {kind}",
                got=repr(name),
                fix="Rename the field, or write .npz, which holds any name.",
            )
        seen.add(new)
        plain[new] = values
    return plain


def fit_type(name: str, values: NDArray[Any], allowed: str, kind: str) -> NDArray[Any]:
    """Convert a field to a type that the format has, if that changes no value.

    Args:
        name: The field, for the message.
        values: Its values.
        allowed: Codes of the types the format has, for instance ``"i4 f4"``.
        kind: Name of the format.

    Raises:
        FormatError: The format has no type for the values.
    """
    types = [np.dtype(code) for code in allowed.split()]
    if values.ndim > 2:
        raise FormatError(
            expected="fields of one or a row of numbers per point",
            got=f"{name!r} of shape {values.shape}",
            fix="Flatten the field, or write .npz, which holds any shape.",
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.newbyteorder("=") in types:
        return values
    if values.dtype.kind in "iuf":
        for dtype in types:
            with np.errstate(over="ignore", invalid="ignore"):
                converted = values.astype(dtype)
            same_kind = (dtype.kind == "f") == (values.dtype.kind == "f")
            if same_kind and np.array_equal(converted, values, equal_nan=dtype.kind == "f"):
                return converted
    raise FormatError(
        expected=f"fields of numbers that {kind} has a type for ({allowed})",
        got=f"{name!r} of {values.dtype}",
        fix="Convert or drop the field, or write .npz, which holds any type.",
    )
