"""Runs a protocol: every variant from every starting point for every seed, into one JSON file.

A stopped run goes on: what the file holds already is not computed again.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointzoo import zoo
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data import PointDataset, open_dataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.encoders.vit3d import ViT3D
from pointzoo.errors import ConfigError, FormatError
from pointzoo.finetuning.api import finetune
from pointzoo.finetuning.data import Subset
from pointzoo.finetuning.task import Score
from pointzoo.io.files import parsing, replacing
from pointzoo.protocols.table import ALL_CLASSES, PROBE, Protocol, get_protocol
from pointzoo.protocols.views import evaluate_views, get_views
from pointzoo.tasks.probe import Subject, probe, scene_features

INITS = ("scratch", "pretrained")
Cell = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is run of a protocol.

    Attributes:
        protocol: The protocol.
        data: Path of its data.
        encoder: Pretrained name, weight folder, or architecture (for ``scratch`` alone).
        inits: Of :data:`INITS`.
        seeds: Of networks, order, crops and changes.
        variants: Of the protocol.
        method: Of fine-tuning, instead of the protocol's; ``linear`` freezes the encoder.
        views: Test-time views.
        test: Path of other test data.
        limit: Test on the first so many clouds alone.
        settings: Settings of fine-tuning that differ from the protocol's.
        device: Where to train.
    """

    protocol: Protocol
    data: Path
    encoder: str
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    method: str | None = None
    views: str = "one"
    test: Path | None = None
    limit: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def label(self) -> str:
        """How results name the encoder: of a weight folder the last part of its path."""
        return Path(self.encoder).name


