"""MORSE rooms: the worker inside (a stand-in for) Blender, labels by names, drawn finishes."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pointzoo.data import open_dataset
from pointzoo.data.builders import build_morse
from pointzoo.data.builders.morse import _PLACES, _finish, _flat_uv
from pointzoo.data.builders.rooms_mesh import box, plain
from pointzoo.data.builders.rooms_scan import Sensor
from pointzoo.data.rooms import read_rooms_manifest
from pointzoo.data.scene_classes import SCANNET20
from pointzoo.errors import ConfigError

WORKER = "pointzoo.data.builders.morse_worker"

# What stands for the interpreter with Blender: it copies the arrays beside the file it is given.
STAND_IN = """#!/bin/sh
if [ -f "$2.npz" ]; then cp "$2.npz" "$3"; else echo "no module named bpy" >&2; exit 1; fi
"""


def arrays(names):
    """A hall of 6 x 6 m: a floor, a wall, and other objects in a row."""
    meshes = {"floor": box((6, 6, 0.01), plain((0, 0, 0)), position=(0, 0, -0.01))}
    meshes["wall"] = box((6, 0.1, 2.5), plain((0, 0, 0)), position=(0, 3, 0))
    triangles, colors, owner = [], [], []
    for index in range(len(names)):
        mesh = meshes.get(("floor", "wall")[index]) if index < 2 else None
        if mesh is None:
            mesh = box((0.5, 0.5, 0.8), plain((0, 0, 0)), position=(index - 4, 1.5, 0))
        triangles.append(mesh.triangles)
        color = (240, 240, 238) if index < 3 else (30, 90, 200)
        colors.append(np.tile(np.uint8(color), (len(mesh.triangles), 1)))
        owner.append(np.full(len(mesh.triangles), index))
    return {
        "triangles": np.concatenate(triangles),
        "colors": np.concatenate(colors),
        "owner": np.concatenate(owner),
        "names": np.array(names),
    }


NAMES = {
    "apartment.blend": ["Plane", "C6_wall", "IKEA_bed_F", "IKEA_chair", "Plant", "office_desk"],
    "human_tut/tutorial_scene.blend": ["Ground", "Walls", "Table", "Chair2", "Shelf2", "ATrail"],
    "indoors-1/indoor-1.blend": ["Ground", "Plane", "Desk_1", "Stool", "Bottle1"],
    "laas/grande_salle.blend": ["Floor", "Walls1", "Desk_3_mesh", "Rolling_Chair", "SolidGround"],
    "tum_kitchen/tum_kitchen.blend": ["ground", "v1.node50.visual", "v1.node92.visual", "Door.L"],
}  # fmt: skip


@pytest.fixture
def environments(tmp_path):
    root = tmp_path / "data" / "environments"
    for file, names in NAMES.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
        np.savez(root / f"{file}.npz", **arrays(names))
    return root


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "python"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return path


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr(
        "pointzoo.data.builders.morse.Sensor", lambda: Sensor(width=48, height=36, voxel=0.06)
    )


def test_the_rooms_are_scanned_and_labelled_by_name(environments, python, coarse, tmp_path):
    out = build_morse(python, environments.parent, tmp_path / "morse")
    data = open_dataset(out, "test")
    assert data.names == ("apartment", "tutorial_scene", "indoor_1", "grande_salle", "tum_kitchen")
    classes = [
        {SCANNET20[label] if label >= 0 else "-" for label in np.unique(data[i].labels)}
        for i in range(5)
    ]
    assert classes[0] == {"floor", "wall", "bed", "chair", "-", "desk"}
    assert classes[1] == {"floor", "wall", "table", "chair", "bookshelf"}
    assert classes[2] >= {"floor", "desk", "otherfurniture", "-"}
    assert classes[3] == {"floor", "wall", "desk", "chair"}
    assert classes[4] == {"floor", "wall", "sink", "door"}
    for i in range(5):
        assert abs(np.median(data[i].coords[data[i].labels == 1, 2])) < 0.05
    manifest = read_rooms_manifest(out)
    assert not manifest.header.pretraining
    assert {model.licence for model in manifest.models} == {"BSD-3-Clause"}
    assert manifest.rooms[4].kind == "kitchen"


def test_what_is_missing_is_named(environments, python, tmp_path):
    with pytest.raises(ConfigError, match="morse-simulator-data"):
        build_morse(python, tmp_path / "out", tmp_path / "morse")
    (environments / "apartment.blend.npz").unlink()
    with pytest.raises(ConfigError, match="no module named bpy"):
        build_morse(python, environments, tmp_path / "morse")
    assert not (tmp_path / "morse").exists()


def test_only_lost_textures_are_drawn():
    blue, white = np.uint8([20, 40, 200]), np.uint8([245, 245, 240])
    assert _finish(blue, "floor", "Floor").shape == (1, 1, 3)
    assert _finish(white, "", "Cup").shape == (1, 1, 3)
    for label in ("floor", "wall", "desk"):
        image = _finish(white, label, "Desk.001")
        assert np.ptp(image) > 3
        np.testing.assert_array_equal(image, _finish(white, label, "Desk.002"))  # of one series


def test_texture_coordinates_lie_flat_on_each_side():
    uv = _flat_uv(box((1, 1, 1), plain((0, 0, 0))).triangles)
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    np.testing.assert_allclose(area, 0.125, rtol=1e-5)  # half a square metre at 2 m a texture


def test_every_rule_names_a_class_and_the_last_takes_all():
    for place in _PLACES:
        assert all(label in ("", "drop", *SCANNET20) for _, label in place.rules)
        assert place.rules[-1] == ("", "")


def test_the_worker_writes_visible_objects_by_name(monkeypatch, tmp_path):
    opened = []
    bpy = ModuleType("bpy")
    bpy.ops = SimpleNamespace(wm=SimpleNamespace(open_mainfile=lambda **k: opened.append(k)))
    bpy.context = SimpleNamespace(evaluated_depsgraph_get=lambda: "graph")

    def thing(name, hidden=False, triangles=1):
        entry = SimpleNamespace(
            name=name, hide_render=hidden, hide_viewport=False, matrix_world=np.eye(4).tolist(),
            triangles=triangles,
        )  # fmt: skip
        entry.evaluated_get = lambda graph: entry
        return entry

    objects = [thing("Table"), thing("bound", hidden=True), thing("Chair", triangles=2)]
    bpy.data = SimpleNamespace(objects=[*objects, thing("Lamp", triangles=0)])
    shared = ModuleType("infinigen_worker")

    def add_object(entry, matrix, triangles, colors):
        assert matrix.shape == (4, 4)
        if entry.triangles:
            triangles.append(np.zeros((entry.triangles, 3, 3), np.float32))
            colors.append(np.zeros((entry.triangles, 3), np.uint8))

    shared.add_object = add_object
    monkeypatch.setitem(sys.modules, "bpy", bpy)
    monkeypatch.setitem(sys.modules, "infinigen_worker", shared)
    monkeypatch.delitem(sys.modules, WORKER, raising=False)
    worker = importlib.import_module(WORKER)
    worker.main("room.blend", str(tmp_path / "out.npz"))
    sys.modules.pop(WORKER, None)
    assert opened == [{"filepath": "room.blend"}]
    with np.load(tmp_path / "out.npz") as got:
        assert got["names"].tolist() == ["Chair", "Table"]
        np.testing.assert_array_equal(got["owner"], [0, 0, 1])
        assert got["triangles"].shape == (3, 3, 3)
