"""SparseUNet: Pointcept's own numbers, voxels and points, and what its inputs may be."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from pointcept import (
    STATES,
    TINY,
    dense_output,
    golden,
    golden_state,
    make_scene,
    pointcept_state,
)
from torch import Tensor, nn

import pointzoo as pz
from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.convert.pointcept import pointcept_name
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.encoders.sparse_blocks import Norm
from pointzoo.encoders.sparse_unet import SparseUNet, SparseUNetConfig
from pointzoo.encoders.voxelize import voxelize
from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops.sparse import layouts

# Pointcept's numbers


def load(config: SparseUNetConfig, state: dict[str, Tensor]) -> SparseUNet:
    """Put weights under Pointcept's names into a network."""
    encoder = SparseUNet(config).eval()
    own = {}
    for name, like in encoder.state_dict().items():
        value = state[pointcept_name(name)]
        own[name] = layouts.from_spconv(value, layout="krsc") if like.ndim == 3 else value
    encoder.load_state_dict(own)
    return encoder


def golden_encoder(name: str) -> SparseUNet:
    return load(TINY if name == "tiny" else SparseUNetConfig(), golden_state(name))


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def tiny() -> SparseUNet:
    return golden_encoder("tiny")


@pytest.mark.parametrize("name", STATES)
def test_it_computes_what_pointcept_computes(name):
    """Tolerances: spconv itself is within 3e-6 (output), 5e-5 (training) of float64.

    The loss of the large network is nearly flat behind its last normalisation, so that float32
    gradients of it are good to half a percent, spconv's as well.
    """
    stored, encoder = golden(name), golden_encoder(name)
    scene = stored["grid_coord"], stored["feat"], stored["offset"]
    with torch.no_grad():
        got = encoder.forward_voxels(*scene)
    assert largest(got[stored["rows"]] - stored["output"]) < 1e-4
    encoder.train()
    out = encoder.forward_voxels(*scene)
    assert largest(out[stored["rows"]] - stored["train_output"]) < 2e-4
    loss = out.square().sum()
    assert float(loss.detach()) == pytest.approx(float(stored["train_loss"]), rel=1e-5)
    loss.backward()
    mine = {pointcept_name(key): p.grad for key, p in encoder.named_parameters()}
    for key in [k.removeprefix("grad.") for k in stored if k.startswith("grad.")]:
        grad = mine[key]
        if grad.ndim == 3:
            grad = layouts.to_spconv(grad)
        kept = grad[::4] if (name, key) == ("full", "conv_input.0.weight") else grad
        bound = 1e-4 if name == "tiny" else 2e-2
        assert relative(kept, stored[f"grad.{key}"]) < bound, key
    for key in ("running_mean", "running_var"):
        after = stored[f"after_step.conv_input.1.{key}"]
        torch.testing.assert_close(getattr(encoder.stem.norm, key), after, rtol=0, atol=1e-6)


def test_every_stage_computes_what_pointcept_computes(tiny: SparseUNet):
    stored = golden("tiny")
    found: dict[str, Tensor] = {}
    stages = {"stem": tiny.stem}
    stages |= {f"enc{s}": stage for s, stage in enumerate(tiny.enc)}
    stages |= {f"dec{s}": stage for s, stage in enumerate(tiny.dec)}

    def keep(name: str):
        def hook(_: nn.Module, inputs: tuple, output: Tensor) -> None:
            grid = inputs[1]
            found[name] = output
            found[f"{name} voxels"] = torch.column_stack([grid.batch, grid.coords])

        return hook

    hooks = [stage.register_forward_hook(keep(name)) for name, stage in stages.items()]
    with torch.no_grad():
        tiny.forward_voxels(stored["grid_coord"], stored["feat"], stored["offset"])
    for hook in hooks:
        hook.remove()
    for name in stages:
        rows = stored[f"tap_{name}_rows"]
        assert len(found[name]) == int(stored[f"tap_{name}_count"])
        assert torch.equal(found[f"{name} voxels"][rows], stored[f"tap_{name}_indices"])
        assert largest(found[name][rows] - stored[f"tap_{name}_features"]) < 1e-4, name


