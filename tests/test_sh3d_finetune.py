"""Benchmarks of encoders of objects run, go on where they stopped, and say what they measured."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from shapes import shapes_dataset

from pointzoo import zoo
from pointzoo.encoders.registry import ARCHITECTURES, build

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_finetuning_is_measured_once_per_weight_start_and_seed(monkeypatch, tmp_path, capsys):
    module = load("sh3d_finetune")
    data = shapes_dataset(per_class=5, points=48)
    monkeypatch.setattr(module, "open_dataset", lambda _: data)
    weight = zoo.save_encoder(zoo.create_encoder("dgcnn_test"), tmp_path / "dgcnn_test.mine")
    output = tmp_path / "found.json"

    def run(*words):
        arguments = ["sh3d_finetune.py", "some/corpus", "--output", str(output)]
        arguments += ["--weights", str(weight), "--points", "32", *words]
        monkeypatch.setattr(sys, "argv", arguments)
        module.main()
        return json.loads(output.read_text())

    first = run("--epochs", "1", "--seeds", "0")
    assert [(row["start"], row["seed"]) for row in first["cells"]] == [
        ("scratch", 0),
        ("pretrained", 0),
    ]
    second = run("--epochs", "1", "--seeds", "0", "1")
    assert second["cells"][:2] == first["cells"]
    assert len(second["cells"]) == 4
    assert {row["weights"] for row in second["cells"]} == {"dgcnn_test.mine"}
    assert "some/" not in output.read_text()
    assert "(2 seeds)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="other settings"):
        run("--epochs", "2", "--seeds", "0")


@pytest.mark.parametrize("name", ["vit3d_test", "dgcnn_test", "pct_test"])
def test_the_plain_networks_are_the_same_networks(name):
    """Same parameters and shapes, but for those that a later normalisation takes away."""
    module = load("encoders")
    config = ARCHITECTURES[name].config
    coords = torch.nn.functional.normalize(torch.randn(2, 64, 3), dim=-1)
    plain = module.PLAIN[type(config)](config).train()
    encoder = build(name).train()
    scene = plain(coords)
    assert scene.shape == (2, encoder.scene_channels)
    scene.sum().backward()
    if name == "pct_test":
        dead = len(plain.attention) * config.group_widths[-1]  # bias of the values
        assert _count(plain) == _count(encoder) + dead
    elif name == "vit3d_test":
        assert _count(plain) == _count(encoder)


def _count(module):
    return sum(p.numel() for p in module.parameters())
