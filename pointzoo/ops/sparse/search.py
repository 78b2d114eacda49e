"""Sorting voxels and finding their neighbours in plain PyTorch, on any device.

Shapes: M voxels (sorted, all different), P pairs, K kernel offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 2**61
"""Largest absolute coordinate: sums and differences of two stay below 2**63."""

_FITS = 2**62


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of rows, all of one kernel offset together.

    Attributes:
        outputs: (P,) int64, ascending within an offset.
        inputs: (P,) int64.
        counts: K numbers of pairs.
    """

    outputs: Tensor
    inputs: Tensor
    counts: tuple[int, ...]

    def exchanged(self) -> PairList:
        """Return the list with inputs and outputs exchanged."""
        return PairList(self.inputs, self.outputs, self.counts)


def sorted_order(batch: Tensor, coords: Tensor) -> Tensor:
    """Return the (M,) stable order by (cloud, x, y, z)."""
    key, fits = _combined([batch, *coords.unbind(1)])
    if not fits:  # far-apart clusters: sort by ranks
        key = batch
        for column in coords.unbind(1):
            ranks, levels = _ranks(column)
            key = _ranks(key)[0] * levels + ranks
    return key.argsort(stable=True)


def ascending(rows: Tensor) -> bool:
    """Say whether rows (M,), each of them once, are in order already."""
    return bool((rows[1:] > rows[:-1]).all())


def starts_of_runs(rows: Tensor) -> Tensor:
    """Return (M,) whether each of the sorted ``rows (M, C)`` differs from the one before it."""
    first = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    torch.any(rows[1:] != rows[:-1], dim=1, out=first[1:])
    return first


def halve(batch: Tensor, coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cloud and coordinates of the coarse voxels, and the (M,) row of each parent."""
    halved = coords >> 1
    order = sorted_order(batch, halved)
    rows = torch.column_stack([batch, halved])[order]
    first = starts_of_runs(rows)
    parent = torch.empty_like(order)
    parent[order] = first.cumsum(0) - 1
    rows = rows[first]
    return rows[:, 0].contiguous(), rows[:, 1:].contiguous(), parent


def parents(parent: Tensor, coords: Tensor) -> PairList:
    """Return the pairs from coarse voxels to the fine ones, for the 8 corners (z fastest)."""
    corner = _corner(coords)
    fine = corner.argsort(stable=True)
    counts = torch.bincount(corner, minlength=8).tolist()
    return PairList(fine, parent[fine], tuple(counts))


def own_pairs(count: int, device: torch.device) -> PairList:
    """Return pairs of each row with itself."""
    rows = torch.arange(count, device=device)
    return PairList(rows, rows, (count,))


def neighbours(batch: Tensor, coords: Tensor, kernel_size: int) -> PairList:
    """Return the pairs of a submanifold convolution; offsets in the order x, y, z, z fastest.

    Rows are found through three tables: the x of each cloud, the y of each of those, and the z of
    each of those. Keys stay small wherever the voxels lie.
    """
    radius = kernel_size // 2
    lines, columns, voxels = _levels(batch, coords, radius)
    steps = range(-radius, radius + 1)
    tables = []
    for x in range(-radius, 1):  # opposite offsets mirror each other: half of them is enough
        line = lines.find(lines.group, [x])[0]
        for y in steps if x < 0 else range(-radius, 1):
            column = columns.find(line[columns.group], [y])[0]
            tables += voxels.find(column[voxels.group], list(steps))
    tables = tables[: kernel_size**3 // 2]
    outputs = [(table >= 0).nonzero()[:, 0] for table in tables]
    inputs = [table[rows] for table, rows in zip(tables, outputs, strict=True)]
    centre = [torch.arange(len(coords), device=coords.device)]
    counts = [len(rows) for rows in [*outputs, *centre, *inputs[::-1]]]
    return PairList(  # both sides ascend, so that they may change places
        torch.cat([*outputs, *centre, *inputs[::-1]]),
        torch.cat([*inputs, *centre, *outputs[::-1]]),
        tuple(counts),
    )


@dataclass(frozen=True, eq=False)
class _Level:
    """Entries sorted by (group, value): the x of a cloud, the y of an x, or the z of a y."""

    group: Tensor
    value: Tensor
    extent: int
    key: Tensor

    def find(self, group: Tensor, steps: list[int]) -> list[Tensor]:
        """Return, per step, the entries ``(group[i], value[i] + step)``, -1 where there is none.

        Args:
            group: The group in which to look for each entry, negative for none.
            steps: Consecutive integers: one search finds the first, the others lie behind it.
        """
        base = group * self.extent + self.value
        at = torch.searchsorted(self.key, base + steps[0])
        found = []
        for step in steps:
            hit = self.key[at.clamp(max=len(self.key) - 1)] == base + step
            hit &= group >= 0
            found.append(torch.where(hit, at, -1))
            at = at + hit
        return found


def _levels(batch: Tensor, coords: Tensor, radius: int) -> list[_Level]:
    """Return the tables of x, y and z of sorted voxels."""
    x, y, z = (_closed_gaps(column, radius) for column in coords.unbind(1))
    first = starts_of_runs(torch.column_stack([batch, x[0]]))
    line = first.cumsum(0) - 1
    lines = _level(batch[first], x[0][first], x[1])
    first = starts_of_runs(torch.column_stack([line, y[0]]))
    columns = _level(line[first], y[0][first], y[1])
    return [lines, columns, _level(first.cumsum(0) - 1, *z)]


def _level(group: Tensor, value: Tensor, extent: int) -> _Level:
    return _Level(group, value, extent, group * extent + value)


def _closed_gaps(values: Tensor, radius: int) -> tuple[Tensor, int]:
    """Move values together where nothing lies between, which keeps distances up to ``radius``.

    Returns:
        Values from ``radius`` upwards, and an extent that they stay below by ``radius``.
    """
    if len(values) == 0:
        return values, 1
    low, high = (int(v) for v in torch.aminmax(values))
    if high - low < 2**31:
        return values - (low - radius), high - low + 2 * radius + 1
    levels, where = torch.unique(values, return_inverse=True)
    gaps = torch.diff(levels, prepend=levels[:1] - radius).clamp(max=radius + 1)
    closed = gaps.cumsum(0)
    return closed[where], int(closed[-1]) + radius + 1


def _corner(coords: Tensor) -> Tensor:
    """Return (M,) which of the 8 children of its parent each voxel is, z fastest."""
    odd = coords & 1
    return odd[:, 0] * 4 + odd[:, 1] * 2 + odd[:, 2]


def _combined(columns: list[Tensor]) -> tuple[Tensor, bool]:
    """Return one key per row, and whether all ranges together fit in 62 bits (else no key)."""
    if len(columns[0]) == 0:
        return columns[0], True
    ranges = [tuple(int(v) for v in torch.aminmax(c)) for c in columns]
    fits = math.prod(high - low + 1 for low, high in ranges) < _FITS
    key = torch.zeros_like(columns[0])
    if fits:
        for column, (low, high) in zip(columns, ranges, strict=True):
            key = key * (high - low + 1) + (column - low)
    return key, fits


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    levels, where = torch.unique(values, return_inverse=True)
    return where, len(levels)
