"""The occupied voxels of a scan, found in one or two passes over its points.

Shape legend: N points, n points of a chunk, M voxels, C channels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.errors import CloudError

_MERGE_FROM = 500_000  # voxels of parts that wait to be merged

Channels = Callable[[PointCloud], FloatArray]
"""From a chunk of the scan to what the network reads of each point, (n, C)."""


@dataclass(frozen=True, eq=False)
class VoxelTable:
    """M occupied voxels, sorted by x, y, z.

    A voxel is ``floor(coords / grid_size)`` in float64, counted from ``origin``.

    Attributes:
        grid_size: Edge of a voxel, metres.
        origin: (3,) int64, the smallest voxel of the scan on each axis.
        extent: (3,) int64, how many voxels it spans on each axis.
        keys: (M,) int64, ``(x * extent_y + y) * extent_z + z``.
        features: (M, C) float32, mean over the points of each voxel.
        points: N, how many points the scan has.
    """

    grid_size: float
    origin: IntArray
    extent: IntArray
    keys: IntArray
    features: FloatArray
    points: int

    def __len__(self) -> int:
        """Return M."""
        return len(self.keys)

    @property
    def coords(self) -> IntArray:
        """(M, 3) int64 voxels, from 0."""
        return self.coords_of(slice(None))

    def coords_of(self, rows: IntArray | slice) -> IntArray:
        """Return (m, 3) int64 voxels of some rows, from 0."""
        rest, z = np.divmod(self.keys[rows], self.extent[2])
        x, y = np.divmod(rest, self.extent[1])
        return np.stack([x, y, z], axis=1)

    def rows_of(self, coords: FloatArray) -> IntArray:
        """Return (n,) the voxel of each of n points of the scan."""
        rows: IntArray = np.searchsorted(self.keys, self._keys_of(coords))
        return rows

    def _keys_of(self, coords: FloatArray) -> IntArray:
        cells = np.floor(coords / self.grid_size).astype(np.int64) - self.origin
        keys: IntArray = (cells[:, 0] * self.extent[1] + cells[:, 1]) * self.extent[2] + cells[:, 2]
        return keys

    def fingerprint(self) -> str:
        """Return a checksum of the voxels and of what the network reads in them."""
        digest = hashlib.sha256(repr(self.grid_size).encode())
        for array in (self.extent, self.keys, self.features):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def build(
        cls,
        chunks: Iterable[PointCloud],
        grid_size: float,
        channels: Channels,
        *,
        after_chunk: Callable[[int], object] = lambda _: None,
    ) -> VoxelTable:
        """Read a scan twice: for its bounds, then for its voxels.

        Args:
            chunks: The scan; iterating again starts anew.
            grid_size: Edge of a voxel, metres.
            channels: What the network reads of each point.
            after_chunk: Called with the number of points of each chunk, in both passes.

        Raises:
            CloudError: There is no point, a coordinate is NaN or infinite, or the scan spans more
                than 2**62 voxels.
        """
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        points = 0
        for chunk in chunks:
            coords = chunk.require_usable().coords
            low, high = np.minimum(low, coords.min(axis=0)), np.maximum(high, coords.max(axis=0))
            points += len(chunk)
            after_chunk(len(chunk))
        origin, extent = _bounds(points, low, high, grid_size)
        empty = np.empty(0, dtype=np.int64)
        table = cls(grid_size, origin, extent, empty, np.empty((0, 0), np.float32), points)
        sums = _Sums()
        for chunk in chunks:
            sums.add(table._keys_of(chunk.coords), channels(chunk))
            after_chunk(len(chunk))
        keys, means = sums.means()
        return cls(grid_size, origin, extent, keys, means, points)


def _bounds(
    points: int, low: FloatArray, high: FloatArray, grid_size: float
) -> tuple[IntArray, IntArray]:
    if not points:
        raise CloudError(
            expected="at least one point",
            got="an empty scan",
            fix="Check the file or the filter that produced it.",
        )
    first, last = np.floor(low / grid_size), np.floor(high / grid_size)
    spans = (last - first + 1.0).tolist()
    if math.prod(spans) >= 2.0**62 or max(np.abs(first).max(), np.abs(last).max()) >= 2.0**53:
        raise CloudError(
            expected="a scan of fewer than 2**62 voxels within 2**53 of the origin",
            got=f"{' x '.join(f'{span:.3g}' for span in spans)} of {grid_size:g} m",
            fix="Drop the far outliers, or centre the scan.",
        )
    return first.astype(np.int64), (last - first + 1.0).astype(np.int64)


class _Sums:
    """Sums per voxel over chunks; pending ones are merged when they outgrow the merged ones."""

    def __init__(self) -> None:
        self._parts: list[tuple[IntArray, FloatArray]] = []
        self._pending = 0

    def add(self, keys: IntArray, channels: FloatArray) -> None:
        ones = np.ones((len(keys), 1))
        part = _merge(keys, np.concatenate([ones, channels.astype(np.float64)], axis=1))
        self._parts.append(part)
        self._pending += len(part[0])
        if self._pending > max(_MERGE_FROM, len(self._parts[0][0])):
            self._compact()

    def means(self) -> tuple[IntArray, NDArray[np.float32]]:
        self._compact()
        ((keys, sums),) = self._parts
        return keys, (sums[:, 1:] / sums[:, :1]).astype(np.float32)

    def _compact(self) -> None:
        if len(self._parts) > 1:
            keys, sums = zip(*self._parts, strict=True)
            self._parts = []
            self._parts = [_merge(np.concatenate(keys), np.concatenate(sums))]
        self._pending = 0


def _merge(keys: IntArray, sums: FloatArray) -> tuple[IntArray, FloatArray]:
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    total: FloatArray = np.add.reduceat(sums[order], first, axis=0)
    return keys[first], total
