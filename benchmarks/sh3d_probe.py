"""Everything that docs/results.md says about features on SH3D-21, in one command.

    python benchmarks/sh3d_probe.py CORPUS [--weights NAME] [--only PART ...]

CORPUS is the folder that `pointzoo corpus sh3d` builds. Each part replaces its own section of
docs/results/sh3d21.json and leaves the others as they are, with the command, the commit and the
machine that produced it; `python benchmarks/render_results.py` turns the file into docs/results.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointzoo import zoo
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.metrics import effective_rank, feature_spectrum, feature_std
from pointzoo.tasks.classifiers import CLASSIFIERS
from pointzoo.tasks.descriptors import DESCRIPTORS, describe_blocks
from pointzoo.tasks.evaluation import ProbeResult
from pointzoo.tasks.labelled import Labelled, Setting
from pointzoo.tasks.probe import Subject, probe, subject_by_name, subject_features
from pointzoo.tasks.progress import progress_bar
from pointzoo.tasks.supervised import SupervisedConfig, supervised

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "results" / "sh3d21.json"
ARCHITECTURE = "vit3d_tiny"
WEIGHTS = "vit3d_tiny.dcglr_shapes"
SEEDS = (0, 1, 2)
SETTINGS: tuple[tuple[int, str], ...] = ((2048, "none"), (1024, "none"), (256, "none"), (2048, "z"))
FOLDS = 5
CLASS_ALONE = " (class token)"
CONFIG = SupervisedConfig()
ROBUSTNESS_CLASSIFIERS = ("svm", "svm_tuned", "knn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder that `pointzoo corpus sh3d` built")
    parser.add_argument("--weights", default=WEIGHTS, help="a registered weight or a folder")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="parts to run again")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    dataset = open_dataset(options.corpus)
    stored = json.loads(options.output.read_text()) if options.output.exists() else {"parts": {}}
    stored["dataset"] = _describe_data(dataset)
    for name in options.only or PARTS:
        start = time.perf_counter()
        found = PARTS[name](dataset, options.weights)
        command = ["python benchmarks/sh3d_probe.py", options.corpus.name, "--only", name]
        if name in ("weights", "finetune") and options.weights != WEIGHTS:
            command += ["--weights", Path(options.weights).name]
        stored["parts"][name] = {
            "command": " ".join(command),
            "commit": _commit(),
            "machine": _machine(),
            "seconds": round(time.perf_counter() - start),
            **found,
        }
        _write(options.output, stored)
        for row in found.get("results", []):  # the lines that `pointzoo card build` reads
            print(": ".join(ProbeResult.from_dict(row).metric("SH3D-21")))
        print(f"{name}: {stored['parts'][name]['seconds']} s -> {options.output}")


def run_weights(dataset: PointDataset, weights: str) -> dict[str, Any]:
    found = subject_by_name(weights)  # a folder is named by its last part
    return _run_network(dataclasses.replace(found, name=Path(weights).name), dataset)


def run_random(dataset: PointDataset, _: str) -> dict[str, Any]:
    return _run_network(subject_by_name(f"random:{ARCHITECTURE}"), dataset)


def run_descriptors(dataset: PointDataset, _: str) -> dict[str, Any]:
    """Each block once per drawing; combinations put the same blocks side by side."""
    results = []
    needed = sorted({block for blocks in DESCRIPTORS.values() for block in blocks})
    for points, rotation in SETTINGS:
        data = Labelled.of(dataset, None, Setting(points, rotation, SEEDS, FOLDS))
        widths: dict[str, int] = {}

        def describe(clouds: Iterable[PointCloud], _: int) -> FloatArray:
            found = describe_blocks(needed, clouds, np.random.default_rng(0))
            widths.update({name: found[name].shape[1] for name in needed})  # noqa: B023
            return np.hstack([found[name] for name in needed])

        joined = _features(Subject("descriptors", describe), data)
        ends = np.cumsum([widths[name] for name in needed])
        columns = dict(zip(needed, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        for name, blocks in DESCRIPTORS.items():
            own = np.concatenate([columns[block] for block in blocks])
            chosen = {seed: matrix[:, own] for seed, matrix in joined.items()}
            subject = Subject(f"descriptor:{name}", _ready(chosen), seeded=True)
            results += _probe(subject, dataset, points, rotation)
    return {"results": results}


def run_supervised(dataset: PointDataset, _: str) -> dict[str, Any]:
    def make(seed: int) -> Any:
        return zoo.create_encoder(ARCHITECTURE, seed=seed)

    return {"results": [_trained(make, dataset, f"supervised:{ARCHITECTURE}")]}


def run_finetune(dataset: PointDataset, weights: str) -> dict[str, Any]:
    def make(_: int) -> Any:
        return zoo.load_encoder(weights)

    return {"results": [_trained(make, dataset, f"finetuned:{Path(weights).name}")]}


PARTS: Mapping[str, Callable[[PointDataset, str], dict[str, Any]]] = {
    "random": run_random,
    "weights": run_weights,
    "descriptors": run_descriptors,
    "supervised": run_supervised,
    "finetune": run_finetune,
}


def _run_network(subject: Subject, dataset: PointDataset) -> dict[str, Any]:
    """Probe the scene feature in every setting, and the class token alone in the first."""
    results = [row for setting in SETTINGS for row in _probe(subject, dataset, *setting)]
    features = _features(subject, Labelled.of(dataset, None, Setting(2048, "none", SEEDS, FOLDS)))
    # 3D-ViT: class token, mean and maximum of the tokens, side by side
    token = {seed: matrix[:, : matrix.shape[1] // 3] for seed, matrix in features.items()}
    alone = Subject(f"{subject.name}{CLASS_ALONE}", _ready(token), seeded=True)
    results += _probe(alone, dataset, *SETTINGS[0])
    found = {id(matrix): torch.from_numpy(matrix) for matrix in features.values()}
    spectra = torch.stack([feature_spectrum(matrix) for matrix in found.values()])
    return {
        "results": results,
        "effective_rank": [round(effective_rank(matrix), 2) for matrix in found.values()],
        "effective_rank_of_covariance": [
            round(effective_rank(matrix, covariance=True), 2) for matrix in found.values()
        ],
        "feature_std": [float(f"{feature_std(matrix):.4g}") for matrix in found.values()],
        "spectrum": [float(f"{value:.3g}") for value in spectra.mean(dim=0)],
    }


def _probe(
    subject: Subject, dataset: PointDataset, points: int, rotation: str
) -> list[dict[str, Any]]:
    main_setting = (points, rotation) == SETTINGS[0]
    results = probe(
        subject,
        dataset,
        classifier=tuple(CLASSIFIERS) if main_setting else ROBUSTNESS_CLASSIFIERS,
        folds=FOLDS,
        seeds=SEEDS,
        points=points,
        rotation=rotation,
        progress=sys.stderr.isatty(),
    )
    return [_compact(row, confusion=main_setting and row.classifier == "svm") for row in results]


def _trained(make: Callable[[int], Any], dataset: PointDataset, name: str) -> dict[str, Any]:
    shown = sys.stderr.isatty()
    result = supervised(
        make, dataset, name=name, config=CONFIG, folds=FOLDS, seeds=SEEDS[:1], progress=shown
    )
    return _compact(result, confusion=True)


def _compact(result: ProbeResult, *, confusion: bool) -> dict[str, Any]:
    """Round a row; the names of classes stand once in the file, confusion only where asked."""
    values = result.to_dict()
    values["accuracy"] = [[round(value, 5) for value in row] for row in values["accuracy"]]
    values["interval"] = [round(value, 5) for value in values["interval"]]
    for key in ("mean", "class_accuracy"):
        values[key] = round(values[key], 5)
    values["seconds"] = round(values["seconds"], 1)
    values["class_names"] = []
    if values["effective_rank"] is not None:
        values["effective_rank"] = round(values["effective_rank"], 2)
    if not confusion:
        values["confusion"] = []
    return values


def _features(subject: Subject, data: Labelled) -> dict[int, FloatArray]:
    with progress_bar(subject.name, shown=sys.stderr.isatty()) as bar:
        return dict(subject_features(subject, data, bar))


def _ready(found: Mapping[int, FloatArray]) -> Callable[..., FloatArray]:
    return lambda _clouds, seed: found[seed]


def _describe_data(dataset: PointDataset) -> dict[str, Any]:
    labels = np.asarray(dataset.labels)
    counts = np.bincount(labels[labels >= 0], minlength=len(dataset.class_names))
    return {
        "name": dataset.name,
        "shapes": int(counts.sum()),
        "classes": dict(zip(dataset.class_names, counts.tolist(), strict=True)),
        "folds": FOLDS,
        "seeds": list(SEEDS),
    }


def _write(path: Path, stored: Mapping[str, Any]) -> None:
    """Write the file with one line per result, so that a change shows as the lines it concerns."""
    parts = []
    for name, part in sorted(stored["parts"].items()):
        rows = ",\n".join(f"  {json.dumps(row)}" for row in part["results"])
        rest = json.dumps({key: value for key, value in part.items() if key != "results"})
        parts.append(f' "{name}": {rest[:-1]}, "results": [\n{rows}\n ]}}')
    text = f'{{"dataset": {json.dumps(stored["dataset"])},\n"parts": {{\n{",".join(parts)}\n}}}}\n'
    assert json.loads(text) == stored
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _commit() -> str:
    changed = _git("status", "--porcelain", "--untracked-files=no", "pointzoo", "benchmarks")
    return (_git("rev-parse", "HEAD") or "unknown") + (" and local changes" if changed else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip()


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{len(names)} x {names[0]}" if names else platform.processor()
    return f"{cpu}, Python {platform.python_version()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
