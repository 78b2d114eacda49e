"""NPY and NPZ; nothing is ever unpickled.

An NPY file holds a table (N, 3+), understood by the rule of :mod:`pointzoo.io.table`, or a
structured array with named columns. An NPZ file holds arrays by name, or a single one like an NPY
file.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io import columns
from pointzoo.io.files import check_is_file, check_rows, malformed, parsing
from pointzoo.io.raw import RawCloud
from pointzoo.io.table import from_table

COORD_KEYS = ("coords", "coord", "xyz", "points", "positions", "pos", "vertices")
COLOR_KEYS = ("colors", "color", "rgb")
NORMAL_KEYS = ("normals", "normal")
_LARGEST_RATIO = 1100  # deflate gives 1032 at most
_ALWAYS_FITS, _SUSPICIOUS_RATIO = 64 << 20, 100
"""An archive may unpack to so many bytes, or to so many times its own size if that is more; points
that were measured compress by 10 at most, and labels alone may compress by 1000."""


def read_npy(path: Path) -> RawCloud:
    """Read an NPY file.

    Raises:
        FormatError: The file is damaged, or holds no table (N, 3+) and no structured array.
    """
    with parsing(path, "NPY"):
        return _from_array(np.array(map_npy(path)))


def map_npy(path: Path) -> NDArray[Any]:
    """Open an NPY file without reading it.

    Raises:
        FormatError: The file is damaged, cut off, or holds Python objects.
        FileNotFoundError: There is no such file.
    """
    check_is_file(path)
    with parsing(path, "NPY"), np.errstate(over="ignore"):  # of sizes; they are refused later
        mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        return mapped  # numpy refuses more rows than the file holds


def read_npz(path: Path) -> RawCloud:
    """Read an NPZ file.

    Raises:
        FormatError: The file is damaged, or no array is named like coordinates and there are
            several.
    """
    arrays = load_arrays(path)
    with parsing(path, "NPZ"):
        coords_key = _first(arrays, COORD_KEYS)
        if coords_key is None and len(arrays) == 1:
            return _from_array(next(iter(arrays.values())))
        if coords_key is None:
            count = len(arrays["x"]) if "x" in arrays else 0
            table = {key: value for key, value in arrays.items() if value.shape[:1] == (count,)}
            return columns.from_columns(table, _notes(arrays, count))
        return _from_named(arrays, coords_key)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Load all arrays of an NPZ file by name.

    Raises:
        FormatError: The file is damaged or holds Python objects.
        FileNotFoundError: There is no such file.
    """
    check_is_file(path)
    arrays = {}
    with parsing(path, "NPZ"), zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > max(_ALWAYS_FITS, _SUSPICIOUS_RATIO * path.stat().st_size):
            raise malformed(path, "NPZ", f"it would unpack to {total:,} bytes")
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            if entry.file_size > _LARGEST_RATIO * (entry.compress_size + 1):
                raise malformed(path, "NPZ", f"{entry.filename} claims {entry.file_size} bytes")
            content = io.BytesIO(archive.read(entry))
            shape, _, dtype = _read_header(content)
            check_rows(
                path, "NPZ", math.prod(shape), dtype.itemsize, entry.file_size - content.tell()
            )
            content.seek(0)
            arrays[entry.filename.removesuffix(".npy")] = _native(
                np.lib.format.read_array(content, allow_pickle=False)
            )
    return arrays


