import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import FormatError
from pointzoo.io import lzf

DATA = Path(__file__).parent / "data"


def header(fields="x y z", size="4 4 4", kind="F F F", points=2, layout="ascii", **more):
    lines = {
        "VERSION": ".7",
        "FIELDS": fields,
        "SIZE": size,
        "TYPE": kind,
        "COUNT": " ".join("1" * len(fields.split())),
        "WIDTH": points,
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": points,
        **more,
        "DATA": layout,
    }
    return "# comment\n" + "".join(f"{k} {v}\n" for k, v in lines.items() if v is not None)


def save(path, head, body=""):
    path.write_bytes(head.encode() + (body.encode() if isinstance(body, str) else body))
    return path


@pytest.mark.parametrize("layout", ["binary", "binary_compressed"])
def test_files_of_another_implementation(layout):
    found = io.read(DATA / f"pypcd4_{layout}.pcd")
    i = np.arange(60)
    coords = np.stack([i * 0.5, i % 7, np.where(i % 11 == 0, np.nan, -i)], axis=1)
    assert np.array_equal(found.coords, coords, equal_nan=True)
    colors = np.stack([i * 4 % 256, i * 3 % 256, 255 - i], axis=1) / 255
    assert np.allclose(found.colors, colors)
    assert found.labels.tolist() == (i // 20).tolist()
    assert found.fields["ring"].tolist() == (i * 100).tolist()
    assert found.fields["ring"].dtype == np.uint16


def test_ascii_with_every_kind_of_field(tmp_path):
    head = header(
        "x y z rgba _ pair label normal_x normal_y normal_z",
        "4 8 4 4 1 2 4 4 4 4",
        "F F F U U I U F F F",
        COUNT="1 1 1 1 2 2 1 1 1 1",
        VIEWPOINT="1 0 0 1 0 0 0",
    )
    rows = "1 2.5 nan 4286611584 9 9 -3 4 7 0 0 1\n4 5 6 255 8 8 1 2 8 0 1 0\n"
    raw = io.read_raw(save(tmp_path / "a.pcd", head, rows))
    cloud = raw.to_cloud()
    assert np.array_equal(cloud.coords, [[1, 2.5, np.nan], [4, 5, 6]], equal_nan=True)
    assert (cloud.colors * 255).round().tolist() == [[128, 128, 128], [0, 0, 255]]
    assert cloud.fields["alpha"].tolist() == [255, 0]
    assert cloud.fields["pair"].tolist() == [[-3, 4], [1, 2]]
    assert cloud.labels.tolist() == [7, 8]
    assert cloud.normals.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert set(cloud.fields) == {"alpha", "pair"}
    assert "VIEWPOINT (1 0 0 1 0 0 0)" in raw.notes[0]


def test_packed_colors_as_a_number(tmp_path):
    packed = np.array([0x0A141E], np.uint32).view(np.float32)[0]
    head = header("x y z rgb", "4 4 4 4", "F F F F", points=1)
    cloud = io.read(save(tmp_path / "a.pcd", head, f"0 0 0 {packed!s}\n"))
    assert (cloud.colors * 255).round().tolist() == [[10, 20, 30]]


def test_colors_that_are_no_packed_ones_stay_fields(tmp_path):
    wide = io.read(
        save(tmp_path / "a.pcd", header("x y z rgb", "4 4 4 8", "F F F F"), "0 0 0 1\n" * 2)
    )
    assert wide.colors is None
    assert wide.fields["rgb"].tolist() == [1, 1]


def test_old_headers(tmp_path):
    head = header(COUNT=None, POINTS=None, VIEWPOINT=None, FIELDS=None, COLUMNS="x y z")
    assert io.read(save(tmp_path / "a.pcd", head, "1 2 3\n4 5 6\n")).coords[1].tolist() == [4, 5, 6]


@pytest.mark.parametrize("layout", ["ascii", "binary", "binary_compressed"])
def test_no_points(tmp_path, layout):
    body = struct.pack("<II", 0, 0) if layout == "binary_compressed" else ""
    assert len(io.read(save(tmp_path / "a.pcd", header(points=0, layout=layout), body))) == 0


def test_colors_are_packed_where_they_have_8_bits(tmp_path):
    coords = np.zeros((2, 3))
    io.write(tmp_path / "a.pcd", PointCloud(coords, colors=np.array([[1, 2, 3]] * 2, np.uint8)))
    assert b"FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F" in (tmp_path / "a.pcd").read_bytes()
    io.write(tmp_path / "a.pcd", PointCloud(coords, colors=np.full((2, 3), 0.1234)))
    assert b"FIELDS x y z red green blue" in (tmp_path / "a.pcd").read_bytes()


def test_names_that_mean_packed_colors_are_refused(tmp_path):
    for name in ("rgb", "rgba", "_"):
        cloud = PointCloud(np.zeros((2, 3)), fields={name: np.ones(2)})
        with pytest.raises(FormatError, match="field names"):
            io.write(tmp_path / "a.pcd", cloud)


ROWS = "1 2 3\n4 5 6\n"


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        ("nonsense\n", "", "no line DATA"),
        (header(points=3), "1.000 2 3\n4.000 5 6\n", "2 of 3 points"),
        (header(points=2**60), ROWS, "promises"),
        (header(points=-1), ROWS, "promises"),
        (header(), "1 2\n3 4\n", "PCD"),
        (header(), "1 2 three\n4 5 6\n", "three"),
        (header(fields="x y"), ROWS, "do not fit"),
        (header(fields="x y y"), ROWS, "two fields 'y'"),
        (header(fields="x y w"), ROWS, "columns x, y and z"),
        (header(kind="F F Q"), ROWS, "do not fit"),
        (header(size="4 4 3"), ROWS, "do not fit"),
        (header(COUNT="1 1 0"), ROWS, "COUNT"),
        (header(COUNT="1 1 99999999999"), ROWS, "COUNT"),
        (header(TYPE=None), ROWS, "TYPE"),
        (header(layout="zip"), ROWS, "DATA 'zip'"),
        (header(layout="binary"), b"\0" * 23, "promises 2 rows, there is room for 1"),
        (header(layout="binary_compressed"), b"\0" * 7, "PCD"),
        (header(layout="binary_compressed"), struct.pack("<II", 5, 24) + b"\0" * 4, "cannot hold"),
        (header(layout="binary_compressed"), struct.pack("<II", 4, 25) + b"\0" * 4, "cannot hold"),
        (
            header(layout="binary_compressed", points=10**6),
            struct.pack("<II", 4, 12 * 10**6) + b"\0" * 4,
            "cannot hold",
        ),
        (header(layout="binary_compressed"), struct.pack("<II", 4, 24) + b"\0" * 4, "LZF"),
    ],
)
def test_damaged_files_are_refused(tmp_path, head, body, words):
    with pytest.raises(FormatError, match=words):
        io.read(save(tmp_path / "a.pcd", head, body))


