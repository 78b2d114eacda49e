"""Linear head, LoRA and full fine-tuning from pretrained weights, beside training from scratch.

    python benchmarks/rooms_methods.py ROOMS [--rooms 3 15 60] [--steps 240] [--seeds 0 1 2]

Every method sees the same labelled rooms; the last step counts, nothing is chosen on the test
rooms. Cells that are in the JSON already are not computed again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import figures
import numpy as np
import safetensors

import pointzoo as pz
from pointzoo.data import open_dataset
from pointzoo.finetuning.data import Subset

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "rooms_methods.json"
METHODS = (
    ("linear", "random"), ("linear", "pretrained"), ("lora", "pretrained"), ("full", "pretrained"),
    ("full", "random"),
)  # fmt: skip


def measure(
    given: argparse.Namespace, method: str, start: str, rooms: int, seed: int
) -> dict[str, Any]:
    train, test = (open_dataset(given.corpus, part) for part in ("train", "test"))
    rows = np.random.default_rng([seed, 1]).permutation(len(train))[:rooms].tolist()
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
            encoder, Subset(train, np.array(rows)), method=method, seed=seed,
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
    score = model.evaluate(Subset(test, np.array(test_rows)))
    return {
        "miou": score.value,
        "trained": values,
        "megabytes": round(size, 3),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms")
    parser.add_argument("--rooms", type=int, nargs="+", default=[15], help="labelled rooms")
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
    wanted = itertools.product(given.seeds, given.rooms, METHODS)
    for seed, rooms, (method, start) in wanted:
        key = {"method": method, "weights": start, "rooms": rooms, "seed": seed, **shared}
        done = any(all(cell[k] == v for k, v in key.items()) for cell in stored["cells"])
        if done or method not in given.methods:
            continue
        stored["cells"].append({**key, **measure(given, method, start, rooms, seed)})
        figures.write(given.output, stored)
        print(stored["cells"][-1], flush=True)
    print(figures.lines(figures.rooms_methods(stored)))


if __name__ == "__main__":
    main()
