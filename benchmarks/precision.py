"""What fewer bits cost in accuracy and save in time: linear probes on frozen features, on the CPU.

    python benchmarks/precision.py OBJECTS ROOMS

OBJECTS is the folder that `pointzoo corpus sh3d` builds, ROOMS that of `pointzoo corpus rooms`. The
same clouds are described in PyTorch in float32 and under bfloat16 autocast, and by the exported
graph in float32 and with its constant matrices in int8 (ONNX Runtime's dynamic quantisation).
Objects are classified by a linear SVM on scene features (cross-validation), points of rooms by
logistic regression on point features (trained on some rooms, tested on others, each thinned at
random). Seconds are those of the processor for one cloud with one thread, preprocessing included:
median, smallest and largest of interleaved repeats.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import interleaved

import pointzoo as pz
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data import open_dataset
from pointzoo.onnx_export import onnx_inputs
from pointzoo.onnx_export.check import session
from pointzoo.tasks.probe import Subject, probe
from pointzoo.tasks.scene_probe import (
    SceneFeatures,
    fit_probe,
    sample_points,
    score_probe,
    stack,
)

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "precision.json"
OBJECTS, ROOMS = "vit3d_tiny.dcglr_shapes", "sparseunet14.msc_rooms"
PER_ROOM = 1000
"""Points of a training room that the probe sees."""

Describe = Callable[[PointCloud], tuple[FloatArray, FloatArray]]
"""From a cloud to point (N, C) and scene (D,) features."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=Path)
    parser.add_argument("rooms", type=Path)
    parser.add_argument("--encoders", nargs=2, default=(OBJECTS, ROOMS))
    parser.add_argument("--seeds", type=int, default=2, help="of objects")
    parser.add_argument("--points", type=int, nargs=2, default=(1024, 40_000), help="of each cloud")
    parser.add_argument("--use", type=int, nargs=2, default=(6, 3), help="rooms to train and test")
    parser.add_argument("--repeats", type=int, default=15, help="of the timing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for weights, corpus, score, points in zip(
        options.encoders,
        (options.objects, options.rooms),
        (classify_objects, segment_rooms),
        options.points,
        strict=True,
    ):
        with tempfile.TemporaryDirectory() as folder:
            found = list(candidates(weights, Path(folder)))
        rows = [{"kind": kind, "megabytes": size} for kind, size, _ in found]
        describes = [describe for _, _, describe in found]
        cloud = drawn(open_dataset(corpus)[0], points, 0)
        runs = [functools.partial(describe, cloud) for describe in describes]
        for row, describe, seconds in zip(
            rows, describes, interleaved(runs, options.repeats), strict=True
        ):
            row |= {"seconds": seconds, **score(describe, corpus, points, options)}
            print(row, flush=True)
        parts.append({"weights": weights, "data": corpus.name, "points": points, "rows": rows})
    words = [options.objects.name, options.rooms.name, *sys.argv[3:]]
    stored = {
        "command": " ".join(["python benchmarks/precision.py", *words]),
        "machine": f"{platform.machine()}, one thread",
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
        "parts": parts,
    }
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def candidates(weights: str, folder: Path) -> Iterator[tuple[str, float, Describe]]:
    """Yield name, megabytes of weights in memory, and the features of each number type."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    encoder = pz.load_encoder(weights)
    size = 4e-6 * sum(parameter.numel() for parameter in encoder.parameters())

    def exact(cloud: PointCloud) -> tuple[FloatArray, FloatArray]:
        found = encoder.extract(cloud)
        return found.point, found.scene

    def rough(cloud: PointCloud) -> tuple[FloatArray, FloatArray]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return exact(cloud)

    def by_graph(path: Path) -> Describe:
        runner = session(path.read_bytes(), threads=1)
        return lambda cloud: tuple(runner.run(["point", "scene"], onnx_inputs(encoder, cloud)))

    yield "PyTorch float32", size, exact
    yield "PyTorch bfloat16", size, rough
    whole, small = folder / "float32.onnx", folder / "int8.onnx"
    pz.export_onnx(weights, whole)
    yield "ONNX float32", whole.stat().st_size / 1e6, by_graph(whole)
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    yield "ONNX int8", small.stat().st_size / 1e6, by_graph(small)


def drawn(cloud: PointCloud, points: int, seed: int) -> PointCloud:
    """Return up to ``points`` random points of a cloud."""
    chosen = np.random.default_rng(seed).permutation(len(cloud))[:points]
    return cloud.select(np.sort(chosen))


def classify_objects(describe: Describe, corpus: Path, points: int, options: Any) -> dict[str, Any]:
    """Return the accuracy of a linear SVM on scene features, by seed and fold."""
    subject = Subject("", lambda clouds, _: np.stack([describe(cloud)[1] for cloud in clouds]))
    seeds = tuple(range(options.seeds))
    (result,) = probe(subject, open_dataset(corpus), seeds=seeds, points=points)
    return {"metric": "accuracy", "score": result.mean, "folds": list(map(list, result.accuracy))}


def segment_rooms(describe: Describe, corpus: Path, points: int, options: Any) -> dict[str, Any]:
    """Return the mean IoU of logistic regression on point features."""

    def features(split: str, count: int) -> Iterator[SceneFeatures]:
        rooms = open_dataset(corpus, split)
        for row in range(count):
            cloud = drawn(rooms[row], points, row)
            rows = torch.from_numpy(describe(cloud)[0])
            yield SceneFeatures(rows, torch.arange(len(rows)), torch.tensor(cloud.labels))

    train, test = options.use
    classes = len(open_dataset(corpus, "train").class_names)
    parts = [
        sample_points(scene, PER_ROOM, np.random.default_rng(row))
        for row, scene in enumerate(features("train", train))
    ]
    fitted = fit_probe(*stack(parts), classes)
    score = score_probe(fitted, features("test", test), classes)
    return {"metric": "mIoU", "score": float(score.miou)}


if __name__ == "__main__":
    main()
