import sys
import zipfile

import h5py
import numpy as np
import pytest

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.data import ArrayDataset, FileDataset, PointDataset, open_dataset, read_folder
from pointzoo.data.readers import SCANOBJECTNN_CLASSES
from pointzoo.errors import CloudError, ConfigError, FormatError, MissingExtraError

RNG = np.random.default_rng(0)


def clouds(count, points=16, width=3):
    return RNG.normal(size=(count, points, width)).astype(np.float32)


# --- ArrayDataset ---------------------------------------------------------------------------------


def test_array_dataset_gives_clouds():
    coords = clouds(4)
    data = ArrayDataset(
        name="set",
        coords=coords,
        normals=coords.astype(np.float16),
        colors=np.full(coords.shape, 255, np.uint8),
        labels=np.array([0, 1, -1, 0]),
        class_names=("a", "b"),
        point_fields={"mask": np.zeros(coords.shape[:2], np.int8)},
    )
    assert isinstance(data, PointDataset)
    assert len(data) == 4
    assert data.names == ("0", "1", "2", "3")
    cloud = data[-1]
    assert np.array_equal(cloud.coords, coords[3])
    assert np.all(cloud.colors == 1)
    assert cloud.normals.dtype == np.float32
    assert "mask" in cloud.fields
    with pytest.raises(IndexError):
        data[4]


def test_array_dataset_reads_mapped_files_lazily(tmp_path):
    np.save(tmp_path / "c.npy", clouds(3))
    data = ArrayDataset(name="set", coords=np.load(tmp_path / "c.npy", mmap_mode="r"))
    assert isinstance(data.coords, np.memmap)
    assert len(data[1]) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coords": np.zeros((4, 3))}, r"coords \(M, P, 3\)"),
        ({"normals": np.zeros((4, 15, 3))}, "normals of shape"),
        ({"colors": np.zeros((3, 16, 3))}, "colors of shape"),
        ({"point_fields": {"mask": np.zeros((4, 15))}}, "field 'mask'"),
        ({"labels": np.zeros(3, int)}, r"labels \(4,\)"),
        ({"labels": np.zeros(4)}, "of integers"),
        ({"labels": np.full(4, 2)}, "from -1 to 1"),
        ({"names": ("a", "b", "c")}, "4 different names"),
        ({"names": ("a", "b", "c", "c")}, "4 different names"),
    ],
)
def test_array_dataset_refuses(change, message):
    with pytest.raises(CloudError, match=message):
        ArrayDataset(**{"name": "set", "coords": clouds(4), "class_names": ("a", "b"), **change})


# --- ShapeNet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("width", [3, 6])
def test_shapenet(tmp_path, save, width):
    data = clouds(5, width=width)
    save(tmp_path / "shapenet57448xyzonly.npz", data=data)
    for path in (tmp_path, tmp_path / "shapenet57448xyzonly.npz"):
        found = open_dataset(path)
        assert len(found) == 5
        assert found.labels is None
        assert np.array_equal(found[2].coords, data[2, :, :3])
    mapped = isinstance(found.coords.base, np.memmap) or isinstance(found.coords, np.memmap)
    assert mapped == (save is np.savez)
    with pytest.raises(ConfigError, match="part 'train'"):
        open_dataset(tmp_path, "train")


def test_shapenet_in_fortran_order_and_with_a_long_header(tmp_path):
    data = np.asfortranarray(clouds(5))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("data.npy", "w") as part:
        np.lib.format.write_array(part, data, version=(2, 0))
    assert np.array_equal(open_dataset(tmp_path / "a.npz").coords, data)


def test_shapenet_refuses(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, other=clouds(2))
    with pytest.raises(FormatError, match="no array 'data'"):
        open_dataset(path)
    np.savez(path, data=np.zeros((2, 3)))
    with pytest.raises(FormatError, match="has shape"):
        open_dataset(path)
    np.savez(path, data=np.array([{"an": "object"}]))
    with pytest.raises(FormatError, match="Python objects"):
        open_dataset(path)
    np.savez(path, data=clouds(200))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FormatError, match=r"a\.npz"):
        open_dataset(path)


# --- ModelNet40 -----------------------------------------------------------------------------------


def write_modelnet_text(root, classes=("airplane", "night_stand"), prefix="modelnet40"):
    root.mkdir()
    (root / f"{prefix}_shape_names.txt").write_text("\n".join(classes) + "\n")
    content = {}
    for part, numbers in (("train", (1, 2)), ("test", (3,))):
        names = [f"{cls}_{number:04d}" for cls in classes for number in numbers]
        (root / f"{prefix}_{part}.txt").write_text("\n".join(names))
        for name in names:
            folder = root / name.rpartition("_")[0]
            folder.mkdir(exist_ok=True)
            rows = RNG.normal(size=(10, 6))
            rows[:, 3:] /= np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)
            np.savetxt(folder / f"{name}.txt", rows, fmt="%.6f", delimiter=",")
            content[name] = rows
    return content


