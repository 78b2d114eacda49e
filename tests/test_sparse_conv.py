"""Sparse convolution against dense convolution, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops.sparse import (
    Epilogue,
    VoxelGrid,
    inverse_conv,
    strided_conv,
    submanifold_conv,
)

EDGE = 16  # of the dense grids


@pytest.fixture(params=["core", "torch"], autouse=True)
def path(request, monkeypatch) -> str:
    """Run every test with the compiled core (where it is built) and without."""
    if request.param == "torch":
        monkeypatch.setenv("POINTZOO_COMPILED", "0")
    return request.param


def scene(
    seed: int = 0, clouds: int = 2, voxels: int = 150, edge: int = 9
) -> tuple[Tensor, Tensor]:
    """Random voxels around the origin, each once, in random order."""
    generator = torch.Generator().manual_seed(seed)
    coords, ends = [], []
    for _ in range(clouds):
        cells = torch.randperm(edge**3, generator=generator)[:voxels]
        axes = [cells // edge**2, cells // edge % edge, cells % edge]
        coords.append(torch.stack(axes, 1) - edge // 2)
        ends.append(voxels + (ends[-1] if ends else 0))
    return torch.cat(coords), torch.tensor(ends)


def tensors(*shapes: tuple[int, ...], dtype=torch.float64, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def dense(grid: VoxelGrid, x: Tensor, edge: int = EDGE) -> Tensor:
    """Return (B, C, edge, edge, edge) with the features at their voxels, moved by edge / 2."""
    cells = x.new_zeros(len(grid.offsets), edge, edge, edge, x.shape[1])
    at = (grid.batch, *(grid.coords + edge // 2).unbind(1))
    cells = cells.index_put(at, x, accumulate=True)
    return cells.permute(0, 4, 1, 2, 3)  # (B, X, Y, Z, C) -> (B, C, X, Y, Z)


def at_voxels(grid: VoxelGrid, cells: Tensor) -> Tensor:
    edge = cells.shape[-1]
    at = (grid.batch, *(grid.coords + edge // 2).unbind(1))
    return cells.permute(0, 2, 3, 4, 1)[at]


def kernel(weight: Tensor) -> Tensor:
    """(K, in, out) -> (out, in, k, k, k)."""
    edge = round(len(weight) ** (1 / 3))
    return weight.view(edge, edge, edge, *weight.shape[1:]).permute(4, 3, 0, 1, 2)


def same(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_submanifold_equals_dense(size, dtype, tolerance):
    grid, order = VoxelGrid.build(*scene())
    assert sorted(order.tolist()) == list(range(300))
    x, weight, grad = tensors((300, 5), (size**3, 5, 7), (300, 7), dtype=dtype)
    x.requires_grad_()
    weight.requires_grad_()
    wanted = at_voxels(grid, torch.conv3d(dense(grid, x), kernel(weight), padding=size // 2))
    expected = torch.autograd.grad(wanted, (x, weight), grad)
    found = submanifold_conv(x, weight, grid.submanifold(size))
    assert found.dtype == dtype
    same(found, wanted, tolerance)
    for one, other in zip(torch.autograd.grad(found, (x, weight), grad), expected, strict=True):
        same(one, other, tolerance)


def test_strided_and_inverse_equal_dense():
    grid, _ = VoxelGrid.build(*scene())
    coarse, stride = grid.down()
    halves = torch.column_stack([grid.batch, grid.coords.div(2, rounding_mode="floor")])
    assert torch.column_stack([coarse.batch, coarse.coords]).equal(torch.unique(halves, dim=0))
    x, weight, back, grad = tensors((300, 5), (8, 5, 7), (8, 7, 3), (300, 3))
    for tensor in (x, weight, back):
        tensor.requires_grad_()
    cells = torch.conv3d(dense(grid, x), kernel(weight), stride=2)
    wanted_coarse = at_voxels(coarse, cells)
    turned = kernel(back).transpose(0, 1)
    masked = dense(coarse, wanted_coarse, EDGE // 2)
    wanted = at_voxels(grid, torch.conv_transpose3d(masked, turned, stride=2))
    found_coarse = strided_conv(x, weight, stride)
    found = inverse_conv(found_coarse, back, stride)
    same(found_coarse, wanted_coarse)
    same(found, wanted)
    inputs = (x, weight, back)
    expected = torch.autograd.grad(wanted, inputs, grad)
    for one, other in zip(torch.autograd.grad(found, inputs, grad), expected, strict=True):
        same(one, other)


def test_gradients_by_finite_differences():
    coords, offsets = scene(voxels=12, edge=3)
    coords[3] = coords[2]  # twins
    grid, _ = VoxelGrid.build(coords, offsets)
    coarse, stride = grid.down()
    x, w3, w2, up = tensors((24, 2), (27, 2, 3), (8, 2, 3), (8, 3, 2))
    y = tensors((coarse.num_voxels, 3))[0]
    for tensor in (x, w3, w2, up, y):
        tensor.requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda x, w: submanifold_conv(x, w, grid.submanifold(3)), (x, w3))
    assert check(lambda x, w: strided_conv(x, w, stride), (x, w2))
    assert check(lambda y, w: inverse_conv(y, w, stride), (y, up))


def test_rows_of_one_voxel_keep_their_own():
    """REFERENCE: a row sees itself at the centre, and the sum over twins elsewhere."""
    coords = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0], [5, 5, 5]])
    grid, order = VoxelGrid.build(coords, torch.tensor([4]))
    assert order.tolist() == [0, 2, 1, 3]
    x, w3, w2, up = tensors((4, 2), (27, 2, 3), (8, 2, 3), (8, 3, 2))
    found = submanifold_conv(x, w3, grid.submanifold(3))
    above, centre, below = w3[14], w3[13], w3[12]
    same(found[0], x[0] @ centre + x[2] @ above)
    same(found[1], x[1] @ centre + x[2] @ above)
    same(found[2], x[2] @ centre + (x[0] + x[1]) @ below)
    same(found[3], x[3] @ centre)
    stride = grid.down()[1]
    down = strided_conv(x, w2, stride)
    same(down, torch.stack([(x[0] + x[1]) @ w2[0] + x[2] @ w2[1], x[3] @ w2[7]]))
    back = inverse_conv(down, up, stride)
    same(back, torch.stack([down[0] @ up[0], down[0] @ up[0], down[0] @ up[1], down[1] @ up[7]]))


def test_twins_equal_the_sum_over_pairs():
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(-2, 3, (120, 3), generator=generator)
    grid, _ = VoxelGrid.build(coords, torch.tensor([70, 120]))
    x, weight = tensors((120, 4), (27, 4, 3))
    step = grid.coords[None] - grid.coords[:, None]  # [out, in]
    meets = (step.abs().amax(-1) <= 1) & (grid.batch[:, None] == grid.batch[None])
    index = ((step[..., 0] + 1) * 9 + (step[..., 1] + 1) * 3 + step[..., 2] + 1).clamp(0, 26)
    meets &= (index != 13) | torch.eye(120, dtype=torch.bool)
    wanted = torch.einsum("oi,oicd,ic->od", meets.double(), weight[index], x)
    same(submanifold_conv(x, weight, grid.submanifold(3)), wanted)


def test_a_cloud_alone_gives_what_it_gives_in_a_batch():
    coords, offsets = scene()
    x, weight = tensors((300, 5), (27, 5, 7), dtype=torch.float32)
    grid, order = VoxelGrid.build(coords, offsets)
    both = submanifold_conv(x[order], weight, grid.submanifold(3))
    alone, order = VoxelGrid.build(coords[150:], torch.tensor([150]))
    assert submanifold_conv(x[150:][order], weight, alone.submanifold(3)).equal(both[150:])


@pytest.mark.parametrize("apart", [10**6, 2**40, 2**59])
def test_clusters_far_apart_and_negative_coordinates(apart):
    coords, _ = scene(clouds=1)
    ends = torch.tensor([150, 300])
    near, _ = VoxelGrid.build(torch.cat([coords, coords]), ends)
    moved = torch.cat([coords - apart, coords + torch.tensor([apart, -apart, 1]) * 2])
    far, _ = VoxelGrid.build(moved, torch.tensor([300]))  # one cloud, two clusters
    x, weight, strided = tensors((300, 3), (27, 3, 4), (8, 3, 4))
    found = submanifold_conv(x, weight, far.submanifold(3))
    same(found, submanifold_conv(x, weight, near.submanifold(3)), 0)
    found = strided_conv(x, strided, far.down()[1])
    assert len(found) == far.down()[0].num_voxels == near.down()[0].num_voxels
    same(found, strided_conv(x, strided, near.down()[1]), 0)


def test_clouds_may_be_empty_or_have_one_voxel():
    grid, _ = VoxelGrid.build(torch.tensor([[7, 8, 9]]), torch.tensor([0, 1, 1]))
    x, weight, down = tensors((1, 2), (27, 2, 3), (8, 2, 3))
    same(submanifold_conv(x, weight, grid.submanifold(3)), x @ weight[13])
    coarse, stride = grid.down()
    assert coarse.offsets.tolist() == [0, 1, 1]
    same(strided_conv(x, down, stride), x @ down[5])
    nothing, _ = VoxelGrid.build(torch.empty(0, 3, dtype=torch.int32), torch.tensor([0]))
    assert submanifold_conv(x[:0], weight, nothing.submanifold(3)).shape == (0, 3)
    assert strided_conv(x[:0], down, nothing.down()[1]).shape == (0, 3)
    assert inverse_conv(x[:0], down, nothing.down()[1]).shape == (0, 3)


def test_maps_are_built_once():
    grid, _ = VoxelGrid.build(*scene())
    assert grid.submanifold(3) is grid.submanifold(3)
    assert grid.submanifold(3) is not grid.submanifold(5)
    assert grid.down()[0] is grid.down()[0]


def test_epilogue_equals_the_operations_one_by_one():
    grid, _ = VoxelGrid.build(*scene())
    x, weight, scale, shift, residual = tensors(
        (300, 5), (27, 5, 7), (7,), (7,), (300, 7), dtype=torch.float32
    )
    kernel_map = grid.submanifold(3)
    plain = submanifold_conv(x, weight, kernel_map)
    for more in (None, residual):
        for relu in (True, False):
            epilogue = Epilogue(scale, shift, more, relu)
            wanted = plain * scale + shift + (0 if more is None else more)
            found = submanifold_conv(x, weight, kernel_map, epilogue=epilogue)
            same(found, wanted.relu() if relu else wanted, 1e-5)


def test_bfloat16_sums_in_float32():
    grid, _ = VoxelGrid.build(*scene())
    x, weight = tensors((300, 40), (27, 40, 24), dtype=torch.bfloat16)
    found = submanifold_conv(x, weight, grid.submanifold(3))
    wanted = submanifold_conv(x.float(), weight.float(), grid.submanifold(3))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=1e-3)


def test_what_does_not_fit_is_refused():
    coords, offsets = scene()
    for bad in (coords.float(), coords[:, :2], coords - 2**62):
        with pytest.raises(CloudError):
            VoxelGrid.build(bad, offsets)
    with pytest.raises(CloudError):
        VoxelGrid.build(coords, offsets - 1)
    grid, _ = VoxelGrid.build(coords, offsets)
    with pytest.raises(ConfigError):
        grid.submanifold(2)
    x, weight = tensors((300, 5), (27, 5, 7))
    with pytest.raises(CloudError):
        submanifold_conv(x[1:], weight, grid.submanifold(3))
    with pytest.raises(ConfigError):
        submanifold_conv(x, weight[1:], grid.submanifold(3))
    with pytest.raises(ConfigError):
        strided_conv(x[:, 1:], weight[:8], grid.down()[1])
