"""XYZ, TXT, ASC, CSV and PTS: one point per line.

Columns are separated by white space, commas or semicolons. Their names come from the caller, else
from a first line of names (also behind ``#`` or ``//``), else the rule of :mod:`pointzoo.io.table`
decides. A line with a single whole number before the points is their number, as in PTS.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io import columns
from pointzoo.io.files import malformed, parsing
from pointzoo.io.raw import RawCloud
from pointzoo.io.table import from_table

_COMMENTS = ("#", "//", "%")
_CHUNK = 65_536  # rows that are text in memory at once


@dataclass(frozen=True)
class _Preamble:
    """What the lines before the first point say."""

    names: tuple[str, ...] = ()
    in_comment: bool = False  # whether the names stood in a comment, which may be mere prose
    count: int | None = None


def read_text(path: Path, names: Sequence[str] | None = None) -> RawCloud:
    """Read a text file with one point per line.

    Args:
        path: The file.
        names: Names of all columns, in order; x, y and z among them.

    Raises:
        FormatError: Lines have unequal numbers of columns, a value is no number, or there is none.
    """
    with parsing(path, "text"):
        text = path.read_bytes().decode("utf-8-sig")
        preamble, start = _read_preamble(path, text)
        table = _read_numbers(path, text[start:], preamble)
        if preamble.count not in (None, len(table)):
            promised = f"the first line promises {preamble.count} points, there are {len(table)}"
            raise malformed(path, "text", promised)
        found = tuple(names or preamble.names)
        if len(found) == table.shape[1]:
            return columns.from_columns(_by_name(path, found, table))
        if names or (found and not preamble.in_comment):
            raise malformed(path, "text", f"{len(found)} names for {table.shape[1]} columns")
        return from_table(table, intensity_first=path.suffix.lower() == ".pts")


def _read_preamble(path: Path, text: str) -> tuple[_Preamble, int]:
    """Read up to the first point; the number is where its line starts."""
    found = _Preamble()
    start = 0
    for line in io.StringIO(text):
        is_comment = line.lstrip().startswith(_COMMENTS)
        words, _ = _split(line.strip().lstrip("#/% ") if is_comment else line)
        if is_comment:
            if {"x", "y", "z"} <= {word.lower() for word in words}:
                found = replace(found, names=words, in_comment=True)
        elif len(words) == 1 and words[0].isdecimal() and found.count is None:
            found = replace(found, count=int(words[0]))
        elif words and all(map(_is_number, words)):
            break
        elif words and found.names and not found.in_comment:
            raise malformed(path, "text", f"no numbers in the line {line.strip()[:80]!r}")
        elif words:
            found = replace(found, names=words, in_comment=False)
        start += len(line)
    return found, start


def _split(line: str) -> tuple[tuple[str, ...], str | None]:
    """Return the words of a line and what separates them (None: white space)."""
    delimiter = next((mark for mark in ",;" if mark in line), None)
    return tuple(word.strip().strip('"') for word in line.split(delimiter)), delimiter


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_numbers(path: Path, body: str, preamble: _Preamble) -> NDArray[np.float64]:
    if not body:
        if not preamble.names and preamble.count != 0:
            raise malformed(path, "text", "there is no point in it")
        return np.empty((0, len(preamble.names) or 3))
    _, delimiter = _split(body[: body.find("\n")])
    comments = [mark for mark in _COMMENTS if mark in body]
    return np.loadtxt(io.StringIO(body), comments=comments or None, delimiter=delimiter, ndmin=2)


def _by_name(
    path: Path, names: tuple[str, ...], table: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    if len(set(names)) < len(names):
        raise malformed(path, "text", f"the names {', '.join(names)[:80]} repeat")
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}


def write_text(stream: BinaryIO, cloud: PointCloud, delimiter: str = " ") -> None:
    """Write one point per line, every number with as many digits as it needs.

    A cloud of coordinates alone is written without a header; any other starts with the names of the
    columns, behind ``#`` unless the delimiter is a comma. Colours are written in 0..1.

    Raises:
        FormatError: The name of a field does not fit, or a field is not one number per point.
    """
    table = _to_table(cloud)
    if delimiter == "," or len(table) > 3 or len(cloud) == 0:
        lead = "" if delimiter == "," else "# "
        stream.write(f"{lead}{delimiter.join(table)}\n".encode("ascii"))
    for start in range(0, len(cloud), _CHUNK):
        parts = [values[start : start + _CHUNK].astype(str) for values in table.values()]
        lines = map(delimiter.join, zip(*parts, strict=True))
        stream.write(("\n".join(lines) + "\n").encode("ascii"))


def _to_table(cloud: PointCloud) -> columns.Columns:
    table: dict[str, NDArray[Any]] = dict(zip("xyz", cloud.coords.T, strict=True))
    if cloud.colors is not None:
        table |= zip(("red", "green", "blue"), cloud.colors.T, strict=True)
    if cloud.normals is not None:
        table |= zip(("nx", "ny", "nz"), cloud.normals.T, strict=True)
    if cloud.labels is not None:
        name = columns.label_column(cloud.fields)
        table[name] = columns.fit_type("labels", cloud.labels, "i4 u4", "text")
    fields = columns.with_plain_names(cloud.fields, table, "text")
    for name, values in fields.items():
        if values.ndim != 1 or "," in name or ";" in name:
            raise FormatError(
                expected="fields of one number per point, without separators in the name",
                got=f"{name!r} of shape {values.shape}",
                fix="Drop the field, or write .ply or .npz, which hold it.",
            )
        table[name] = columns.fit_type(name, values, "f8 i4 u4 i1 u1 i2 u2", "text")
    return table
