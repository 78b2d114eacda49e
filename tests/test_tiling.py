"""Tiles: equal to the whole, in bounded memory, resumable."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxel_toy import Toy, Wall, make_toy

from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError, ConfigError, FormatError, WeightError
from pointzoo.features import extract
from pointzoo.io.chunks import CloudChunks
from pointzoo.tiling import VoxelTable, compute_tiles, make_plan, to_half
from pointzoo.tiling.files import write_scan
from pointzoo.tiling.store import FolderStore


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy()


@pytest.fixture(scope="module")
def cloud() -> PointCloud:
    return Wall().cloud()


def rows(encoder: Toy, cloud: PointCloud, chunk: int = 700, **options) -> np.ndarray:
    scan = compute_tiles(encoder, CloudChunks(cloud, chunk), **options)
    return scan.rows(cloud.coords)


def test_tiles_equal_the_whole(toy: Toy, cloud: PointCloud):
    whole = rows(toy, cloud, tile_voxels=10**9)
    scan = compute_tiles(toy, CloudChunks(cloud, 999), tile_voxels=2000, halo=9)
    assert len(scan.plan) > 3
    assert scan.plan.exact
    assert scan.plan.halo == 12
    np.testing.assert_allclose(scan.rows(cloud.coords), whole, rtol=1e-6)
    np.testing.assert_allclose(scan.scene, compute_tiles(toy, CloudChunks(cloud)).scene, rtol=1e-6)


def test_a_halo_that_is_too_narrow_shows(toy: Toy, cloud: PointCloud):
    whole = rows(toy, cloud)
    scan = compute_tiles(toy, CloudChunks(cloud), tile_voxels=500, halo=0)
    assert not scan.plan.exact
    assert np.abs(scan.rows(cloud.coords) - whole).max() > 1e-2
    assert "narrower than the receptive field" in scan.summary()


def test_the_size_of_the_parts_changes_nothing_but_rounding(toy: Toy, cloud: PointCloud):
    np.testing.assert_allclose(rows(toy, cloud, 61), rows(toy, cloud, 10**6), atol=1e-5)


def test_voxels_are_found_in_float64(toy: Toy):
    # 0.7 mm steps, 5,400 km from the origin: float32 would see one place
    step = np.arange(200) * 7e-4
    coords = np.stack([np.full(200, 4e5), 5.4e6 + step, np.zeros(200)], axis=1)
    table = VoxelTable.build(CloudChunks(PointCloud(coords)), 0.1, toy.point_channels)
    np.testing.assert_array_equal(table.rows_of(coords), step > 0.05)  # the first in the middle
    assert len(table) == 2


def test_a_voxel_gets_the_mean_of_its_points(toy: Toy, cloud: PointCloud, monkeypatch):
    monkeypatch.setattr("pointzoo.tiling.voxels._MERGE_FROM", 1000)
    table = VoxelTable.build(CloudChunks(cloud, 137), 0.1, toy.point_channels)
    relative = cloud.coords - cloud.coords.min(axis=0)
    cells = np.floor((relative + 0.05) / 0.1).astype(np.int64)
    unique, index = np.unique(cells, axis=0, return_inverse=True)
    index = index.reshape(-1)
    np.testing.assert_array_equal(table.coords, unique)
    np.testing.assert_array_equal(table.rows_of(cloud.coords), index)
    means = [np.bincount(index, cloud.colors[:, c]) / np.bincount(index) for c in range(3)]
    np.testing.assert_allclose(table.features, np.stack(means, 1), atol=1e-6)
    assert table.points == len(cloud)


def test_unusable_scans_are_refused(toy: Toy):
    with pytest.raises(CloudError, match="at least one point"):
        VoxelTable.build([], 0.1, toy.point_channels)
    with pytest.raises(CloudError, match="NaN"):
        VoxelTable.build([PointCloud(np.full((2, 3), np.nan))], 0.1, toy.point_channels)
    far = PointCloud(np.array([[0.0, 0.0, 0.0], [1e7, 1e7, 1e7]]))
    with pytest.raises(CloudError, match=r"2\*\*62 voxels"):
        VoxelTable.build([far], 0.1, toy.point_channels)


coords_lists = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=120, unique=True)


@settings(max_examples=60)
@given(coords_lists, st.integers(1, 60), st.sampled_from([None, 0, 3, 8]))
def test_every_voxel_is_in_one_tile_and_its_surroundings_are_there(places, limit, halo):
    coords = np.array(places)
    plan = make_plan(coords, stride=4, receptive_field=7, tile_voxels=limit, halo=halo)
    tiles = list(plan)
    core = np.concatenate([tile.rows[: tile.core] for tile in tiles])
    assert sorted(core) == list(range(len(coords)))
    np.testing.assert_array_equal(plan.positions()[core], np.arange(len(coords)))
    assert plan.halo % 4 == 0
    assert plan.exact == (plan.halo >= 7 or len(plan) == 1)
    for tile in tiles:
        own = coords[tile.rows[: tile.core]]
        assert len(set(tile.rows.tolist())) == len(tile.rows)
        blocks = np.unique(own // 4, axis=0)
        assert len(tile.rows) <= limit or len(blocks) == 1
        away = np.abs(coords[:, None] - own[None]).max(axis=2).min(axis=1)  # (M,)
        assert set(np.flatnonzero(away <= plan.halo)) <= set(tile.rows.tolist())


def test_a_plan_takes_the_widest_halo_that_it_can_afford():
    line = np.stack([np.arange(4000), np.zeros(4000, int), np.zeros(4000, int)], axis=1)
    ample = make_plan(line, stride=4, receptive_field=64, tile_voxels=1000)
    assert (ample.halo, ample.exact) == (64, True)
    tight = make_plan(line, stride=4, receptive_field=64, tile_voxels=100)
    assert (tight.halo, tight.exact) == (32, False)
    assert tight.overhead <= 6.0
    narrowest = make_plan(line, stride=4, receptive_field=64, tile_voxels=5)
    assert (narrowest.halo, narrowest.exact) == (8, False)
    with pytest.raises(ConfigError, match="at least 1 voxel"):
        make_plan(line, stride=4, receptive_field=1, tile_voxels=0)
    with pytest.raises(ConfigError, match="halo of at least 0"):
        make_plan(line, stride=4, receptive_field=1, halo=-1)


class KilledError(Exception):
    """Stands for a kill."""


def store_in(folder: Path, made: list[FolderStore]):
    def make(*what) -> FolderStore:
        made.append(FolderStore(folder, *what))
        return made[-1]

    return make


def test_a_killed_run_goes_on(toy: Toy, cloud: PointCloud, tmp_path: Path):
    expected = rows(toy, cloud, tile_voxels=1000, halo=8)
    made: list[FolderStore] = []
    options = {"tile_voxels": 1000, "halo": 8, "make_store": store_in(tmp_path / "t", made)}
    seen: list[int] = []

    def die_after_two(voxels: int) -> None:
        seen.append(voxels)
        if len(seen) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        compute_tiles(toy, CloudChunks(cloud), after_tile=die_after_two, **options)
    journal = tmp_path / "t" / "done.jsonl"
    journal.write_text(journal.read_text() + '{"tile": 2')  # cut off while it was written
    toy.passes.clear()
    scan = compute_tiles(toy, CloudChunks(cloud), **options)
    assert made[-1].resumed == 2
    assert len(toy.passes) == len(scan.plan) - 2
    np.testing.assert_array_equal(scan.rows(cloud.coords), expected)

    brighter = cloud.replace(colors=cloud.colors * np.float32(0.5))
    compute_tiles(toy, CloudChunks(brighter), **options)
    assert made[-1].resumed == 0
    journal.write_text("not json")
    compute_tiles(toy, CloudChunks(brighter), **options)
    assert made[-1].resumed == 0
    made[-1].remove()
    assert not (tmp_path / "t").exists()


def test_rows_come_back_from_a_file_in_any_order(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(40_000, 3)).astype(np.float16)
    store = FolderStore(tmp_path / "t", "x", 40_000, 3, np.float16)
    for tile, start in enumerate((20_000, 0)):
        store.write(tile, start, values[start : start + 20_000])
    wanted = np.random.default_rng(1).integers(0, 40_000, 5_000)
    np.testing.assert_array_equal(store.read(wanted), values[wanted])
    assert json.loads((tmp_path / "t" / "done.jsonl").read_text().splitlines()[0]) == {"of": "x"}


def test_files_hold_what_memory_holds(toy: Toy, cloud: PointCloud, tmp_path: Path):
    chunks = CloudChunks(cloud, 1234)
    scan = compute_tiles(toy, chunks, half=True, tile_voxels=1000, halo=8)
    expected = scan.rows(cloud.coords)
    assert expected.dtype == np.float16
    counted: list[int] = []
    for name in ("f.npy", "f.npz"):
        write_scan(tmp_path / name, scan, chunks, dtype=np.float16, after_points=counted.append)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), expected)
    with np.load(tmp_path / "f.npz") as stored:
        assert list(stored) == ["point", "scene", "coords"]
        np.testing.assert_array_equal(stored["point"], expected)
        np.testing.assert_array_equal(stored["scene"], scan.scene)
        np.testing.assert_array_equal(stored["coords"], cloud.coords)
    assert sum(counted) == 3 * len(cloud)
    with zipfile.ZipFile(tmp_path / "f.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    with pytest.raises(FormatError, match="part at a time"):
        write_scan(tmp_path / "f.ply", scan, chunks)


def test_features_that_cannot_be_kept_are_refused(cloud: PointCloud):
    broken = Toy()
    broken.first.weight.data.fill_(np.nan)
    with pytest.raises(WeightError, match="finite"):
        compute_tiles(broken, CloudChunks(cloud))
    with pytest.raises(WeightError, match="float16"):
        to_half(np.array([1e6], np.float32))


def test_extract_cuts_a_large_cloud(toy: Toy, cloud: PointCloud, monkeypatch):
    expected = rows(toy, cloud)
    monkeypatch.setattr("pointzoo.tiling.run.TILE_VOXELS", 5000)
    found = extract(toy, cloud)
    np.testing.assert_array_equal(found.point, expected)
    assert found.tokens is None
    assert found.scene.shape == (10,)
