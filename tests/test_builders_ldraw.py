"""LDraw: triangles with outward normals, in metres, z up; decorated variants left out."""

import numpy as np
import pytest

from pointzoo.data.builders import build_ldraw
from pointzoo.data.builders.ldraw_reader import Library
from pointzoo.data.corpus import read_corpus, read_manifest
from pointzoo.errors import ConfigError, FormatError

HEAD = "0 {title}\n0 Name: x.dat\n0 Author: {author}\n{extra}0 BFC CERTIFY {winding}\n"

# The six faces of a cube from -1 to 1, corner numbers counter-clockwise seen from outside, in
# LDraw's right-handed axes. Corner n has x, y, z from the bits 4, 2, 1 of n.
FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def corner(number):
    return " ".join("1" if number & bit else "-1" for bit in (4, 2, 1))


def cube(clockwise=False, color=16):
    faces = [face[::-1] if clockwise else face for face in FACES]
    return "".join(f"4 {color} {' '.join(corner(n) for n in face)}\n" for face in faces)


def part(title, body, author="Ann [ann]", extra="", winding="CCW"):
    return HEAD.format(title=title, author=author, extra=extra, winding=winding) + body


def place(name, color=16, matrix="1 0 0 0 1 0 0 0 1", at="0 0 0"):
    return f"1 {color} {at} {matrix} {name}\n"


@pytest.fixture
def root(tmp_path):
    files = {
        "p/box.dat": part("Box", cube(), author="Bob"),
        "p/48/ball.dat": part("Ball", cube()),
        "parts/s/100s01.dat": part("~Half", place("box.dat"), author="Cyd"),
        "parts/100.dat": part("Brick  1 x 1", place("s\\100S01.DAT"), extra="0 !CATEGORY Block\n"),
        "parts/101.dat": part("Plate, tall", place("box.dat", 4, "1 0 0 0 10 0 0 0 1")),
        "parts/102.dat": part("Plate with Star Pattern", place("box.dat")),
        "parts/103.dat": part("~Moved to 100", place("100.dat")),
        "parts/104.dat": part("Sphere", place("48\\ball.dat", matrix="3 0 0 0 1 0 0 0 1")),
        "parts/100p01.dat": part("Brick in Red", place("box.dat", 0x2FF8000)),
        "parts/105.dat": part("Bar twin", place("box.dat", 4, "1 0 0 0 10 0 0 0 1")),
        "parts/106.dat": part("Empty", "2 24 0 0 0 1 1 1\n\n"),
        "parts/107.dat": part("Lost", place("nowhere.dat")),
    }
    for name, text in files.items():
        (tmp_path / "ldraw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ldraw" / name).write_text(text)
    colors = (
        "0 !COLOUR Red CODE 4 VALUE #C91A09 EDGE #333333\n"
        "0 !COLOUR Main_Colour CODE 16 VALUE #FFFF80\n"
    )
    (tmp_path / "ldraw" / "LDConfig.ldr").write_text(colors)
    return tmp_path / "ldraw"


