import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo import transforms
from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError, ConfigError


def make_cloud(count=50, seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return PointCloud(
        coords=rng.normal(size=(count, 3)) + 5,
        colors=rng.random((count, 3)),
        normals=normals,
        labels=np.arange(count),
        fields={"row": np.arange(count, dtype=np.uint16)},
    )


def test_unit_sphere_centres_and_scales():
    cloud = make_cloud()
    before = cloud.coords.copy()
    result = transforms.unit_sphere(cloud)
    assert np.allclose(result.coords.mean(axis=0), 0)
    assert np.linalg.norm(result.coords, axis=1).max() == pytest.approx(1)
    assert np.array_equal(cloud.coords, before)
    assert np.array_equal(result.normals, cloud.normals)
    assert np.array_equal(result.fields["row"], cloud.fields["row"])


def test_unit_sphere_of_one_place_only_moves():
    result = transforms.unit_sphere(PointCloud(coords=np.full((4, 3), 7.0)))
    assert np.array_equal(result.coords, np.zeros((4, 3)))


def test_unit_sphere_refuses_what_has_no_radius():
    with pytest.raises(CloudError, match="at least one point"):
        transforms.unit_sphere(PointCloud(coords=np.zeros((0, 3))))
    with pytest.raises(CloudError, match="finite"):
        transforms.unit_sphere(PointCloud(coords=[[np.nan, 0, 0]]))


def test_center_of_an_empty_cloud_is_empty():
    assert len(transforms.center(PointCloud(coords=np.zeros((0, 3))))) == 0


def test_scale():
    cloud = make_cloud()
    assert np.allclose(transforms.scale(cloud, 0.5).coords, cloud.coords / 2)
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="positive finite"):
            transforms.scale(cloud, factor)


def test_rotate_z_turns_x_into_y_with_its_normal():
    cloud = PointCloud(coords=[[1.0, 0, 2]], normals=[[1.0, 0, 0]])
    result = transforms.rotate_z(cloud, math.pi / 2)
    assert np.allclose(result.coords, [[0, 1, 2]])
    assert np.allclose(result.normals, [[0, 1, 0]], atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.floats(-10, 10), st.floats(-10, 10))
def test_rotations_add_up_and_keep_distances(first, second):
    cloud = make_cloud(10)
    twice = transforms.rotate_z(transforms.rotate_z(cloud, first), second)
    once = transforms.rotate_z(cloud, first + second)
    assert np.allclose(twice.coords, once.coords)
    lengths = np.linalg.norm(cloud.coords, axis=1)
    assert np.allclose(np.linalg.norm(once.coords, axis=1), lengths)


def test_rotate_refuses_what_is_not_orthogonal():
    for matrix in (np.eye(3) * 2, np.eye(2), np.full((3, 3), np.nan)):
        with pytest.raises(ConfigError, match="orthogonal"):
            transforms.rotate(make_cloud(), matrix)


def test_rotate_without_normals():
    cloud = PointCloud(coords=[[1.0, 2, 3]])
    result = transforms.rotate(cloud, np.diag([1.0, -1, 1]))
    assert result.normals is None
    assert np.array_equal(result.coords, [[1, -2, 3]])


def test_jitter_is_bounded_and_repeats_with_its_generator():
    cloud = make_cloud(1000)
    first = transforms.jitter(cloud, np.random.default_rng(1), sigma=0.02, clip=0.03)
    again = transforms.jitter(cloud, np.random.default_rng(1), sigma=0.02, clip=0.03)
    moved = first.coords - cloud.coords
    assert np.array_equal(first.coords, again.coords)
    assert np.abs(moved).max() == pytest.approx(0.03)
    assert 0.01 < moved.std() < 0.02
    for bad in ({"sigma": -1}, {"clip": math.nan}, {"sigma": math.inf}):
        with pytest.raises(ConfigError, match="sigma and clip"):
            transforms.jitter(cloud, np.random.default_rng(1), **bad)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 125])
def test_subsample_repeats_no_more_than_it_must(count):
    result = transforms.subsample(make_cloud(), count, np.random.default_rng(0))
    occurrences = np.bincount(result.labels, minlength=50)
    assert len(result) == count
    assert occurrences.max() - occurrences.min() <= 1
    assert np.array_equal(result.labels, result.fields["row"])


def test_subsample_refuses():
    with pytest.raises(ConfigError, match="at least 1"):
        transforms.subsample(make_cloud(), 0, np.random.default_rng(0))
    with pytest.raises(CloudError, match="at least one point"):
        transforms.subsample(PointCloud(coords=np.zeros((0, 3))), 5, np.random.default_rng(0))


def test_normals_of_a_sphere_point_outwards():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    far_away = points + np.array([500_000, 4_000_000, 100])
    result = transforms.estimate_normals(PointCloud(coords=far_away), k=12)
    cosines = (result.normals * points).sum(axis=1)
    assert cosines.min() > 0.9
    assert cosines.mean() > 0.995


def test_normals_of_the_ground_point_up():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.random((100, 2)), np.zeros(100)])
    for orient in ("upward", "outward"):  # all sideways to the centroid: upwards too
        result = transforms.estimate_normals(PointCloud(coords=points), orient=orient)
        assert np.allclose(result.normals, [0, 0, 1], atol=1e-6)


def test_normals_of_vertical_walls_have_a_sign():
    rng = np.random.default_rng(0)
    wall = np.column_stack([np.zeros(60), rng.random((60, 2))])
    result = transforms.estimate_normals(PointCloud(coords=wall), orient="upward")
    assert np.allclose(np.abs(result.normals[:, 0]), 1)


def test_normals_in_chunks_equal_normals_at_once(monkeypatch):
    cloud = make_cloud(100)
    whole = transforms.estimate_normals(cloud)
    monkeypatch.setattr(transforms, "_CHUNK", 7)
    assert np.array_equal(transforms.estimate_normals(cloud).normals, whole.normals)


@pytest.mark.parametrize("points", [[[1.0, 2, 3]], [[1.0, 2, 3]] * 5, [[0.0, 0, 0], [1, 0, 0]]])
def test_normals_of_too_few_points_are_unit_and_across(points):
    result = transforms.estimate_normals(PointCloud(coords=points))
    assert np.allclose(np.linalg.norm(result.normals, axis=1), 1)
    along = np.asarray(points[-1]) - np.asarray(points[0])
    assert np.allclose(result.normals @ along, 0)


def test_normals_refuse():
    with pytest.raises(ConfigError, match="k of at least 3"):
        transforms.estimate_normals(make_cloud(), k=2)
    with pytest.raises(ConfigError, match="orient"):
        transforms.estimate_normals(make_cloud(), orient="inward")
    with pytest.raises(CloudError, match="finite"):
        transforms.estimate_normals(PointCloud(coords=[[np.inf, 0, 0]]))
