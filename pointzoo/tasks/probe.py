"""How much do frozen features say about the class of a shape?

Shape legend: M clouds, D channels.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointzoo import zoo
from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.metrics import effective_rank
from pointzoo.tasks.classifiers import get_classifier
from pointzoo.tasks.descriptors import DESCRIPTORS, describe
from pointzoo.tasks.evaluation import ProbeResult, evaluate
from pointzoo.tasks.labelled import Labelled, Rows, Setting
from pointzoo.tasks.progress import Bar, progress_bar

Describe = Callable[[Iterable[PointCloud], int], FloatArray]
"""From M clouds and a seed to features (M, D)."""

_CHUNK = 32


@dataclass(frozen=True)
class Subject:
    """Something that turns clouds into features.

    Attributes:
        name: How results name it.
        describe: Computes the features.
        seeded: Whether the features of a cloud depend on the seed (random weights).
    """

    name: str
    describe: Describe
    seeded: bool = False


def probe(
    source: PointEncoder | Subject | FloatArray,
    dataset: PointDataset,
    *,
    classifier: str | Sequence[str] = "svm",
    test: PointDataset | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    points: int = 2048,
    rotation: str = "none",
    progress: bool = False,
) -> list[ProbeResult]:
    """Classify the clouds of a data set by their frozen features.

    Args:
        source: An encoder (its scene features are used), a :class:`Subject`, or features (M, D) of
            all clouds that are computed already (the test set's after the data set's).
        dataset: The clouds and their labels; clouds without a label are left out.
        classifier: One or several names, see :mod:`pointzoo.tasks.classifiers`.
        test: A test set; ``dataset`` is the training set then, and there are no folds.
        folds: See :class:`pointzoo.tasks.labelled.Setting`, as for the rest.
        seeds: See there.
        points: See there.
        rotation: See there.
        progress: Show a progress bar on stderr.

    Returns:
        One result per classifier.

    Raises:
        ConfigError: There are no labels or too few of a class, or an argument is out of range.
        UnknownNameError: There is no such classifier.
        MissingExtraError: scikit-learn is not installed.
    """
    names = [classifier] if isinstance(classifier, str) else list(classifier)
    for name in names:
        get_classifier(name)
    data = Labelled.of(dataset, test, Setting(points, rotation, tuple(seeds), folds))
    subject = _as_subject(source, data)
    with progress_bar(subject.name, shown=progress) as bar:
        start = time.perf_counter()
        features = subject_features(subject, data, bar)
        seconds = time.perf_counter() - start
        return [_result(subject, data, features, name, seconds, bar) for name in names]


def run_probe(
    subjects: Sequence[str],
    data: str | os.PathLike[str],
    *,
    classifiers: Sequence[str] = ("svm", "knn"),
    test: str | os.PathLike[str] | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    points: Sequence[int] = (2048,),
    rotations: Sequence[str] = ("none",),
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[ProbeResult]:
    """Probe subjects by name on a data set by path: the command ``pointzoo probe``.

    Args:
        subjects: Names as :func:`subject_by_name` takes them.
        data: Anything :func:`pointzoo.data.open_dataset` opens.
        classifiers: See :func:`probe`, as for ``folds`` and ``seeds``.
        test: The test set, if it is apart.
        folds: See there.
        seeds: See there.
        points: One or several numbers of points, each probed.
        rotations: One or several rotations, each probed.
        output: JSON file that gets a list of all results.
        progress: Show progress bars on stderr.

    Returns:
        One result per subject, number of points, rotation and classifier.

    Raises:
        PointzooError: See :func:`probe`, :func:`subject_by_name` and ``open_dataset``.
    """
    known = [subject_by_name(name) for name in subjects]
    dataset = open_dataset(data)
    test_set = None if test is None else open_dataset(test)
    results = [
        result
        for subject in known
        for count in points
        for rotation in rotations
        for result in probe(
            subject,
            dataset,
            classifier=classifiers,
            test=test_set,
            folds=folds,
            seeds=seeds,
            points=count,
            rotation=rotation,
            progress=progress,
        )
    ]
    if output is not None:
        write_json(output, [result.to_dict() for result in results])
    return results


def subject_by_name(name: str) -> Subject:
    """Return what a name stands for.

    Args:
        name: ``random:ARCHITECTURE`` (the network with random weights, others for every seed),
            ``descriptor:NAME`` (see :mod:`pointzoo.tasks.descriptors`), or anything that
            :func:`pointzoo.zoo.load_encoder` takes: a registered weight or a folder.

    Raises:
        UnknownNameError: There is no such architecture, descriptor or weight.
    """
    kind, _, rest = name.partition(":")
    if kind == "descriptor":
        if rest not in DESCRIPTORS:
            raise UnknownNameError.of("descriptor", rest, DESCRIPTORS)
        return Subject(name, lambda clouds, _: describe(rest, clouds, np.random.default_rng(0)))
    if kind == "random":
        zoo.create_encoder(rest)  # complain about the name now
        return Subject(name, lambda clouds, seed: _random_features(rest, seed, clouds), True)
    encoder = zoo.load_encoder(name)
    return Subject(name, lambda clouds, _: scene_features(encoder, clouds))


def scene_features(encoder: PointEncoder, clouds: Iterable[PointCloud]) -> FloatArray:
    """Return the scene feature of every cloud, (M, D) float32.

    Raises:
        CloudError: A cloud is empty or not finite.
    """
    stream = iter(clouds)
    rows: list[FloatArray] = []
    while chunk := list(islice(stream, _CHUNK)):
        rows += [features.scene for features in encoder.extract(chunk)]
    return np.stack(rows) if rows else np.zeros((0, encoder.scene_channels), np.float32)


def _random_features(architecture: str, seed: int, clouds: Iterable[PointCloud]) -> FloatArray:
    return scene_features(zoo.create_encoder(architecture, seed=seed), clouds)


def subject_features(subject: Subject, data: Labelled, bar: Bar) -> Mapping[int, FloatArray]:
    """Return the features (M, D) for every seed, computed once if the seed makes no difference."""
    found: dict[int, FloatArray] = {}
    varies = subject.seeded

    def watched(seed: int) -> Iterator[PointCloud]:
        nonlocal varies
        for cloud, changed in data.drawn(seed):
            varies |= changed
            yield cloud
            bar.advance()

    for seed in data.setting.seeds:
        bar.start(f"features for seed {seed}", len(data.labels))
        found[seed] = subject.describe(watched(seed), seed)
        if not varies:
            return dict.fromkeys(data.setting.seeds, found[seed])
    return found


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file at once, so that a reader never sees half of it."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(target)


def _as_subject(source: PointEncoder | Subject | FloatArray, data: Labelled) -> Subject:
    if isinstance(source, Subject):
        return source
    if isinstance(source, PointEncoder):
        return Subject(type(source).__name__, lambda clouds, _: scene_features(source, clouds))
    if source.ndim != 2 or len(source) != len(data.kept):
        raise ConfigError(
            expected=f"features with one row for each of the {len(data.kept)} clouds",
            got=f"shape {source.shape}",
            fix="Compute them for the whole data set, then for the test set if there is one.",
        )
    return Subject("features", lambda _clouds, _seed: source[data.kept])


def _result(
    subject: Subject,
    data: Labelled,
    features: Mapping[int, FloatArray],
    classifier: str,
    seconds: float,
    bar: Bar,
) -> ProbeResult:
    run = get_classifier(classifier)

    def predict(seed: int, train: Rows, test: Rows) -> IntArray:
        own = features[seed]
        return run(own[train], data.labels[train], own[test])

    bar.start(classifier, len(data.setting.seeds) * data.folds)
    first = features[data.setting.seeds[0]]
    return evaluate(
        predict,
        data,
        subject=subject.name,
        classifier=classifier,
        channels=first.shape[1],
        rank=effective_rank(torch.from_numpy(first)),
        seconds=seconds,
        advance=bar.advance,
    )
