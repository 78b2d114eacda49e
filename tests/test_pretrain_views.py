"""Crops, half-resolution clouds and augmentations, against brute force and stored values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo import ops
from pointzoo.pretrain import views
from pointzoo.pretrain.views import Augmentation, ObjectClouds

GOLDEN = Path(__file__).parent / "golden"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_clouds(clouds: int = 3, points: int = 60, channels: int = 0) -> ObjectClouds:
    generator = seeded(clouds * points)
    coords = torch.randn(clouds, points, 3, generator=generator)
    return ObjectClouds(coords, torch.randn(clouds, points, channels, generator=generator))


def whole(points: torch.Tensor) -> ObjectClouds:
    return ObjectClouds(points[None], points.new_zeros(1, len(points), 0))


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)  # values of about 1, float32


def rows_of(found: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return for each found point which input point it is, -1 for none."""
    equal = (found[:, None] == points[None]).all(dim=-1)
    return torch.where(equal.any(dim=1), equal.int().argmax(dim=1), -1)


# Crops


def test_a_crop_is_the_stored_ball():
    with np.load(GOLDEN / "ball_crop.npz") as stored:
        points, ratio = torch.from_numpy(stored["points"]), float(stored["ratio"])
        centre, kept = int(stored["center_index"]), stored["kept_sorted"]
    copies = whole(points).views(2000)  # enough that the stored centre is drawn
    groups = views.neighbour_groups(whole(points)).repeat(2000, 1, 1)
    crops = views.ball_crops(copies, groups, (ratio, ratio), seeded()).coords
    assert crops.shape[1] == math.ceil(ratio * len(points)) == len(kept)
    (mine, *_) = [crop for crop in crops if torch.equal(crop[0], points[centre])]
    assert sorted(rows_of(mine, points).tolist()) == kept.tolist()
    rows = ops.ball_crop(points, torch.tensor([300]), torch.tensor([centre]), torch.tensor([111]))
    assert rows.tolist() == kept.tolist()


@settings(max_examples=30)
@given(st.integers(5, 40), st.floats(0.05, 1.0), st.integers(0, 50))
def test_a_crop_of_fixed_share_holds_the_nearest_points(points, ratio, seed):
    clouds = random_clouds(2, points)
    groups = views.neighbour_groups(clouds)
    crops = views.ball_crops(clouds, groups, (ratio, ratio), seeded(seed))
    size = crops.coords.shape[1]
    assert size == min(math.ceil(points * ratio - 1e-9), points)
    for crop, cloud in zip(crops.coords, clouds.coords, strict=True):
        rows = rows_of(crop, cloud)
        assert len(set(rows.tolist()) - {-1}) == size
        distance = (cloud - crop[0]).norm(dim=1)
        assert set(rows.tolist()) == set(distance.argsort()[:size].tolist())


def test_short_crops_are_topped_up_with_means_of_neighbours():
    clouds = random_clouds(8, 100, channels=2)
    groups = views.neighbour_groups(clouds)
    crops = views.ball_crops(clouds, groups, (0.2, 0.5), seeded())
    assert crops.coords.shape == (8, 50, 3)
    assert crops.features.shape == (8, 50, 2)
    means = clouds.coords[torch.arange(8)[:, None, None], groups].mean(dim=2)
    feature_means = clouds.features[torch.arange(8)[:, None, None], groups].mean(dim=2)
    lengths = set()
    for b in range(8):
        own = rows_of(crops.coords[b], clouds.coords[b])
        kept = int((own >= 0).sum())
        lengths.add(kept)
        assert 20 <= kept <= 50
        assert (own[:kept] >= 0).all()
        assert torch.equal(crops.features[b, :kept], clouds.features[b, own[:kept]])
        rows = own[:kept]
        nearest = torch.cdist(crops.coords[b, kept:], means[b, rows]).argmin(dim=1)
        assert_close(crops.coords[b, kept:], means[b, rows[nearest]])
        assert_close(crops.features[b, kept:], feature_means[b, rows[nearest]])
    assert len(lengths) > 1


def test_crop_lengths_fill_their_range():
    counts = views.crop_counts(1000, (0.7, 1.0), 5000, seeded())
    assert 700 <= int(counts.min()) <= 705
    assert 995 <= int(counts.max()) <= 1000
    assert float(counts.float().mean()) == pytest.approx(850.5, abs=5)
    assert views.crop_counts(3, (0.0001, 0.0001), 4, seeded()).tolist() == [1] * 4


def test_a_group_holds_the_point_itself_and_its_nearest():
    clouds = random_clouds(2, 30)
    groups = views.neighbour_groups(clouds)
    assert groups.shape == (2, 30, 4)
    distance = torch.cdist(clouds.coords, clouds.coords)
    assert torch.equal(groups[..., 0], torch.arange(30).expand(2, -1))
    assert torch.equal(groups.sort(-1).values, distance.argsort(-1)[..., :4].sort(-1).values)


# Half resolution


