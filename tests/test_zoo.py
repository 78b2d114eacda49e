"""Weights by name and by folder: strict, verified, quiet."""

import dataclasses
import hashlib
import json
import shutil
import struct
from pathlib import Path

import make_sample
import numpy as np
import pytest
import safetensors.torch
import torch
from test_cards import CARD

from pointzoo import weights, zoo
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import ConfigError, UnknownNameError, WeightError
from pointzoo.weights import sample_cloud, save_encoder
from pointzoo.zoo import create_encoder, encoder_info, list_encoders, load_encoder


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    encoder = create_encoder("vit3d_test", seed=3, channels=("colors",))
    with torch.no_grad():  # as sharp as a trained one: at random initialisation attention is flat
        for name, value in encoder.named_parameters():
            if "qkv" in name:
                value.mul_(20)
    return encoder


@pytest.fixture(scope="module")
def saved(encoder: PointEncoder, tmp_path_factory) -> Path:
    return save_encoder(encoder, tmp_path_factory.mktemp("zoo") / "vit3d_test.mine", card=CARD)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def rewrite(folder: Path, change: object) -> None:
    """Change the tensors and make the checksum right again, as a careful liar would."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    seal(folder, safetensors.torch.save(tensors))


def seal(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in {**config, **changes}.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))


# Creating


def test_create_is_seeded_and_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    first, second = create_encoder("vit3d_test", seed=1), create_encoder("vit3d_test", seed=1)
    other = create_encoder("vit3d_test", seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.output.weight, other.output.weight)


def test_create_takes_settings_and_names_unknown_ones():
    assert create_encoder("vit3d_test", dim=16, heads=2).out_channels == 16
    assert create_encoder("vit3d_test", channels=("normals",)).in_channels == 6
    with pytest.raises(ConfigError, match="width"):
        create_encoder("vit3d_test", width=3)
    with pytest.raises(UnknownNameError, match="vit3d_tiny"):
        create_encoder("vit3d_tinny")


# Saving and loading


def test_a_saved_encoder_is_loaded_again(encoder: PointEncoder, folder: Path, capfd):
    loaded = load_encoder(folder)
    assert capfd.readouterr() == ("", "")
    assert not loaded.training
    assert type(loaded) is type(encoder)
    assert loaded.config == encoder.config
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    expected, got = encoder.extract(sample_cloud()), loaded.extract(sample_cloud())
    # parameters went through half precision: 11 bits
    np.testing.assert_allclose(got.point, expected.point, atol=0.02)
    size = sum(p.numel() for p in encoder.parameters())
    assert (folder / "model.safetensors").stat().st_size < 2.2 * size + 20_000


def test_full_precision_is_exact(encoder: PointEncoder, tmp_path: Path):
    loaded = load_encoder(str(save_encoder(encoder, tmp_path / "full", half=False)))
    expected, got = encoder.extract(sample_cloud()), loaded.extract(sample_cloud())
    np.testing.assert_array_equal(got.point, expected.point)


def test_running_statistics_and_large_parameters_keep_full_precision(tmp_path: Path):
    encoder = create_encoder("vit3d_test")
    with torch.no_grad():
        for name, buffer in encoder.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(1.0 + 2.0**-20)
        encoder.output.bias[0] = 1e6
    loaded = load_encoder(save_encoder(encoder, tmp_path / "w"))
    assert loaded.output.bias[0] == 1e6
    variances = [b for n, b in loaded.named_buffers() if n.endswith("running_var")]
    assert variances
    assert all(bool((v == 1.0 + 2.0**-20).all()) for v in variances)


def test_saving_leaves_the_encoder_alone_and_is_reproducible(tmp_path: Path):
    encoder = create_encoder("vit3d_test").train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    one, two = save_encoder(encoder, tmp_path / "one"), save_encoder(encoder, tmp_path / "two")
    assert encoder.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    for name in ("model.safetensors", "config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_saving_replaces_a_weight_and_keeps_its_pictures(folder: Path, tmp_path: Path):
    (folder / "attention.png").write_bytes(b"png")
    other = create_encoder("vit3d_test", seed=9)
    save_encoder(other, folder)
    assert (folder / "attention.png").read_bytes() == b"png"
    assert "no card" in (folder / "README.md").read_text()
    assert load_encoder(folder).config == other.config
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_an_interrupted_save_leaves_the_old_weight(folder: Path, monkeypatch, tmp_path: Path):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "_swap", fail)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_encoder(create_encoder("vit3d_test", seed=9), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_nothing_else_is_replaced(encoder: PointEncoder, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    save_encoder(encoder, empty)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "photos", tmp_path / "file", tmp_path / "no" / "where"):
        with pytest.raises(ConfigError):
            save_encoder(encoder, target)
    assert (tmp_path / "photos" / "me.png").exists()


def test_only_finite_encoders_of_known_architectures_are_saved(tmp_path: Path):
    class Other(PointEncoder):
        config_class = EncoderConfig
        capabilities = Capabilities(tokens=False, class_attention=False)

        def forward(self, batch, *, points=True, geometry=None):
            return EncoderOutput(batch.coords)

    with pytest.raises(ConfigError, match="registered architecture"):
        save_encoder(Other(EncoderConfig(), out_channels=3, scene_channels=3), tmp_path / "w")
    encoder = create_encoder("vit3d_test")
    with torch.no_grad():
        encoder.output.bias[0] = float("nan")
    with pytest.raises(WeightError, match=r"output\.bias"):
        save_encoder(encoder, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_architecture_is_written_down(tmp_path: Path):
    for name in ("vit3d_test", "vit3d_tiny"):
        folder = save_encoder(create_encoder(name, channels=("normals",)), tmp_path / name)
        assert encoder_info(folder).architecture == name


# What is refused


def test_a_flipped_bit_is_found(folder: Path):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(WeightError, match="sha256"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(WeightError, match=name):
        load_encoder(folder)


def test_missing_extra_and_misshaped_tensors(folder: Path):
    def drop(tensors: dict) -> None:
        del tensors["output.bias"]

    def add(tensors: dict) -> None:
        tensors["output.bias"] = torch.zeros(32)
        tensors["head.bias"] = torch.zeros(3)

    def reshape(tensors: dict) -> None:
        del tensors["head.bias"]
        tensors["output.bias"] = torch.zeros(33)

    for change, complaint in ((drop, "1 missing"), (add, "1 extra"), (reshape, "shape")):
        rewrite(folder, change)
        with pytest.raises(WeightError, match=complaint):
            load_encoder(folder)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (torch.full((32,), float("nan")), "finite"),
        (torch.full((32,), float("inf"), dtype=torch.float16), "finite"),
        (torch.zeros(32, dtype=torch.int32), "float16 or torch.float32"),
        (torch.zeros(32, dtype=torch.float64), "float16 or torch.float32"),
        (torch.zeros(32, dtype=torch.bool), "float16 or torch.float32"),
    ],
)
def test_unusable_tensors(folder: Path, value: torch.Tensor, complaint: str):
    rewrite(folder, lambda tensors: tensors.update({"output.bias": value}))
    with pytest.raises(WeightError, match=complaint):
        load_encoder(folder)


def test_a_lying_header(folder: Path):
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["output.bias"]["data_offsets"][1] += 4
    lie = json.dumps(header).encode()
    for forged in (
        struct.pack("<Q", len(lie)) + lie + data[8 + length :],
        struct.pack("<Q", 2**60) + data[8:],
        data[:-5],
        data[:4],
        b"",
    ):
        seal(folder, forged)
        with pytest.raises(WeightError):
            load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": 99}, "schema 1"),
        ({"architecture": "vit9d"}, "vit9d"),
        ({"architecture": 3}, "architecture missing or of the wrong type"),
        ({"config": {"wings": 2}}, "wings"),
        ({"config": {"dim": "wide"}}, "settings"),
        ({"config": None}, "config missing"),
        ({"channels": []}, "another channels"),
        ({"preprocessing": {"normalize": "center"}}, "another preprocessing"),
        ({"parameters": 5}, "another parameters"),
        ({"fingerprint": {}}, "fingerprint"),
        ({"fingerprint": {"scene": ["a"]}}, "fingerprint"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, changes: dict, complaint: str):
    edit(folder, **changes)
    with pytest.raises(WeightError, match=complaint):
        load_encoder(folder)


def test_a_setting_that_a_later_release_added_takes_its_default(folder: Path):
    config = json.loads((folder / "config.json").read_text())["config"]
    del config["mlp_ratio"]
    edit(folder, config=config)
    assert load_encoder(folder).config.mlp_ratio == 2.0


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_a_config_that_is_not_json(folder: Path, text: str):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightError, match=r"config\.json"):
        load_encoder(folder)


def test_the_fingerprint_sees_what_a_checksum_cannot(folder: Path):
    config = json.loads((folder / "config.json").read_text())["config"]
    edit(folder, config={**config, "heads": 2})  # the tensors have the same shapes
    with pytest.raises(WeightError, match="differs by"):
        load_encoder(folder)
    other = {**config, "normalize": "center"}
    edit(folder, config=other, preprocessing={"normalize": "center", "max_points": 256})
    with pytest.raises(WeightError, match="differs by"):
        load_encoder(folder)


def test_the_fingerprint_survives_rounding(folder: Path):
    stored = json.loads((folder / "config.json").read_text())["fingerprint"]
    edit(folder, fingerprint={k: [1.002 * x for x in v] for k, v in stored.items()})
    load_encoder(folder)


@pytest.mark.parametrize("device", ["warp", "cuda:99", "meta:x"])
def test_an_unknown_device(folder: Path, device: str):
    with pytest.raises(ConfigError, match="device"):
        load_encoder(folder, device=device)


# Names


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError):
        load_encoder("vit3d_tiny.dcglr_shops")
    with pytest.raises(UnknownNameError, match="random weights"):
        load_encoder("vit3d_tiny")
    with pytest.raises(ConfigError, match="folder"):
        load_encoder(3)
    with pytest.raises(UnknownNameError):
        encoder_info("vit5d")


@pytest.fixture
def registered(encoder: PointEncoder, tmp_path: Path, monkeypatch) -> Path:
    """Register one weight in a folder of its own."""
    name = "vit3d_test.dcglr_nothing"
    folder = save_encoder(encoder, tmp_path / name, card=CARD)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    entry = zoo.Weight(name, "vit3d_test", digest)
    monkeypatch.setattr(zoo, "WEIGHTS", {name: entry})
    monkeypatch.setattr(zoo, "weights_folder", lambda: tmp_path)
    return folder


def test_a_registered_weight(registered: Path, encoder: PointEncoder, monkeypatch):
    name = registered.name
    assert load_encoder(name).config == encoder.config
    info = encoder_info(name)
    assert info.pretrained
    assert info.commercial
    assert info.runs_here
    assert info.card is not None
    assert dataclasses.replace(info.card, facts=None) == CARD
    assert info.parameters == sum(p.numel() for p in encoder.parameters())
    assert [c.name for c in info.channels] == ["coords", "colors"]
    assert name in list_encoders()
    assert list_encoders(pretrained=True) == [name]
    assert list_encoders("*dcglr*", commercial=True, runs_here=True) == [name]
    assert list_encoders(pretrained=True, commercial=False) == []
    (registered / "model.safetensors").unlink()
    assert list_encoders(pretrained=True, runs_here=False) == [name]
    # a file that agrees with its config, but is not the one that was registered
    save_encoder(create_encoder("vit3d_test", seed=8), registered)
    with pytest.raises(WeightError, match="registry"):
        load_encoder(name)


def test_a_folder_without_a_card_says_nothing_about_licences(tmp_path: Path):
    info = encoder_info(save_encoder(create_encoder("vit3d_test"), tmp_path / "mine"))
    assert info.name == "mine"
    assert info.card is None
    assert info.commercial is None


def test_architectures_are_listed_too():
    state = torch.get_rng_state()
    assert set(ARCHITECTURES) <= set(list_encoders())
    assert list_encoders("vit3d_b*") == ["vit3d_base"]
    assert list_encoders("nothing*", pretrained=False) == []
    info = encoder_info("vit3d_small")
    assert (info.pretrained, info.folder, info.commercial) == (False, None, True)
    built, told = create_encoder("vit3d_test"), encoder_info("vit3d_test")
    assert (told.out_channels, told.scene_channels) == (built.out_channels, built.scene_channels)
    assert told.parameters == sum(p.numel() for p in built.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_info_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder_info("vit3d_test").name = "x"


# What is bundled


def test_bundled_weights_are_what_the_registry_says():
    bundled = zoo.weights_folder()
    assert {p.name for p in bundled.iterdir() if p.is_dir()} == set(zoo.WEIGHTS)
    for name, weight in zoo.WEIGHTS.items():
        info = encoder_info(name)
        assert info.architecture == weight.architecture
        assert info.card is not None
        assert info.card.name == name
        load_encoder(name)


def test_the_sample_is_what_its_script_makes():
    stored = np.load(weights.ASSETS / "sample.npy")
    np.testing.assert_allclose(stored, make_sample.make_sample(), atol=1e-6)
    cloud = sample_cloud()
    assert len(cloud) == 1024
    assert cloud.colors is not None
    assert cloud.normals is not None
