import laspy
import numpy as np
import pytest

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError

ALL_FORMATS = range(11)


def save(path, format_id=3, count=50, records=(), scales=(0.01, 0.001, 0.1), **dimensions):
    """Write a file with laspy alone, every standard dimension filled."""
    header = laspy.LasHeader(point_format=format_id)
    header.scales, header.offsets = np.array(scales), np.array([500_000.0, 0.0, -7.0])
    for name, values in dimensions.items():
        if name not in set(header.point_format.dimension_names):
            width = f"{values.shape[1]}" if values.ndim == 2 else ""
            header.add_extra_dim(laspy.ExtraBytesParams(name, f"{width}{values.dtype.str[1:]}"))
    header.vlrs.extend(records)
    las = laspy.LasData(header)
    las.points = laspy.ScaleAwarePointRecord.zeros(count, header=header)
    rng = np.random.default_rng(format_id)
    for dimension in header.point_format.standard_dimensions:
        top = min(2**dimension.num_bits, 200) if dimension.kind.name != "FloatingPoint" else 9
        las[dimension.name] = rng.integers(
            0, top if dimension.num_bits > 8 else min(top, 100), count
        )
    las["Z"] = np.arange(count) * 3 - 10**6
    for name, values in dimensions.items():
        las[name] = values
    las.write(str(path))
    return las


def read_header(path):
    with laspy.open(path) as reader:
        return reader.header


@pytest.mark.parametrize("ending", [".las", ".laz"])
@pytest.mark.parametrize("format_id", ALL_FORMATS)
def test_every_dimension_of_every_format_is_read(tmp_path, format_id, ending):
    if ending == ".laz" and format_id in (4, 5, 9, 10):
        ending = ".las"  # laspy's backend does not compress waveforms
    las = save(tmp_path / f"a{ending}", format_id)
    cloud = io.read(tmp_path / f"a{ending}")
    assert np.array_equal(cloud.coords, np.column_stack([las.x, las.y, las.z]))
    assert np.array_equal(cloud.labels, las.classification)
    names = set(las.point_format.dimension_names) - {"X", "Y", "Z", "classification"}
    if "red" in names:
        assert np.allclose(cloud.colors[:, 0] * 255, las.red)
        names -= {"red", "green", "blue"}
    assert set(cloud.fields) == names
    for name in names:
        assert np.array_equal(cloud.fields[name], las[name])


@pytest.mark.parametrize("format_id", ALL_FORMATS)
def test_what_was_read_is_written_back(tmp_path, format_id):
    save(tmp_path / "a.las", format_id, NormalX=np.ones(50, "f4"), tag=np.arange(50, dtype="u8"))
    first = io.read(tmp_path / "a.las")
    io.write(tmp_path / "b.laz", first)
    second = io.read(tmp_path / "b.laz")
    assert np.abs(first.coords - second.coords).max() < 1e-9
    assert np.array_equal(first.labels, second.labels)
    assert set(first.fields) == set(second.fields)
    for name, values in first.fields.items():
        assert np.array_equal(second.fields[name], values)
    header = read_header(tmp_path / "b.laz")
    assert header.scales[1] == 0.001
    assert header.generating_software == "pointzoo"


def test_sixteen_bits(tmp_path):
    full = np.linspace(0, 65_535, 50).astype(np.uint16)
    save(tmp_path / "a.las", red=full, green=full, blue=full)
    raw = io.read_raw(tmp_path / "a.las")
    assert raw.full_scale == 65_535
    assert raw.to_cloud().colors.max() == 1.0


def test_eight_bits_in_sixteen(tmp_path):
    few = np.linspace(0, 255, 50).astype(np.uint16)
    save(tmp_path / "a.las", red=few, green=few, blue=few)
    cloud = io.read(tmp_path / "a.las")
    assert cloud.colors.max() == 1.0
    io.write(tmp_path / "b.las", cloud)
    assert np.array_equal(io.read(tmp_path / "b.las").colors, cloud.colors)


def test_never_classified_is_no_label(tmp_path):
    save(tmp_path / "a.las", classification=np.zeros(50, np.uint8))
    assert io.read(tmp_path / "a.las").labels is None


def test_normals_and_labels_in_extra_dimensions(tmp_path):
    rng = np.random.default_rng(0)
    axes = {f"Normal{axis}": rng.random(50).astype("f4") for axis in "XYZ"}
    las = save(tmp_path / "a.las", label=np.arange(-1, 49, dtype="i4"), **axes)
    cloud = io.read(tmp_path / "a.las")
    assert np.array_equal(cloud.normals[:, 1], axes["NormalY"])
    assert cloud.labels.tolist() == list(range(-1, 49))
    assert np.array_equal(cloud.fields["classification"], las.classification)
    io.write(tmp_path / "b.las", cloud)
    again = io.read(tmp_path / "b.las")
    assert np.array_equal(again.fields["classification"], las.classification)
    assert np.array_equal(again.labels, cloud.labels)


def test_extra_dimensions_named_like_coordinates_are_left(tmp_path):
    cloud = PointCloud(np.zeros((2, 3)), fields={"X": np.ones(2)})
    with pytest.raises(FormatError, match="another column"):
        io.write(tmp_path / "a.las", cloud)


