"""MSC against frame matching (PointContrast): the same rooms, encoder and number of seconds.

Both sides train a new encoder with optimizer, voxels and pairs of the ``cpu`` presets; one
reads whole scans, the other the matched pairs of the RGB-D frames that the scans were made from.

    pointzoo corpus rooms FURNITURE -o rooms_frames --train 40 --test 16 --frames 24
    python benchmarks/msc_vs_pointcontrast.py --data rooms_frames [--seconds 300]

It prints JSON: per side

- ``rooms_per_second``: rooms in one pass over the data, divided by the time of that pass (a pass of
  frame matching goes through every matched pair of frames, as PointContrast's epochs do);
- ``coverage_per_second``: the share of a room's surface (occupied 10 cm cells) that the views of a
  sample show together, in rooms per second;
- ``probe_miou``: linear probe on frozen point features, fitted on rooms of ``--probe-data`` (DATA
  where it is not given) and scored on its rooms for tests; the same for random weights;
- ``megabytes``: what is read from disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointzoo.data import PointDataset, open_dataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.pretrain import msc, pointcontrast
from pointzoo.pretrain.frame_pairs import FramePairs, open_frame_pairs
from pointzoo.pretrain.loop import train
from pointzoo.pretrain.scene_objective import SceneObjective
from pointzoo.tasks.scene_probe import (
    fit_probe,
    sample_points,
    scene_features,
    score_probe,
    stack,
)
from pointzoo.zoo import load_encoder, start_encoder

CELL = 0.1


def occupied(coords: Any) -> int:
    """Number of 10 cm cells with a point."""
    return len(np.unique(np.floor(np.asarray(coords) / CELL), axis=0))


def make(side: str, encoder: PointEncoder, **changes: Any) -> SceneObjective:
    """One of the two trainers, which differ in nothing but how views come about."""
    if side == "pointcontrast":
        config = dataclasses.replace(pointcontrast.PRESETS["cpu"], **changes)
        return pointcontrast.PointContrast(encoder, config)
    preset = msc.PRESETS["cpu"]
    views = dataclasses.replace(preset.views, radius=None)  # whole rooms
    return msc.MSC(encoder, dataclasses.replace(preset, views=views, **changes))


def coverage(side: str, data: PointDataset, rooms: PointDataset, samples: int = 24) -> float:
    """Mean share of a room that the two views of a sample show."""
    random, shares = np.random.default_rng(0), []
    objective = make(side, start_encoder("sparseunet_test", grid_size=0.05))
    views = dataclasses.replace(objective.config.views, scale=(1.0, 1.0))
    objective.config = dataclasses.replace(objective.config, views=views)
    for row in random.permutation(len(data))[:samples]:
        room = row
        if isinstance(data, FramePairs):
            room = rooms.names.index(data.pairs[row][0])
        query, key = objective.prepare(data[int(row)], random)
        seen = occupied(np.concatenate([query.origin, key.origin]))
        shares.append(min(seen / occupied(rooms[int(room)].coords), 1.0))
    return float(np.mean(shares))


def seconds_per_step(side: str, data: PointDataset, settings: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        encoder = start_encoder(settings["encoder"], grid_size=0.05)
        objective = make(
            side, encoder, batch_size=settings[side], max_steps=6, log_steps=1,
            health_minutes=1e9, checkpoint_minutes=1e9,
        )  # fmt: skip
        train(objective, data, Path(folder))
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").open()]
    rates = [line["clouds_per_second"] for line in lines if line["kind"] == "step"]
    return settings[side] / float(np.median(rates[1:]))


def train_for(
    side: str, data: PointDataset, out: Path, settings: dict[str, Any]
) -> dict[str, float]:
    steps = max(int(settings["seconds"] / seconds_per_step(side, data, settings)), 2)
    encoder = start_encoder(settings["encoder"], grid_size=0.05)
    objective = make(
        side, encoder, batch_size=settings[side], max_steps=steps, log_steps=min(steps, 10),
        health_minutes=1e9, checkpoint_minutes=1e9,
    )  # fmt: skip
    result = train(objective, data, out)
    return {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "samples_per_second": result.steps * settings[side] / result.seconds,
        **{k: round(v, 3) for k, v in objective_health(out).items()},
    }


def objective_health(out: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").open()]
    last = [line for line in lines if line["kind"] == "step"][-1]
    return {key: last[key] for key in ("positive_cosine", "negative_cosine", "point_rank")}


def probe(encoder: PointEncoder, folder: Path, rooms: int, points: int, tests: int) -> float:
    """Mean IoU of a linear probe in percent."""
    random = np.random.default_rng(0)
    parts = {name: open_dataset(folder, name) for name in ("train", "test")}
    classes = len(parts["train"].class_names)
    chosen = [
        sample_points(scene_features(encoder, parts["train"][row]), points, random)
        for row in range(min(rooms, len(parts["train"])))
    ]
    fitted = fit_probe(*stack(chosen), classes)
    scenes = (
        scene_features(encoder, parts["test"][row]) for row in range(min(tests, len(parts["test"])))
    )
    return 100.0 * score_probe(fitted, scenes, classes).miou


def megabytes(folder: Path, side: str) -> float:
    files = (folder / "frames").glob("*") if side == "pointcontrast" else folder.glob("*.npy")
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--probe-data", type=Path, help="Rooms for the probe, if others.")
    parser.add_argument("--encoder", default="sparseunet14")
    parser.add_argument("--rooms-of-a-step", type=int, default=2)
    parser.add_argument("--pairs-of-a-step", type=int, default=8)
    parser.add_argument("--probe-rooms", type=int, default=40)
    parser.add_argument("--probe-points", type=int, default=500)
    parser.add_argument("--probe-tests", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=Path, help="Keep runs and weights here.")
    options = parser.parse_args()
    settings = {
        "encoder": options.encoder, "seconds": options.seconds,
        "msc": options.rooms_of_a_step, "pointcontrast": options.pairs_of_a_step,
    }  # fmt: skip
    rooms = open_dataset(options.data, "train")
    started = time.perf_counter()
    pairs = open_frame_pairs([options.data])
    found: dict[str, Any] = {
        "rooms": len(rooms),
        "pairs_of_frames": len(pairs),
        "seconds_to_match_frames": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "seconds": options.seconds,
    }
    untrained = start_encoder(options.encoder, grid_size=0.05)
    probing = (options.probe_data or options.data, options.probe_rooms, options.probe_points,
               options.probe_tests)  # fmt: skip
    found["random"] = {"probe_miou": round(probe(untrained, *probing), 2)}
    for side, data in (("msc", rooms), ("pointcontrast", pairs)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.runs or Path(temporary)) / side
            facts: dict[str, Any] = train_for(side, data, folder, settings)
            trained = load_encoder(folder / "weights")
        rate = facts["samples_per_second"]
        facts["rooms_per_second"] = rate * len(rooms) / len(data)
        facts["coverage_per_sample"] = coverage(side, data, rooms)
        facts["coverage_per_second"] = rate * facts["coverage_per_sample"]
        facts["probe_miou"] = probe(trained, *probing)
        facts["megabytes"] = megabytes(options.data, side)
        found[side] = {key: round(value, 4) for key, value in facts.items()}
    for key in ("rooms_per_second", "coverage_per_second"):
        ratio = found["msc"][key] / found["pointcontrast"][key]
        found[f"{key}_ratio"] = round(ratio, 2) if math.isfinite(ratio) else None
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
