"""Turn the files in docs/results into docs/results.md, or check that it was.

Of the folder, sh3d21.json (--source), what the benchmarks on rooms and the fine-tuning on SH3D-21
wrote, and whatever `pointzoo benchmark` wrote are shown.

python benchmarks/render_results.py [--check]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import labels_of

from pointzoo.protocols import get_protocol
from pointzoo.protocols.tables import comparison
from pointzoo.tasks.evaluation import ProbeResult, difference

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "results" / "sh3d21.json"
TARGET = ROOT / "docs" / "results.md"
CLASSIFIERS = ("svm", "svm_l2", "svm_tuned", "logistic", "knn", "knn_raw", "knn1")
SETTINGS = {
    (2048, "none"): "2,048 points",
    (1024, "none"): "1,024 points",
    (256, "none"): "256 points",
    (2048, "z"): "2,048 points, turned about z",
}
ORDER = ("weights", "random", "descriptors", "supervised", "finetune")
DECADES = range(8)
CLASS_ALONE = " (class token)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    text = "\n".join([render(_read(options.source)), *render_scenes(options.source.parent)])
    if not options.check:
        options.target.write_text(text, encoding="utf-8")
    elif not options.target.exists() or options.target.read_text(encoding="utf-8") != text:
        sys.exit(f"{options.target} is out of date: run python benchmarks/render_results.py")


def render(stored: Mapping[str, Any]) -> str:
    """Return the document for the content of the JSON file."""
    parts = {name: stored["parts"][name] for name in ORDER if name in stored["parts"]}
    rows = [ProbeResult.from_dict(row) for part in parts.values() for row in part["results"]]
    sections = [
        _introduction(stored["dataset"]),
        _accuracies(rows),
        _differences(rows),
        _robustness(rows),
        _supervised(rows),
        _variety(parts),
        _classes(rows, list(stored["dataset"]["classes"])),
        _provenance(parts),
    ]
    return "\n".join(section for section in sections if section)


def render_scenes(folder: Path) -> Iterator[str]:
    """Yield the sections on scenes and on benchmarks that the files of a folder give."""
    others = {path.name: _read(path) for path in sorted(folder.glob("*.json"))}
    for name, section in _SECTIONS.items():
        if others.get(name, {}).get("cells") or others.get(name, {}).get("results"):
            yield section(others[name])
    results = {name: stored for name, stored in others.items() if "protocol" in stored}
    if results:
        yield _benchmarks(results)


def _rooms(stored: Mapping[str, Any]) -> str:
    """Compare pretrained with random weights, seed by seed."""
    scores: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
    for cell in stored["cells"]:
        for test, score in cell["scores"].items():
            key = (cell["task"], cell["encoder"], test, cell["labels"])
            by_weights = scores.setdefault(key, {})
            by_weights.setdefault(cell["weights"], {})[cell["seed"]] = 100 * score["miou"]
    table = []
    for (task, encoder, test, labels), by_weights in sorted(scores.items()):
        pretrained, random = by_weights.get("pretrained", {}), by_weights.get("random", {})
        both = sorted(set(pretrained) & set(random))
        gained = [pretrained[seed] - random[seed] for seed in both]
        cells = [_spread(by.values()) for by in (random, pretrained)]
        gain = _spread(gained, signed=True)
        table.append([task, f"`{encoder}`", test, labels, *cells, gain, str(len(both))])
    header = ["task", "encoder", "tested on", "labels", "random", "pretrained", "gain", "seeds"]
    command = f"\nmIoU, mean ± standard deviation over seeds: `{stored['command']}`\n"
    title = "Composed rooms: linear probe and training with few labels (%)"
    return _section(title, header, table) + command


def _instances(stored: Mapping[str, Any]) -> str:
    """Average precision of objects from every start, and AP50 over scratch, seed by seed."""
    groups: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for cell in stored["cells"]:
        rooms = f"{cell['rooms']['train']} / {cell['rooms']['test']}"
        setting = f"{rooms}, {cell['settings']['max_steps']} steps"
        by_weights = groups.setdefault(setting, {})
        by_weights.setdefault(cell["weights"], {})[cell["seed"]] = cell["values"]
    table = []
    for setting, by_weights in groups.items():
        scratch = by_weights.get("scratch", {})
        for weights, found in by_weights.items():
            figures = [
                _spread(100 * values[name] for values in found.values())
                for name in ("ap", "ap50", "ap25")
            ]
            both = sorted(set(found) & set(scratch)) if weights != "scratch" else []
            gained = [100 * (found[seed]["ap50"] - scratch[seed]["ap50"]) for seed in both]
            gain = _spread(gained, signed=True)
            table.append([setting, f"`{weights}`", *figures, gain, str(len(found))])
    header = ["rooms, train / test", "start", "AP", "AP50", "AP25", "AP50 over scratch", "seeds"]
    return _section("Composed rooms: instance segmentation (%)", header, table) + _made(stored)


def _few_shot(stored: Mapping[str, Any]) -> str:
    """Heads on a handful of labelled points."""
    names = [key for key in next(iter(stored["results"].values())) if key.startswith("miou")]
    table = [
        [features, *(f"{100 * found[name]:.1f}" for name in names), f"{found['seconds']:.2f}"]
        for features, found in stored["results"].items()
    ]
    given = ", ".join(f"{key} {value}" for key, value in stored["settings"].items())
    header = ["features", *names, "seconds to fit"]
    title = "Composed rooms: a handful of labelled points (%)"
    return _section(title, header, table) + f"\nMeans over rooms and seeds: {given}.\n"


def _methods(stored: Mapping[str, Any]) -> str:
    """What each way of training makes of pretrained weights and of random ones, seed by seed."""
    groups: dict[tuple[int, int, str], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for cell in stored["cells"]:
        by_start = groups.setdefault((cell.get("points") or 0, cell["rooms"], cell["method"]), {})
        by_start.setdefault(cell["weights"], {})[cell["seed"]] = cell
    others = sorted({name for cell in stored["cells"] for name in cell.get("transfer", {})})
    table = []
    for (*_, method), by_start in sorted(groups.items()):
        for start, by_seed in sorted(by_start.items()):
            cells = list(by_seed.values())
            row = [labels_of(cells[0]), method, start]
            for test in ("test", *others):
                found, scratch = (_scores(by_start.get(s, {}), test) for s in (start, "random"))
                both = found.keys() & scratch.keys() if start != "random" else set()
                gain = _spread([found[seed] - scratch[seed] for seed in both], signed=True)
                row += [_spread(found.values()), gain, str(len(found) or "")]
            seconds = f"{statistics.median(cell['seconds'] for cell in cells):.0f}"
            size = f"{cells[0]['trained']:,}", f"{cells[0]['megabytes']:.2f}"
            table.append([*row, *size, seconds])
    tests = [column for test in ("mIoU", *others) for column in (test, "gain over random", "seeds")]
    header = ["labelled", "method", "start", *tests, "trained values", "MB", "seconds"]
    title = "Composed rooms: linear heads, LoRA and full fine-tuning (%)"
    return _section(title, header, table) + _made(stored)


def _scores(cells: Mapping[int, Mapping[str, Any]], test: str) -> dict[int, float]:
    """Return mIoU in per cent of each seed that has this test."""
    scores = {s: {"test": c["miou"], **c.get("transfer", {})} for s, c in cells.items()}
    return {seed: 100 * found[test] for seed, found in scores.items() if test in found}


def _fine_tuned(stored: Mapping[str, Any]) -> str:
    """Compare pretrained starts with random ones, seed by seed."""
    groups: dict[str, dict[str, dict[int, float]]] = {}
    for cell in stored["cells"]:
        by_start = groups.setdefault(cell["weights"], {})
        by_start.setdefault(cell["start"], {})[cell["seed"]] = 100 * cell["accuracy"]
    table = []
    for weights, by_start in sorted(groups.items()):
        scratch, pretrained = by_start.get("scratch", {}), by_start.get("pretrained", {})
        both = sorted(set(scratch) & set(pretrained))
        gain = _spread([pretrained[seed] - scratch[seed] for seed in both], signed=True)
        means = [_spread(found.values()) for found in (scratch, pretrained)]
        table.append([f"`{weights}`", *means, gain, str(len(scratch))])
    header = ["encoder", "scratch", "pretrained", "gain", "seeds"]
    return _section("SH3D-21: fine-tuned accuracy (%)", header, table) + _made(stored)


def _probed(stored: Mapping[str, Any]) -> str:
    """Say how simple classifiers do on frozen features of clouds of several sizes."""
    rows = [ProbeResult.from_dict(row) for row in stored["results"]]
    sizes = sorted({row.points for row in rows}, reverse=True)
    table = []
    for subject, classifier in dict.fromkeys((row.subject, row.classifier) for row in rows):
        of = {r.points: r for r in rows if (r.subject, r.classifier) == (subject, classifier)}
        figures = [of[size].metric("")[1] if size in of else "" for size in sizes]
        table.append([f"`{subject}`", classifier, *figures])
    header = ["features", "classifier", *(f"{size:,} points" for size in sizes)]
    title = "SH3D-21: frozen features of DGCNN and PCT"
    made = f"\nMean over folds and seeds, with its 95 % interval: `{stored['command']}`\n"
    return _section(title, header, table) + made


def _made(stored: Mapping[str, Any]) -> str:
    return f"\nMean ± standard deviation over seeds: `{stored['command']}`\n"


_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "rooms.json": _rooms,
    "rooms_methods.json": _methods,
    "rooms_instances.json": _instances,
    "rooms_few_shot.json": _few_shot,
    "sh3d_finetune.json": _fine_tuned,
    "sh3d_points.json": _probed,
}


def _benchmarks(results: Mapping[str, Mapping[str, Any]]) -> str:
    table, commands = [], []
    for name, stored in results.items():
        protocol = get_protocol(stored["protocol"])
        _, *rows = comparison(protocol, stored)
        for variant, start, encoder, method, figure, seeds, published in rows:
            words = [protocol.about, variant, start, f"`{encoder}`", method]
            table.append([*words, f"{stored['metric']} {figure}", seeds, published])
        commands.append([f"`{name}`", _listed_commands(stored), stored["machine"]])
    header = ["benchmark", "variant", "start", "encoder", "method", "result", "seeds", "published"]
    note = """
