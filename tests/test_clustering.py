"""Clusters against brute force, with and without the core, and suppression against sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pointzoo import ops
from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import clustering


@pytest.fixture(params=["core", "scipy"], autouse=True, scope="module")
def path(request):
    """Run every test with the compiled core (where it is built) and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POINTZOO_COMPILED", "1" if request.param == "core" else "0")
        yield request.param


def brute(coords: Tensor, cloud: Tensor, labels: Tensor, radius: float, least: int) -> list[int]:
    """Clusters through the matrix of all distances."""
    d = coords[:, None] - coords[None]
    near = (d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1]) + d[..., 2] * d[..., 2]
    linked = near <= torch.tensor(radius, dtype=coords.dtype).square()
    linked &= (labels[:, None] == labels) & (cloud[:, None] == cloud) & (labels >= 0)
    _, component = connected_components(linked.numpy(), directed=False)
    found, number = [-1] * len(coords), 0
    for i in range(len(coords)):
        members = np.flatnonzero(component == component[i])
        if i == members[0] and labels[i] >= 0 and len(members) >= least:
            for j in members:
                found[j] = number
            number += 1
    return found


@st.composite
def clouds(draw):
    """Random, gridded (distances equal to the radius) and heaped points of up to two clouds."""
    size, seed = draw(st.integers(1, 300)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    coords = 2 * torch.rand(size, 3, generator=generator, dtype=dtype)
    kind = draw(st.sampled_from(["random", "grid", "heap", "line"]))
    if kind == "grid":
        coords = (coords * 8).round() / 8
    if kind == "heap":
        coords[: size // 2] = coords[0] + 0.02 * coords[: size // 2]
    if kind == "line":
        coords[:, 1:] = 0.0
    cut = draw(st.integers(0, size))
    labels = torch.randint(-1, 3, (size,), generator=generator)
    return coords, torch.tensor([cut, size]), labels


@settings(deadline=None, max_examples=60)
@given(clouds(), st.sampled_from([0.125, 0.1, 0.3, 5.0]), st.integers(1, 4))
def test_equal_to_brute_force(cloud, radius, least):
    coords, offsets, labels = cloud
    number = torch.arange(2).repeat_interleave(torch.diff(offsets, prepend=torch.zeros(1).long()))
    found = ops.cluster(coords, offsets, labels, radius, min_points=least)
    assert found.tolist() == brute(coords, number, labels, radius, least)


def test_worked_example():
    coords = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [1.8, 0, 0], [5, 0, 0], [1.8, 0.9, 0]])
    labels, offsets = torch.tensor([4, 4, 4, 4, 2]), torch.tensor([5])
    assert ops.cluster(coords, offsets, labels, 1.0).tolist() == [0, 0, 0, 1, 2]
    assert ops.cluster(coords, offsets, labels, 1.0, min_points=2).tolist() == [0, 0, 0, -1, -1]
    assert ops.cluster(coords, offsets, torch.full((5,), -1), 1.0).tolist() == [-1] * 5
    apart = ops.cluster(coords, torch.tensor([1, 5]), labels, 1.0)
    assert apart.tolist() == [0, 1, 1, 2, 3]


def test_order_of_points_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    coords, offsets = torch.rand(4000, 3, generator=generator), torch.tensor([4000])
    labels = torch.randint(0, 2, (4000,), generator=generator)
    order = torch.randperm(4000, generator=generator)
    found = ops.cluster(coords, offsets, labels, 0.06)
    again = ops.cluster(coords[order], offsets, labels[order], 0.06)
    assert int(found.max()) > 3
    pairs = torch.stack([found[order], again], dim=1).unique(dim=0)
    assert len(pairs) == int(found.max()) + 1 == int(again.max()) + 1


def test_a_heap_is_not_quadratic(monkeypatch):
    """30,000 points within the radius, and 30,000 around: all pairs would be 900 million."""
    monkeypatch.setattr(clustering, "_CHUNK", 1 << 16)
    generator = torch.Generator().manual_seed(0)
    heap = torch.randn(30_000, 3, generator=generator) * 0.002
    around = torch.randn(30_000, 3, generator=generator) * 0.02
    coords = torch.cat([heap, around, around[:100] + 5.0])
    labels = torch.zeros(len(coords), dtype=torch.int64)
    found = ops.cluster(coords, torch.tensor([len(coords)]), labels, 0.1, min_points=100)
    assert int(found.max()) == 1
    assert int((found == 0).sum()) == 60_000


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"coords": torch.zeros(3, 2)}, CloudError),
        ({"coords": torch.full((3, 3), torch.nan)}, CloudError),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, CloudError),
        ({"labels": torch.zeros(3)}, CloudError),
        ({"offsets": torch.tensor([2])}, CloudError),
        ({"radius": 0.0}, ConfigError),
        ({"radius": float("nan")}, ConfigError),
        ({"min_points": 0}, ConfigError),
    ],
)
def test_wrong_input(change, error):
    usual = {
        "coords": torch.zeros(3, 3),
        "offsets": torch.tensor([3]),
        "labels": torch.zeros(3, dtype=torch.int64),
        "radius": 1.0,
    }
    with pytest.raises(error):
        ops.cluster(**{**usual, **change})


def brute_suppress(sets: list[set[int]], scores: list[float], overlap: float) -> list[int]:
    kept: list[int] = []
    for k in sorted(range(len(sets)), key=lambda k: -scores[k]):
        shares = (len(sets[k] & sets[j]) / len(sets[k] | sets[j]) for j in kept)
        if all(share <= overlap for share in shares):
            kept.append(k)
    return kept


@given(
    st.lists(st.sets(st.integers(0, 12), min_size=1), max_size=8),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.randoms(use_true_random=False),
)
def test_suppress_equals_sets(sets, overlap, random):
    scores = [random.choice([0.1, 0.5, 0.9]) for _ in sets]
    rows = torch.tensor([row for members in sets for row in sorted(members)], dtype=torch.int64)
    ends = torch.tensor([len(members) for members in sets], dtype=torch.int64).cumsum(0)
    kept = ops.suppress(rows, ends, torch.tensor(scores), overlap)
    assert kept.tolist() == brute_suppress(sets, scores, overlap)
