"""Sweet Home 3D: catalogue size, z up, texture colours, classes by name, one of each geometry."""

import io
import sys
import zipfile
from pathlib import PurePosixPath

import numpy as np
import PIL.Image
import pytest

from pointzoo.data.builders import build_sh3d
from pointzoo.data.builders.sh3d import find_archives, licence_of
from pointzoo.data.builders.sh3d_classes import CLASS_NAMES, RULES, class_of
from pointzoo.data.builders.sh3d_reader import _Siblings, load_parts, open_archive, read_catalogue
from pointzoo.data.corpus import read_corpus, read_manifest
from pointzoo.errors import ConfigError, FormatError, MissingExtraError

# A box of 2 x 1 x 4 (width, height, depth in the file's y-up axes); the top is textured.
BOX = """mtllib box.mtl
v 0 0 0
v 2 0 0
v 2 0 4
v 0 0 4
v 0 1 0
v 2 1 0
v 2 1 4
v 0 1 4
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl plain
f 1 2 3 4
f 1 5 6 2
f 2 6 7 3
f 3 7 8 4
f 4 8 5 1
usemtl wood
f 5/1 8/4 7/3 6/2
"""
MATERIALS = """newmtl plain
Kd 1.0 0.0 0.0
newmtl wood
Kd 1.0 1.0 1.0
map_Kd wood.png
"""


def texture():
    """Left half green, right half blue."""
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, :4, 1] = pixels[:, 4:, 2] = 255
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def entry(number, path, name, **changes):
    fields = {
        "id": f"Toys#{path}",
        "name": name,
        "category": "Living room",
        "model": f"/toys/{path}/{path}.obj",
        "width": "200",
        "depth": "80",
        "height": "70",
        "creator": "J\\u00f6rg",
        **changes,
    }
    return "".join(f"{key}#{number}={value}\n" for key, value in fields.items() if value)


def library(path, entries, models, licence="Creative Commons Attribution 3.0 license"):
    head = f"# comment\nid=Toys\nlicense={licence}\n\nnot a line\n"
    catalogue = "PluginFurnitureCatalog.properties"
    if path.suffix == ".jar":
        catalogue = "com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(catalogue, (head + "".join(entries)).encode("latin-1"))
        for name, text in models.items():
            archive.writestr(f"toys/{name}/{name}.obj", text)
            archive.writestr(f"toys/{name}/box.mtl", MATERIALS)
            archive.writestr(f"toys/{name}/wood.png", texture())
    return path


@pytest.fixture
def toys(tmp_path):
    taller = BOX.replace("v 0 1 0", "v 0.5 1 0")
    entries = [
        entry(1, "table", "Oak table"),
        entry(2, "redtable", "Red table", width="50"),
        entry(3, "rock", "Rock"),
        entry(4, "points", "Lamp", category="Lights"),
        entry(5, "chair", "Chair", creator=""),
        entry(6, "gone", "Sofa"),
    ]
    models = {
        "table": BOX,
        "redtable": BOX.replace("usemtl wood", "usemtl plain"),
        "rock": BOX,
        "points": "v 0 0 0\nv 1 1 1\n",
        "chair": taller,
    }
    return library(tmp_path / "toys.sh3f", entries, models)


def test_build_keeps_classes_licences_and_reasons(toys, tmp_path):
    out = build_sh3d([toys], tmp_path / "out", progress=False)
    data, manifest = read_corpus(out), read_manifest(out)
    assert data.names == ("toys/toys/chair/chair", "toys/toys/table/table")
    assert [CLASS_NAMES[label] for label in data.labels] == ["chair", "table"]
    reasons = {skip.name: skip.reason for skip in manifest.skipped}
    assert reasons["toys/toys/redtable/redtable"] == "same geometry as toys/toys/table/table"
    assert set(reasons) == {f"toys/toys/{n}/{n}" for n in ("redtable", "points", "gone")}
    chair, table = manifest.records
    assert (table.author, table.licence, table.redistributable) == ("Jörg", "CC-BY-3.0", True)
    assert chair.author == "unknown"
    assert "Oak table" in table.source
    assert not manifest.header.pretraining
    assert [file.path for file in manifest.files] == ["toys.sh3f"]


