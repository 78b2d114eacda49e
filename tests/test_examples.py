"""Every example runs, with a tiny encoder and small clouds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pointzoo as pz

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let examples import each other, as they do when they are run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


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
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the weights of a tiny encoder of voxels."""
    folder = tmp_path_factory.mktemp("weights") / "sparseunet_test.random"
    pz.save_encoder(pz.create_encoder("sparseunet_test", grid_size=0.1), folder)
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
        "adapt",
        "extract_features",
        "few_labels",
        "finetune_classification",
        "finetune_segmentation",
        "instance_segmentation",
        "linear_probe",
        "run_onnx",
        "toys",  # what the others are made of
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


def test_few_labels(encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _load("few_labels").main(["--encoder", encoder, "--out", str(tmp_path), "--per-class", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("8 labels, fitted in ")
    assert lines[1].startswith("13 labels: ")
    assert (tmp_path / "few_labels.png").stat().st_size > 1000


@pytest.mark.parametrize("method", ["linear", "full"])
def test_finetune_segmentation(
    method: str, scenes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    options = ["--encoder", scenes, "--out", str(out), "--method", method, "--steps", "3"]
    _load("finetune_segmentation").main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "class"
    assert "8,000 points" in next(line for line in lines if "right" in line)
    assert pz.load_model(out).class_names == ("floor", "ball", "box", "post")
    assert (out / "segmentation.png").stat().st_size > 1000


def test_finetune_classification(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _load("finetune_classification").main(["--encoder", encoder, "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("train/ball/0.ply: ball")
    assert pz.load_model(tmp_path / "model").class_names == ("ball", "box", "post")


def test_adapt(scenes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--encoder", scenes, "--out", str(tmp_path / "run"), "--steps", "2"]
    _load("adapt").main(options)
    _load("adapt").main([*options, "--resume"])
    lines = capsys.readouterr().out.splitlines()
    figures = [line for line in lines if line.startswith("before: ")]
    assert len(figures) == 2
    assert figures[0] == figures[1]  # the run was over
    assert pz.load_encoder(tmp_path / "run" / "weights").out_channels == 8


def test_instance_segmentation(
    scenes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder", scenes, "--out", str(tmp_path), "--steps", "4"]
    _load("instance_segmentation").main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "ap", "ap50", "ap25"]
    assert "objects" in next(line for line in lines if "found" in line)
    assert (tmp_path / "instances.png").stat().st_size > 1000


@pytest.mark.parametrize("kind", ["encoder", "scenes"])
@pytest.mark.parametrize("columns", [3, 9])
def test_run_onnx(kind: str, columns: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    encoder = pz.load_encoder(request.getfixturevalue(kind))
    model, cloud, out = (tmp_path / name for name in ("model.onnx", "cloud.npy", "out.npz"))
    pz.export_onnx(encoder, model)
    rng = np.random.default_rng(0)
    table = np.hstack([rng.normal((500.0, 0.0, 20.0), size=(300, 3)), rng.uniform(size=(300, 6))])
    np.save(cloud, table[:, :columns])
    alone = "import sys, runpy; sys.modules.update(torch=None, pointzoo=None); "
    code = f"{alone}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    example = EXAMPLES / "run_onnx.py"
    command = [sys.executable, "-c", code, example, model, "--cloud", cloud, "--out", out]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"300 points, {encoder.out_channels} channels each" in told
    parts = {"colors": table[:, 3:6], "normals": table[:, 6:]} if columns == 9 else {}
    wanted = encoder.extract(pz.PointCloud(coords=table[:, :3], **parts))
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["point"], wanted.point, atol=1e-4)
        np.testing.assert_allclose(stored["scene"], wanted.scene, atol=1e-4)


def test_run_onnx_without_a_cloud(
    scenes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pz.export_onnx(scenes, tmp_path / "model.onnx")
    _load("run_onnx").main([str(tmp_path / "model.onnx"), "--out", str(tmp_path / "out.npz")])
    assert "5,000 points, 8 channels each" in capsys.readouterr().out
