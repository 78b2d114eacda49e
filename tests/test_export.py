"""Features of files in files: names, bytes, fields."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.export import export_features, plan_targets, write_features
from pointzoo.features import Features
from pointzoo.zoo import create_encoder


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    return create_encoder("vit3d_test")


def make_cloud(count: int = 40) -> PointCloud:
    rng = np.random.default_rng(count)
    return PointCloud(
        rng.normal(size=(count, 3)) * 5 + [4e5, 5e6, 100.0],
        colors=rng.integers(0, 256, (count, 3), np.uint8),
        labels=np.arange(count) % 3,
        fields={"intensity": rng.random(count).astype(np.float32)},
    )


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    io.write(tmp_path / "scan.ply", make_cloud())
    return tmp_path / "scan.ply"


def test_npz_holds_everything_and_has_no_clock(encoder, scan: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "f.npz"
    assert export_features(encoder, [scan], out) == [out]
    cloud = io.read(scan)
    expected = encoder.extract(cloud)
    with np.load(out) as stored:
        assert list(stored) == ["point", "scene", "coords", "tokens", "token_coords"]
        for name in ("point", "scene", "tokens", "token_coords"):
            np.testing.assert_array_equal(stored[name], getattr(expected, name))
        np.testing.assert_array_equal(stored["coords"], cloud.coords)
        assert stored["point"].dtype == np.float32
    first = out.read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    export_features(encoder, [scan], out)
    assert out.read_bytes() == first
    with zipfile.ZipFile(out) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_npy_is_the_point_matrix(encoder, scan: Path, tmp_path: Path):
    export_features(encoder, [scan], tmp_path / "f.NPY")
    stored = np.load(tmp_path / "f.NPY")
    np.testing.assert_array_equal(stored, encoder.extract(io.read(scan)).point)


def test_ply_keeps_the_fields_of_the_input(encoder, scan: Path, tmp_path: Path):
    export_features(encoder, [scan], tmp_path / "f.ply")
    before, after = io.read(scan), io.read(tmp_path / "f.ply")
    for name in ("coords", "colors", "labels"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(after.fields["intensity"], before.fields["intensity"])
    columns = [after.fields[f"feature_{i}"] for i in range(encoder.out_channels)]
    np.testing.assert_array_equal(np.stack(columns, 1), encoder.extract(before).point)
    with pytest.raises(FormatError, match="feature_0"):
        export_features(encoder, [tmp_path / "f.ply"], tmp_path / "again.ply")
    export_features(encoder, [tmp_path / "f.ply"], tmp_path / "again.npz")


def test_pca_writes_two_pictures_of_it(encoder, scan: Path, tmp_path: Path):
    out = tmp_path / "f.npz"
    written = export_features(encoder, [scan], out, pca=True)
    assert [p.name for p in written] == ["f.npz", "f.pca.ply", "f.pca.png"]
    colored = io.read(written[1])
    np.testing.assert_array_equal(colored.coords, io.read(scan).coords)
    assert not np.array_equal(colored.colors, io.read(scan).colors)
    assert "intensity" in colored.fields
    assert imread(written[2]).std() > 0.05


def test_several_files_go_to_a_folder(encoder, scan: Path, tmp_path: Path):
    io.write(tmp_path / "b.ply", make_cloud(7))
    out = tmp_path / "new" / "folder"
    written = export_features(encoder, [scan, tmp_path / "b.ply"], out)
    assert written == [out / "scan.npz", out / "b.npz"]
    with np.load(out / "b.npz") as stored:
        assert stored["point"].shape == (7, encoder.out_channels)
    assert export_features(encoder, [scan], out) == [out / "scan.npz"]


def test_names_that_do_not_fit(tmp_path: Path):
    (tmp_path / "file").write_text("")
    scans = [Path("a/scan.ply"), Path("b/scan.las")]
    for files, out, complaint in (
        ([], tmp_path, "at least one"),
        (scans[:1], tmp_path / "out.txt", ".npz"),
        (scans[:1], tmp_path / "out", ".npz"),
        (scans, tmp_path / "out.npz", "folder"),
        (scans, tmp_path / "file", "folder"),
        (scans, tmp_path / "out", "several called scan"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            plan_targets(files, out)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 (names suffice)
    nothing = Features(point=np.zeros((1, 2), np.float32), scene=np.zeros(2, np.float32))
    with pytest.raises(FormatError, match=r"\.npz"):
        write_features(tmp_path / "f.txt", nothing, make_cloud(1))


def test_an_encoder_without_tokens(tmp_path: Path):
    plain = Features(point=np.ones((1, 2), np.float32), scene=np.zeros(2, np.float32))
    write_features(tmp_path / "f.npz", plain, make_cloud(1))
    with np.load(tmp_path / "f.npz") as stored:
        assert list(stored) == ["point", "scene", "coords"]


def test_nothing_is_written_for_a_cloud_that_cannot_be_used(encoder, tmp_path: Path):
    np.save(tmp_path / "hole.npy", np.full((3, 3), np.nan))
    with pytest.raises(CloudError):
        export_features(encoder, [tmp_path / "hole.npy"], tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()
