import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError

LAYOUTS = {
    "ascii": {"text": True},
    "little": {"byte_order": "<"},
    "big": {"byte_order": ">"},
}


def vertices(*columns, count=5):
    """A structured array with x, y, z and more columns (name, type, values)."""
    named = [(axis, "f4", np.arange(count) * 0.5 + i) for i, axis in enumerate("xyz")]
    named += columns
    rows = np.empty(count, [(name, kind) for name, kind, _ in named])
    for name, _, values in named:
        rows[name] = values
    return rows


def save(path, *elements, layout="little"):
    PlyData([PlyElement.describe(rows, name) for name, rows in elements], **LAYOUTS[layout]).write(
        str(path)
    )
    return path


def lists(count, name="vertex_indices", lengths=None):
    rows = np.empty(count, [(name, "O")])
    for i in range(count):
        rows[name][i] = np.arange(lengths[i] if lengths else 3, dtype="i4")
    return rows


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_property_is_read_as_plyfile_reads_it(tmp_path, layout):
    kinds = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
    extra = [(f"extra_{kind}", kind, np.arange(5) * 3) for kind in kinds]
    rows = vertices(*extra)
    path = save(tmp_path / "a.ply", ("vertex", rows), ("face", lists(4)), layout=layout)
    raw = io.read_raw(path)
    theirs = PlyData.read(str(path))["vertex"].data
    assert np.array_equal(raw.coords, np.column_stack([theirs[axis] for axis in "xyz"]))
    for kind in kinds:
        assert np.array_equal(raw.fields[f"extra_{kind}"], theirs[f"extra_{kind}"])
        assert raw.fields[f"extra_{kind}"].dtype == np.dtype(kind)
    assert raw.notes == ("4 rows of the element 'face' are left out.",)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "names", ["red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue"]
)
@pytest.mark.parametrize(("kind", "full"), [("u1", 255), ("u2", 65_535), ("f4", 1.0)])
def test_colors_of_every_name_and_type(tmp_path, layout, names, kind, full):
    levels = np.array([0, full / 5, full, full / 5, 0])
    extra = [(name, kind, levels) for name in names.split()]
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(*extra)), layout=layout))
    assert np.allclose(cloud.colors[:, 1], [0, 0.2, 1, 0.2, 0])
    assert not cloud.fields


def test_alpha_and_incomplete_colors_stay_fields(tmp_path):
    alpha = ("alpha", "u1", 255)
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(alpha, ("red", "u1", 3)))))
    assert cloud.colors is None
    assert set(cloud.fields) == {"alpha", "red"}


@pytest.mark.parametrize("name", ["label", "labels", "class", "scalar_Label", "Classification"])
@pytest.mark.parametrize("kind", ["u1", "i4", "f4"])
def test_labels_of_every_name(tmp_path, name, kind):
    extra = (name, kind, [3, 1, 4, 1, 5])
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(extra))))
    assert cloud.labels.tolist() == [3, 1, 4, 1, 5]


def test_scores_are_no_labels(tmp_path):
    extra = [("label", "f4", [0.5, 1, 2, 3, 4]), ("class", "f4", [np.nan, 1, 2, 3, 4])]
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(*extra))))
    assert cloud.labels is None
    assert set(cloud.fields) == {"label", "class"}


def test_normals_and_a_second_label(tmp_path):
    extra = [
        ("nx", "f4", 0),
        ("ny", "f4", 0),
        ("nz", "f4", 1),
        ("class", "i4", 7),
        ("label", "i4", 8),
    ]
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(*extra))))
    assert cloud.normals.tolist() == [[0, 0, 1]] * 5
    assert set(cloud.labels) == {8}
    assert set(cloud.fields["class"]) == {7}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_elements_before_the_vertices(tmp_path, layout):
    camera = np.zeros(2, [("view", "f4"), ("id", "u1")])
    elements = ("camera", camera), ("face", lists(3, lengths=[3, 4, 0])), ("vertex", vertices())
    found = io.read(save(tmp_path / "a.ply", *elements, layout=layout))
    assert np.array_equal(found.coords[:, 0], np.arange(5) * 0.5)


