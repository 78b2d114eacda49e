"""Grid sampling: one point per occupied voxel.

Shapes: B clouds, N points, M occupied voxels in all clouds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import ragged

_EXACT = 2.0**53  # integers up to here have a float64 of their own


@dataclass(frozen=True, eq=False)
class GridSample:
    """The occupied voxels of a batch, sorted by cloud, then x, y, z.

    Attributes:
        grid_coords: (M, 3) int64 voxel coordinates; the smallest of each cloud and axis is 0.
        index: (M,) the row that stands for each voxel.
        inverse: (N,) the voxel of each row.
        counts: (M,) rows in each voxel.
        offsets: (B,) cumulative numbers of voxels.
    """

    grid_coords: Tensor
    index: Tensor
    inverse: Tensor
    counts: Tensor
    offsets: Tensor


def grid_sample(
    coords: Tensor, offsets: Tensor, grid_size: float, *, generator: torch.Generator | None = None
) -> GridSample:
    """Group points by cubic voxel and choose one of each.

    A voxel is ``floor(coords / grid_size)``, taken in float64 and counted from the smallest voxel
    of the cloud, as in Pointcept's ``GridSample``.

    Args:
        coords: (N, 3) points, metres.
        offsets: (B,) cumulative row counts.
        grid_size: Edge of a voxel, metres.
        generator: Chooses a row of each voxel at random; None takes its lowest row.

    Raises:
        CloudError: A cloud is empty, not finite, or more than 2**53 voxels from the origin.
        ConfigError: ``grid_size`` is not a positive number.
    """
    coords = coords.detach()
    ragged.check_points("coords", coords)
    ragged.check_offsets("offsets", offsets, len(coords))
    if not (math.isfinite(grid_size) and grid_size > 0):
        raise ConfigError(
            expected="a positive grid size in metres", got=str(grid_size), fix="Pass e.g. 0.02."
        )
    sizes = ragged.sizes_of(offsets)
    cloud = ragged.cloud_index(sizes)
    grid = _voxels(coords, cloud, len(sizes), grid_size)
    key = _order_preserving_key(cloud, grid)
    _, inverse, counts = torch.unique(key, return_inverse=True, return_counts=True)
    by_voxel = inverse.argsort(stable=True)
    first = counts.cumsum(0) - counts
    index = by_voxel[first + _draw(counts, generator)]
    per_cloud = torch.bincount(cloud[index], minlength=len(sizes))
    return GridSample(grid[index], index, inverse, counts, per_cloud.cumsum(0))


def _voxels(coords: Tensor, cloud: Tensor, clouds: int, grid_size: float) -> Tensor:
    """Return (N, 3) int64 voxels counted from the smallest of each cloud."""
    cells = (coords.double() / grid_size).floor()
    largest = float(cells.abs().max())
    if largest >= _EXACT:
        raise CloudError(
            expected="coordinates within 2**53 voxels of the origin",
            got=f"{largest:.3g} voxels of {grid_size:g}",
            fix="Centre the cloud, drop far outliers or use a larger grid size.",
        )
    cells = cells.to(torch.int64)
    where = cloud[:, None].expand_as(cells)  # (N,) -> (N, 3)
    lowest = cells.new_zeros(clouds, 3)
    lowest = lowest.scatter_reduce(0, where, cells, "amin", include_self=False)
    return cells - lowest[cloud]


def _order_preserving_key(cloud: Tensor, grid: Tensor) -> Tensor:
    """Return (N,) int64 keys, equal for the same voxel and sorted as (cloud, x, y, z)."""
    extents = [int(cloud.max()) + 1, *(grid.amax(0) + 1).tolist()]
    key = cloud
    fits = math.prod(extents) < 2**63
    for axis in range(3):
        column, extent = grid[:, axis], extents[axis + 1]
        if not fits:  # far clusters on a fine grid: ranks instead of positions, at most N each
            key = torch.unique(key, return_inverse=True)[1]
            levels, column = torch.unique(column, return_inverse=True)
            extent = len(levels)
        key = key * extent + column
    return key


def _draw(counts: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return (M,) which of its rows each voxel takes."""
    if generator is None:
        return torch.zeros_like(counts)
    share = torch.rand(
        len(counts), generator=generator, device=generator.device, dtype=torch.float64
    )
    return (share.to(counts.device) * counts).long().clamp(max=counts - 1)
