"""Operations on ragged batches, against brute force and stored data, with and without the core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointzoo import ops
from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops import backends, neighbors

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=["core", "torch"], autouse=True)
def path(request, monkeypatch):
    """Run every test with the compiled core (where it is built) and without."""
    monkeypatch.setenv("POINTZOO_COMPILED", "1" if request.param == "core" else "0")
    return request.param


def offsets(*sizes: int) -> Tensor:
    return torch.tensor(sizes).cumsum(0)


def surface(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return points / points.norm(dim=1, keepdim=True)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / name) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def brute_distances(a: Tensor, b: Tensor) -> Tensor:
    d = a[:, None] - b[None]
    return d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1] + d[..., 2] * d[..., 2]


def brute_knn(query: Tensor, coords: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distance, order = brute_distances(query, coords).sort(dim=1, stable=True)
    wrap = torch.arange(k) % len(coords)
    return order[:, wrap], distance[:, wrap]


def brute_fps(coords: Tensor, count: int, start: int) -> list[int]:
    nearest, picks = np.full(len(coords), np.inf), [start]
    distance = brute_distances(coords, coords).numpy()
    for _ in range(count - 1):
        nearest = np.minimum(nearest, distance[picks[-1]])
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    return picks


@st.composite
def ragged_clouds(draw) -> tuple[Tensor, list[int], torch.Generator]:
    """Clouds of unequal sizes; half of them on a coarse lattice, full of ties."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    coords = torch.randn(sum(sizes), 3, generator=generator)
    if draw(st.booleans()):
        coords = coords.mul(1.5).round()
    scale = draw(st.sampled_from([1e-3, 1.0, 1e7]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return (coords * scale).to(dtype), sizes, generator


def test_the_core_is_used_where_it_was_built_and_can_be_turned_off(path):
    built = backends._library() is not None
    assert ops.compiled() is (built and path == "core")


@given(data=ragged_clouds(), share=st.floats(0.0, 1.0))
def test_farthest_points_equal_brute_force(data, share):
    coords, sizes, generator = data
    counts = [max(1, int(size * share)) for size in sizes]
    start = [int(torch.randint(size, (), generator=generator)) for size in sizes]
    found = ops.farthest_point_sampling(
        coords, offsets(*sizes), torch.tensor(counts), start=torch.tensor(start)
    )
    first = 0
    for cloud, picks, count, s in zip(
        coords.split(sizes), found.split(counts), counts, start, strict=True
    ):
        assert (picks - first).tolist() == brute_fps(cloud, count, s)
        first += len(cloud)


@given(data=ragged_clouds(), k=st.integers(1, 70))
def test_neighbours_equal_brute_force(data, k):
    coords, sizes, generator = data
    queries = torch.randint(0, 9, (len(sizes),), generator=generator).tolist()
    query = torch.randn(sum(queries), 3, generator=generator, dtype=coords.dtype)
    index, distance = ops.knn(query, offsets(*queries), coords, offsets(*sizes), k)
    assert index.shape == distance.shape == (len(query), k)
    parts = zip(coords.split(sizes), query.split(queries), offsets(*sizes), strict=True)
    want = [(brute_knn(q, c, k), int(end) - len(c)) for c, q, end in parts]
    assert torch.equal(index, torch.cat([found + first for (found, _), first in want]))
    assert torch.equal(distance, torch.cat([near for (_, near), _ in want]))


@given(data=ragged_clouds(), share=st.floats(0.0, 1.0))
def test_ball_crops_equal_brute_force(data, share):
    coords, sizes, generator = data
    counts = [max(1, int(size * share)) for size in sizes]
    ends = offsets(*sizes)
    local = [int(torch.randint(size, (), generator=generator)) for size in sizes]
    centers = ends - torch.tensor(sizes) + torch.tensor(local)
    found = ops.ball_crop(coords, ends, centers, torch.tensor(counts))
    first = 0
    for cloud, kept, count, s in zip(
        coords.split(sizes), found.split(counts), counts, local, strict=True
    ):
        want = brute_knn(cloud[s : s + 1], cloud, count)[0][0].sort().values
        assert torch.equal(kept - first, want)
        first += len(cloud)


@pytest.mark.parametrize("kind", ["surface", "lattice", "one place", "plane", "two far clusters"])
def test_large_clouds_are_exact_too(kind):
    """Boxes, the Morton order and the KD-tree only start at a few thousand points."""
    coords = {
        "surface": surface(6000, 0),
        "lattice": (surface(6000, 1) * 6).round(),
        "one place": torch.ones(5000, 3),
        "plane": surface(6000, 2) * torch.tensor([1.0, 1.0, 0.0]),
        "two far clusters": surface(6000, 3) * 1e-3 + (torch.arange(6000) % 2 * 1e6)[:, None],
    }[kind]
    many = len(coords)
    picks = ops.farthest_point_sampling(
        coords, offsets(many), torch.tensor([200]), start=torch.tensor([many - 1])
    )
    nearest = torch.full((many,), torch.inf)
    for step, pick in enumerate(picks.tolist()):
        assert step == 0 or pick == int(nearest.argmax())
        nearest = torch.minimum(nearest, brute_distances(coords, coords[pick][None])[:, 0])
        nearest[pick] = -1
    query = torch.cat([coords[::100], surface(40, 4) * 3])
    for k in (1, 16, 40):
        index, distance = ops.knn(query, offsets(len(query)), coords, offsets(many), k)
        want, near = brute_knn(query, coords, k)
        assert torch.equal(index, want)
        assert torch.equal(distance, near)


def test_both_ways_agree_to_the_last_bit(monkeypatch):
    sizes = [5000, 2048, 1, 300]
    coords = torch.cat([surface(size, seed) for seed, size in enumerate(sizes)])
    ends, counts = offsets(*sizes), torch.tensor([700, 64, 1, 300])

    def everything() -> list[Tensor]:
        picks = ops.farthest_point_sampling(coords, ends, counts)
        found = ops.knn(coords[picks], counts.cumsum(0), coords, ends, 32)
        return [picks, *found, ops.ball_crop(coords, ends, ends - 1, counts)]

    here = everything()
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    for one, other in zip(here, everything(), strict=True):
        assert torch.equal(one, other)


def test_the_number_of_threads_changes_nothing():
    sizes = [4500, 300, 400]
    coords = torch.cat([surface(size, seed) for seed, size in enumerate(sizes)])
    query, ends, before = coords[:600], offsets(*sizes), torch.get_num_threads()
    want = ops.knn(query, offsets(500, 60, 40), coords, ends, 4)
    try:
        torch.set_num_threads(3)
        found = ops.knn(query, offsets(500, 60, 40), coords, ends, 4)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], want[0])
    assert torch.equal(found[1], want[1])