def run_benchmark(
    name: str,
    data: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    inits: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    variants: Sequence[str] | None = None,
    method: str | None = None,
    views: str | None = None,
    test: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    out: str | os.PathLike[str] | None = None,
    after_cell: Callable[[Cell], object] = lambda _: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run a protocol and return what ``out`` holds afterwards.

    Args:
        name: Of the protocol, see :data:`pointzoo.protocols.PROTOCOLS`.
        data: The data set in its published layout.
        encoder: What starts; None: the protocol's.
        inits: ``"scratch"``, ``"pretrained"``; None: both, of an architecture the first.
        seeds: One run for each.
        variants: Of the protocol; None: all.
        method: Of fine-tuning; None: the protocol's.
        views: See :data:`pointzoo.protocols.views.VIEWS`; None: the protocol's.
        test: Other test data; a protocol of transfer needs it.
        limit: Test on the first so many clouds alone, for a quick look; None: all.
        settings: Settings of fine-tuning that differ from the protocol's.
        device: Where to train.
        out: JSON file, written after each cell; None: no file.
        after_cell: Called with each new cell.
        progress: Show progress bars on stderr.

    Raises:
        UnknownNameError: A name is unknown.
        ConfigError: There is no such variant or start, or the test data is missing.
        FormatError: ``out`` holds another protocol.
        PointzooError: See :func:`pointzoo.finetuning.api.finetune`.
    """
    protocol = get_protocol(name)
    chosen = encoder or protocol.encoder
    plan = Plan(
        protocol=protocol,
        data=Path(data),
        encoder=chosen,
        inits=tuple(inits or (INITS[:1] if chosen in ARCHITECTURES else INITS)),
        seeds=tuple(seeds),
        variants=tuple(variants or protocol.variants),
        method=method,
        views=views or protocol.views,
        test=None if test is None else Path(test),
        limit=limit,
        settings=dict(settings or {}),
        device=device,
    )
    _check(plan)
    target = None if out is None else Path(out)
    result = _stored(target, protocol)
    if (words := _command(plan)) not in result["commands"]:
        result["commands"].append(words)
    known = {_key(cell) for cell in result["cells"]}
    for variant, init, seed in _cells(plan):
        mark = (plan.label, variant, init, _method(plan), seed)
        if mark in known:
            continue
        start = time.perf_counter()
        score, used = _run(plan, variant, init, seed, progress=progress)
        cell = {
            **dict(zip(_KEY, mark, strict=True)),
            "settings": json.loads(json.dumps(used)),
            "score": _figures(score),
            "seconds": round(time.perf_counter() - start, 1),
        }
        result["cells"].append(cell)
        _store(result, target)
        after_cell(cell)
    return result


_KEY = ("encoder", "variant", "init", "method", "seed")


def summarise(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds, in percent, for each variant, start, encoder and method.

    Folds are averaged first; the spread is the standard deviation over seeds, None for one seed.

    Args:
        result: Of :func:`run_benchmark`, or read from its file.
    """
    groups: dict[tuple[Any, ...], dict[int, list[float]]] = {}
    for cell in result["cells"]:
        variant = "5 folds" if cell["variant"].startswith("fold ") else cell["variant"]
        group = (variant, cell["init"], cell["encoder"], cell["method"])
        figure = 100 * cell["score"]["values"][result["metric"]]
        groups.setdefault(group, {}).setdefault(cell["seed"], []).append(figure)
    rows = []
    for group, by_seed in groups.items():
        means = [statistics.fmean(values) for values in by_seed.values()]
        rows.append(
            {
                **dict(zip(("variant", "init", "encoder", "method"), group, strict=True)),
                "mean": statistics.fmean(means),
                "spread": statistics.stdev(means) if len(means) > 1 else None,
                "seeds": len(means),
            }
        )
    return rows


def _check(plan: Plan) -> None:
    unknown = [*(set(plan.variants) - set(plan.protocol.variants)), *(set(plan.inits) - set(INITS))]
    get_views(plan.views)
    if unknown or not plan.seeds:
        raise ConfigError(
            expected=f"variants out of {plan.protocol.variants}, starts out of {INITS}, a seed",
            got=", ".join(unknown) or "no seed",
            fix="`pointzoo benchmark list` shows the variants.",
        )
    if plan.protocol.transfer and plan.test is None:
        raise ConfigError(
            expected=f"test data for {plan.protocol.name}", got="none", fix="Pass its path."
        )
    if "pretrained" in plan.inits and plan.encoder in ARCHITECTURES:
        raise ConfigError(
            expected="pretrained weights",
            got=f"the architecture {plan.encoder!r}",
            fix="Name weights or a weight folder, or start from scratch alone.",
        )


def _cells(plan: Plan) -> Iterator[tuple[str, str, int]]:
    for variant in plan.variants:
        for seed in plan.seeds:
            for init in plan.inits:
                yield variant, init, seed


def _method(plan: Plan) -> str:
    if plan.protocol.task == PROBE:
        return "svm"
    return plan.method or str(plan.protocol.settings.get("method", "full"))


def _run(
    plan: Plan, variant: str, init: str, seed: int, *, progress: bool
) -> tuple[Score, dict[str, Any]]:
    protocol = plan.protocol
    train, test = protocol.open(plan.data, variant, seed)
    if plan.test is not None:
        test = open_dataset(plan.test)
    if plan.limit is not None:
        test = Subset(test, np.arange(min(plan.limit, len(test))))
    network = _network(plan.encoder, init, seed)
    if protocol.task == PROBE:
        return _probe(network.to(plan.device), train, test, variant, seed, progress=progress)
    settings = {**protocol.settings, **plan.settings, "method": _method(plan)}
    both = protocol.selects and plan.test is None
    if not both:
        settings["validation_share"] = 0.0
    model = finetune(
        network,
        (train, test) if both else train,
        task=protocol.task,
        preset=protocol.preset,
        seed=seed,
        device=plan.device,
        progress=progress,
        **settings,
    )
    used = {**settings, "views": plan.views, "test clouds": len(test)}
    return evaluate_views(model, test, plan.views), used


def _probe(
    network: PointEncoder,
    train: PointDataset,
    test: PointDataset,
    variant: str,
    seed: int,
    *,
    progress: bool,
) -> tuple[Score, dict[str, Any]]:
    points = int(variant.partition(" ")[0])
    options: dict[str, Any] = {"test": test, "seeds": (seed,), "points": points}
    kept: list[FloatArray] = []

    def describe(clouds: Iterable[PointCloud], _: int) -> FloatArray:
        kept.append(scene_features(network, clouds))
        return kept[0]

    found = probe(Subject("all", describe), train, progress=progress, **options)[0]
    values = {"accuracy": found.mean, "class accuracy": found.class_accuracy}
    if isinstance(network, ViT3D):  # DCGLR's feature is its class token, the first of three parts
        token = Subject("class token", lambda *_: kept[0][:, : network.out_channels])
        alone = probe(token, train, **options)[0]
        values["accuracy of all features"] = values["accuracy"]
        values |= {"accuracy": alone.mean, "class accuracy": alone.class_accuracy}
    score = Score("accuracy", values, {}, found.class_names)
    return score, {"classifier": found.classifier, "points": points}


def _network(source: str, init: str, seed: int) -> PointEncoder:
    """Return the pretrained network, or the same one with random weights."""
    if source in ARCHITECTURES:
        return zoo.create_encoder(source, seed=seed)
    loaded = zoo.load_encoder(source)
    if init == "pretrained":
        return loaded
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        kind: Any = type(loaded)  # whose constructor takes the config alone
        random: PointEncoder = kind(loaded.config).eval()
        return random


def _figures(score: Score) -> dict[str, Any]:
    """Return what is kept of a score: no confusion matrix, which is large for 200 classes.

    The mean IoU over all classes, those that do not occur with 0, is Pointcept's.
    """
    kept: dict[str, Any] = json.loads(json.dumps(score.to_dict()))
    kept.pop("confusion")
    if iou := score.per_class.get("iou"):
        kept["values"][ALL_CLASSES] = statistics.fmean(value or 0.0 for value in iou)
    return kept


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in _KEY)


def _stored(path: Path | None, protocol: Protocol) -> dict[str, Any]:
    fresh = {
        "protocol": protocol.name,
        "metric": protocol.metric,
        "commands": [],
        "machine": f"{os.cpu_count()} x {platform.processor() or platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        "cells": [],
    }
    if path is None or not path.exists():
        return fresh
    with parsing(path, "JSON"):
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict) or stored.get("protocol") != protocol.name:
        raise FormatError(
            expected=f"results of {protocol.name} in {path}",
            got=repr(stored.get("protocol") if isinstance(stored, dict) else type(stored)),
            fix="Choose another file.",
        )
    return stored


def _command(plan: Plan) -> str:
    """Return the command line of a plan; of paths the last part alone."""
    words = [
        *("pointzoo", "benchmark", plan.protocol.name, "--data", plan.data.resolve().name),
        *("--encoder", plan.label),
        *("--seeds", ",".join(map(str, plan.seeds)), "--views", plan.views),
    ]
    for option, values in (("--init", plan.inits), ("--variant", plan.variants)):
        words += [word for value in values if value for word in (option, value)]
    given = {"--test": plan.test and plan.test.name, "--limit": plan.limit, "--method": plan.method}
    words += [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    words += [word for pair in plan.settings.items() for word in ("--set", f"{pair[0]}={pair[1]}")]
    return shlex.join(words)


def _store(result: Mapping[str, Any], path: Path | None) -> None:
    if path is not None:
        with replacing(path) as stream:
            stream.write((json.dumps(result, indent=1) + "\n").encode())
