import numpy as np
import pytest

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io.table import from_table, kind_of_triple

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(8, 3)).round(3)
NORMALS = np.array([[0, 0, 1.0], [0, -1, 0]] * 4)
COLORS_8 = RNG.integers(0, 256, (8, 3)).astype(float)
COLORS_1 = RNG.random((8, 3)).round(3)


def read(tmp_path, content, name="a.xyz", **options):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return io.read_raw(tmp_path / name, **options)


def rows(*parts, delimiter=" "):
    table = np.column_stack(parts)
    return "\n".join(delimiter.join(f"{value:g}" for value in row) for row in table) + "\n"


# --- Columns by place -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([], {}),
        ([[7.5] * 8], {"fields": ["intensity"]}),
        ([[1] * 8, [2] * 8], {"fields": ["column_3", "column_4"]}),
        ([NORMALS], {"normals": NORMALS}),
        ([COLORS_8], {"colors": COLORS_8 / 255}),
        ([COLORS_1], {"colors": COLORS_1}),
        ([COLORS_8 * 100], {"fields": ["column_3", "column_4", "column_5"]}),
        ([COLORS_8, [3, 4] * 4], {"colors": COLORS_8 / 255, "labels": [3, 4] * 4}),
        ([NORMALS, [-1, 4] * 4], {"normals": NORMALS, "labels": [-1, 4] * 4}),
        ([[1500] * 8, COLORS_8], {"fields": ["intensity"], "colors": COLORS_8 / 255}),
        ([NORMALS, [0.5] * 8], {"normals": NORMALS, "fields": ["column_6"]}),
        ([COLORS_8, NORMALS], {"colors": COLORS_8 / 255, "normals": NORMALS}),
        ([NORMALS, COLORS_8], {"colors": COLORS_8 / 255, "normals": NORMALS}),
        (
            [COLORS_8, COLORS_1],
            {"colors": COLORS_8 / 255, "fields": [f"column_{i}" for i in (6, 7, 8)]},
        ),
        (
            [COLORS_8, [1] * 8, [2] * 8],
            {"colors": COLORS_8 / 255, "fields": ["column_6", "column_7"]},
        ),
    ],
)
def test_columns_without_names(tmp_path, parts, found):
    cloud = read(tmp_path, rows(XYZ, *parts)).to_cloud()
    assert np.allclose(cloud.coords, XYZ)
    for part in ("colors", "normals", "labels"):
        value = getattr(cloud, part)
        if part in found:
            assert np.allclose(value, found[part], atol=1e-5)
        else:
            assert value is None
    assert sorted(cloud.fields) == sorted(found.get("fields", []))


def test_the_same_table_as_an_array(tmp_path):
    table = np.column_stack([XYZ, COLORS_8, NORMALS])
    np.save(tmp_path / "a.npy", table.astype(np.float32))
    cloud = io.read(tmp_path / "a.npy")
    assert np.allclose(cloud.colors, COLORS_8 / 255)
    assert np.allclose(cloud.normals, NORMALS)


def test_columns_that_fit_no_rule_are_noted(tmp_path):
    raw = read(tmp_path, rows(XYZ, COLORS_8 + 0.5))
    assert "Columns 4 to 6 have no name" in raw.notes[0]
    assert read(tmp_path, rows(XYZ, COLORS_8)).notes == ()


def test_points_files_have_a_count_and_the_intensity_first(tmp_path):
    content = "8\n" + rows(XYZ, [3] * 8, COLORS_8)
    raw = read(tmp_path, content, "a.pts")
    assert raw.fields["intensity"].tolist() == [3] * 8
    assert np.array_equal(raw.colors, COLORS_8)
    other = read(tmp_path, rows(XYZ, [3] * 8, COLORS_8), "a.txt")  # small blue values: a label
    assert "intensity" in other.fields or other.labels is not None
    with pytest.raises(FormatError, match="promises 8 points, there are 7"):
        read(tmp_path, content.rpartition("\n")[0].rpartition("\n")[0], "a.pts")
    assert len(read(tmp_path, "0\n", "a.pts").coords) == 0


def test_triples_of_nothing_known():
    assert kind_of_triple(np.empty((0, 3))) is None
    assert kind_of_triple(np.full((2, 3), np.nan)) is None
    assert kind_of_triple(np.array([[0.5, -3, 1]])) is None


