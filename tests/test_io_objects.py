"""Clouds of other libraries. trimesh is real here; the others are stood in for by classes that have
the names, modules and attributes of theirs, since they are too large to install for a test."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from pointzoo import io
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.features import as_cloud

RNG = np.random.default_rng(0)
COORDS = RNG.normal(size=(30, 3))
COLORS = RNG.uniform(size=(30, 3))
NORMALS = COORDS / np.linalg.norm(COORDS, axis=1, keepdims=True)
TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])


def foreign(library, name, **attributes):
    """Return an object whose class claims to be ``name`` of ``library``."""
    kind = type(name, (SimpleNamespace,), {"__module__": f"{library}.inner"})
    return kind(**attributes)


class OnDevice:
    """A tensor that has to be fetched, as Open3D's and torch's."""

    def __init__(self, values):
        self.values = values

    def cpu(self):
        return SimpleNamespace(numpy=lambda: self.values)


def pyvista(points, faces=(), triangulated=None, **data):
    same = SimpleNamespace(faces=triangulated)
    return foreign("pyvista", "PolyData", points=points, point_data=data,
                   faces=np.array(faces, int), triangulate=lambda: same)  # fmt: skip


CLOUDS = {
    "open3d": foreign("open3d", "PointCloud", points=COORDS, colors=COLORS, normals=NORMALS),
    "open3d tensor": foreign(
        "open3d",
        "PointCloud",
        point={
            "positions": OnDevice(COORDS),
            "colors": OnDevice(np.rint(COLORS * 255).astype(np.uint8)),
            "normals": OnDevice(NORMALS),
        },
    ),
    "pyvista": pyvista(COORDS, RGBA=np.hstack([COLORS, COLORS[:, :1]]), Normals=NORMALS),
    "pyg": foreign(
        "torch_geometric", "Data", pos=torch.from_numpy(COORDS), normal=torch.from_numpy(NORMALS),
        color=torch.from_numpy(COLORS).requires_grad_(), y=torch.arange(30), batch=None,
    ),
    "pointcept": {
        "coord": COORDS, "color": torch.from_numpy(COLORS * 255), "normal": NORMALS,
        "segment": np.arange(30), "instance": np.arange(30) % 4, "offset": torch.tensor([30]),
    },
    "pointcept, normalised": {"coord": COORDS, "color": COLORS * 2 - 1, "normal": NORMALS},
}  # fmt: skip


@pytest.mark.parametrize("name", CLOUDS)
def test_points_colours_and_normals_arrive(name):
    cloud = as_cloud(CLOUDS[name])
    np.testing.assert_array_equal(cloud.coords, COORDS)
    np.testing.assert_allclose(cloud.colors, COLORS, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(cloud.normals, NORMALS, atol=1e-6)


@pytest.mark.parametrize("name", ["pyg", "pointcept"])
def test_labels_arrive(name):
    np.testing.assert_array_equal(as_cloud(CLOUDS[name]).labels, np.arange(30))


def test_instances_of_a_dictionary_are_a_field():
    np.testing.assert_array_equal(
        as_cloud(CLOUDS["pointcept"]).fields["instance"], np.arange(30) % 4
    )


BARE = {
    "open3d": foreign("open3d", "PointCloud", points=COORDS, colors=(), normals=()),
    "open3d tensor": foreign("open3d", "PointCloud", point={"positions": OnDevice(COORDS)}),
    "pyvista": pyvista(COORDS),
    "pyg": foreign("torch_geometric", "Data", pos=torch.from_numpy(COORDS), y=torch.tensor([3])),
    "pointcept": {"coord": COORDS},
    "trimesh": trimesh.PointCloud(COORDS),
}


@pytest.mark.parametrize("name", BARE)
def test_what_is_missing_is_missing(name):
    cloud = as_cloud(BARE[name])
    np.testing.assert_array_equal(cloud.coords, COORDS)
    assert cloud.colors is None
    assert cloud.normals is None
    assert cloud.labels is None


MESHES = {
    "open3d": foreign("open3d", "TriangleMesh", vertices=TRIANGLE, triangles=np.array([[0, 1, 2]]),
                      vertex_colors=np.eye(3), vertex_normals=()),
    "open3d tensor": foreign(
        "open3d", "TriangleMesh",
        vertex={"positions": OnDevice(TRIANGLE), "colors": OnDevice(np.eye(3))},
        triangle={"indices": OnDevice(np.array([[0, 1, 2]]))},
    ),
    "pyvista": pyvista(TRIANGLE, [3, 0, 1, 2], np.array([3, 0, 1, 2]),
                       RGB=(np.eye(3) * 255).astype(np.uint8)),
    "trimesh": trimesh.Trimesh(TRIANGLE, [[0, 1, 2]],
                               vertex_colors=(np.eye(3) * 255).astype(np.uint8)),
    "scene": trimesh.Scene(
        trimesh.Trimesh(TRIANGLE, [[0, 1, 2]], vertex_colors=(np.eye(3) * 255).astype(np.uint8))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESHES)
def test_points_are_drawn_from_meshes(name):
    cloud = as_cloud(MESHES[name])
    assert len(cloud) == io.MESH_POINTS
    x, y, z = cloud.coords.T
    assert (z == 0).all()
    assert min(x.min(), y.min()) >= 0
    assert (x + y).max() <= 1 + 1e-12
    np.testing.assert_allclose(cloud.normals, np.tile([0, 0, 1], (len(cloud), 1)), atol=1e-6)
    np.testing.assert_allclose(cloud.colors, np.stack([1 - x - y, x, y], axis=1), atol=0.01)
    np.testing.assert_array_equal(as_cloud(MESHES[name]).coords, cloud.coords)


def test_a_mesh_without_triangles_is_its_vertices():
    mesh = foreign("open3d", "TriangleMesh", vertices=TRIANGLE, triangles=np.zeros((0, 3), int),
                   vertex_colors=(), vertex_normals=())  # fmt: skip
    np.testing.assert_array_equal(as_cloud(mesh).coords, TRIANGLE)


REFUSED = {
    "voxels": foreign("open3d", "VoxelGrid"),
    "blocks": foreign("pyvista", "MultiBlock"),
    "path": foreign("trimesh", "Unit"),
    "graph": foreign("torch_geometric", "Data", pos=None),
    "several graphs": foreign("torch_geometric", "Batch", pos=torch.from_numpy(COORDS),
                              batch=torch.arange(30) // 15),
    "several clouds": {"coord": COORDS, "offset": torch.tensor([15, 30])},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_single_cloud_is_refused(name):
    with pytest.raises(CloudError):
        as_cloud(REFUSED[name])


def test_an_empty_scene_is_refused():
    with pytest.raises(FormatError, match="no vertex"):
        as_cloud(trimesh.Scene())


@pytest.mark.parametrize("value", [3, {"points": COORDS}, object()])
def test_anything_else_is_no_source(value):
    with pytest.raises(ConfigError, match="another library"):
        as_cloud(value)
