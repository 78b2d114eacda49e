"""The worker inside Blender, with a stand-in for Blender: protocol, triangles, colours."""

import importlib
import json
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

WORKER = "pointzoo.data.builders.infinigen_worker"


class FakeCollection(list):
    """The part of a Blender collection of numbers or objects that the worker uses."""

    def foreach_get(self, name, into):
        into[:] = np.ravel([getattr(item, name) for item in self])

    def remove(self, item, do_unlink=False):
        assert do_unlink
        super().remove(item)


@pytest.fixture
def bpy(monkeypatch):
    module = ModuleType("bpy")
    module.app = SimpleNamespace(version_string="4.2.0")
    module.data = SimpleNamespace(objects=FakeCollection(["Cube", "Light"]))
    monkeypatch.setitem(sys.modules, "bpy", module)
    monkeypatch.delitem(sys.modules, WORKER, raising=False)
    yield module
    sys.modules.pop(WORKER, None)


@pytest.fixture
def worker(bpy):
    return importlib.import_module(WORKER)


# -- shader graphs ---------------------------------------------------------------------------------


def socket(value=None, source=None, output=None, identifier="", enabled=True):
    """An input socket: a value, or a link from an output of a node."""
    links = [SimpleNamespace(from_node=source, from_socket=output)] if source else []
    return SimpleNamespace(
        is_linked=bool(links),
        links=links,
        default_value=value,
        identifier=identifier,
        enabled=enabled,
    )


class Inputs(list):
    """Inputs by number or by name."""

    def __init__(self, named):
        super().__init__(named.values())
        self._named = named

    def __getitem__(self, key):
        return self._named[key] if isinstance(key, str) else super().__getitem__(key)

    def __contains__(self, key):
        return key in self._named


def node(kind, **inputs):
    named = {name.replace("_", " "): value for name, value in inputs.items()}
    return SimpleNamespace(type=kind, inputs=Inputs(named))


def rgb(*value):
    made = node("RGB")
    made.outputs = [SimpleNamespace(default_value=(*value, 1.0))]
    return made


def tree(surface):
    output = node("OUTPUT_MATERIAL", Surface=surface)
    output.is_active_output = True
    spare = node("OUTPUT_MATERIAL", Surface=socket())
    spare.is_active_output = False
    nodes = SimpleNamespace(nodes=[rgb(0, 0, 0), spare, output])
    return SimpleNamespace(use_nodes=True, node_tree=nodes)


def principled(base):
    return tree(socket(source=node("BSDF_PRINCIPLED", Base_Color=base)))


def test_colour_of_plain_materials(worker):
    assert worker.material_color(None) == worker.GREY
    flat = SimpleNamespace(use_nodes=False, node_tree=None, diffuse_color=[0.1, 0.2, 0.3, 1.0])
    assert worker.material_color(flat) == (0.1, 0.2, 0.3, 1.0)
    assert worker.material_color(principled(socket((1.0, 0.5, 0.0, 1.0)))) == (1.0, 0.5, 0.0)
    assert worker.material_color(tree(socket())) == worker.GREY
    empty = SimpleNamespace(use_nodes=True, node_tree=SimpleNamespace(nodes=[]))
    assert worker.material_color(empty) == worker.GREY


def test_colour_comes_through_links_and_ramps(worker):
    assert worker.material_color(principled(socket(source=rgb(0.2, 0.4, 0.6)))) == (0.2, 0.4, 0.6)
    value = node("VALUE")
    value.outputs = [SimpleNamespace(default_value=0.7)]
    assert worker.material_color(principled(socket(source=value))) == (0.7,) * 3
    for factor, at in ((socket(0.9), 0.5), (socket(source=rgb(0.3, 0.3, 0.3)), 0.3)):
        ramp = node("VALTORGB", Fac=factor)
        ramp.color_ramp = SimpleNamespace(evaluate=lambda x: (x, 0.0, 0.0, 1.0))
        color = worker.material_color(principled(socket(source=ramp)))
        assert color == pytest.approx((at, 0.0, 0.0))


