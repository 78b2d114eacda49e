"""Memory that results share in inference: never that of a tensor that somebody still holds."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import pointzoo as pz
from pointzoo.ops.sparse import core, recycled, room_for

LARGE = 400_000
needs_core = pytest.mark.skipif(not core.compiled(), reason="memory is recycled for the core")


@pytest.fixture
def like():
    with torch.no_grad():
        yield torch.zeros(LARGE, 1)


@needs_core
def test_memory_returns_when_its_last_tensor_is_gone(like):
    with recycled():
        first = room_for(like, 2)
        place, view = first.data_ptr(), first[5:].detach()
        del first
        other = room_for(like, 2)
        assert other.data_ptr() != place
        del view
        assert room_for(like, 1).data_ptr() == place  # a smaller result fits as well


@needs_core
def test_the_tightest_memory_is_taken(like):
    with recycled():
        wide, narrow = room_for(like, 4), room_for(like, 2)
        places = wide.data_ptr(), narrow.data_ptr()
        del wide, narrow
        assert room_for(like, 1).data_ptr() == places[1]


@needs_core
def test_inside_another_memory_is_shared(like):
    with recycled():
        with recycled():
            place = room_for(like, 1).data_ptr()
        assert room_for(like, 1).data_ptr() == place


def test_torch_finds_memory_elsewhere(like):
    assert room_for(like, 1) is None
    with recycled():
        assert room_for(like[:10], 1) is None  # little
        assert room_for(like.to("meta"), 1) is None
        with torch.enable_grad():
            assert room_for(like, 1) is None
        thread = threading.Thread(target=lambda: seen.append(room_for(like, 1)))
        seen: list[object] = []
        thread.start()
        thread.join()
    assert seen == [None]
    assert room_for(like, 1) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rooms_have_the_type_of_their_input(like, dtype):
    with recycled():
        room = room_for(like.to(dtype), 3, rows=LARGE + 1)
    if core.compiled():
        assert room.shape == (LARGE + 1, 3)
        assert room.dtype == dtype


def test_nothing_that_is_held_changes_in_a_network(monkeypatch):
    """What hooks saw, and what earlier calls returned, stays as it was."""
    monkeypatch.setattr("pointzoo.ops.sparse.memory._SMALL", 0)
    coords = torch.unique(torch.randint(0, 30, (4000, 3)), dim=0)
    features, offsets = torch.rand(len(coords), 6), torch.tensor([len(coords)])
    encoder = pz.create_encoder("sparseunet14", in_channels=6).eval()
    seen: dict[str, tuple[torch.Tensor, np.ndarray]] = {}

    def keep(name: str) -> object:
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            seen[name] = output.detach(), output.numpy().copy()

        return hook

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in encoder.named_modules()
        if hasattr(module, "norm")
    ]
    with torch.no_grad():
        first = encoder.forward_voxels(coords, features, offsets)
        copy = first.clone()
        for hook in hooks:
            hook.remove()
        again = encoder.forward_voxels(coords, features, offsets)
    assert first.equal(copy)
    assert again.equal(copy)
    assert len(seen) > 20
    for held, was in seen.values():
        assert np.array_equal(held.numpy(), was)


def test_what_a_hook_returns_counts():
    """The way up is written in place, but not past a hook that changes it."""
    coords = torch.unique(torch.randint(0, 40, (60_000, 3)), dim=0)
    features, offsets = torch.rand(len(coords), 6), torch.tensor([len(coords)])
    encoder = pz.create_encoder("sparseunet14", in_channels=6).eval()

    def doubled(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * 2.0

    encoder.up[0].register_forward_hook(doubled)
    with torch.no_grad():
        found = encoder.forward_voxels(coords, features, offsets)
    wanted = encoder.forward_voxels(coords, features, offsets).detach()  # with gradients: joined
    assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))


def test_voxels_in_order_give_what_shuffled_ones_give():
    coords = torch.unique(torch.randint(0, 30, (9000, 3)), dim=0)
    features, offsets = torch.rand(len(coords), 6), torch.tensor([len(coords)])
    encoder = pz.create_encoder("sparseunet14", in_channels=6).eval()
    order = torch.randperm(len(coords))
    with torch.no_grad():
        sorted_rows = encoder.forward_voxels(coords, features, offsets)
        shuffled = encoder.forward_voxels(coords[order], features[order], offsets)
        levels, place = encoder.voxel_levels(coords, features, offsets)
    assert shuffled.equal(sorted_rows[order])
    assert place.equal(torch.arange(len(coords)))
    kept = levels[0][0].coords.clone()
    coords += 7  # the grid does not change with what its caller does
    assert levels[0][0].coords.equal(kept)
