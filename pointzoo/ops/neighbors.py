"""Nearest neighbours and interpolation between clouds.

Shapes: B clouds, Q queries and N points in all, P points in the largest cloud, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import backends, ragged

_CHUNK = 1 << 22  # distances held at once: 16 MB in float32


def knn(
    query: Tensor, query_offsets: Tensor, coords: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Find the K points of its own cloud that lie nearest to each query.

    Args:
        query: (Q, C) queries; a query that is one of the points finds itself first.
        query_offsets: (B,) cumulative numbers of queries; a cloud may have none.
        coords: (N, C) points.
        offsets: (B,) cumulative numbers of points.
        k: K, at least 1.

    Returns:
        (Q, K) flat rows of ``coords`` in order of distance, then row, and their (Q, K) squared
        distances (no gradient flows through them). A cloud with fewer than K points repeats its
        neighbours from the nearest on.

    Raises:
        CloudError: A cloud has no point, or coordinates are not finite floats of the same C.
        ConfigError: ``k`` is below 1.
    """
    query, coords = query.detach(), coords.detach()
    largest = ragged.check_points("coords", coords, None)
    largest = max(largest, ragged.check_points("query", query, coords.shape[1]))
    ragged.check_offsets("offsets", offsets, len(coords))
    ragged.check_offsets("query_offsets", query_offsets, len(query), empty=True)
    if k < 1:
        raise ConfigError(expected="k of at least 1", got=str(k), fix="Ask for one neighbour.")
    alike = query.dtype == coords.dtype and query.device == coords.device
    if not alike or len(query_offsets) != len(offsets):
        raise CloudError(
            expected="query and coords of one type, on one device, with as many clouds",
            got=f"{query.dtype} on {query.device} with {len(query_offsets)} clouds, "
            f"{coords.dtype} on {coords.device} with {len(offsets)}",
            fix="Convert one of them, and pass one offset per cloud for both.",
        )
    if backends.takes(coords, largest) and len(query):
        return _knn_compiled(query, query_offsets, coords, offsets, k)
    return _knn_torch(query, query_offsets, coords, offsets, k)


def _knn_compiled(
    query: Tensor, query_offsets: Tensor, coords: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    query, coords = query.contiguous(), coords.contiguous()
    query_offsets, offsets = ragged.plain(query_offsets), ragged.plain(offsets)
    indices = torch.empty(len(query), k, dtype=torch.int64)
    distances = query.new_empty(len(query), k)
    clouds = len(offsets)
    backends.call("knn", query, query_offsets, coords, offsets, clouds, k, indices, distances)
    return indices, distances


def _knn_torch(
    query: Tensor, query_offsets: Tensor, coords: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    indices = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    distances = query.new_empty(len(query), k)
    sizes, queries = ragged.sizes_of(offsets), ragged.sizes_of(query_offsets)
    starts, first = offsets - sizes, query_offsets - queries
    for clouds in ragged.groups_of(sizes):
        taken = ragged.take_clouds(coords, sizes, starts, clouds)
        points, exists = ragged.pad(taken, sizes[clouds])
        rows = ragged.rows_of(queries[clouds], first[clouds])
        local = ragged.cloud_index(queries[clouds])
        step = max(1, _CHUNK // points.shape[1])
        for row, own in zip(rows.split(step), local.split(step), strict=True):
            found, near = _nearest(query[row], points[own], exists, own, k)
            wrap = torch.arange(k, device=row.device) % sizes[clouds][own, None]
            indices[row] = found.gather(1, wrap) + starts[clouds][own, None]
            distances[row] = near.gather(1, wrap)
    return indices, distances


def _nearest(
    query: Tensor, points: Tensor, exists: Tensor | None, own: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    distance = ragged.squared_distance(query[:, None], points)  # (Q, P)
    if exists is not None:
        distance = distance.masked_fill(~exists[own], torch.inf)
    return smallest(distance, min(k, distance.shape[1]))


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the ``k`` smallest values of every row, equal ones in order of column.

    Args:
        values: (R, P) numbers without NaN.
        k: Between 1 and P.

    Returns:
        (R, k) columns and (R, k) values, ascending.
    """
    found, columns = values.topk(min(k + 1, values.shape[1]), dim=1, largest=False)
    if found.shape[1] > k:  # topk takes any of equal values: where they straddle the cut, sort
        tied = found[:, k - 1] == found[:, k]
        columns = columns[:, :k].contiguous()
        if bool(tied.any()):
            columns[tied] = values[tied].argsort(dim=1, stable=True)[:, :k]
    columns = columns.sort(dim=1).values
    order = values.gather(1, columns).argsort(dim=1, stable=True)
    columns = columns.gather(1, order)
    return columns, values.gather(1, columns)


def interpolate(
    values: Tensor,
    source_coords: Tensor,
    source_offsets: Tensor,
    target_coords: Tensor,
    target_offsets: Tensor,
    *,
    k: int = 3,
) -> Tensor:
    """Carry values from one set of points to another, weighted by inverse squared distance.

    A target that coincides with a source gets exactly its value (the mean of several that
    coincide). Gradients flow to ``values`` only.

    Args:
        values: (S, C) floating point.
        source_coords: (S, 3) where the values are known.
        source_offsets: (B,) cumulative numbers of sources.
        target_coords: (N, 3) where they are wanted.
        target_offsets: (B,) cumulative numbers of targets.
        k: Sources that each target looks at; fewer where a cloud has fewer.

    Returns:
        (N, C).

    Raises:
        CloudError: Shapes do not fit, or what :func:`knn` raises.
        ConfigError: ``k`` is below 1.
    """
    if values.ndim != 2 or len(values) != len(source_coords) or not values.is_floating_point():
        raise CloudError(
            expected=f"values (S, C) in floating point for {len(source_coords)} source points",
            got=f"shape {tuple(values.shape)} of {values.dtype}",
            fix="Pass one row of values per source point.",
        )
    index, distance = knn(target_coords, target_offsets, source_coords, source_offsets, k)
    repeated = (
        torch.arange(k, device=index.device)
        >= ragged.sizes_of(source_offsets)[ragged.cloud_index(ragged.sizes_of(target_offsets)), None]
    )
    nearest = distance[:, :1]
    coincide = (distance == 0).to(distance.dtype)
    # Relative to the nearest, so that nothing overflows and no epsilon sets a scale.
    weight = torch.where(nearest == 0, coincide, nearest / distance.clamp(min=torch.finfo(distance.dtype).tiny))
    weight = weight.masked_fill(repeated, 0.0)
    weight = (weight / weight.sum(1, keepdim=True)).to(values.dtype)
    return functional.embedding_bag(index, values, per_sample_weights=weight, mode="sum")
