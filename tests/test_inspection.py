import numpy as np
import pytest

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.inspection import Finding, inspect, render
from pointzoo.io.raw import RawCloud

RNG = np.random.default_rng(0)


def room(count=2000, **parts):
    """Points on the walls of a 4 x 5 x 2.5 m box that does not touch the origin."""
    points = RNG.random((count, 3))
    axis, side = RNG.integers(0, 3, count), RNG.integers(0, 2, count)
    points[np.arange(count), axis] = side
    return PointCloud(coords=points * [4, 5, 2.5] + [1, 2, 0], **parts)


def unit_normals(count):
    normals = RNG.normal(size=(count, 3))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def texts(inspection, severity=None):
    return " | ".join(f.text for f in inspection.findings if severity in (None, f.severity))


def inspect_raw(tmp_path, monkeypatch, raw):
    """Inspect what a reader could hand over."""
    monkeypatch.setattr("pointzoo.inspection.read_raw", lambda _: raw)
    return inspect(tmp_path / "cloud.ply")


def test_a_sound_cloud_has_no_findings():
    cloud = room(
        normals=unit_normals(2000),
        colors=RNG.random((2000, 3)),
        labels=RNG.integers(0, 3, 2000),
        fields={"intensity": RNG.random(2000)},
    )
    found = inspect(cloud)
    assert found.findings == ()
    assert found.count == 2000
    assert found.extent == pytest.approx((4, 5, 2.5))
    assert 0.01 < found.spacing < 0.2
    assert sum(found.labels.values()) == 2000
    assert found.fields["intensity"].startswith("float64, ")


def test_words_name_everything(tmp_path):
    cloud = room(
        colors=np.full((2000, 3), 9, np.uint8),
        labels=np.r_[np.zeros(1999, int), 7],
        fields={"ring": np.arange(2000, dtype=np.uint16)},
    )
    io.write(tmp_path / "room.ply", cloud)
    words = str(inspect(tmp_path / "room.ply"))
    for part in (
        "room.ply: 2,000 points",
        "extent    4 x 5 x 2.5",
        "colours   stored from 9 to 9",
        "normals   none",
        "labels    2: 0 (1,999), 7 (1)",
        "ring: uint16, 0 to 1999",
        "warning: All points have one colour",
        "note: No normals",
    ):
        assert part in words


def test_many_labels_are_not_all_listed():
    words = render(inspect(room(labels=np.arange(2000) % 30)))
    assert "labels    30: " in words
    assert "and 10 more" in words


def test_empty():
    found = inspect(PointCloud(coords=np.zeros((0, 3)), colors=np.zeros((0, 3))))
    assert found.findings[0] == Finding("problem", "There is no point in it.")
    assert found.spacing is None
    assert found.colors is None
    assert "bounds" not in render(found)


def test_nothing_finite():
    found = inspect(PointCloud(coords=np.full((3, 3), np.nan)))
    assert "No point has finite" in texts(found, "problem")
    assert "nan" in render(found)


def test_lost_points():
    coords = room().coords.copy()
    coords[:5, 1] = np.inf
    assert "5 points have NaN" in texts(inspect(PointCloud(coords=coords)), "warning")


def test_few_points():
    assert "Only 3 points" in texts(inspect(PointCloud(coords=np.eye(3))), "note")
    assert inspect(PointCloud(coords=np.eye(3))).spacing == pytest.approx(2**0.5)
    assert inspect(PointCloud(coords=np.zeros((1, 3)))).spacing is None


@pytest.mark.parametrize(
    ("scales", "words"),
    [((1, 1, 0), "one plane"), ((1, 0, 0), "one line"), ((0, 0, 0), "one place")],
)
def test_thin_clouds(scales, words):
    cloud = PointCloud(coords=RNG.random((100, 3)) * scales + 5)
    assert words in texts(inspect(cloud))


def test_a_tilted_plane_is_a_plane():
    points = np.column_stack([RNG.random((100, 2)), np.zeros(100)])
    turned = points @ np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    assert "one plane" in texts(inspect(PointCloud(coords=turned)), "warning")


def test_millimetres():
    found = inspect(PointCloud(coords=room().coords * 1000))
    assert "millimetre" in texts(found, "warning")


def test_map_coordinates_are_fine_and_no_millimetres():
    found = inspect(PointCloud(coords=room().coords * 100 + [500_000, 4_000_000, 0]))
    assert "as maps have" in texts(found, "note")
    assert "millimetre" not in texts(found)
    assert texts(found, "warning") == ""


def test_map_coordinates_in_single_precision(tmp_path, monkeypatch):
    coords = (room().coords + np.array([500_000, 4_000_000, 0])).astype(np.float32)
    found = inspect_raw(tmp_path, monkeypatch, RawCloud(coords))
    assert "in steps of 0.25" in texts(found, "warning")


def test_unit_sphere():
    found = inspect(PointCloud(coords=unit_normals(3000)))
    assert "unit sphere" in texts(found, "note")


