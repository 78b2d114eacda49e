"""What pretraining is worth on labelled rooms: linear probe and training with few labels.

    python benchmarks/rooms_labels.py ROOMS --encoder NAME_OR_FOLDER [--transfer MORSE]

Every encoder is compared with the same network from random weights, seed by seed: the same rooms,
labelled points, order, crops and changes. Fractions of the training rooms (all their points
labelled) and labelled points per room (all rooms; paper's Table 2c) are trained as a whole
(``finetune``) or only a linear layer on frozen features (``probe``); every point of the test rooms
counts. The probe sees the same points of a room with every seed: seeds differ in the rooms and in
the random weights. Cells that are in the JSON already are not computed again, so that a stopped run
goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import figures
import numpy as np
import torch
from torch import Tensor

import pointzoo as pz
from pointzoo import zoo
from pointzoo.cloud import PointCloud
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.tasks.scene_probe import (
    SceneFeatures,
    fit_probe,
    sample_points,
    scene_features,
    score_probe,
    stack,
)
from pointzoo.tasks.scenes import LabelledScene, keep_labels, load_scene
from pointzoo.tasks.segmentation import (
    SegmentationConfig,
    SegmentationScore,
    evaluate_segmenter,
    train_segmenter,
)

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "rooms.json"
PER_ROOM = 1000
"""Labelled points of a training room that the probe sees where all are labelled."""

T = TypeVar("T")
Cell = dict[str, Any]


class Cached(Sequence[T]):
    """Values that are made when they are first asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make
        self._made: dict[int, T] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        if row >= self._count:
            raise IndexError(row)
        if row not in self._made:
            self._made[row] = self._make(row)
        return self._made[row]


@dataclasses.dataclass(frozen=True)
class Labels:
    """How much is labelled: a share of the rooms, or a number of points in each room."""

    rooms: float = 1.0
    points: int | None = None

    def __str__(self) -> str:
        if self.points is None:
            return f"{100 * self.rooms:g} % of rooms"
        return f"{self.points} points a room"

    def choose(self, rooms: int, seed: int) -> list[int]:
        """Return the training rooms; a larger share holds those of a smaller one."""
        order = np.random.default_rng([seed, 1]).permutation(rooms)
        return order[: max(1, round(self.rooms * rooms))].tolist()


