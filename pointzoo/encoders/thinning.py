"""Which points of a large cloud take part, and how values come back to all of them.

Shapes: B clouds, N points, N' points kept, C channels.
"""

from __future__ import annotations

from torch import Tensor

from pointzoo import ops
from pointzoo.batch import PointBatch


def kept_rows(batch: PointBatch, max_points: int) -> tuple[Tensor | None, Tensor]:
    """Choose the points that take part: all of a cloud, or ``max_points`` spread evenly over it.

    Args:
        batch: The clouds.
        max_points: The most that any of them keeps.

    Returns:
        (N',) rows of the batch in their order, None for all of them, and the (B,) cumulative
        numbers of points kept.
    """
    counts = batch.counts.clamp(max=max_points)
    if int(counts.sum()) == len(batch.coords):
        return None, batch.offsets
    rows = ops.farthest_point_sampling(batch.coords.detach(), batch.offsets, counts)
    # in the order of the input, so that results do not depend on the order of picking
    return rows.sort().values, counts.cumsum(0)


def take(values: Tensor, rows: Tensor | None) -> Tensor:
    """Return the rows of ``values (N, C)`` that :func:`kept_rows` chose."""
    return values if rows is None else values[rows]


def to_all_points(
    values: Tensor, rows: Tensor | None, offsets: Tensor, batch: PointBatch
) -> Tensor:
    """Return values (N', C) of the points kept for every point of the batch, (N, C)."""
    if rows is None:
        return values
    return ops.interpolate(values, batch.coords[rows], offsets, batch.coords, batch.offsets)