def test_mixes_follow_their_factor(worker):
    red, blue = socket((1.0, 0.0, 0.0, 1.0)), socket((0.0, 0.0, 1.0, 1.0))
    hidden = socket((9.0, 9.0, 9.0, 9.0), enabled=False)
    mix = node("MIX", Factor=socket(0.25), hidden=hidden, A=red, B=blue)
    assert worker.material_color(principled(socket(source=mix))) == (0.75, 0.0, 0.25)
    half = node("MIX", Factor=socket(), A=red, B=blue)
    assert worker.material_color(principled(socket(source=half))) == (0.5, 0.0, 0.5)
    lone = node("MIX", Factor=socket(0.9), A=red, B=socket())
    assert worker.material_color(principled(socket(source=lone))) == (1.0, 0.0, 0.0)
    shaders = [socket(source=node("BSDF_DIFFUSE", Color=color)) for color in (red, blue)]
    both = node("ADD_SHADER", A=shaders[0], B=shaders[1])
    assert worker.material_color(tree(socket(source=both))) == (0.5, 0.0, 0.5)


def test_groups_are_entered_and_left(worker):
    group = node("GROUP", Tint=socket((0.0, 1.0, 0.0, 1.0), identifier="in"))
    leave = node("GROUP_INPUT")
    tinted = socket(source=leave, output=SimpleNamespace(identifier="in"), identifier="out")
    group.node_tree = SimpleNamespace(nodes=[leave, node("GROUP_OUTPUT", Color=tinted)])
    for name, expected in (("out", (0.0, 1.0, 0.0)), ("other", worker.GREY)):
        link = socket(source=group, output=SimpleNamespace(identifier=name))
        assert worker.material_color(tree(link)) == expected
    stray = socket(source=leave, output=SimpleNamespace(identifier="none"))
    assert worker.socket_color(stray, (group,), 0) is None
    assert worker.socket_color(stray, (), 0) is None


def test_patterns_and_circles_end(worker):
    noise = socket(source=node("TEX_NOISE"))
    assert worker.material_color(principled(noise)) == worker.GREY
    assert worker.socket_color(socket(source=node("ATTRIBUTE")), (), 0) is None
    turn = node("HUE_SAT")
    turn.inputs = Inputs({"Color": socket(source=turn)})
    assert worker.socket_color(socket(source=turn), (), 0) is None


def test_srgb_curve(worker):
    assert worker.srgb((0.0, 1.0, 7.0)).tolist() == [0, 255, 255]
    # 0.5 linear is 0.735 in sRGB, by IEC 61966-2-1.
    assert worker.srgb((0.5, 0.001, -1.0)).tolist() == [188, 3, 0]


# -- triangles -------------------------------------------------------------------------------------


class FakeObject:
    """An evaluated object with one triangle at z = 0 per material."""

    def __init__(self, kind="MESH", triangles=2, materials=(), children=()):
        self.type = kind
        self.children_recursive = list(children)
        self.original = self
        self._triangles, self._materials = triangles, materials

    def to_mesh(self):
        if self._triangles is None:
            return None
        points = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
        triangles = [
            SimpleNamespace(vertices=(0, 1, 2), material_index=i) for i in range(self._triangles)
        ]
        return SimpleNamespace(
            calc_loop_triangles=lambda: None,
            vertices=FakeCollection([SimpleNamespace(co=p) for p in points]),
            loop_triangles=FakeCollection(triangles),
            materials=self._materials,
        )

    def to_mesh_clear(self):
        pass


def scene(bpy, *instances):
    graph = SimpleNamespace(update=lambda: None, object_instances=instances)
    bpy.context = SimpleNamespace(evaluated_depsgraph_get=lambda: graph)


