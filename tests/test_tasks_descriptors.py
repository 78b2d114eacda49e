"""Hand-made descriptors against plain loops and known shapes."""

import math

import numpy as np
import pytest
from shapes import shape, shapes_dataset

from pointzoo import transforms
from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError, UnknownNameError
from pointzoo.tasks.descriptors import DESCRIPTORS, _shape_distributions, describe
from pointzoo.tasks.fpfh import bag_of_words, mean_and_deviation, point_feature_histograms


def plain_pair(p1, n1, p2, n2):
    """The three angles of PCL's computePairFeatures, or None where they are undefined."""
    line = p2 - p1
    distance = np.linalg.norm(line)
    if distance == 0.0:
        return None
    first, second = n1 @ line / distance, n2 @ line / distance
    if math.acos(abs(np.clip(first, -1, 1))) > math.acos(abs(np.clip(second, -1, 1))):
        n1, n2, line, phi = n2, n1, -line, -second
    else:
        phi = first
    v = np.cross(line, n1)
    if np.linalg.norm(v) == 0.0:
        return None
    v = v / np.linalg.norm(v)
    w = np.cross(n1, v)
    return math.atan2(w @ n2, n1 @ n2), v @ n2, phi


def plain_fpfh(coords, normals, k):
    count = len(coords)
    simple = np.zeros((count, 33))
    neighbours = []
    for i in range(count):
        distance = np.linalg.norm(coords - coords[i], axis=1)
        near = [j for j in np.argsort(distance, kind="stable") if j != i][:k]
        neighbours.append([(j, distance[j] ** 2) for j in near])
        for j in near:
            angles = plain_pair(coords[i], normals[i], coords[j], normals[j])
            if angles is None:
                continue
            theta, alpha, phi = angles
            places = ((theta + math.pi) / (2 * math.pi), (alpha + 1) / 2, (phi + 1) / 2)
            for part, place in enumerate(places):
                simple[i, 11 * part + min(10, max(0, int(11 * place)))] += 1
    unit = lambda row: np.concatenate([p / (p.sum() or 1) for p in np.split(row, 3)])  # noqa: E731
    simple = np.stack([unit(row) for row in simple])
    result = np.zeros_like(simple)
    for i in range(count):
        total = np.zeros(33)
        for j, squared in neighbours[i]:
            if squared > 0:
                total += simple[j] / squared
        result[i] = unit(unit(total) + simple[i])
    return result


@pytest.mark.parametrize("kind", ["ball", "box", "ring"])
@pytest.mark.parametrize("k", [6, 500])
def test_fpfh_equals_plain_loops(kind, k):
    cloud = PointCloud(shape(kind, 60, np.random.default_rng(1)))
    cloud = transforms.estimate_normals(cloud, k=8)
    normals = cloud.normals.astype(np.float64)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = point_feature_histograms(cloud.coords, normals, k=(3, k))[1]
    assert found.shape == (60, 33)
    np.testing.assert_allclose(found, plain_fpfh(cloud.coords, normals, k), atol=1e-9)


def test_fpfh_does_not_change_under_rigid_motion():
    generator = np.random.default_rng(2)
    coords = shape("ring", 200, generator)
    matrix, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    matrix *= np.sign(np.linalg.det(matrix))
    normals = transforms.estimate_normals(PointCloud(coords)).normals.astype(np.float64)
    found = point_feature_histograms(coords, normals, k=(16,))[0]
    moved = point_feature_histograms(coords @ matrix.T + 5.0, normals @ matrix.T, k=(16,))[0]
    # a value at the edge of a bin may fall on the other side
    assert np.abs(found - moved).mean() < 1e-4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fpfh_of_very_few_points_is_finite(count):
    coords = np.eye(3)[:count]
    found = point_feature_histograms(coords, np.eye(3)[:count], k=(8,))[0]
    assert found.shape == (count, 33)
    assert np.isfinite(found).all()


