"""Runs inside Blender's Python: the visible meshes of one file as triangles with colours.

Usage: ``python morse_worker.py FILE.blend OUT.npz``. The file holds ``triangles (T, 3, 3)`` in
metres, ``colors (T, 3)`` uint8 sRGB, ``owner (T,)`` and ``names (O,)``, the objects by name.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import bpy
import numpy as np


def main(source: str, target: str) -> None:
    """Open a file and write its triangles."""
    bpy.ops.wm.open_mainfile(filepath=source)
    shared = importlib.import_module("infinigen_worker")  # lies beside this file
    graph = bpy.context.evaluated_depsgraph_get()
    triangles: list[np.ndarray] = []
    colors: list[np.ndarray] = []
    owner: list[np.ndarray] = []
    names: list[str] = []
    for item in sorted(bpy.data.objects, key=lambda item: item.name):
        if item.hide_render or item.hide_viewport:
            continue
        before = len(triangles)
        shared.add_object(item.evaluated_get(graph), world(item), triangles, colors)
        if len(triangles) > before:
            owner.append(np.full(len(triangles[-1]), len(names), dtype=np.int64))
            names.append(item.name)
    np.savez(
        target,
        triangles=np.concatenate(triangles),
        colors=np.concatenate(colors),
        owner=np.concatenate(owner),
        names=np.array(names),
    )


def world(item: Any) -> np.ndarray:
    """(4, 4) matrix of an object."""
    return np.array(item.matrix_world)


if __name__ == "__main__":
    main(*sys.argv[1:])
