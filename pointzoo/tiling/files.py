"""A tiled scan written to one file, a part at a time.

Shape legend: N points, n points of a part, D channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io.files import replacing
from pointzoo.tiling.run import TiledScan

STREAMED = (".npy", ".npz")
"""Endings of the formats that can be written a part at a time."""


def write_scan(
    path: Path,
    scan: TiledScan,
    chunks: Iterable[PointCloud],
    *,
    dtype: type[np.floating[Any]] = np.float32,
    after_points: Callable[[int], object] = lambda _: None,
) -> None:
    """Write one row per point, in the order of the scan.

    ``.npy`` holds the rows (N, D); ``.npz`` holds ``point`` (N, D), ``scene`` (D,) and ``coords``
    (N, 3) float64. The file appears under its name when it is complete.

    Args:
        path: The file.
        scan: What was computed.
        chunks: The same scan again; read once, for ``.npz`` twice.
        dtype: Of the features.
        after_points: Called with the number of points of each part that was written.

    Raises:
        FormatError: The ending is another one.
    """
    rows = _counted((scan.rows(chunk.coords).astype(dtype) for chunk in chunks), after_points)
    shape = (scan.table.points, scan.channels)
    ending = path.suffix.lower()
    if ending not in STREAMED:
        raise FormatError(
            expected=f"an output that ends in {' or '.join(STREAMED)}",
            got=path.name,
            fix="No other format can be written a part at a time.",
        )
    with replacing(path) as stream:
        if ending == ".npy":
            _write(stream, shape, np.dtype(dtype), rows)
            return
        with zipfile.ZipFile(stream, "w") as archive:
            coords = _counted((chunk.coords for chunk in chunks), after_points)
            _add(archive, "point", shape, np.dtype(dtype), rows)
            _add(archive, "scene", scan.scene.shape, scan.scene.dtype, [scan.scene])
            _add(archive, "coords", (shape[0], 3), np.dtype(np.float64), coords)


def _counted(
    parts: Iterable[NDArray[Any]], after_points: Callable[[int], object]
) -> Iterator[NDArray[Any]]:
    for part in parts:
        yield part
        after_points(len(part))


def _add(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    parts: Iterable[NDArray[Any]],
) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: no clock enters the bytes
    with archive.open(entry, "w", force_zip64=True) as stream:
        _write(cast(BinaryIO, stream), shape, dtype, parts)


def _write(
    stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]
) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    written = 0
    for part in parts:
        stream.write(np.ascontiguousarray(part, dtype).data)
        written += len(part) if part.shape[1:] == shape[1:] else 0
    assert written == shape[0], "the scan changed between two passes over it"
