"""Large scans from file to file: what ``pointzoo features`` does with them."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest
from voxel_toy import Toy, Wall, make_toy

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError, FormatError
from pointzoo.export import export_features
from pointzoo.features import Features
from pointzoo.io.las import LasChunks


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy()


@pytest.fixture(scope="module")
def cloud() -> PointCloud:
    return Wall(3000).cloud()


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch):
    """Make a few thousand points a large scan."""
    monkeypatch.setattr("pointzoo.tiling.run.TILE_VOXELS", 800)
    monkeypatch.setattr("pointzoo.export.CHUNK_POINTS", 700)


@pytest.mark.parametrize("ending", [".las", ".laz", ".ply"])
def test_a_large_scan_is_cut_and_streamed(toy, cloud, tmp_path: Path, ending: str):
    scan = tmp_path / f"scan{ending}"
    io.write(scan, cloud)
    expected = toy.extract(io.read(scan))
    lines: list[str] = []
    for name in ("f.npy", "f.npz"):
        written = export_features(toy, [scan], tmp_path / name, report=lines.append)
        assert written == [tmp_path / name]
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), expected.point, rtol=1e-6)
    with np.load(tmp_path / "f.npz") as stored:
        np.testing.assert_allclose(stored["point"], expected.point, rtol=1e-6)
        np.testing.assert_allclose(stored["scene"], expected.scene, rtol=1e-6)
        np.testing.assert_array_equal(stored["coords"], io.read(scan).coords)
    assert lines[0] == lines[1]
    assert lines[0].startswith("3,000 points, ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.npy", "f.npz", scan.name]


@pytest.mark.parametrize("ending", [".las", ".ply"])
def test_a_small_scan_is_not_cut(toy, cloud, tmp_path: Path, monkeypatch, ending: str):
    monkeypatch.setattr("pointzoo.tiling.run.TILE_VOXELS", 10**6)
    whole = Features(np.ones((3000, 5), np.float32), np.ones(5, np.float32))
    monkeypatch.setattr(Toy, "extract", lambda *_: whole)
    io.write(tmp_path / f"scan{ending}", cloud)
    export_features(toy, [tmp_path / f"scan{ending}"], tmp_path / "f.npy")
    assert (np.load(tmp_path / "f.npy") == 1.0).all()


def test_formats_that_need_everything_at_once(toy, cloud, tmp_path: Path, monkeypatch):
    scan = tmp_path / "scan.las"
    io.write(scan, cloud)
    export_features(toy, [scan], tmp_path / "f.ply")
    written = io.read(tmp_path / "f.ply")
    np.testing.assert_array_equal(
        written.fields["feature_4"], toy.extract(io.read(scan)).point[:, 4]
    )
    np.testing.assert_array_equal(written.fields["quality"], io.read(scan).fields["quality"])
    names = [p.name for p in export_features(toy, [scan], tmp_path / "f.npy", pca=True)]
    assert names == ["f.npy", "f.pca.ply", "f.pca.png"]
    monkeypatch.setattr("pointzoo.export.LARGEST_IN_MEMORY", 1000)
    for out, pca in (("f.ply", False), ("f.npy", True)):
        with pytest.raises(ConfigError, match=r"a part at a time"):
            export_features(toy, [scan], tmp_path / out, pca=pca)


def test_half_the_size(toy, cloud, tmp_path: Path, monkeypatch):
    scan = tmp_path / "scan.ply"
    io.write(scan, cloud)
    expected = toy.extract(cloud).point
    in_tiles = export_features(toy, [scan], tmp_path / "f.npy", half=True)
    monkeypatch.setattr("pointzoo.tiling.run.TILE_VOXELS", 10**6)
    monkeypatch.setattr(Toy, "extract", lambda *_: Features(expected, expected[0]))
    whole = export_features(toy, [scan], tmp_path / "g.npy", half=True)
    for (path,) in (in_tiles, whole):
        stored = np.load(path)
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, expected, rtol=1e-3)
    with pytest.raises(ConfigError, match="float16"):
        export_features(toy, [scan], tmp_path / "f.ply", half=True)


def test_a_killed_run_goes_on_in_the_same_place(toy, cloud, tmp_path: Path, monkeypatch):
    scan, out = tmp_path / "scan.laz", tmp_path / "f.npy"
    io.write(scan, cloud)

    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pointzoo.export.write_scan", killed)
        with pytest.raises(KeyboardInterrupt):
            export_features(toy, [scan], out)
    assert not out.exists()
    assert (tmp_path / ".f.npy.tiles").is_dir()
    toy.passes.clear()
    lines: list[str] = []
    export_features(toy, [scan], out, report=lines.append, progress=True)
    assert toy.passes == []
    assert "from a run before" in lines[0]
    np.testing.assert_allclose(np.load(out), toy.extract(io.read(scan)).point, rtol=1e-6)
    assert not (tmp_path / ".f.npy.tiles").exists()


def test_las_in_parts_is_what_it_is_as_a_whole(tmp_path: Path):
    rng = np.random.default_rng(2)
    normals = rng.normal(size=(500, 3))
    cloud = PointCloud(
        rng.normal([4e5, 5e6, 0.0], size=(500, 3)),
        colors=rng.integers(0, 65_536, (500, 3), np.uint16),
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
    )
    bare = cloud.replace(colors=None, normals=None)
    for name, given in (("a.las", cloud), ("b.laz", cloud), ("c.las", bare)):
        io.write(tmp_path / name, given)
        chunks = LasChunks(tmp_path / name, 77)
        assert len(chunks) == 500
        for _ in range(2):
            parts = list(chunks)
            whole = io.read(tmp_path / name)
            for key in ("coords", "colors", "normals"):
                expected = getattr(whole, key)
                if expected is None:
                    assert all(getattr(part, key) is None for part in parts)
                else:
                    found = np.concatenate([getattr(part, key) for part in parts])
                    np.testing.assert_array_equal(found, expected)


def test_eight_bits_in_sixteen_are_seen_over_all_parts(tmp_path: Path):
    las = laspy.LasData(laspy.LasHeader(point_format=3))
    las.points = laspy.ScaleAwarePointRecord.zeros(100, header=las.header)
    las["red"] = np.arange(100)
    las.write(str(tmp_path / "a.las"))
    found = np.concatenate([part.colors for part in LasChunks(tmp_path / "a.las", 30)])
    np.testing.assert_array_equal(found, io.read(tmp_path / "a.las").colors)


def test_las_that_is_cut_off_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.las"
    io.write(path, PointCloud(np.random.default_rng(0).normal(size=(50, 3))))
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(FormatError, match="there are fewer"):
        LasChunks(path, 10)
    path.write_bytes(b"no LAS at all")
    with pytest.raises(FormatError, match="LAS header"):
        LasChunks(path, 10)
    path.write_bytes(data)
    chunks = LasChunks(path, 10)
    monkeypatch.setattr(laspy.LasReader, "chunk_iterator", lambda *_: iter(()))
    with pytest.raises(FormatError, match="0 of 50 points"):
        list(chunks)