def outward(mesh):
    """Whether every triangle of a mesh that is convex around the origin faces away from it."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    return (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()


def test_quads_become_triangles_that_face_out(root):
    mesh = Library(root).mesh("box.dat")
    assert mesh.triangles.shape == (12, 3, 3)
    assert outward(mesh)


@pytest.mark.parametrize(
    ("body", "winding"),
    [
        (cube(clockwise=True), "CW"),
        ("0 BFC CW\n" + cube(clockwise=True), "CCW"),
        (place("box.dat", matrix="-1 0 0 0 1 0 0 0 1"), "CCW"),
        ("0 BFC INVERTNEXT\n" + place("inside.dat"), "CCW"),
        ("0 BFC INVERTNEXT\n" + place("inside.dat", matrix="1 0 0 0 1 0 0 0 -1"), "CCW"),
        ("0 BFC INVERTNEXT\n" + place("inside.dat") + place("box.dat"), "CCW"),
    ],
)
def test_winding_survives_mirrors_and_inversion(root, body, winding):
    (root / "p/inside.dat").write_text(part("Inside", cube(clockwise=True)))
    (root / "parts/200.dat").write_text(part("Turned", body, winding=winding))
    assert outward(Library(root).mesh("200.dat"))


def test_certify_alone_means_counter_clockwise(root):
    (root / "parts/200.dat").write_text(part("X", "0 BFC CW\n0 BFC CERTIFY\n" + cube(), winding=""))
    assert outward(Library(root).mesh("200.dat"))


def test_sub_files_inherit_the_main_colour_only(root):
    body = place("box.dat", 4) + cube(color=1) + place("box.dat")
    (root / "parts/200.dat").write_text(part("Mixed", body))
    library = Library(root)
    colors = library.mesh("200.dat").colors
    assert colors.tolist() == [4] * 12 + [16] * 12 + [1] * 12
    palette = library.palette(np.array([4, 16, 99, 0x2FF8000]))
    assert palette.tolist() == [[0xC9, 0x1A, 9], [160] * 3, [160] * 3, [255, 128, 0]]


def test_build_keeps_one_of_each_shape_and_says_what_it_left_out(root, tmp_path):
    out = build_ldraw(root, tmp_path / "out", progress=False)
    data, manifest = read_corpus(out), read_manifest(out)
    assert data.names == ("100", "101", "104")
    assert manifest.count_by_class() == {"Block": 1, "Plate": 1, "Sphere": 1}
    reasons = {skip.name: skip.reason for skip in manifest.skipped}
    assert set(reasons) == {"105.dat", "106.dat", "107.dat"}
    assert reasons["105.dat"] == "same triangles as 101.dat"
    assert "nowhere.dat" in reasons["107.dat"]
    assert manifest.header.pretraining
    record = manifest.records[0]
    assert (record.author, record.licence) == ("Ann [ann]", "CC-BY-2.0")
    assert len(record.sha256) == 64
    assert "Brick 1 x 1" in record.source


def test_sub_files_and_their_authors_are_listed(root, tmp_path):
    manifest = read_manifest(build_ldraw(root, tmp_path / "out", progress=False))
    authors = {file.path: file.author for file in manifest.files}
    assert authors["ldraw/p/box.dat"] == "Bob"
    assert authors["ldraw/parts/s/100s01.dat"] == "Cyd"
    assert "ldraw/parts/100.dat" not in authors


def test_points_are_metres_with_z_up(root, tmp_path):
    data = read_corpus(build_ldraw(root, tmp_path / "out", progress=False))
    size = np.ptp(data.coords[1], axis=0)  # 2 x 20 x 2 units, y being the vertical axis
    np.testing.assert_allclose(size, [0.0008, 0.0008, 0.008], rtol=0.02)
    outwards = np.einsum("nc,nc->n", data.coords[1], np.asarray(data.normals[1], dtype=np.float64))
    assert (outwards > 0).all()
    assert (np.asarray(data.colors[1]) == [0xC9, 0x1A, 9]).all()


def test_upright_stays_upright(root, tmp_path):
    # A small box on top of a large one; up is -y in LDraw.
    body = place("box.dat", matrix="5 0 0 0 1 0 0 0 5") + place("box.dat", at="0 -10 0")
    (root / "parts/099.dat").write_text(part("Tower", body))
    coords = read_corpus(build_ldraw(root, tmp_path / "out", progress=False)).coords[0]
    top = coords[coords[:, 2] > 0]
    assert np.abs(top[:, :2]).max() < 0.0005 < np.abs(coords[:, :2]).max()


def test_same_library_gives_the_same_bytes(root, tmp_path):
    first = build_ldraw(root, tmp_path / "a", progress=False)
    second = build_ldraw(root, tmp_path / "b", progress=False)
    names = sorted(file.name for file in first.iterdir())
    assert len(names) == 5
    assert all((first / n).read_bytes() == (second / n).read_bytes() for n in names)


def test_limit_stops_early(root, tmp_path):
    out = build_ldraw(root, tmp_path / "out", limit=2, progress=True)
    assert len(read_corpus(out)) == 2
    assert read_manifest(out).header.command.endswith("--limit 2")


def test_classes_need_twenty_members(root, tmp_path):
    for i in range(20):
        text = part("Tile", place("box.dat", matrix=f"{i + 5} 0 0 0 1 0 0 0 1"))
        (root / f"parts/3{i:02d}.dat").write_text(text)
    data = read_corpus(build_ldraw(root, tmp_path / "out", progress=False))
    assert data.class_names == ("Tile",)
    assert np.asarray(data.labels).tolist() == [-1] * 3 + [0] * 20


@pytest.mark.parametrize(
    "body", ["3 16 0 0 0 1 1\n", "4 16 a b c\n", "1 16 0 0 0 1 0 0\n", "3 red 0 0 0 1 0 0 0 1 0\n"]
)
def test_malformed_lines_are_typed_errors(root, body):
    (root / "parts/200.dat").write_text(part("Bad", body))
    with pytest.raises(FormatError, match=r"200\.dat|parts"):
        Library(root).mesh("200.dat")


def test_circles_are_typed_errors(root):
    (root / "parts/200.dat").write_text(part("A", place("201.dat")))
    (root / "parts/201.dat").write_text(part("B", place("200.dat")))
    with pytest.raises(FormatError, match="circles"):
        Library(root).mesh("200.dat")


def test_without_a_library_the_error_says_where_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="apt-get download ldraw-parts"):
        build_ldraw(tmp_path, tmp_path / "out")


def test_no_colour_table_and_empty_files_are_survived(root, tmp_path):
    (root / "LDConfig.ldr").unlink()
    (root / "parts/000.dat").write_bytes(b"")
    (root / "parts/001.dat").write_bytes(b"0\n0 Author:\n1\xff\xfe\n")
    out = build_ldraw(root, tmp_path / "out", progress=False)
    assert (np.asarray(read_corpus(out).colors[1]) == 160).all()
