"""Features of scans that are too large for one pass: tile by tile, in bounded memory.

A scan becomes a table of occupied voxels (:mod:`~pointzoo.tiling.voxels`, read in chunks, so that
no array has a row per point), the table is cut into tiles (:mod:`~pointzoo.tiling.plan`), every
tile goes through the network with a halo around it, and its own rows go to a file
(:mod:`~pointzoo.tiling.store`). A last pass over the scan gives every point the row of its voxel.

Tiles are unions of cells of the network's coarsest level, counted from one origin for the whole
scan: a tile sees the same 2 x 2 x 2 cells as the whole does. With a halo as wide as the receptive
field a tile gives what the whole gives, up to the order of float32 sums. Where such a halo is too
expensive the plan takes a narrower one and says so (:attr:`~pointzoo.tiling.plan.Plan.exact`).

Shape legend: N points, M voxels, C channels into the network, D channels out of it.
"""

from pointzoo.tiling.plan import TILE_VOXELS, Plan, make_plan
from pointzoo.tiling.run import TiledScan, VoxelEncoder, compute_tiles, to_half, whole_points
from pointzoo.tiling.voxels import VoxelTable

__all__ = [
    "TILE_VOXELS",
    "Plan",
    "TiledScan",
    "VoxelEncoder",
    "VoxelTable",
    "compute_tiles",
    "make_plan",
    "to_half",
    "whole_points",
]
