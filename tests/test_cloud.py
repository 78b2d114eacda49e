"""PointCloud: what it keeps, what it converts, what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError

UTM = np.array([[500_000.125, 5_000_000.0625, 312.5], [500_000.126, 5_000_000.0625, 312.5]])


def full_cloud(count: int = 6) -> PointCloud:
    rng = np.random.default_rng(0)
    return PointCloud(
        coords=rng.normal(size=(count, 3)),
        colors=rng.integers(0, 256, size=(count, 3)).astype(np.uint8),
        normals=rng.normal(size=(count, 3)),
        labels=np.arange(count, dtype=np.uint8),
        fields={"intensity": np.arange(count) * 2.0, "rgbn": np.ones((count, 4), np.uint16)},
    )


def arrays(cloud: PointCloud) -> dict[str, np.ndarray]:
    own = {n: getattr(cloud, n) for n in ("coords", "colors", "normals", "labels")}
    return {**own, **cloud.fields}


def test_types_are_settled_and_nothing_is_lost():
    cloud = PointCloud(UTM, labels=[3, 4])
    assert cloud.coords.dtype == np.float64
    assert (cloud.coords == UTM).all()
    assert cloud.labels.dtype == np.int64
    assert cloud.colors is None
    assert cloud.normals is None
    assert len(cloud) == 2
    assert full_cloud().fields["rgbn"].dtype == np.uint16
    assert full_cloud().normals.dtype == np.float32


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), [0.0, 0.2, 1.0]),
        (np.array([[0, 13107, 65535]], np.uint16), [0.0, 0.2, 1.0]),
        (np.array([[0, 51, 255]], np.int64), [0.0, 0.2, 1.0]),
        (np.array([[0.0, 0.2, 1.0]]), [0.0, 0.2, 1.0]),
        (np.array([[0.0, 0.25, 1.0]], np.float16), [0.0, 0.25, 1.0]),
    ],
)
def test_colors_come_to_the_unit_range(colors, expected):
    cloud = PointCloud([[1, 2, 3]], colors=colors)
    assert cloud.colors.dtype == np.float32
    np.testing.assert_allclose(cloud.colors[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coords", np.zeros((4, 2))),
        ("coords", np.zeros(3)),
        ("coords", np.zeros((2, 4, 3))),
        ("coords", np.zeros((4, 3), bool)),
        ("coords", np.zeros((4, 3), complex)),
        ("coords", np.array([["a", "b", "c"]] * 4)),
        ("coords", None),
        ("coords", [[1, 2, 3], [1, 2]]),
        ("coords", torch.zeros(4, 3, requires_grad=True)),
        ("colors", np.zeros((3, 3))),
        ("colors", np.zeros((4, 4))),
        ("colors", np.full((4, 3), 255.0)),
        ("colors", np.full((4, 3), -0.1)),
        ("colors", np.full((4, 3), np.nan)),
        ("colors", np.full((4, 3), 1e300)),
        ("colors", np.full((4, 3), 300)),
        ("normals", np.zeros((5, 3))),
        ("normals", np.zeros(4)),
        ("labels", np.zeros(3, int)),
        ("labels", np.zeros((4, 1), int)),
        ("labels", np.zeros(4)),
        ("labels", np.full(4, 2**63, np.uint64)),
        ("fields", {"x": np.zeros(3)}),
        ("fields", {"x": 1.0}),
        ("fields", {"x": [[1], [1, 2]]}),
    ],
)
def test_what_does_not_fit_is_refused(name, value):
    parts = {"coords": np.zeros((4, 3)), name: value}
    with pytest.raises(CloudError) as caught:
        PointCloud(**parts)
    assert caught.value.expected
    assert caught.value.fix


def test_the_largest_labels_are_kept():
    largest = np.iinfo(np.int64).max
    assert PointCloud([[0, 0, 0]], labels=np.array([largest], np.uint64)).labels[0] == largest
    assert PointCloud([[0, 0, 0]], labels=np.array([True])).labels.tolist() == [1]


def test_normals_too_large_for_their_type_are_infinite_without_a_warning():
    cloud = PointCloud([[0, 0, 0]], normals=np.full((1, 3), 1e300))
    assert np.isinf(cloud.normals).all()


def test_a_cloud_is_frozen():
    cloud = full_cloud()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cloud.coords = np.zeros((6, 3))
    for value in arrays(cloud).values():
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 0
    with pytest.raises(TypeError):
        cloud.fields["more"] = np.zeros(6)


def test_the_callers_arrays_stay_writable():
    coords = np.zeros((2, 3))
    PointCloud(coords)
    coords[0] = 1.0
    assert coords.flags.writeable


@pytest.mark.parametrize(
    "duplicate",
    [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy, copy.copy],  # noqa: S301
)
def test_a_cloud_survives_pickling_and_copying(duplicate):
    cloud = full_cloud()
    again = duplicate(cloud)
    for name, value in arrays(cloud).items():
        assert np.array_equal(arrays(again)[name], value)
        assert arrays(again)[name].dtype == value.dtype
        assert not arrays(again)[name].flags.writeable
    bare = duplicate(PointCloud(UTM))
    assert bare.colors is None
    assert bare.fields == {}


def test_replace_checks_again():
    cloud = full_cloud()
    assert cloud.replace(colors=None).colors is None
    assert cloud.replace(colors=None).fields.keys() == cloud.fields.keys()
    with pytest.raises(CloudError, match="each of the 2 points"):
        cloud.replace(coords=UTM)


@pytest.mark.parametrize(
    "index", [[4, 1, 1], np.array([True, False] * 3), slice(1, 3), [], np.zeros(6, bool)]
)
def test_select_takes_every_field_along(index):
    cloud = full_cloud()
    rows = np.arange(6)[index] if isinstance(index, slice) else np.asarray(index)
    chosen = cloud.select(rows)
    wanted = rows.astype(int) if rows.size == 0 else rows
    for name, value in arrays(cloud).items():
        assert np.array_equal(arrays(chosen)[name], value[wanted])
    assert PointCloud(UTM).select([0]).colors is None


@pytest.mark.parametrize(
    "index", [[6], [-7], [0.5], 2, [[0, 1]], np.ones(5, bool), np.zeros(0, bool), ["a"]]
)
def test_select_refuses_rows_that_are_not_there(index):
    with pytest.raises(CloudError):
        full_cloud().select(index)


def test_nonfinite_points_are_kept_until_dropped():
    coords = np.array([[0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0], [1, 1, 1]])
    cloud = PointCloud(coords, labels=[0, 1, 2, 3])
    assert len(cloud) == 4
    assert cloud.drop_nonfinite().labels.tolist() == [0, 3]
    with pytest.raises(CloudError, match="2 of 4 points"):
        cloud.require_usable()
    assert cloud.drop_nonfinite().require_usable().labels.tolist() == [0, 3]


def test_an_empty_cloud_exists_but_is_not_usable():
    empty = PointCloud(np.zeros((0, 3)), colors=np.zeros((0, 3)), fields={"i": []})
    assert len(empty.drop_nonfinite()) == 0
    with pytest.raises(CloudError, match="an empty point cloud"):
        empty.require_usable()


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8]),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    )
)
def test_any_numbers_give_a_cloud_or_a_cloud_error(values):
    try:
        cloud = PointCloud(values)
    except CloudError:
        assert values.ndim != 2 or values.shape[1] != 3
    else:
        assert np.array_equal(cloud.coords, values.astype(np.float64), equal_nan=True)
