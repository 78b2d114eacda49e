"""PLY: the vertices of ascii and binary files of either byte order.

The vertex rows are parsed here, straight into an array: plyfile takes seconds for an ascii scan and
for the faces of a mesh, which nobody needs here. plyfile reads the rare files whose vertices hold
lists or come after another element, and writes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.io import columns
from pointzoo.io.columns import Columns
from pointzoo.io.files import check_rows, malformed, parsing
from pointzoo.io.raw import RawCloud

_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_WRITABLE = "i4 u4 f4 f8 i1 u1 i2 u2"
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class _Property:
    name: str
    code: str  # type of the value, or of a list's length
    is_list: bool


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype([(p.name, order + p.code) for p in self.properties])


@dataclass(frozen=True)
class _Header:
    layout: str
    elements: tuple[_Element, ...]
    size: int  # bytes, the line "end_header" with its end included


def read_ply(path: Path) -> RawCloud:
    """Read the vertices of a PLY file; faces and other elements are left out.

    Raises:
        FormatError: The file is damaged, cut off or holds no vertices with x, y and z.
    """
    with parsing(path, "PLY"):
        data = path.read_bytes()
        header = _read_header(path, data)
        _check_counts(path, header, len(data))
        vertex = next((e for e in header.elements if e.name == "vertex"), None)
        if vertex is None:
            raise malformed(path, "PLY", "there is no element 'vertex'")
        if vertex is not header.elements[0] or any(p.is_list for p in vertex.properties):
            table = _read_by_plyfile(path)
        elif header.layout == "ascii":
            table = _read_ascii(path, data[header.size :], vertex)
        else:
            dtype = vertex.dtype(_ORDERS[header.layout])
            rows = np.frombuffer(data, dtype, vertex.count, header.size)
            table = {name: _native(rows[name]) for name in dtype.names or ()}
        return columns.from_columns(table, _notes(header))


def _read_header(path: Path, data: bytes) -> _Header:
    if data[:4] not in (b"ply\n", b"ply\r"):
        raise malformed(path, "PLY", "it does not start with the line 'ply'")
    layout = ""
    elements: list[_Element] = []
    position = 0
    while True:
        end = data.find(b"\n", position, _LONGEST_HEADER)
        if end < 0:
            raise malformed(path, "PLY", "the header has no end")
        words = data[position:end].decode("ascii", errors="replace").split()
        position = end + 1
        match words:
            case ["end_header"]:
                break
            case ["format", kind, *_] if kind in _ORDERS:
                layout = kind
            case ["element", name, count]:
                elements.append(_Element(name, int(count), ()))
            case ["property", *what] if elements:
                last = elements[-1]
                new = (*last.properties, _read_property(path, what))
                elements[-1] = _Element(last.name, last.count, new)
            case [] | ["ply"] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise malformed(path, "PLY", f"the header line {' '.join(words)[:80]!r}")
    if not layout:
        raise malformed(path, "PLY", "the header names no format")
    return _Header(layout, tuple(elements), position)


def _read_property(path: Path, words: list[str]) -> _Property:
    match words:
        case ["list", length, value, name] if length in _TYPES and value in _TYPES:
            return _Property(name, _TYPES[length], is_list=True)
        case [kind, name] if kind in _TYPES:
            return _Property(name, _TYPES[kind], is_list=False)
    raise malformed(path, "PLY", f"the property {' '.join(words)[:80]!r}")


def _check_counts(path: Path, header: _Header, size: int) -> None:
    for element in header.elements:
        if header.layout == "ascii":
            least = 2 * len(element.properties)  # a digit and a separator
            available = size - header.size + 1  # the last line may have no end
        else:
            least = sum(np.dtype(p.code).itemsize for p in element.properties)
            available = size - header.size
        if least == 0 and element.count:
            raise malformed(path, "PLY", f"element {element.name!r} has no properties")
        check_rows(path, "PLY", element.count, least, available)


def _read_ascii(path: Path, body: bytes, vertex: _Element) -> dict[str, NDArray[Any]]:
    dtype = vertex.dtype("=")
    rows = np.empty(0, dtype)
    if vertex.count:
        text = io.StringIO(body.decode("ascii"))
        rows = np.loadtxt(text, dtype, comments=None, max_rows=vertex.count, ndmin=1)
    if len(rows) != vertex.count:
        raise malformed(path, "PLY", f"{len(rows)} of {vertex.count} vertices are there")
    return {name: _native(rows[name]) for name in dtype.names or ()}


def _read_by_plyfile(path: Path) -> dict[str, NDArray[Any]]:
    from plyfile import PlyData

    rows = PlyData.read(str(path), mmap=False)["vertex"].data
    table = {}
    for name in rows.dtype.names:
        values = rows[name]
        if values.dtype.kind == "O":  # a list property: one array per vertex
            lengths = {len(entry) for entry in values}
            if len(lengths) > 1:
                raise malformed(path, "PLY", f"lists of unequal length in {name!r}")
            values = np.stack(list(values)) if len(values) else np.empty((0, 0))
        table[name] = _native(values)
    return table


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="), order="C")


def _notes(header: _Header) -> tuple[str, ...]:
    return tuple(
        f"{element.count:,} rows of the element {element.name!r} are left out."
        for element in header.elements
        if element.name != "vertex" and element.count
    )


def write_ply(stream: BinaryIO, cloud: PointCloud) -> None:
    """Write a binary little-endian PLY file.

    Coordinates are written as float if that loses nothing, else as double; colours as uchar or
    ushort if that loses nothing, else as float; an (N, K) field as a list.

    Raises:
        FormatError: The name, type or value range of a field does not fit the format.
    """
    from plyfile import PlyData, PlyElement

    table = _to_table(cloud)
    lists = {name: values for name, values in table.items() if values.ndim > 1}
    rows = np.empty(len(cloud), [(n, "O" if n in lists else v.dtype) for n, v in table.items()])
    for name, values in table.items():
        if name in lists:
            for row, entry in zip(rows, values, strict=True):
                row[name] = entry
        else:
            rows[name] = values
    element = PlyElement.describe(
        rows,
        "vertex",
        val_types={name: values.dtype.str[1:] for name, values in lists.items()},
        len_types=dict.fromkeys(lists, "u4"),
    )
    PlyData([element], text=False, byte_order="<").write(stream)


def _to_table(cloud: PointCloud) -> Columns:
    coords = columns.plain_coords(cloud)
    table: dict[str, NDArray[Any]] = dict(zip("xyz", coords.T, strict=True))
    if cloud.normals is not None:
        table |= zip(("nx", "ny", "nz"), cloud.normals.T, strict=True)
    if cloud.colors is not None:
        colors = columns.plain_colors(cloud.colors)
        table |= zip(("red", "green", "blue"), colors.T, strict=True)
    if cloud.labels is not None:
        name = columns.label_column(cloud.fields)
        table[name] = columns.fit_type("labels", cloud.labels, "i4 u4", "PLY")
    fields = columns.with_plain_names(cloud.fields, table, "PLY")
    for name, values in fields.items():
        table[name] = columns.fit_type(name, values, _WRITABLE, "PLY")
    return table
