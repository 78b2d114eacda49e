"""Fine-tuning from the call to the folder: every method, every task, resume to the bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_toys import Rooms, Shapes, make_room

import pointzoo as pz
from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError, TrainingError, UnknownNameError
from pointzoo.finetuning.config import FinetuneConfig, build_config
from pointzoo.finetuning.data import Drawing, Items, class_weights, labelled_rows, split
from pointzoo.finetuning.segmentation import Segmentation
from pointzoo.finetuning.trainer import schedule

QUICK: dict[str, Any] = {"max_steps": 6, "validate_steps": 3, "statistics": 2, "amp": False}


def files(folder: Path) -> dict[str, bytes]:
    """Return the model that a folder holds."""
    found = [*folder.glob("model.*.safetensors"), folder / "config.json"]
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.parametrize("method", ["linear", "decoder", "lora", "full"])
def test_every_method_gives_a_model_that_is_the_same_after_loading(tmp_path: Path, method: str):
    encoder = pz.create_encoder("sparseunet_test")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    out = tmp_path / "model"
    model = pz.finetune(encoder, (Rooms(), Rooms((9,))), method=method, out=out, **QUICK)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert model.scores["validation"]["values"]["miou"] > 0.1
    room = make_room(20)
    found, again = model.predict(room), pz.load_model(out).predict(room)
    assert np.array_equal(found.labels, again.labels)
    assert np.array_equal(found.probabilities, again.probabilities)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, rtol=1e-5)
    table = (out / "validation.txt").read_text()
    assert "floor" in table
    assert "miou" in table
    assert (out / "validation.png").stat().st_size > 1000
    if method != "linear":
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log if line["kind"] == "validation"] == [3, 6]
        assert pz.load_model(out / "last").method == method


def test_training_helps():
    data = (Rooms(), Rooms((9, 10)))
    model = pz.finetune(
        "sparseunet_test",
        data,
        method="full",
        max_steps=20,
        validate_steps=20,
        learning_rate=5e-3,
        amp=False,
    )
    score = model.evaluate(Rooms((11, 12)))
    assert score.metric == "miou"
    assert score.value > 0.5
    assert len(score.confusion) == 3
    assert "recall" in score.table().splitlines()[0]


@pytest.mark.parametrize("method", ["linear", "full"])
def test_classification(method: str):
    settings = (
        {"epochs": 4, "batch_size": 4, "validate_steps": 12, "amp": False}
        if method == "full"
        else {}
    )
    data = Shapes()
    model = pz.finetune("vit3d_test", data, task="classification", method=method, **settings)
    assert model.evaluate(Shapes(4, first=50)).value >= 0.9
    found = model.predict(data[1])
    assert (found.label, found.probabilities.shape) == (1, (2,))
    assert model.predict([data[0], data[1]], votes=3)[0].label == 0


def test_parts_know_their_categories(tmp_path: Path):
    model = pz.finetune(
        "vit3d_test",
        Shapes(),
        task="part",
        method="decoder",
        max_steps=40,
        validate_steps=40,
        out=tmp_path / "m",
    )
    shape = Shapes(first=90)[0]
    free = model.predict(shape)
    told = pz.load_model(tmp_path / "m").predict(shape, category="disk")
    assert set(told.labels) <= {0, 1}
    assert free.probabilities.shape == told.probabilities.shape == (64, 4)
    assert np.array_equal(told.labels, model.predict(shape, category=0).labels)
    score = model.evaluate(Shapes(4, first=70))
    assert 0.3 < score.value <= 1.0
    assert set(score.values) == {"instance miou", "class miou", "accuracy"}
    with pytest.raises(UnknownNameError, match="rod"):
        model.predict(shape, category="rood")
    with pytest.raises(ConfigError, match="category"):
        pz.finetune("vit3d_test", Shapes(), task="classification").predict(shape, category="rod")


class Interrupts:
    """Rooms that send a signal when they have been read so often."""

    def __init__(self, after: int) -> None:
        self.whole, self.after = Rooms(), after
        self.name, self.names = self.whole.name, self.whole.names
        self.class_names, self.labels = self.whole.class_names, None

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> PointCloud:
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.whole[index]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pointzoo.finetuning.data.CACHED_POINTS", 0)  # every use reads
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given: dict[str, Any] = {"method": method, **QUICK, "accumulate": 2, "mix": 0.5}
    pz.finetune("sparseunet_test", (Rooms(), Rooms((9,))), out=whole, **given)
    stopping = Interrupts(4 + 2 * 2 * 2)  # 4 reads for the labels, up to 4 a step
    with pytest.raises(TrainingError, match=r"wish to stop after step [1-5]"):
        pz.finetune("sparseunet_test", (stopping, Rooms((9,))), out=parts, **given)
    with pytest.raises(ConfigError, match="resume"):
        pz.finetune("sparseunet_test", (Rooms(), Rooms((9,))), out=parts, **given)
    with pytest.raises(ConfigError, match="another config"):
        pz.finetune(
            "sparseunet_test", (Rooms(), Rooms((9,))), out=parts, resume=True,
            **{**given, "learning_rate": 0.1},
        )  # fmt: skip
    pz.finetune("sparseunet_test", (Rooms(), Rooms((9,))), out=parts, resume=True, **given)
    assert files(parts) == files(whole)
    assert files(parts / "last") == files(whole / "last")
    # a finished run has nothing left to do
    pz.finetune("sparseunet_test", (Rooms(), Rooms((9,))), out=parts, resume=True, **given)
    assert files(parts) == files(whole)


def test_without_validation_the_last_step_counts(tmp_path: Path):
    out = tmp_path / "m"
    model = pz.finetune(
        "sparseunet_test", Rooms(), method="decoder", validation_share=0.0, out=out, **QUICK
    )
    assert model.scores == {}
    assert not (out / "validation.txt").exists()
    assert {k: v for k, v in files(out).items() if "model" in k} == {
        k: v for k, v in files(out / "last").items() if "model" in k
    }


def test_early_stopping(tmp_path: Path):
    given = {**QUICK, "max_steps": 50, "validate_steps": 1, "patience": 2, "learning_rate": 1e-11}
    out = tmp_path / "m"
    pz.finetune("sparseunet_test", (Rooms(), Rooms((9,))), method="decoder", out=out, **given)
    log = (out / "log.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "validation" for line in log) == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "linea"}, "linear"),
        ({"task": "segmentaton"}, "segmentation"),
        ({"preset": "ms"}, "msc"),
        ({"learning_rat": 1.0}, "learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate from"),
        ({"augmentation": "lite"}, "light"),
        ({"class_weights": "inverse"}, "sqrt_inverse"),
        ({"class_weights": [1.0, 2.0], "method": "full"}, "3 class weights"),
        ({"freeze": 99, "method": "full"}, "frozen parts"),
        ({"encoder": "sparseunet_tes"}, "sparseunet_test"),
        ({"encoder": 3}, "its name or its folder"),
        ({"mix": 0.5, "task": "classification", "data": Shapes(), "method": "full"}, "mix=0"),
        ({"task": "classification"}, "class"),
        ({"task": "part", "data": Shapes(0)}, "part"),
        ({"data": Rooms(())}, "training cloud"),
        ({"data": (Rooms(), Rooms(()))}, "validation cloud"),
        ({"data": (Rooms(), Rooms(class_names=("a", "b", "c")))}, "validation set"),
        ({"data": Rooms(class_names=("floor", "wall"))}, "labels from -1 to 1"),
        ({"data": Shapes(), "method": "linear", "encoder": "vit3d_test"}, "labels from -1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], match: str, tmp_path: Path):
    given = {"encoder": "sparseunet_test", "data": Rooms(), "out": tmp_path / "m", **change}
    with pytest.raises((ConfigError, UnknownNameError), match=match):
        pz.finetune(**given)
    assert not (tmp_path / "m" / "config.json").exists()


def test_settings_come_from_task_preset_and_call():
    config, options = build_config(Segmentation, None, "msc", {"max_steps": 7})
    assert (config.method, config.max_steps, config.batch_size) == ("full", 7, 48)
    assert (config.optimizer, config.schedule, config.mix) == ("sgd", "one_cycle", 0.8)
    assert options.label_smoothing == 0.0
    config, options = build_config(Segmentation, "lora", "dgcnn", {"class_weights": [1, 2, 3]})
    assert (config.method, config.class_weights) == ("lora", (1.0, 2.0, 3.0))
    assert options.label_smoothing == 0.2
    assert build_config(Segmentation, None, None, {"amp": True, "thin": None})[0].amp is True


@pytest.mark.parametrize("kind", ["cosine", "one_cycle", "poly", "constant"])
def test_rates_rise_and_fall(kind: str):
    config = FinetuneConfig(schedule=kind, warmup=0.2, final=0.01)
    rates, momenta = zip(*(schedule(config, step, 100) for step in range(100)), strict=True)
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.2
    assert (rates[-1] > 0.99) == (kind == "constant")
    assert min(rates[20:]) >= 0.0099
    assert min(momenta) == pytest.approx(0.85 if kind == "one_cycle" else 0.9, abs=1e-3)


def test_sgd_layer_decay_and_frozen_parts_leave_what_they_should():
    start = pz.create_encoder("sparseunet_test", seed=0)
    model = pz.finetune(
        "sparseunet_test", Rooms(), method="full", freeze=2, layer_decay=0.5, optimizer="sgd",
        preset="msc_efficient", batch_size=2, augmentation="light", class_weights="sqrt_inverse",
        **QUICK,
    )  # fmt: skip
    state, before = model.network.encoder.state_dict(), start.state_dict()
    same = {name.split(".")[0] for name in before if torch.equal(state[name], before[name])}
    assert "stem" in same
    assert not torch.equal(state["dec.0.blocks.0.conv1.weight"],
                           before["dec.0.blocks.0.conv1.weight"])  # fmt: skip


def test_class_weights_grow_with_rarity():
    encoder = pz.create_encoder("sparseunet_test")
    items = Items(Rooms(class_names=("floor", "wall", "box", "none")), encoder,
                  Segmentation(("floor", "wall", "box", "none")), thin=0.0)  # fmt: skip
    rows = labelled_rows(items)
    config = FinetuneConfig(class_weights="sqrt_inverse")
    weights = class_weights(items, rows, config)
    assert weights is not None
    counts = items.task.class_counts(items[int(row)] for row in rows)
    assert weights[3] == 0.0
    assert weights[:3].mean() == pytest.approx(1.0)
    assert bool((weights[:3].argsort() == counts[:3].argsort(descending=True)).all())
    assert class_weights(items, rows, FinetuneConfig()) is None


def test_batches_are_functions_of_their_number():
    encoder = pz.create_encoder("sparseunet_test")
    items = Items(Rooms(), encoder, Segmentation(("floor", "wall", "box")), thin=None)
    config = FinetuneConfig(crop_points=100, mix=1.0)
    drawing = Drawing(items, labelled_rows(items), config, seed=3)
    one, target = drawing.batch(5)
    two, again = drawing.batch(5)
    assert torch.equal(one.coords, two.coords)
    assert torch.equal(target, again)
    assert (one.num_clouds, len(one.coords)) == (1, 200)  # two crops of 100, laid over each other
    assert not torch.equal(one.coords, drawing.batch(6)[0].coords)


def test_one_class_alone_cannot_be_learnt():
    class One(Rooms):
        def __getitem__(self, index: int) -> PointCloud:
            room = super().__getitem__(index)
            return room.replace(labels=np.where(room.labels == 1, 1, -1))

    with pytest.raises(ConfigError, match="at least two classes"):
        pz.finetune("sparseunet_test", One())


def write_rooms(folder: Path, seeds: tuple[int, ...]) -> None:
    folder.mkdir(parents=True)
    for seed in seeds:
        io.write(folder / f"room{seed}.ply", make_room(seed))


def test_a_part_named_val_validates_and_one_named_test_is_never_touched(tmp_path: Path):
    write_rooms(tmp_path / "a" / "train", (0, 1, 2))
    write_rooms(tmp_path / "a" / "val", (9,))
    train, validation = split(tmp_path / "a", share=0.2, seed=0)
    assert validation is not None
    assert (len(train), len(validation)) == (3, 1)
    write_rooms(tmp_path / "b" / "train", (0, 1, 2, 3, 4))
    write_rooms(tmp_path / "b" / "test", (9,))
    train, validation = split(tmp_path / "b", share=0.4, seed=0)
    assert validation is not None
    assert (len(train), len(validation)) == (3, 2)
    assert not any("room9" in name for name in (*train.names, *validation.names))
    assert split(tmp_path / "b", share=0.0, seed=0)[1] is None
    write_rooms(tmp_path / "c", (0, 1))
    train, validation = split(tmp_path / "c", share=0.2, seed=0)
    assert len(train) == 1
    model = pz.finetune("sparseunet_test", tmp_path / "a")
    assert model.evaluate(tmp_path / "a").value == model.scores["validation"]["values"]["miou"]
    assert (
        model.evaluate(tmp_path / "b").confusion
        == model.evaluate(Rooms((9,), class_names=())).confusion
    )
    assert model.evaluate(tmp_path / "b", split="train").confusion


def test_held_out_clouds_keep_the_shares_of_the_classes():
    train, validation = split(Shapes(10), share=0.2, seed=1)
    assert validation is not None
    assert np.bincount(np.asarray(validation.labels)).tolist() == [2, 2]
    assert set(train.names).isdisjoint(validation.names)
    assert len(train) == 16
    assert len(validation[0]) == 64
