"""Exported encoders equal the encoders, say what they are, and do not appear if they do not."""

from __future__ import annotations

import builtins
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from shapes import shapes_dataset

import pointzoo as pz
from pointzoo.cli import main
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import ConfigError, ExportError, MissingExtraError, UnknownNameError
from pointzoo.onnx_export import check as check_module
from pointzoo.onnx_export import onnx_inputs
from pointzoo.onnx_export.check import TOLERANCE, session
from pointzoo.onnx_export.file import WRITERS
from pointzoo.onnx_export.graph import Graph
from pointzoo.onnx_export.points import nearest
from pointzoo.testing.support import make_cloud

RICH = {"channels": ("colors", "normals")}
SETTINGS = [
    ("vit3d_test", {}),
    ("vit3d_test", {**RICH, "normalize": "center"}),
    ("dgcnn_test", RICH),
    ("dgcnn_test", {"context": False, "widths": (8, 6, 12), "depths": (2, 1, 1)}),
    ("pct_test", RICH),
    ("sparseunet_test", {"channels": ()}),
    ("sparseunet_test", {"color_range": "-1..1", "channels": ("normals", "colors")}),
    ("sparseunet_test", {"point_features": "trilinear", "normalize": "unit_sphere"}),
]


def spread(encoder: PointEncoder, seed: int = 0) -> PointEncoder:
    """Give normalisations the statistics and gains of a trained network."""
    generator = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            with torch.no_grad():
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.05, 1.5, generator=generator)
                module.weight.uniform_(-1.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    return encoder


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return a function that gives an encoder and its exported graph, written once."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(name: str) -> tuple[PointEncoder, Any]:
        encoder = spread(pz.create_encoder(name))
        path = pz.export_onnx(encoder, folder / f"{name}.onnx").path
        return encoder, session(path.read_bytes())

    return export


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_an_exported_encoder_equals_the_encoder(name, settings, tmp_path):
    encoder = spread(pz.create_encoder(name, **settings))
    file = pz.export_onnx(encoder, tmp_path / "model.onnx")
    found = file.agreement
    assert len(set(found.sizes)) == 10
    assert max(found.sizes) > getattr(encoder.config, "max_points", 0)
    assert found.difference <= TOLERANCE * min(1.0, found.largest)
    runner = session(file.path.read_bytes())
    assert [output.name for output in runner.get_outputs()] == ["point", "scene"]
    cloud = make_cloud(77)
    point, scene = runner.run(None, onnx_inputs(encoder, cloud))
    wanted = encoder.extract(cloud)
    np.testing.assert_allclose(point, wanted.point, atol=TOLERANCE)
    np.testing.assert_allclose(scene, wanted.scene, atol=TOLERANCE)


def test_every_architecture_has_a_writer():
    assert {entry.encoder_class for entry in ARCHITECTURES.values()} == set(WRITERS)


@pytest.mark.parametrize("name", ["vit3d_test", "pct_test", "dgcnn_test", "sparseunet_test"])
@pytest.mark.parametrize("kind", ["one place", "line", "far away"])
def test_unusual_clouds_are_computed_alike(name, kind, exported):
    encoder, runner = exported(name)
    coords = {
        "one place": np.ones((9, 3)),
        "line": np.linspace(0.0, 1.0, 40)[:, None] * np.array([1.0, 0.0, 0.0]),
        "far away": make_cloud(50).coords + 5e6,
    }[kind]
    cloud = pz.PointCloud(coords=coords)
    point, scene = runner.run(None, onnx_inputs(encoder, cloud))
    wanted = encoder.extract(cloud)
    np.testing.assert_allclose(point, wanted.point, atol=TOLERANCE)
    np.testing.assert_allclose(scene, wanted.scene, atol=TOLERANCE)


def test_points_whose_neighbours_are_tied_do_not_stop_an_export(tmp_path):
    encoder = spread(pz.create_encoder("dgcnn_test", max_points=2000, neighbors=20), seed=1)
    found = pz.export_onnx(encoder, tmp_path / "model.onnx").agreement
    assert found.difference <= TOLERANCE
    assert found.tied <= 0.1


def test_the_file_says_what_it_is(tmp_path):
    name = "vit3d_tiny.dcglr_shapes"
    file = pz.export_onnx(name, tmp_path / "model.onnx")
    told = session(file.path.read_bytes()).get_modelmeta()
    info = pz.encoder_info(name)
    assert told.custom_metadata_map == dict(file.metadata)
    assert told.producer_name == "pointzoo"
    assert "Preprocessing is inside" in told.description
    assert file.size == file.path.stat().st_size
    metadata = file.metadata
    assert (metadata["name"], metadata["sha256"]) == (name, info.sha256)
    assert metadata["architecture"] == "vit3d_tiny"
    assert metadata["license"] == info.card.license
    assert metadata["data_licenses"] == ", ".join(info.card.data_licenses)
    assert json.loads(metadata["config"]) == pz.load_encoder(name).config.to_dict()
    assert [channel["name"] for channel in json.loads(metadata["channels"])] == ["coords"]
    assert int(metadata["opset"]) == onnx.load(file.path).opset_import[0].version


def test_an_architecture_is_exported_with_the_weights_of_seed_0(tmp_path):
    cloud = make_cloud(40)
    file = pz.export_onnx("sparseunet_test", tmp_path / "model.onnx")
    encoder = pz.create_encoder("sparseunet_test", seed=0)
    point, _ = session(file.path.read_bytes()).run(None, onnx_inputs(encoder, cloud))
    np.testing.assert_allclose(point, encoder.extract(cloud).point, atol=1e-6)
    assert "sha256" not in file.metadata
    assert file.metadata["preprocessing"] == "outside"


def test_an_encoder_stays_as_it_is(tmp_path):
    encoder = pz.create_encoder("vit3d_test").to(torch.bfloat16).train()
    pz.export_onnx(encoder, tmp_path / "model.onnx")
    assert encoder.training
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}


