"""Scenes in Pointcept's layout, and published ones through (a stand-in for) scenezoo."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pointzoo.data import PointDataset, open_dataset
from pointzoo.data.scene_classes import S3DIS13, SCANNET20, SCANNET200
from pointzoo.data.scenes import read_scenes
from pointzoo.data.scenes_original import read_original_scenes, vertex_normals
from pointzoo.errors import ConfigError, FormatError, MissingExtraError


def scene(folder, points=4, **arrays):
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", np.arange(points * 3, dtype=np.float32).reshape(points, 3))
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)


@pytest.fixture
def scannet(tmp_path):
    root = tmp_path / "scannet"
    for split, name in (
        ("train", "scene0000_00"),
        ("train", "scene0001_00"),
        ("val", "scene0011_00"),
    ):
        scene(
            root / split / name,
            color=np.full((4, 3), 255, np.uint8),
            normal=np.tile(np.float32([0, 0, 1]), (4, 1)),
            segment20=np.array([0, 19, -1, 4], np.int16),
            segment200=np.array([0, 199, -1, 1], np.int16),
            instance=np.array([0, 1, -1, 2], np.int16),
        )
    scene(root / "test" / "scene0707_00")
    return root


def test_scannet_gives_labelled_clouds(scannet):
    data = open_dataset(scannet)
    assert isinstance(data, PointDataset)
    assert len(data) == 4
    assert data.class_names == SCANNET20
    assert data.labels is None
    assert dict(zip(data.names, data.splits, strict=True))["val/scene0011_00"] == "val"
    train = open_dataset(scannet, "train")
    assert train.names == ("train/scene0000_00", "train/scene0001_00")
    cloud = train[0]
    np.testing.assert_array_equal(cloud.labels, [0, 19, -1, 4])
    np.testing.assert_array_equal(cloud.fields["instance"], [0, 1, -1, 2])
    assert cloud.colors.max() == 1
    assert cloud.normals[0, 2] == 1


def test_a_scene_without_labels_is_unlabelled(scannet):
    cloud = read_scenes(scannet)[read_scenes(scannet).names.index("test/scene0707_00")]
    np.testing.assert_array_equal(cloud.labels, [-1] * 4)
    assert cloud.colors is None
    assert not cloud.fields
    alone = open_dataset(scannet, "test")
    assert (alone.class_names, alone[0].labels) == ((), None)


def test_scannet200_is_asked_for_by_name(scannet):
    data = read_scenes(scannet, "val", labels="segment200")
    assert data.class_names == SCANNET200
    np.testing.assert_array_equal(data[0].labels, [0, 199, -1, 1])
    with pytest.raises(ConfigError, match="segment20"):
        read_scenes(scannet, labels="segment")


def test_one_split_or_one_scene_opens_too(scannet):
    assert open_dataset(scannet / "val").splits == ("val",)
    assert len(open_dataset(scannet / "val" / "scene0011_00")) == 1


def test_arkitscenes_has_no_labels_and_colours_as_numbers(tmp_path):
    scene(tmp_path / "Training" / "40753679", color=np.full((4, 3), 127.6))
    data = open_dataset(tmp_path, "train")
    assert data[0].labels is None
    np.testing.assert_allclose(data[0].colors, 128 / 255)


def test_s3dis_tests_on_area_five(tmp_path):
    for area in (1, 5, 6):
        scene(tmp_path / f"Area_{area}" / "office_1", segment=np.array([[0], [12], [13], [2]]))
    data = open_dataset(tmp_path)
    assert data.class_names == S3DIS13
    assert data.splits == ("train", "test", "train")
    np.testing.assert_array_equal(data[0].labels, [0, 12, -1, 2])
    assert open_dataset(tmp_path, "train").names == ("Area_1/office_1", "Area_6/office_1")
    assert open_dataset(tmp_path, "val").names == ("Area_5/office_1",)


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"coord\.npy"):
        read_scenes(tmp_path)
    scene(tmp_path / "train" / "s", color=np.zeros((3, 3), np.uint8))
    with pytest.raises(ConfigError, match="train"):
        read_scenes(tmp_path, "val")
    with pytest.raises(FormatError, match="arrays of one scene"):
        read_scenes(tmp_path)[0]
    (tmp_path / "train" / "s" / "color.npy").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="the array file"):
        read_scenes(tmp_path)[0]
    scene(tmp_path / "loose" / "room")
    assert read_scenes(tmp_path / "loose").splits == ("",)
    with pytest.raises(ConfigError, match="no splits"):
        read_scenes(tmp_path / "loose", "train")


# -- as published ----------------------------------------------------------------------------------

VERTICES = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1.0]])
FACES = np.array([[0, 1, 2], [0, 1, 3]])


class Source:
    """What scenezoo 0.3 gives for a data set, as far as it is used."""

    def get_ids(self, split=None):
        if split not in (None, "train"):
            raise KeyError(f"Unknown split {split!r}. Official splits: train.")
        return ["scene0000_00"]

    def get_mesh(self, scene, *, mesh_type=None):
        colors = np.full((4, 3), 0.5)
        return SimpleNamespace(vertices=VERTICES, vertex_colors=colors, triangles=FACES)

    def get_segmentation(self, scene, *, segmentation_type="instance", mesh_type="decimated"):
        labels = [1, 39, 0, 40] if segmentation_type == "semantic" else [7, 8, -1, -1]
        return SimpleNamespace(labels=np.array(labels, np.int32))

    def get_points(self, scene):
        return SimpleNamespace(
            xyz=VERTICES,
            rgb=np.full((4, 3), 255.0),
            semantic_labels=np.array([0, 1, 2, 12]),
            instance_labels=np.array([0, 0, 1, 1]),
        )


@pytest.fixture
def scenezoo(monkeypatch):
    module = ModuleType("scenezoo")
    module.get_dataset = lambda name, path: Source()
    monkeypatch.setitem(sys.modules, "scenezoo", module)


def test_published_scannet_has_benchmark_labels_and_normals(scenezoo, tmp_path):
    data = read_original_scenes("scannetv2", tmp_path, "train")
    assert isinstance(data, PointDataset)
    assert (len(data), data.names, data.labels) == (1, ("scene0000_00",), None)
    cloud = data[0]
    np.testing.assert_array_equal(cloud.labels, [0, 19, -1, -1])
    np.testing.assert_array_equal(cloud.fields["instance"], [7, 8, -1, -1])
    np.testing.assert_allclose(cloud.normals, vertex_normals(VERTICES, FACES))
    np.testing.assert_allclose(cloud.colors, 0.5)


def test_a_published_test_scene_is_unlabelled(scenezoo, tmp_path, monkeypatch):
    def missing(*args, **options):
        raise FileNotFoundError("no labels for the test split")

    monkeypatch.setattr(Source, "get_segmentation", missing)
    cloud = read_original_scenes("scannetv2", tmp_path)[0]
    np.testing.assert_array_equal(cloud.labels, [-1] * 4)
    assert not cloud.fields


def test_published_arkitscenes_and_s3dis(scenezoo, tmp_path):
    assert read_original_scenes("arkitscenes", tmp_path)[0].labels is None
    data = read_original_scenes("s3dis", tmp_path)
    assert data.class_names == S3DIS13
    np.testing.assert_array_equal(data[0].labels, [0, 1, 2, 12])
    assert data[0].colors.max() == 1


def test_vertex_normals_weigh_faces_by_area():
    normals = vertex_normals(VERTICES, FACES)
    np.testing.assert_allclose(normals[2], [0, 0, 1])
    np.testing.assert_allclose(normals[3], [0, -1, 0])
    np.testing.assert_allclose(normals[0], np.array([0, -1, 2]) / np.sqrt(5), rtol=1e-6)


def test_what_scenezoo_does_not_know(scenezoo, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="scannetv2"):
        read_original_scenes("kitti", tmp_path)
    with pytest.raises(ConfigError, match="Official splits"):
        read_original_scenes("s3dis", tmp_path, "val")
    monkeypatch.setattr(Source, "get_mesh", lambda *a, **k: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(FormatError, match="gone"):
        read_original_scenes("scannetv2", tmp_path)[0]
    monkeypatch.setitem(sys.modules, "scenezoo", None)
    with pytest.raises(MissingExtraError, match="scenezoo"):
        read_original_scenes("s3dis", tmp_path)
