"""Groups of points that lie together, and suppression of groups that overlap.

Shapes: B clouds, N points in all, K clusters, P points of all clusters together, M cells, Q pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import backends, ragged

_CHUNK = 1 << 21  # distances held at once
Rows = NDArray[np.int64]


def cluster(
    coords: Tensor, offsets: Tensor, labels: Tensor, radius: float, *, min_points: int = 1
) -> Tensor:
    """Find the groups of points of one label that steps of at most ``radius`` connect.

    The clustering of PointGroup (Jiang et al., CVPR 2020, algorithm 1), with all points of the
    ball: the authors' code follows at most 300 neighbours of each point, to bound its memory, which
    makes the result depend on the order of the points. Single-linkage clustering cut at ``radius``,
    and DBSCAN where every point is a core point, are the same.

    Args:
        coords: (N, 3) points, metres. Only float32 on the CPU uses the compiled core.
        offsets: (B,) cumulative row counts; clouds are never connected.
        labels: (N,) int64; points of a negative label belong to no cluster.
        radius: Largest step; distances are computed in the type of ``coords``.
        min_points: Smaller groups are dropped.

    Returns:
        (N,) int64 on the device of ``coords``: clusters 0 to K - 1, in order of their lowest row,
        and -1.

    Raises:
        CloudError: Shapes do not fit, or coordinates are not finite.
        ConfigError: ``radius`` is not a positive number or ``min_points`` is below 1.
    """
    largest = _check(coords, offsets, labels, radius, min_points)
    kept = (labels >= 0).nonzero()[:, 0]
    found = torch.full_like(labels, -1)
    if not len(kept):
        return found
    cloud = ragged.cloud_index(ragged.sizes_of(offsets)).to(labels.device)[kept]
    _, kind = torch.unique(labels[kept], return_inverse=True)
    group, order = (cloud * len(kept) + kind).sort(stable=True)
    rows = kept[order]  # rows of one group side by side, ascending in each
    ends = group.unique_consecutive(return_counts=True)[1].cumsum(0).cpu()
    points = coords.detach()[rows].cpu().contiguous()
    bound = torch.tensor(radius, dtype=coords.dtype).square()
    if backends.takes(points, largest):
        lowest = torch.empty(len(points), dtype=torch.int64)
        backends.call("components", points, ends, len(ends), bound, lowest)
    else:
        lowest = torch.from_numpy(_components(points, ends.tolist(), radius, bound))
    first = rows[lowest.to(rows.device)]  # the lowest row of each point's component
    size = torch.zeros_like(labels).index_add_(0, first, torch.ones_like(first))
    large = size >= min_points  # at the lowest row of each component
    found[rows] = torch.where(large, large.cumsum(0) - 1, -1)[first]
    return found


def suppress(rows: Tensor, offsets: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Keep the best of clusters that share points (non-maximum suppression).

    The cluster of the highest score is kept, those that overlap it by more are dropped, and so on.
    Of equal scores the earlier cluster counts as higher. Only pairs that share a point cost time.

    Args:
        rows: (P,) int64, the points of each cluster, each once, clusters one after the other.
        offsets: (K,) cumulative numbers of points.
        scores: (K,).
        overlap: Largest intersection over union that two kept clusters may have.

    Returns:
        (L,) int64, the kept clusters, the highest score first.
    """
    from scipy.sparse import csr_array

    if not len(offsets):
        return torch.empty(0, dtype=torch.int64)
    starts = np.concatenate([[0], offsets.cpu().numpy()])
    columns = rows.cpu().numpy()
    ones = np.ones(len(columns), np.int64)
    members = csr_array((ones, columns, starts), shape=(len(offsets), int(columns.max()) + 1))
    shared = (members @ members.T).tocsr()
    size = np.diff(starts)
    dropped, kept = np.zeros(len(offsets), bool), []
    for k in scores.cpu().argsort(descending=True, stable=True).tolist():
        if dropped[k]:
            continue
        kept.append(k)
        row = slice(shared.indptr[k], shared.indptr[k + 1])
        others, both = shared.indices[row], shared.data[row]
        dropped[others[both > overlap * (size[k] + size[others] - both)]] = True
    return torch.tensor(kept)


