"""Two views of a scene: each step against other code, and what the whole promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointzoo.augment import grid_cells, nearest, pick_per_cell, rotation
from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError, ConfigError
from pointzoo.pretrain import photometric
from pointzoo.pretrain.photometric import ColorJitter, jitter_colors
from pointzoo.pretrain.scene_views import SceneAugmentation, make_scene, scene_views

GOLDEN = Path(__file__).parent / "golden"
STILL = SceneAugmentation(
    scale=(1.0, 1.0), turn=0.0, tilt=0.0, flip=0.0, jitter_sigma=0.0,
    colors=ColorJitter(probability=0.0, noise_probability=0.0), grid_size=0.1,
)  # fmt: skip


def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def room(points: int = 4000, **changes: Any) -> PointCloud:
    """Points on the floor and two walls of a room, with normals into it."""
    random = rng(7)
    coords = random.random((points, 3)) * (4.0, 3.0, 2.5)
    side = random.integers(3, size=points)
    normals = np.zeros((points, 3), np.float32)
    for axis, (face, offset) in enumerate(((0, 0.0), (1, 0.0), (2, 0.0))):
        coords[side == face, axis] = offset
        normals[side == face, axis] = 1.0
    colors = (coords / (4.0, 3.0, 2.5)).astype(np.float32)
    parts = {"coords": coords + np.array([10.0, -20.0, 3.0]), "colors": colors, "normals": normals}
    return PointCloud(**{**parts, **changes})


def still(**changes: Any) -> SceneAugmentation:
    import dataclasses

    return dataclasses.replace(STILL, **changes)


# Steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_as_in_torchvision(name, dtype):
    stored = golden("colorjitter")
    keys = [key for key in stored if key.startswith(name)]
    assert len(keys) == 2
    for key in keys:
        colors = stored["color"].astype(dtype) / dtype(255)
        before = colors.copy()
        changed = getattr(photometric, f"adjust_{name}")(colors, float(key.split("_")[1]))
        assert changed.dtype == dtype
        # float32 has 24 bits, and hue divides by the spread of a colour's channels
        tolerance = 2e-4 if dtype == np.float32 else 1e-10
        np.testing.assert_allclose(changed * 255, stored[key], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(colors, before)


def test_rotations_are_right_handed():
    stored = golden("rotation")
    angle = float(stored["angle_fraction_of_pi"]) * math.pi
    for axis in ("x", "y", "z"):
        turned = stored["coord"] @ rotation(axis, angle).T
        np.testing.assert_allclose(turned, stored[f"rot_{axis}"], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grid_sampling_takes_one_random_point_of_each_cell(dtype):
    stored = golden("gridsample")
    cells = grid_cells(stored["coord"].T.astype(dtype), float(stored["grid_size"]))
    np.testing.assert_array_equal(cells.T, stored["grid_coord"])
    picks = [pick_per_cell(cells, rng(seed)) for seed in range(200)]
    for rows in picks:
        np.testing.assert_array_equal(cells.T[rows], stored["unique_grid_coord"])
    fullest = int(stored["count"].argmax())
    members = np.flatnonzero(stored["inverse"] == fullest)
    drawn = np.array([rows[fullest] for rows in picks])
    assert set(drawn) == set(members)
    assert max(np.bincount(drawn)) < 200 / len(members) * 2


def test_cells_that_are_too_far_apart_for_one_number_are_sampled_too():
    cells = np.array([[0, 2**31 - 2, 0, 5], [0, 2**31 - 2, 0, 0], [0, 2**31 - 2, 0, 0]], np.int32)
    rows = pick_per_cell(cells, rng())
    assert rows[0] in (0, 2)
    assert rows[1:].tolist() == [3, 1]


def test_a_crop_keeps_the_nearest_points():
    stored = golden("spherecrop")
    count = int(len(stored["coord"]) * float(stored["sample_rate"]))
    assert count == int(stored["kept_count"])
    rows = nearest(stored["coord"].T, int(stored["center_index"]), count)
    np.testing.assert_array_equal(rows, stored["kept_sorted"])
    balls = golden("ball_crop")
    rows = nearest(balls["points"].T, int(balls["center_index"]), int(balls["count_ceil"]))
    np.testing.assert_array_equal(rows, balls["kept_sorted"])


# Colours of a view


def test_changing_colours_before_or_after_sampling_is_the_same():
    colors = rng(1).random((500, 3), dtype=np.float32)
    rows = rng(2).permutation(500)[:60]
    change = ColorJitter(noise_probability=0.0)
    for seed in range(30):
        kept = jitter_colors(colors, rows, change, rng(seed))
        whole = jitter_colors(colors, np.arange(500), change, rng(seed))
        np.testing.assert_allclose(kept, whole[rows], atol=1e-6)  # sums in another order
        assert kept.dtype == np.float32
        assert kept.min() >= 0.0
        assert kept.max() <= 1.0


def test_noise_has_the_deviation_that_is_asked_for():
    grey = np.full((20000, 3), 0.5, np.float32)
    change = ColorJitter(probability=0.0, noise=0.05, noise_probability=1.0)
    noisy = jitter_colors(grey, np.arange(20000), change, rng())
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=1e-3)


def test_each_change_has_its_own_probability_and_the_order_is_random():
    orders = [photometric._draw_changes(ColorJitter(), rng(seed))[1] for seed in range(400)]
    times = [sum(name in order for order in orders) for name in photometric._ADJUST]
    assert all(280 < count < 360 for count in times)
    assert len({tuple(order) for order in orders if len(order) == 4}) == 24
    factors = [photometric._draw_changes(ColorJitter(), rng(seed))[0] for seed in range(400)]
    assert all(0.6 <= f["brightness"] <= 1.4 and 0.8 <= f["saturation"] <= 1.2 for f in factors)
    assert all(-0.02 <= f["hue"] <= 0.02 for f in factors)
    assert min(f["contrast"] for f in factors) < 0.65


# Whole views


def test_without_changes_a_view_is_the_sampled_scene():
    cloud = room()
    query, key = scene_views(cloud, still(crop=1.0), rng())
    cells = np.floor((cloud.coords - cloud.coords.min(axis=0)) / 0.1).astype(int)
    assert abs(len(query.cells) - len(np.unique(cells, axis=0))) < 60  # another origin of the grid
    assert query.cells.dtype == np.int32
    assert query.cells.min() == 0
    np.testing.assert_array_equal(query.cells, np.unique(query.cells, axis=0))
    np.testing.assert_allclose(query.coords[:, 2], query.origin[:, 2], atol=1e-6)
    np.testing.assert_allclose(query.origin[:, :2].max(axis=0), [2.0, 1.5], atol=0.11)
    np.testing.assert_array_equal(query.colors, query.source_colors)
    assert not np.array_equal(query.origin, key.origin)
    assert query.hidden == key.hidden == frozenset()
    lowest = cloud.coords.min(axis=0)
    middle = lowest + np.array([2.0, 1.5, 0.0])
    back = (query.origin + middle - lowest) / (4.0, 3.0, 2.5)
    np.testing.assert_allclose(back, query.colors, atol=3e-3)  # rows belong together


@pytest.mark.parametrize("frame", ["augmented", "original"])
def test_a_view_is_turned_mirrored_and_scaled_as_a_whole(frame):
    change = still(
        scale=(0.9, 1.1), turn=math.pi, tilt=math.pi / 64, flip=0.5, crop=0.6, grid_frame=frame
    )
    handed = set()
    for seed in range(12):
        view, _ = scene_views(room(), change, rng(seed))
        a, b = view.origin - view.origin.mean(axis=0), view.coords - view.coords.mean(axis=0)
        matrix = np.linalg.lstsq(a.astype(float), b.astype(float), rcond=None)[0].T
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-4)
        handed.add(round(float(np.linalg.det(matrix))))
        assert matrix[2, 2] > math.cos(2.1 * math.pi / 64)
        normals = np.eye(3)[np.argmin(np.abs(view.origin - view.origin.min(axis=0)), axis=1)]
        turned = np.abs((view.normals * (normals @ matrix.T)).sum(axis=1))
        assert float(np.median(turned)) > 0.999
        np.testing.assert_allclose(np.linalg.norm(view.normals, axis=1), 1.0, atol=1e-5)
        keys = [tuple(cell) for cell in view.cells.tolist()]
        assert keys == sorted(keys)
    assert handed == {-1, 1}


def test_noise_is_clipped_and_stays_out_of_the_shared_frame():
    change = still(jitter_sigma=0.01, jitter_clip=0.012, crop=1.0)
    view, _ = scene_views(room(), change, rng())
    moved = view.coords - view.origin
    moved -= np.median(moved, axis=0)
    assert 0.006 < float(moved.std()) < 0.011
    assert float(np.abs(moved).max()) < 0.012 + 0.012
    clean = make_scene(room(), change, rng()).coords.T
    assert {tuple(p) for p in view.origin.tolist()} <= {tuple(p) for p in clean.tolist()}


def test_a_radius_cuts_what_both_views_see():
    query, key = scene_views(room(), still(radius=0.8, crop=1.0), rng(3))
    for view in (query, key):
        assert np.ptp(view.origin[:, :2], axis=0).max() <= 1.6
        assert view.origin[:, 2].min() == 0.0
    assert len(query.cells) < len(scene_views(room(), still(crop=1.0), rng(3))[0].cells) / 2


def test_normals_are_estimated_where_there_are_none():
    query, _ = scene_views(room(normals=None), still(crop=1.0), rng())
    known, _ = scene_views(room(), still(crop=1.0), rng())
    np.testing.assert_array_equal(query.origin, known.origin)
    agreement = (query.normals * known.normals).sum(axis=1)  # towards the middle of the room
    assert float(np.mean(agreement > 0.95)) > 0.85


def test_missing_colours_are_hidden():
    query, key = scene_views(room(colors=None), still(), rng())
    assert query.hidden == key.hidden == {"colors"}
    assert not query.colors.any()


def test_channels_are_dropped_at_random():
    hidden = [
        v.hidden
        for s in range(60)
        for v in scene_views(room(500), still(channel_dropout=0.3), rng(s))
    ]
    for name in ("colors", "normals"):
        assert 20 <= sum(name in names for names in hidden) <= 55
    assert len(set(hidden)) == 4


def test_one_point_is_a_scene_and_none_is_not():
    one = PointCloud(np.array([[1.0, 2.0, 3.0]]))
    query, key = scene_views(one, SceneAugmentation(radius=1.0), rng())
    for view in (query, key):
        assert view.cells.tolist() == [[0, 0, 0]]
        np.testing.assert_allclose(view.origin, 0.0)
    with pytest.raises(CloudError):
        scene_views(PointCloud(np.empty((0, 3))), SceneAugmentation(), rng())


def test_views_depend_on_nothing_but_the_generator():
    first, again, other = (
        scene_views(room(), SceneAugmentation(grid_size=0.1), rng(seed)) for seed in (4, 4, 5)
    )
    for name in ("coords", "origin", "cells", "colors", "normals"):
        np.testing.assert_array_equal(getattr(first[1], name), getattr(again[1], name))
    assert first[1].cells.shape != other[1].cells.shape


@pytest.mark.parametrize(
    "changes",
    [
        {"grid_size": 0.0},
        {"radius": -1.0},
        {"scale": (0.0, 1.0)},
        {"scale": (1.1, 0.9)},
        {"crop": 0.0},
        {"crop": 1.1},
        {"flip": -0.1},
        {"channel_dropout": 1.5},
        {"grid_frame": "both"},
    ],
)
def test_changes_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        SceneAugmentation(**changes)
