"""A user's own folder: labels in files and beside them, classes, splits, and what goes wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pointzoo as pz
from pointzoo.data import (
    FileDataset,
    FolderDataset,
    Labelling,
    PointDataset,
    open_dataset,
    open_folder,
)
from pointzoo.data.scene_classes import S3DIS13, SCANNET20
from pointzoo.errors import ConfigError, FormatError
from pointzoo.zoo import create_encoder

VALUES = np.array([0, 2, 2, 7, 0])


def cloud(labels=None, **fields) -> pz.PointCloud:
    coords = np.arange(15.0).reshape(5, 3)
    return pz.PointCloud(coords=coords, labels=labels, fields=fields)


def put(path: Path, labels=None, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pz.write(path, cloud(labels, **fields))
    return path


def put_json(folder: Path, content) -> None:
    (folder / "classes.json").write_text(json.dumps(content), encoding="utf-8")


# labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".ply", ".npz", ".las", ".pcd", ".csv"])
def test_labels_inside_files_of_any_format(tmp_path, ending):
    put(tmp_path / f"a{ending}", VALUES)
    data = open_dataset(tmp_path)
    assert isinstance(data, FolderDataset)
    assert isinstance(data, PointDataset)
    assert (data.name, data.names, data.labels) == (tmp_path.name, (f"a{ending}",), None)
    assert data.class_names == ("0", "2", "7")
    assert data[0].labels.tolist() == [0, 1, 1, 2, 0]
    assert len(data[-1]) == 5
    with pytest.raises(IndexError):
        data[1]


@pytest.mark.parametrize("name", ["segment", "Semantic", "gt", "scalar_segment"])
def test_a_field_that_reads_like_labels_is_guessed(tmp_path, name):
    put(tmp_path / "a.npz", **{name: VALUES, "TreeID": [0, 0, 1, 1, -1]})
    data = open_folder(tmp_path)
    assert data[0].labels.tolist() == [0, 1, 1, 2, 0]
    assert data[0].fields["instance"].tolist() == [0, 0, 1, 1, -1]


def test_a_field_can_be_named(tmp_path):
    put(tmp_path / "a.npz", VALUES, other=VALUES + 1, objects=VALUES, score=VALUES / 2)
    assert open_folder(tmp_path, field="other").class_names == ("1", "3", "8")
    assert open_folder(tmp_path, field="Classification").class_names == ("0", "2", "7")
    named = open_folder(tmp_path, instance="objects")
    assert named[0].fields["instance"].tolist() == VALUES.tolist()
    for options in ({"field": "nothing"}, {"instance": "nothing"}, {"field": "score"}):
        with pytest.raises(FormatError, match=r"a\.npz"):
            open_folder(tmp_path, objects=False, **options)[0]


@pytest.mark.parametrize("ending", ["labels.npy", "label.txt", "labels.npz", "LABELS.txt"])
def test_labels_beside_files(tmp_path, ending):
    if ending.startswith("LABELS"):
        ending = "labels.txt"
    put(tmp_path / "a.xyz")
    path = tmp_path / f"a.{ending}"
    if path.suffix == ".npy":
        np.save(path, VALUES[:, None])
    elif path.suffix == ".npz":
        np.savez(path, segment=VALUES, other=VALUES)
    else:
        np.savetxt(path, VALUES, fmt="%d")
    np.savez(tmp_path / "a.instances.npz", VALUES)
    data = open_dataset(tmp_path)
    assert data.names == ("a.xyz",)
    assert data[0].labels.tolist() == [0, 1, 1, 2, 0]
    assert data[0].fields["instance"].tolist() == VALUES.tolist()


def test_labels_beside_files_must_fit(tmp_path):
    put(tmp_path / "a.xyz")
    path = tmp_path / "a.labels.npy"
    for values in (VALUES[:4], VALUES / 2, np.zeros((5, 2))):
        np.save(path, values)
        with pytest.raises(FormatError, match=r"a\.(xyz|labels)"):
            open_folder(tmp_path, classes=list("abcdefgh"))[0]
    beside = tmp_path / "a.labels.txt"
    path.unlink()
    for text in ("floor\n" * 5, "", "nan\n" * 5):
        beside.write_text(text)
        with pytest.raises(FormatError, match=r"a\.(xyz|labels)"):
            open_folder(tmp_path, classes=list("abcdefgh"))[0]
    beside.unlink()
    path.write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"a\.labels\.npy"):
        open_folder(tmp_path)[0]
    path.unlink()
    np.savez(tmp_path / "a.labels.npz", this=VALUES, that=VALUES)
    assert open_folder(tmp_path, field="that").class_names == ("0", "2", "7")
    with pytest.raises(FormatError, match=r"a\.labels\.npz"):
        open_folder(tmp_path)[0]


def test_scenes_as_folders_of_arrays(tmp_path):
    folder = tmp_path / "train" / "room"
    folder.mkdir(parents=True)
    arrays = {
        "coord": np.zeros((5, 3)),
        "color": np.full((5, 3), 254.9),
        "segment": VALUES[:, None],
        "instance": VALUES,
        "place": np.array(3),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    assert open_dataset(tmp_path).class_names == S3DIS13  # as Pointcept's files are called
    put_json(tmp_path, {"0": "floor", "2": "wall", "7": "chair"})
    data = open_dataset(tmp_path, "train")
    assert isinstance(data, FolderDataset)
    assert (data.names, data.class_names) == (("train/room",), ("floor", "wall", "chair"))
    assert data[0].labels.tolist() == [0, 1, 1, 2, 0]
    assert data[0].colors.min() == 1
    assert data[0].fields["instance"].tolist() == VALUES.tolist()
    np.save(folder / "color.npy", np.zeros((4, 3)))
    with pytest.raises(FormatError, match="room"):
        data[0]
    (folder / "color.npy").write_bytes(b"")
    with pytest.raises(FormatError, match=r"color\.npy"):
        data[0]


def test_a_scene_without_labels_is_unlabelled(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    put(tmp_path / "b.npz")
    data = open_folder(tmp_path)
    assert data[1].labels.tolist() == [-1] * 5
    assert data.values(1)[1] is None


# classes ------------------------------------------------------------------------------------------


def test_classes_from_the_data_come_from_all_splits(tmp_path):
    put(tmp_path / "train" / "a.ply", np.array([1, 1, 1, 1, 2]))
    put(tmp_path / "val" / "b.ply", np.array([3, 3, 9, 1, 255]))
    for split in ("train", "val"):
        assert open_folder(tmp_path, split, ignore=255).class_names == ("1", "2", "3", "9")
    val = open_folder(tmp_path, "val", ignore=[255])
    assert val[0].labels.tolist() == [2, 2, 3, 0, -1]
    assert open_dataset(tmp_path, "test").names == ("val/b.ply",)


@pytest.mark.parametrize(
    ("content", "names", "labels"),
    [
        ([*"abcdefgh"], tuple("abcdefgh"), [0, 2, 2, 7, 0]),
        ({"7": "c", "0": "a", "2": "b"}, ("a", "b", "c"), [0, 1, 1, 2, 0]),
        ({"classes": ["a", "b"], "remap": {"2": 1, "7": -1}}, ("a", "b"), [0, 1, 1, -1, 0]),
        ({"classes": {"2": "b"}, "ignore": [0, 7]}, ("b",), [-1, 0, 0, -1, -1]),
        ({"ignore": 0}, ("2", "7"), [-1, 0, 0, 1, -1]),
        ({"field": "other", "remap": {"1": 0}}, ("0", "3", "8"), [0, 1, 1, 2, 0]),
    ],
)
def test_classes_from_a_file(tmp_path, content, names, labels):
    put(tmp_path / "room" / "a.npz", VALUES, other=VALUES + 1)
    put_json(tmp_path, content)
    data = open_dataset(tmp_path)
    assert data.class_names == names
    assert data[0].labels.tolist() == labels
    (tmp_path / "classes.json").rename(tmp_path / "other.json")
    assert open_folder(tmp_path, objects=False, classes=tmp_path / "other.json")[
        0
    ].labels.tolist() == (labels)


def test_what_the_caller_says_counts_more_than_the_file(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    put_json(tmp_path, {"classes": ["a"], "ignore": [0]})
    data = open_folder(tmp_path, classes={0: "floor", 1: "rest"}, remap={2: 1, 7: 1}, ignore=9)
    assert data.class_names == ("floor", "rest")
    assert data[0].labels.tolist() == [0, 1, 1, 1, 0]


def test_a_label_out_of_range_is_named_with_its_file(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    data = open_folder(tmp_path, classes=["floor", "wall", "chair"])
    with pytest.raises(FormatError, match=r"0 to 2, got 7 in .*a\.npz"):
        data[0]
    with pytest.raises(FormatError, match="out of 2, 7"):
        open_folder(tmp_path, classes={2: "a", 7: "b"})[0]


@pytest.mark.parametrize(
    "content",
    [
        {"classes": ["a"], "colour": 1},
        ["a", 1],
        "abc",
        {"classes": ["a", "a"]},
        {"remap": [1]},
        {"classes": {"1": "a"}, "ignore": "x"},
        {"classes": ["a"], "field": 5},
    ],
)
def test_a_wrong_file_of_classes_is_refused(tmp_path, content):
    put(tmp_path / "a.npz", VALUES)
    put_json(tmp_path, content)
    with pytest.raises(ConfigError):
        open_dataset(tmp_path)


def test_a_damaged_file_of_classes_is_refused(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    (tmp_path / "classes.json").write_text("{")
    with pytest.raises(FormatError, match=r"classes\.json"):
        open_dataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path, classes=tmp_path / "none.json")


@given(
    st.lists(st.integers(-3, 20), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 20), st.integers(-1, 20), max_size=5),
    st.lists(st.integers(0, 20), max_size=3),
)
def test_classes_follow_remapping_then_ignoring(raw, remap, ignore):
    given_values = np.array(raw)
    labelling = Labelling(remap=remap, ignore=tuple(ignore))
    values = tuple(labelling.values_of(given_values))
    known = Labelling(
        names=tuple(map(str, values)), values=values, remap=remap, ignore=tuple(ignore)
    )
    for old, label in zip(raw, known.classes_of(given_values, Path("x")).tolist(), strict=True):
        new = remap.get(old, old)
        assert label == (-1 if new < 0 or new in ignore else values.index(new))


# splits -------------------------------------------------------------------------------------------


def test_splits_by_lists(tmp_path):
    for name in ("a.npz", "b.npz", "deep/c.npz"):
        put(tmp_path / name, VALUES)
    (tmp_path / "train.txt").write_text("./a.npz\n\nc\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("b\n", encoding="utf-8")
    assert open_folder(tmp_path, "train", objects=False).names == ("a.npz", "deep/c.npz")
    val = open_folder(tmp_path, "val", objects=False)
    assert (val.names, val.splits) == (("b.npz",), ("val",))
    assert len(open_folder(tmp_path, objects=False)) == 3
    put(tmp_path / "other" / "c.npz", VALUES)
    for text in ("c", "nothing.ply"):
        (tmp_path / "train.txt").write_text(text, encoding="utf-8")
        with pytest.raises(FormatError, match=r"train\.txt"):
            open_folder(tmp_path, "train", objects=False)
    (tmp_path / "train.txt").write_bytes(b"a\xff")
    with pytest.raises(FormatError, match=r"train\.txt"):
        open_folder(tmp_path, "train", objects=False)


def test_a_cloud_called_train_is_no_list(tmp_path):
    np.savetxt(tmp_path / "train.txt", np.arange(12).reshape(4, 3))
    assert open_dataset(tmp_path).names == ("train.txt",)


def test_splits_by_ratio(tmp_path):
    for i in range(10):
        put(tmp_path / f"{i}.npz", VALUES)

    def names(split, ratio=(0.6, 0.2, 0.2), seed=0):
        return open_folder(tmp_path, split, ratio=ratio, seed=seed).names

    parts = [names(split) for split in ("train", "val", "test")]
    assert list(map(len, parts)) == [6, 2, 2]
    assert len({name for part in parts for name in part}) == 10
    assert names("train") == parts[0]
    assert names("train", seed=1) != parts[0]
    assert names("test", (0.8, 0.2)) == names("val", (0.8, 0.2))
    assert len(names("train", (0.3, 0.2))) == 3
    for ratio in ((1,), (0.9, 0.2), (-0.5, 0.5), (0, 0)):
        with pytest.raises(ConfigError, match="sum to 1"):
            names("train", ratio)
    with pytest.raises(ConfigError, match="val"):
        names("val", (1.0, 0.0))


def test_a_ratio_holds_in_every_class(tmp_path):
    for name in ("chair", "table"):
        for i in range(5):
            put(tmp_path / name / f"{i}.npz")
    train = open_folder(tmp_path, "train", ratio=(0.8, 0.2))
    assert isinstance(train, FileDataset)
    assert np.bincount(train.labels).tolist() == [4, 4]
    assert open_folder(tmp_path, "val", ratio=(0.8, 0.2)).labels.tolist() == [0, 1]
    assert open_folder(tmp_path, classes=["table", "chair"]).labels[0] == 1
    with pytest.raises(ConfigError, match="table"):
        open_folder(tmp_path, classes=["chair"])


def test_a_missing_split_is_an_error(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    with pytest.raises(ConfigError, match="ratio"):
        open_dataset(tmp_path, "train")


# objects or scenes --------------------------------------------------------------------------------


def test_objects_and_scenes_are_told_apart(tmp_path):
    put(tmp_path / "objects" / "chair" / "a.ply", VALUES)
    assert isinstance(open_dataset(tmp_path / "objects"), FileDataset)
    assert isinstance(open_dataset(tmp_path / "objects", objects=False), FolderDataset)
    put(tmp_path / "bare" / "a.ply")
    put(tmp_path / "flat" / "a.las", np.zeros(5, np.int64))  # LAS always has a classification
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.ply").write_text("ply")
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "a.off").write_text("OFF")
    for name in ("bare", "flat", "broken", "mesh"):
        assert open_dataset(tmp_path / name).class_names == ()
    put(tmp_path / "beside" / "area" / "a.ply")
    np.save(tmp_path / "beside" / "area" / "a.labels.npy", VALUES)
    assert isinstance(open_dataset(tmp_path / "beside"), FolderDataset)


def test_segmentation_takes_no_folder_of_a_room_for_a_class(tmp_path):
    for split in ("train", "val"):
        put(tmp_path / split / "room1" / "a.ply", VALUES)
        put(tmp_path / split / "room2" / "b.ply", VALUES)
    encoder = create_encoder("sparseunet_test")
    settings = {"max_steps": 1, "statistics": 1, "augmentation": "none"}
    model = pz.finetune(encoder, tmp_path, task="segmentation", method="full", **settings)
    assert model.class_names == ("0", "2", "7")
    assert model.evaluate(tmp_path).class_names == ("0", "2", "7")
    objects = pz.finetune(encoder, tmp_path, task="classification", method="full", **settings)
    assert objects.class_names == ("room1", "room2")


def test_nothing_to_open(tmp_path):
    for objects in (True, False, None):
        with pytest.raises(FormatError, match="none in"):
            open_folder(tmp_path, objects=objects)
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "nowhere")


def test_a_file_that_vanishes_is_named(tmp_path):
    path = put(tmp_path / "a.npz", VALUES)
    data = open_folder(tmp_path, classes=[*"abcdefgh"])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.npz"):
        data[0]


def test_a_data_set_goes_to_workers_with_its_classes(tmp_path):
    put(tmp_path / "a.npz", VALUES)
    data = open_folder(tmp_path)
    assert data.class_names == ("0", "2", "7")
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert copy.resolved.values == (0, 2, 7)
    assert copy[0].labels.tolist() == data[0].labels.tolist()


def test_pointcepts_own_layout_keeps_its_classes(tmp_path):
    folder = tmp_path / "train" / "scene0000_00"
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", np.zeros((2, 3)))
    np.save(folder / "segment20.npy", np.array([0, 19]))
    assert open_dataset(tmp_path, "train").class_names == SCANNET20
