"""What pretraining is worth for instance segmentation of rooms.

    python benchmarks/rooms_instances.py ROOMS --encoder NAME_OR_FOLDER ... [--seeds 0 1 2]

PointGroup is trained as a whole from the weights of every encoder and from random weights of the
first one's network: for the same seed on the same rooms, crops and changes in the same order. AP,
AP50 and AP25 (ScanNet's rules) are those of the test rooms after the last step. Cells that are in
the JSON already are not computed again, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch

import pointzoo as pz
from pointzoo import zoo
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.finetuning.api import finetune

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "rooms_instances.json"
SCRATCH = "scratch"
FIGURES = ("ap", "ap50", "ap25")


@dataclass(frozen=True)
class Some:
    """Some rooms of a data set."""

    data: PointDataset
    rows: tuple[int, ...]
    labels: None = None

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.data.names[row] for row in self.rows)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.data.class_names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> pz.PointCloud:
        return self.data[self.rows[index]]


def some(data: PointDataset, limit: int | None) -> Some:
    """Return up to ``limit`` rooms, spread over the data set."""
    count = len(data) if limit is None else min(limit, len(data))
    return Some(data, tuple(np.linspace(0, len(data) - 1, count).astype(int).tolist()))


def start(weights: str, like: str, seed: int) -> str | pz.PointEncoder:
    """Return the name of pretrained weights, or random ones of the same network."""
    if weights != SCRATCH:
        return weights
    encoder = zoo.load_encoder(like)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return type(encoder)(encoder.config).eval()


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "max_steps": given.steps,
        "crop_points": given.crop_points,
        "learning_rate": given.learning_rate,
        "encoder_rate": given.encoder_rate,
        "class_weights": given.class_weights,
        "radius": given.radius,
        "score": given.score,
    }


def cells(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    for seed in given.seeds:
        for weights in (*given.encoder, SCRATCH):
            yield weights, seed


def run(given: argparse.Namespace, stored: dict[str, Any]) -> None:
    deadline = time.perf_counter() + 60 * given.minutes_cap
    train, test = (
        some(open_dataset(given.corpus, "train"), given.train_rooms),
        some(open_dataset(given.corpus, "test"), given.test_rooms),
    )
    for weights, seed in cells(given):
        key = {
            "weights": Path(weights).name,
            "seed": seed,
            "rooms": {"train": len(train), "test": len(test)},
            "settings": settings_of(given),
        }
        if any(all(cell[k] == v for k, v in key.items()) for cell in stored["cells"]):
            continue
        if time.perf_counter() > deadline:
            print("minutes are up; the same command goes on")
            return
        begin = time.process_time()
        model = finetune(
            start(weights, given.encoder[0], seed),
            train,
            task="instance",
            method="full",
            validation_share=0.0,
            seed=seed,
            **settings_of(given),
        )
        trained = time.process_time()
        score = model.evaluate(test)
        cell = {
            **key,
            "values": dict(score.values),
            "per_class": {name: list(values) for name, values in score.per_class.items()},
            "train_cpu_seconds": round(trained - begin, 1),
            "test_cpu_seconds": round(time.process_time() - trained, 1),
        }
        stored["cells"].append(cell)
        figures.write(given.output, stored)
        found = ", ".join(f"{name} {100 * score.values[name]:.1f}" for name in FIGURES)
        seconds = f"{cell['train_cpu_seconds']} + {cell['test_cpu_seconds']}"
        print(f"{key['weights']} seed {seed}: {found} ({seconds} s of CPU)", flush=True)


def table(stored: dict[str, Any]) -> str:
    """Return the mean and spread over seeds, and AP50 over scratch seed by seed, as Markdown."""
    groups: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for cell in stored["cells"]:
        setting = json.dumps([cell["rooms"], cell["settings"]])
        group = groups.setdefault(setting, {})
        group.setdefault(cell["weights"], {})[cell["seed"]] = cell["values"]
    lines = []
    for setting, rows in groups.items():
        lines += [f"\n{setting}\n", "| weights | AP | AP50 | AP25 | AP50 - scratch |"]
        lines += ["|---|---|---|---|---|"]
        scratch = rows.get(SCRATCH, {})
        for weights, seeds in rows.items():
            columns = [spread([v[name] for v in seeds.values()]) for name in FIGURES]
            both = sorted(seeds.keys() & scratch.keys()) if weights != SCRATCH else []
            gain = spread([seeds[s]["ap50"] - scratch[s]["ap50"] for s in both])
            lines.append(f"| {weights} | {' | '.join(columns)} | {gain} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="Folder of rooms with the splits train and test.")
    parser.add_argument("--encoder", nargs="+", required=True, help="Names or weight folders.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train-rooms", type=int, help="At most so many.")
    parser.add_argument("--test-rooms", type=int, help="At most so many.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop-points", type=int, default=20_000)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--encoder-rate", type=float, help="default: as pz.finetune chooses")
    parser.add_argument("--class-weights", default="sqrt_inverse", help="or none")
    parser.add_argument("--radius", type=float, default=0.05)
    parser.add_argument("--score", default="probability", help="probability or learned")
    parser.add_argument("--minutes-cap", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    stored: dict[str, Any] = {"cells": []}
    if given.output.exists():
        stored = json.loads(given.output.read_text(encoding="utf-8"))
    words = (Path(word).name if Path(word).exists() else word for word in sys.argv[1:])
    stored["command"] = " ".join(["python benchmarks/rooms_instances.py", *words])
    stored["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    stored["class_names"] = list(open_dataset(given.corpus, "test").class_names)
    run(given, stored)
    figures.write(given.output, stored)
    print(table(stored))
    print(figures.lines(figures.rooms_instances(stored)))


if __name__ == "__main__":
    main()
