"""Models: predictions for anything, folders that are refused when they are not whole, files out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from finetune_toys import Rooms, Shapes, make_room, make_shape

import pointzoo as pz
from pointzoo import io
from pointzoo.cli import main
from pointzoo.errors import CloudError, ConfigError, FormatError, WeightError
from pointzoo.finetuning.files import plan_outputs, predict_files
from pointzoo.finetuning.model import Model
from pointzoo.finetuning.source import resolve_encoder
from pointzoo.finetuning.task import Score

QUICK: dict[str, Any] = {"max_steps": 3, "validation_share": 0.0, "amp": False}


@pytest.fixture(scope="module")
def model() -> Model:
    return pz.finetune("sparseunet_test", Rooms())


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("models") / "model")


def test_predict_takes_paths_clouds_arrays_and_lists(model: Model, tmp_path: Path):
    room = make_room(5)
    io.write(tmp_path / "room.ply", room)
    first = model.predict(room)
    assert first.labels.shape == (250,)
    assert first.probabilities.shape == (250, 3)
    assert np.array_equal(model.predict(tmp_path / "room.ply").labels, first.labels)
    found = model.predict([room.coords, room])
    assert [len(one.labels) for one in found] == [250, 250]
    assert np.array_equal(found[1].labels, first.labels)
    assert model.class_names == ("floor", "wall", "box")
    with pytest.raises(ConfigError, match="empty list"):
        model.predict([])
    with pytest.raises(CloudError, match="finite"):
        model.predict(np.full((3, 3), np.nan))
    with pytest.raises(CloudError, match="at least one point"):
        model.predict(np.zeros((0, 3)))


def test_votes_average_views(model: Model):
    room = make_room(5)
    assert not np.array_equal(model.predict(room, votes=4).probabilities,
                              model.predict(room).probabilities)  # fmt: skip
    np.testing.assert_allclose(model.predict(room, votes=4).probabilities.sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(ConfigError, match="votes"):
        model.predict(room, votes=0)


def test_normals_turn_with_the_views():
    encoder = pz.create_encoder("vit3d_test", channels=("normals",))
    model = pz.finetune(encoder, Shapes(), task="classification")
    shape = make_shape(0, 3)
    found = model.predict(shape.replace(normals=np.eye(3)[np.arange(64) % 3]), votes=4)
    assert found.probabilities.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["linear", "decoder"])
@pytest.mark.parametrize("points", ["nearest", "trilinear"])
def test_tiles_give_what_the_whole_gives(method: str, points: str, monkeypatch: Any):
    encoder = pz.create_encoder("sparseunet_test", point_features=points)
    model = pz.finetune(encoder, Rooms(), method=method, **QUICK)
    room = make_room(7, 3000)
    whole = model.predict(room)
    monkeypatch.setattr("pointzoo.finetuning.network.whole_points", lambda _: 100)
    monkeypatch.setattr(
        "pointzoo.finetuning.network.compute_tiles",
        lambda network, chunks: compute_tiles(network, chunks, tile_voxels=300, halo=64),
    )
    from pointzoo.tiling import compute_tiles

    tiled = model.predict(room)
    if (method, points) != ("decoder", "trilinear"):  # there logits are blended, not features
        np.testing.assert_allclose(tiled.probabilities, whole.probabilities, atol=2e-5)
    assert (tiled.labels == whole.labels).mean() > 0.95


def test_evaluate_matches_classes_by_name(model: Model):
    class Other(Rooms):
        def __getitem__(self, index: int) -> pz.PointCloud:
            room = super().__getitem__(index)
            assert room.labels is not None
            return room.replace(labels=np.maximum(room.labels - 1, -1))

    renamed = model.evaluate(Other(class_names=("wall", "box")))
    assert renamed.per_class["iou"][0] is None
    assert renamed.class_names == ("floor", "wall", "box")
    assert "-" in renamed.table()
    assert model.evaluate(Rooms(class_names=())).confusion == model.evaluate(Rooms()).confusion
    with pytest.raises(ConfigError, match="lamp"):
        model.evaluate(Rooms(class_names=("floor", "wall", "lamp")))
    shapes = pz.finetune("vit3d_test", Shapes(), task="classification")
    turned = shapes.evaluate(Shapes(class_names=("rod", "disk")))
    assert turned.value == pytest.approx(1.0 - shapes.evaluate(Shapes()).value)
    with pytest.raises(ConfigError, match="clouds with a class"):
        shapes.evaluate(Shapes(0))


def test_a_score_without_classes_is_a_list_of_figures():
    score = Score("ap50", {"ap50": 0.5, "ap25": 0.75})
    assert score.table() == "ap50         50.0\nap25         75.0"
    assert score.to_dict()["values"]["ap25"] == 0.75


# folders ------------------------------------------------------------------------------------------


def test_a_linear_head_on_a_registered_encoder_names_it_and_holds_nothing_of_it(tmp_path: Path):
    encoder = pz.load_encoder("vit3d_tiny.dcglr_shapes")
    model = pz.finetune(encoder, Shapes(2), task="classification")
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    info = pz.encoder_info("vit3d_tiny.dcglr_shapes")
    assert config["encoder"]["name"] == info.name
    assert config["encoder"]["sha256"] == info.sha256
    assert config["encoder"]["commit"]
    assert (tmp_path / "model" / config["tensors"]).stat().st_size < 20_000
    shape = make_shape(1, 77)
    loaded = pz.load_model(tmp_path / "model")
    assert np.array_equal(loaded.predict(shape).probabilities, model.predict(shape).probabilities)
    assert info.sha256 is not None
    assert info.sha256 in (tmp_path / "model" / "README.md").read_text()


def test_an_encoder_in_a_folder_is_named_and_may_move(tmp_path: Path):
    encoder = pz.create_encoder("sparseunet_test", seed=4)
    pz.save_encoder(encoder, tmp_path / "weight")
    model = pz.finetune(tmp_path / "weight", Rooms(), method="lora", **QUICK)
    model.save(tmp_path / "model")
    (tmp_path / "weight").rename(tmp_path / "moved")
    with pytest.raises(WeightError, match="encoder=FOLDER"):
        pz.load_model(tmp_path / "model")
    loaded = pz.load_model(tmp_path / "model", encoder=tmp_path / "moved")
    room = make_room(5)
    assert np.array_equal(loaded.predict(room).probabilities, model.predict(room).probabilities)
    pz.save_encoder(pz.create_encoder("sparseunet_test", seed=5), tmp_path / "weight")
    with pytest.raises(WeightError, match="sha256"):
        pz.load_model(tmp_path / "model")


def test_an_encoder_without_a_name_is_embedded(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    assert config["encoder"]["kind"] == "embedded"
    assert pz.load_model(folder).source.architecture == "sparseunet_test"


def test_saving_replaces_an_older_model_and_nothing_else(model: Model, tmp_path: Path):
    target = model.save(tmp_path / "model")
    (target / "notes.txt").write_text("mine")
    other = pz.finetune("sparseunet_test", Rooms((5, 6, 7)))
    other.save(target)
    assert (target / "notes.txt").read_text() == "mine"
    assert len(list(target.glob("model.*.safetensors"))) == 1
    room = make_room(5)
    assert np.array_equal(pz.load_model(target).predict(room).labels, other.predict(room).labels)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").write_text("x")
    for place in (tmp_path / "else", tmp_path / "no" / "parent", target / "notes.txt"):
        with pytest.raises(ConfigError, match="folder"):
            model.save(place)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_gone(path: Path) -> None:
    path.unlink()


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_gone, damage_empty])
@pytest.mark.parametrize("which", ["config.json", "model.*.safetensors"])
def test_a_damaged_folder_is_refused(model: Model, tmp_path: Path, which: str, damage: Any):
    target = model.save(tmp_path / "model")
    damage(next(target.glob(which)))
    with pytest.raises(WeightError, match="model"):
        pz.load_model(target)


@pytest.mark.parametrize(
    "change",
    [
        {"task": {"name": "segmentation", "class_names": ["a", "b", "c"], "options": {}}},
        {"schema": 9},
        {"kind": "other"},
        {"tensors": "../model.safetensors"},
        {"tensors": 3},
        {"sha256": "0" * 64},
        {"network": {"reads": "levels", "rank": 4, "hidden": 0}},
    ],
)
def test_a_changed_config_is_refused(model: Model, tmp_path: Path, change: dict[str, Any]):
    path = model.save(tmp_path / "model") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightError):
        pz.load_model(tmp_path / "model")


@pytest.mark.parametrize(
    "facts",
    [
        {"task": {"name": "singing", "class_names": [], "options": {}}},
        {"task": {"name": "segmentation", "class_names": ["a"], "options": {"volume": 1}}},
        {"network": {"reads": "point"}},
        {"encoder": {"kind": "embedded", "name": "x", "architecture": "x", "config": {}}},
    ],
)
def test_a_model_of_another_release_is_refused(model: Model, tmp_path: Path, facts: Any):
    from pointzoo.finetuning.store import read_facts, read_tensors, write_model

    config, size = read_facts(model.save(tmp_path / "model"))
    tensors = read_tensors(tmp_path / "model", config, size)
    plain = {k: v for k, v in config.items() if k not in ("tensors", "sha256")}
    write_model(tmp_path / "other", {**plain, **facts}, tensors, "")
    with pytest.raises(WeightError, match="release"):
        pz.load_model(tmp_path / "other")


def test_tensors_must_be_those_of_the_network(model: Model, tmp_path: Path):
    from pointzoo.finetuning.store import read_facts, read_tensors, write_model

    config, size = read_facts(model.save(tmp_path / "model"))
    tensors = read_tensors(tmp_path / "model", config, size)
    plain = {k: v for k, v in config.items() if k not in ("tensors", "sha256")}
    less = {k: v for k, v in tensors.items() if k != "head.layers.bias"}
    bias = tensors["head.layers.bias"]
    for wrong in (less, {**tensors, "more": bias + 1}, {**tensors, "head.layers.bias": bias[:2]}):
        write_model(tmp_path / "other", plain, wrong, "")
        with pytest.raises(WeightError, match=r"head\.layers\.bias|more"):
            pz.load_model(tmp_path / "other")
    with pytest.raises(WeightError, match="NaN"):
        write_model(tmp_path / "other", plain, {**tensors, "head.layers.bias": bias / 0}, "")


def test_a_model_goes_to_a_device_that_is_there(folder: Path):
    with pytest.raises(ConfigError, match="device"):
        pz.load_model(folder, device="cuda:99")


def test_an_object_is_copied_and_named_when_it_equals_a_weight():
    encoder = pz.load_encoder("vit3d_tiny.dcglr_shapes")
    assert resolve_encoder(encoder, seed=0)[1].name == "vit3d_tiny.dcglr_shapes"
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-3)
    copied, source = resolve_encoder(encoder, seed=0)
    assert source.kind == "embedded"
    assert copied is not encoder


# files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".ply", ".npz", ".las", ".pcd", ".csv"])
def test_a_written_prediction_keeps_every_field(model: Model, tmp_path: Path, ending: str):
    room = make_room(5)
    room = room.replace(fields={**room.fields, "confidence": room.fields["time"]})
    if ending == ".las":  # which has no negative classification
        room = room.replace(labels=np.maximum(room.labels, 0))
    source, target = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    io.write(source, room)
    before = io.read(source)
    assert predict_files(model, [source], target) == [target]
    after = io.read(target)
    np.testing.assert_allclose(after.coords, before.coords, atol=1e-6)  # LAS counts in its scale
    np.testing.assert_array_equal(after.labels, model.predict(before).labels)
    np.testing.assert_array_equal(after.fields["input_label"], before.labels)
    np.testing.assert_array_equal(after.fields["time"], before.fields["time"])
    np.testing.assert_array_equal(after.fields["input_confidence"], before.fields["confidence"])
    assert after.fields["confidence"].max() <= 1.0
    again = predict_files(model, [target], tmp_path / f"again{ending}")[0]
    kept = io.read(again).fields
    assert {"input_label", "input_input_label", "input_input_confidence"} <= set(kept)


def test_several_files_go_to_a_folder_with_pictures(model: Model, tmp_path: Path):
    files = []
    for name in ("a.ply", "b.npz", "c.npy"):
        room = make_room(len(files))
        io.write(tmp_path / name, pz.PointCloud(room.coords) if name == "c.npy" else room)
        files.append(tmp_path / name)
    out, pictures = tmp_path / "out", tmp_path / "pictures"
    written = predict_files(model, files, out, picture=pictures, votes=2)
    assert {path.name for path in written} == {
        "a.ply", "b.npz", "c.ply", "a.png", "b.png", "c.png", "classes.json",
    }  # fmt: skip
    assert json.loads((out / "classes.json").read_text()) == ["floor", "wall", "box"]
    with pytest.raises(ConfigError, match=r"\.png"):
        predict_files(model, files, out, picture=tmp_path / "a.png")


def test_outputs_that_do_not_fit_are_refused(tmp_path: Path):
    one, two = tmp_path / "a.ply", tmp_path / "sub" / "a.ply"
    for files, out, match in (
        ([], tmp_path / "x.ply", "at least one file"),
        ([one], tmp_path / "x.xyzw", "ends in"),
        ([one, two], tmp_path / "x.ply", "folder"),
        ([one, two], tmp_path / "out", "different names"),
        ([one], tmp_path, "different names"),
    ):
        with pytest.raises(ConfigError, match=match):
            plan_outputs(files, out)
    with pytest.raises(FormatError, match="labels"):
        plan_outputs([one], tmp_path / "x.npy")


def test_a_class_of_a_cloud_goes_to_every_point(tmp_path: Path):
    model = pz.finetune("vit3d_test", Shapes(), task="classification")
    io.write(tmp_path / "rod.ply", make_shape(1, 3).replace(labels=None))
    predict_files(model, [tmp_path / "rod.ply"], tmp_path / "out.ply")
    cloud = io.read(tmp_path / "out.ply")
    assert cloud.labels is not None
    assert set(cloud.labels) == {model.predict(tmp_path / "rod.ply").label}


def test_command_line(tmp_path: Path):
    for seed in range(5):
        (tmp_path / "rooms" / "train").mkdir(parents=True, exist_ok=True)
        io.write(tmp_path / "rooms" / "train" / f"{seed}.ply", make_room(seed))
    run = CliRunner().invoke(
        main,
        ["finetune", "sparseunet_test", str(tmp_path / "rooms"), "-o", str(tmp_path / "model"),
         "--method", "decoder", "--max-steps", "3", "--set", "amp=false"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "miou" in run.stdout
    io.write(tmp_path / "new.las", make_room(9))
    run = CliRunner().invoke(
        main,
        ["predict", str(tmp_path / "model"), str(tmp_path / "new.las"),
         "-o", str(tmp_path / "out.las"), "--picture", str(tmp_path / "out.png")],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert (tmp_path / "out.png").stat().st_size > 1000
    assert "confidence" in io.read(tmp_path / "out.las").fields
    run = CliRunner().invoke(main, ["predict", str(tmp_path), "x.ply", "-o", "y.ply"])
    assert run.exit_code == 2
