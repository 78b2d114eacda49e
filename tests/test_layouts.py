"""Weight layouts against dense convolutions, and against each other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from pointzoo.errors import ConfigError
from pointzoo.ops.sparse import VoxelGrid, inverse_conv, layouts, strided_conv, submanifold_conv


def random_weight(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + shape[0])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def full_cube(edge: int) -> VoxelGrid:
    """Return every voxel of a cube, so that sparse and dense convolutions can be compared."""
    coords = torch.tensor(list(itertools.product(range(edge), repeat=3)))
    return VoxelGrid.build(coords, torch.tensor([edge**3]))[0]


def as_dense(rows: torch.Tensor, edge: int) -> torch.Tensor:
    return rows.T.reshape(1, -1, edge, edge, edge)


@pytest.mark.parametrize("edge", [1, 3, 5])
def test_a_submanifold_weight_means_what_conv3d_means_by_it(edge):
    grid, rows = full_cube(4), random_weight(64, 2)
    dense = random_weight(4, 2, edge, edge, edge)
    expected = functional.conv3d(as_dense(rows, 4), dense, padding=edge // 2)
    got = submanifold_conv(rows, layouts.from_dense(dense), grid.submanifold(edge))
    torch.testing.assert_close(as_dense(got, 4), expected)
    if edge > 1:  # spconv's shape is that of conv3d with the inputs last
        krsc = dense.permute(0, 2, 3, 4, 1)
        assert torch.equal(layouts.from_spconv(krsc), layouts.from_dense(dense))


def test_strided_and_inverse_weights_mean_what_conv3d_means_by_them():
    grid, rows = full_cube(4), random_weight(64, 2)
    krsc = random_weight(3, 2, 2, 2, 2)
    _, stride = grid.down()
    expected = functional.conv3d(as_dense(rows, 4), krsc.permute(0, 4, 1, 2, 3), stride=2)
    got = strided_conv(rows, layouts.from_spconv(krsc), stride)
    torch.testing.assert_close(as_dense(got, 2), expected)
    inverse = random_weight(2, 2, 2, 2, 3)  # (O, k, k, k, I), and O = k: it fits both layouts
    weight = layouts.from_spconv(inverse, layout="krsc")
    dense = inverse.permute(4, 0, 1, 2, 3)
    expected = functional.conv_transpose3d(as_dense(got, 2), dense, stride=2)
    torch.testing.assert_close(as_dense(inverse_conv(got, weight, stride), 4), expected)
    assert torch.equal(layouts.from_dense(dense, transposed=True), weight)
    assert torch.equal(layouts.to_dense(weight, transposed=True), dense)


def test_a_1x1_kernel_of_spconv_is_read_as_memory():
    krsc = random_weight(4, 1, 1, 1, 3)
    expected = krsc.flatten().reshape(3, 4)  # not krsc[:, 0, 0, 0].T
    assert torch.equal(layouts.from_spconv(krsc)[0], expected)
    assert torch.equal(layouts.from_spconv(krsc.reshape(1, 1, 1, 4, 3))[0], expected)
    assert not torch.equal(expected, krsc[:, 0, 0, 0].T)


@pytest.mark.parametrize("edge", [1, 2, 3, 5])
def test_every_layout_goes_there_and_back(edge):
    weight = random_weight(edge**3, 6, 4)
    for layout in ("krsc", "native"):
        there = layouts.to_spconv(weight, layout=layout)
        shape = (4, *[edge] * 3, 6) if layout == "krsc" else (*[edge] * 3, 4, 6)
        assert there.shape == shape
        assert torch.equal(layouts.from_spconv(there), weight)
    assert torch.equal(layouts.from_dense(layouts.to_dense(weight)), weight)
    for name in ("torchsparse", "minkowski"):
        there = getattr(layouts, f"to_{name}")(weight)
        assert there.shape == ((6, 4) if edge == 1 else (edge**3, 6, 4))
        assert torch.equal(getattr(layouts, f"from_{name}")(there), weight)


@pytest.mark.parametrize("edge", [2, 3])
def test_the_kernel_orders_of_other_libraries(edge):
    # the table of conversions from spconv, written out with permutations
    krsc = random_weight(4, edge, edge, edge, 6)
    weight = layouts.from_spconv(krsc)
    swapped = krsc.permute(3, 2, 1, 4, 0).reshape(edge**3, 6, 4)
    straight = krsc.permute(1, 2, 3, 4, 0).reshape(edge**3, 6, 4)
    assert torch.equal(layouts.to_minkowski(weight), swapped)
    assert torch.equal(layouts.to_torchsparse(weight), swapped if edge % 2 else straight)


def test_a_converted_weight_has_memory_of_its_own():
    weight = random_weight(8, 2, 4)
    for name in ("spconv", "torchsparse", "minkowski", "dense"):
        there = getattr(layouts, f"to_{name}")(weight)
        back = getattr(layouts, f"from_{name}")(there)
        assert len({weight.data_ptr(), there.data_ptr(), back.data_ptr()}) == 3


def test_a_shape_that_fits_two_layouts_needs_the_name_of_one():
    both = random_weight(3, 3, 3, 3, 2)
    assert layouts.spconv_layouts(both.shape) == ("krsc", "native")
    with pytest.raises(ConfigError, match="krsc and native"):
        layouts.from_spconv(both)
    krsc, native = (layouts.from_spconv(both, layout=name) for name in ("krsc", "native"))
    assert torch.equal(layouts.to_spconv(krsc), both)
    assert torch.equal(layouts.to_spconv(native, layout="native"), both)
    assert not torch.equal(krsc, native)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3, 2, 3, 6), (3, 4, 3, 4, 6), (0, 3, 3, 3, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="spconv weight"):
        layouts.from_spconv(torch.zeros(shape))
    with pytest.raises(ConfigError, match="layout native"):
        layouts.from_spconv(torch.zeros(4, 3, 3, 3, 6), layout="native")
    with pytest.raises(ConfigError, match="dense weight"):
        layouts.from_dense(torch.zeros(4, 6, 3, 2, 3))
    for convert in (layouts.to_spconv, layouts.to_dense, layouts.from_minkowski):
        for wrong in (torch.zeros(9, 2, 4), torch.zeros(8)):
            with pytest.raises(ConfigError, match=r"k \*\* 3"):
                convert(wrong)
