"""Augmentation recipes: as data, each step against a second implementation, what they promise."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from pointzoo import augment
from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.settings import override
from pointzoo.tasks.changes import Points, change_cloud, change_points
from pointzoo.tasks.recipes import (
    RECIPES,
    NoRecipe,
    ObjectRecipe,
    SceneChanges,
    SceneRecipe,
    get_recipe,
    recipe_from_dict,
    recipe_to_dict,
)
from pointzoo.tasks.scenes import LabelledScene, change_scene

STILL = SceneRecipe(
    dropout_probability=0.0, rotate_probability=0.0, scale=(1.0, 1.0), flip=0.0, jitter_sigma=0.0,
    elastic_probability=0.0, auto_contrast=0.0, color_shift_probability=0.0,
    color_noise_probability=0.0, grid_size=None, crop_points=None, shuffle=False,
)  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def still(**changes) -> SceneRecipe:
    return dataclasses.replace(STILL, **changes)


def points(count: int = 500, side: float = 4.0) -> Points:
    random = rng(1)
    normals = random.normal(size=(count, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    coords = (random.random((count, 3)) * side).astype(np.float32)
    return Points.of(coords, random.uniform(0.2, 0.6, (count, 3)).astype(np.float32), normals)


# as data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_go_to_json_and_back(name):
    recipe = get_recipe(name)
    stored = json.loads(json.dumps(recipe_to_dict(recipe)))
    assert recipe_from_dict(stored) == recipe
    assert recipe_to_dict(recipe) == stored


def test_settings_of_a_recipe_change_by_name():
    changed = override(get_recipe("scannet"), {"grid_size": 0.05, "flip": 0})
    assert isinstance(changed, SceneRecipe)
    assert (changed.grid_size, changed.flip) == (0.05, 0.0)


def test_scannets_recipe_is_pointcepts():
    """configs/scannet/semseg-spunet-v1m1-4-ft.py @ d74c646, in radians and colours of 0..1."""
    stored = recipe_to_dict(get_recipe("scannet"))
    assert stored == {
        "kind": "scene", "dropout": 0.2, "dropout_probability": 0.2, "turn": math.pi,
        "tilt": math.pi / 64, "rotate_probability": 0.5, "scale": [0.9, 1.1], "flip": 0.5,
        "jitter_sigma": 0.005, "jitter_clip": 0.02, "elastic": [[0.2, 0.4], [0.8, 1.6]],
        "elastic_probability": 0.95, "auto_contrast": 0.2, "color_shift": 0.05,
        "color_shift_probability": 0.95, "color_noise": 0.05, "color_noise_probability": 0.95,
        "grid_size": 0.02, "crop_points": 100_000, "crop_share": 1.0, "shuffle": True,
        "keep_labelled": False,
    }  # fmt: skip


def test_wrong_recipes_are_refused():
    with pytest.raises(UnknownNameError, match="scannet"):
        get_recipe("scanet")
    for values in ({"kind": "x"}, {"kind": "none", "a": 1}, {"kind": "scene", "scale": [1]}, {}):
        with pytest.raises(ConfigError):
            recipe_from_dict(values)
    for changes in (
        *({"dropout": 1.0}, {"flip": 1.5}, {"scale": (1.1, 0.9)}, {"scale": (0.0, 1.0)}),
        *({"grid_size": 0.0}, {"crop_points": 0}, {"crop_share": 2.0}, {"jitter_clip": -1.0}),
        *({"elastic": ((0.2,),)}, {"auto_contrast": -0.1}),
    ):
        with pytest.raises(ConfigError):
            SceneRecipe(**changes)
    for changes in ({"scale": (2.0, 1.0)}, {"dropout": 1.0}, {"shift": -1.0}):
        with pytest.raises(ConfigError):
            ObjectRecipe(**changes)


# steps --------------------------------------------------------------------------------------------


def reference_elastic(coords, cell, strength, noise):
    """Pointcept's ElasticDistortion @ d74c646, its noise handed in: (nodes of x, y, z, 3)."""
    low = coords.min(axis=0)
    for _ in range(2):
        for axis in range(3):
            shape = [1, 1, 1, 1]
            shape[axis] = 3
            kernel = np.ones(shape, np.float32) / 3
            noise = ndimage.convolve(noise, kernel, mode="constant", cval=0)
    nodes = noise.shape[:3]
    ends = low + cell * (np.array(nodes) - 2)
    axes = [np.linspace(a, b, n) for a, b, n in zip(low - cell, ends, nodes, strict=True)]
    field = RegularGridInterpolator(axes, noise, bounds_error=False, fill_value=0)
    return coords + field(coords) * strength


