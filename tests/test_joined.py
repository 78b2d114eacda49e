"""Joined data sets keep order, names and classes apart."""

import numpy as np
import pytest

from pointzoo.data import ArrayDataset, PointDataset
from pointzoo.data.joined import JoinedDataset, join_datasets
from pointzoo.errors import ConfigError


def part(name: str, count: int, classes: tuple[str, ...] = ()) -> ArrayDataset:
    coords = np.random.default_rng(len(name)).random((count, 5, 3))
    labels = np.arange(count) % len(classes) if classes else None
    return ArrayDataset(name, coords, labels=labels, class_names=classes)


def test_clouds_come_in_order():
    parts = part("one", 2), part("two", 0), part("three", 3)
    joined = JoinedDataset(parts)
    assert isinstance(joined, PointDataset)
    assert len(joined) == 5
    assert joined.name == "one+two+three"
    assert joined.names == ("one/0", "one/1", "three/0", "three/1", "three/2")
    assert joined.labels is None
    expected = [*parts[0].coords, *parts[2].coords]
    for row, coords in enumerate(expected):
        np.testing.assert_array_equal(joined[row].coords, coords)
        np.testing.assert_array_equal(joined[row - 5].coords, coords)
    for row in (5, -6):
        with pytest.raises(IndexError):
            joined[row]


def test_classes_stay_apart():
    joined = JoinedDataset((part("a", 3, ("x", "y")), part("b", 1), part("c", 2, ("y", "z"))))
    assert joined.class_names == ("a/x", "a/y", "c/y", "c/z")
    np.testing.assert_array_equal(joined.labels, [0, 1, 0, -1, 2, 3])


def test_one_data_set_is_itself_and_none_is_an_error():
    only = part("a", 1)
    assert join_datasets([only]) is only
    assert len(join_datasets([only, part("b", 2)])) == 3
    with pytest.raises(ConfigError, match="different names"):
        join_datasets([only, only])
    with pytest.raises(ConfigError):
        JoinedDataset(())