def map_array(path: Path, key: str) -> NDArray[Any]:
    """Open one array of an NPZ file, without reading it where it is not compressed.

    Args:
        path: The file.
        key: Name of the array.

    Raises:
        FormatError: The file is damaged or has no such array.
        FileNotFoundError: There is no such file.
    """
    check_is_file(path)
    with parsing(path, "NPZ"), zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            raise malformed(path, "NPZ", f"there is no array {key!r}")
        entry = archive.getinfo(f"{key}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return load_arrays(path)[key]
        with path.open("rb") as stream:
            stream.seek(entry.header_offset)
            lengths = struct.unpack("<HH", stream.read(30)[26:])  # of the name and an extra field
            stream.seek(sum(lengths), os.SEEK_CUR)
            shape, by_columns, dtype = _read_header(stream)
            if dtype.hasobject:
                raise malformed(path, "NPZ", f"{key!r} holds Python objects")
            start = stream.tell()
        order: Literal["C", "F"] = "F" if by_columns else "C"
        mapped: NDArray[Any] = np.memmap(path, dtype, "r", start, shape, order)
        return mapped


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of an array, and leave the stream where its values begin."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    return read(stream)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _first(arrays: columns.Columns, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in arrays), None)


def _from_array(array: NDArray[Any]) -> RawCloud:
    names = array.dtype.names
    if names is not None and array.ndim == 1:
        return columns.from_columns({name: _native(array[name]) for name in names})
    return from_table(_native(array))


def _from_named(arrays: dict[str, NDArray[Any]], coords_key: str) -> RawCloud:
    table = from_table(arrays.pop(coords_key))
    count = len(table.coords)
    shape = table.coords.shape
    left = {key: value for key, value in arrays.items() if value.shape[:1] == (count,)}
    parts = {"colors": table.colors, "normals": table.normals}
    for part, keys in (("colors", COLOR_KEYS), ("normals", NORMAL_KEYS)):
        key = _first(left, keys)
        if key is not None and left[key].shape == shape and left[key].dtype.kind in "fiu":
            parts[part] = left.pop(key)
    labels = columns.take_labels(left)
    return RawCloud(
        coords=table.coords,
        colors=parts["colors"],
        normals=parts["normals"],
        labels=table.labels if labels is None else labels,
        fields={**table.fields, **left},
        notes=table.notes + _notes(arrays, count),
    )


def _notes(arrays: columns.Columns, count: int) -> tuple[str, ...]:
    return tuple(
        f"The array {key!r} of shape {value.shape} has no row per point and is left out."
        for key, value in arrays.items()
        if value.shape[:1] != (count,)
    )


def write_npy(stream: BinaryIO, cloud: PointCloud) -> None:
    """Write the coordinates as an (N, 3) array of float64.

    Raises:
        FormatError: The cloud has more than coordinates.
    """
    parts = {"colors": cloud.colors, "normals": cloud.normals, "labels": cloud.labels}
    more = [name for name, value in parts.items() if value is not None] + list(cloud.fields)
    if more:
        raise FormatError(
            expected="coordinates alone for NPY",
            got=f"also {', '.join(more)}",
            fix="Write .npz, or drop them: PointCloud(coords=cloud.coords).",
        )
    np.lib.format.write_array(stream, np.ascontiguousarray(cloud.coords), allow_pickle=False)


def write_npz(stream: BinaryIO, cloud: PointCloud) -> None:
    """Write the arrays coords, colors, normals, labels and one per field; no clock in the bytes.

    Raises:
        FormatError: A field has a name that means something else, or holds Python objects.
    """
    arrays: dict[str, NDArray[Any]] = {"coords": cloud.coords}
    if cloud.colors is not None:
        arrays["colors"] = cloud.colors
    if cloud.normals is not None:
        arrays["normals"] = cloud.normals
    if cloud.labels is not None:
        arrays[columns.label_column(cloud.fields, preferred="labels")] = cloud.labels
    for name, values in cloud.fields.items():
        if name in arrays or name in COORD_KEYS:
            raise columns.clashing(name, "another array")
        if values.dtype.hasobject:
            raise FormatError(
                expected="fields of numbers or text",
                got=f"{name!r} of {values.dtype}",
                fix="Convert the field, or drop it.",
            )
        arrays[name] = values
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that no clock enters the bytes
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.ascontiguousarray(values), allow_pickle=False)
