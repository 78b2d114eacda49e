"""What holds for every format: round trips, endings, atomic writes, typed errors."""

import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import CloudError, ConfigError, FormatError, MissingExtraError

FULL = (".las", ".laz", ".npz", ".pcd", ".ply")  # hold several numbers per point and types
TEXT = (".csv", ".txt", ".xyz")
FIELD_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")


def make_cloud(count=20, seed=0, **changes):
    rng = np.random.default_rng(seed)
    parts = {
        "coords": rng.normal(size=(count, 3)).round(4),
        "colors": rng.integers(0, 256, (count, 3)).astype(np.uint8),
        "normals": rng.normal(size=(count, 3)).astype(np.float32),
        "labels": rng.integers(1, 20, count),
        "fields": {"weight": rng.random(count), "ring": rng.integers(0, 99, count).astype("u2")},
    }
    return PointCloud(**{**parts, **changes})


def assert_same(found, wanted, *, tolerance=0.0, exact_types=True):
    assert np.allclose(found.coords, wanted.coords, rtol=0, atol=tolerance, equal_nan=True)
    for part in ("colors", "normals", "labels"):
        ours, theirs = getattr(found, part), getattr(wanted, part)
        assert (ours is None) == (theirs is None), part
        if theirs is not None:
            assert np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind == "f"), part
    for name, values in wanted.fields.items():
        assert np.array_equal(found.fields[name], values, equal_nan=values.dtype.kind == "f")
        assert found.fields[name].shape == values.shape
        if exact_types:
            assert found.fields[name].dtype == values.dtype


@pytest.mark.parametrize("ending", FULL + TEXT)
def test_round_trip(tmp_path, ending):
    cloud = make_cloud()
    io.write(tmp_path / f"a{ending}", cloud)
    found = io.read(tmp_path / f"a{ending}")
    tolerance = 1e-12 if ending in (".las", ".laz") else 0.0
    assert_same(found, cloud, tolerance=tolerance, exact_types=ending in FULL)


@pytest.mark.parametrize("ending", io.WRITABLE)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_round_trip_of_coordinates_alone(tmp_path, ending, count):
    cloud = PointCloud(coords=np.arange(3.0 * count).reshape(count, 3))
    io.write(tmp_path / f"a{ending}", cloud)
    found = io.read(tmp_path / f"a{ending}")
    assert_same(found, cloud)
    assert found.colors is None
    assert found.normals is None
    assert found.labels is None


@pytest.mark.parametrize("ending", FULL + TEXT)
def test_round_trip_of_no_points_with_everything(tmp_path, ending):
    cloud = make_cloud(0)
    io.write(tmp_path / f"a{ending}", cloud)
    found = io.read(tmp_path / f"a{ending}")
    assert len(found) == 0
    assert set(found.fields) >= {"weight", "ring"}


@pytest.mark.parametrize("ending", io.WRITABLE)
def test_map_coordinates_lose_nothing(tmp_path, ending):
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 10**6, (50, 3))
    coords = np.array([500_000, 5_400_000, 200]) + steps / 1000  # millimetres
    io.write(tmp_path / f"a{ending}", PointCloud(coords=coords))
    found = io.read(tmp_path / f"a{ending}").coords
    assert np.abs(found - coords).max() <= (1e-9 if ending in (".las", ".laz") else 0.0)


@pytest.mark.parametrize("ending", [e for e in io.WRITABLE if e not in (".las", ".laz")])
def test_nan_and_infinity_are_kept(tmp_path, ending):
    coords = np.array([[np.nan, 0, 1], [np.inf, -np.inf, 2], [1e300, -1e-300, 3]])
    io.write(tmp_path / f"a{ending}", PointCloud(coords=coords))
    assert np.array_equal(io.read(tmp_path / f"a{ending}").coords, coords, equal_nan=True)


@pytest.mark.parametrize("ending", [*FULL, *TEXT])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_colors_of_every_depth_come_back(tmp_path, ending, dtype):
    rng = np.random.default_rng(0)
    colors = rng.random((30, 3)).astype(np.float32)
    if dtype is not np.float32:
        colors = (colors * np.iinfo(dtype).max).astype(dtype)
    cloud = PointCloud(coords=np.zeros((30, 3)), colors=colors)
    io.write(tmp_path / f"a{ending}", cloud)
    tolerance = 1 / 65_535 if ending in (".las", ".laz") else 0.0
    found = io.read(tmp_path / f"a{ending}").colors
    assert np.abs(found - cloud.colors).max() <= tolerance
    if dtype is not np.float32:
        assert np.array_equal(found, cloud.colors)


