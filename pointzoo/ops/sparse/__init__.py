"""Sparse convolution over voxels: kernel maps built once per level, convolutions with gradients.

::

    grid, order = VoxelGrid.build(grid_coords, offsets)      # (M, 3) integers of a batch
    x = submanifold_conv(features[order], weight, grid.submanifold(3))
    coarse, stride = grid.down()
    y = strided_conv(x, weight_down, stride)                 # rows of ``coarse``
    z = inverse_conv(y, weight_up, stride)                   # rows of ``grid`` again

Plain PyTorch on every device; a compiled core takes over on CPUs where it is built.
"""

from pointzoo.ops.sparse.conv import Epilogue, inverse_conv, strided_conv, submanifold_conv
from pointzoo.ops.sparse.grid import KernelMap, StrideMap, VoxelGrid
from pointzoo.ops.sparse.memory import recycled, room_for
from pointzoo.ops.sparse.norm import can_normalise, normalise
from pointzoo.ops.sparse.search import ascending

__all__ = [
    "Epilogue",
    "KernelMap",
    "StrideMap",
    "VoxelGrid",
    "ascending",
    "can_normalise",
    "inverse_conv",
    "normalise",
    "recycled",
    "room_for",
    "strided_conv",
    "submanifold_conv",
]
