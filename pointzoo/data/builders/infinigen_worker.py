"""Makes Infinigen objects on request; runs inside the Python of a Blender (``bpy``) environment.

This file is a script, not a part of the importable package: the Blender environment has neither
torch nor pointzoo. It imports ``bpy`` and the modules named as arguments once and then, for each
job, forks a child that makes one object, so every object starts from the same state (the same seed
gives the same mesh, whatever was made before it) and a crash costs one object.

Protocol: one JSON object a line. A job on standard input is
``{"module": str, "factory": str, "seed": int, "out": str}``. The answer is
``{"ok": true, "seconds": float}`` once the mesh lies in ``out``, or
``{"ok": false, "error": str}``. The first line, before any job, is
``{"ready": true, "bpy": version, "infinigen": version}``. The mesh is an npz with
``triangles (T, 3, 3)`` float32 in metres, z up, and ``colors (T, 3)`` uint8 sRGB per triangle.

Shape legend: T triangles, V vertices.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import json
import logging
import os
import random
import sys
import time
from typing import Any

import bpy
import numpy as np

Color = tuple[float, ...]

GREY: Color = (0.5, 0.5, 0.5)
"""The linear colour of a material whose colour cannot be told without rendering it."""

ADDR_NO_RANDOMIZE = 0x0040000
ASK_PERSONALITY = 0xFFFFFFFF
NO_MORE_JOBS = 3
"""Exit status of a child that found standard input closed."""

MAX_NODE_DEPTH = 24
"""How far back a shader graph is followed."""


def main() -> None:
    """Fork a child for every job from standard input until it closes."""
    fix_addresses()
    answers = os.dup(1)
    # Blender and Infinigen write to descriptor 1 from C: keep the answers apart from that.
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    # Else some modules ask the network for add-ons, which no factory of the table needs.
    start = importlib.import_module("infinigen.core.init")
    setattr(start, "require_blender_addon", no_addon)  # noqa: B010 - a module is no typed object
    for module in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the jobs that need it will say so
            importlib.import_module(module)
    versions = {"bpy": bpy.app.version_string, "infinigen": importlib.metadata.version("infinigen")}
    tell(answers, {"ready": True, **versions})
    gc.freeze()
    status = 0
    while status != NO_MORE_JOBS:
        child = os.fork()
        if child == 0:
            os._exit(one_job(answers))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in {0, NO_MORE_JOBS}:
            tell(answers, {"ok": False, "error": f"the process ended with status {status}"})
    os._exit(0)  # Blender's own way out crashes after a fork


def no_addon(*_: Any, **__: Any) -> bool:
    """Stand for Infinigen's search for a Blender add-on: there is none."""
    return False


def fix_addresses() -> None:
    """Start over without address space randomisation and on one processor.

    Blender orders some of its work by address and by thread: with either left to chance, the same
    seed gives vertices in another order, some of them off by a rounding error.
    """
    libc = ctypes.CDLL(None)
    before = libc.personality(ASK_PERSONALITY)
    if before == -1 or before & ADDR_NO_RANDOMIZE:
        return
    processors = sorted(os.sched_getaffinity(0))
    number = int(os.environ.get("POINTZOO_WORKER", "0"))
    os.sched_setaffinity(0, {processors[number % len(processors)]})
    libc.personality(ADDR_NO_RANDOMIZE)
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606


def tell(answers: int, answer: dict[str, Any]) -> None:
    """Write one answer."""
    os.write(answers, (json.dumps(answer) + "\n").encode())


def one_job(answers: int) -> int:
    """Read a job, make its object and answer; the child does all of it, the parent nothing.

    So the parent's memory is the same at every fork, and with it the addresses the child gets.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return NO_MORE_JOBS
        line += byte
    start = time.monotonic()
    error = attempt(json.loads(line))
    if error:
        tell(answers, {"ok": False, "error": error})
    else:
        tell(answers, {"ok": True, "seconds": round(time.monotonic() - start, 3)})
    return 0


def attempt(job: dict[str, Any]) -> str:
    """Make the object of a job; the error in words, empty if there was none."""
    try:
        triangles, colors = make(job["module"], job["factory"], job["seed"])
        np.savez(job["out"], triangles=triangles, colors=colors)
    except BaseException as error:  # noqa: BLE001 - third-party code may raise anything at all
        return f"{type(error).__name__}: {error}"[:500]
    return ""


def make(module: str, factory: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make one object and return ``triangles (T, 3, 3)`` and ``colors (T, 3)``."""
    clear_scene()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - Infinigen draws from the global generator
    maker = getattr(importlib.import_module(module), factory)(seed)
    made = maker.spawn_asset(0)
    maker.finalize_assets([made])
    return evaluated_triangles(made)


def clear_scene() -> None:
    """Remove every object of the start-up scene."""
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item, do_unlink=True)