def test_what_does_not_agree_is_not_written(tmp_path, monkeypatch):
    target = tmp_path / "model.onnx"
    target.write_text("older")
    monkeypatch.setattr(check_module, "TOLERANCE", 1e-12)
    with pytest.raises(ExportError, match="within 1e-12"):
        pz.export_onnx("vit3d_test", target)
    assert names(tmp_path) == ["model.onnx"]
    assert target.read_text() == "older"


def test_other_neighbours_everywhere_are_noticed(tmp_path, monkeypatch):
    def too_few(graph, query, points, k, *, wide=False):
        return nearest(graph, query, points, k - 3 if wide else k, wide=wide)

    monkeypatch.setattr("pointzoo.onnx_export.dgcnn.points.nearest", too_few)
    with pytest.raises(ExportError, match="% of the points with other neighbours"):
        pz.export_onnx(spread(pz.create_encoder("dgcnn_test")), tmp_path / "model.onnx")
    assert names(tmp_path) == []


def test_nan_is_no_agreement(tmp_path):
    encoder = pz.create_encoder("vit3d_test")
    with torch.no_grad():
        encoder.output.weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="nan"):
        pz.export_onnx(encoder, tmp_path / "model.onnx")


class Other(type(pz.create_encoder("vit3d_test"))):
    """An encoder that nothing is known about."""