Mean ± standard deviation over seeds; `published` are the papers' figures for the same protocol on
their data, `-` where they have none.

"""
    return (
        _section("Benchmarks of the papers, and the same on open data (%)", header, table)
        + note
        + _section("Where the benchmarks come from", ["file", "command", "machine"], commands)
    )


def _listed_commands(stored: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{command}`" for command in stored["commands"])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _spread(values: Iterable[float], *, signed: bool = False) -> str:
    every = list(values)
    if not every:
        return ""
    spread = f" ± {statistics.stdev(every):.1f}" if len(every) > 1 else ""
    return f"{statistics.fmean(every):{'+' if signed else ''}.1f}{spread}"


def _introduction(data: Mapping[str, Any]) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in data["classes"].items())
    smallest = min(data["classes"].values()) // data["folds"]
    return f"""# Results

Generated from the files in `docs/results` by `python benchmarks/render_results.py`; tables name the
command, the commit and the machine behind each part.

**Data**: {data["name"]}, {data["shapes"]} models of furniture and other things of a house in
{len(data["classes"])} classes, none of which a bundled weight has seen:
{classes}.
The classes come from rules on the models' names and are rough; the smallest puts {smallest} models
into a test fold.

**Protocol**: {data["folds"]}-fold cross-validation, stratified by class, for {len(data["seeds"])}
seeds, each with other folds, points and angles; a network called `random` has other weights for
every seed, too. Features are frozen. For 3D-ViT they are the class token, the mean and the maximum
of the tokens side by side; `(class token)` is the class token alone, as in the paper. Descriptors
are defined in `pointzoo/tasks/descriptors.py`, classifiers in `pointzoo/tasks/classifiers.py`.
`±` is half of a 95 % confidence interval, with the correction of Nadeau and Bengio (2003) for folds
that share training data. [Why so](decisions/0007-how-features-are-measured.md).
"""


def _accuracies(rows: Sequence[ProbeResult]) -> str:
    table = []
    for subject in _subjects(rows):
        own = {r.classifier: r for r in _plain(rows) if r.subject == subject}
        if own and "supervised" not in own:
            cells = [_percent(own[name]) if name in own else "" for name in CLASSIFIERS]
            first = next(iter(own.values()))
            rank = f"{first.effective_rank:.0f} of {first.channels}"
            table.append([f"`{subject}`", *cells, rank])
    header = ["features", *CLASSIFIERS, "effective rank"]
    return _section("Accuracy at 2,048 points (%)", header, table)


def _differences(rows: Sequence[ProbeResult]) -> str:
    table = []
    for suffix in ("", CLASS_ALONE):
        for classifier in CLASSIFIERS:
            own = [r for r in _plain(rows) if r.classifier == classifier]
            networks = [r for r in own if r.subject.endswith(CLASS_ALONE) == bool(suffix)]
            weights = [r for r in networks if ":" not in r.subject]
            random = [r for r in networks if r.subject.startswith("random:")]
            descriptors = [r for r in own if r.subject.startswith("descriptor:")]
            if not (weights and random and descriptors):
                continue
            best = max(descriptors, key=lambda r: r.mean)
            over_random, over_best = _points(weights[0], random[0]), _points(weights[0], best)
            name = f"`{weights[0].subject}`"
            table.append([name, classifier, over_random, f"`{best.subject}`", over_best])
    header = ["features", "classifier", "over random weights", "best descriptor", "over it"]
    return _section("What pretraining adds (points, paired by fold)", header, table)


def _robustness(rows: Sequence[ProbeResult]) -> str:
    tables = []
    for classifier in ("svm", "svm_tuned", "knn"):
        table = []
        for subject in _subjects(rows):
            own = {
                _setting(r): r for r in rows if r.subject == subject and r.classifier == classifier
            }
            if set(own) > {(2048, "none")}:
                cells = [_percent(own[key]) if key in own else "" for key in SETTINGS]
                table.append([f"`{subject}`", *cells])
        title = f"Fewer points, rotation: {classifier} (%)"
        tables.append(_section(title, ["features", *SETTINGS.values()], table))
    return "\n".join(tables)


def _supervised(rows: Sequence[ProbeResult]) -> str:
    table = [
        [f"`{r.subject}`", f"{r.points:,}", str(r.settings["epochs"]), _percent(r)]
        for r in rows
        if r.classifier == "supervised"
    ]
    title = "The same network trained with labels on the training folds (%)"
    return _section(title, ["network", "points", "epochs", "accuracy"], table)


def _variety(parts: Mapping[str, Any]) -> str:
    table, histogram = [], []
    for name in ("weights", "random"):
        if name not in parts:
            continue
        part, subject = parts[name], f"`{parts[name]['results'][0]['subject']}`"
        keys = ("effective_rank", "effective_rank_of_covariance", "feature_std")
        table.append([subject, *(_listed(part[key]) for key in keys), str(len(part["spectrum"]))])
        logs = [-math.log10(value) if value > 0 else math.inf for value in part["spectrum"]]
        counts = [sum(decade <= value < decade + 1 for value in logs) for decade in DECADES]
        beyond = sum(value >= len(DECADES) for value in logs)
        histogram.append([subject, *map(str, counts), str(beyond)])
    header = ["features", "effective rank", "of the covariance", "spread", "channels"]
    text = _section("How varied the features are", header, table)
    text += """
