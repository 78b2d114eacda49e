"""Neighbours in many dimensions and reductions over them, with and without the core."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointzoo import ops
from pointzoo.errors import CloudError


@pytest.fixture(params=["core", "torch"], autouse=True)
def path(request, monkeypatch):
    """Run every test with the compiled core (where it is built) and without."""
    monkeypatch.setenv("POINTZOO_COMPILED", "1" if request.param == "core" else "0")
    return request.param


@st.composite
def clouds_in_many_dimensions(draw) -> tuple[Tensor, list[int], torch.Generator]:
    """Clouds of unequal sizes; some on a coarse lattice, full of ties."""
    sizes = draw(st.lists(st.integers(1, 90), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    points = torch.randn(sum(sizes), draw(st.integers(1, 40)), generator=generator)
    if draw(st.booleans()):
        points = points.round()
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return (points * draw(st.sampled_from([1e-3, 1.0, 1e7]))).to(dtype), sizes, generator


def brute_knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distance = torch.zeros(len(query), len(points), dtype=points.dtype)
    for axis in range(points.shape[1]):  # one rounding after the other, as documented
        distance = distance + (query[:, None, axis] - points[:, axis]).square()
    distance, order = distance.sort(dim=1, stable=True)
    wrap = torch.arange(k) % len(points)
    return order[:, wrap], distance[:, wrap]


@given(data=clouds_in_many_dimensions(), k=st.integers(1, 100))
def test_neighbours_equal_brute_force_to_the_last_bit(data, k):
    points, sizes, _ = data
    cut = torch.tensor(sizes).cumsum(0)
    index, distance = ops.knn(points, cut, points, cut, k)
    want = [brute_knn(cloud, cloud, k) for cloud in points.split(sizes)]
    starts = (cut - torch.tensor(sizes)).tolist()
    rows = torch.cat([found + start for (found, _), start in zip(want, starts, strict=True)])
    assert torch.equal(index, rows)
    assert torch.equal(distance, torch.cat([near for _, near in want]))


def test_neighbours_of_large_clouds_and_few_queries():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(5000, 24, generator=generator)
    cut, asked = torch.tensor([3000, 5000]), torch.tensor([7, 7])
    index, _ = ops.knn(points[:7], asked, points, cut, 300)
    assert torch.equal(index, brute_knn(points[:7], points[:3000], 300)[0])


def test_results_do_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    points, cut = torch.randn(900, 12, generator=generator), torch.tensor([400, 900])
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        index, _ = ops.knn(points, cut, points, cut, 9)
        values = points.clone().requires_grad_()
        best, total = ops.neighbor_pool(values, index, cut, total=True)
        (best.sum() + total.square().sum()).backward()
        found.append([index, best.detach(), total.detach(), values.grad])
    torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


def graph(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return values of two clouds, neighbours of some targets, their offsets, and signs."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(30, 37, generator=generator, dtype=torch.float64).mul(4).round()
    first = torch.randint(0, 12, (9, 5), generator=generator)
    second = torch.randint(12, 30, (14, 5), generator=generator)
    sign = torch.randn(37, generator=generator, dtype=torch.float64).sign()
    cut = torch.tensor([9, 23])
    return values.to(dtype).requires_grad_(), torch.cat([first, second]), cut, sign.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_and_sums_equal_those_of_the_gathered_rows(dtype):
    values, index, cut, sign = graph(dtype)
    best, total = ops.neighbor_pool(values, index, cut, sign, total=True)
    gathered = values[index]  # (T, K, C)
    assert torch.equal(best, (gathered * sign).amax(dim=1) * sign)
    np.testing.assert_allclose(total.detach(), gathered.sum(dim=1).detach(), rtol=1e-6)
    plain, nothing = ops.neighbor_pool(values, index, cut)
    assert torch.equal(plain, gathered.amax(dim=1))
    assert nothing is None


@pytest.mark.parametrize("uses", [("best",), ("total",), ("best", "total")])
def test_gradients_are_those_of_the_gathered_rows(uses):
    values, index, cut, sign = graph()
    with torch.no_grad():
        values.add_(torch.linspace(0, 0.3, values.numel(), dtype=values.dtype).view_as(values))
    gathered = values[index]
    literal = {"best": (gathered * sign).amax(dim=1), "total": gathered.sum(dim=1)}
    best, total = ops.neighbor_pool(values, index, cut, sign, total=True)
    got = {"best": best * sign, "total": total}
    want = torch.autograd.grad(sum(literal[u].square().sum() for u in uses), values)[0]
    found = torch.autograd.grad(sum(got[u].square().sum() for u in uses), values)[0]
    np.testing.assert_allclose(found, want, atol=1e-12)


def test_a_tie_gives_its_gradient_to_the_first():
    values = torch.ones(3, 1, requires_grad=True)
    best, _ = ops.neighbor_pool(values, torch.tensor([[1, 0, 2]]), torch.tensor([1]))
    best.sum().backward()
    assert values.grad.flatten().tolist() == [0.0, 1.0, 0.0]


def test_core_and_torch_agree_to_the_last_bit(monkeypatch):
    found = []
    for compiled in ("0", "1"):
        monkeypatch.setenv("POINTZOO_COMPILED", compiled)
        values, index, cut, sign = graph(torch.float32)
        best, total = ops.neighbor_pool(values, index, cut, sign, total=True)
        (best.square().sum() + total.square().sum()).backward()
        found.append([best.detach(), total.detach(), values.grad])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_target_no_value():
    cut = torch.tensor([0])
    best, _ = ops.neighbor_pool(torch.ones(4, 2), torch.zeros(0, 3, dtype=torch.int64), cut)
    assert best.shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "index", "cut"),
    [
        (torch.ones(4), torch.zeros(2, 3).long(), [2]),
        (torch.ones(4, 2).long(), torch.zeros(2, 3).long(), [2]),
        (torch.ones(4, 2), torch.zeros(2, 3), [2]),
        (torch.ones(4, 2), torch.zeros(2, 0).long(), [2]),
        (torch.ones(4, 2), torch.full((2, 3), 4), [2]),
        (torch.ones(4, 2), torch.full((2, 3), -1), [2]),
        (torch.ones(4, 2), torch.zeros(2, 3).long(), [3]),
    ],
)
def test_unusable_input_raises(values, index, cut):
    with pytest.raises(CloudError, match="expected"):
        ops.neighbor_pool(values, index, torch.tensor(cut))
