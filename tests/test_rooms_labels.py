"""The benchmark of label efficiency runs, goes on where it stopped, and says what it found."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pointzoo.data.rooms import Room, RoomRecord, RoomsHeader, write_rooms
from pointzoo.zoo import create_encoder, save_encoder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "rooms_labels", ROOT / "benchmarks" / "rooms_labels.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rooms_labels", module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four tiny rooms, three to train on: a floor (1) and a wall (0)."""
    rng = np.random.default_rng(0)
    rooms = []
    for number in range(4):
        labels = rng.integers(0, 2, 200)
        u, v = rng.uniform(0, 2, (2, 200))
        rooms.append(
            Room(
                RoomRecord(f"r{number}", "test" if number == 3 else "train", "office", ()),
                np.stack([u, np.where(labels == 1, v, 0), np.where(labels == 0, v, 0)], 1),
                np.full((200, 3), 90, np.uint8) + (60 * labels[:, None]).astype(np.uint8),
                np.where(labels[:, None] == 1, [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
                labels,
                np.zeros(200, np.int32),
            )
        )
    header = RoomsHeader("toy rooms", "Two planes.", "none", "CC0", pretraining=False)
    return write_rooms(tmp_path / "rooms", header, rooms, ())


def test_cells_are_computed_once(benchmark, corpus, tmp_path: Path, monkeypatch, capsys):
    weights = save_encoder(create_encoder("sparseunet_test", grid_size=0.1), tmp_path / "mine")
    out = tmp_path / "rooms.json"
    words = [str(corpus), "--encoder", str(weights), "--transfer", str(corpus)]
    words += ["--output", str(out), "--fractions", "0.5", "--points", "20"]
    words += ["--seeds", "0", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["rooms_labels.py", *words, "--minutes-cap", "0"])
    benchmark.main()
    assert "minutes are up" in capsys.readouterr().out
    assert json.loads(out.read_text())["cells"] == []
    monkeypatch.setattr(sys, "argv", ["rooms_labels.py", *words])
    benchmark.main()
    stored = json.loads(out.read_text())
    assert len(stored["cells"]) == 2 * 2 * 2  # task, weights, labels
    assert {tuple(cell["scores"]) for cell in stored["cells"]} == {("test", "rooms")}
    probes = [c["scores"]["test"]["miou"] for c in stored["cells"] if c["task"] == "probe"]
    assert min(probes) > 0.5  # colour alone tells most of them apart
    printed = capsys.readouterr().out
    assert "probe, mine, mIoU on test" in printed
    assert "| 50 % of rooms |" in printed
    assert stored["test"]["points"]["wall"] + stored["test"]["points"]["floor"] == 200
    monkeypatch.setattr(benchmark.Bench, "probe", None)
    monkeypatch.setattr(benchmark.Bench, "finetune", None)
    benchmark.main()  # everything is there already
    assert json.loads(out.read_text())["cells"] == stored["cells"]


def test_a_larger_share_holds_the_smaller(benchmark):
    few, more = (set(benchmark.Labels(rooms=share).choose(100, 3)) for share in (0.05, 0.2))
    assert len(few) == 5
    assert few < more
    assert len(benchmark.Labels(rooms=0.001).choose(100, 3)) == 1
    assert str(benchmark.Labels(points=20)) == "20 points a room"
