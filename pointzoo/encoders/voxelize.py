"""From points to voxels and back, for encoders that work on voxels.

Shape legend: B clouds, N points, M voxels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from pointzoo import ops
from pointzoo.cloud import FloatArray
from pointzoo.ops import ragged
from pointzoo.ops.sparse import VoxelGrid

_LAST_BITS = 8  # of float32; moving a cloud and its lowest point rounds twice


@dataclass(frozen=True, eq=False)
class VoxelGeometry:
    """The occupied voxels of a batch, and which points they hold; depends on the points alone.

    Attributes:
        grid: The voxels; the smallest coordinate of each cloud and axis is 0.
        grid_size: Edge of a voxel, in the unit of the batch.
        low: (B, 3) float64, the centre of voxel 0 of each cloud, in the frame of the batch.
        voxel: (N,) the row of ``grid`` that each point is in.
        corners: (N, 8) rows whose centres surround each point, or None where not asked for.
        weights: (N, 8) float64, their share of the point; 0 where no voxel is occupied.
    """

    grid: VoxelGrid
    grid_size: float
    low: Tensor
    voxel: Tensor
    corners: Tensor | None
    weights: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """Return (M, C): the mean over the points of each voxel of ``values (N, C)``."""
        return ops.segment_reduce(values, self.voxel, self.grid.num_voxels, "mean")

    def at_points(self, rows: Tensor) -> Tensor:
        """Return (N, C): what the voxels ``rows (M, C)`` say about each point."""
        if self.corners is None or self.weights is None:
            return rows.index_select(0, self.voxel)
        weights = self.weights.to(rows.dtype)
        return functional.embedding_bag(self.corners, rows, per_sample_weights=weights, mode="sum")

    def centers(self, grid: VoxelGrid, stride: int) -> Tensor:
        """Return (M', 3) float64: the centres of the voxels of a coarser level."""
        middle = grid.coords.double() * stride + (stride - 1) / 2  # in finest voxels
        return self.low[grid.batch] + middle * self.grid_size


def voxelize(
    coords: Tensor, offsets: Tensor, grid_size: float, *, corners: bool = False
) -> VoxelGeometry:
    """Find the occupied voxels of a batch.

    The smallest coordinates of a cloud lie in the middle of voxel 0: neither a floor nor points
    that already lie on a grid of this size are at a boundary, where rounding would decide.

    Args:
        coords: (N, 3) points.
        offsets: (B,) cumulative row counts.
        grid_size: Edge of a voxel, in the unit of ``coords``.
        corners: Also find the voxels around each point, for a trilinear blend.

    Raises:
        CloudError: Coordinates are not finite, or too far apart for such voxels.
        ConfigError: ``grid_size`` is not a positive number.
    """
    coords = coords.detach().double()
    cloud = ragged.cloud_index(ragged.sizes_of(offsets))
    low = torch.stack(
        [rows.amin(dim=0) for rows in coords.split(ragged.sizes_of(offsets).tolist())]
    )
    relative = coords - low[cloud]
    sample = ops.grid_sample(relative + grid_size / 2, offsets, grid_size)
    grid, _ = VoxelGrid.build(sample.grid_coords, sample.offsets)  # already in its order
    around = weights = None
    if corners:
        offset = relative / grid_size - grid.coords[sample.inverse]  # -0.5..0.5 from the centre
        around, weights = _surrounding(grid, sample.inverse, offset)
    return VoxelGeometry(grid, grid_size, low, sample.inverse, around, weights)


def keep_voxels(seen: Tensor, coords: FloatArray, grid_size: float) -> Tensor:
    """Move float32 coordinates by their last bits where rounding put them into another voxel.

    Then :func:`voxelize` finds in float32 what it would find in float64, as far as float32 can tell
    the voxels apart.

    Args:
        seen: (N, 3) float32, ``coords`` moved.
        coords: (N, 3) float64.
        grid_size: Edge of a voxel.
    """
    relative = torch.from_numpy(coords - coords.min(axis=0))
    wanted = ((relative + grid_size / 2) / grid_size).floor()
    for _ in range(_LAST_BITS):
        exact = seen.double()
        found = ((exact - exact.amin(dim=0) + grid_size / 2) / grid_size).floor()
        wrong = found != wanted
        if not bool(wrong.any()):
            break
        aim = torch.where(found > wanted, -torch.inf, torch.inf).to(seen.dtype)
        seen = torch.where(wrong, torch.nextafter(seen, aim), seen)
    return seen


def _surrounding(grid: VoxelGrid, voxel: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (N, 8) and shares (N, 8) of the voxels around points at ``offset (N, 3)``.

    The share of a voxel that is not occupied goes to the others; a point's own voxel always is.
    """
    neighbours = _neighbours(grid)
    side = torch.where(offset < 0, -1, 1)  # (N, 3) towards which neighbour a point lies
    away = offset.abs().clamp(max=0.5)
    rows, shares = [], []
    for corner in product((0, 1), repeat=3):
        use = torch.tensor(corner, device=offset.device)
        step = side * use + 1  # 0..2 on each axis
        rows.append(neighbours[(step[:, 0] * 3 + step[:, 1]) * 3 + step[:, 2], voxel])
        shares.append(torch.where(use == 1, away, 1.0 - away).prod(dim=1))
    found, weights = torch.stack(rows, dim=1), torch.stack(shares, dim=1)
    weights = weights.masked_fill(found < 0, 0.0)
    return found.clamp(min=0), weights / weights.sum(dim=1, keepdim=True)


def _neighbours(grid: VoxelGrid) -> Tensor:
    """Return (27, M): the row of each neighbour of each voxel, -1 where there is none."""
    pairs = grid.submanifold(3).pairs.list
    offset = torch.repeat_interleave(
        torch.arange(27, device=pairs.outputs.device),
        torch.tensor(pairs.counts, device=pairs.outputs.device),
    )
    table = torch.full((27, grid.num_voxels), -1, device=offset.device)
    table[offset, pairs.outputs] = pairs.inputs
    return table
