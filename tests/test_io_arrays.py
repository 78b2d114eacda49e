import struct
import zipfile

import numpy as np
import pytest

from pointzoo import io
from pointzoo.errors import FormatError

XYZ = np.arange(12.0).reshape(4, 3)


def read_npy(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    return io.read(tmp_path / "a.npy")


def read_npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return io.read_raw(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_tables_of_any_type(tmp_path, dtype, order):
    assert np.array_equal(read_npy(tmp_path, XYZ.astype(dtype, order=order)).coords, XYZ)


def test_structured_arrays(tmp_path):
    rows = np.zeros(2, [("x", ">f4"), ("y", "f4"), ("z", "f4"), ("label", "u1"), ("w", "f2", (2,))])
    rows["x"] = [1, 2]
    rows["label"] = [3, 4]
    cloud = read_npy(tmp_path, rows)
    assert cloud.coords[:, 0].tolist() == [1, 2]
    assert cloud.labels.tolist() == [3, 4]
    assert cloud.fields["w"].shape == (2, 2)


@pytest.mark.parametrize("coords_key", ["coords", "xyz", "points", "pos", "vertices"])
@pytest.mark.parametrize("label_key", ["labels", "label", "class"])
def test_arrays_by_name(tmp_path, coords_key, label_key):
    raw = read_npz(
        tmp_path,
        **{coords_key: XYZ, label_key: np.arange(4)},
        rgb=np.full((4, 3), 255, np.uint8),
        normal=XYZ.astype(np.float32),
        intensity=np.zeros(4),
        faces=np.zeros((9, 3)),
        scale=np.float64(2),
    )
    cloud = raw.to_cloud()
    assert np.array_equal(cloud.coords, XYZ)
    assert np.array_equal(cloud.normals, XYZ)
    assert (cloud.colors == 1).all()
    assert cloud.labels.tolist() == [0, 1, 2, 3]
    assert set(cloud.fields) == {"intensity"}
    assert [note.split("'")[1] for note in raw.notes] == ["faces", "scale"]


def test_coordinates_with_more_columns_beside_arrays(tmp_path):
    table = np.column_stack([XYZ, np.full((4, 3), 0.5), [1, 2, 3, 4]])
    cloud = read_npz(tmp_path, points=table, colors=np.zeros((4, 3))).to_cloud()
    assert (cloud.colors == 0).all()
    assert cloud.labels.tolist() == [1, 2, 3, 4]


def test_one_array_of_any_name(tmp_path):
    assert np.array_equal(read_npz(tmp_path, arr_0=XYZ).coords, XYZ)
    np.savez_compressed(tmp_path / "b.npz", XYZ)
    assert np.array_equal(io.read(tmp_path / "b.npz").coords, XYZ)


def test_columns_as_arrays(tmp_path):
    x, y, z = XYZ.T
    cloud = read_npz(tmp_path, x=x, y=y, z=z, weight=x, other=XYZ, faces=np.zeros((9, 3)))
    assert "'faces'" in cloud.notes[0]
    assert np.array_equal(cloud.coords, XYZ)
    assert set(cloud.fields) == {"weight", "other"}


def test_colors_of_another_shape_stay_fields(tmp_path):
    cloud = read_npz(
        tmp_path, coords=XYZ, colors=np.zeros((4, 4)), normals=np.array([["a"] * 3] * 4)
    )
    assert cloud.colors is None
    assert set(cloud.fields) == {"colors", "normals"}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 2)), "table"),
        (np.zeros((2, 4, 3)), "table"),
        (np.array(["a", "b"]), "table"),
        (np.array([{"an": "object"}]), "NPY"),
        (np.zeros(2, [("a", "f4")]), "columns x, y and z"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, words):
    with pytest.raises(FormatError, match=words):
        read_npy(tmp_path, array)


def test_other_archives_are_refused(tmp_path):
    with pytest.raises(FormatError, match="columns x, y and z"):
        read_npz(tmp_path, first=XYZ, second=XYZ)
    with pytest.raises(FormatError, match="columns x, y and z"):
        read_npz(tmp_path)
    with pytest.raises(FormatError, match="NPZ"):
        read_npz(tmp_path, coords=np.array([{"an": "object"}]))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(FormatError, match="columns x, y and z"):
        io.read(tmp_path / "a.npz")


def test_headers_that_promise_too_much(tmp_path):
    np.save(tmp_path / "a.npy", XYZ)
    whole = (tmp_path / "a.npy").read_bytes()
    for shape in (b"(5, 3), ", b"(1152921504606846976, 3), "):
        (tmp_path / "a.npy").write_bytes(whole.replace(b"(4, 3), ", shape))
        with pytest.raises(FormatError, match="NPY"):
            io.read(tmp_path / "a.npy")
    np.savez_compressed(tmp_path / "a.npz", coords=XYZ)
    packed = (tmp_path / "a.npz").read_bytes()
    place = packed.rindex(b"PK\1\2") + 24  # the size in the central directory
    huge = packed[:place] + struct.pack("<I", 2**31) + packed[place + 4 :]
    (tmp_path / "a.npz").write_bytes(huge)
    with pytest.raises(FormatError, match="unpack to 2,147,483,648 bytes"):
        io.read(tmp_path / "a.npz")


def test_labels_that_are_no_numbers_stay_a_field(tmp_path):
    cloud = read_npz(tmp_path, coords=XYZ, label=np.array(list("abcd")), labels=np.ones((4, 2)))
    assert cloud.labels is None
    assert set(cloud.fields) == {"label", "labels"}
