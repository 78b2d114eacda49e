"""Linear head, LoRA and full fine-tuning from pretrained weights, beside training from scratch.

    python benchmarks/rooms_methods.py ROOMS [--rooms 3 15 60] [--points 20 50] [--seeds 0 1 2]

Every method sees the same labelled rooms, or, with ``--points``, all rooms with the same few
labelled points in each (paper's Table 2c); the last step counts, nothing is chosen on the test
rooms. ``--transfer`` also tests each model on rooms of another kind. Cells that are in the JSON
already are not computed again, unless a transfer asked for is missing in them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import numpy as np
import safetensors

import pointzoo as pz
from pointzoo.cloud import PointCloud
from pointzoo.data import open_dataset
from pointzoo.finetuning.data import Subset

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "rooms_methods.json"
METHODS = (
    ("linear", "random"), ("linear", "pretrained"), ("lora", "pretrained"), ("full", "pretrained"),
    ("full", "random"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class FewPoints(Subset):
    """Clouds of which only ``points`` random points each have their label."""

    points: int
    seed: int

    def __getitem__(self, index: int) -> PointCloud:
        cloud = super().__getitem__(index)
        assert cloud.labels is not None
        generator = np.random.default_rng([self.seed, 2, int(self.rows[index])])
        chosen = generator.permutation(np.flatnonzero(cloud.labels >= 0))[: self.points]
        labels = np.full_like(cloud.labels, -1)
        labels[chosen] = cloud.labels[chosen]
        return cloud.replace(labels=labels)


def measure(
    given: argparse.Namespace, method: str, start: str, labels: dict[str, int | None], seed: int
) -> dict[str, Any]:
    train, test = (open_dataset(given.corpus, part) for part in ("train", "test"))
    rows = np.random.default_rng([seed, 1]).permutation(len(train))[: labels["rooms"]]
    labelled = Subset(train, rows)
    if labels["points"] is not None:
        labelled = FewPoints(train, rows, labels["points"], seed)
    test_rows = np.linspace(0, len(test) - 1, given.test_rooms).astype(int).tolist()
    architecture = pz.encoder_info(given.encoder).architecture
    encoder: Any = given.encoder
    if start == "random":
        trained = pz.load_encoder(given.encoder).config
        encoder = pz.create_encoder(architecture, seed=seed, **trained.to_dict())
    length = {} if method == "linear" else {"max_steps": given.steps}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = pz.finetune(
            encoder, labelled, method=method, seed=seed,
            validation_share=0.0, reads=given.reads, out=folder, **length,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        (file,) = Path(folder).glob("model.*.safetensors")
        size = file.stat().st_size / 1e6
        with safetensors.safe_open(file, framework="numpy") as stored:
            values = sum(stored.get_tensor(name).size for name in stored.keys())  # noqa: SIM118
    if method != "lora":  # there the file holds what was trained
        trained = model.network if method == "full" else model.network.head
        values = sum(parameter.numel() for parameter in trained.parameters())
    transfer = {path.name: model.evaluate(open_dataset(path)).value for path in given.transfer}
    return {
        "miou": model.evaluate(Subset(test, np.array(test_rows))).value,
        **({"transfer": transfer} if transfer else {}),
        "trained": values,
        "megabytes": round(size, 3),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms")
    parser.add_argument("--rooms", type=int, nargs="*", default=[15], help="labelled rooms")
    parser.add_argument("--points", type=int, nargs="*", default=[], help="labelled in each room")
    parser.add_argument("--transfer", type=Path, nargs="*", default=[], help="other test rooms")
    parser.add_argument("--test-rooms", type=int, default=30)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--reads", default="levels", help="what heads read: levels or point")
    parser.add_argument("--methods", nargs="+", default=["linear", "lora", "full"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    stored: dict[str, Any] = {"cells": []}
    if given.output.exists():
        stored = json.loads(given.output.read_text(encoding="utf-8"))
    words = (Path(word).name if Path(word).exists() else word for word in sys.argv[1:])
    stored["command"] = " ".join(["python benchmarks/rooms_methods.py", *words])
    shared = {key: getattr(given, key) for key in ("encoder", "test_rooms", "steps", "reads")}
    every = len(open_dataset(given.corpus, "train"))
    amounts = [{"rooms": rooms, "points": None} for rooms in given.rooms]
    amounts += [{"rooms": every, "points": points} for points in given.points]
    for seed, labels, (method, start) in itertools.product(given.seeds, amounts, METHODS):
        key = {"method": method, "weights": start, **labels, "seed": seed, **shared}
        known = [cell for cell in stored["cells"] if all(cell.get(k) == v for k, v in key.items())]
        wanted = {path.name for path in given.transfer}
        done = any(wanted <= cell.get("transfer", {}).keys() for cell in known)
        if done or method not in given.methods:
            continue
        cell = {**key, **measure(given, method, start, labels, seed)}
        stored["cells"] = [other for other in stored["cells"] if other not in known] + [cell]
        figures.write(given.output, stored)
        print(cell, flush=True)
    print(figures.lines(figures.rooms_methods(stored)))


if __name__ == "__main__":
    main()