def instance(item, parent=None, up=0.0):
    matrix = np.eye(4)
    matrix[2, 3] = up
    return SimpleNamespace(
        object=item, parent=parent, is_instance=parent is not None, matrix_world=matrix
    )


def plain(*color):
    return SimpleNamespace(use_nodes=False, node_tree=None, diffuse_color=color)


def test_objects_children_and_instances_are_placed(bpy, worker):
    child, leaf = FakeObject(triangles=1), FakeObject(triangles=1)
    root = FakeObject(materials=(plain(1, 0, 0), plain(0, 1, 0)), children=[child])
    stranger = FakeObject()
    scene(
        bpy,
        instance(root, up=1.0),
        instance(child, up=2.0),
        instance(leaf, parent=child, up=3.0),
        instance(stranger),
        instance(leaf, parent=stranger),
        instance(FakeObject(kind="LIGHT"), parent=root),
        instance(FakeObject(triangles=None), parent=root),
        instance(FakeObject(triangles=0), parent=root),
    )
    triangles, colors = worker.evaluated_triangles(root)
    assert triangles.dtype == np.float32
    assert triangles[:, :, 2].tolist() == [[1] * 3, [1] * 3, [2] * 3, [3] * 3]
    assert colors.tolist() == [[255, 0, 0], [0, 255, 0], [188] * 3, [188] * 3]


def test_an_object_without_triangles_is_an_error(bpy, worker):
    scene(bpy)
    with pytest.raises(ValueError, match="no triangle"):
        worker.evaluated_triangles(FakeObject())


# -- protocol --------------------------------------------------------------------------------------


@pytest.fixture
def toys(bpy, monkeypatch):
    """A module of factories; ``random`` numbers show that the seed was set."""
    made = FakeObject()
    scene(bpy, instance(made))

    class ChairFactory:
        def __init__(self, seed):
            assert not bpy.data.objects
            self.draw = np.random.random()  # noqa: NPY002 - as Infinigen does

        def spawn_asset(self, index):
            assert index == 0
            return made

        def finalize_assets(self, assets):
            assert assets == [made]
            bpy.draws = [*getattr(bpy, "draws", []), self.draw]

    class LampFactory:
        def __init__(self, seed):
            raise SystemExit("no lamp")

    module = ModuleType("toys")
    module.ChairFactory, module.LampFactory = ChairFactory, LampFactory
    monkeypatch.setitem(sys.modules, "toys", module)
    return module


def job(tmp_path, factory="ChairFactory", seed=3):
    out = str(tmp_path / "mesh.npz")
    return {"module": "toys", "factory": factory, "seed": seed, "out": out}


def test_a_job_writes_its_mesh(toys, bpy, worker, tmp_path):
    assert worker.attempt(job(tmp_path)) == ""
    with np.load(tmp_path / "mesh.npz") as arrays:
        assert arrays["triangles"].shape == (2, 3, 3)
        assert arrays["colors"].shape == (2, 3)
    assert worker.attempt(job(tmp_path)) == ""
    assert bpy.draws[0] == bpy.draws[1]


def test_whatever_a_factory_raises_is_put_into_words(toys, worker, tmp_path):
    assert worker.attempt(job(tmp_path, "LampFactory")) == "SystemExit: no lamp"
    assert worker.attempt(job(tmp_path, "Nothing")).startswith("AttributeError")


