"""Positive pairs: points of two views of a scene that lie at the same place.

Shape legend: B clouds, N points of all clouds of a view, K candidates of a point, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointzoo import ops
from pointzoo.errors import ConfigError


def match_points(
    query_coords: Tensor,
    query_offsets: Tensor,
    key_coords: Tensor,
    key_offsets: Tensor,
    *,
    radius: float,
    neighbours: int,
    max_pairs: int,
    generator: torch.Generator,
) -> Tensor:
    """Give query points a random partner among the key points nearby (MSC section 4.1).

    The candidates of a query point are the key points of its cloud that are nearer than ``radius``,
    the ``neighbours`` nearest of them. Every query point with a candidate gives one pair, uniformly
    drawn; of more than ``max_pairs`` a uniform choice is kept (Pointcept @ d74c646).

    Args:
        query_coords: (Nq, 3) coordinates of one view in the frame that both share, metres.
        query_offsets: (B,) cumulative row counts.
        key_coords: (Nk, 3) coordinates of the other view in the same frame.
        key_offsets: (B,) cumulative row counts.
        radius: Pairs are strictly nearer than this, metres.
        neighbours: K.
        max_pairs: Largest P.
        generator: Source of the choices.

    Returns:
        (P, 2) rows of the query view and of the key view, ascending by query row.

    Raises:
        ConfigError: A number is not positive.
        CloudError: Shapes do not fit, a cloud is empty or a coordinate not finite.
    """
    if not radius > 0.0 or min(neighbours, max_pairs) < 1:
        raise ConfigError(
            expected="a positive radius, at least 1 neighbour and at least 1 pair",
            got=f"{radius}, {neighbours}, {max_pairs}",
            fix="The paper uses 8192 pairs; Pointcept 8 neighbours within 0.03 m.",
        )
    device = query_coords.device
    query_offsets, key_offsets = query_offsets.to(torch.int64), key_offsets.to(torch.int64)
    order = torch.randperm(len(query_coords), generator=generator, device=generator.device)
    found: list[Tensor] = []
    missing = max_pairs
    # the first pairs of a random order are a uniform choice, so the search can stop with enough
    for part in order.to(device).split(2 * max_pairs):
        pairs = _pairs_of(
            part.sort().values, query_coords, query_offsets, key_coords, key_offsets,
            radius=radius, neighbours=neighbours, generator=generator,
        )  # fmt: skip
        if len(pairs) > missing:
            kept = torch.randperm(len(pairs), generator=generator, device=generator.device)
            pairs = pairs[kept[:missing].to(device)]
        found.append(pairs)
        missing -= len(pairs)
        if missing == 0:
            break
    joined = torch.cat(found)
    return joined[joined[:, 0].argsort()]


def _pairs_of(
    rows: Tensor,
    query_coords: Tensor,
    query_offsets: Tensor,
    key_coords: Tensor,
    key_offsets: Tensor,
    *,
    radius: float,
    neighbours: int,
    generator: torch.Generator,
) -> Tensor:
    """Return (P, 2) pairs of those of some query rows (ascending) that have a candidate."""
    offsets = torch.searchsorted(rows, query_offsets)  # how many of them lie before each cloud ends
    columns, squared = ops.knn(query_coords[rows], offsets, key_coords, key_offsets, neighbours)
    sizes = torch.diff(key_offsets, prepend=key_offsets.new_zeros(1))
    cloud = torch.searchsorted(query_offsets, rows, right=True)
    rank = torch.arange(neighbours, device=rows.device)
    # a cloud with fewer points than asked for repeats its neighbours
    near = (squared.sqrt() < radius) & (rank < sizes[cloud][:, None])
    count = near.sum(1)  # distances ascend, so the candidates come first
    draw = torch.rand(
        len(rows), generator=generator, device=generator.device, dtype=torch.float64
    ).to(rows.device)
    pick = (draw * count).long().clamp(max=neighbours - 1)
    partner = columns.gather(1, pick[:, None])[:, 0]
    has = count > 0
    return torch.stack([rows[has], partner[has]], dim=1)