@pytest.mark.parametrize(("cell", "strength"), [(0.2, 0.4), (0.8, 1.6)])
def test_elastic_distortion_is_pointcepts(cell, strength):
    coords = points().coords
    nodes = (np.ptp(coords, axis=0) // cell).astype(int) + 3
    noise = rng(5).standard_normal((3, *nodes), dtype=np.float32)
    expected = reference_elastic(
        coords.astype(np.float64), cell, strength, np.moveaxis(noise, 0, -1)
    )
    moved = augment.elastic(coords.T, cell, strength, rng(5)).T
    np.testing.assert_allclose(moved, expected, atol=2e-5)  # places are float32 here
    assert 0.01 < np.abs(moved - coords).max() < 5 * strength


def test_elastic_distortion_of_a_large_scan_stays_small():
    far = np.array([[0.0, 900.0], [0.0, 0.1], [0.0, 0.1]], dtype=np.float32)
    moved = augment.elastic(far, 0.2, 0.4, rng())
    assert np.isfinite(moved).all()
    assert (moved != far).any()


def test_contrast_is_stretched_as_by_pointcept():
    colors = points().colors
    low, high = colors.min(axis=0), colors.max(axis=0)
    scaled = (colors - low) * (1 / (high - low))
    changed = augment.stretch_contrast(colors, low, high, 0.25)
    np.testing.assert_allclose(changed, 0.75 * colors + 0.25 * scaled, atol=1e-6)
    flat = np.full((3, 3), 0.4, np.float32)
    assert np.isfinite(augment.stretch_contrast(flat, flat[0], flat[0], 1.0)).all()


def test_a_still_recipe_only_centres():
    given = points()
    changed = change_points(given, STILL, rng())
    middle = (given.coords.min(axis=0) + given.coords.max(axis=0)) / 2
    middle[2] = given.coords[:, 2].min()
    np.testing.assert_allclose(changed.coords, given.coords - middle, atol=1e-6)
    np.testing.assert_array_equal(changed.colors, given.colors)
    np.testing.assert_array_equal(changed.normals, given.normals)
    np.testing.assert_array_equal(changed.rows, np.arange(500))


def test_rotation_scale_and_flip_keep_shape_and_turn_normals():
    given = points()
    recipe = still(rotate_probability=1.0, flip=1.0, scale=(2.0, 2.0))
    changed = change_points(given, recipe, rng(3))
    before = given.coords[1:] - given.coords[:-1]
    after = changed.coords[1:] - changed.coords[:-1]
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=1), 2 * np.linalg.norm(before, axis=1), rtol=1e-4
    )
    inside = (before * given.normals[1:]).sum(axis=1)
    turned = (after * changed.normals[1:]).sum(axis=1)
    np.testing.assert_allclose(turned, 2 * inside, atol=1e-4)
    tilt = np.arccos((np.linalg.inv(before[:3]) @ after[:3] / 2)[2, 2])
    assert 0 < tilt < 2 * math.pi / 64


def test_each_step_happens_as_often_as_it_should():
    given = points(60)
    recipe = still(dropout_probability=0.2, auto_contrast=0.2, color_noise_probability=0.5)
    sizes = [len(change_points(given, recipe, rng(seed)).rows) for seed in range(300)]
    assert set(sizes) == {60, 48}
    assert 0.1 < sizes.count(48) / 300 < 0.3
    shifted = still(color_shift_probability=1.0, color_shift=0.05)
    for seed in range(20):
        change = change_points(given, shifted, rng(seed)).colors - given.colors
        assert np.ptp(change, axis=0).max() < 1e-6
        assert np.abs(change).max() <= 0.05 + 1e-6


def test_a_grid_keeps_one_point_per_voxel_and_what_must_stay():
    given = points(3000, 1.0)
    recipe = still(grid_size=0.25, dropout_probability=1.0, dropout=0.5)
    keep = np.array([3, 4, 5, 2999])
    plain = change_points(given, recipe, rng())
    cells = np.floor(plain.coords / 0.25)
    assert len(np.unique(cells, axis=0)) == len(plain.rows) <= 5 * 5 * 5
    changed = change_points(given, recipe, rng(), keep=keep)
    assert set(keep) <= set(changed.rows.tolist())
    labels = np.full(3000, -1)
    labels[keep] = 2
    cloud = PointCloud(coords=given.coords, labels=labels)
    for recipe_of_few in (recipe, dataclasses.replace(recipe, keep_labelled=True)):
        kept = (change_cloud(cloud, recipe_of_few, rng()).labels == 2).sum()
        assert (kept == 4) == recipe_of_few.keep_labelled
    everything = still(dropout_probability=1.0, dropout=0.999)
    assert len(change_points(points(1), everything, rng()).rows) == 1


