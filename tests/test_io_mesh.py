import logging

import numpy as np
import pytest
import trimesh
from PIL import Image

from pointzoo import io
from pointzoo.errors import CloudError, FormatError
from pointzoo.io.surface import sample_surface

RNG = np.random.default_rng(0)
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def export(tmp_path, mesh, ending):
    mesh.export(tmp_path / f"a{ending}")
    return tmp_path / f"a{ending}"


@pytest.mark.parametrize("ending", [".off", ".obj", ".stl", ".glb"])
def test_points_lie_on_the_surface_with_its_normals(tmp_path, ending):
    path = export(tmp_path, trimesh.creation.icosphere(4, radius=2), ending)
    raw = io.read_raw(path, points=500)
    cloud = raw.to_cloud()
    assert len(cloud) == 500
    radius = np.linalg.norm(cloud.coords, axis=1)
    assert radius.min() > 1.98
    assert radius.max() <= 2.0 + 1e-6
    outward = cloud.coords / radius[:, None]
    assert (outward * cloud.normals).sum(axis=1).min() > 0.99
    assert cloud.colors is None
    assert "500 points were drawn from 5,120 triangles" in raw.notes[0]


def test_the_same_bytes_give_the_same_points_anywhere(tmp_path):
    path = export(tmp_path, trimesh.creation.box(), ".stl")
    (tmp_path / "copy.stl").write_bytes(path.read_bytes())
    first, second = io.read(path), io.read(tmp_path / "copy.stl")
    assert len(first) == io.MESH_POINTS
    assert np.array_equal(first.coords, second.coords)
    assert np.array_equal(io.read(path, points=10).coords, first.coords[:10])


def test_area_decides_how_many_points_a_triangle_gets(tmp_path):
    text = TRIANGLE + "v 0 0 5\nv 3 0 5\nv 0 3 5\nf 1 2 3\nf 4 5 6\n"
    cloud = io.read(write(tmp_path, "a.obj", text), points=10_000)
    assert (cloud.coords[:, 2] == 5).mean() == pytest.approx(0.9, abs=0.01)


def test_vertex_colors_blend(tmp_path):
    text = "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nf 1 2 3\n"
    cloud = io.read(write(tmp_path, "a.obj", text), points=200)
    assert np.allclose(cloud.colors[:, 1], cloud.coords[:, 0], atol=0.01)
    assert np.allclose(cloud.colors[:, 2], cloud.coords[:, 1], atol=0.01)


def test_vertex_colors_of_off(tmp_path):
    for head in ("COFF\n# comment\n3 1 0\n", "COFF 3 1 0\n"):
        text = head + "0 0 0 255 0 0 255\n1 0 0 0 255 0 255\n0 1 0 0 0 255 255\n3 0 1 2\n"
        cloud = io.read(write(tmp_path, "a.off", text), points=200)
        assert np.allclose(cloud.colors[:, 1], cloud.coords[:, 0], atol=0.01)


def test_vertex_and_face_colors_of_glb(tmp_path):
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = np.tile([10, 20, 30, 255], (8, 1)).astype(np.uint8)
    assert np.allclose(io.read(export(tmp_path, mesh, ".glb")).colors * 255, [10, 20, 30], atol=0.1)


def test_face_colors(tmp_path, monkeypatch):
    mesh = trimesh.creation.box()
    mesh.visual.face_colors = np.tile([10, 20, 30, 255], (12, 1)).astype(np.uint8)
    monkeypatch.setattr(trimesh, "load_scene", lambda *_, **__: trimesh.Scene(mesh))
    path = write(tmp_path, "a.stl", "no matter")
    assert np.allclose(io.read(path).colors * 255, [10, 20, 30], atol=0.1)


def test_texture_and_material_of_obj(tmp_path):
    left_red_right_blue = np.zeros((2, 16, 3), np.uint8)
    left_red_right_blue[:, :8, 0] = left_red_right_blue[:, 8:, 2] = 255
    Image.fromarray(left_red_right_blue).save(tmp_path / "t.png")
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\nnewmtl b\nKd 0 1 0\n")
    faces = "v 0 0 1\nv 1 0 1\nv 0 1 1\nusemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 4 5 6\n"
    cloud = io.read(write(tmp_path, "a.obj", f"mtllib m.mtl\n{TRIANGLE}{faces}"), points=400)
    below = cloud.coords[:, 2] == 0
    assert np.allclose(cloud.colors[~below], [0, 1, 0])
    assert np.allclose(cloud.colors[below & (cloud.coords[:, 0] < 0.4)], [1, 0, 0])
    assert np.allclose(cloud.colors[below & (cloud.coords[:, 0] > 0.6)], [0, 0, 1])


