"""Every example runs, with a tiny encoder and small clouds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pointzoo as pz

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the weights of a tiny encoder."""
    folder = tmp_path_factory.mktemp("weights") / "vit3d_test.random"
    pz.save_encoder(pz.create_encoder("vit3d_test"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with balls and rods, eight of each."""
    folder = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(0)
    for label, shape in (("ball", (1.0, 1.0, 1.0)), ("rod", (0.05, 0.05, 2.0))):
        (folder / label).mkdir()
        for index in range(8):
            cloud = pz.PointCloud(coords=rng.normal(size=(96, 3)) * shape)
            pz.write(folder / label / f"{index}.ply", cloud)
    return str(folder)


def test_every_example_has_a_test() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {
        "continue_pretraining",
        "extract_features",
        "instance_segmentation",
        "linear_probe",
    }


def test_extract_features(encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _load("extract_features").main(["--encoder", encoder, "--out", str(tmp_path)])
    assert "12,660 points" in capsys.readouterr().out
    with np.load(tmp_path / "features.npz") as stored:
        assert len(stored["point"]) == 12_660
    assert (tmp_path / "features.png").stat().st_size > 1000


def test_linear_probe(encoder: str, objects: str, capsys: pytest.CaptureFixture[str]) -> None:
    _load("linear_probe").main([objects, "--encoder", encoder, "--folds", "2", "--points", "64"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 clouds in 2 classes"
    assert [line.split()[0] for line in lines[1:]] == ["trained", "trained", "random", "random"]
    assert "svm  100.0%" in lines[1]  # balls and rods: any features tell them apart


def test_continue_pretraining(
    encoder: str, objects: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder", encoder, "--out", str(tmp_path), "--steps", "2"]
    _load("continue_pretraining").main([objects, *options, "--batch", "4", "--points", "64"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 steps")
    channels = pz.load_encoder(encoder).scene_channels
    assert f"{channels} channels" in lines[1]


def test_instance_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "sparseunet_test.random"
    pz.save_encoder(pz.create_encoder("sparseunet_test", grid_size=0.1), weights)
    options = ["--encoder", str(weights), "--out", str(tmp_path), "--steps", "4"]
    _load("instance_segmentation").main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "ap", "ap50", "ap25"]
    assert "objects" in next(line for line in lines if "found" in line)
    assert (tmp_path / "instances.png").stat().st_size > 1000
