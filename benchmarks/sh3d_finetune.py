"""Fine-tuned accuracy on SH3D-21 from pretrained weights and from scratch, for every encoder.

    python benchmarks/sh3d_finetune.py CORPUS [--weights NAME ...] [--epochs 6] [--seeds 0 1 2]

CORPUS is the folder that `pointzoo corpus sh3d` builds. Of the five stratified folds of a seed the
first is the test set; the last epoch counts, nothing is chosen by looking at it. Everything is
trained alike, by pointzoo.tasks.supervised. Each training is a line of the JSON as soon as it has
ended; started again, the command goes on with those that are missing. An architecture in place of a
weight is trained from scratch only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import figures
import torch

from pointzoo import zoo
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.tasks.labelled import Labelled, Setting
from pointzoo.tasks.supervised import SupervisedConfig, classify, train_classifier

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "results" / "sh3d_finetune.json"
WEIGHTS = ("vit3d_tiny.dcglr_shapes", "dgcnn_small", "pct_small")
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder that `pointzoo corpus sh3d` built")
    parser.add_argument("--weights", nargs="+", default=WEIGHTS, help="registered, or folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    config = dataclasses.replace(SupervisedConfig(), epochs=options.epochs)
    settings = {**dataclasses.asdict(config), "points": options.points}
    stored = _read(options.output, settings)
    dataset = open_dataset(options.corpus)
    stored["command"] = f"python benchmarks/sh3d_finetune.py {options.corpus.name}"
    stored["machine"] = f"{platform.processor()}, torch {torch.__version__}"
    for cell in _cells(options.weights, options.seeds):
        done = [{key: row[key] for key in cell} for row in stored["cells"]]
        if {**cell, "weights": Path(cell["weights"]).name} in done:
            continue
        found = _run(cell, dataset, config, options.points)
        stored["cells"].append({**cell, "weights": Path(cell["weights"]).name, **found})
        _write(options.output, stored)
        print(json.dumps(stored["cells"][-1]), flush=True)
    print(table(stored))
    for name in dict.fromkeys(cell["weights"] for cell in stored["cells"]):
        print(figures.lines(figures.sh3d_finetune(stored, name)))


def table(stored: dict[str, Any]) -> str:
    """Return mean and standard deviation over the seeds, one line per encoder and start."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in stored["cells"]:
        groups.setdefault((row["weights"], row["start"]), []).append(100 * row["accuracy"])
    lines = []
    for (weights, start), values in sorted(groups.items()):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        mean = statistics.mean(values)
        lines.append(f"{weights:28} {start:10} {mean:5.1f} ± {spread:.1f} ({len(values)} seeds)")
    return "\n".join(lines)


def _cells(weights: list[str], seeds: list[int]) -> Iterator[dict[str, Any]]:
    for seed in seeds:
        for name in weights:
            for start in ("scratch",) if name in zoo.ARCHITECTURES else ("scratch", "pretrained"):
                yield {"weights": name, "start": start, "seed": seed}


def _run(
    cell: dict[str, Any], dataset: PointDataset, config: SupervisedConfig, points: int
) -> dict[str, Any]:
    started, seed = time.process_time(), cell["seed"]
    if cell["start"] == "pretrained":
        encoder = zoo.load_encoder(cell["weights"])
    else:
        encoder = zoo.create_encoder(zoo.encoder_info(cell["weights"]).architecture, seed=seed)
    data = Labelled.of(dataset, None, Setting(points, "none", (seed,), FOLDS))
    clouds = [encoder.preprocess(cloud) for cloud, _ in data.drawn(seed)]
    train, test = data.splits(seed)[0]
    model = train_classifier(
        encoder,
        [clouds[row] for row in train],
        torch.from_numpy(data.labels[train]),
        classes=len(data.class_names),
        config=config,
        seed=seed,
    )
    right = classify(model, [clouds[row] for row in test], config.batch_size) == data.labels[test]
    return {
        "accuracy": round(float(right.mean()), 5),
        "test_clouds": len(test),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def _read(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {"settings": settings, "cells": []}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if stored["settings"] != settings:
        raise SystemExit(f"{path} holds other settings: {stored['settings']}; choose --output")
    return stored


def _write(path: Path, stored: dict[str, Any]) -> None:
    rows = ",\n".join(f"  {json.dumps(row)}" for row in stored["cells"])
    rest = json.dumps({key: value for key, value in stored.items() if key != "cells"})
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(f'{rest[:-1]}, "cells": [\n{rows}\n]}}\n', encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