# --- LZF ------------------------------------------------------------------------------------------


def compress(data):
    """A small LZF compressor: the longest earlier match of 3 to 264 bytes, else literals."""
    out, literals, i = bytearray(), bytearray(), 0

    def flush():
        for start in range(0, len(literals), 32):
            part = literals[start : start + 32]
            out.extend([len(part) - 1, *part])
        literals.clear()

    while i < len(data):
        length, back = 0, 0
        for start in range(max(0, i - 8192), i):
            n = 0
            while n < 264 and i + n < len(data) and data[start + n] == data[i + n]:
                n += 1
            if n > length:
                length, back = n, i - start - 1
        if length < 3:
            literals.append(data[i])
            i += 1
            continue
        flush()
        if length < 9:
            out.append((length - 2) << 5 | back >> 8)
        else:
            out.extend([7 << 5 | back >> 8, length - 9])
        out.append(back & 255)
        i += length
    flush()
    return bytes(out)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\0", b"abc", b"\0" * 40, b"xy"]) | st.binary(max_size=9), max_size=8
    )
)
def test_lzf_gives_back_what_was_compressed(parts):
    data = b"".join(parts)
    assert lzf.decompress(compress(data), len(data)) == data


@pytest.mark.parametrize(
    "block", [b"\x05ab", b"\x20", b"\xe0", b"\x00a\x21\x00", b"\x00a\x20\x05", b"\x00a\xff\x00\x00"]
)
def test_damaged_lzf_is_refused(block):
    with pytest.raises(FormatError, match="LZF"):
        lzf.decompress(block, 3)