class Bench:
    """The rooms as one encoder reads them, and the cells that can be computed on them."""

    def __init__(self, given: argparse.Namespace, source: str) -> None:
        self.source = source
        self.pretrained = zoo.load_encoder(source)
        self.config = SegmentationConfig(
            steps=given.steps, crop_points=given.crop_points, learning_rate=given.learning_rate
        )
        self.train = open_dataset(given.corpus, "train")
        tests = [("test", open_dataset(given.corpus, "test"))]
        tests += [(Path(path).name, open_dataset(path)) for path in given.transfer]
        self.tests = {name: (data, _limited(data, given.test_rooms)) for name, data in tests}
        self.classes = len(self.train.class_names)
        grid = getattr(self.pretrained.config, "grid_size", 0.05)
        self.scenes = Cached(
            len(self.train),
            lambda row: load_scene(self.train[row], self.pretrained, thin=grid / 2),
        )
        self.test_scenes = {
            name: Cached(len(rows), _loader(data, rows, self.pretrained))
            for name, (data, rows) in self.tests.items()
        }
        self._features: dict[tuple[str, int], tuple[Sequence[Any], dict[str, Any]]] = {}

    def network(self, weights: str, seed: int) -> pz.PointEncoder:
        """Return the pretrained network, or the same one with random weights."""
        if weights == "pretrained":
            return zoo.load_encoder(self.source)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return type(self.pretrained)(self.pretrained.config).eval()

    def finetune(self, weights: str, labels: Labels, seed: int) -> dict[str, SegmentationScore]:
        rows = labels.choose(len(self.scenes), seed)
        scenes = Cached(len(rows), lambda i: self._labelled(rows[i], labels, seed))
        model = train_segmenter(
            self.network(weights, seed), scenes, classes=self.classes, config=self.config, seed=seed
        )
        return {
            name: evaluate_segmenter(model, iter(scenes), self.classes)
            for name, scenes in self.test_scenes.items()
        }

    def probe(self, weights: str, labels: Labels, seed: int) -> dict[str, SegmentationScore]:
        train, tests = self._frozen(weights, seed)
        count = PER_ROOM if labels.points is None else labels.points
        rows = labels.choose(len(train), seed)
        features, known = stack([(train[row][0][:count], train[row][1][:count]) for row in rows])
        fitted = fit_probe(features, known, self.classes)
        return {
            name: score_probe(fitted, iter(scenes), self.classes) for name, scenes in tests.items()
        }

    def _labelled(self, row: int, labels: Labels, seed: int) -> LabelledScene:
        scene = self.scenes[row]
        if labels.points is None:
            return scene
        return keep_labels(scene, labels.points, np.random.default_rng([seed, row]))

    def _frozen(self, weights: str, seed: int) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return frozen features: of sampled training points by room, and of the test rooms."""
        key = (weights, seed if weights == "random" else 0)
        if key not in self._features:
            self._features.clear()  # one network after the other
            encoder = self.network(*key)

            def sample(row: int) -> tuple[Tensor, Tensor]:
                generator = np.random.default_rng([0, row])
                return sample_points(scene_features(encoder, self.train[row]), PER_ROOM, generator)

            tests = {
                name: Cached(len(rows), _featurizer(data, rows, encoder))
                for name, (data, rows) in self.tests.items()
            }
            self._features[key] = (Cached(len(self.train), sample), tests)
        return self._features[key]


def _loader(
    data: PointDataset, rows: Sequence[int], encoder: pz.PointEncoder
) -> Callable[[int], LabelledScene]:
    return lambda i: load_scene(data[rows[i]], encoder)


def _featurizer(
    data: PointDataset, rows: Sequence[int], encoder: pz.PointEncoder
) -> Callable[[int], SceneFeatures]:
    return lambda i: scene_features(encoder, data[rows[i]])


def _limited(data: PointDataset, limit: int | None) -> list[int]:
    """Return the rows of up to ``limit`` clouds, spread over the data set."""
    count = len(data) if limit is None else min(limit, len(data))
    return np.linspace(0, len(data) - 1, count).astype(int).tolist()


def cells(given: argparse.Namespace) -> Iterator[tuple[str, str, Labels, int]]:
    """Yield task, weights, labels and seed of every cell, the most telling first."""
    amounts = [Labels(rooms=share) for share in given.fractions]
    amounts += [Labels(points=count) for count in given.points]
    for seed in given.seeds:
        for task in given.tasks:
            order = given.weights  # features of one network stay in memory
            pairs = (
                [(w, a) for w in order for a in amounts]
                if task == "probe"
                else [(w, a) for a in amounts for w in order]
            )
            for weights, amount in pairs:
                yield task, weights, amount, seed


def run(given: argparse.Namespace, stored: dict[str, Any]) -> None:
    deadline = time.perf_counter() + 60 * given.minutes_cap
    for source in given.encoder:
        bench = Bench(given, source)
        for task, weights, labels, seed in cells(given):
            key = {
                "task": task,
                "encoder": Path(source).name,
                "weights": weights,
                "labels": str(labels),
                "seed": seed,
                "settings": _settings(given, task, bench),
            }
            if any(all(cell[k] == v for k, v in key.items()) for cell in stored["cells"]):
                continue
            if time.perf_counter() > deadline:
                print("minutes are up; the same command goes on")
                return
            start = time.perf_counter()
            scores = getattr(bench, task)(weights, labels, seed)
            cell = {
                **key,
                "scores": {name: dataclasses.asdict(score) for name, score in scores.items()},
                "seconds": round(time.perf_counter() - start, 1),
            }
            stored["cells"].append(cell)
            figures.write(given.output, stored)
            found = ", ".join(f"{n} {100 * s.miou:.1f}" for n, s in scores.items())
            print(
                f"{task} {weights} {labels} seed {seed}: {found} ({cell['seconds']} s)", flush=True
            )


def _settings(given: argparse.Namespace, task: str, bench: Bench) -> dict[str, Any]:
    settings: dict[str, Any] = {"test_rooms": given.test_rooms}
    if task == "finetune":
        settings |= dataclasses.asdict(bench.config)
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def tables(stored: dict[str, Any]) -> str:
    """Return the mean and spread of mIoU per task, encoder and test set, as Markdown."""
    groups: dict[tuple[str, str, str], dict[str, dict[str, dict[int, float]]]] = {}
    for cell in stored["cells"]:
        for test, score in cell["scores"].items():
            group = groups.setdefault((cell["task"], cell["encoder"], test), {})
            row = group.setdefault(cell["labels"], {"random": {}, "pretrained": {}})
            row[cell["weights"]][cell["seed"]] = 100 * score["miou"]
    lines = []
    for (task, encoder, test), rows in groups.items():
        lines += [f"\n{task}, {encoder}, mIoU on {test}\n"]
        lines += ["| labels | random | pretrained | difference |", "|---|---|---|---|"]
        for labels, found in rows.items():
            both = sorted(found["random"].keys() & found["pretrained"].keys())
            pairs = [found["pretrained"][seed] - found["random"][seed] for seed in both]
            columns = [_spread([*found[w].values()]) for w in ("random", "pretrained")]
            lines.append(f"| {labels} | {columns[0]} | {columns[1]} | {_spread(pairs)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def describe(data: PointDataset) -> dict[str, Any]:
    """Say which classes the test rooms have."""
    counts = np.zeros(len(data.class_names), dtype=np.int64)
    for row in range(len(data)):
        cloud: PointCloud = data[row]
        assert cloud.labels is not None
        counts += np.bincount(cloud.labels[cloud.labels >= 0], minlength=len(counts))
    return {"rooms": len(data), "points": dict(zip(data.class_names, counts.tolist(), strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="Folder of rooms with the splits train and test.")
    parser.add_argument("--encoder", nargs="+", required=True, help="Names or weight folders.")
    parser.add_argument("--transfer", nargs="*", default=[], help="Other folders of rooms.")
    parser.add_argument("--tasks", nargs="+", default=["probe", "finetune"])
    parser.add_argument("--weights", nargs="+", default=["random", "pretrained"])
    parser.add_argument("--fractions", nargs="*", type=float, default=[0.05, 0.01, 0.2, 1.0])
    parser.add_argument("--points", nargs="*", type=int, default=[20, 50, 100, 200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--test-rooms", type=int, help="At most so many of each test set.")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--crop-points", type=int, default=12_000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--minutes-cap", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    stored: dict[str, Any] = {"cells": []}
    if given.output.exists():
        stored = json.loads(given.output.read_text(encoding="utf-8"))
    words = (Path(word).name if Path(word).exists() else word for word in sys.argv[1:])
    stored["command"] = " ".join(["python benchmarks/rooms_labels.py", *words])
    stored["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    stored["test"] = describe(open_dataset(given.corpus, "test"))
    run(given, stored)
    figures.write(given.output, stored)
    print(tables(stored))
    for name in (Path(source).name for source in given.encoder):
        print(figures.lines(figures.rooms_labels(stored, name)))


if __name__ == "__main__":
    main()