def evaluated_triangles(root: Any) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of an object, its children and everything they instance, modifiers applied."""
    wanted = {root, *root.children_recursive}
    graph = bpy.context.evaluated_depsgraph_get()
    graph.update()
    triangles: list[np.ndarray] = []
    colors: list[np.ndarray] = []
    for instance in graph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner is None or owner.original not in wanted:
            continue
        add_object(instance.object, np.array(instance.matrix_world), triangles, colors)
    if not triangles:
        raise ValueError("the factory made no triangle")
    return np.concatenate(triangles), np.concatenate(colors)


def add_object(
    item: Any, matrix: np.ndarray, triangles: list[np.ndarray], colors: list[np.ndarray]
) -> None:
    """Append the triangles of one evaluated object."""
    if item.type not in {"MESH", "CURVE", "SURFACE", "META", "FONT"}:
        return
    mesh = item.to_mesh()
    if mesh is None:
        return
    mesh.calc_loop_triangles()
    total = len(mesh.loop_triangles)
    vertices = np.empty(len(mesh.vertices) * 3, dtype=np.float32)  # (V * 3,)
    corners = np.empty(total * 3, dtype=np.int32)  # (T * 3,)
    slots = np.empty(total, dtype=np.int32)  # (T,)
    mesh.vertices.foreach_get("co", vertices)
    mesh.loop_triangles.foreach_get("vertices", corners)
    mesh.loop_triangles.foreach_get("material_index", slots)
    palette = np.array([srgb(material_color(m)) for m in mesh.materials] or [srgb(GREY)])
    item.to_mesh_clear()
    if total:
        placed = vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
        triangles.append(placed[corners.reshape(-1, 3)].astype(np.float32))
        colors.append(palette[np.minimum(slots, len(palette) - 1)])


def srgb(linear: Color) -> np.ndarray:
    """Linear RGB 0..1 as sRGB 0..255."""
    value = np.clip(np.array(linear[:3], dtype=np.float64), 0.0, 1.0)
    curve = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.round(curve * 255).astype(np.uint8)


def material_color(material: Any) -> Color:
    """One linear colour for a material: its shader graph with every pattern at its middle."""
    if material is None:
        return GREY
    if not material.use_nodes or material.node_tree is None:
        return tuple(material.diffuse_color)
    for node in material.node_tree.nodes:
        if node.type == "OUTPUT_MATERIAL" and node.is_active_output:
            return socket_color(node.inputs["Surface"], (), 0) or GREY
    return GREY


def socket_color(socket: Any, groups: tuple[Any, ...], depth: int) -> Color | None:
    """The colour that reaches an input socket, or None where the graph does not tell."""
    if not socket.is_linked or depth > MAX_NODE_DEPTH:
        value = getattr(socket, "default_value", None)
        if isinstance(value, (int, float)):
            return (float(value),) * 3
        return None if value is None else tuple(value)[:3]
    link = socket.links[0]
    return node_color(link.from_node, link.from_socket, groups, depth + 1)


def node_color(node: Any, output: Any, groups: tuple[Any, ...], depth: int) -> Color | None:
    """The colour that leaves an output socket of a shader node."""
    kind = node.type
    if kind == "GROUP" and node.node_tree is not None:
        inner = [n for n in node.node_tree.nodes if n.type == "GROUP_OUTPUT"]
        named = [s for n in inner for s in n.inputs if s.identifier == output.identifier]
        return socket_color(named[0], (*groups, node), depth) if named else None
    if kind == "GROUP_INPUT" and groups:
        named = [s for s in groups[-1].inputs if s.identifier == output.identifier]
        return socket_color(named[0], groups[:-1], depth) if named else None
    if kind == "RGB" or kind == "VALUE":
        value = node.outputs[0].default_value
        return tuple(value)[:3] if kind == "RGB" else (float(value),) * 3
    if kind == "VALTORGB":
        factor = socket_color(node.inputs[0], groups, depth) if node.inputs[0].is_linked else None
        at = sum(factor) / 3 if factor else 0.5
        return tuple(node.color_ramp.evaluate(at))[:3]
    if kind in {"MIX", "MIX_RGB", "MIX_SHADER", "ADD_SHADER"}:
        return mixed_color(node, groups, depth)
    for name in ("Base Color", "Color", "Shader", "Surface"):
        if name in node.inputs:
            return socket_color(node.inputs[name], groups, depth)
    return GREY if kind.startswith("TEX_") else None


def mixed_color(node: Any, groups: tuple[Any, ...], depth: int) -> Color | None:
    """A mix of two colours by its factor (whatever the blend mode)."""
    inputs = [s for s in node.inputs if s.enabled]
    if node.type == "ADD_SHADER":
        factor, pair = GREY, inputs[:2]
    else:
        factor, pair = socket_color(inputs[0], groups, depth) or GREY, inputs[1:3]
    first, second = (socket_color(s, groups, depth) for s in pair)
    if first is None or second is None:
        return first or second
    share = min(max(factor[0], 0.0), 1.0)
    return tuple(a * (1 - share) + b * share for a, b in zip(first, second, strict=True))


if __name__ == "__main__":
    main()
