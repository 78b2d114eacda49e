"""Tiles of a SparseUNet: the declared receptive field holds, and tiles equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from voxel_toy import Wall

from pointzoo.batch import PointBatch
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import build
from pointzoo.encoders.voxelize import voxelize
from pointzoo.features import extract
from pointzoo.io.chunks import CloudChunks
from pointzoo.tiling import VoxelTable, compute_tiles, whole_points

TOLERANCE = 1e-5
"""Of the largest feature: float32 sums over tiles in another order give about 1e-6."""


def make(**changes: object) -> PointEncoder:
    """Build the smallest network of two stages, with statistics as if it had been trained."""
    torch.manual_seed(0)
    settings = {"grid_size": 0.1, "channels": ("colors",), "stage_channels": (8, 16, 16, 8)}
    encoder = build("sparseunet_test", **{**settings, "layers": (1, 1, 1, 1), **changes})
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    coords, channels = encoder.preprocess(Wall(3000).cloud())
    with torch.no_grad():
        encoder.train()(PointBatch.collate([coords], [channels]))
    return encoder.eval()


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    return make()


@torch.no_grad()
def test_nothing_reaches_farther_than_declared(encoder: PointEncoder):
    encoder = encoder.double()
    reach = encoder.receptive_field
    length = 2 * reach + 21
    coords = torch.zeros(length, 3, dtype=torch.int64)
    coords[:, 0] = torch.arange(length)
    values = torch.rand(length, 3, dtype=torch.float64)
    offsets = torch.tensor([length])
    before = encoder.forward_voxels(coords, values, offsets)
    farthest = 0
    for place in range(reach, reach + 2 * encoder.stride + 1):
        changed = values.clone()
        changed[place] += 5.0
        after = encoder.forward_voxels(coords, changed, offsets)
        moved = (after != before).any(dim=1).nonzero()[:, 0]
        farthest = max(farthest, int((moved - place).abs().max()))
    assert reach - encoder.stride <= farthest <= reach  # it is no wild guess either
    encoder.float()


@pytest.mark.parametrize("blend", ["nearest", "trilinear"])
def test_tiles_equal_the_whole(blend: str):
    encoder = make(point_features=blend)
    cloud = Wall(9000).cloud()
    coords, channels = encoder.preprocess(cloud)
    with torch.no_grad():
        whole = encoder(PointBatch.collate([coords], [channels]))
    scan = compute_tiles(
        encoder, CloudChunks(cloud, 2500), tile_voxels=2500, halo=encoder.receptive_field
    )
    assert len(scan.plan) >= 3
    assert scan.plan.exact
    expected = whole.point.numpy()
    largest = np.abs(expected).max()
    np.testing.assert_allclose(scan.rows(cloud.coords), expected, atol=TOLERANCE * largest)
    np.testing.assert_allclose(scan.scene, whole.scene[0], atol=TOLERANCE * largest)


def test_a_large_cloud_is_extracted_like_a_small_one(encoder: PointEncoder, monkeypatch):
    cloud = Wall(4000).cloud()
    whole = extract(encoder, cloud)
    monkeypatch.setattr("pointzoo.tiling.run.TILE_VOXELS", 2000)
    tiled = extract(encoder, cloud)
    atol = TOLERANCE * np.abs(whole.point).max()
    np.testing.assert_allclose(tiled.point, whole.point, atol=atol)
    np.testing.assert_allclose(tiled.scene, whole.scene, atol=atol)


def test_only_clouds_in_metres_are_cut(encoder: PointEncoder):
    assert whole_points(encoder)
    assert whole_points(make(normalize="unit_sphere")) is None
    assert whole_points(build("vit3d_test")) is None


def test_no_point_changes_its_voxel_by_rounding(encoder: PointEncoder):
    rng = np.random.default_rng(0)
    cloud = Wall(50_000).cloud()
    cloud = cloud.replace(coords=cloud.coords + rng.uniform(0, 300, (50_000, 1)))
    seen, _ = encoder.preprocess(cloud)
    table = VoxelTable.build(CloudChunks(cloud), encoder.grid_size, encoder.point_channels)
    found = voxelize(seen, torch.tensor([len(cloud)]), encoder.grid_size)
    np.testing.assert_array_equal(found.voxel, table.rows_of(cloud.coords))
    plain = voxelize(
        torch.from_numpy(cloud.coords - cloud.coords.mean(axis=0)).float(),
        torch.tensor([len(cloud)]),
        encoder.grid_size,
    )
    assert (plain.voxel != found.voxel).any()  # rounding alone would have moved some


def test_coordinates_beyond_float32_do_not_hang(encoder: PointEncoder):
    cloud = Wall(100).cloud()
    coords = cloud.coords.copy()
    coords[0] += 1e9
    seen, _ = encoder.preprocess(cloud.replace(coords=coords))
    assert seen.isfinite().all()