@pytest.mark.parametrize("stages", [1, 3])
def test_it_equals_a_dense_network_in_float64(stages):
    config = SparseUNetConfig(
        channels=("normals",), base_channels=4,
        stage_channels=tuple(range(3, 3 + 2 * stages)), layers=(2, 1) * stages,
    )  # fmt: skip
    state, (coords, features, offsets) = pointcept_state(config, stages), make_scene(120, 3, 4)
    encoder = load(config, state).double()
    expected = dense_output(state, coords, features, offsets)
    plain = encoder.forward_voxels(coords, features, offsets)
    with torch.no_grad():
        folded = encoder.forward_voxels(coords, features, offsets)
    assert largest(plain.detach() - expected) < 1e-12
    assert largest(folded - expected) < 1e-12


def test_weights_start_as_pointcepts_do():
    encoder = pz.create_encoder("sparseunet14")
    for name, value in encoder.named_parameters():
        if name.endswith(("down.0.weight", "up.1.weight")):
            bound = (8 * value.shape[1]) ** -0.5  # spconv's kaiming-uniform with a = sqrt(5)
            assert 0.98 * bound < largest(value) <= bound
        elif value.ndim == 3:
            limit = 0.001 if value.numel() > 1e4 and not name.startswith(("down", "up")) else 0.02
            if not name.startswith(("down", "up")):
                assert float(value.detach().std()) == pytest.approx(0.02, abs=limit)
        else:
            assert (value == (1.0 if name.endswith("weight") else 0.0)).all()
    norms = [m for m in encoder.modules() if isinstance(m, Norm)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


# Voxels


def test_rows_come_back_in_input_order(tiny: SparseUNet):
    coords, features, offsets = make_scene(200, 6, 1)
    order = torch.cat([torch.randperm(200), 200 + torch.randperm(100)])
    with torch.no_grad():
        straight = tiny.forward_voxels(coords, features, offsets)
        shuffled = tiny.forward_voxels(coords[order], features[order], offsets)
        alone = tiny.forward_voxels(coords[:200], features[:200], offsets[:1])
    assert torch.equal(shuffled, straight[order])
    assert largest(alone - straight[:200]) < 1e-5


def test_voxels_may_lie_anywhere(tiny: SparseUNet):
    coords, features, offsets = make_scene(100, 6, 2)
    with torch.no_grad():
        here = tiny.forward_voxels(coords, features, offsets)
        for shift in (-(2**40) * 16, 2**30 * 16, -16):  # whole cells of the coarsest level
            there = tiny.forward_voxels(coords + shift, features, offsets)
            assert largest(there - here) < 1e-5
        small = tiny.forward_voxels(coords.to(torch.int16), features, offsets.to(torch.int32))
    assert torch.equal(small, here)


def test_features_take_the_number_type_of_the_weights(tiny: SparseUNet):
    coords, features, offsets = make_scene(50, 6, 3)
    with torch.no_grad():
        expected = tiny.forward_voxels(coords, features, offsets)
        assert torch.equal(tiny.forward_voxels(coords, features.double(), offsets), expected)
        again = tiny.double().forward_voxels(coords, features, offsets)
    tiny.float()
    assert again.dtype == torch.float64
    assert largest(again - expected) < 1e-5


def test_repeated_voxels_keep_a_row_each(tiny: SparseUNet):
    coords, features, _ = make_scene(60, 6, 4)
    twice = torch.cat([coords[:60], coords[:5]])
    rows = torch.cat([features[:60], features[5:10]])
    with torch.no_grad():
        got = tiny.forward_voxels(twice, rows, torch.tensor([65]))
        swapped = torch.cat([rows[60:], rows[5:60], rows[:5]])
        other = tiny.forward_voxels(twice, swapped, torch.tensor([65]))
    assert got.shape == (65, 16)
    assert largest(got[:5] - got[60:]) > 0.01
    assert largest(other[:5] - got[60:]) < 1e-5


def test_gradients_flow_to_features_and_weights():
    encoder = build("sparseunet_test").double().train()
    coords, features, offsets = make_scene(40, 6, 5)
    features = features.double().requires_grad_()
    encoder.forward_voxels(coords, features, offsets).square().sum().backward()
    assert features.grad.abs().sum(dim=1).min() > 0
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_the_receptive_field_is_not_larger_than_said():
    encoder = build("sparseunet_test", channels=(), in_channels=1).double()
    for value in encoder.parameters():  # nothing is hidden by a ReLU or cancels
        value.data.abs_().add_(0.05)
    reach, middle = encoder.receptive_field, 100
    assert (reach, encoder.stride) == (23, 4)
    furthest = 0
    for shift in range(encoder.stride):
        features = torch.ones(200, 1, dtype=torch.float64, requires_grad=True)
        coords = torch.zeros(200, 3, dtype=torch.int64)
        coords[:, 1] = torch.arange(200) + shift
        out = encoder.forward_voxels(coords, features, torch.tensor([200]))
        (gradient,) = torch.autograd.grad(out[middle].sum(), features)
        seen = (gradient[:, 0] != 0).nonzero()[:, 0] - middle
        furthest = max(furthest, largest(seen))
    assert 0.8 * reach <= furthest <= reach


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"coords": torch.zeros(3, 3)}, "integers"),
        ({"coords": torch.zeros(3, 2).long()}, r"\(M, 3\) of integers"),
        ({"coords": torch.zeros(3, 3).bool()}, "integers"),
        ({"coords": torch.zeros(4, 3).long()}, r"features \(4, 6\)"),
        ({"features": torch.zeros(3, 9)}, r"\(3, 6\) for them.*got shape \(3, 9\)"),
        ({"features": torch.zeros(3, 6).long()}, "floating-point"),
        ({"features": torch.zeros(3)}, "floating-point features"),
        ({"features": torch.full((3, 6), torch.nan)}, "finite"),
        ({"features": torch.full((3, 6), -torch.inf)}, "finite"),
        ({"offsets": torch.tensor([2])}, "offsets"),
        ({"offsets": torch.tensor([2, 1, 3])}, "offsets"),
        ({"offsets": torch.tensor([1.0, 3.0])}, "offsets"),
        ({"offsets": torch.tensor([0, 3]), "features": torch.zeros(3, 6).to("meta")}, "device"),
        ({"coords": torch.zeros(0, 3).long(), "features": torch.zeros(0, 6),
          "offsets": torch.tensor([0])}, "at least one voxel"),
    ],
)  # fmt: skip
def test_unusable_voxels_are_refused(changes, complaint):
    given = {
        "coords": torch.arange(9).view(3, 3),
        "features": torch.zeros(3, 6),
        "offsets": torch.tensor([3]),
        **changes,
    }
    with pytest.raises(CloudError, match=complaint):
        build("sparseunet_test").forward_voxels(*given.values())