def answers_of(worker, monkeypatch, text, call):
    """Feed standard input to ``call`` and return the lines it wrote and what it returned."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    os.write(write_in, text.encode())
    os.close(write_in)
    plain_read = os.read
    monkeypatch.setattr(
        worker.os, "read", lambda fd, size: plain_read(read_in if fd == 0 else fd, size)
    )
    result = call(write_out)
    os.close(write_out)
    with os.fdopen(read_out) as stream:
        lines = [json.loads(line) for line in stream]
    os.close(read_in)
    return lines, result


def test_one_job_is_read_made_and_answered(toys, worker, monkeypatch, tmp_path):
    text = json.dumps(job(tmp_path)) + "\n"
    lines, status = answers_of(worker, monkeypatch, text, worker.one_job)
    assert status == 0
    assert lines[0]["ok"] is True
    text = json.dumps(job(tmp_path, "LampFactory")) + "\n"
    lines, status = answers_of(worker, monkeypatch, text, worker.one_job)
    assert (lines, status) == ([{"ok": False, "error": "SystemExit: no lamp"}], 0)
    assert answers_of(worker, monkeypatch, "", worker.one_job) == ([], worker.NO_MORE_JOBS)


class ExitedError(Exception):
    """Stands for the end of the process."""


def run_main(worker, monkeypatch, statuses, child=False):
    """Run ``main`` with forks that end as told; what it said, and its exit status."""
    said = []

    def leave(status):
        raise ExitedError(status)

    core = ModuleType("infinigen.core.init")
    core.require_blender_addon = lambda name: pytest.fail("asks the network")
    for name, module in (("infinigen", ModuleType("infinigen")), ("infinigen.core.init", core)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "infinigen.core", ModuleType("infinigen.core"))
    monkeypatch.setattr(worker, "fix_addresses", lambda: None)
    monkeypatch.setattr(worker, "tell", lambda _, answer: said.append(answer))
    monkeypatch.setattr(worker, "one_job", lambda _: 5)
    monkeypatch.setattr(worker.importlib.metadata, "version", lambda _: "1.15.5")
    monkeypatch.setattr(worker.logging, "disable", lambda _: None)
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)
    monkeypatch.setattr(worker.sys, "argv", ["worker.py", "no.such.module", "json"])
    monkeypatch.setattr(worker.os, "dup", lambda fd: fd)
    monkeypatch.setattr(worker.os, "dup2", lambda old, new: None)
    monkeypatch.setattr(worker.os, "fork", lambda: 0 if child else 99)
    monkeypatch.setattr(worker.os, "waitpid", lambda pid, _: (pid, statuses.pop(0)))
    monkeypatch.setattr(worker.os, "_exit", leave)
    with pytest.raises(ExitedError) as ended:
        worker.main()
    assert core.require_blender_addon("any", fail="warn") is False
    return said, ended.value.args[0]


def test_the_parent_forks_until_there_are_no_more_jobs(worker, monkeypatch):
    crashed, done, over = 11, 0, worker.NO_MORE_JOBS << 8
    said, status = run_main(worker, monkeypatch, [done, crashed, over])
    assert said == [
        {"ready": True, "bpy": "4.2.0", "infinigen": "1.15.5"},
        {"ok": False, "error": "the process ended with status -11"},
    ]
    assert status == 0


def test_a_child_ends_with_its_job(worker, monkeypatch):
    assert run_main(worker, monkeypatch, [], child=True)[1] == 5


@pytest.mark.parametrize(("before", "restarts"), [(0, True), (0x0040000, False), (-1, False)])
def test_addresses_are_fixed_once(worker, monkeypatch, before, restarts):
    calls, restarted, processors = [], [], []

    def personality(value):
        calls.append(value)
        return before

    monkeypatch.setattr(worker.ctypes, "CDLL", lambda _: SimpleNamespace(personality=personality))
    monkeypatch.setenv("POINTZOO_WORKER", "5")
    monkeypatch.setattr(worker.os, "sched_getaffinity", lambda _: {4, 2, 7})
    monkeypatch.setattr(worker.os, "sched_setaffinity", lambda _, cpus: processors.append(cpus))
    monkeypatch.setattr(worker.os, "execv", lambda path, argv: restarted.append(path))
    worker.fix_addresses()
    assert calls[0] == worker.ASK_PERSONALITY
    assert (calls[1:], restarted, processors) == (
        ([worker.ADDR_NO_RANDOMIZE], [sys.executable], [{7}]) if restarts else ([], [], [])
    )