def test_a_crop_is_a_ball_and_the_order_is_random():
    given = points(1000)
    changed = change_points(given, still(crop_points=100, shuffle=True), rng(2))
    assert len(changed.rows) == 100
    away = [np.linalg.norm(given.coords - given.coords[r], axis=1) for r in changed.rows]
    assert any(set(np.argsort(d)[:100]) == set(changed.rows) for d in away)
    assert (np.diff(changed.rows) < 0).any()
    assert len(change_points(given, still(crop_share=0.8), rng()).rows) == 800


def test_the_whole_recipe_on_a_cloud_of_map_coordinates():
    given = points(2000)
    base = np.array([4.5e5, 5.4e6, 300.0])
    cloud = PointCloud(
        coords=given.coords + base,
        colors=given.colors,
        normals=given.normals,
        labels=np.arange(2000),
        fields={"instance": np.arange(2000) // 10},
    )
    changed = change_cloud(cloud, get_recipe("scannet"), rng(4))
    assert len(changed) <= 2000
    np.testing.assert_array_equal(changed.labels // 10, changed.fields["instance"])
    assert np.abs(changed.coords - base).max() < 20
    assert 0.0 <= changed.colors.min() <= changed.colors.max() <= 1.0
    np.testing.assert_allclose(np.linalg.norm(changed.normals, axis=1), 1.0, atol=1e-4)
    again = change_cloud(cloud, get_recipe("scannet"), rng(4))
    np.testing.assert_array_equal(again.coords, changed.coords)
    bare = PointCloud(coords=cloud.coords)
    for name in RECIPES:
        assert change_cloud(bare, get_recipe(name), rng()).colors is None


def test_objects_are_scaled_per_axis_shifted_and_thinned():
    given = points(400, 1.0)
    recipe = ObjectRecipe(dropout=0.5, turn=math.pi)
    sizes = set()
    for seed in range(10):
        changed = change_points(given, recipe, rng(seed))
        sizes.add(len(changed.rows))
        assert 200 <= len(changed.rows) <= 400
        np.testing.assert_allclose(np.linalg.norm(changed.normals, axis=1), 1.0, atol=1e-4)
    assert len(sizes) > 5
    plain = ObjectRecipe(dropout=0.0, jitter_sigma=0.0, shift=0.0, scale=(1.5, 1.5))
    np.testing.assert_allclose(
        change_points(given, plain, rng()).coords, 1.5 * given.coords, rtol=1e-6
    )
    # normals stay across a stretched plane
    flat = points(50).coords * (1.0, 1.0, 0.5)
    flat[:, 2] = flat[:, 0]
    normals = np.tile(np.float32([-1, 0, 1]) / np.sqrt(2), (50, 1)).astype(np.float32)
    sheet = Points.of(flat.astype(np.float32), None, normals)
    changed = change_points(sheet, dataclasses.replace(plain, scale=(0.5, 2.0)), rng())
    edge = changed.coords[1:] - changed.coords[:-1]
    np.testing.assert_allclose((edge * changed.normals[1:]).sum(axis=1), 0.0, atol=1e-5)
    zero = Points.of(flat.astype(np.float32), None, 0 * normals)
    assert np.isfinite(change_points(zero, plain, rng()).normals).all()


def test_nothing_changes_nothing():
    given = points()
    assert change_points(given, NoRecipe(), rng()) is given


def test_a_scene_of_tensors_changes_by_any_recipe():
    given = points(300)
    other = torch.arange(900.0).reshape(300, 3)
    channels = torch.cat([torch.from_numpy(given.colors), other], dim=1)
    scene = LabelledScene(torch.from_numpy(given.coords), channels, torch.arange(300))
    changed = change_scene(scene, still(crop_points=50), ("colors", "other"), rng())
    assert len(changed) == 50
    assert torch.equal(changed.channels[:, 3:], other[changed.labels])
    frozen = given.coords.copy()
    frozen.flags.writeable = False
    light = change_points(Points.of(frozen), SceneChanges(), rng())
    assert light.coords.shape == frozen.shape
