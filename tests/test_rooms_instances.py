"""The benchmark of instance segmentation runs, goes on where it stopped, and pairs its seeds."""

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
        "rooms_instances", ROOT / "benchmarks" / "rooms_instances.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rooms_instances", module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three tiny rooms, two to train on: a floor (1) with two chairs (4) on it."""
    rng = np.random.default_rng(0)
    rooms = []
    for number in range(3):
        places = np.array([[0.5, 0.5, 0.3], [1.5, 0.5, 0.3]])
        chairs = [rng.normal(place, 0.1, (120, 3)) for place in places]
        coords = np.concatenate([rng.uniform(0, 2, (200, 3)) * (1, 1, 0), *chairs])
        rooms.append(
            Room(
                RoomRecord(f"r{number}", "test" if number == 2 else "train", "office", ()),
                coords,
                np.full((440, 3), 90, np.uint8),
                np.tile([0.0, 0.0, 1.0], (440, 1)),
                np.repeat([1, 4, 4], [200, 120, 120]),
                np.repeat([-1, 0, 1], [200, 120, 120]).astype(np.int32),
            )
        )
    header = RoomsHeader("toy rooms", "Chairs on a floor.", "none", "CC0", pretraining=False)
    return write_rooms(tmp_path / "rooms", header, rooms, ())


def test_cells_are_computed_once(benchmark, corpus, tmp_path: Path, monkeypatch, capsys):
    weights = save_encoder(create_encoder("sparseunet_test", grid_size=0.1), tmp_path / "mine")
    out = tmp_path / "instances.json"
    words = [str(corpus), "--encoder", str(weights), "--output", str(out)]
    words += ["--seeds", "0", "--steps", "2", "--radius", "0.2"]
    monkeypatch.setattr(sys, "argv", ["rooms_instances.py", *words, "--minutes-cap", "0"])
    benchmark.main()
    assert "goes on" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["rooms_instances.py", *words])
    benchmark.main()
    stored = json.loads(out.read_text())
    assert [(c["weights"], c["seed"]) for c in stored["cells"]] == [("mine", 0), ("scratch", 0)]
    assert all(set(c["values"]) == {"ap", "ap50", "ap25"} for c in stored["cells"])
    assert str(tmp_path) not in stored["command"]
    assert "| scratch |" in capsys.readouterr().out
    before = out.read_bytes()
    benchmark.main()
    assert out.read_bytes() == before


def test_table(benchmark):
    def cell(weights: str, seed: int, ap50: float) -> dict[str, object]:
        values = {"ap": ap50 / 2, "ap50": ap50, "ap25": ap50}
        return {
            "weights": weights, "seed": seed, "rooms": {}, "settings": {}, "values": values,
        }  # fmt: skip

    stored = {
        "cells": [
            cell("a", 0, 0.4), cell("a", 1, 0.5), cell("scratch", 0, 0.3), cell("scratch", 1, 0.3),
        ]
    }  # fmt: skip
    rows = [line for line in benchmark.table(stored).splitlines() if "a |" in line]
    assert rows == ["| a | 22.5 ± 3.5 | 45.0 ± 7.1 | 45.0 ± 7.1 | 15.0 ± 7.1 |"]