def vertex_lists(path, lengths, layout):
    rows = np.empty(len(lengths), [("x", "f4"), ("w", "O"), ("y", "f4"), ("z", "f4"), ("v", "O")])
    for i, length in enumerate(lengths):
        rows[i] = i, np.arange(length, dtype="f4") + i, i, i, np.arange(2, dtype="i2")
    kinds = {"val_types": {"w": "f4", "v": "i2"}, "len_types": {"w": "u1", "v": "i4"}}
    element = PlyElement.describe(rows, "vertex", **kinds)
    PlyData([element], **LAYOUTS[layout]).write(str(path))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_at_the_vertices(tmp_path, layout):
    found = io.read(vertex_lists(tmp_path / "a.ply", [3, 3, 3], layout))
    assert found.fields["w"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert found.fields["v"].dtype == np.int16
    assert len(io.read(vertex_lists(tmp_path / "b.ply", [], layout))) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lengths", [[3, 2], [2, 3, 2, 3]])
def test_lists_of_unequal_length_are_refused(tmp_path, layout, lengths):
    with pytest.raises(FormatError, match="PLY"):
        io.read(vertex_lists(tmp_path / "a.ply", lengths, layout))


def test_what_is_written_is_what_plyfile_reads(tmp_path):
    cloud = PointCloud(
        coords=np.arange(6.0).reshape(2, 3) + 1e-9,
        colors=np.array([[1, 2, 3], [4, 5, 6]], np.uint8),
        labels=[3, 4],
        fields={"pair": np.arange(4.0).reshape(2, 2), "ring": np.arange(2, dtype="u2")},
    )
    io.write(tmp_path / "a.ply", cloud)
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert [str(p).split()[1] for p in rows.properties[:3]] == ["double"] * 3
    assert rows["x"].tolist() == [1e-9, 3 + 1e-9]
    assert rows["red"].dtype == np.uint8
    assert rows["label"].tolist() == [3, 4]
    assert rows["ring"].dtype == np.uint16
    assert [entry.tolist() for entry in rows["pair"]] == [[0, 1], [2, 3]]


HEADER = (
    "ply\nformat ascii 1.0\n{}property float x\nproperty float y\nproperty float z\nend_header\n"
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("plx\n", "line 'ply'"),
        ("ply\nformat ascii 1.0\nelement vertex 1\n", "no end"),
        (HEADER.format("element vertex 2\n") + "1 2 3\n", "1 of 2 vertices"),
        (HEADER.format("element vertex 1152921504606846976\n") + "1 2 3\n", "1 of 1152921504606"),
        (HEADER.format("element vertex -1\n"), "PLY"),
        (HEADER.format("element vertex many\n"), "many"),
        (HEADER.format("element vertex 1\n") + "1 2\n", "too few values"),
        (HEADER.format("element vertex 1\n") + "1 2 three\n", "three"),
        (HEADER.format("element point 1\n") + "1 2 3\n", "no element 'vertex'"),
        (HEADER.format("element vertex 1\nproperty half w\n"), "property 'half w'"),
        (HEADER.format("element vertex 1\nproperty list u v\n"), "property 'list u v'"),
        (HEADER.format("element vertex 1\nproperty float x\n"), "PLY"),
        (HEADER.format("element vertex 1\nsurprise\n"), "surprise"),
        (HEADER.format("property float w\n"), "property float w"),
        (HEADER.format("element vertex 1\n").replace("format ascii 1.0\n", ""), "names no format"),
        (HEADER.format("element vertex 1\n").replace("ascii", "binary"), "format binary"),
        ("ply\nformat ascii 1.0\nelement vertex 1\nend_header\n1 2 3\n", "PLY"),
        (
            "ply\nformat binary_little_endian 1.0\nelement vertex 9\nend_header\n",
            "have no properties",
        ),
        (
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
            "columns x, y and z",
        ),
        (
            HEADER.format("element vertex 1\n").replace("ascii", "binary_little_endian"),
            "promises 1",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    (tmp_path / "a.ply").write_text(content)
    with pytest.raises(FormatError, match=words):
        io.read(tmp_path / "a.ply")


def test_windows_line_ends_comments_and_blank_lines(tmp_path):
    text = (
        HEADER.format("comment made by hand\nobj_info x\n\nelement vertex 2\n") + "1 2 3\n\n4 5 6\n"
    )
    (tmp_path / "a.ply").write_bytes(text.replace("\n", "\r\n").encode())
    assert io.read(tmp_path / "a.ply").coords.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_lists_longer_than_the_file_take_no_memory(tmp_path):
    io.write(tmp_path / "a.ply", PointCloud(np.zeros((2, 3)), fields={"w": np.ones((2, 2))}))
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(content.replace(b"\x02\0\0\0", b"\0\0\1\0"))
    with pytest.raises(FormatError, match="promises 2 rows"):
        io.read(tmp_path / "a.ply")


def test_whole_numbers_too_large_for_labels_stay_a_field(tmp_path):
    extra = ("label", "f8", [1e17, 1, 2, 3, 4])
    cloud = io.read(save(tmp_path / "a.ply", ("vertex", vertices(extra))))
    assert cloud.labels is None
    assert cloud.fields["label"][0] == 1e17


def test_mixed_elements_before_the_vertices(tmp_path):
    mixed = np.empty(2, [("id", "u1"), ("way", "O"), ("cost", "f4")])
    for i in range(2):
        mixed[i] = i, np.arange(i + 1, dtype="i4"), 0.5
    path = save(tmp_path / "a.ply", ("way", mixed), ("vertex", vertices()))
    assert io.read(path).coords[4, 0] == 2
