"""`pointzoo data check`: every fault is made once and must be found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pointzoo as pz
from pointzoo.cli import main
from pointzoo.data import cost
from pointzoo.data.check import Report, check_data, render
from pointzoo.zoo import create_encoder

RNG = np.random.default_rng(0)


def put(path: Path, points=40, labels=(0, 1), size=4.0, **parts) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts.setdefault("coords", RNG.uniform(0.0, size, (points, 3)))
    parts.setdefault("colors", RNG.uniform(0.0, 1.0, parts["coords"].shape))
    if labels is not None:
        parts["labels"] = np.resize(labels, len(parts["coords"]))
    pz.write(path, pz.PointCloud(**parts))
    return path


def rooms(root: Path) -> Path:
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            put(root / split / f"{i}.ply")
    return root


def kinds(report: Report, severity: str = "error") -> list[str]:
    return [issue.kind for issue in report.issues if issue.severity == severity]


def test_nothing_is_wrong(tmp_path):
    report = check_data(rooms(tmp_path))
    assert report.ok
    assert kinds(report) == kinds(report, "warning") == []
    assert [(part.name, part.clouds, part.points) for part in report.parts] == [
        ("train", 2, 80),
        ("val", 1, 40),
    ]
    assert report.parts[0].classes == {"0": 40, "1": 40}
    assert report.cost is None
    assert "No errors." in render(report)


def test_each_fault_is_an_error(tmp_path):
    train = rooms(tmp_path) / "train"
    (tmp_path / "classes.json").write_text('["floor", "wall", "ceiling"]')
    cases = {
        "unreadable": train / "cut.ply",
        "empty": put(train / "empty.npz", 0),
        "not finite": put(train / "nan.npz", coords=np.full((4, 3), np.nan)),
        "labels out of range": put(train / "range.ply", labels=(0, 3)),
        "labels do not fit": put(train / "fit.xyz", labels=None, colors=None),
        "in two splits": tmp_path / "val" / "copy.ply",
    }
    cases["unreadable"].write_bytes((train / "0.ply").read_bytes()[:300])
    np.save(train / "fit.labels.npy", np.zeros(3, np.int64))
    cases["in two splits"].write_bytes((train / "0.ply").read_bytes())
    report = check_data(tmp_path)
    assert not report.ok
    found = {issue.kind: issue for issue in report.issues if issue.severity == "error"}
    assert set(found) == set(cases)
    for kind, path in cases.items():
        assert any(path.name in where for where in found[kind].where), kind
    assert "3 in train/range.ply" in found["labels out of range"].text
    text = render(report)
    assert text.endswith("There are errors.")
    assert "in two splits" not in text.splitlines()[-1]


def test_what_looks_wrong_is_a_warning(tmp_path):
    put(tmp_path / "train" / "a.ply", 4000, labels=[0] * 999 + [1])
    put(tmp_path / "train" / "b.ply", labels=(0,), colors=None)
    put(tmp_path / "train" / "c.ply", labels=(0,), colors=np.full((40, 3), 0.02))
    put(tmp_path / "train" / "d.ply", labels=(0,), size=8000.0)
    put(tmp_path / "train" / "e.ply", labels=(0,), normals=np.zeros((40, 3)))
    put(tmp_path / "val" / "f.ply", labels=(0, 2))
    put(tmp_path / "val" / "g.ply", labels=None)
    (tmp_path / "val" / "h.ply").write_bytes((tmp_path / "val" / "f.ply").read_bytes())
    report = check_data(tmp_path)
    assert report.ok
    warnings = kinds(report, "warning")
    assert set(warnings) == {
        *("values", "colours missing", "normals missing", "units", "twice"),
        *("classes missing", "imbalance"),
    }
    texts = " ".join(issue.text for issue in report.issues)
    assert "train lacks: 2" in texts
    assert "val lacks: 1" in texts
    assert "one colour" in texts
    assert "millimetre" in texts
    assert "1 (" in texts  # the rare class and its share
    units = next(issue for issue in report.issues if issue.kind == "units")
    assert [where.rpartition("/")[2] for where in units.where] == ["d.ply"]


def test_an_empty_split_is_an_error(tmp_path):
    (rooms(tmp_path) / "Testing").mkdir()
    report = check_data(tmp_path)
    found = [issue.text for issue in report.issues if issue.severity == "error"]
    assert found == ["There is no cloud in Testing."]
    single = tmp_path / "data.npz"
    np.savez(single, data=RNG.random((2, 8, 3)))
    assert kinds(check_data(single), "warning") == ["no labels"]


def test_labels_may_be_missing_or_all_alike(tmp_path):
    put(tmp_path / "none" / "a.ply", labels=None)
    assert kinds(check_data(tmp_path / "none"), "warning") == ["no labels"]
    put(tmp_path / "one" / "a.ply", labels=(0, 0))
    assert kinds(check_data(tmp_path / "one", objects=False)) == ["one class"]
    put(tmp_path / "part" / "train" / "a.ply")
    put(tmp_path / "part" / "val" / "a.ply", labels=None)
    report = check_data(tmp_path / "part", objects=False)
    assert kinds(report, "warning") == ["no labels"]
    assert report.parts[1].labelled == 0


def test_objects_are_counted_by_cloud(tmp_path):
    for split in ("train", "test"):
        for name, count in (("chair", 3), ("table", 1)):
            for i in range(count):
                put(tmp_path / split / name / f"{i}.xyz", labels=None)
    report = check_data(tmp_path, encoder=create_encoder("vit3d_test"))
    assert report.kind == "objects"
    assert report.parts[0].classes == {"chair": 3, "table": 1}
    assert [part.name for part in report.parts] == ["train", "test"]  # once, not for val too
    assert report.ok
    assert report.cost.voxels is None
    assert "(clouds)" in render(report)
    assert "voxels" not in str(report.cost)


def test_the_unit_of_a_survey_is_read(tmp_path, monkeypatch):
    put(tmp_path / "a.las", coords=RNG.uniform(0.0, 9.0, (40, 3)))
    raw = pz.io.RawCloud(np.zeros((1, 3)), unit="foot")
    monkeypatch.setattr("pointzoo.io.read_raw", lambda *_, **__: raw)
    texts = [issue.text for issue in check_data(tmp_path, objects=False).issues]
    assert any("feet" in text for text in texts)


def test_the_cost_of_training_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "CROP_POINTS", 30)
    encoder = create_encoder("sparseunet_test")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    seen = []
    report = check_data(
        rooms(tmp_path), encoder=encoder, after_cloud=lambda *given: seen.append(given)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    found = report.cost
    assert (found.clouds, found.points) == (2, 80)
    assert 0 < found.voxels <= 80
    assert found.train_seconds > 0 < found.features_seconds
    after = encoder.state_dict()
    assert all(bool((after[key] == value).all()) for key, value in before.items())
    assert "2 clouds, 80 points" in render(report)
    (tmp_path / "train" / "0.ply").unlink()
    (tmp_path / "train" / "1.ply").write_text("ply")
    assert check_data(tmp_path, encoder=encoder).cost is None
    monkeypatch.setattr(cost, "_SECONDS", 0.0)
    put(tmp_path / "train" / "0.ply")
    assert check_data(tmp_path, encoder=encoder).cost.train_seconds > 0


@pytest.mark.parametrize(("seconds", "words"), [(3.04, "3.0 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_in_words(seconds, words):
    assert words in str(cost.Cost(1, 1, None, seconds, 0.0))


def test_the_command(tmp_path):
    rooms(tmp_path)
    words = ["data", "check", str(tmp_path), "--encoder", ""]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    many = [str(tmp_path / "train" / "more" / f"{i}.ply") for i in range(7)]
    for name in many:
        put(Path(name), 0)
    result = CliRunner().invoke(main, [*words, "--scenes"])
    assert result.exit_code == 1
    assert "and 2 more" in result.output
    options = ["--ratio", "0.5", "--ratio", "0.5", "--remap", "1=2", "--ignore", "0", "--scenes"]
    result = CliRunner().invoke(main, [*words[:3], *options, "--json", "--encoder", "vit3d_test"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not found["ok"]
    assert found["parts"][0]["classes"] in ({"2": 20}, {"2": 40}, {})
    assert CliRunner().invoke(main, ["data", "check", str(tmp_path / "no")]).exit_code == 2
