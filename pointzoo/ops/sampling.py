"""Farthest point sampling and ball crops.

Shapes: B clouds, N points in all, P points in the largest cloud of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointzoo.ops import backends, ragged


def farthest_point_sampling(
    coords: Tensor, offsets: Tensor, counts: Tensor, *, start: Tensor | None = None
) -> Tensor:
    """Pick points of every cloud one by one, each the farthest from those picked before.

    Args:
        coords: (N, 3) points.
        offsets: (B,) cumulative row counts.
        counts: (B,) points to pick from each cloud, at most its size.
        start: (B,) first pick, as a row within its cloud. None takes the point farthest from the
            mean of the cloud, which does not depend on the order of the points.

    Returns:
        (sum of counts,) flat row indices in the order of picking. Among equally far points the one
        with the lowest row is picked; a cloud with duplicates still gives distinct rows.

    Raises:
        CloudError: A cloud is empty, or its coordinates are not finite (N, 3) floats.
        ConfigError: A count exceeds its cloud or a start lies outside it.
    """
    coords = coords.detach()
    largest = ragged.check_points("coords", coords)
    ragged.check_offsets("offsets", offsets, len(coords))
    sizes = ragged.sizes_of(offsets)
    ragged.check_counts(counts, sizes)
    if start is not None:
        ragged.check_rows("start", start, sizes)
    if backends.takes(coords, largest):
        return _fps_compiled(coords, offsets, counts, start)
    first = _central_start(coords, sizes) if start is None else start
    return _fps_torch(coords, sizes, counts, first)


def _fps_compiled(coords: Tensor, offsets: Tensor, counts: Tensor, start: Tensor | None) -> Tensor:
    coords, offsets, counts = coords.contiguous(), ragged.plain(offsets), ragged.plain(counts)
    start = None if start is None else ragged.plain(start)
    picks = torch.empty(int(counts.sum()), dtype=torch.int64)
    backends.call("fps", coords, offsets, counts, start, len(offsets), picks)
    return picks


def _central_start(coords: Tensor, sizes: Tensor) -> Tensor:
    """Return the (B,) row within each cloud that lies farthest from the cloud's mean."""
    cloud = ragged.cloud_index(sizes)
    total = coords.new_zeros(len(sizes), 3, dtype=torch.float64)
    total = total.index_add(0, cloud, coords.double())  # sums of float32 are exact, or nearly so
    mean = (total / sizes[:, None]).to(coords.dtype)
    distance = ragged.squared_distance(coords, mean[cloud])
    padded, exists = ragged.pad(distance[:, None], sizes)
    farthest = padded[..., 0] if exists is None else padded[..., 0].masked_fill(~exists, -1.0)
    return farthest.argmax(1)


def _fps_torch(coords: Tensor, sizes: Tensor, counts: Tensor, first: Tensor) -> Tensor:
    starts = sizes.cumsum(0) - sizes
    ends = counts.cumsum(0)
    result = torch.empty(int(ends[-1]), dtype=torch.int64, device=coords.device)
    for clouds in ragged.groups_of(sizes):
        points = coords[ragged.rows_of(sizes[clouds], starts[clouds])]
        picks = _fps_padded(points, sizes[clouds], counts[clouds], first[clouds])
        wanted = torch.arange(picks.shape[1], device=coords.device) < counts[clouds, None]
        target = ragged.rows_of(counts[clouds], ends[clouds] - counts[clouds])
        result[target] = (picks + starts[clouds, None])[wanted]
    return result


def _fps_padded(coords: Tensor, sizes: Tensor, counts: Tensor, first: Tensor) -> Tensor:
    """Return (B, largest count) rows within each cloud; those after the count have no meaning."""
    points, exists = ragged.pad(coords, sizes)  # (B, P, 3)
    axes = points.permute(2, 0, 1).contiguous()  # (B, P, 3) -> (3, B, P): each axis contiguous
    # A picked point gets -1, below every distance, so that duplicates are never picked twice.
    nearest = torch.full_like(axes[0], torch.inf)
    if exists is not None:
        nearest.masked_fill_(~exists, -1.0)
    picks = first.new_empty(len(sizes), int(counts.max()), dtype=torch.int64)
    pick = first.to(torch.int64)[:, None]
    for step in range(picks.shape[1]):
        picks[:, step] = pick[:, 0]
        x, y, z = (axis.gather(1, pick) for axis in axes)
        distance = (axes[0] - x).square() + (axes[1] - y).square() + (axes[2] - z).square()
        nearest = torch.minimum(nearest, distance).scatter(1, pick, -1.0)
        pick = nearest.argmax(1, keepdim=True)  # the first of several maxima
    return picks


def ball_crop(coords: Tensor, offsets: Tensor, centers: Tensor, counts: Tensor) -> Tensor:
    """Keep the points of every cloud that lie nearest to one of its points.

    Args:
        coords: (N, 3) points.
        offsets: (B,) cumulative row counts.
        centers: (B,) flat row of the centre of each cloud's ball.
        counts: (B,) points to keep, at most the size of the cloud.

    Returns:
        (sum of counts,) flat row indices, in the order of the input. Of equally far points those
        with the lowest rows are kept.

    Raises:
        CloudError: A cloud is empty, or its coordinates are not finite (N, 3) floats.
        ConfigError: A count exceeds its cloud or a centre lies outside it.
    """
    coords = coords.detach()
    largest = ragged.check_points("coords", coords)
    ragged.check_offsets("offsets", offsets, len(coords))
    sizes = ragged.sizes_of(offsets)
    starts = offsets - sizes
    ragged.check_counts(counts, sizes)
    ragged.check_rows("centers", centers - starts, sizes)
    if backends.takes(coords, largest):
        return _ball_crop_compiled(coords, offsets, centers, counts)
    return _ball_crop_torch(coords, sizes, starts, centers, counts)


def _ball_crop_compiled(coords: Tensor, offsets: Tensor, centers: Tensor, counts: Tensor) -> Tensor:
    coords, offsets, counts = coords.contiguous(), ragged.plain(offsets), ragged.plain(counts)
    kept = torch.empty(int(counts.sum()), dtype=torch.int64)
    centers = ragged.plain(centers)
    backends.call("ball_crop", coords, offsets, centers, counts, len(offsets), kept)
    return kept


def _ball_crop_torch(
    coords: Tensor, sizes: Tensor, starts: Tensor, centers: Tensor, counts: Tensor
) -> Tensor:
    cloud = ragged.cloud_index(sizes)
    distance = ragged.squared_distance(coords, coords[centers][cloud])
    order = distance.argsort(stable=True)
    order = order[cloud[order].argsort(stable=True)]  # by cloud, then distance, then row
    kept = order[ragged.rows_of(counts, starts)]
    return kept.sort().values