def test_half_resolution_is_farthest_point_sampling():
    with np.load(GOLDEN / "fps_half_resolution.npz") as stored:
        points, expected = torch.from_numpy(stored["points"]), stored["index"]
        start = torch.tensor([int(stored["fps_start"])])
    offsets, half = torch.tensor([300]), torch.tensor([150])
    rows = ops.farthest_point_sampling(points, offsets, half, start=start)
    assert rows.tolist() == expected.tolist()
    # the view starts elsewhere (independent of the order of the points) but is the same sampling
    rows = ops.farthest_point_sampling(points, offsets, half)
    assert torch.equal(views.half_resolution(whole(points)).coords[0], points[rows])


@pytest.mark.parametrize(("points", "half"), [(1, 1), (2, 1), (7, 3), (8, 4)])
def test_half_of_any_size(points, half):
    clouds = random_clouds(3, points, channels=1)
    thin = views.half_resolution(clouds)
    assert thin.coords.shape == (3, half, 3)
    for b in range(3):
        rows = rows_of(thin.coords[b], clouds.coords[b])
        assert len(set(rows.tolist())) == half
        assert torch.equal(thin.features[b], clouds.features[b, rows])


# Augmentations


def test_jitter_is_clipped_and_leaves_channels():
    clouds = random_clouds(2, 500, channels=1)
    change = Augmentation(jitter_sigma=0.1, jitter_clip=0.15)
    noisy = views.jitter(clouds, change, seeded())
    moved = noisy.coords - clouds.coords
    assert float(moved.abs().max()) == pytest.approx(0.15, abs=1e-6)
    assert float(moved.std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(noisy.features, clouds.features)


def test_rescale_stretches_axes_and_turns_normals():
    generator = seeded(1)
    coords = torch.randn(1, 400, 3, generator=generator)
    normals = torch.randn(1, 400, 3, generator=generator)
    normals = normals / normals.norm(dim=-1, keepdim=True)
    tangents = torch.cross(normals, torch.randn(1, 400, 3, generator=generator), dim=-1)
    clouds = ObjectClouds(coords, torch.cat([torch.rand(1, 400, 3), normals], dim=-1))
    scaled = views.rescale(clouds, (0.5, 2.0), ("colors", "normals"), seeded(2))
    factor = scaled.coords[0, 0] / coords[0, 0]
    assert_close(scaled.coords, coords * factor)
    assert ((factor > 0.5) & (factor < 2.0)).all()
    assert len(set(factor.tolist())) == 3
    turned = scaled.features[..., 3:]
    assert_close(turned.norm(dim=-1), torch.ones(1, 400))
    across = (turned * tangents * factor).sum(
        dim=-1
    )  # a surface stays at right angles to its normal
    assert_close(across, torch.zeros(1, 400), 1e-5)
    assert torch.equal(scaled.features[..., :3], clouds.features[..., :3])


def test_shift_moves_each_cloud_as_one():
    clouds = random_clouds(300, 5)
    moved = views.shift(clouds, 0.2, seeded()).coords - clouds.coords
    assert_close(moved, moved[:, :1].expand(-1, 5, -1), 1e-6)
    assert float(moved.abs().max()) == pytest.approx(0.2, abs=0.005)
    assert float(moved.mean()) == pytest.approx(0.0, abs=0.02)


def test_rotation_about_z_is_right_handed_and_takes_normals_along():
    x, y, z = torch.eye(3)
    clouds = ObjectClouds(torch.stack([x, y, z])[None], torch.stack([x, y, z])[None])
    turned = views.rotate_z(clouds, torch.tensor([math.pi / 2]), ("normals",))
    expected = torch.stack([y, -x, z])[None]
    assert_close(turned.coords, expected, 1e-6)
    assert_close(turned.features, expected, 1e-6)
    plain = views.rotate_z(clouds, torch.tensor([1.0]), ("colors",))
    assert torch.equal(plain.features, clouds.features)


def test_the_generator_decides_everything():
    clouds = random_clouds(4, 50)
    groups = views.neighbour_groups(clouds)
    before = torch.get_rng_state()

    def all_of_them(seed: int) -> list[torch.Tensor]:
        generator = seeded(seed)
        made = [
            views.jitter(clouds, Augmentation(), generator),
            views.ball_crops(clouds, groups, (0.2, 0.5), generator),
            views.rescale(clouds, (0.5, 2.0), (), generator),
            views.shift(clouds, 1.0, generator),
        ]
        return [view.coords for view in made]

    assert all(map(torch.equal, all_of_them(3), all_of_them(3)))
    assert not any(map(torch.equal, all_of_them(3), all_of_them(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_views_repeat_view_by_view():
    clouds = random_clouds(2, 4, channels=1)
    repeated = clouds.views(3)
    assert torch.equal(repeated.coords, torch.cat([clouds.coords] * 3))
    assert torch.equal(repeated.features, torch.cat([clouds.features] * 3))
    batch = repeated.to(torch.device("cpu")).batch()
    assert batch.num_clouds == 6
    assert torch.equal(batch.coords[:8], clouds.coords.flatten(0, 1))