def test_training_on_a_single_coarse_voxel_works():
    encoder = build("sparseunet_test").train()
    out = encoder.forward_voxels(
        torch.tensor([[0, 0, 0], [1, 0, 0]]), torch.ones(2, 6), torch.tensor([2])
    )
    assert out.isfinite().all()
    norm = Norm(3)
    assert torch.equal(norm.train()(torch.ones(1, 3)), norm.eval()(torch.ones(1, 3)))


# Points


def make_batch(encoder: SparseUNet, sizes: tuple[int, ...] = (200, 1, 60)) -> PointBatch:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(n, 3 + encoder.feature_channels, generator=generator) for n in sizes]
    return PointBatch.collate([r[:, :3] for r in rows], [r[:, 3:] for r in rows])


def test_points_get_the_feature_of_their_voxel():
    encoder = build("sparseunet_test", grid_size=0.1)
    batch = make_batch(encoder)
    with torch.no_grad():
        output = encoder(batch)
    start = 0
    for number, coords in enumerate(batch.split(batch.coords)):
        voxels = (coords.double() - coords.double().amin(dim=0)).div(0.1).add(0.5).floor().long()
        unique, inverse = voxels.unique(dim=0, return_inverse=True)
        values = batch.features[start : start + len(coords)]
        mean = torch.stack([values[inverse == v].mean(dim=0) for v in range(len(unique))])
        with torch.no_grad():
            rows = encoder.forward_voxels(unique, mean, torch.tensor([len(unique)]))
        got = output.point[start : start + len(coords)]
        assert largest(got - rows[inverse]) < 1e-5
        scene = torch.cat([rows.mean(dim=0), rows.amax(dim=0)])
        assert largest(output.scene[number] - scene) < 1e-5
        start += len(coords)


