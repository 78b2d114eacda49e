"""PCD, the format of the Point Cloud Library: ascii, binary and binary_compressed.

Read and written here because pypcd4, the best kept package, allocates what a damaged header
promises, names padding at random, and brings pydantic and a compiled LZF. Facts of the format:
https://pointclouds.org/documentation/tutorials/pcd_file_format.html (version 0.7).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.io import columns, lzf
from pointzoo.io.columns import Columns
from pointzoo.io.files import check_rows, malformed, parsing
from pointzoo.io.raw import RawCloud

_TYPES = frozenset({"F4", "F8", "U1", "U2", "U4", "U8", "I1", "I2", "I4", "I8"})
_WRITABLE = "i4 u4 f4 f8 i8 u8 i1 u1 i2 u2"
_LONGEST_HEADER = 1 << 20
_MOST_VALUES = 1 << 16  # per point
_PADDING = "_"
_NO_POSE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Header:
    names: list[str]
    codes: list[str]  # numpy type codes, little endian
    counts: list[int]
    points: int
    layout: str
    viewpoint: tuple[float, ...]  # translation and quaternion (w x y z) of the sensor
    size: int  # bytes, the line DATA with its end included

    def dtype(self) -> np.dtype[Any]:
        """Row type; the fields are numbered, because padding may repeat a name."""
        parts = zip(self.codes, self.counts, strict=True)
        return np.dtype([(str(i), code, (count,)) for i, (code, count) in enumerate(parts)])


def read_pcd(path: Path) -> RawCloud:
    """Read a PCD file; rows that a sensor left NaN are kept, the viewpoint is not applied.

    Raises:
        FormatError: The file is damaged or cut off, or holds no x, y and z.
    """
    with parsing(path, "PCD"):
        data = path.read_bytes()
        header = _read_header(path, data)
        body = data[header.size :]
        read = {"ascii": _read_ascii, "binary": _read_binary}.get(header.layout, _read_compressed)
        arrays = read(path, body, header)
        table: dict[str, NDArray[Any]] = {}
        for name, count, values in zip(header.names, header.counts, arrays, strict=True):
            if name == _PADDING:
                continue
            if name in table:
                raise malformed(path, "PCD", f"two fields {name!r}")
            native = values.astype(values.dtype.newbyteorder("="))
            table[name] = native[:, 0] if count == 1 else native
        _unpack_colors(table)
        return columns.from_columns(table, _notes(header))


def _read_header(path: Path, data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in entries:
        end = data.find(b"\n", position, _LONGEST_HEADER)
        if end < 0:
            raise malformed(path, "PCD", "the header has no line DATA")
        words = data[position:end].decode("utf-8").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    names = entries.get("FIELDS", entries.get("COLUMNS", []))
    counts = [int(word) for word in entries.get("COUNT", ["1"] * len(names))]
    types = [kind + size for kind, size in zip(entries["TYPE"], entries["SIZE"], strict=True)]
    layout = entries["DATA"][0]
    if not len(names) == len(counts) == len(types) or not set(types) <= _TYPES:
        raise malformed(path, "PCD", "FIELDS, SIZE, TYPE and COUNT do not fit")
    if min(counts) < 1 or sum(counts) > _MOST_VALUES:
        raise malformed(path, "PCD", f"COUNT {counts[:8]}")
    if layout not in ("ascii", "binary", "binary_compressed"):
        raise malformed(path, "PCD", f"DATA {layout[:80]!r}")
    size = int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0])
    points = int(entries["POINTS"][0]) if "POINTS" in entries else size
    codes = [f"<{code.lower()}" for code in types]
    viewpoint = tuple(map(float, entries.get("VIEWPOINT", _NO_POSE)))
    return _Header(names, codes, counts, points, layout, viewpoint, position)


def _read_ascii(path: Path, body: bytes, header: _Header) -> list[NDArray[Any]]:
    values = sum(header.counts)
    check_rows(path, "PCD", header.points, 2 * values, len(body) + 1)
    flat = np.repeat(header.codes, header.counts)
    dtype = np.dtype([(str(i), str(code)) for i, code in enumerate(flat)])
    rows = np.empty(0, dtype)
    if header.points:
        text = io.StringIO(body.decode("ascii"))
        rows = np.loadtxt(text, dtype, comments=None, max_rows=header.points, ndmin=1)
    if len(rows) != header.points:
        raise malformed(path, "PCD", f"{len(rows)} of {header.points} points are there")
    ends = np.cumsum(header.counts)
    return [
        np.stack([rows[str(i)] for i in range(end - count, end)], axis=1)
        for end, count in zip(ends, header.counts, strict=True)
    ]


def _read_binary(path: Path, body: bytes, header: _Header) -> list[NDArray[Any]]:
    dtype = header.dtype()
    check_rows(path, "PCD", header.points, dtype.itemsize, len(body))
    rows = np.frombuffer(body, dtype, header.points)
    return [rows[name] for name in dtype.names or ()]


def _read_compressed(path: Path, body: bytes, header: _Header) -> list[NDArray[Any]]:
    """Read the block of LZF, in which the values of a field lie together."""
    packed, size = struct.unpack_from("<II", body)
    expected = header.points * header.dtype().itemsize
    if packed > len(body) - 8 or size != expected or size > packed * lzf.LARGEST_RATIO:
        raise malformed(path, "PCD", f"{packed} bytes cannot hold {header.points} points")
    block = lzf.decompress(body[8 : 8 + packed], size)
    arrays, position = [], 0
    for code, count in zip(header.codes, header.counts, strict=True):
        values = np.frombuffer(block, code, header.points * count, position)
        arrays.append(values.reshape(header.points, count))
        position += values.nbytes
    return arrays


def _unpack_colors(table: dict[str, NDArray[Any]]) -> None:
    """Replace ``rgb`` or ``rgba``, four bytes in one number, by red, green and blue."""
    for name in ("rgb", "rgba"):
        packed = table.get(name)
        if packed is None or packed.ndim != 1 or packed.dtype.itemsize != 4 or "red" in table:
            continue
        levels = np.ascontiguousarray(packed).view(np.uint32)
        for shift, channel in ((16, "red"), (8, "green"), (0, "blue")):
            table[channel] = (levels >> shift & 255).astype(np.uint8)
        if name == "rgba":
            table.setdefault("alpha", (levels >> 24).astype(np.uint8))
        del table[name]


def _notes(header: _Header) -> tuple[str, ...]:
    if header.viewpoint == _NO_POSE:
        return ()
    pose = " ".join(f"{value:g}" for value in header.viewpoint)
    return (f"The pose of the sensor in VIEWPOINT ({pose}) is not applied.",)


def write_pcd(stream: BinaryIO, cloud: PointCloud) -> None:
    """Write a binary PCD file.

    Coordinates are written as 4-byte floats if that loses nothing, else as 8-byte ones. Colours of
    8 bits are packed into the field ``rgb``, as the Point Cloud Library does; others become three
    fields.

    Raises:
        FormatError: The name or the type of a field does not fit the format.
    """
    table = _to_table(cloud)
    arrays = [v.reshape(len(cloud), v.size // max(1, len(cloud))) for v in table.values()]
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(table)}",
        f"SIZE {' '.join(str(a.dtype.itemsize) for a in arrays)}",
        f"TYPE {' '.join(a.dtype.kind.upper() for a in arrays)}",
        f"COUNT {' '.join(str(max(1, a.shape[1])) for a in arrays)}",
        f"WIDTH {len(cloud)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(cloud)}",
        "DATA binary\n",
    ]
    stream.write("\n".join(lines).encode("ascii"))
    dtype = [(str(i), a.dtype.newbyteorder("<"), (a.shape[1],)) for i, a in enumerate(arrays)]
    rows = np.empty(len(cloud), dtype)
    for i, values in enumerate(arrays):
        rows[str(i)] = values
    stream.write(rows.tobytes())


def _to_table(cloud: PointCloud) -> Columns:
    table: dict[str, NDArray[Any]] = dict(zip("xyz", columns.plain_coords(cloud).T, strict=True))
    if cloud.normals is not None:
        table |= zip(("normal_x", "normal_y", "normal_z"), cloud.normals.T, strict=True)
    if cloud.colors is not None:
        colors = columns.plain_colors(cloud.colors)
        if colors.dtype == np.uint8:
            red, green, blue = colors.astype(np.uint32).T
            table["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
        else:
            table |= zip(("red", "green", "blue"), colors.T, strict=True)
    if cloud.labels is not None:
        name = columns.label_column(cloud.fields)
        table[name] = columns.fit_type("labels", cloud.labels, "u4 i4 i8", "PCD")
    fields = columns.with_plain_names(cloud.fields, {*table, "rgb", "rgba", _PADDING}, "PCD")
    for name, values in fields.items():
        table[name] = columns.fit_type(name, values, _WRITABLE, "PCD")
    return table