def test_modelnet_text(tmp_path):
    root = tmp_path / "modelnet40_normal_resampled"
    content = write_modelnet_text(root)
    everything = open_dataset(root)
    assert everything.class_names == ("airplane", "night_stand")
    assert len(everything) == 6
    train, test = open_dataset(root, "train"), open_dataset(root, "test")
    assert train.names + test.names == everything.names
    assert test.labels.tolist() == [0, 1]
    cloud = test[1]
    assert np.allclose(cloud.coords, content["night_stand_0003"][:, :3], atol=1e-6)
    assert np.allclose(cloud.normals, content["night_stand_0003"][:, 3:], atol=1e-6)
    with pytest.raises(ConfigError, match="'train' or 'test'"):
        open_dataset(root, "val")


def test_modelnet_text_prefers_forty_classes(tmp_path):
    root = tmp_path / "modelnet40_normal_resampled"
    write_modelnet_text(root)
    (root / "modelnet10_shape_names.txt").write_text("airplane\n")
    assert len(open_dataset(root).class_names) == 2


def test_modelnet_text_refuses(tmp_path):
    from pointzoo.data.readers import read_modelnet_text

    root = tmp_path / "modelnet40_normal_resampled"
    write_modelnet_text(root)
    (root / "modelnet40_train.txt").write_text("zebra_0001\n")
    with pytest.raises(FormatError, match="unlisted class 'zebra'"):
        open_dataset(root)
    (root / "modelnet40_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="modelnet40_train"):
        open_dataset(root)
    with pytest.raises(FormatError, match="modelnet40_shape_names"):
        read_modelnet_text(tmp_path)


def write_modelnet_hdf5(root, normals=True):
    root.mkdir()
    (root / "shape_names.txt").write_text("airplane\nbathtub\n")
    made = {}
    for part, count in (("train", 2), ("test", 1)):
        lines = []
        for i in range(count):
            name = f"ply_data_{part}{i}.h5"
            lines.append(f"data/modelnet40_ply_hdf5_2048/{name}")
            made[name] = clouds(3)
            with h5py.File(root / name, "w") as file:
                file.create_dataset("data", data=made[name], compression="gzip")
                file["label"] = np.array([[0], [1], [1]], np.uint8)
                if normals:
                    file["normal"] = made[name]
        (root / f"{part}_files.txt").write_text("\n".join(lines) + "\n")
    return made


@pytest.mark.parametrize("normals", [True, False])
def test_modelnet_hdf5(tmp_path, normals):
    root = tmp_path / "modelnet40_ply_hdf5_2048"
    made = write_modelnet_hdf5(root, normals)
    everything = open_dataset(root)
    assert len(everything) == 9
    assert len(open_dataset(root, "train")) == 6
    test = open_dataset(root, "test")
    assert test.names == ("test/0", "test/1", "test/2")
    assert test.labels.tolist() == [0, 1, 1]
    assert test.labels.dtype == np.int64
    assert np.array_equal(test[2].coords, made["ply_data_test0.h5"][2])
    assert (test[2].normals is not None) == normals


def test_hdf5_refuses(tmp_path, monkeypatch):
    root = tmp_path / "modelnet40_ply_hdf5_2048"
    write_modelnet_hdf5(root)
    path = root / "ply_data_test0.h5"
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="HDF5"):
            open_dataset(root)
    with h5py.File(path, "w") as file:
        file["data"] = clouds(3)
        file["label"] = np.zeros(2)
    with pytest.raises(FormatError, match="unequal lengths"):
        open_dataset(root)
    with h5py.File(path, "w") as file:
        file["data"] = clouds(3)
    with pytest.raises(FormatError, match="label"):
        open_dataset(root)
    with h5py.File(path, "w") as file:
        file["data"] = clouds(3, points=17)
        file["label"] = np.zeros(3)
    with pytest.raises(FormatError, match="equally many points"):
        open_dataset(root)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(2**20, 2048, 3), dtype="f4", chunks=(1, 2048, 3))
        file["label"] = np.zeros(3)
    with pytest.raises(FormatError, match="more than fits"):
        open_dataset(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="ply_data_test0"):
        open_dataset(root)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pointzoo\[hdf5\]"):
        open_dataset(root)


# --- ScanObjectNN ---------------------------------------------------------------------------------


def write_scanobjectnn(folder):
    folder.mkdir(parents=True)
    for stem, count in (("training", 4), ("test", 2)):
        with h5py.File(folder / f"{stem}_objectdataset.h5", "w") as file:
            file["data"] = clouds(count)
            file["label"] = np.arange(count) + 10
            file["mask"] = np.where(RNG.random((count, 16)) < 0.5, -1, 3).astype(np.int32)


