"""Voxels of a batch, and which voxel meets which in a convolution.

Everything works in sorted order, (cloud, x, y, z) with z fastest: voxels that touch then lie close
together in memory, and coarse voxels, kernel maps and tiles follow from sweeps over the rows.

A convolution is a list of pairs: row ``inputs[p]`` times the weights of a kernel offset is added to
row ``outputs[p]``. :class:`Pairs` holds such a list, in the order that the reference wants (all
pairs of an offset together) and in the order that the compiled core wants (by tile of output rows,
then offset); each is built when it is first asked for.

Voxels that occur more than once (:class:`Twins`) are summed into one row before a convolution and
copied from it afterwards, so that a list of pairs never names a voxel twice.

Shapes: B clouds, M voxels, U voxels without their twins, P pairs, K kernel offsets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import ragged
from pointzoo.ops.sparse import core, search

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Who meets whom: for each kernel offset, rows of the input and the rows they are added to.

    Attributes:
        num_outputs: Rows that the convolution returns.
        num_inputs: Rows that it takes.
        listed: Builds the list for the reference.
        tiled: Builds the list for the compiled core.
    """

    num_outputs: int
    num_inputs: int
    listed: Callable[[], search.PairList]
    tiled: Callable[[], core.Tiles]

    @functools.cached_property
    def list(self) -> search.PairList:
        """The pairs, offset by offset."""
        return self.listed()

    @functools.cached_property
    def tiles(self) -> core.Tiles:
        """The pairs, tile by tile of output rows."""
        return self.tiled()


@dataclass(frozen=True, eq=False)
class Twins:
    """Rows that share their voxel with others.

    Attributes:
        voxel: (M,) the row of each voxel among the U different ones.
        rows: (D,) the rows that are not alone in their voxel, ascending.
        num_voxels: U.
    """

    voxel: Tensor
    rows: Tensor
    num_voxels: int


@dataclass(frozen=True, eq=False)
class KernelMap:
    """A submanifold convolution on one level: output voxels are the input voxels.

    Attributes:
        kernel_size: Odd edge of the kernel, voxels.
        num_voxels: M.
        pairs: Over the U different voxels. Exchanging inputs and outputs gives the same list with
            its offsets in reverse order.
        twins: None where no voxel occurs twice.
    """

    kernel_size: int
    num_voxels: int
    pairs: Pairs
    twins: Twins | None