@pytest.mark.parametrize("ending", FULL + TEXT)
@pytest.mark.parametrize("labels", [[0, 0], [-1, 3], [0, 300], [4, 255], [31, 2], [32, 2]])
def test_labels_come_back(tmp_path, ending, labels):
    cloud = PointCloud(coords=np.zeros((2, 3)), labels=labels)
    io.write(tmp_path / f"a{ending}", cloud)
    assert io.read(tmp_path / f"a{ending}").labels.tolist() == labels


def test_labels_too_large_for_a_format(tmp_path):
    cloud = PointCloud(coords=np.zeros((2, 3)), labels=[-1, 2**40])
    for ending in (".npz", ".pcd", ".las"):
        io.write(tmp_path / f"a{ending}", cloud)
        assert io.read(tmp_path / f"a{ending}").labels.tolist() == [-1, 2**40]
    for ending in (".ply", ".txt"):
        with pytest.raises(FormatError, match="'labels'"):
            io.write(tmp_path / f"a{ending}", cloud)


@pytest.mark.parametrize("ending", FULL)
def test_rows_of_numbers_come_back(tmp_path, ending):
    pair = np.arange(8, dtype=np.float32).reshape(4, 2)
    cloud = PointCloud(coords=np.zeros((4, 3)), fields={"pair": pair})
    io.write(tmp_path / f"a{ending}", cloud)
    assert_same(io.read(tmp_path / f"a{ending}"), cloud)


@pytest.mark.parametrize("ending", [".las", ".pcd", ".ply", ".txt"])
@pytest.mark.parametrize(
    ("values", "read_back"),
    [
        (np.array([True, False]), True),
        (np.array([1, 2], np.int64), True),
        (np.array([0.5, 2], np.float16), True),
        (np.array([1, 2], ">f4"), True),
        (np.array([1, 2], np.longdouble), True),
        (np.array(["a", "b"]), False),
        (np.array([1j, 2]), False),
        (np.zeros((2, 2, 2)), False),
    ],
    ids=str,
)
def test_types_that_a_format_lacks(tmp_path, ending, values, read_back):
    cloud = PointCloud(coords=np.zeros((2, 3)), fields={"extra": values})
    path = tmp_path / f"a{ending}"
    if read_back:
        io.write(path, cloud)
        assert np.array_equal(io.read(path).fields["extra"], values)
    else:
        with pytest.raises(FormatError, match="'extra'"):
            io.write(path, cloud)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".las", ".pcd", ".ply", ".txt"])
def test_names_that_a_header_cannot_hold(tmp_path, ending):
    def write(*names):
        fields = {name: np.arange(2, dtype=np.float32) for name in names}
        io.write(tmp_path / f"a{ending}", PointCloud(coords=np.zeros((2, 3)), fields=fields))
        return io.read(tmp_path / f"a{ending}").fields

    assert "two_words" in write("two words")
    assert {"ring", "Ring"} <= set(write("ring", "Ring"))
    for names in (("",), ("läge",), ("a\nb",), ("x",), ("a b", "a_b")):
        with pytest.raises(FormatError, match="field names"):
            write(*names)


def test_npz_holds_any_name_and_type(tmp_path):
    fields = {"läge x": np.array(["a", "b"]), "cube": np.zeros((2, 2, 2)), "file": np.ones(2)}
    cloud = PointCloud(coords=np.zeros((2, 3)), fields=fields)
    io.write(tmp_path / "a.npz", cloud)
    assert_same(io.read(tmp_path / "a.npz"), cloud)
    first = (tmp_path / "a.npz").read_bytes()
    io.write(tmp_path / "a.npz", cloud)
    assert (tmp_path / "a.npz").read_bytes() == first
    with pytest.raises(FormatError, match="object"):
        io.write(tmp_path / "a.npz", cloud.replace(fields={"any": np.array([None, 1])}))
    with pytest.raises(FormatError, match="another array"):
        io.write(tmp_path / "a.npz", cloud.replace(fields={"xyz": np.ones(2)}))