@pytest.mark.parametrize(
    ("key", "value", "unit"),
    [
        (3076, 9001, "metre"),
        (3076, 9002, "foot"),
        (3076, 9003, "foot"),
        (3076, 9999, None),
        (1024, 9001, None),
    ],
)
def test_unit_by_geotiff_key(tmp_path, key, value, unit):
    record = laspy.vlrs.known.GeoKeyDirectoryVlr()
    record.geo_keys[0].id = key
    record.geo_keys[0].value_offset = value
    save(tmp_path / "a.las", records=[record])
    raw = io.read_raw(tmp_path / "a.las")
    assert raw.unit == unit
    assert bool(raw.notes) == (unit is None)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ('PROJCS["x",GEOGCS["y",UNIT["degree",0.0174]],UNIT["US survey foot",0.3048]]', "foot"),
        ('PROJCS["x",UNIT["metre",1]]', "metre"),
        ('GEOGCS["y",UNIT["degree",0.0174]]', None),
    ],
)
def test_unit_by_text(tmp_path, text, unit):
    record = laspy.vlrs.known.WktCoordinateSystemVlr(text)
    save(tmp_path / "a.las", format_id=6, records=[record])
    assert io.read_raw(tmp_path / "a.las").unit == unit


def test_the_smallest_format_that_holds_the_fields(tmp_path):
    zeros = np.zeros(3)
    cases = [
        ({}, 0),
        ({"fields": {"gps_time": zeros}}, 1),
        ({"colors": np.ones((3, 3))}, 2),
        ({"colors": np.ones((3, 3)), "fields": {"gps_time": zeros}}, 3),
        ({"labels": [1, 2, 200]}, 6),
        ({"fields": {"scan_angle": zeros}, "colors": np.ones((3, 3))}, 7),
        ({"fields": {"nir": zeros}}, 8),
        ({"fields": {"return_number": np.array([15, 1, 1])}}, 6),
        ({"fields": {"nir": zeros, "scan_angle_rank": zeros}}, 6),
    ]
    for parts, expected in cases:
        cloud = PointCloud(np.zeros((3, 3)), **parts)
        io.write(tmp_path / "a.las", cloud)
        assert read_header(tmp_path / "a.las").point_format.id == expected
        found = io.read(tmp_path / "a.las")
        for name, values in cloud.fields.items():
            assert np.array_equal(found.fields[name], values)


def test_the_same_cloud_gives_the_same_bytes(tmp_path):
    cloud = PointCloud(np.random.default_rng(0).random((50, 3)))
    for name in ("a.laz", "b.laz"):
        io.write(tmp_path / name, cloud)
    assert (tmp_path / "a.laz").read_bytes() == (tmp_path / "b.laz").read_bytes()


@pytest.mark.parametrize(
    ("coords", "scale", "tolerance"),
    [
        ([[0.01, 0, 0], [1, 2, 3]], 0.01, 0),
        ([[0.001, 0, 0], [1, 2, 3]], 0.001, 0),
        ([[1e7 + 0.0001, 0, 0], [1e7, 2, 3]], 0.0001, 2e-9),
        ([[1 / 3, 0, 0], [1, 2, 3]], 1e-9, 1e-9),
        ([[1 / 3 + 5e6, 0, 0], [1 / 3 + 5e6 + 1, 0, 0]], 0.01, 1e-9),
        ([[1 / 3, 0, 0], [1000, 2, 3]], 1e-6, 1e-6),
        ([[-1e12, 0, 0], [1e12, 2, 3]], 1000, 1000),
        ([[1e-12, 0, 0], [1, 0, 0]], 0.01, 1e-11),
    ],
)
def test_scales(tmp_path, coords, scale, tolerance):
    io.write(tmp_path / "a.las", PointCloud(coords))
    header = read_header(tmp_path / "a.las")
    assert header.scales[0] == pytest.approx(scale)
    assert np.abs(io.read(tmp_path / "a.las").coords - coords).max() <= tolerance


def test_damaged_files_are_refused(tmp_path):
    save(tmp_path / "a.las")
    save(tmp_path / "a.laz")
    las, laz = (tmp_path / "a.las").read_bytes(), (tmp_path / "a.laz").read_bytes()

    def patch(data, place, value):
        return data[:place] + value + data[place + len(value) :]

    cases = [
        (b"LASF", "LAS header"),
        (b"PLYF" + las[4:], "LAS header"),
        (las[:-1], "promises 50 points"),
        (las[:300], "promises 50 points"),
        (laz[: len(laz) // 2], "LAS"),
        (patch(las, 107, b"\xff\xff\xff\x7f"), "promises 2147483647 points"),
        (patch(laz, 107, b"\xff\xff\xff\x7f"), "LAS"),
        (patch(las, 100, b"\xff\xff\xff\x7f"), "records do not fit"),
        (patch(las, 96, b"\xff\xff\xff\x7f"), "records do not fit"),
        (patch(las, 104, b"\x63"), "LAS"),
    ]
    for content, words in cases:
        (tmp_path / "b.las").write_bytes(content)
        with pytest.raises(FormatError, match=words):
            io.read(tmp_path / "b.las")


def test_points_missing_without_an_error_of_laspy(tmp_path, monkeypatch):
    save(tmp_path / "a.las")
    monkeypatch.setattr("laspy.LasReader.chunk_iterator", lambda self, size: iter(()))
    with pytest.raises(FormatError, match="0 of 50 points"):
        io.read(tmp_path / "a.las")


def test_a_newer_header_counts_points_elsewhere(tmp_path):
    save(tmp_path / "a.las", format_id=6)
    assert len(io.read(tmp_path / "a.las")) == 50
    content = bytearray((tmp_path / "a.las").read_bytes())
    content[247:255] = b"\0\0\0\0\0\0\0\x10"
    (tmp_path / "a.las").write_bytes(content)
    with pytest.raises(FormatError, match="promises 1152921504606846976 points"):
        io.read(tmp_path / "a.las")
