"""The JSON of a benchmark: how it is written, and the figures in it by the names that cards use.

The benchmarks print them as ``NAME: VALUE``, which `pointzoo card build` reads; the scripts that
release a weight write them into its card.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Stored = dict[str, Any]


def rooms_labels(stored: Stored, encoder: str) -> dict[str, str]:
    """Return mIoU of every task, amount of labels and test set, over the seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for cell in stored["cells"]:
        if cell["encoder"] == encoder:
            for test, score in cell["scores"].items():
                name = f"mIoU on {test}, {cell['task']}, {cell['labels']}, {cell['weights']}"
                values[name].append(score["miou"])
    return _spreads(values)


def rooms_methods(stored: Stored) -> dict[str, str]:
    """Return mIoU of every way of fine-tuning, amount of labels and test set, over the seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for cell in stored["cells"]:
        what = f"pz.finetune {cell['method']}, {labels_of(cell)}, {cell['weights']}"
        for test, miou in {"test": cell["miou"], **cell.get("transfer", {})}.items():
            values[f"mIoU on {test}, {what}"].append(miou)
    return _spreads(values)


def labels_of(cell: Stored) -> str:
    """Say how much was labelled for a cell of rooms_methods.json."""
    if cell.get("points"):
        return f"{_count(cell['points'], 'point')} a room"
    return _count(cell["rooms"], "room")


def rooms_instances(stored: Stored) -> dict[str, str]:
    """Return AP50 of instance segmentation from every start, over the seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for cell in stored["cells"]:
        name = f"AP50 of instances on test, {cell['rooms']['train']} rooms, {cell['weights']}"
        values[name].append(cell["values"]["ap50"])
    return _spreads(values)


def sh3d_finetune(stored: Stored, weights: str) -> dict[str, str]:
    """Return the accuracy after training with labels, from the weights and from scratch."""
    values: dict[str, list[float]] = defaultdict(list)
    for start in ("pretrained", "scratch"):
        for cell in stored["cells"]:
            if (cell["weights"], cell["start"]) == (weights, start):
                name = f"SH3D-21 accuracy, {weights.split('.')[0]} trained with labels, {start}"
                values[name].append(cell["accuracy"])
    return _spreads(values)


def lines(figures: dict[str, str]) -> str:
    """Return what `pointzoo card build` reads."""
    return "\n".join(f"{name}: {value}" for name, value in figures.items())


def write(path: Path, stored: Stored) -> None:
    """Write the JSON of a benchmark; the file is replaced once the new one is whole."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _spreads(values: dict[str, list[float]]) -> dict[str, str]:
    return {name: spread(found) for name, found in values.items()}


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation in per cent, with the number of seeds."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f} %{deviation} ({_count(len(values), 'seed')})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