@pytest.mark.parametrize("ending", FULL + TEXT)
def test_a_field_that_would_be_taken_for_the_labels(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    score = PointCloud(np.zeros((2, 3)), labels=[1, 2], fields={"label": np.array([0.5, 1.5])})
    io.write(path, score)
    assert_same(io.read(path), score)
    whole = score.replace(fields={"label": np.array([3, 4])})
    with pytest.raises(FormatError, match="mean labels"):
        io.write(path, whole)


def test_npy_refuses_to_lose_anything(tmp_path):
    for part in ("colors", "labels", "normals", "weight"):
        with pytest.raises(FormatError, match=part):
            io.write(tmp_path / "a.npy", make_cloud())


def test_las_refuses_what_it_cannot_hold(tmp_path):
    nan = PointCloud(coords=[[np.nan, 0, 0]])
    dark = PointCloud(coords=np.zeros((2, 3)), colors=np.full((2, 3), 0.001))
    wide = PointCloud(coords=np.zeros((2, 3)), fields={"wide": np.zeros((2, 9))})
    loud = PointCloud(coords=np.zeros((2, 3)), fields={"intensity": np.array([0.5, 1e6])})
    for cloud, words in ((nan, "finite"), (dark, "8 bits"), (wide, "'wide'"), (loud, "intensity")):
        with pytest.raises(FormatError, match=words):
            io.write(tmp_path / "a.las", cloud)


ENDINGS = st.sampled_from(FULL + TEXT)


@st.composite
def clouds(draw, wide):
    count = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** draw(st.integers(-3, 7))
    parts = {"coords": rng.normal(size=(count, 3)) * size}
    if draw(st.booleans()):
        parts["colors"] = rng.integers(0, 256, (count, 3)).astype(np.uint8)
    if draw(st.booleans()):
        parts["normals"] = rng.normal(size=(count, 3))
    if draw(st.booleans()):
        parts["labels"] = rng.integers(-1, draw(st.sampled_from([1, 40, 400])), count)
    fields = {}
    names = st.from_regex(r"[a-z]{3,8}[ _]?[A-Z0-9]", fullmatch=True)
    for name in draw(st.lists(names, max_size=3, unique_by=lambda n: n.replace(" ", "_"))):
        dtype = np.dtype(draw(st.sampled_from(FIELD_TYPES)))
        shape = (count, draw(st.integers(2, 3))) if wide and draw(st.booleans()) else count
        fields[name] = (rng.random(shape) * 100).astype(dtype)
    return PointCloud(**parts, fields=fields)


@settings(max_examples=120, deadline=None)
@given(st.data(), ENDINGS)
def test_any_cloud_survives_any_format(tmp_path_factory, data, ending):
    cloud = data.draw(clouds(wide=ending in FULL))
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    io.write(path, cloud)
    found = io.read(path)
    if ending != ".npz":
        fields = {name.replace(" ", "_"): values for name, values in cloud.fields.items()}
        cloud = cloud.replace(fields=fields)
    extent = float(np.ptp(cloud.coords, axis=0).max())
    tolerance = max(1e-9, extent * 10 / 2**31) if ending in (".las", ".laz") else 0.0
    assert_same(found, cloud, tolerance=tolerance, exact_types=ending in FULL)


# --- Paths ----------------------------------------------------------------------------------------


def test_unknown_ending_lists_what_there_is(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"")
    with pytest.raises(FormatError, match=r"\.ply.*a\.docx"):
        io.read(tmp_path / "a.docx")
    with pytest.raises(FormatError, match=r"\.ply.*a\.stl"):
        io.write(tmp_path / "a.stl", make_cloud())
    assert tuple(sorted(io.WRITABLE)) == io.WRITABLE
    assert set(io.WRITABLE) | set(io.MESH_ENDINGS) < set(io.READABLE)


def test_endings_in_capitals_and_paths_as_text(tmp_path):
    path = os.fspath(tmp_path / "SCAN.PLY")
    io.write(path, make_cloud())
    assert len(io.read(path)) == 20


@pytest.mark.parametrize("ending", io.READABLE)
def test_missing_folder_and_empty_files(tmp_path, ending):
    with pytest.raises(FileNotFoundError, match="nothing"):
        io.read(tmp_path / f"nothing{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(FormatError, match="a folder"):
        io.read(tmp_path / f"folder{ending}")
    (tmp_path / f"empty{ending}").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        io.read(tmp_path / f"empty{ending}")


def test_pipes_are_not_waited_on(tmp_path):
    os.mkfifo(tmp_path / "pipe.ply")
    with pytest.raises(FormatError, match="special file"):
        io.read(tmp_path / "pipe.ply")


def test_unreadable_disks_are_reported_as_such(tmp_path, monkeypatch):
    io.write(tmp_path / "a.ply", make_cloud())

    def fail(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with pytest.raises(PermissionError):
        io.read(tmp_path / "a.ply")


def test_options_are_checked(tmp_path):
    io.write(tmp_path / "a.ply", make_cloud())
    with pytest.raises(ConfigError, match="points"):
        io.read(tmp_path / "a.ply", points=0)
    with pytest.raises(ConfigError, match="color_scale"):
        io.read(tmp_path / "a.ply", color_scale=0.0)


def test_color_scale(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,r,g,b\n0,0,0,0.5,1.5,3.5\n")
    with pytest.raises(FormatError, match="color_scale=255"):
        io.read(tmp_path / "a.csv")
    found = io.read(tmp_path / "a.csv", color_scale=4.0)
    assert found.colors.tolist() == [[0.125, 0.375, 0.875]]
    with pytest.raises(FormatError, match="0 to 3"):
        io.read(tmp_path / "a.csv", color_scale=3.0)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.ply"
    io.write(path, make_cloud())
    before = path.read_bytes()
    with pytest.raises(FormatError):
        io.write(path, make_cloud(fields={"": np.zeros(20)}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_write_into_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError):
        io.write(tmp_path / "missing" / "a.ply", make_cloud())


@pytest.mark.parametrize(
    ("ending", "package", "extra"), [(".laz", "laspy", "las"), (".obj", "trimesh", "mesh")]
)
def test_missing_packages_are_named(tmp_path, monkeypatch, ending, package, extra):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"content")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pointzoo\[{extra}\]"):
        io.read(path)
    if ending in io.WRITABLE:
        with pytest.raises(MissingExtraError, match=extra):
            io.write(path, make_cloud())
        assert path.read_bytes() == b"content"


def test_clouds_of_raw_parts_are_checked():
    raw = io.RawCloud(np.zeros((2, 3)), colors=np.zeros((3, 3)))
    with pytest.raises(CloudError, match="one row for each"):
        raw.to_cloud()


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (np.array([[0, 51, 255]], np.int32), [0, 0.2, 1]),
        (np.array([[0, 13107, 65535]], np.uint32), [0, 0.2, 1]),
        (np.array([[0.0, 51, 255]]), [0, 0.2, 1]),
        (np.array([[0.0, 13107, 65535]]), [0, 0.2, 1]),
        (np.array([[0, 0.2, 1 + 1e-6]]), [0, 0.2, 1]),
        (np.array([[-1e-6, 0.2, 1]]), [0, 0.2, 1]),
        (np.array([[0, 1, 70_000]], np.int32), None),
        (np.array([[0, -1, 255]], np.int16), None),
        (np.array([[0, np.nan, 1]]), None),
        (np.array([[0, 0.5, 2]]), None),
    ],
)
def test_scales_of_colors(colors, expected):
    raw = io.RawCloud(np.zeros((1, 3)), colors=colors)
    if expected is None:
        with pytest.raises(FormatError, match="colours from"):
            raw.to_cloud()
    else:
        assert np.allclose(raw.to_cloud().colors, expected, atol=1e-6)
        assert raw.to_cloud().colors.max() <= 1


def test_no_free_name_for_the_labels(tmp_path):
    from pointzoo.io.columns import LABEL_NAMES

    fields = {name: np.full(2, 0.5) for name in LABEL_NAMES}
    with pytest.raises(FormatError, match="mean labels"):
        io.write(tmp_path / "a.ply", PointCloud(np.zeros((2, 3)), labels=[1, 2], fields=fields))
