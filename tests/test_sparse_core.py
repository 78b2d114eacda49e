"""The compiled core of sparse convolution: equal to the reference, and to itself in every repeat.

Where it is not built, the same tests hold the reference to itself.
"""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch
from torch import Tensor

from pointzoo.ops.sparse import (
    Epilogue,
    VoxelGrid,
    core,
    inverse_conv,
    strided_conv,
    submanifold_conv,
)
from pointzoo.ops.sparse.grid import Pairs

BEST = core.instruction_set()
LEVELS = range(BEST + 1)
"""Every instruction set that this machine has; 3 differs from 2 in bfloat16 only."""


@pytest.fixture(params=LEVELS)
def level(request):
    """Compute with one instruction set."""
    assert core.instruction_set(request.param) == request.param
    yield request.param
    assert core.instruction_set(3) == BEST


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def grid_of(count: int = 900, edge: int = 14, seed: int = 0, repeats: int = 0) -> VoxelGrid:
    """Two clouds around the origin: more than one tile of rows, and a part of one."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(edge**3, generator=generator)[:count]
    cells = torch.cat([cells, cells[:repeats]])
    coords = torch.stack([cells // edge**2, cells // edge % edge, cells % edge], 1) - edge // 2
    return VoxelGrid.build(coords, torch.tensor([count // 3, len(coords)]))[0]


def run(kind: str, grid: VoxelGrid, x: Tensor, weight: Tensor, epilogue: Epilogue | None) -> Tensor:
    if kind == "down":
        return strided_conv(x, weight, grid.down()[1], epilogue=epilogue)
    if kind == "up":
        return inverse_conv(x, weight, grid.down()[1], epilogue=epilogue)
    return submanifold_conv(x, weight, grid.submanifold(int(kind)), epilogue=epilogue)


def offsets_of(kind: str) -> int:
    return 8 if kind in {"up", "down"} else int(kind) ** 3


def results(
    kind: str, grid: VoxelGrid, widths: tuple[int, int], dtype: torch.dtype, *, fold: bool = False
) -> list[Tensor]:
    """Output and gradients, or the output of an epilogue."""
    generator = torch.Generator().manual_seed(1)
    coarse = grid.down()[0].num_voxels
    rows_in = coarse if kind == "up" else grid.num_voxels
    rows_out = coarse if kind == "down" else grid.num_voxels

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = draw(rows_in, widths[0]).to(dtype).requires_grad_()
    weight = (draw(offsets_of(kind), *widths) / widths[0] ** 0.5).requires_grad_()
    if fold:
        epilogue = Epilogue(draw(widths[1]), draw(widths[1]), draw(rows_out, widths[1]).to(dtype))
        with torch.no_grad():
            return [run(kind, grid, x, weight, epilogue)]
    y = run(kind, grid, x, weight, None)
    grad = draw(rows_out, widths[1]).to(dtype)
    return [y, *torch.autograd.grad(y, (x, weight), grad)]


def close(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        scale = other.abs().max().item()
        assert (one - other).abs().max().item() <= tolerance * scale


KINDS = ("1", "3", "5", "down", "up")
WIDTHS = ((1, 1), (3, 5), (6, 32), (32, 64), (48, 80), (96, 96), (130, 70), (200, 260))


@pytest.mark.parametrize(("kind", "widths"), list(itertools.product(KINDS, WIDTHS[:4])))
def test_core_equals_reference(kind, widths, level, monkeypatch):
    """To float32 round-off, for all instruction sets, in values and gradients."""
    grid = grid_of()
    found = results(kind, grid, widths, torch.float32)
    folded = results(kind, grid, widths, torch.float32, fold=True)
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    close(found, results(kind, grid, widths, torch.float32), 2e-6)
    close(folded, results(kind, grid, widths, torch.float32, fold=True), 2e-6)


@pytest.mark.parametrize(("kind", "widths"), list(itertools.product(("3", "up"), WIDTHS[4:])))
def test_core_equals_reference_at_many_channels(kind, widths, level, monkeypatch):
    grid = grid_of(500)
    found = results(kind, grid, widths, torch.float32)
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    close(found, results(kind, grid, widths, torch.float32), 2e-6)


@pytest.mark.parametrize("widths", WIDTHS[1::2])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_equals_reference(kind, widths, monkeypatch):
    """The sums are float32: only what is written is rounded, to 8 bits."""
    grid = grid_of(500)
    found = results(kind, grid, widths, torch.bfloat16)
    folded = results(kind, grid, widths, torch.bfloat16, fold=True)
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    close(found, results(kind, grid, widths, torch.bfloat16), 2**-7)
    rounded_twice = results(kind, grid, widths, torch.bfloat16, fold=True)
    close(folded, rounded_twice, 2**-6)  # before the epilogue too, and scaled up


def test_twins_equal_reference(monkeypatch):
    grid = grid_of(600, repeats=90)
    kinds = ("3", "down", "up")
    found = [results(kind, grid, (16, 24), torch.float32) for kind in kinds]
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    for kind, result in zip(kinds, found, strict=True):
        close(result, results(kind, grid, (16, 24), torch.float32), 2e-6)


def tower(step: int) -> VoxelGrid:
    """Few columns of many voxels, which lie in several words of 64; gaps of ``step`` in places."""
    generator = torch.Generator().manual_seed(2)
    coords = torch.randint(-2, 2, (1500, 3), generator=generator)
    coords[:, 2] = torch.randint(-150, 150, (1500,), generator=generator)
    coords[:, 2] += step * torch.randint(-1, 2, (1500,), generator=generator)
    coords = torch.unique(coords, dim=0)
    return VoxelGrid.build(coords, torch.tensor([700, 700, len(coords)]))[0]


def assert_same_pairs(pairs: Pairs) -> None:
    tiles, listed = pairs.tiles, pairs.list
    found: set[tuple[int, int, int]] = set()
    starts = tiles.starts.tolist()
    for place, (start, end) in enumerate(itertools.pairwise(starts)):
        tile, offset = divmod(place, tiles.offsets)
        outputs = tiles.outputs[start:end] + tile * tiles.tile
        assert bool((outputs.diff() > 0).all())
        rows = zip(outputs.tolist(), tiles.inputs[start:end].tolist(), strict=True)
        found |= {(offset, o, i) for o, i in rows}
    offsets = torch.repeat_interleave(torch.tensor(listed.counts))
    wanted = zip(offsets.tolist(), listed.outputs.tolist(), listed.inputs.tolist(), strict=True)
    assert found == set(wanted)
    assert len(listed.outputs) == starts[-1]


@pytest.mark.skipif(not core.compiled(), reason="compares the lists of the core")
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 13])
@pytest.mark.parametrize("grid", [grid_of(), tower(0), tower(2**40)])
def test_maps_hold_the_same_pairs(grid, kernel_size):
    grid = VoxelGrid(grid.coords, grid.batch, grid.offsets)
    assert_same_pairs(grid.submanifold(kernel_size).pairs)
    assert_same_pairs(grid.down()[1].down)
    assert_same_pairs(grid.down()[1].up)


@pytest.mark.skipif(not core.compiled(), reason="compares the lists of the core")
@pytest.mark.parametrize("grid", [grid_of(), tower(0)])
def test_narrow_maps_come_out_of_wide_ones(grid, monkeypatch):
    alone = VoxelGrid(grid.coords, grid.batch, grid.offsets).submanifold(3).pairs.tiles
    grid = VoxelGrid(grid.coords, grid.batch, grid.offsets)
    assert grid.submanifold(5).pairs.tiles.offsets == 125
    monkeypatch.setattr(core, "neighbour_tiles", None)
    found = grid.submanifold(3).pairs.tiles
    assert found.starts.equal(alone.starts)
    assert found.inputs.equal(alone.inputs)
    assert found.outputs.equal(alone.outputs)


def test_order_and_pyramid_equal_the_reference(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for spread in (5, 1000, 2**19, 2**30, 2**60):
        coords = torch.randint(-spread, spread, (400, 3), generator=generator)
        coords[200:] = coords[:200] + torch.randint(-1, 2, (200, 3), generator=generator)
        ends = torch.tensor([100, 100, 400])
        monkeypatch.delenv("POINTZOO_COMPILED", raising=False)
        grid, order = VoxelGrid.build(coords, ends)
        coarse, stride = grid.down()
        pairs = stride.up.list
        monkeypatch.setenv("POINTZOO_COMPILED", "0")
        other, same_order = VoxelGrid.build(coords, ends)
        assert order.equal(same_order)
        assert other.down()[0].coords.equal(coarse.coords)
        assert other.down()[0].batch.equal(coarse.batch)
        assert other.down()[0].offsets.equal(coarse.offsets)
        assert other.down()[1].up.list.inputs.equal(pairs.inputs)


def digest(tensors: list[Tensor]) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.detach().float().numpy().tobytes())
    return state.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_the_number_of_threads(dtype, threads):
    grid = grid_of(2000, edge=18)
    seen = set()
    for count in (1, 2, 3, 5):
        threads(count)
        fresh = VoxelGrid(grid.coords, grid.batch, grid.offsets)
        seen.add(digest([t for k in ("3", "down") for t in results(k, fresh, (40, 48), dtype)]))
    assert len(seen) == 1


def test_repeats_are_equal_to_the_bit(threads):
    """200 times forward and backward through a small network on two threads."""
    threads(2)
    grid = grid_of(300, edge=8)
    coarse, stride = grid.down()
    generator = torch.Generator().manual_seed(3)
    shapes = ((27, 4, 16), (8, 16, 24), (27, 24, 24), (8, 24, 16))
    weights = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
    x = torch.randn(grid.num_voxels, 4, generator=generator).requires_grad_()
    seen = set()
    for _ in range(200):
        fine = submanifold_conv(x, weights[0], grid.submanifold(3)).relu()
        low = strided_conv(fine, weights[1], stride).relu()
        low = submanifold_conv(low, weights[2], coarse.submanifold(3)).relu()
        y = inverse_conv(low, weights[3], stride) + fine
        seen.add(digest([y, *torch.autograd.grad(y.square().mean(), (x, *weights))]))
    assert len(seen) == 1


def test_autocast_rounds_only_where_that_is_fast(monkeypatch):
    grid = grid_of(100, edge=6)
    x, weight = torch.randn(100, 8), torch.randn(27, 8, 8).requires_grad_()
    one = torch.randn(1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = submanifold_conv(x, weight, grid.submanifold(3))
        assert found.dtype == (torch.bfloat16 if core.fast(torch.bfloat16) else torch.float32)
        (grad,) = torch.autograd.grad(found.float().sum(), weight)
        assert grad.dtype == torch.float32
        monkeypatch.setenv("POINTZOO_COMPILED", "0")
        assert not core.fast(torch.bfloat16)
        assert submanifold_conv(x, weight, grid.submanifold(3)).dtype == torch.float32
        assert submanifold_conv(x, one, grid.submanifold(1)).dtype == torch.float32


def test_a_core_of_another_build_is_ignored(tmp_path, monkeypatch):
    (tmp_path / "_sparse.so").write_bytes(b"not a library")
    assert core._bind(tmp_path / "_sparse.so") is None
    monkeypatch.setattr(core, "_library", lambda: None)
    assert not core.compiled()
    assert core.instruction_set() == 0
    grid = grid_of(100, edge=6)
    assert len(submanifold_conv(torch.ones(100, 1), torch.ones(27, 1, 1), grid.submanifold(3)))


def test_no_core_where_no_file_is(monkeypatch):
    core._library.cache_clear()
    monkeypatch.setattr(core.importlib.machinery, "EXTENSION_SUFFIXES", [".nothing"])
    try:
        assert core._library() is None
    finally:
        core._library.cache_clear()


def test_lack_of_memory_is_said(monkeypatch):
    if not core.compiled():
        return
    monkeypatch.setattr(core, "_run", lambda *_: 1)
    grid = grid_of(100, edge=6)
    with pytest.raises(MemoryError):
        grid.submanifold(3).pairs.tiles  # noqa: B018


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["3", "down"])
def test_a_folded_relu_hides_no_nan(kind, dtype, level, monkeypatch):
    grid = grid_of(300)
    x = torch.ones(grid.num_voxels, 16, dtype=dtype)
    x[7, 3] = float("nan")
    weight = torch.full((offsets_of(kind), 16, 16), -1.0)
    epilogue = Epilogue(torch.ones(16), torch.zeros(16))
    with torch.no_grad():
        found = run(kind, grid, x, weight, epilogue)
        monkeypatch.setenv("POINTZOO_COMPILED", "0")
        wanted = run(kind, grid, x, weight, epilogue)
    assert found.isnan().any()
    assert torch.equal(found.isnan(), wanted.isnan())