One value per seed where the weights differ. Effective rank: exponential of the entropy of the
singular values of the centred features, or of their squares (the covariance). Spread: 1 for
isotropic features, 0 after a collapse (`pointzoo.metrics.feature_std`).

"""
    header = ["features", *(f"1e-{d} to 1e-{d + 1}" for d in DECADES), "below"]
    title = "Eigenvalues of the covariance over the largest: channels per decade (DCGLR, Fig. 5 b)"
    return text + _section(title, header, histogram)


def _classes(rows: Iterable[ProbeResult], names: Sequence[str]) -> str:
    shown = [r for r in rows if r.confusion and ":" not in r.subject]
    if not shown:
        return ""
    result = shown[0]
    confusion = np.array(result.confusion)
    table = []
    for index, name in enumerate(names):
        row = confusion[index]
        others = [i for i in np.argsort(-row) if i != index and row[i] > 0][:3]
        mistaken = ", ".join(f"{names[i]} {100 * row[i] / row.sum():.0f} %" for i in others)
        table.append([name, f"{100 * row[index] / row.sum():.0f}", mistaken])
    title = f"Per class: `{result.subject}`, {result.classifier}, 2,048 points (%)"
    return _section(title, ["class", "right", "taken for"], table)


def _provenance(parts: Mapping[str, Any]) -> str:
    table = [
        [f"`{part['command']}`", f"`{part['commit']}`", part["machine"], f"{part['seconds']:,}"]
        for part in parts.values()
    ]
    return _section("Where the numbers come from", ["command", "commit", "machine", "s"], table)


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _subjects(rows: Iterable[ProbeResult]) -> list[str]:
    return list(dict.fromkeys(r.subject for r in rows))


def _plain(rows: Iterable[ProbeResult]) -> list[ProbeResult]:
    """Return what was measured in the first setting."""
    return [r for r in rows if _setting(r) == (2048, "none")]


def _setting(result: ProbeResult) -> tuple[int, str]:
    return result.points, result.rotation


def _percent(result: ProbeResult) -> str:
    low, high = result.interval
    return f"{100 * result.mean:.1f} ± {50 * (high - low):.1f}"


def _points(a: ProbeResult, b: ProbeResult) -> str:
    mean, (low, high) = difference(a, b)
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    main()
