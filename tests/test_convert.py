"""Checkpoints of Pointcept in all their wrappings, and everything that is not one."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from pointcept import (
    TINY,
    as_native,
    dense_output,
    golden,
    golden_state,
    make_scene,
    pointcept_state,
)
from torch import Tensor

import pointzoo as pz
from pointzoo.cli import main
from pointzoo.convert import Conversion, convert_pointcept
from pointzoo.encoders.sparse_unet import SparseUNetConfig
from pointzoo.errors import CloudError, ConfigError, FormatError, PointzooError, WeightError

State = dict[str, Tensor]
SMALL = SparseUNetConfig(base_channels=4, stage_channels=(6, 8, 8, 6), layers=(1, 2, 1, 1))


@pytest.fixture(scope="module")
def tiny() -> State:
    return golden_state("tiny")


@pytest.fixture(scope="module")
def small() -> State:
    return pointcept_state(SMALL, 5)


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


MSC = {
    "mask_token": torch.ones(1, 6),
    "color_head.weight": torch.ones(3, 16), "color_head.bias": torch.ones(3),
    "normal_head.weight": torch.ones(3, 16), "normal_head.bias": torch.ones(3),
}  # fmt: skip
FINAL = {"final.weight": torch.ones(20, 1, 1, 1, 16), "final.bias": torch.ones(20)}
SEGMENTATION = {"seg_head.weight": torch.ones(20, 16), "seg_head.bias": torch.ones(20)}

WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda s: s,
    "ordered": collections.OrderedDict,
    "with a head": lambda s: {**s, **FINAL},
    "data parallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "backbone": lambda s: {"state_dict": prefixed(s, "backbone.")},
    "both": lambda s: {"state_dict": prefixed(s, "module.backbone.")},
    "twice in parallel": lambda s: prefixed(s, "module.module."),
    "under another name": lambda s: {"state_dict": {
        **prefixed({**s, **FINAL}, "model.net.backbone."), **prefixed(SEGMENTATION, "model.net."),
    }},
    "trainer": lambda s: {
        "epoch": 3, "state_dict": prefixed({**s, **FINAL}, "module.backbone."),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{}]},
        "scheduler": {"last_epoch": 9}, "scaler": None, "best_metric_value": np.float64(0.7),
        "curve": np.arange(3.0),
    },
    "pre-training": lambda s: {
        "state_dict": prefixed({**prefixed(s, "backbone."), **MSC}, "module."),
        "best_metric_value": -torch.inf,
    },
    "segmentor": lambda s: {**prefixed({**s, **FINAL}, "backbone."), **SEGMENTATION},
    "spconv 2.1": as_native,
    "spconv 2.1, native": lambda s: as_native(s, everywhere=True),
    "no counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "float64": lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
}  # fmt: skip


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def difference(folder: Path, scene: tuple[Tensor, ...], expected: Tensor) -> float:
    with torch.no_grad():
        found = pz.load_encoder(folder).forward_voxels(*scene)
    return float((found - expected).abs().max())


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_gives_the_golden_output(wrapping: str, tiny: State, tmp_path: Path):
    checkpoint = save(tmp_path / "model_best.pth", WRAPPINGS[wrapping](tiny))
    done = convert_pointcept(checkpoint, tmp_path / "weight")
    stored = golden("tiny")
    with torch.no_grad():
        encoder = pz.load_encoder(tmp_path / "weight")
        got = encoder.forward_voxels(stored["grid_coord"], stored["feat"], stored["offset"])
    assert float((got[stored["rows"]] - stored["output"]).abs().max()) < 1e-4
    assert encoder.config == SparseUNetConfig(
        color_range="-1..1", base_channels=8, stage_channels=TINY.stage_channels, layers=(1,) * 8
    )
    content = WRAPPINGS[wrapping](tiny)
    given = content.get("state_dict", content)
    assert set(done.dropped) == {k for k in given if "final" in k or "head" in k or "mask" in k}


def test_safetensors_are_read_too(tiny: State, tmp_path: Path):
    state = {k: v.contiguous() for k, v in prefixed(tiny, "module.backbone.").items()}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    first = convert_pointcept(tmp_path / "a.safetensors", tmp_path / "a")
    second = convert_pointcept(save(tmp_path / "b.pth", tiny), tmp_path / "b")
    stored = [pz.load_encoder(done.folder).state_dict() for done in (first, second)]
    assert all(torch.equal(stored[0][key], stored[1][key]) for key in stored[0])


@pytest.mark.parametrize(
    ("width", "values"),
    [
        (6, {"base_channels": 4, "stage_channels": (6, 8), "layers": (1, 2)}),
        (3, {"base_channels": 2, "stage_channels": (4, 3, 8, 2), "layers": (3, 1, 2, 1)}),
        (9, {"base_channels": 8, "stage_channels": (3, 2, 3, 5, 4, 7),
             "layers": (1, 1, 2, 1, 1, 1)}),
        (1, {"base_channels": 6, "stage_channels": (5, 6, 7, 8, 9, 9, 8, 7, 6, 5),
             "layers": (1, 2, 1, 1, 1, 1, 1, 1, 2, 1)}),
    ],
)  # fmt: skip
def test_other_sizes_equal_a_dense_network(width: int, values: dict, tmp_path: Path):
    config = SparseUNetConfig(**SparseUNetConfig.completed({"in_channels": width, **values}))
    state = pointcept_state(config, 10 + width)
    scene = make_scene(300, width, seed=width)
    expected = dense_output(state, *scene)
    for name, given in (("krsc", state), ("native", as_native(state))):
        checkpoint = save(tmp_path / f"{name}.pth", {"state_dict": prefixed(given, "backbone.")})
        done = convert_pointcept(checkpoint, tmp_path / name, color_range="0..1")
        assert done.config == config
        # float32 through up to 30 layers
        assert difference(done.folder, scene, expected) < 2e-5 * float(expected.abs().max())


# What the inputs are


def test_inputs_get_the_names_that_are_usual_or_given(small: State, tmp_path: Path):
    checkpoint = save(tmp_path / "a.pth", small)

    def convert(**options: object) -> Conversion:
        return convert_pointcept(checkpoint, tmp_path / "weight", **options)

    assert convert().config.channels == ("colors", "normals")
    assert convert(channels=["normals", "colors"]).config.channels == ("normals", "colors")
    unnamed = convert(channels=[])
    assert (unnamed.config.channels, unnamed.config.in_channels) == ((), 6)
    assert "6 values without names" in unnamed.summary()
    with pytest.raises(ConfigError, match="in_channels 3"):
        convert(channels=["colors"])
    with pytest.raises(ConfigError, match="color_range"):
        convert(color_range="0..255")
    with pytest.raises(ConfigError, match="grid_size"):
        convert(grid_size=0.0)


def test_inputs_without_names_work_on_voxels_and_are_refused_on_clouds(tmp_path: Path):
    state = pointcept_state(SparseUNetConfig(
        channels=(), in_channels=9, base_channels=4, stage_channels=(4, 4), layers=(1, 1)
    ), 3)  # fmt: skip
    done = convert_pointcept(save(tmp_path / "a.pth", state), tmp_path / "weight")
    encoder = pz.load_encoder(done.folder)
    assert encoder.in_channels == encoder.feature_channels == 9
    assert encoder.forward_voxels(*make_scene(40, 9, seed=1)).shape == (60, 4)
    with pytest.raises(CloudError, match=r"9 values per point without names.*forward_voxels"):
        encoder.extract(pz.sample_cloud())


def test_colours_are_given_in_the_range_of_the_training(small: State, tmp_path: Path):
    checkpoint = save(tmp_path / "a.pth", small)
    folders = {
        kind: convert_pointcept(checkpoint, tmp_path / kind, color_range=kind).folder
        for kind in ("-1..1", "0..1")
    }
    cloud = pz.sample_cloud()
    signed = pz.load_encoder(folders["-1..1"]).extract(cloud).point
    plain = pz.load_encoder(folders["0..1"])
    batch = pz.PointBatch.collate(*([x] for x in plain.preprocess(cloud)))
    shifted = pz.PointBatch(batch.coords, batch.features.clone(), batch.offsets)
    shifted.features[:, :3].mul_(2).sub_(1)
    with torch.no_grad():
        np.testing.assert_allclose(signed, plain(shifted).point.numpy(), atol=1e-5)
        assert np.abs(signed - plain(batch).point.numpy()).max() > 0.01


def test_the_layout_of_a_stem_of_width_5_has_to_be_said(tmp_path: Path):
    config = SparseUNetConfig(base_channels=5, stage_channels=(4, 4), layers=(1, 1))
    state, scene = pointcept_state(config, 7), make_scene(100, 6, seed=2)
    expected = dense_output(state, *scene)
    native = save(tmp_path / "native.pth", as_native(state))
    krsc = save(tmp_path / "krsc.pth", state)
    for path in (native, krsc):
        with pytest.raises(ConfigError, match=r"stem_layout for conv_input\.0\.weight"):
            convert_pointcept(path, tmp_path / "w")
    for path, layout in ((native, "native"), (krsc, "krsc")):
        done = convert_pointcept(path, tmp_path / layout, stem_layout=layout)
        assert difference(done.folder, scene, expected) < 1e-4
    everywhere = save(tmp_path / "all.pth", as_native(state, everywhere=True))
    done = convert_pointcept(everywhere, tmp_path / "all")  # the other kernels tell it
    assert difference(done.folder, scene, expected) < 1e-4


# What is refused


def _without(key: str) -> Callable[[State], State]:
    return lambda s: {k: v for k, v in s.items() if not k.startswith(key)}


def _with(key: str, shape: tuple[int, ...]) -> Callable[[State], State]:
    return lambda s: {**s, key: torch.zeros(shape)}


BROKEN: dict[str, tuple[Callable[[State], object], str]] = {
    "a missing tensor": (_without("enc.1.block1.bn2.bias"), "1 missing: enc.1.block1.bn2.bias"),
    "a left-over tensor": (_with("enc.0.extra", (3,)), "1 left over: enc.0.extra"),
    "something beside the backbone": (
        lambda s: {**prefixed(s, "backbone."), "other.weight": torch.ones(1)}, "left over: other"),
    "another shape": (_with("enc.0.block0.conv1.weight", (6, 3, 3, 3, 5)), "27 x 6 x 6"),
    "a kernel that is none": (_with("enc.0.block0.conv1.weight", (6, 3, 2, 3, 6)), "conv1.weight"),
    "a stem of spconv 1": (_with("conv_input.0.weight", (5, 5, 5, 6, 4)), "125 x 4 x 4|125 x 6"),
    "a flat stem": (_with("conv_input.0.weight", (6, 4)), "five axes"),
    "no stem": (_without("conv_input"), "the stem of a SpUNet-v1m1"),
    "no stage": (lambda s: {k: v for k, v in s.items() if "conv_input" in k}, "0 stages"),
    "student and teacher": (
        lambda s: {**prefixed(s, "student."), **prefixed(s, "teacher.")}, "2 stems"),
    "a gap in the blocks": (_without("enc.1.block0"), "without gaps"),
    "a gap in the stages": (_without("down.0"), "without gaps"),
    "a stage without blocks": (_without("enc.1"), "blocks in each"),
    "an encoder alone": (
        lambda s: {k: v for k, v in s.items() if not k.startswith(("up", "dec"))}, "decoder"),
    "no normalisation": (_without("down.1.1"), "no tensor of that name"),
    "a flat normalisation": (_with("down.1.1.weight", (8, 1)), r"shape \(8, 1\)"),
    "a counter for each channel": (
        _with("up.0.1.num_batches_tracked", (6,)), "one number in up.0.1.num_batches_tracked"),
    "integers": (
        lambda s: {**s, "up.0.0.weight": torch.ones(6, 2, 2, 2, 6).int()}, "floating-point up.0"),
    "no tensor": (lambda s: {**s, "up.0.0.weight": 3}, "something else: up.0.0.weight"),
    "NaN": (_with("up.0.1.running_mean", (6,)), "finite"),
    "negative variances": (lambda s: {**s, "up.0.1.running_var": -torch.ones(6)}, "finite"),
    "one name twice": (lambda s: {**s, "module.up.0.0.weight": torch.ones(1)}, "left over: module"),
    "nothing": (lambda _: {}, "the stem of a SpUNet-v1m1"),
    "PPT": (
        lambda s: {**s, "backbone.enc.0.block0.bn1.bns.ScanNet.weight": torch.ones(3)},
        "Not supported, because.*SpUNet-v1m3"),
    "PointContrast": (
        lambda _: {"state_dict": {"conv0p1s1.kernel": torch.ones(27, 3, 32)}},
        "Not supported, because.*MinkowskiEngine"),
    "PTv3": (
        lambda _: {"module.backbone.embedding.stem.conv.weight": torch.ones(3)},
        "Not supported, because.*Point Transformer"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_another_network_is_refused(what: str, small: State, tmp_path: Path):
    change, complaint = BROKEN[what]
    content = change(small)
    if what == "NaN":
        content["up.0.1.running_mean"][2] = torch.nan
    checkpoint = save(tmp_path / "a.pth", content)
    with pytest.raises(WeightError, match=complaint):
        convert_pointcept(checkpoint, tmp_path / "weight")
    assert not (tmp_path / "weight").exists()


class _Harmful:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


def test_code_in_a_checkpoint_does_not_run(small: State, tmp_path: Path):
    place = tmp_path / "made"
    for number, content in enumerate([{**small, "x": _Harmful(place)}, _Harmful(place)]):
        checkpoint = save(tmp_path / f"{number}.pth", content)
        with pytest.raises(FormatError, match="tensors and plain values alone"):
            convert_pointcept(checkpoint, tmp_path / "weight")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Harmful(place)))
    with pytest.raises(FormatError):
        convert_pointcept(tmp_path / "plain.pth", tmp_path / "weight")
    assert not place.exists()


def test_reading_leaves_torch_as_strict_as_it_was(small: State, tmp_path: Path):
    before = torch.serialization.get_safe_globals()
    convert_pointcept(save(tmp_path / "a.pth", small), tmp_path / "weight")
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize("content", [[1, 2], 3, {1: torch.ones(2)}, None, torch.ones(3)])
def test_a_file_without_a_state_dict(content: object, tmp_path: Path):
    with pytest.raises(FormatError, match="a state dict"):
        convert_pointcept(save(tmp_path / "a.pth", content), tmp_path / "weight")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_damaged_file(ending: str, small: State, tmp_path: Path):
    path = tmp_path / f"a{ending}"
    if ending == ".pth":
        save(path, small)
    else:
        safetensors.torch.save_file(small, path)
    good = path.read_bytes()
    for bad in (b"", b"nonsense", good[: len(good) // 2], good[:-9], b"\0" * 200 + good[200:]):
        path.write_bytes(bad)
        with pytest.raises(PointzooError):
            convert_pointcept(path, tmp_path / "weight")
    with pytest.raises(FormatError, match="FileNotFoundError"):
        convert_pointcept(tmp_path / f"none{ending}", tmp_path / "weight")


def test_a_single_wrong_byte_is_found(small: State, tmp_path: Path):
    path = save(tmp_path / "a.pth", small)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data[largest.header_offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="checksum"):
        convert_pointcept(path, tmp_path / "weight")


# The folder, and the command


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["convert", "pointcept", *map(str, words)])


def test_the_command(small: State, tmp_path: Path):
    checkpoint = save(tmp_path / "a.pth", {**prefixed(small, "backbone."), **MSC})
    out = tmp_path / "weight"
    words = ["-o", out, "--color-range", "0..1", "--grid-size", 0.05, "--license", "mit"]
    said = call(checkpoint, *words).stdout
    assert "dropped color_head.bias, color_head.weight, mask_token" in said
    assert "stages (6, 8, 8, 6), blocks (1, 2, 1, 1), stem 4" in said
    encoder = pz.load_encoder(out)
    assert encoder.config == SparseUNetConfig(**{**vars(SMALL), "grid_size": 0.05})
    info = pz.encoder_info(out)
    assert (info.architecture, info.commercial, info.max_points) == ("sparseunet34", None, None)
    readme = (out / "README.md").read_text()
    assert 'license: "mit"' in readme
    assert "a.pth" in readme
    assert call(checkpoint, "-o", out, "--channels", "none").exit_code == 0
    assert pz.load_encoder(out).config.in_channels == 6
    assert call(checkpoint, "-o", out, "--channels", "normals, colors").exit_code == 0
    assert pz.load_encoder(out).config.channels == ("normals", "colors")
    assert 'license: "unknown"' in (out / "README.md").read_text()


def test_the_command_fails_on_one_line(small: State, tmp_path: Path):
    for content in ({"x": 1}, {**small, "extra": torch.ones(1)}):
        result = call(save(tmp_path / "a.pth", content), "-o", tmp_path / "weight")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: expected")
        assert len(result.stderr.splitlines()) == 1


def test_half_precision_is_a_choice(small: State, tmp_path: Path):
    checkpoint = save(tmp_path / "a.pth", small)
    exact = convert_pointcept(checkpoint, tmp_path / "exact").folder
    half = convert_pointcept(checkpoint, tmp_path / "half", half=True).folder
    size = [(folder / "model.safetensors").stat().st_size for folder in (exact, half)]
    assert size[1] < 0.7 * size[0]
    weights = [pz.load_encoder(folder).stem.weight for folder in (exact, half)]
    assert torch.equal(weights[0].half().float(), weights[1])