def test_size_axes_and_normals(toys, tmp_path):
    data = read_corpus(build_sh3d([toys], tmp_path / "out", progress=False))
    coords, normals = data.coords[1], np.asarray(data.normals[1], dtype=np.float64)
    np.testing.assert_allclose(np.ptp(coords, axis=0), [2.0, 0.8, 0.7], rtol=0.02)
    faces = np.argmax(np.abs(normals), axis=1)
    half = np.array([1.0, 0.4, 0.35])[faces]  # a point of a face lies where its normal points
    at = np.take_along_axis(coords * np.sign(normals), faces[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(at, half, atol=0.01)


def test_colours_come_from_texture_and_material(toys, tmp_path):
    data = read_corpus(build_sh3d([toys], tmp_path / "out", progress=False))
    coords, colors = np.asarray(data.coords[1]), np.asarray(data.colors[1])
    top = np.asarray(data.normals[1])[:, 2] > 0.9
    assert (colors[~top] == [255, 0, 0]).all()
    assert (colors[top & (coords[:, 0] < -0.01)] == [0, 255, 0]).all()
    assert (colors[top & (coords[:, 0] > 0.01)] == [0, 0, 255]).all()


def test_same_archives_give_the_same_bytes(toys, tmp_path):
    first = build_sh3d([toys], tmp_path / "a", progress=True)
    second = build_sh3d([tmp_path], tmp_path / "b", progress=False)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_the_files_beside_a_model_are_a_mapping(toys):
    with open_archive(toys) as archive:
        beside = _Siblings(archive, PurePosixPath("toys/table"))
        assert sorted(beside) == ["box.mtl", "table.obj", "wood.png"]
        assert len(beside) == 3
        assert beside[" box.mtl"].decode() == MATERIALS
        with pytest.raises(KeyError):
            beside["none.png"]


def test_rotation_of_the_catalogue_is_applied(tmp_path):
    # The file's z becomes y: the box, 4 deep in the file, stands up before it is stretched.
    turn = "1 0 0 0 0 1 0 -1 0"
    path = library(tmp_path / "a.sh3f", [entry(1, "t", "Table", modelRotation=turn)], {"t": BOX})
    with open_archive(path) as archive:
        model = read_catalogue(archive).models[0]
        triangles = np.concatenate([part.triangles for part in load_parts(archive, model)])
    np.testing.assert_allclose(np.ptp(triangles, axis=(0, 1)), [2.0, 0.8, 0.7])
    # What was the top (file y) now looks along file -z, which is +y with z up.
    parts = load_parts(open_archive(path), model)
    textured = next(part for part in parts if part.image is not None)
    np.testing.assert_allclose(textured.triangles[..., 1], 0.4)


def test_flat_models_stay_flat(tmp_path):
    flat = "v 0 0 0\nv 1 0 0\nv 1 0 1\nv 0 0 1\nf 1 2 3 4\n"
    path = library(
        tmp_path / "a.sh3f", [entry(1, "rug", "Round carpet", category="Misc")], {"rug": flat}
    )
    # "Round carpet" is a cloth in every category.
    coords = read_corpus(build_sh3d([path], tmp_path / "out", progress=False)).coords[0]
    np.testing.assert_allclose(np.ptp(coords, axis=0), [2.0, 0.8, 0.0], rtol=0.02)


def test_the_copy_that_may_be_passed_on_is_kept(tmp_path):
    entries, models = [entry(1, "t", "Table")], {"t": BOX}
    library(tmp_path / "a.sh3f", entries, models, licence="Free Art License 1.3")
    library(tmp_path / "b.sh3f", entries, models, licence="Public domain")
    library(tmp_path / "c.jar", entries, models, licence="GNU GPL / CC-BY 3.0")
    out = build_sh3d([tmp_path], tmp_path / "out", progress=False)
    assert [record.licence for record in read_manifest(out).records] == ["CC0-1.0"]
    assert len(read_manifest(out).skipped) == 2


def test_licences_are_read_strictly():
    assert licence_of("GNU GPL / CC-BY 3.0 (c) eTeks") == ("GPL-2.0-or-later", False)
    assert licence_of("Creative Commons Attribution 3.0 United States license") == (
        "CC-BY-3.0-US",
        True,
    )
    assert licence_of("ask me") == ("unknown", False)


@pytest.mark.parametrize(
    ("name", "category", "label"),
    [
        ("Desk lamp", "Lights", "lamp"),
        ("Computer desk", "Office", "desk"),
        ("Office chair", "Office", "chair"),
        ("Chest freezer", "Kitchen", None),
        ("Chest", "Bedroom", "cabinet"),
        ("Car model", "Bedroom", None),
        ("Ford Focus", "Vehicles", "vehicle"),
        ("White light source", "Lights", None),
        ("Door window", "Doors and windows", "window"),
        ("Mannequin male", "Characters", None),
        ("Cup cake", "Kitchen", None),
        ("Table tennis", "Miscellaneous", None),
        ("Armchair", "Office", "armchair"),
        ("Wheelchair", "Miscellaneous", None),
    ],
)
def test_class_rules(name, category, label):
    assert class_of(name, category) == label


def test_every_class_has_a_rule_and_every_rule_a_class():
    assert {rule.label for rule in RULES} - {None} == set(CLASS_NAMES)
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES)


def test_nothing_to_read_says_where_to_get_it(tmp_path):
    with pytest.raises(ConfigError, match="apt-get download sweethome3d"):
        find_archives([tmp_path])
    with pytest.raises(ConfigError, match="no path at all"):
        build_sh3d([], tmp_path / "out")


def test_archives_that_are_none_are_typed_errors(tmp_path):
    broken = tmp_path / "broken.sh3f"
    broken.write_bytes(b"PK nonsense")
    with pytest.raises(FormatError, match="BadZipFile"):
        build_sh3d([broken], tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "empty.sh3f", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(FormatError, match="PluginFurnitureCatalog"):
        build_sh3d([tmp_path / "empty.sh3f"], tmp_path / "out")
    bad = library(tmp_path / "bad.sh3f", [entry(1, "t", "Table", width="wide")], {"t": BOX})
    with pytest.raises(FormatError, match="could not convert"):
        build_sh3d([bad], tmp_path / "out")


def test_a_broken_model_is_skipped_not_fatal(tmp_path):
    entries = [entry(1, "t", "Table"), entry(2, "u", "Chair")]
    path = library(tmp_path / "a.sh3f", entries, {"t": "v 0 0\nf 1 2 x\n", "u": BOX})
    out = build_sh3d([path], tmp_path / "out", progress=False)
    assert read_corpus(out).names == ("a/toys/u/u",)


def test_trimesh_is_an_extra(toys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingExtraError, match=r"pointzoo\[mesh\]"):
        build_sh3d([toys], tmp_path / "out", progress=False)