def test_tiny():
    assert "not the metre" in texts(inspect(PointCloud(coords=room().coords * 1e-5)), "warning")


def test_feet(tmp_path, monkeypatch):
    found = inspect_raw(tmp_path, monkeypatch, RawCloud(room().coords, unit="foot"))
    assert "0.3048" in texts(found, "warning")
    assert "4 x 5 x 2.5 ft" in str(found)


def test_duplicates():
    coords = room().coords
    many = inspect(PointCloud(coords=np.r_[coords, coords[:500]]))
    assert "500 points (20.0%) repeat" in texts(many, "warning")
    assert "1 points" in texts(inspect(PointCloud(coords=np.r_[coords, coords[:1]])), "note")


def test_two_far_clusters():
    coords = np.r_[room().coords, room(500).coords + np.array([60, 0, 0])]
    found = inspect(PointCloud(coords=coords))
    assert "500 points (20.00%) lie far" in texts(found, "warning")


def test_a_row_of_clusters_is_one_thing():
    parts = [room(400).coords + np.array([x, 0, 0]) for x in (0, 6, 12, 18, 24)]
    assert "far from the rest" not in texts(inspect(PointCloud(coords=np.concatenate(parts))))


def test_a_stray_point():
    coords = np.r_[room().coords, [[1e4, 0, 0]]]
    assert "1 points" in texts(inspect(PointCloud(coords=coords)), "warning")


def test_two_near_clusters_are_fine():
    coords = np.r_[room(20_000).coords, room(20_000).coords + np.array([5.5, 0, 0])]
    assert "far from the rest" not in texts(inspect(PointCloud(coords=coords)))


def test_uneven_density():
    angle = RNG.random(20_000) * 2 * np.pi
    radius = 0.01 * np.exp(RNG.random(20_000) * 9)
    disc = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), RNG.random(20_000)])
    assert "density is very uneven" in texts(inspect(PointCloud(coords=disc)), "note")


@pytest.mark.parametrize(
    ("colors", "severity", "words"),
    [
        (np.array([[0.0, 10, 255]] * 1999 + [[1.0, 2, 3]]), "note", "divides by 255"),
        (np.array([[0.5, 10, 255]] * 2000), "problem", "color_scale=255"),
        (np.full((2000, 3), np.nan), "problem", "read\\(\\) refuses"),
        (np.array([[1, 2, 3]] * 1999 + [[3, 2, 1]], np.uint8), "warning", "brighter than 0.012"),
    ],
)
def test_colors(tmp_path, monkeypatch, colors, severity, words):
    found = inspect_raw(tmp_path, monkeypatch, RawCloud(room().coords, colors=colors))
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(texts(found, severity))


def test_colors_of_8_bits_in_16(tmp_path, monkeypatch):
    colors = RNG.integers(0, 255, (2000, 3)).astype(np.uint16)
    raw = RawCloud(room().coords, colors=colors, full_scale=255.0)
    assert "8 bits are stored in 16" in texts(inspect_raw(tmp_path, monkeypatch, raw), "note")


def test_normals():
    normals = unit_normals(2000)
    normals[:4] = 0
    normals[4:7] *= 3
    normals[7] = np.nan
    found = texts(inspect(room(normals=normals)), "warning")
    assert "4 of 2,000 normals are zero" in found
    assert "3 of 2,000 normals have not length 1" in found
    assert "1 of 2,000 normals are NaN" in found


def test_one_label():
    assert "the label 4" in texts(inspect(room(labels=np.full(2000, 4))), "note")


def test_fields_of_any_type_are_described():
    fields = {
        "pair": np.zeros((2000, 2), np.int8),
        "name": np.array(["a"] * 2000),
        "gone": np.full(2000, np.nan),
    }
    found = inspect(room(fields=fields)).fields
    assert found == {"pair": "int8 x 2, 0 to 0", "name": "<U1", "gone": "float64, all NaN"}


def test_what_the_reader_left_out_is_told(tmp_path):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    assert "drawn from 1 triangles" in texts(inspect(tmp_path / "a.off"), "note")


def test_the_most_severe_comes_first():
    coords = np.full((100, 3), 200_000.0)
    severities = [finding.severity for finding in inspect(PointCloud(coords=coords)).findings]
    assert severities == sorted(severities, key=("problem", "warning", "note").index)
    assert severities[0] == "problem"


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "a.ply").write_text("no")
    with pytest.raises(FormatError, match="PLY"):
        inspect(tmp_path / "a.ply")


@pytest.mark.parametrize("value", [1e300, -1e307, 1e-300, 1e308 / 4])
def test_extreme_coordinates_do_not_stop_it(value):
    assert str(inspect(PointCloud(coords=(room().coords - 3) * value)))


def test_coordinates_whose_extent_overflows():
    coords = np.array([[-1.7e308, 0, 0], [1.7e308, 1, 1]] * 20)
    assert "20 points" in str(inspect(PointCloud(coords=coords[:20])))