def test_scanobjectnn(tmp_path):
    folder = tmp_path / "h5_files" / "main_split"
    write_scanobjectnn(folder)
    for path in (folder, folder.parent):
        assert len(open_dataset(path)) == 6
        assert len(open_dataset(path, "train")) == 4
        assert len(open_dataset(path, "test")) == 2
    single = open_dataset(folder / "test_objectdataset.h5")
    assert single.class_names == SCANOBJECTNN_CLASSES
    assert len(SCANOBJECTNN_CLASSES) == 15
    assert single.labels.tolist() == [10, 11]
    assert set(np.unique(single[0].fields["mask"])) <= {-1, 3}
    with pytest.raises(ConfigError, match="part 'test'"):
        open_dataset(folder / "test_objectdataset.h5", "test")


# --- Folders --------------------------------------------------------------------------------------


def write_clouds(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write(path, PointCloud(coords=np.full((3, 3), number, float)))


def test_folder_of_classes(tmp_path):
    write_clouds(tmp_path, "chair/b.ply", "chair/a.npy", "table/deep/c.xyz", ".hidden/d.ply")
    (tmp_path / "chair" / "readme.md").write_text("no cloud")
    (tmp_path / "classes.txt").write_text("no cloud either")
    data = open_dataset(tmp_path)
    assert isinstance(data, PointDataset)
    assert data.name == tmp_path.name
    assert data.names == ("chair/a.npy", "chair/b.ply", "table/deep/c.xyz")
    assert data.class_names == ("chair", "table")
    assert data.labels.tolist() == [0, 0, 1]
    assert data[0].coords[0, 0] == 1
    assert data[-1].coords[0, 0] == 2
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(ConfigError, match="no such parts"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("layout", ["{part}/{cls}/{i}.ply", "{cls}/{part}/{i}.ply"])
@pytest.mark.parametrize("held_out", ["test", "val", "Validation"])
def test_folder_with_parts(tmp_path, layout, held_out):
    names = [
        layout.format(part=part, cls=cls, i=i)
        for part, count in (("train", 3), (held_out, 2))
        for cls in ("chair", "table")
        for i in range(count)
    ]
    write_clouds(tmp_path, *names)
    assert len(open_dataset(tmp_path)) == 10
    train = open_dataset(tmp_path, "train")
    assert train.class_names == ("chair", "table")
    assert np.bincount(train.labels).tolist() == [3, 3]
    for part in ("test", "val"):
        assert len(open_dataset(tmp_path, part)) == 4
    with pytest.raises(ConfigError, match="train"):
        read_folder(tmp_path, "minitrain")


def test_class_numbers_do_not_depend_on_the_part(tmp_path):
    write_clouds(tmp_path, "train/a/1.ply", "train/b/1.ply", "test/b/2.ply")
    test = open_dataset(tmp_path, "test")
    assert test.class_names == ("a", "b")
    assert test.labels.tolist() == [1]


def test_folder_without_classes(tmp_path):
    write_clouds(tmp_path, "a.ply", "b.ply")
    data = open_dataset(tmp_path)
    assert data.labels is None
    assert data.class_names == ()
    write_clouds(tmp_path / "parts", "train/a.ply", "test/b.ply")
    assert open_dataset(tmp_path / "parts", "train").names == ("train/a.ply",)


def test_folder_of_meshes_gives_the_same_points_again(tmp_path):
    (tmp_path / "wedge").mkdir()
    path = tmp_path / "wedge" / "a.off"
    path.write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    data = open_dataset(tmp_path, points=64)
    assert isinstance(data, FileDataset)
    assert len(data[0]) == 64
    assert np.array_equal(data[0].coords, open_dataset(tmp_path, points=64)[0].coords)


def test_open_dataset_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="none in"):
        open_dataset(tmp_path)
    write_clouds(tmp_path, "a.ply")
    with pytest.raises(FormatError, match="single cloud"):
        open_dataset(tmp_path / "a.ply")


def test_corpus(tmp_path):
    from pointzoo.data import corpus

    record = {"source": "", "sha256": "", "author": "", "licence": "CC0-1.0"}
    shapes = [
        corpus.Shape(
            corpus.ShapeRecord(name=f"shape{i}", label=i, **record),
            coords=clouds(1)[0],
            normals=clouds(1)[0],
            colors=np.zeros((16, 3), np.uint8),
        )
        for i in range(2)
    ]
    header = corpus.CorpusHeader(
        name="two", description="", command="", class_names=("a", "b"), licence="", pretraining=True
    )
    corpus.write_corpus(tmp_path / "two", header, shapes)
    data = open_dataset(tmp_path / "two")
    assert data.name == "two"
    assert data.labels.tolist() == [0, 1]
    assert len(data[0]) == 16
    with pytest.raises(ConfigError, match="part 'test'"):
        open_dataset(tmp_path / "two", "test")
