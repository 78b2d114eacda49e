"""PointBatch: clouds of any sizes in flat tensors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointzoo.batch import PointBatch
from pointzoo.errors import CloudError


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2))
def test_collate_and_split_are_inverse(sizes, channels):
    coords = [torch.randn(n, 3) for n in sizes]
    features = [torch.randn(n, channels) for n in sizes]
    batch = PointBatch.collate(coords, features)
    assert batch.num_clouds == len(sizes)
    assert batch.counts.tolist() == sizes
    assert batch.offsets.dtype == torch.int64
    assert batch.batch_index.tolist() == [b for b, n in enumerate(sizes) for _ in range(n)]
    for flat, parts in ((batch.coords, coords), (batch.features, features)):
        for got, part in zip(batch.split(flat), parts, strict=True):
            assert torch.equal(got, part)


def test_no_features_means_no_channels():
    assert PointBatch.collate([torch.zeros(2, 3), torch.zeros(1, 3)]).features.shape == (3, 0)
    assert PointBatch.stack(torch.zeros(2, 4, 3)).features.shape == (8, 0)


def test_stack_equals_collate():
    coords, features = torch.randn(3, 5, 3), torch.randn(3, 5, 2)
    stacked = PointBatch.stack(coords, features)
    collated = PointBatch.collate(list(coords), list(features))
    for part in dataclasses.fields(PointBatch):
        assert torch.equal(getattr(stacked, part.name), getattr(collated, part.name))


def test_to_converts_floating_point_and_keeps_offsets():
    batch = PointBatch.stack(torch.randn(2, 4, 3), torch.randn(2, 4, 1)).to("cpu", torch.float64)
    assert batch.coords.dtype == batch.features.dtype == torch.float64
    assert batch.offsets.dtype == torch.int64
    assert batch.to(dtype=torch.float32).coords.dtype == torch.float32


def test_a_batch_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PointBatch.stack(torch.zeros(1, 2, 3)).coords = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "coords",
    [
        torch.zeros(()),
        torch.zeros(5),
        torch.zeros(5, 2),
        torch.zeros(1, 5, 3),
        torch.zeros(5, 3).int(),
    ],
)
def test_other_coords_are_refused(coords):
    with pytest.raises(CloudError, match="floating-point coords"):
        PointBatch(coords, torch.zeros(5, 0), torch.tensor([5]))
    with pytest.raises(CloudError, match="floating-point coords"):
        PointBatch.collate([torch.zeros(2, 3), coords])


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(()),
        torch.zeros(5),
        torch.zeros(4, 1),
        torch.zeros(5, 1, 1),
        torch.zeros(5, 1).int(),
    ],
)
def test_other_features_are_refused(features):
    with pytest.raises(CloudError, match=r"features \(N, C\)"):
        PointBatch(torch.zeros(5, 3), features, torch.tensor([5]))


@pytest.mark.parametrize(
    "offsets",
    [
        torch.tensor(5),
        torch.tensor([[5]]),
        torch.tensor([5.0]),
        torch.tensor([True]),
        torch.tensor([0, 5]),
        torch.tensor([5, 3]),
        torch.tensor([2, 2, 5]),
        torch.tensor([4]),
        torch.tensor([], dtype=torch.int64),
    ],
)
def test_offsets_that_do_not_cut_the_rows_are_refused(offsets):
    with pytest.raises(CloudError, match="offsets"):
        PointBatch(torch.zeros(5, 3), torch.zeros(5, 0), offsets)


@pytest.mark.parametrize(
    ("coords", "features"),
    [
        ([], None),
        ([torch.zeros(0, 3)], None),
        ([torch.zeros(2, 3), torch.zeros(0, 3)], None),
        ([torch.zeros(2, 3), torch.zeros(3, 3)], [torch.zeros(3, 1), torch.zeros(2, 1)]),
        ([torch.zeros(2, 3), torch.zeros(3, 3)], [torch.zeros(2, 1)]),
        ([torch.zeros(2, 3), torch.zeros(3, 3)], [torch.zeros(2, 1), torch.zeros(3, 2)]),
    ],
)
def test_clouds_that_do_not_fit_are_refused(coords, features):
    with pytest.raises(CloudError):
        PointBatch.collate(coords, features)


@pytest.mark.parametrize(
    ("coords", "features"),
    [
        (torch.zeros(4, 3), None),
        (torch.zeros(0, 4, 3), None),
        (torch.zeros(2, 0, 3), None),
        (torch.zeros(2, 4, 2), None),
        (torch.zeros(2, 4, 3), torch.zeros(4, 2, 1)),
        (torch.zeros(2, 4, 3), torch.zeros(8, 1)),
    ],
)
def test_stacks_that_do_not_fit_are_refused(coords, features):
    with pytest.raises(CloudError):
        PointBatch.stack(coords, features)


def test_tensors_on_several_devices_are_refused():
    here, there = torch.zeros(2, 3), torch.zeros(2, 3, device="meta")
    with pytest.raises(CloudError, match="one device, got cpu and meta"):
        PointBatch(here, there[:, :0], torch.tensor([2]))
    with pytest.raises(CloudError, match="one device, got cpu and meta"):
        PointBatch.collate([here, there])