def _check(
    coords: Tensor, offsets: Tensor, labels: Tensor, radius: float, min_points: int
) -> float:
    largest = ragged.check_points("coords", coords)
    ragged.check_offsets("offsets", offsets, len(coords), empty=True)
    if labels.shape != coords.shape[:1] or labels.dtype != torch.int64:
        raise CloudError(
            expected=f"labels ({len(coords)},) int64",
            got=f"{tuple(labels.shape)} of {labels.dtype}",
            fix="Pass one label per point, -1 for points that belong to no cluster.",
        )
    if not (math.isfinite(radius) and radius > 0) or min_points < 1:
        raise ConfigError(
            expected="a positive radius in metres and min_points of at least 1",
            got=f"{radius} and {min_points}",
            fix="Pass e.g. 1.5 times the distance of neighbouring points.",
        )
    return largest


def _components(points: Tensor, ends: list[int], radius: float, bound: Tensor) -> Rows:
    """Return the lowest row of each point's component; the reference for the compiled core."""
    found = np.empty(len(points), np.int64)
    for first, end in zip([0, *ends], ends, strict=False):
        component = _group_components(points[first:end], radius, bound)
        _, lowest = np.unique(component, return_index=True)
        found[first:end] = lowest[component] + first
    return found


def _group_components(points: Tensor, radius: float, bound: Tensor) -> Rows:
    """Number the components of points (N, 3).

    Points of one cell, whose diagonal is a little below the radius, are connected. Pairs of cells
    are then looked at, the small ones first, as long as they are in different components.
    """
    from scipy.spatial import cKDTree

    edge = radius / math.sqrt(3.0) * (1 - 1e-5)  # less: rounding must not separate a cell's points
    cells = ((points - points[:1]).double() / edge).floor().numpy()
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    order, count = np.argsort(cell, kind="stable"), np.bincount(cell)
    start = np.cumsum(count) - count
    somewhere = points[order[start]].double().numpy()  # a point of each cell
    pairs: Rows = cKDTree(somewhere).query_pairs(3.001 * radius, output_type="ndarray")
    pairs = pairs[np.argsort(count[pairs[:, 0]] * count[pairs[:, 1]], kind="stable")]
    component: Rows = np.arange(len(count))
    while len(pairs):
        # at least one pair, and no more than fit into memory
        size = np.cumsum(count[pairs[:, 0]] * count[pairs[:, 1]])
        some = max(1, int(np.searchsorted(size, _CHUNK)))
        left, right = (order[places] for places in _expand(pairs[:some], start, count))
        close = (ragged.squared_distance(points[left], points[right]) <= bound).numpy()
        component = _merge(component, cell[left[close]], cell[right[close]])
        pairs = pairs[some:]
        pairs = pairs[component[pairs[:, 0]] != component[pairs[:, 1]]]
    found: Rows = component[cell]
    return found


def _expand(pairs: Rows, start: Rows, count: Rows) -> tuple[Rows, Rows]:
    """Return all pairs of places, one in the first cell of a pair and one in the second."""
    wide = count[pairs[:, 1]]
    total = count[pairs[:, 0]] * wide
    step = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
    row, column = np.divmod(step, np.repeat(wide, total))
    left, right = (np.repeat(start[pairs[:, side]], total) for side in (0, 1))
    return left + row, right + column


def _merge(component: Rows, left: Rows, right: Rows) -> Rows:
    """Renumber components after cells ``left`` and ``right`` (Q,) were linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = component[left], component[right]
    shape = (int(component.max()) + 1,) * 2
    links = coo_array((np.ones(len(left), bool), ends), shape=shape)
    found: Rows = connected_components(links, directed=False)[1].astype(np.int64)[component]
    return found
