"""Exported encoders against PyTorch: how far apart, and how fast, interleaved in one run.

    python benchmarks/onnx_export.py [NAME ...] [--repeats 9] [--output FILE]

The difference is the largest over point and scene features of ten clouds, as every export measures
it. The time is that of one cloud with one thread: for object encoders from the points to the
features, for SparseUNet the network alone, given voxels and kernel maps. Seconds are those of the
processor; of all repeats the median, the smallest and the largest are kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timing import interleaved

import pointzoo as pz
from pointzoo.batch import PointBatch
from pointzoo.encoders.sparse_unet import SparseUNet
from pointzoo.onnx_export import onnx_inputs
from pointzoo.onnx_export.check import session, sheet
from pointzoo.zoo import start_encoder

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "onnx.json"
NAMES = (
    "vit3d_tiny.dcglr_shapes",
    "vit3d_small",
    "dgcnn",
    "pct",
    "sparseunet14.msc_rooms",
    "sparseunet34",
)
OBJECT, SCENE = 1024, 20_000
"""Points of the cloud that is timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="what `pointzoo export` takes")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.names:
        rows.append(measure(name, options.repeats))
        print(rows[-1], flush=True)
    stored = {
        "command": " ".join(["python benchmarks/onnx_export.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, one thread",
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
        "rows": rows,
    }
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Export an encoder, and time it in PyTorch and in ONNX Runtime."""
    encoder = start_encoder(name)
    with tempfile.TemporaryDirectory() as folder:
        file = pz.export_onnx(name, Path(folder) / "model.onnx")
        runner = session(file.path.read_bytes(), threads=1)
    voxels = isinstance(encoder, SparseUNet)
    cloud = sheet(SCENE, encoder.config.grid_size) if voxels else sheet(OBJECT, 0.02)
    given = onnx_inputs(encoder, cloud)
    batch = PointBatch.collate(*([part] for part in encoder.preprocess(cloud)))
    geometry = encoder.geometry(batch) if voxels else None

    def in_torch() -> None:
        with torch.inference_mode():
            seen = (
                batch if voxels else PointBatch.collate(*([p] for p in encoder.preprocess(cloud)))
            )
            encoder(seen, geometry=geometry)

    times = interleaved([in_torch, lambda: runner.run(["point", "scene"], given)], repeats)
    found = file.agreement
    return {
        "name": name,
        "megabytes": file.size / 1e6,
        "difference": found.difference,
        "largest": found.largest,
        "tied": found.tied,
        "points": len(cloud),
        "torch": times[0],
        "onnx": times[1],
    }


if __name__ == "__main__":
    main()
