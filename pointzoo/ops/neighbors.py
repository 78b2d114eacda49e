"""Nearest neighbours.

Shapes: B clouds, Q queries and N points in all, S queries and P points in the largest cloud of a
group, C coordinates, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import backends, ragged

_CHUNK = 1 << 22  # distances held at once: 16 MB in float32
_TREE, _TREE_CHANNELS = 1024, 8  # points from which, and dimensions up to which, a KD-tree wins


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
    suits = len(query) and (coords.shape[1] == 3 or _suits_core(coords, offsets))
    if suits and backends.takes(coords, largest, None):
        return _knn_compiled(query, query_offsets, coords, offsets, k)
    return _knn_torch(query, query_offsets, coords, offsets, k)


def _knn_compiled(
    query: Tensor, query_offsets: Tensor, coords: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    query, coords = query.contiguous(), coords.contiguous()
    query_offsets, offsets = ragged.plain(query_offsets), ragged.plain(offsets)
    indices = torch.empty(len(query), k, dtype=torch.int64)
    distances = query.new_empty(len(query), k)
    cut = (query, query_offsets, coords, offsets, len(offsets))
    if coords.shape[1] == 3:
        backends.call("knn", *cut, k, indices, distances)
    else:
        backends.call("knn_wide", *cut, coords.shape[1], k, indices, distances)
    return indices, distances


def _suits_core(coords: Tensor, offsets: Tensor) -> bool:
    """Say whether all distances, in the core, are as fast as a tree, which needs few channels."""
    return coords.shape[1] > _TREE_CHANNELS or int(ragged.sizes_of(offsets).max()) < 4 * _TREE


def _knn_torch(
    query: Tensor, query_offsets: Tensor, coords: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    indices = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    distances = query.new_empty(len(query), k)
    sizes, queries = ragged.sizes_of(offsets), ragged.sizes_of(query_offsets)
    starts, first = offsets - sizes, query_offsets - queries
    for clouds in _groups(sizes, queries, on_cpu=query.device.type == "cpu"):
        rows = ragged.rows_of(queries[clouds], first[clouds])
        asked, is_query = ragged.pad(query[rows], queries[clouds])  # (B, S, C)
        members = ragged.rows_of(sizes[clouds], starts[clouds])
        points, exists = ragged.pad(coords[members], sizes[clouds])  # (B, P, C)
        kept = min(k, points.shape[1])
        if len(clouds) == 1 and _suits_tree(points):
            found, near = (part[None] for part in _by_tree(asked[0], points[0], kept))
        else:
            found, near = _by_matrix(asked, points, exists, kept)
        wrap = torch.arange(k, device=rows.device) % sizes[clouds][:, None, None]
        wrap = wrap.expand(-1, asked.shape[1], -1)  # (B, 1, K) -> (B, S, K)
        found = found.gather(2, wrap) + starts[clouds][:, None, None]
        near = near.gather(2, wrap)
        indices[rows] = found.flatten(0, 1) if is_query is None else found[is_query]
        distances[rows] = near.flatten(0, 1) if is_query is None else near[is_query]
    return indices, distances


def _groups(sizes: Tensor, queries: Tensor, *, on_cpu: bool) -> Iterator[Tensor]:
    """Yield clouds that are padded together, or alone where that would waste much."""
    for group in ragged.groups_of(sizes):
        clouds = group[queries[group] > 0]
        if len(clouds) == 0:
            continue
        asked = queries[clouds]
        wasteful = len(clouds) * int(asked.max()) > 4 * int(asked.sum())
        if wasteful or (on_cpu and int(sizes[clouds].max()) >= _TREE):
            yield from clouds[:, None]
        else:
            yield clouds


def _by_matrix(
    query: Tensor, points: Tensor, exists: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Search (B, S, C) queries among (B, P, C) points through all distances, a part at a time."""
    clouds, asked, _ = query.shape
    found = torch.empty(clouds, asked, k, dtype=torch.int64, device=query.device)
    near = query.new_empty(clouds, asked, k)
    some = max(1, _CHUNK // points.shape[1])  # queries at once
    many = max(1, some // asked)  # clouds at once
    for b in range(0, clouds, many):
        for s in range(0, asked, some):
            part = (slice(b, b + many), slice(s, s + some))
            distance = ragged.squared_distance(query[part][:, :, None], points[part[0], None])
            if exists is not None:
                distance = distance.masked_fill(~exists[part[0], None], torch.inf)
            columns, values = smallest(distance.flatten(0, 1), k)  # (B, S, P) -> (B * S, P)
            found[part] = columns.reshape(found[part].shape)
            near[part] = values.reshape(found[part].shape)
    return found, near


def _suits_tree(points: Tensor) -> bool:
    _, size, channels = points.shape
    return points.device.type == "cpu" and size >= _TREE and channels <= _TREE_CHANNELS


def _by_tree(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search (S, C) queries among (P, C) points with scipy's KD-tree.

    The tree orders by its own float64 distances, and equal ones arbitrarily. It is therefore asked
    for a few more; their distances are taken anew as everywhere else. Where the farthest of them is
    not clearly beyond the K-th, the row is searched through all distances.
    """
    from scipy.spatial import cKDTree

    asked = min(k + 8, len(points))
    tree = cKDTree(points.double().numpy())
    reach, rows = tree.query(query.double().numpy(), asked, workers=torch.get_num_threads())
    columns = torch.from_numpy(rows).reshape(len(query), asked).sort(dim=1).values
    distance = query.new_empty(columns.shape)
    step = max(1, _CHUNK // asked)
    for s in range(0, len(query), step):
        part = slice(s, s + step)
        distance[part] = ragged.squared_distance(query[part, None], points[columns[part]])
    order = distance.argsort(dim=1, stable=True)[:, :k]
    found, near = columns.gather(1, order), distance.gather(1, order)
    if asked < len(points):
        limits = torch.finfo(query.dtype)
        beyond = torch.from_numpy(reach).reshape(len(query), asked)[:, -1].square()
        sure = near[:, -1].double() < beyond * (1 - 32 * limits.eps)
        unsure = ~(sure & (beyond > 1e8 * limits.tiny))
        if bool(unsure.any()):
            again = _by_matrix(query[None, unsure], points[None], None, k)
            found[unsure], near[unsure] = again[0][0], again[1][0]
    return found, near


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