def test_levels_are_voxels_of_doubling_size():
    encoder = build("sparseunet_test", grid_size=0.1)
    batch = make_batch(encoder)
    with torch.no_grad():
        levels = encoder(batch).levels
    assert [level.stride for level in levels] == [1, 2, 4]
    assert [level.features.shape[1] for level in levels] == [8, 12, 12]  # dec 0, dec 1, enc 1
    low = torch.stack([c.amin(dim=0) for c in batch.split(batch.coords)])
    for fine, coarse in itertools.pairwise(levels):
        starts = [0, *fine.offsets.tolist()]
        for cloud, (i, j) in enumerate(itertools.pairwise(starts)):
            parents = fine.grid_coords[i:j].div(2, rounding_mode="floor").unique(dim=0)
            k = coarse.offsets[cloud - 1] if cloud else 0
            assert torch.equal(coarse.grid_coords[k : coarse.offsets[cloud]], parents)
    for level in levels:
        cloud = torch.repeat_interleave(
            torch.arange(3), torch.diff(level.offsets, prepend=torch.zeros(1).long())
        )
        first = level.grid_coords.double() * level.stride * 0.1 - 0.05
        centre = low[cloud] + first + level.stride * 0.1 / 2
        assert largest(level.coords - centre) < 1e-6


def test_trilinear_blends_the_voxels_around_a_point():
    edge = 0.25
    generator = torch.Generator().manual_seed(2)
    coords = torch.rand(60, 3, generator=generator, dtype=torch.float64) * 1.5
    geometry = voxelize(coords, torch.tensor([20, 60]), edge, corners=True)
    values = torch.randn(geometry.grid.num_voxels, 2, generator=generator, dtype=torch.float64)
    got = geometry.at_points(values)
    centres = geometry.centers(geometry.grid, 1)
    for row, place in enumerate(coords):
        same = geometry.grid.batch == int(row >= 20)
        share = (1 - (centres - place).abs() / edge).clamp(min=0).prod(dim=1) * same
        expected = (share[:, None] * values).sum(dim=0) / share.sum()
        assert largest(got[row] - expected) < 1e-12
    nearest = voxelize(coords, torch.tensor([20, 60]), edge)
    assert torch.equal(nearest.at_points(values), values[geometry.voxel])


def test_trilinear_is_the_voxel_itself_at_its_centre_and_continuous():
    encoder = build("sparseunet_test", point_features="trilinear", grid_size=0.1)
    generator = torch.Generator().manual_seed(3)
    grid = torch.randint(0, 6, (80, 3), generator=generator)
    batch = PointBatch.stack(grid[None] * 0.1, torch.rand(1, 80, 6, generator=generator))
    with torch.no_grad():
        output = encoder(batch)
        nearest = SparseUNet(dataclasses.replace(encoder.config, point_features="nearest")).eval()
        nearest.load_state_dict(encoder.state_dict())
        assert largest(output.point - nearest(batch).point) < 1e-5
    places = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None] * torch.tensor([0.5, 0.4, 0.3])
    geometry = voxelize(places, torch.tensor([101]), 0.1, corners=True)
    ramp = geometry.centers(geometry.grid, 1) @ torch.tensor([1.0, 2.0, 3.0]).double()
    blend = geometry.at_points(ramp[:, None])[:, 0]
    assert largest(blend.diff()) < 0.05  # 0.1 and more between voxels