def test_stored_groups():
    stored = golden("fps_knn.npz")
    clouds, size, _ = stored["points"].shape
    coords, ends = stored["points"].flatten(0, 1), offsets(*[size] * clouds)
    counts = torch.full((clouds,), int(stored["S"]))
    start = stored["fps_start"].expand(clouds)
    picks = ops.farthest_point_sampling(coords, ends, counts, start=start)
    first = (ends - size)[:, None]
    assert torch.equal(picks.view(clouds, -1) - first, stored["centroid_index"])
    index, _ = ops.knn(coords[picks], counts.cumsum(0), coords, ends, int(stored["k"]))
    local = index.view(clouds, int(stored["S"]), -1) - first[..., None]
    assert torch.equal(local.sort().values, stored["knn_index_sorted"])


def test_stored_half_resolution():
    stored = golden("fps_half_resolution.npz")
    picks = ops.farthest_point_sampling(
        stored["points"],
        offsets(len(stored["points"])),
        torch.tensor([len(stored["index"])]),
        start=stored["fps_start"][None],
    )
    assert torch.equal(picks, stored["index"])


def test_stored_ball_crop():
    stored = golden("ball_crop.npz")
    kept = ops.ball_crop(
        stored["points"],
        offsets(len(stored["points"])),
        stored["center_index"][None],
        stored["count_ceil"][None],
    )
    assert torch.equal(kept, stored["kept_sorted"])


def test_farthest_points_without_a_start_do_not_depend_on_order_or_batch():
    cloud, other = surface(500, 0), surface(90, 1)
    alone = ops.farthest_point_sampling(cloud, offsets(500), torch.tensor([40]))
    mean = cloud.double().mean(0).float()
    assert int(alone[0]) == int(brute_distances(cloud, mean[None])[:, 0].argmax())
    shuffle = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    both = torch.cat([other, cloud[shuffle]])
    picks = ops.farthest_point_sampling(both, offsets(90, 500), torch.tensor([3, 40]))
    assert torch.equal(both[picks[3:]], cloud[alone])


