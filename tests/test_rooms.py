"""The folder of rooms: ragged arrays, splits, manifest, frames, and what is refused."""

import json

import numpy as np
import pytest

from pointzoo.data import PointDataset, open_dataset
from pointzoo.data.rooms import (
    Frames,
    ModelSource,
    Room,
    RoomRecord,
    RoomsHeader,
    read_frames,
    read_rooms,
    read_rooms_manifest,
    write_rooms,
)
from pointzoo.data.scene_classes import NYU40_OF_SCANNET20, S3DIS13, SCANNET20, SCANNET200
from pointzoo.errors import ConfigError, FormatError

HEADER = RoomsHeader("toy", "Toy rooms.", "pointzoo corpus rooms toys", "CC0-1.0", True)
MODELS = (
    ModelSource("toys/b", "toys.sh3f:b.obj", "12", "Ann", "CC0-1.0"),
    ModelSource("toys/a", "toys.sh3f:a.obj", "34", "Ben", "CC-BY-3.0"),
    ModelSource("toys/unused", "toys.sh3f:u.obj", "56", "Cay", "CC0-1.0"),
)


def room(name, points, split="train", models=("toys/a",), seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(points, 3))
    return Room(
        RoomRecord(name, split, "kitchen", models),
        rng.normal(size=(points, 3)),
        rng.integers(0, 256, (points, 3), dtype=np.uint8),
        normals / np.linalg.norm(normals, axis=1, keepdims=True),
        rng.integers(-1, 20, points),
        rng.integers(-1, 5, points),
    )


def frames():
    return Frames(
        depth=np.full((2, 4, 6), 1500, np.uint16),
        color=np.zeros((2, 4, 6, 3), np.uint8),
        pose=np.stack([np.eye(4)] * 2),
        intrinsics=np.eye(3),
    )


@pytest.fixture
def folder(tmp_path):
    rooms = [room("a", 5, seed=1), room("b", 9, "test", ("toys/b",), seed=2)]
    return write_rooms(tmp_path / "rooms", HEADER, rooms, MODELS, frames={"a": frames()})


def test_rooms_come_back_as_they_were_written(folder):
    data = open_dataset(folder)
    assert isinstance(data, PointDataset)
    assert (len(data), data.names, data.splits) == (2, ("a", "b"), ("train", "test"))
    assert data.class_names == SCANNET20
    assert data.labels is None
    for index, want in enumerate([room("a", 5, seed=1), room("b", 9, seed=2)]):
        cloud = data[index]
        np.testing.assert_allclose(cloud.coords, want.coords, rtol=1e-6)
        np.testing.assert_array_equal(np.round(cloud.colors * 255), want.colors)
        np.testing.assert_allclose(cloud.normals, want.normals, atol=1e-3)
        np.testing.assert_array_equal(cloud.labels, want.labels)
        np.testing.assert_array_equal(cloud.fields["instance"], want.instance)
    assert len(data[-1]) == 9
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize(("split", "names"), [("train", ("a",)), ("test", ("b",)), ("val", ("b",))])
def test_a_split_keeps_its_rooms(folder, split, names):
    data = open_dataset(folder, split)
    assert data.names == names
    assert len(data[0]) == (5 if split == "train" else 9)


def test_an_unknown_split_is_refused(tmp_path):
    write_rooms(tmp_path / "rooms", HEADER, [room("a", 3)], MODELS)
    with pytest.raises(ConfigError, match="train"):
        open_dataset(tmp_path / "rooms", "test")


def test_the_manifest_lists_the_models_that_are_used(folder):
    manifest = read_rooms_manifest(folder)
    assert manifest.header == HEADER
    assert [m.name for m in manifest.models] == ["toys/a", "toys/b"]
    assert manifest.models[1] == MODELS[0]
    assert manifest.rooms[1] == RoomRecord("b", "test", "kitchen", ("toys/b",))


def test_the_same_rooms_give_the_same_bytes(folder, tmp_path):
    rooms = [room("a", 5, seed=1), room("b", 9, "test", ("toys/b",), seed=2)]
    again = write_rooms(tmp_path / "again", HEADER, rooms, MODELS, frames={"a": frames()})
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 8
    for file in files:
        assert (again / file).read_bytes() == (folder / file).read_bytes(), file


def test_frames_come_back_and_rooms_without_say_so(folder):
    got = read_frames(folder, "a")
    np.testing.assert_array_equal(got.depth, frames().depth)
    np.testing.assert_array_equal(got.pose, frames().pose)
    with pytest.raises(FormatError, match="--frames"):
        read_frames(folder, "b")


def test_a_folder_of_rooms_is_replaced_and_nothing_else_is(folder, tmp_path):
    write_rooms(folder, HEADER, [room("c", 2)], MODELS)
    assert open_dataset(folder).names == ("c",)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="neither"):
        write_rooms(tmp_path / "mine", HEADER, [room("c", 2)], MODELS)


@pytest.mark.parametrize("rooms", [[], [room("a", 2), room("a", 3)]])
def test_no_room_or_one_name_twice_leaves_the_old_folder(folder, rooms):
    with pytest.raises(ConfigError, match="at least one room"):
        write_rooms(folder, HEADER, rooms, MODELS)
    assert open_dataset(folder).names == ("a", "b")
    assert [p.name for p in folder.parent.iterdir()] == ["rooms"]


def test_damage_is_named(folder):
    manifest = folder / "manifest.json"
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**raw, "schema": 99}))
    with pytest.raises(FormatError, match="schema 99"):
        read_rooms(folder)
    manifest.write_text(json.dumps({**raw, "rooms": raw["rooms"][:1]}))
    with pytest.raises(FormatError, match="offsets of 1 rooms"):
        read_rooms(folder)
    manifest.write_text(json.dumps(raw))
    np.save(folder / "labels.npy", np.zeros(3, np.int16))
    with pytest.raises(FormatError, match=r"labels.npy with 14 rows"):
        read_rooms(folder)
    np.save(folder / "labels.npy", np.zeros(14, np.int64))
    with pytest.raises(FormatError, match="int16"):
        read_rooms(folder)
    (folder / "labels.npy").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="the array file"):
        read_rooms(folder)


def test_class_names_are_complete():
    assert (len(SCANNET20), len(SCANNET200), len(S3DIS13)) == (20, 200, 13)
    assert len(set(SCANNET200)) == 200
    assert len(NYU40_OF_SCANNET20) == 20
    assert SCANNET200[71] == "paper towel dispenser"
    assert SCANNET200[-1] == "mattress"
