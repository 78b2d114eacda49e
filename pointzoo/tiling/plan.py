"""Which voxels go through the network together.

Shape legend: M voxels, K blocks (occupied cells of the network's coarsest level).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray
from pointzoo.errors import ConfigError

TILE_VOXELS = 500_000
"""Voxels of a tile with its halo."""

MAX_OVERHEAD = 6.0
"""How many times its voxels a scan may go through the network for the sake of halos."""


@dataclass(frozen=True, eq=False)
class Tile:
    """One pass of the network.

    Attributes:
        rows: (m,) voxels that the network sees, those of the tile first.
        core: How many belong to the tile; the others are its halo.
        start: Position of the first core voxel in the order of all tiles.
    """

    rows: IntArray
    core: int
    start: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Tiles that share out all voxels.

    Attributes:
        halo: Width of the halo in voxels; a multiple of the stride.
        exact: Whether the halo is as wide as the receptive field, so that tiles equal the whole.
        overhead: Voxels that go through the network, halos included, per voxel of the scan.
        order: (M,) all voxels, block after block.
        starts: (K + 1,) where each block begins in ``order``.
        tiles: For each tile its core blocks and its halo blocks.
    """

    halo: int
    exact: bool
    overhead: float
    order: IntArray
    starts: IntArray
    tiles: tuple[tuple[IntArray, IntArray], ...]

    def __len__(self) -> int:
        """Return how many tiles there are."""
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles; each gets its list of voxels when its turn comes."""
        start = 0
        for core, halo in self.tiles:
            own, around = self._rows(core), self._rows(halo)
            yield Tile(np.concatenate([own, around]), len(own), start)
            start += len(own)

    def positions(self) -> IntArray:
        """Return (M,) where the row of each voxel stands in the order of the tiles."""
        found = np.empty(len(self.order), dtype=np.int64)
        start = 0
        for core, _ in self.tiles:
            rows = self._rows(core)
            found[rows] = np.arange(start, start + len(rows))
            start += len(rows)
        return found

    def _rows(self, blocks: IntArray) -> IntArray:
        parts = [self.order[self.starts[b] : self.starts[b + 1]] for b in blocks]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def make_plan(
    coords: IntArray,
    *,
    stride: int,
    receptive_field: int,
    tile_voxels: int = TILE_VOXELS,
    halo: int | None = None,
) -> Plan:
    """Cut voxels into tiles of at most ``tile_voxels``, halo included.

    The space is halved along its longest side until a tile fits. Without a ``halo`` the widest of
    the receptive field, its half, its quarter ... is taken with which tiles fit and the scan goes
    through the network at most :data:`MAX_OVERHEAD` times; at least two cells of the coarsest level
    are left. A tile of a single cell is not cut further, however large it is.

    Args:
        coords: (M, 3) occupied voxels, from 0, each once.
        stride: Edge of a cell of the network's coarsest level, in voxels.
        receptive_field: How far an input voxel can be from an output voxel that it changes.
        tile_voxels: Voxels per pass.
        halo: Width of the halo in voxels; rounded up to a multiple of ``stride``.

    Raises:
        ConfigError: A number is out of range.
    """
    if tile_voxels < 1 or (halo is not None and halo < 0):
        raise ConfigError(
            expected="tiles of at least 1 voxel and a halo of at least 0",
            got=f"{tile_voxels} and {halo}",
            fix="Correct the argument.",
        )
    blocks, order, starts = _blocks(coords // stride)
    counts = np.diff(starts)
    full = -(-receptive_field // stride)
    widths = _halvings(full) if halo is None else [-(-halo // stride)]
    for width in widths:
        most = None if width == widths[-1] else int(MAX_OVERHEAD * len(coords))
        tiles = _tiles(blocks, counts, width, tile_voxels, most=most)
        if tiles is not None:
            break
    assert tiles is not None, "the narrowest halo has no bound"
    seen = sum(int(counts[core].sum() + counts[around].sum()) for core, around in tiles)
    exact = width >= full or len(tiles) == 1
    return Plan(width * stride, exact, seen / max(1, len(coords)), order, starts, tiles)


def _tiles(
    blocks: IntArray, counts: IntArray, halo: int, limit: int, *, most: int | None
) -> tuple[tuple[IntArray, IntArray], ...] | None:
    """Return the tiles; None as soon as one is over the limit or all together are over ``most``."""
    tiles, total = [], 0
    for core, around in _split(blocks, counts, halo, limit):
        size = int(counts[core].sum() + counts[around].sum())
        total += size
        if most is not None and (size > limit or total > most):
            return None
        tiles.append((core, around))
    return tuple(tiles)


def _blocks(places: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Group voxels by block: the blocks (K, 3), the voxels in order (M,), where each begins."""
    order = np.lexsort(places.T[::-1])
    places = places[order]
    starts = np.flatnonzero(np.concatenate([[True], (places[1:] != places[:-1]).any(axis=1)]))
    return places[starts], order, np.concatenate([starts, [len(places)]])


def _halvings(full: int) -> list[int]:
    widths = [full]
    while widths[-1] > 2:
        widths.append(max(2, widths[-1] // 2))
    return widths


def _split(
    blocks: IntArray, counts: IntArray, halo: int, limit: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield core blocks and halo blocks of every tile, the space halved until they fit."""
    everything = np.arange(len(blocks))
    pending: list[tuple[IntArray, IntArray]] = [(everything, everything)]
    while pending:
        core, seen = pending.pop()
        low, high = blocks[core].min(axis=0), blocks[core].max(axis=0)
        near = _within(blocks[seen], low - halo, high + halo)
        seen = seen[near]
        axis = int(np.argmax(high - low))
        if counts[seen].sum() <= limit or low[axis] == high[axis]:
            yield core, np.setdiff1d(seen, core, assume_unique=True)
            continue
        cut = _median(blocks[core, axis], counts[core])
        below = blocks[core, axis] <= cut
        pending += [(core[~below], seen), (core[below], seen)]


def _within(places: IntArray, low: IntArray, high: IntArray) -> NDArray[np.bool_]:
    return np.asarray(((places >= low) & (places <= high)).all(axis=1))


def _median(places: IntArray, counts: IntArray) -> int:
    """Return the place up to which half of the voxels lie, at least one place left above it."""
    levels, index = np.unique(places, return_inverse=True)
    share = np.cumsum(np.bincount(index, weights=counts))
    middle = int(np.searchsorted(share, share[-1] / 2))
    return int(levels[min(middle, len(levels) - 2)])
