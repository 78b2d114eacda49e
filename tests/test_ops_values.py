"""Operations that carry values: segments, interpolation, grid sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointzoo import ops

GOLDEN = Path(__file__).parent / "golden"


def offsets(*sizes: int) -> Tensor:
    return torch.tensor(sizes).cumsum(0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(
    index=st.lists(st.integers(0, 6), max_size=30),
    reduce=st.sampled_from(["sum", "mean", "max", "min"]),
)
def test_segments_equal_a_loop(index, reduce):
    values, rows = normal(len(index), 2), torch.tensor(index, dtype=torch.int64)
    found = ops.segment_reduce(values, rows, 8, reduce)
    for segment in range(8):
        own = values[rows == segment]
        want = torch.zeros(2, dtype=values.dtype)
        if len(own):
            want = {"sum": own.sum(0), "mean": own.mean(0), "max": own.amax(0), "min": own.amin(0)}[
                reduce
            ]
        assert torch.allclose(found[segment], want, atol=1e-12)  # the order of a sum


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_segment_gradients(reduce):
    values, index = normal(9, 3).requires_grad_(), torch.tensor([0, 2, 2, 1, 0, 0, 4, 4, 1])
    assert torch.autograd.gradcheck(lambda v: ops.segment_reduce(v, index, 5, reduce), values)


def test_interpolation_gradients():
    source, target = normal(7, 3, seed=1), normal(11, 3, seed=2)
    target[3] = source[2]
    values = normal(7, 2).requires_grad_()

    def carried(v: Tensor) -> Tensor:
        return ops.interpolate(v, source, offsets(2, 5), target, offsets(4, 7))

    assert torch.autograd.gradcheck(carried, values)


def test_interpolation_equals_its_formula():
    source, target, values = normal(20, 3, seed=1), normal(30, 3, seed=2), normal(20, 4)
    found = ops.interpolate(values, source, offsets(20), target, offsets(30), k=4)
    distance, nearest = torch.cdist(target, source).square().topk(4, largest=False)
    weight = 1 / distance
    want = (values[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
    assert torch.allclose(found, want, atol=1e-9)  # cdist takes a square root between


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolation_is_exact_at_a_source(dtype):
    source, values = normal(50, 3).to(dtype), normal(50, 4, seed=3)
    assert torch.equal(
        ops.interpolate(values, source, offsets(20, 30), source, offsets(20, 30)), values
    )


def test_coinciding_sources_share_and_others_do_not_weigh():
    source = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    found = ops.interpolate(
        torch.tensor([[1.0], [3], [100]]), source, offsets(3), source[:1], offsets(1)
    )
    assert found.item() == 2.0


def test_fewer_sources_than_asked_for_count_once():
    source = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
    target = torch.tensor([[1.0, 0, 0]])
    found = ops.interpolate(
        torch.tensor([[0.0], [5.0]]), source, offsets(2), target, offsets(1), k=3
    )
    assert found.item() == pytest.approx(5 * (1 / 4) / (1 + 1 / 4))
    one = ops.interpolate(torch.tensor([[7.0]]), source[:1], offsets(1), target, offsets(1), k=3)
    assert one.item() == 7.0


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e7])
def test_interpolation_knows_no_scale(scale):
    source, target, values = normal(9, 3, seed=1), normal(5, 3, seed=2), normal(9, 2)
    small = ops.interpolate(values, source * scale, offsets(9), target * scale, offsets(5))
    assert torch.allclose(small, ops.interpolate(values, source, offsets(9), target, offsets(5)))


def test_stored_voxels():
    with np.load(GOLDEN / "gridsample.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    coords = stored["coord"]
    found = ops.grid_sample(coords, offsets(len(coords)), float(stored["grid_size"]))
    assert torch.equal(found.grid_coords, stored["unique_grid_coord"])
    assert torch.equal(found.inverse, stored["inverse"])
    assert torch.equal(found.counts, stored["count"])
    assert torch.equal(found.grid_coords[found.inverse], stored["grid_coord"])


@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    shift=st.sampled_from([0.0, -7.3, 1e6, -3e9]),
)
def test_voxels_equal_a_dictionary(seed, sizes, shift):
    coords = normal(sum(sizes), 3, seed=seed) + shift
    found = ops.grid_sample(coords, offsets(*sizes), 0.5)
    cells = (coords / 0.5).floor()
    want, first = [], 0
    for b, part in enumerate(cells.split(sizes)):
        local = (part - part.amin(0)).long().tolist()
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, cell in enumerate(local):
            groups.setdefault((b, *cell), []).append(first + row)
        want += sorted(groups.items())
        first += len(part)
    assert found.grid_coords.tolist() == [list(cell[1:]) for cell, _ in want]
    assert found.index.tolist() == [rows[0] for _, rows in want]
    assert found.counts.tolist() == [len(rows) for _, rows in want]
    for voxel, (_, rows) in enumerate(want):
        assert (found.inverse[rows] == voxel).all()
    per_cloud = torch.bincount(torch.tensor([cell[0] for cell, _ in want]))
    assert torch.equal(found.offsets, per_cloud.cumsum(0))


def test_far_clusters_on_a_fine_grid_do_not_collide():
    near = normal(200, 3)
    coords = torch.cat([near, near + 1e9, near - torch.tensor([1e9, 0.0, -1e9])])
    found = ops.grid_sample(coords, offsets(300, 300), 1e-3)
    extents = (found.grid_coords.amax(0) + 1).tolist()
    assert np.prod([float(e) for e in extents]) > 2.0**63
    assert len(found.index) == 600
    assert torch.equal(found.inverse[found.index], torch.arange(600))
    order = sorted(range(600), key=lambda v: (v >= 300, *found.grid_coords[v].tolist()))
    assert order == list(range(600))


def test_random_rows_come_from_the_generator_alone():
    coords, ends = normal(3000, 3), offsets(1000, 2000)
    torch.manual_seed(0)
    before = torch.get_rng_state()

    def draw(seed: int) -> Tensor:
        return ops.grid_sample(
            coords, ends, 1.0, generator=torch.Generator().manual_seed(seed)
        ).index

    lowest = ops.grid_sample(coords, ends, 1.0)
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(lowest.inverse[draw(1)], torch.arange(len(lowest.index)))
    assert torch.equal(torch.get_rng_state(), before)
    seen = torch.stack([draw(seed) for seed in range(60)])
    widest = int(lowest.counts.argmax())
    assert len(seen[:, widest].unique()) > 20  # of well over 100 rows, 60 draws