@pytest.mark.parametrize(
    "table", [np.zeros(3), np.zeros((2, 2)), np.zeros((2, 2, 3)), np.array([["a"] * 3])]
)
def test_tables_are_checked(table):
    with pytest.raises(FormatError, match="table"):
        from_table(table)


# --- Columns by name ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "x y z nx ny nz time\n{}",
        "X,Y,Z,Nx,Ny,Nz,time\n{}",
        "//X Y Z Nx Ny Nz time\n{}",
        "# some program 1.0\n# x y z nx ny nz time\n\n{}",
        '"x";"y";"z";"nx";"ny";"nz";"time"\n{}',
        "﻿x y z nx ny nz time\n{}",
        "8\nx y z nx ny nz time\n{}",
    ],
)
def test_names_in_a_header(tmp_path, content):
    delimiter = next((mark for mark in ",;" if mark in content), " ")
    cloud = read(tmp_path, content.format(rows(XYZ, NORMALS, [0.25] * 8, delimiter=delimiter)))
    assert np.allclose(cloud.coords, XYZ)
    assert np.allclose(cloud.normals, NORMALS)
    assert cloud.fields["time"].tolist() == [0.25] * 8


def test_names_from_the_caller(tmp_path):
    names = ("id", "y", "x", "z")
    cloud = read(tmp_path, "1 2 3 4\n5 6 7 8\n", columns=names)
    assert cloud.coords.tolist() == [[3, 2, 4], [7, 6, 8]]
    assert cloud.fields["id"].tolist() == [1, 5]
    with pytest.raises(FormatError, match="4 names for 3 columns"):
        read(tmp_path, "1 2 3\n", columns=names)
    with pytest.raises(FormatError, match="repeat"):
        read(tmp_path, "1 2 3\n", columns=("x", "y", "x"))


def test_prose_in_comments_is_no_header(tmp_path):
    cloud = read(tmp_path, "# where x y z are metres\n% more\n1 2 3\n# between\n4 5 6 // after\n")
    assert cloud.coords.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "line", ["1,2,3", "1, 2, 3", "1;2;3", "1\t2\t3", "  1   2 3  ", "1e0 +2 3."]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_separators_and_line_ends(tmp_path, line, end):
    assert read(tmp_path, line + end, "a.csv").coords.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no point"),
        ("\n\n# only a comment\n", "no point"),
        ("5\n", "no point"),
        ("1 2\n3 4\n", "table"),
        ("1 2 3\n4 5\n", "columns"),
        ("1 2 3\n4 5 six\n", "six"),
        ("x y z\nu v w\n1 2 3\n", "no numbers in the line 'u v w'"),
        ("x y z w\n1 2 3\n", "4 names for 3 columns"),
        ("a b c\n1 2 3\n", "columns x, y and z"),
        ("x y y\n1 2 3\n", "repeat"),
        ("1,5 2,5 3,5\n", "columns x, y and z"),
        (b"\xff\xfe1 2 3", "text"),
        (b"1 2 3\n\0\0\0\n", "text"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    with pytest.raises(FormatError, match=words):
        read(tmp_path, content)


def test_what_is_written(tmp_path):
    io.write(tmp_path / "a.xyz", PointCloud(coords=[[1, 2.5, 1e-9]]))
    assert (tmp_path / "a.xyz").read_text() == "1.0 2.5 1e-09\n"
    io.write(tmp_path / "a.csv", PointCloud(coords=[[1, 2, 3]]))
    assert (tmp_path / "a.csv").read_text() == "x,y,z\n1.0,2.0,3.0\n"
    cloud = PointCloud([[1, 2, 3]], colors=np.array([[255, 0, 51]], np.uint8), labels=[4])
    io.write(tmp_path / "a.txt", cloud)
    assert (
        tmp_path / "a.txt"
    ).read_text() == "# x y z red green blue label\n1.0 2.0 3.0 1.0 0.0 0.2 4\n"


def test_long_files_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("pointzoo.io.text._CHUNK", 3)
    io.write(tmp_path / "a.xyz", PointCloud(coords=XYZ))
    assert np.array_equal(io.read(tmp_path / "a.xyz").coords, XYZ)


@pytest.mark.parametrize(
    "fields", [{"pair": np.zeros((1, 2))}, {"a,b": np.zeros(1)}, {"a;b": np.zeros(1)}]
)
def test_fields_that_text_cannot_hold(tmp_path, fields):
    with pytest.raises(FormatError, match="one number per point"):
        io.write(tmp_path / "a.xyz", PointCloud(coords=[[1, 2, 3]], fields=fields))