def test_flat_and_gridded_clouds_are_not_torn_by_rounding():
    rng = np.random.default_rng(0)
    grid = np.unique(rng.integers(0, 20, (300, 3)), axis=0)
    gridded = grid * 0.02 + [4e5, 5e6, 300.0]
    encoder = build("sparseunet_test", grid_size=0.02)
    coords, _ = encoder.preprocess(PointCloud(gridded))
    geometry = voxelize(coords, torch.tensor([len(coords)]), 0.02)
    assert geometry.grid.num_voxels == len(grid)
    assert torch.equal(geometry.grid.coords, torch.from_numpy(grid - grid.min(axis=0)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_unusable_points_are_refused(bad):
    coords = torch.zeros(4, 3)
    coords[1, 1] = bad
    with pytest.raises(CloudError, match="finite"):
        voxelize(coords, torch.tensor([4]), 0.1)


# Inputs


def test_in_channels_stand_for_channels():
    wanted = {6: ("colors", "normals"), 3: ("colors",), 0: (), 9: (), 1: (), 4: ()}
    for width, channels in wanted.items():
        encoder = pz.create_encoder("sparseunet_test", in_channels=width)
        assert encoder.config.channels == channels
        assert encoder.in_channels == encoder.feature_channels == width
        assert (encoder.config.in_channels is None) == (width == 3 * len(channels))
        assert encoder.stem.weight.shape[1] == max(width, 1)
        assert encoder.forward_voxels(*make_scene(9, width, 0)).shape == (13, 8)
    assert pz.create_encoder("sparseunet14", in_channels=6).in_channels == 6
    both = pz.create_encoder("sparseunet_test", in_channels=3, channels=("normals",))
    assert both.config.channels == ("normals",)
    config = SparseUNetConfig(channels=(), in_channels=9)
    assert SparseUNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 3, "channels": ("colors", "normals")},
        {"in_channels": -1},
        {"in_channels": "six"},
        {"in_channels": 2.5},
        {"color_range": "0..255"},
        {"point_features": "cubic"},
        {"grid_size": 0.0},
        {"grid_size": float("nan")},
        {"grid_size": float("inf")},
        {"base_channels": 0},
        {"stage_channels": (8, 8, 8)},
        {"stage_channels": (8, 8, 8), "layers": (1, 1, 1)},
        {"stage_channels": (), "layers": ()},
        {"layers": (1, 1, 0, 1)},
        {"stage_channels": (8, 0, 8, 8)},
        {"channels": ("coords",)},
        {"max_points": 50},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        build("sparseunet_test", **changes)


def test_inputs_without_names_are_refused_on_clouds_and_work_on_batches(tmp_path):
    encoder = pz.create_encoder("sparseunet_test", in_channels=4)
    cloud = pz.sample_cloud()
    for act in (encoder.preprocess, encoder.extract, encoder.point_channels):
        with pytest.raises(CloudError, match="4 values per point without names"):
            act(cloud)
    batch = make_batch(encoder)
    with torch.no_grad():
        expected = encoder(batch).point
        loaded = pz.load_encoder(pz.save_encoder(encoder, tmp_path / "weight", half=False))
        assert torch.equal(loaded(batch).point, expected)


def test_colours_are_shifted_for_networks_that_were_trained_so():
    plain = build("sparseunet_test", channels=("normals", "colors"))
    signed = SparseUNet(dataclasses.replace(plain.config, color_range="-1..1")).eval()
    signed.load_state_dict(plain.state_dict())
    batch = make_batch(plain)
    moved = batch.features.clone()
    moved[:, 3:] = 2 * moved[:, 3:] - 1
    assert torch.equal(signed.network_input(batch.features), moved)
    assert plain.network_input(batch.features) is batch.features
    with torch.no_grad():
        expected = plain(PointBatch(batch.coords, moved, batch.offsets)).scene
        assert largest(signed(batch).scene - expected) < 1e-5
    bare = build("sparseunet_test", channels=("normals",), color_range="-1..1")
    rows = torch.rand(5, 3)
    assert bare.network_input(rows) is rows


def test_point_channels_are_what_the_stem_reads():
    cloud = pz.sample_cloud()
    encoder = build("sparseunet_test", color_range="-1..1")
    wanted = np.concatenate([2 * cloud.colors - 1, cloud.normals], axis=1)
    np.testing.assert_allclose(encoder.point_channels(cloud), wanted, atol=1e-6)
    bare = encoder.point_channels(cloud.replace(colors=None, normals=None))
    assert not bare.any()  # grey and no direction
    with pytest.raises(CloudError):
        encoder.point_channels(PointCloud(np.zeros((0, 3))))
    assert encoder.grid_size == 0.2


# Sizes


def test_architectures_are_what_their_names_say():
    counts = {}
    for name in ("sparseunet_test", "sparseunet14", "sparseunet18", "sparseunet34"):
        with torch.device("meta"):
            encoder = build(name)
        counts[name] = sum(p.numel() for p in encoder.parameters())
    assert counts["sparseunet34"] == 39_155_904  # as SpUNet-v1m1 with 6 inputs and no head
    assert list(counts.values()) == sorted(counts.values())
    assert counts["sparseunet_test"] < 100_000
    assert 2 * counts["sparseunet14"] < 20e6  # bytes in half precision
    assert ARCHITECTURES["sparseunet34"].config == SparseUNetConfig()
    assert len(encoder.state_dict()) == 354
