"""PLY: the vertices of ascii and binary files of either byte order.

Read and written here, straight into arrays: plyfile, the usual package, takes seconds for an ascii
scan, for lists and for the faces of a mesh (which nobody needs here), and allocates whatever a
damaged list length says; the tests hold this module equal to it. Facts of the format: Greg Turk,
"The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

import itertools
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
_NAMES = {
    "i1": ("char", "int8"),
    "u1": ("uchar", "uint8"),
    "i2": ("short", "int16"),
    "u2": ("ushort", "uint16"),
    "i4": ("int", "int32"),
    "u4": ("uint", "uint32"),
    "f4": ("float", "float32"),
    "f8": ("double", "float64"),
}
_TYPES = {name: code for code, names in _NAMES.items() for name in names}
_WRITABLE = "i4 u4 f4 f8 i1 u1 i2 u2"
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class _Property:
    name: str
    code: str
    length_code: str | None = None  # of a list


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


@dataclass(frozen=True)
class _Header:
    layout: str
    elements: tuple[_Element, ...]
    size: int  # bytes, the line "end_header" with its end included


def read_ply(path: Path) -> RawCloud:
    """Read the vertices of a PLY file; faces and other elements are left out.

    A list property becomes an (N, K) field.

    Raises:
        FormatError: The file is damaged, cut off, holds no vertices with x, y and z, or has lists
            of unequal length at the vertices.
    """
    with parsing(path, "PLY"):
        data = path.read_bytes()
        header = _read_header(path, data)
        names = [element.name for element in header.elements]
        if "vertex" not in names:
            raise malformed(path, "PLY", "there is no element 'vertex'")
        before = header.elements[: names.index("vertex")]
        vertex = header.elements[names.index("vertex")]
        if header.layout == "ascii":
            lines = data[header.size :].decode("ascii").splitlines()
            table = _read_ascii(path, lines, before, vertex)
        else:
            start = header.size
            for element in before:
                start = _skip(data, start, element, _ORDERS[header.layout])
            table = _read_binary(path, data, start, vertex, _ORDERS[header.layout])
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
            return _Property(name, _TYPES[value], _TYPES[length])
        case [kind, name] if kind in _TYPES:
            return _Property(name, _TYPES[kind])
    raise malformed(path, "PLY", f"the property {' '.join(words)[:80]!r}")


def _skip(data: bytes, start: int, element: _Element, order: str) -> int:
    """Return where a binary element ends; only one with lists is walked through."""
    sizes = [np.dtype(p.code).itemsize for p in element.properties]
    if all(p.length_code is None for p in element.properties):
        return start + element.count * sum(sizes)
    for _ in range(element.count):
        for prop, size in zip(element.properties, sizes, strict=True):
            length, start = _list_length(data, start, prop, order)
            start += length * size
    return start


def _list_length(data: bytes, start: int, prop: _Property, order: str) -> tuple[int, int]:
    """Return how many values follow, and where."""
    if prop.length_code is None:
        return 1, start
    dtype = np.dtype(order + prop.length_code)
    return int(np.frombuffer(data, dtype, 1, start)[0]), start + dtype.itemsize


def _read_binary(
    path: Path, data: bytes, start: int, vertex: _Element, order: str
) -> dict[str, NDArray[Any]]:
    """Read rows of equal size; the lengths of lists are those of the first row."""
    parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    place = start
    for prop in vertex.properties:
        if prop.length_code is None or vertex.count == 0:
            parts.append((prop.name, order + prop.code))
            length = 1
        else:
            length, place = _list_length(data, place, prop, order)
            parts.append((f"{prop.name} length", order + prop.length_code))
            parts.append((prop.name, order + prop.code, (length,)))
        place += length * np.dtype(prop.code).itemsize
    dtype = np.dtype(parts)
    if dtype.itemsize == 0:
        raise malformed(path, "PLY", "the vertices have no properties")
    check_rows(path, "PLY", vertex.count, dtype.itemsize, len(data) - start)
    rows = np.frombuffer(data, dtype, vertex.count, start) if vertex.count else np.empty(0, dtype)
    return _to_columns(path, vertex, rows)


def _read_ascii(
    path: Path, lines: list[str], before: tuple[_Element, ...], vertex: _Element
) -> dict[str, NDArray[Any]]:
    """Read rows of equally many words; the lengths of lists are those of the first row."""
    full = (line for line in lines if line and not line.isspace())
    wanted = list(itertools.islice(full, *_rows(before, vertex)))
    if len(wanted) != vertex.count:
        raise malformed(path, "PLY", f"{len(wanted)} of {vertex.count} vertices are there")
    words = iter(wanted[0].split() if wanted else ())
    parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for prop in vertex.properties:
        if prop.length_code is None or not wanted:
            parts.append((prop.name, prop.code))
            length = 1
        else:
            length = int(next(words))
            parts.append((f"{prop.name} length", prop.length_code))
            parts.append((prop.name, prop.code, (length,)))
        if wanted and length != len(list(itertools.islice(words, length))):
            raise malformed(path, "PLY", "the first vertex has too few values")
    dtype = np.dtype(parts)
    rows = np.loadtxt(wanted, dtype, comments=None, ndmin=1) if wanted else np.empty(0, dtype)
    return _to_columns(path, vertex, rows)


def _rows(before: tuple[_Element, ...], vertex: _Element) -> tuple[int, int]:
    start = sum(element.count for element in before)
    return start, start + vertex.count


def _to_columns(path: Path, vertex: _Element, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    table = {}
    for prop in vertex.properties:
        values = rows[prop.name]
        if prop.length_code is not None and len(rows):
            lengths = rows[f"{prop.name} length"]
            if bool((lengths != values.shape[1]).any()):
                raise malformed(path, "PLY", f"lists of unequal length in {prop.name!r}")
        table[prop.name] = values.astype(values.dtype.newbyteorder("="), order="C")
    return table


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
    table = _to_table(cloud)
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for name, values in table.items():
        code = values.dtype.str[1:]
        if values.ndim == 1:
            lines.append(f"property {_NAMES[code][0]} {name}")
            parts.append((name, f"<{code}"))
        else:
            lines.append(f"property list uint {_NAMES[code][0]} {name}")
            parts.append((f"{name} length", "<u4"))
            parts.append((name, f"<{code}", (values.shape[1],)))
    rows = np.empty(len(cloud), np.dtype(parts))
    for name, values in table.items():
        rows[name] = values
        if values.ndim > 1:
            rows[f"{name} length"] = values.shape[1]
    stream.write("\n".join([*lines, "end_header\n"]).encode("ascii"))
    stream.write(rows.tobytes())


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