def test_a_point_finds_itself_first_and_duplicates_in_order_of_rows():
    coords = surface(50, 0).repeat(2, 1)
    index, distance = ops.knn(coords, offsets(100), coords, offsets(100), 3)
    rows = torch.arange(50)
    assert torch.equal(index[:50, :2], torch.stack([rows, rows + 50], 1))
    assert torch.equal(index[50:], index[:50])
    assert not distance[:, :2].any()


def test_neighbours_in_any_number_of_dimensions():
    generator = torch.Generator().manual_seed(0)
    coords = torch.randn(1500, 7, generator=generator, dtype=torch.float64)
    index, distance = ops.knn(coords[:40], offsets(40), coords, offsets(1500), 5)
    want = torch.cdist(coords[:40], coords).square().topk(5, largest=False)
    assert torch.equal(index, want.indices)
    assert torch.allclose(distance, want.values, atol=1e-9)  # cdist takes a square root between
    every, _ = ops.knn(coords[:2], offsets(2), coords, offsets(1500), 1500)
    assert torch.equal(every.sort().values, torch.arange(1500).expand(2, -1))
    wide = torch.randn(1100, 40, generator=generator)
    assert ops.knn(wide[5:6], offsets(1), wide, offsets(1100), 2)[0][0, 0] == 5


def test_no_query_no_neighbour():
    empty = torch.zeros(0, 3)
    index, distance = ops.knn(empty, offsets(0, 0), surface(9, 0), offsets(4, 5), 2)
    assert index.shape == distance.shape == (0, 2)


def test_uneven_queries():
    coords, sizes, queries = surface(64, 0), [16, 16, 16, 16], [1, 200, 0, 3]
    query = surface(sum(queries), 1)
    index, _ = ops.knn(query, offsets(*queries), coords, offsets(*sizes), 2)
    want = [
        brute_knn(q, c, 2)[0] for q, c in zip(query.split(queries), coords.split(16), strict=True)
    ]
    shift = torch.repeat_interleave(torch.arange(4) * 16, torch.tensor(queries))
    assert torch.equal(index, torch.cat(want) + shift[:, None])


def test_many_queries_are_searched_in_parts(monkeypatch):
    monkeypatch.setattr(neighbors, "_CHUNK", 64)
    coords, query = surface(60, 0), surface(30, 1)
    index, _ = ops.knn(query, offsets(10, 10, 10), coords, offsets(20, 20, 20), 4)
    want = [
        brute_knn(query[i : i + 10], coords[2 * i : 2 * i + 20], 4)[0] + 2 * i for i in (0, 10, 20)
    ]
    assert torch.equal(index, torch.cat(want))


def test_coordinates_beyond_the_core_are_still_right():
    coords = surface(30, 0).double().mul(1e16).float()
    index, _ = ops.knn(coords, offsets(30), coords, offsets(30), 3)
    assert torch.equal(index, brute_knn(coords, coords, 3)[0])
    assert len(ops.farthest_point_sampling(coords, offsets(30), torch.tensor([30])).unique()) == 30


def test_inputs_may_be_strided_and_of_other_integer_types():
    wide = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    coords, ends = wide[:, ::2], torch.tensor([40], dtype=torch.int32)
    plain = coords.contiguous()
    counts = torch.tensor([7], dtype=torch.int32)
    assert torch.equal(
        ops.farthest_point_sampling(coords, ends, counts),
        ops.farthest_point_sampling(plain, offsets(40), torch.tensor([7])),
    )
    assert torch.equal(
        ops.knn(coords, ends, coords, ends, 3)[0],
        ops.knn(plain, offsets(40), plain, offsets(40), 3)[0],
    )