@pytest.mark.parametrize(
    ("source", "path", "error", "match"),
    [
        ("vit3d_tst", "model.onnx", UnknownNameError, "vit3d_test"),
        ("vit3d_test", "model.pt", ConfigError, "ends in .onnx"),
        ("vit3d_test", "missing/model.onnx", ConfigError, "no such folder"),
        ("vit3d_test", "folder.onnx", ConfigError, "got a folder"),
        (Other(ARCHITECTURES["vit3d_test"].config), "model.onnx", ConfigError, "got Other"),
    ],
)
def test_what_cannot_be_done_is_refused(source, path, error, match, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(error, match=match):
        pz.export_onnx(source, tmp_path / path)
    assert names(tmp_path) == ["folder.onnx"]


def test_a_full_disk_is_a_typed_error(tmp_path, monkeypatch):
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pointzoo.onnx_export.file.replacing", full)
    with pytest.raises(ConfigError, match="No space left"):
        pz.export_onnx("vit3d_test", tmp_path / "model.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_extra(missing, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == missing:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*pointzoo\[onnx\]"):
        pz.export_onnx("vit3d_test", tmp_path / "model.onnx")


def test_the_command(tmp_path):
    out = tmp_path / "model.onnx"
    done = CliRunner().invoke(main, ["export", "vit3d_test", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{out}: 0.1 MB, at most " in done.output
    assert "on 10 clouds" in done.output
    wrong = CliRunner().invoke(main, ["export", "nothing", "-o", str(out)])
    assert wrong.exit_code == 2
    assert "known encoder" in wrong.output


def test_values_of_a_graph_compute_as_numpy_does():
    graph = Graph()
    x = graph.input("x", np.float32, "rows", 2)
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    value = ((x + 1.0) * 2.0 - 0.5) / matrix @ matrix
    graph.output("y", value, "rows", 2)
    model = graph.model({"key": "value"}, "about", "1").SerializeToString()
    given = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    (got,) = session(model).run(None, {"x": given})
    np.testing.assert_allclose(got, ((given + 1.0) * 2.0 - 0.5) / matrix @ matrix, rtol=1e-6)


@pytest.fixture
def benchmark(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that loads one of the benchmarks."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, root / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_benchmark_of_exported_encoders(benchmark, tmp_path, monkeypatch):
    module, output = benchmark("onnx_export"), tmp_path / "onnx.json"
    monkeypatch.setattr(module, "SCENE", 200)
    words = ["vit3d_test", "sparseunet_test", "--repeats", "1", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["onnx_export.py", *words])
    module.main()
    stored = json.loads(output.read_text())
    assert [row["name"] for row in stored["rows"]] == words[:2]
    for row in stored["rows"]:
        assert row["difference"] <= TOLERANCE
        assert 0.0 < row["onnx"]["low"] <= row["onnx"]["median"] <= row["onnx"]["high"]


def test_the_benchmark_of_number_types(benchmark, tmp_path, monkeypatch):
    module, output = benchmark("precision"), tmp_path / "precision.json"
    weights = [
        str(pz.save_encoder(pz.create_encoder(name), tmp_path / name))
        for name in ("vit3d_test", "sparseunet_test")
    ]
    objects = shapes_dataset(per_class=5, points=48)
    monkeypatch.setattr(module, "open_dataset", lambda *_: objects)
    rooms = {"metric": "mIoU", "score": 0.5}
    seen = []
    monkeypatch.setattr(
        module, "segment_rooms", lambda describe, *_: seen.append(describe(objects[0])) or rooms
    )
    words = ["objects", "rooms", "--encoders", *weights, "--seeds", "1", "--points", "32", "40",
             "--repeats", "1", "--output", str(output)]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["precision.py", *words])
    module.main()
    stored = json.loads(output.read_text())
    kinds = ["PyTorch float32", "PyTorch bfloat16", "ONNX float32", "ONNX int8"]
    for part in stored["parts"]:
        assert [row["kind"] for row in part["rows"]] == kinds
    exact, rough, graph, small = (scene for _, scene in seen)
    np.testing.assert_allclose(graph, exact, atol=TOLERANCE)
    largest = np.abs(exact).max()
    assert 0.0 < np.abs(rough - exact).max() < 0.05 * largest
    assert 0.0 < np.abs(small - exact).max() < 0.05 * largest