def test_texture_times_factor_in_gltf(tmp_path):
    from trimesh.visual.material import PBRMaterial

    image = Image.fromarray(np.full((2, 2, 3), 255, np.uint8))
    material = PBRMaterial(baseColorTexture=image, baseColorFactor=[51, 255, 0, 255])
    mesh = trimesh.creation.box()
    mesh.visual = trimesh.visual.TextureVisuals(uv=RNG.random((8, 2)), material=material)
    colors = io.read(export(tmp_path, mesh, ".glb")).colors
    assert np.allclose(colors, [0.2, 1, 0], atol=0.01)


def test_texture_coordinates_without_a_texture_are_no_colour(tmp_path):
    assert io.read(write(tmp_path, "a.obj", TRIANGLE + "f 1/1 2/2 3/3\n")).colors is None


def test_parts_of_a_scene_are_placed_and_coloured(tmp_path):
    scene = trimesh.Scene()
    plain = trimesh.creation.box()
    red = trimesh.creation.box()
    red.visual.vertex_colors = np.tile([255, 0, 0, 255], (8, 1)).astype(np.uint8)
    scene.add_geometry(plain)
    scene.add_geometry(red, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    cloud = io.read(export(tmp_path, scene, ".glb"), points=500)
    far = cloud.coords[:, 0] > 5
    assert 150 < far.sum() < 350
    assert np.allclose(cloud.colors[far], [1, 0, 0])
    assert np.allclose(cloud.colors[~far], 0.4)


@pytest.mark.parametrize("head", ["OFF\n4 2 0\n", "OFF4 2 0\n", "OFF 4 2 0\n", "OFF\n# c\n4 2 0\n"])
def test_headers_of_modelnet(tmp_path, head):
    text = head + "0 0 0\n1 0 0\n0 1 0\n1 1 0\n3 0 1 2\n3 1 3 2\n"
    cloud = io.read(write(tmp_path, "a.off", text), points=64)
    assert cloud.coords[:, :2].max() <= 1
    assert (cloud.coords[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n"), ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n")],
)
def test_vertices_without_triangles_are_given(tmp_path, name, text):
    raw = io.read_raw(write(tmp_path, name, text), points=64)
    assert raw.coords.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert raw.colors is None
    assert "these are the vertices" in raw.notes[0]


def test_vertices_without_triangles_keep_their_colors(tmp_path):
    points = trimesh.PointCloud(RNG.random((5, 3)), colors=np.full((5, 4), 51, np.uint8))
    path = export(tmp_path, trimesh.Scene(points), ".glb")
    cloud = io.read(path)
    assert len(cloud) == 5
    assert np.allclose(cloud.colors, 0.2)


def test_a_surface_without_area_is_refused(tmp_path):
    with pytest.raises(CloudError, match="finite area"):
        io.read(write(tmp_path, "a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.off", "NOFF\n3 1 0\n"),
        ("a.off", "OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"),
        ("a.off", "COFF\n0 0 0\n"),
        ("a.off", "OFF\n1152921504606846976 1 0\n0 0 0\n"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"),
        ("a.obj", "v 0 0 zero\n"),
        ("a.obj", "nothing here\n"),
        ("a.stl", "solid nothing\n"),
        ("a.glb", "glTF but not really"),
        ("a.gltf", "{}"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, text, capfd):
    with pytest.raises(FormatError):
        io.read(write(tmp_path, name, text))
    assert capfd.readouterr() == ("", "")


def test_corners_that_do_not_exist_are_refused(tmp_path, monkeypatch):
    mesh = trimesh.Trimesh(np.eye(3), [[0, 1, 5]], process=False)
    monkeypatch.setattr(trimesh, "load_scene", lambda *_, **__: trimesh.Scene(mesh))
    with pytest.raises(FormatError, match="corner that does not exist"):
        io.read(write(tmp_path, "a.stl", "no matter"))


def test_meshes_repeated_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pointzoo.io.mesh._MOST_TRIANGLES", 11)
    with pytest.raises(FormatError, match="more than 11 triangles"):
        io.read(export(tmp_path, trimesh.creation.box(), ".stl"))


def test_handlers_of_an_application_stay():
    from pointzoo.io.files import quiet

    logger = logging.getLogger("some.package")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    quiet("some.package")
    assert logger.handlers == [handler]


def test_triangles_without_area_are_never_chosen():
    flat = np.zeros((1, 3, 3))
    good = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], float)
    broken = np.full((1, 3, 3), np.inf)
    sample = sample_surface(np.concatenate([flat, good, broken, flat]), 1000, RNG)
    assert (sample.triangle == 1).all()
    assert np.allclose(sample.weights.sum(axis=1), 1)
    corners = good[0]
    assert np.allclose(sample.weights @ corners, sample.coords)


def test_points_beside_triangles_are_left_out(tmp_path):
    scene = trimesh.Scene([trimesh.creation.box(), trimesh.PointCloud(np.full((3, 3), 9.0))])
    cloud = io.read(export(tmp_path, scene, ".glb"), points=50)
    assert cloud.coords.max() <= 0.5