GOOD = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda: ops.farthest_point_sampling(GOOD, offsets(4, 0), torch.tensor([1, 1])),
            CloudError,
        ),
        (lambda: ops.farthest_point_sampling(GOOD, offsets(3), torch.tensor([1])), CloudError),
        (
            lambda: ops.farthest_point_sampling(GOOD, torch.tensor([4.0]), torch.tensor([1])),
            CloudError,
        ),
        (lambda: ops.farthest_point_sampling(GOOD[:0], offsets(0), torch.tensor([1])), CloudError),
        (
            lambda: ops.farthest_point_sampling(GOOD[:, :2], offsets(4), torch.tensor([1])),
            CloudError,
        ),
        (
            lambda: ops.farthest_point_sampling(GOOD.half(), offsets(4), torch.tensor([1])),
            CloudError,
        ),
        (lambda: ops.farthest_point_sampling(GOOD / 0, offsets(4), torch.tensor([1])), CloudError),
        (lambda: ops.farthest_point_sampling(GOOD, offsets(4), torch.tensor([5])), ConfigError),
        (lambda: ops.farthest_point_sampling(GOOD, offsets(4), torch.tensor([0])), ConfigError),
        (lambda: ops.farthest_point_sampling(GOOD, offsets(4), torch.tensor([1, 1])), ConfigError),
        (
            lambda: ops.farthest_point_sampling(
                GOOD, offsets(4), torch.tensor([1]), start=torch.tensor([4])
            ),
            ConfigError,
        ),
        (
            lambda: ops.ball_crop(GOOD, offsets(4), torch.tensor([4]), torch.tensor([1])),
            ConfigError,
        ),
        (
            lambda: ops.ball_crop(GOOD, offsets(2, 2), torch.tensor([0, 1]), torch.tensor([1, 1])),
            ConfigError,
        ),
        (
            lambda: ops.ball_crop(GOOD, offsets(4), torch.tensor([0]), torch.tensor([5])),
            ConfigError,
        ),
        (
            lambda: ops.ball_crop(GOOD, offsets(4), torch.tensor([0, 1]), torch.tensor([1])),
            ConfigError,
        ),
        (lambda: ops.knn(GOOD, offsets(4), GOOD, offsets(4), 0), ConfigError),
        (lambda: ops.knn(GOOD, offsets(4), GOOD, offsets(4, 0), 1), CloudError),
        (lambda: ops.knn(GOOD, offsets(2, 2), GOOD, offsets(4), 1), CloudError),
        (lambda: ops.knn(GOOD.double(), offsets(4), GOOD, offsets(4), 1), CloudError),
        (lambda: ops.knn(GOOD[:, :2], offsets(4), GOOD, offsets(4), 1), CloudError),
        (lambda: ops.knn(GOOD.log(), offsets(4), GOOD, offsets(4), 1), CloudError),
        (lambda: ops.grid_sample(GOOD, offsets(4), 0.0), ConfigError),
        (lambda: ops.grid_sample(GOOD, offsets(4), float("nan")), ConfigError),
        (lambda: ops.grid_sample(GOOD + 1e20, offsets(4), 0.02), CloudError),
        (lambda: ops.segment_reduce(GOOD, torch.tensor([0, 1, 2, 3]), 3), CloudError),
        (lambda: ops.segment_reduce(GOOD, torch.tensor([0, -1, 2, 1]), 3), CloudError),
        (lambda: ops.segment_reduce(GOOD, torch.tensor([0, 1]), 3), CloudError),
        (lambda: ops.segment_reduce(GOOD, torch.arange(4), 4, "median"), ConfigError),
        (lambda: ops.interpolate(GOOD[:3], GOOD, offsets(4), GOOD, offsets(4)), CloudError),
        (lambda: ops.interpolate(GOOD.long(), GOOD, offsets(4), GOOD, offsets(4)), CloudError),
        (lambda: ops.interpolate(GOOD, GOOD, offsets(4), GOOD, offsets(4), k=0), ConfigError),
    ],
)
def test_unusable_input_raises(call, error):
    with pytest.raises(error, match="expected"):
        call()


def test_a_core_of_another_build_is_ignored(tmp_path):
    (tmp_path / "_core.so").write_bytes(b"not a library")
    assert backends._bind(tmp_path / "_core.so") is None


def test_without_a_core_torch_is_used(monkeypatch):
    monkeypatch.setattr(backends.importlib.machinery, "EXTENSION_SUFFIXES", [".none"])
    assert backends._library.__wrapped__() is None


def test_short_memory_is_said(monkeypatch, path):
    class Refusing:
        pointzoo_fps = staticmethod(lambda *arguments: 1)

    monkeypatch.setattr(backends, "_library", Refusing)
    with pytest.raises(MemoryError, match="fps"):
        backends.call("fps", None)
