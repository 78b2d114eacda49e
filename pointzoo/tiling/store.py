"""Where the rows of finished tiles wait until all of them are there.

Shape legend: M voxels, D channels.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pointzoo.cloud import FloatArray, IntArray
from pointzoo.errors import FormatError
from pointzoo.intake import parse_json, require_own

_BLOCK = 16_384  # rows read from the file at a time


class Store(Protocol):
    """(M, D) rows that are written tile by tile and then read in any order."""

    def finished(self, tile: int) -> bool:
        """Say whether a tile is there already."""

    def write(self, tile: int, start: int, rows: FloatArray) -> None:
        """Keep the rows of a tile, which begin at position ``start``."""

    def read(self, positions: IntArray) -> FloatArray:
        """Return the rows at ``positions`` (n,), (n, D)."""


class MemoryStore:
    """Rows in memory."""

    def __init__(self, rows: int, channels: int, dtype: type[np.floating[Any]]) -> None:
        """Take the memory for (M, D) values."""
        self._rows = np.empty((rows, channels), dtype)

    def finished(self, tile: int) -> bool:  # noqa: ARG002  # nothing outlives the process
        """Say no."""
        return False

    def write(self, tile: int, start: int, rows: FloatArray) -> None:  # noqa: ARG002
        """Copy the rows."""
        self._rows[start : start + len(rows)] = rows

    def read(self, positions: IntArray) -> FloatArray:
        """Copy the rows out."""
        found: FloatArray = self._rows[positions]
        return found


class FolderStore:
    """Rows in a file that outlives a killed run.

    The folder holds ``rows.bin`` and ``done.jsonl``: first what the rows are of, then a line per
    tile, written after the rows of that tile have reached the disk. A folder that is of something
    else is started anew. Nothing is memory-mapped: pages that are mapped count as memory of the
    process.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        rows: int,
        channels: int,
        dtype: type[np.floating[Any]],
    ) -> None:
        """Open the folder, or begin it.

        Args:
            folder: Is made if missing.
            fingerprint: Says what is computed; rows of another one are dropped.
            rows: M.
            channels: D.
            dtype: Of the values on disk.
        """
        self._folder, self._shape, self._dtype = folder, (rows, channels), np.dtype(dtype)
        self._data, self._journal = folder / "rows.bin", folder / "done.jsonl"
        self._done = self._resume(fingerprint)
        if self._done is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._data.touch()
            self._journal.write_text(json.dumps({"of": fingerprint}) + "\n", encoding="utf-8")
            self._done = set()
        self.resumed = len(self._done)

    def finished(self, tile: int) -> bool:
        """Say whether the tile was written, by this run or one before it."""
        assert self._done is not None
        return tile in self._done

    def write(self, tile: int, start: int, rows: FloatArray) -> None:
        """Write the rows, then note that they are there."""
        assert self._done is not None
        with self._data.open("r+b") as stream:
            stream.seek(start * self._row_bytes)
            stream.write(np.ascontiguousarray(rows, self._dtype).data)
            stream.flush()
            os.fsync(stream.fileno())
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"tile": tile}) + "\n")
        self._done.add(tile)

    def read(self, positions: IntArray) -> FloatArray:
        """Read the blocks of the file that hold the rows."""
        found = np.empty((len(positions), self._shape[1]), self._dtype)
        block = positions // _BLOCK
        order = np.argsort(block, kind="stable")
        needed, first = np.unique(block[order], return_index=True)
        with self._data.open("rb") as stream:
            for number, mine in zip(needed, np.split(order, first[1:]), strict=True):
                begin = int(number) * _BLOCK
                count = min(_BLOCK, self._shape[0] - begin) * self._shape[1]
                stream.seek(begin * self._row_bytes)
                values = np.fromfile(stream, self._dtype, count)
                if len(values) != count:
                    raise FormatError(
                        expected=f"the rows of all finished tiles in {self._data}",
                        got="a file that was cut off",
                        fix=f"Remove {self._folder} and start again.",
                    )
                rows = values.reshape(-1, self._shape[1])  # (rows * D,) -> (rows, D)
                found[mine] = rows[positions[mine] - begin]
        return found

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder)

    @property
    def _row_bytes(self) -> int:
        return self._shape[1] * self._dtype.itemsize

    def _resume(self, fingerprint: str) -> set[int] | None:
        """Return the tiles that a run before this one finished, or None to begin anew."""
        try:
            lines = self._journal.read_text(encoding="utf-8").splitlines()
            head, *tiles = [parse_json(line) for line in lines if line.endswith("}")]
            if head != {"of": fingerprint} or not self._data.is_file():
                return None
            require_own(self._data)  # it is written to
            return {int(entry["tile"]) for entry in tiles}
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None  # not there, cut off, or of someone else