@dataclass(frozen=True, eq=False)
class StrideMap:
    """A 2 x 2 x 2 convolution of stride 2 from a level to the next coarser one, and its inverse.

    Attributes:
        num_voxels: M, at the fine level.
        num_coarse: Voxels at the coarse level.
        down: From the U different fine voxels to the coarse ones.
        up: The same pairs the other way.
        twins: Of the fine level; None where no voxel occurs twice.
    """

    num_voxels: int
    num_coarse: int
    down: Pairs
    up: Pairs
    twins: Twins | None


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """The voxels of a batch at one level, sorted by (cloud, x, y, z).

    Attributes:
        coords: (M, 3) int64.
        batch: (M,) int64, the cloud of each voxel.
        offsets: (B,) int64 cumulative row counts.
    """

    coords: Tensor
    batch: Tensor
    offsets: Tensor
    _cache: dict[object, object] = field(default_factory=dict, repr=False)

    @staticmethod
    def build(grid_coords: Tensor, offsets: Tensor) -> tuple[VoxelGrid, Tensor]:
        """Sort the voxels of a batch.

        Args:
            grid_coords: (M, 3) integers between -2**61 and 2**61, in any order, with or without
                repeats.
            offsets: (B,) cumulative row counts; a cloud may be empty.

        Returns:
            The grid and ``order (M,)``, the row of ``grid_coords`` that each sorted row came from
            (equal voxels keep their order).

        Raises:
            CloudError: Not integers of shape (M, 3) within bounds, or offsets that do not fit.
        """
        _check_coords(grid_coords)
        ragged.check_offsets("offsets", offsets, len(grid_coords), empty=True)
        coords, offsets = grid_coords.to(torch.int64), offsets.to(torch.int64)
        batch = ragged.cloud_index(ragged.sizes_of(offsets))
        order = core.sorted_order(batch, coords) if core.takes(coords) else None
        if order is None:
            order = search.sorted_order(batch, coords)
        coords = coords.clone() if search.ascending(order) else coords[order]
        return VoxelGrid(coords, batch, offsets), order

    @property
    def num_voxels(self) -> int:
        """M."""
        return len(self.coords)

    def submanifold(self, kernel_size: int) -> KernelMap:
        """Return the kernel map of an odd ``kernel_size``; built once.

        Raises:
            ConfigError: ``kernel_size`` is even, or not between 1 and 99.
        """
        if kernel_size % 2 == 0 or not 1 <= kernel_size < 100:
            raise ConfigError(
                expected="an odd kernel size below 100",
                got=str(kernel_size),
                fix="Use 1, 3 or 5; down() has the 2 x 2 x 2 convolution of stride 2.",
            )
        return self._once(("submanifold", kernel_size), lambda: self._submanifold(kernel_size))

    def down(self) -> tuple[VoxelGrid, StrideMap]:
        """Return the next coarser level, voxel ``floor(coords / 2)``, and the way; built once."""
        return self._once("down", self._down)

    def column_finder(self) -> Callable[[], core.Columns]:
        """Return a function that finds the columns of voxels for the compiled core, once."""
        batch, coords = self.batch, self.coords
        find = functools.cache(lambda: core.columns_of(batch, coords))
        return self._once("columns", lambda: find)

    def _once(self, key: object, build: Callable[[], T]) -> T:
        if key not in self._cache:
            self._cache[key] = build()
        return cast(T, self._cache[key])

    def _distinct(self) -> tuple[VoxelGrid, Twins | None]:
        """Return the grid of the U different voxels, and how its rows come from them."""
        kept = self._once("distinct", self._drop_twins)
        return kept or (self, None)

    def _drop_twins(self) -> tuple[VoxelGrid, Twins] | None:
        first = search.starts_of_runs(torch.column_stack([self.batch, self.coords]))
        if bool(first.all()):
            return None
        voxel = first.cumsum(0) - 1
        shared = torch.bincount(voxel)[voxel] > 1
        batch = self.batch[first]
        grid = VoxelGrid(self.coords[first], batch, self._ends(batch))
        return grid, Twins(voxel, shared.nonzero()[:, 0], grid.num_voxels)

    def _ends(self, batch: Tensor) -> Tensor:
        return torch.bincount(batch, minlength=len(self.offsets)).cumsum(0)

    # The lists are built by functions of tensors, not of the grid: no cycle keeps them in memory.

    def _submanifold(self, kernel_size: int) -> KernelMap:
        if kernel_size == 1:
            return self._pointwise()
        grid, twins = self._distinct()
        batch, coords, columns = grid.batch, grid.coords, grid.column_finder()
        wider = cast(KernelMap | None, self._cache.get(("submanifold", kernel_size + 2)))

        def tiled() -> core.Tiles:
            if wider is not None and "tiles" in vars(wider.pairs):  # they hold those of this kernel
                return core.narrower_tiles(wider.pairs.tiles)
            return core.neighbour_tiles(columns(), kernel_size)

        pairs = Pairs(
            len(coords),
            len(coords),
            listed=lambda: search.neighbours(batch, coords, kernel_size),
            tiled=tiled,
        )
        return KernelMap(kernel_size, self.num_voxels, pairs, twins)

    def _pointwise(self) -> KernelMap:
        """Return the map of a kernel of 1, where each row meets itself, twin or not."""
        count, device = self.num_voxels, self.coords.device
        pairs = Pairs(
            count,
            count,
            listed=lambda: search.own_pairs(count, device),
            tiled=lambda: core.own_tiles(count),
        )
        return KernelMap(1, count, pairs, None)

    def _down(self) -> tuple[VoxelGrid, StrideMap]:
        grid, twins = self._distinct()
        fine, count = grid.coords, grid.num_voxels
        if core.takes(fine):
            batch, coords, parent = core.halve(grid.column_finder()())
        else:
            batch, coords, parent = search.halve(grid.batch, fine)
        up = Pairs(
            count,
            len(coords),
            listed=lambda: search.parents(parent, fine),
            tiled=lambda: core.parent_tiles(parent, fine),
        )
        down = Pairs(
            len(coords),
            count,
            listed=lambda: up.list.exchanged(),  # noqa: PLW0108 - builds up.list when called
            tiled=lambda: core.child_tiles(parent, fine, len(coords)),
        )
        stride = StrideMap(self.num_voxels, len(coords), down, up, twins)
        return VoxelGrid(coords, batch, self._ends(batch)), stride


def _check_coords(grid_coords: Tensor) -> None:
    integral = not grid_coords.is_floating_point() and grid_coords.dtype != torch.bool
    if grid_coords.ndim != 2 or grid_coords.shape[1] != 3 or not integral:
        raise CloudError(
            expected="grid_coords (M, 3) of integers",
            got=f"{tuple(grid_coords.shape)} of {grid_coords.dtype}",
            fix="Divide coordinates by the grid size and take floor().long().",
        )
    low, high = (int(v) for v in torch.aminmax(grid_coords)) if len(grid_coords) else (0, 0)
    if max(-low, high) > search.LARGEST:
        raise CloudError(
            expected=f"voxels within {search.LARGEST} of the origin",
            got=str(low if -low > high else high),
            fix="Centre the cloud, drop far outliers or use a larger grid size.",
        )
