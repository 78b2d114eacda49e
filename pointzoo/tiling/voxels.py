"""The occupied voxels of a scan, found in one or two passes over its points.

Shape legend: N points, n points of a chunk, M voxels, C channels.
"""

from __future__ import annotations

import hashlib
import itertools
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

    Found in float64, so that no precision is lost wherever the scan lies. The smallest coordinates
    lie in the middle of voxel 0 (as in :func:`pointzoo.encoders.voxelize.voxelize`): neither a
    floor nor points that lie on such a grid are at a boundary, where rounding would decide.

    Attributes:
        grid_size: Edge of a voxel, metres.
        low: (3,) float64, the smallest coordinates of the scan.
        extent: (3,) int64, how many voxels it spans on each axis.
        keys: (M,) int64, ``(x * extent_y + y) * extent_z + z``.
        features: (M, C) float32, mean over the points of each voxel.
        points: N, how many points the scan has.
    """

    grid_size: float
    low: FloatArray
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

    def around(self, coords: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the voxels whose centres surround points, and their trilinear shares.

        The share of a voxel that is not occupied goes to the others.

        Args:
            coords: (n, 3) points of the scan.

        Returns:
            (n, 8) rows and (n, 8) weights that sum to 1.
        """
        place = (coords - self.low) / self.grid_size  # the centre of voxel 0 is 0
        own = self._cells_of(coords)
        side = np.where(place < own, -1, 1)
        away = np.minimum(np.abs(place - own), 0.5)
        rows, shares = [], []
        for corner in itertools.product((0, 1), repeat=3):
            use = np.array(corner)
            found, there = self._find(own + side * use)
            rows.append(found)
            shares.append(np.where(use == 1, away, 1.0 - away).prod(axis=1) * there)
        weights = np.stack(shares, axis=1)
        return np.stack(rows, axis=1), weights / weights.sum(axis=1, keepdims=True)

    def _find(self, cells: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Return the row of each cell, and whether it is occupied (else the row means nothing)."""
        keys = self._pack(cells)
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        inside = ((cells >= 0) & (cells < self.extent)).all(axis=1)
        return rows, np.asarray(inside & (self.keys[rows] == keys))

    def _cells_of(self, coords: FloatArray) -> IntArray:
        half = self.grid_size / 2
        cells: IntArray = np.floor((coords - self.low + half) / self.grid_size).astype(np.int64)
        return cells

    def _keys_of(self, coords: FloatArray) -> IntArray:
        return self._pack(self._cells_of(coords))

    def _pack(self, cells: IntArray) -> IntArray:
        keys: IntArray = (cells[:, 0] * self.extent[1] + cells[:, 1]) * self.extent[2] + cells[:, 2]
        return keys

    def fingerprint(self) -> str:
        """Return a checksum of the voxels and of what the network reads in them."""
        digest = hashlib.sha256(repr(self.grid_size).encode())
        for array in (self.low, self.extent, self.keys, self.features):
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
        extent = _extent(points, low, high, grid_size)
        empty = np.empty(0, dtype=np.int64)
        table = cls(grid_size, low, extent, empty, np.empty((0, 0), np.float32), points)
        sums = _Sums()
        for chunk in chunks:
            sums.add(table._keys_of(chunk.coords), channels(chunk))
            after_chunk(len(chunk))
        keys, means = sums.means()
        return cls(grid_size, low, extent, keys, means, points)


def _extent(points: int, low: FloatArray, high: FloatArray, grid_size: float) -> IntArray:
    if not points:
        raise CloudError(
            expected="at least one point",
            got="an empty scan",
            fix="Check the file or the filter that produced it.",
        )
    with np.errstate(over="ignore"):
        spans = np.floor((high - low) / grid_size + 0.5) + 1.0
    if math.prod(spans.tolist()) >= 2.0**62:
        raise CloudError(
            expected="a scan that spans fewer than 2**62 voxels",
            got=f"{' x '.join(f'{span:.3g}' for span in spans)} of {grid_size:g} m",
            fix="Drop the far outliers.",
        )
    return spans.astype(np.int64)


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
