"""Operations on ragged batches of points: sampling, neighbours, voxels, segments, clusters.

Every function takes flat tensors of all clouds with ``offsets (B,)``, the cumulative row counts
without a leading zero, runs on any device in float32 or float64, and is deterministic: equal
distances are ordered by row, and randomness only enters through a generator argument.
Each has a PyTorch form; on the CPU a small compiled core (:func:`compiled`) or scipy takes over
where it is faster, with the same results bit for bit.
"""

from pointzoo.ops.backends import compiled
from pointzoo.ops.clustering import cluster, suppress
from pointzoo.ops.graph import neighbor_pool
from pointzoo.ops.interpolation import interpolate
from pointzoo.ops.neighbors import knn
from pointzoo.ops.sampling import ball_crop, farthest_point_sampling
from pointzoo.ops.segment import segment_reduce
from pointzoo.ops.voxel import GridSample, grid_sample

__all__ = [
    "GridSample",
    "ball_crop",
    "cluster",
    "compiled",
    "farthest_point_sampling",
    "grid_sample",
    "interpolate",
    "knn",
    "neighbor_pool",
    "segment_reduce",
    "suppress",
]
