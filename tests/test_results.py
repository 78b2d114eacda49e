"""The results table says what its JSON file says, and the JSON comes from the benchmark."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from shapes import shapes_dataset

from pointzoo import zoo

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    module = load("sh3d_probe")
    monkeypatch.setattr(module, "SETTINGS", ((2048, "none"), (32, "z")))
    monkeypatch.setattr(module, "SEEDS", (0,))
    monkeypatch.setattr(module, "CLASSIFIERS", ("svm", "knn"))
    monkeypatch.setattr(module, "ROBUSTNESS_CLASSIFIERS", ("svm",))
    blocks = {"extents": ("extents",), "all": ("extents", "profiles_z")}
    monkeypatch.setattr(module, "DESCRIPTORS", blocks)
    monkeypatch.setattr(module, "ARCHITECTURE", "vit3d_test")
    monkeypatch.setattr(module, "FOLDS", 2)
    data = shapes_dataset(per_class=3, points=48)
    monkeypatch.setattr(module, "open_dataset", lambda _: data)
    monkeypatch.setattr(zoo, "load_encoder", lambda _: zoo.create_encoder("vit3d_test", seed=9))
    short = module.SupervisedConfig(epochs=1, batch_size=8)
    monkeypatch.setattr(module, "CONFIG", short)

    def run(*words):
        output = tmp_path / "results.json"
        arguments = ["sh3d_probe.py", "some/corpus", "--output", str(output), *words]
        monkeypatch.setattr(sys, "argv", arguments)
        module.main()
        return output

    return run


def render(source, target, *words):
    command = [sys.executable, ROOT / "benchmarks" / "render_results.py", "--source", source]
    command += ["--target", target, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_benchmark_and_table_agree(benchmark, tmp_path):
    benchmark("--only", "random", "weights", "descriptors", "supervised", "finetune")
    output = benchmark("--only", "random")
    stored = json.loads(output.read_text())
    assert set(stored["parts"]) == {"random", "weights", "descriptors", "supervised", "finetune"}
    assert stored["parts"]["random"]["command"].endswith("corpus --only random")
    assert "some/" not in output.read_text()
    target = tmp_path / "results.md"
    assert render(output, target).returncode == 0
    assert render(output, target, "--check").returncode == 0
    text = target.read_text()
    best = max(
        (row for row in stored["parts"]["random"]["results"] if row["points"] == 2048),
        key=lambda row: row["mean"],
    )
    assert f"{100 * best['mean']:.1f} ±" in text
    for part in ("What pretraining adds", "trained with labels", "per decade", "(class token)"):
        assert part in text
    target.write_text(text + "changed")
    assert "out of date" in render(output, target, "--check").stderr


def test_scenes_and_benchmarks_are_tables_too(tmp_path):
    module = load("render_results")
    assert list(module.render_scenes(tmp_path)) == []

    def cell(weights, seed, miou):
        names = {"task": "probe", "encoder": "e", "weights": weights, "labels": "5 % of rooms"}
        return {**names, "seed": seed, "scores": {"test": {"miou": miou}}}

    cells = [
        *(cell("random", 0, 0.10), cell("random", 1, 0.20)),
        *(cell("pretrained", 0, 0.20), cell("pretrained", 1, 0.32), cell("pretrained", 2, 0.3)),
    ]
    stored = {"cells": cells, "command": "python rooms_labels.py"}
    (tmp_path / "rooms.json").write_text(json.dumps(stored))
    result = {
        "protocol": "scannet-semseg",
        "metric": "miou",
        "commands": ["pointzoo benchmark scannet-semseg", "pointzoo again"],
        "machine": "a machine",
        "cells": [
            {"encoder": "e", "variant": "", "init": "scratch", "method": "full", "seed": seed,
             "score": {"values": {"miou": 0.7 + seed / 50}}}
            for seed in range(2)
        ],
    }  # fmt: skip
    (tmp_path / "scannet.json").write_text(json.dumps(result))
    rooms, benchmarks = module.render_scenes(tmp_path)
    row = "| probe | `e` | test | 5 % of rooms | 15.0 ± 7.1 | 27.3 ± 6.4 | +11.0 ± 1.4 | 2 |"
    assert row in rooms
    assert "python rooms_labels.py" in rooms
    assert "| scratch | `e` | full | miou 71.0 ± 1.4 | 2 | scratch 72.2, " in benchmarks
    assert (
        "`scannet.json` | `pointzoo benchmark scannet-semseg`<br>`pointzoo again` | a machine"
        in benchmarks
    )
    del cells[:2]
    (tmp_path / "rooms.json").write_text(json.dumps({**stored, "cells": cells[:1]}))
    assert "|  | 20.0 |  | 0 |" in next(module.render_scenes(tmp_path))


def test_instances_few_labels_and_fine_tuning_are_tables_too(tmp_path):
    module = load("render_results")

    def put(name, **content):
        (tmp_path / name).write_text(json.dumps(content))

    def instances(weights, seed, ap50):
        setting = {"rooms": {"train": 9, "test": 3}, "settings": {"max_steps": 50}}
        values = {"ap": 0.1, "ap50": ap50, "ap25": 0.5}
        return {"weights": weights, "seed": seed, "values": values, **setting}

    pairs = (("scratch", 0.2), ("msc", 0.3))
    put(
        "rooms_instances.json",
        cells=[instances(name, seed, ap + seed / 10) for name, ap in pairs for seed in range(2)],
        command="python rooms_instances.py",
    )
    found = {"miou": 0.25, "seconds": 0.123, "miou, as many at random": 0.5}
    put("rooms_few_shot.json", settings={"rooms": "rooms", "seeds": "3"}, results={"random": found})
    starts = (("scratch", 0.5), ("pretrained", 0.75))
    put(
        "sh3d_finetune.json",
        cells=[{"weights": "e", "start": s, "seed": 0, "accuracy": a} for s, a in starts],
        command="python sh3d_finetune.py",
    )
    method = {"rooms": 15, "method": "lora", "weights": "pretrained", "trained": 1234}
    cells = [
        {**method, "seed": i, "miou": 0.2 + i / 10, "megabytes": 1.0, "seconds": 60}
        for i in range(2)
    ]
    cells += [{**cell, "weights": "random", "miou": 0.125} for cell in cells[:1]]
    few = {"points": 20, "transfer": {"morse": 0.5}}
    cells += [{**cell, **few} for cell in cells[:1]]
    put("rooms_methods.json", cells=cells, command="python rooms_methods.py")
    methods, objects, few, tuned = module.render_scenes(tmp_path)
    row = "| 15 rooms | lora | pretrained | 25.0 ± 7.1 | +7.5 | 2 |  |  |  | 1,234 | 1.00 | 60 |"
    assert row in methods
    row = "| 20 points a room | lora | pretrained | 20.0 |  | 1 | 50.0 |  | 1 | 1,234 | 1.00 | 60 |"
    assert row in methods
    row = "| 9 / 3, 50 steps | `msc` | 10.0 ± 0.0 | 35.0 ± 7.1 | 50.0 ± 0.0 | +10.0 ± 0.0 | 2 |"
    assert row in objects
    assert "`scratch` | 10.0 ± 0.0 | 25.0 ± 7.1 | 50.0 ± 0.0 |  | 2 |" in objects
    assert "| random | 25.0 | 50.0 | 0.12 |" in few
    assert "rooms rooms, seeds 3" in few
    assert "| `e` | 50.0 | 75.0 | +25.0 | 1 |" in tuned


def test_results_in_the_documents_are_up_to_date():
    source = ROOT / "docs" / "results" / "sh3d21.json"
    done = render(source, ROOT / "docs" / "results.md", "--check")
    assert done.returncode == 0, done.stderr
