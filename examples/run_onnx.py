"""Run an exported encoder with numpy and ONNX Runtime alone: no PyTorch, no pointzoo.

pointzoo export vit3d_tiny.dcglr_shapes -o object.onnx
pointzoo export sparseunet14.msc_rooms -o scene.onnx
python run_onnx.py object.onnx
python run_onnx.py scene.onnx --cloud scan.npy

The file says what it reads. Object encoders take points as they are; SparseUNet takes voxels and
who is whose neighbour, which `voxels_of` and the functions below it work out.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
COLUMNS = {"colors": slice(3, 6), "normals": slice(6, 9)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="what `pointzoo export` wrote")
    parser.add_argument("--cloud", type=Path, help=".npy: x y z, then r g b (0..1), then normals")
    parser.add_argument("--out", type=Path, default=Path("features.npz"))
    options = parser.parse_args(arguments)

    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    cloud = np.load(options.cloud) if options.cloud else wavy_floor()
    inputs = points_of(cloud, about)
    if about["preprocessing"] == "outside":
        inputs = voxels_of(inputs, json.loads(about["config"]))
    point, scene = session.run(["point", "scene"], inputs)

    print(f"{about['architecture']}, weights under {about.get('license', 'no licence')}")
    print(f"{len(point):,} points, {point.shape[1]} channels each")
    print(f"one vector for the whole cloud: {scene.shape}")
    np.savez(options.out, point=point, scene=scene)


def wavy_floor() -> Array:
    """Return 5,000 points of a floor of 2 by 2 metres with colours and normals."""
    xy = np.random.default_rng(0).uniform(0.0, 2.0, size=(5000, 2))
    z = 0.1 * np.sin(4.0 * xy[:, :1])
    colors, normals = np.full((5000, 3), 0.5), np.tile([0.0, 0.0, 1.0], (5000, 1))
    return np.hstack([xy, z, colors, normals])


def points_of(cloud: Array, about: Mapping[str, str]) -> dict[str, Array]:
    """Return coordinates and the channels that the encoder reads, or what stands for them."""
    inputs: dict[str, Array] = {"coords": cloud[:, :3].astype(np.float64)}
    for channel in json.loads(about["channels"])[1:]:
        there = cloud[:, COLUMNS[channel["name"]]]
        missing = np.full((len(cloud), 3), channel["fill"])
        inputs[channel["name"]] = (there if there.shape[1] else missing).astype(np.float32)
    return inputs


def voxels_of(inputs: Mapping[str, Array], config: Mapping[str, Any]) -> dict[str, Array]:
    """Return voxels and kernel maps: what SparseUNet computes with."""
    if config["point_features"] != "nearest" or config["normalize"] != "center":
        raise SystemExit("This example is for the nearest voxel and metres.")
    coords, size = inputs["coords"], config["grid_size"]
    cells = np.floor((coords - coords.min(axis=0) + size / 2) / size).astype(np.int64)
    voxels, voxel = np.unique(cells, axis=0, return_inverse=True)
    found: dict[str, Array] = {"voxel": voxel.reshape(-1)}
    if config["channels"]:
        values = np.hstack([inputs[name] for name in config["channels"]])
        sums = np.zeros((len(voxels), values.shape[1]))
        np.add.at(sums, found["voxel"], values)
        found["voxels"] = (sums / np.bincount(found["voxel"])[:, None]).astype(np.float32)
    found["neighbors_0"] = neighbours(voxels, 5)
    for level in range(len(config["layers"]) // 2):
        eighth = (voxels & 1) @ [4, 2, 1]
        voxels, parent = np.unique(voxels >> 1, axis=0, return_inverse=True)
        found[f"up_{level}"] = 8 * parent.reshape(-1) + eighth
        found[f"neighbors_{level + 1}"] = neighbours(voxels, 3)
    return found


def neighbours(voxels: Array, size: int) -> Array:
    """Return the rows of the voxels in the cube of ``size`` around each, -1 where there is none."""
    reach = size // 2
    spans = voxels.max(axis=0) + size  # of the coordinates that are looked up
    weights = np.array([spans[1] * spans[2], spans[2], 1])
    keys = (voxels + reach) @ weights  # ascending, as np.unique sorts by x, y, z
    steps = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    wanted = keys[:, None] + steps @ weights
    rows = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    table: Array = np.where(keys[rows] == wanted, rows, -1)
    return table


if __name__ == "__main__":
    main()
