"""Point clouds as a table whose columns have no names: what each one is, by place and value.

=======  ==========================================================================================
columns  meaning
=======  ==========================================================================================
3        x y z
4        x y z intensity
6        x y z and a triple
7        x y z, a triple, label; or x y z intensity red green blue
9        x y z and two triples
=======  ==========================================================================================

A triple is *normals* if all values lie in -1..1 and one is negative or every row has length 1, and
*colours* if all values lie in 0..1, or all are whole and lie in 0..255. With 7 columns it is the
first reading if columns 4 to 6 make a triple and column 7 holds whole numbers below 64 and -1 at
least; otherwise the second if columns 5 to 7 are colours (always the second in a PTS file). Columns
that fit no rule become fields ``column_3`` and so on, counted from zero, and a note says so.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointzoo.errors import FormatError
from pointzoo.io.columns import is_whole
from pointzoo.io.raw import RawCloud

_LABELS_BELOW = 64
_UNIT_TOLERANCE = 0.01

Kind = Literal["colors", "normals"]


def from_table(table: NDArray[Any], *, intensity_first: bool = False) -> RawCloud:
    """Build a cloud from an (N, C) table by the rule of this module.

    Args:
        table: (N, C) real numbers, C at least 3.
        intensity_first: Whether column 4 of 7 is known to be the intensity (PTS).

    Raises:
        FormatError: It is no table of numbers with three columns or more.
    """
    if table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "fiu":
        raise FormatError(
            expected="a table (N, C) of numbers with C of at least 3",
            got=f"shape {table.shape} of {table.dtype}",
            fix="One row per point: x, y, z and what else is known; one file per cloud.",
        )
    width = table.shape[1]
    fields: dict[str, NDArray[Any]] = {}
    labels = None
    place = 3
    if width == 4 or (width == 7 and _has_intensity(table, known=intensity_first)):
        fields["intensity"] = table[:, 3]
        place = 4
    triples: dict[Kind, NDArray[Any]] = {}
    while place + 3 <= width:
        kind = kind_of_triple(table[:, place : place + 3])
        if kind is None or kind in triples:
            break
        triples[kind] = table[:, place : place + 3]
        place += 3
    if width == 7 and place == 6 and is_whole(table[:, 6]):
        labels = table[:, 6]
        place = 7
    fields |= {f"column_{i}": table[:, i] for i in range(place, width)}
    return RawCloud(
        coords=table[:, :3],
        colors=triples.get("colors"),
        normals=triples.get("normals"),
        labels=labels,
        fields=fields,
        notes=_notes(place, width),
    )


def kind_of_triple(values: NDArray[Any]) -> Kind | None:
    """Tell whether three columns are colours, normals or neither.

    Args:
        values: (N, 3).
    """
    if len(values) == 0 or not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if low >= -1.0 - _UNIT_TOLERANCE and high <= 1.0 + _UNIT_TOLERANCE:
        lengths = np.linalg.norm(values.astype(np.float64), axis=1)
        if low < 0.0 or bool((np.abs(lengths - 1.0) <= _UNIT_TOLERANCE).all()):
            return "normals"
    if low >= 0.0 and (high <= 1.0 or (high <= 255.0 and bool((values == np.rint(values)).all()))):
        return "colors"
    return None


def _has_intensity(table: NDArray[Any], *, known: bool) -> bool:
    last = table[:, 6]
    labelled = is_whole(last) and bool(((last >= -1) & (last < _LABELS_BELOW)).all())
    if not known and labelled and kind_of_triple(table[:, 3:6]) is not None:
        return False
    return known or kind_of_triple(table[:, 4:7]) == "colors"


def _notes(place: int, width: int) -> tuple[str, ...]:
    if place == width:
        return ()
    return (
        f"Columns {place + 1} to {width} have no name and fit no rule; they are kept as the fields "
        f"column_{place} to column_{width - 1}.",
    )