def test_fpfh_of_duplicates_ignores_them_as_neighbours():
    coords = np.repeat([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 3, axis=0)
    normals = np.tile([0.0, 0.0, 1.0], (9, 1))
    found = point_feature_histograms(coords, normals, k=(8,))[0]
    np.testing.assert_allclose(found, np.tile(found[:1], (9, 1)))
    np.testing.assert_allclose(found.reshape(9, 3, 11).sum(axis=2), 1.0)


def test_pooling():
    histograms = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert mean_and_deviation(histograms).tolist() == [0.5, 1.0, 0.5, 0.0]


def test_bag_of_words_counts_the_nearest_words():
    # two kinds of point far apart: the shares are those of the kinds, whichever word is which
    kinds = np.array([[1.0, 0.0], [0.0, 1.0]])
    clouds = [kinds[[0] * 9 + [1] * 7], kinds[[0] * 16]]
    words = bag_of_words(clouds, 2, np.random.default_rng(4)) ** 2
    assert sorted(words[0].tolist()) == pytest.approx([7 / 16, 9 / 16])
    assert sorted(words[1].tolist()) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("name", sorted(DESCRIPTORS))
def test_descriptors_are_finite_reproducible_and_ignore_place_and_size(name):
    data = shapes_dataset(per_class=3, points=96)
    clouds = [data[i] for i in range(len(data))]
    moved = [cloud.replace(coords=cloud.coords * 7.0 + [100.0, -20.0, 3.0]) for cloud in clouds]
    found = describe(name, clouds, np.random.default_rng(0))
    assert found.dtype == np.float32
    assert found.shape[0] == len(clouds)
    assert np.isfinite(found).all()
    assert found.std(axis=0).max() > 0
    np.testing.assert_array_equal(found, describe(name, clouds, np.random.default_rng(0)))
    again = describe(name, moved, np.random.default_rng(0))
    assert np.abs(found - again).mean() < 0.02 * np.abs(found).mean()


def test_upright_descriptors_do_not_see_turns_about_z():
    data = shapes_dataset(per_class=2, points=200)
    clouds = [data[i] for i in range(len(data))]
    turned = [transforms.rotate_z(cloud, 0.3 + i) for i, cloud in enumerate(clouds)]
    plain = describe("profiles_z", clouds, np.random.default_rng(0))
    again = describe("profiles_z", turned, np.random.default_rng(0))
    assert np.abs(plain - again).mean() < 0.02 * np.abs(plain).mean()
    grid = describe("occupancy", clouds, np.random.default_rng(0))
    turned_grid = describe("occupancy", turned, np.random.default_rng(0))
    assert np.abs(grid - turned_grid).mean() > 0.005


def test_shape_distribution_of_a_sphere():
    # distances of random points on a sphere have density d / 2 on 0..2
    generator = np.random.default_rng(0)
    clouds = [PointCloud(shape("ball", 4000, generator)) for _ in range(2)]
    normal = generator.normal(size=(4000, 3))
    sphere = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    shares = _shape_distributions(sphere)[64:128] ** 2
    edges = np.linspace(0, 2, 65)
    np.testing.assert_allclose(shares, np.diff(edges**2 / 4), atol=0.006)
    assert describe("shape_distributions", clouds, generator).shape == (2, 320)


def test_one_point_and_a_line_have_descriptors():
    clouds = [PointCloud([[1.0, 2.0, 3.0]]), PointCloud(np.linspace(0, 1, 10)[:, None] * [1, 2, 3])]
    for name in DESCRIPTORS:
        assert np.isfinite(describe(name, clouds, np.random.default_rng(0))).all()


def test_unusable_input_is_refused():
    with pytest.raises(UnknownNameError, match="fpfh"):
        describe("fpfhh", [], np.random.default_rng(0))
    with pytest.raises(CloudError, match="finite"):
        describe("extents", [PointCloud([[0.0, np.nan, 0.0]])], np.random.default_rng(0))
