"""Labelled clouds as an evaluation draws them.

Shape legend: M clouds, F folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointzoo import transforms
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError

Rows = NDArray[np.int64]
Splits = Callable[[int], list[tuple[Rows, Rows]]]
"""From a seed to one (training rows, test rows) pair per fold."""

ROTATIONS = ("none", "z")


@dataclass(frozen=True)
class Setting:
    """How clouds are drawn and how often an evaluation is repeated.

    Attributes:
        points: Points drawn from each cloud; all of them where a cloud has fewer.
        rotation: ``none``, or ``z`` to turn every cloud, in training and test, about the z axis by
            a random angle.
        seeds: Each seed draws other folds, points and angles.
        folds: Parts of cross-validation, stratified by class.
    """

    points: int = 2048
    rotation: str = "none"
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int = 5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.points < 1 or self.rotation not in ROTATIONS or not self.seeds:
            raise ConfigError(
                expected=f"points of at least 1, a rotation out of {ROTATIONS}, at least one seed",
                got=f"{self.points}, {self.rotation!r}, {self.seeds}",
                fix="Correct the argument.",
            )


@dataclass(frozen=True)
class Labelled:
    """The labelled clouds of a data set, or of a training set and a test set put together.

    Attributes:
        name: Name of the data set.
        class_names: Names that the labels index.
        labels: (M,) at least 0.
        kept: Which clouds of the data set (and then of the test set) have a label; M are True.
        cloud: Returns cloud 0..M - 1.
        splits: Training and test rows per seed.
        setting: How the clouds are drawn.
    """

    name: str
    class_names: tuple[str, ...]
    labels: IntArray
    kept: NDArray[np.bool_]
    cloud: Callable[[int], PointCloud]
    splits: Splits
    setting: Setting

    @classmethod
    def of(cls, dataset: PointDataset, test: PointDataset | None, setting: Setting) -> Labelled:
        """Leave out the clouds without a label, and prepare the splits.

        Args:
            dataset: Everything, or the training set.
            test: The test set, with the same classes; None for cross-validation.
            setting: How the clouds are drawn.

        Raises:
            ConfigError: There are no labels, the classes differ, or a class is too small.
        """
        parts = [dataset] if test is None else [dataset, test]
        if any(part.class_names != dataset.class_names for part in parts):
            raise ConfigError(
                expected=f"a test set with the classes {dataset.class_names}",
                got=repr(parts[-1].class_names),
                fix="Open both parts of the same data set.",
            )
        every = [_labels(part) for part in parts]
        index = [(part, i) for part, own in zip(parts, every, strict=True) for i in _known(own)]
        labels = np.concatenate(every)
        kept = labels >= 0
        first = len(_known(every[0]))
        rows = np.arange(len(index))
        splits = cross_validation(labels[kept], setting.folds)
        if test is not None:
            splits = lambda _: [(rows[:first], rows[first:])]  # noqa: E731
        splits(setting.seeds[0])  # complain before any features are computed
        return cls(
            name=dataset.name,
            class_names=dataset.class_names,
            labels=labels[kept],
            kept=kept,
            cloud=lambda row: index[row][0][index[row][1]],
            splits=splits,
            setting=setting,
        )

    @property
    def folds(self) -> int:
        """Number of splits per seed."""
        return len(self.splits(self.setting.seeds[0]))

    def drawn(self, seed: int) -> Iterator[tuple[PointCloud, bool]]:
        """Yield every cloud as the setting draws it.

        What happens to a cloud depends on the seed and its row alone; the second value says whether
        the seed made a difference.
        """
        points, turned = self.setting.points, self.setting.rotation == "z"
        for row in range(len(self.labels)):
            cloud = self.cloud(row)
            generator = np.random.default_rng([seed, row])
            larger = len(cloud) > points
            if larger:
                cloud = transforms.subsample(cloud, points, generator)
            if turned:
                cloud = transforms.rotate_z(cloud, float(generator.uniform(0.0, 2.0 * np.pi)))
            yield cloud, larger or turned


def stratified_folds(labels: IntArray, folds: int, generator: np.random.Generator) -> Rows:
    """Deal clouds to folds so that every fold gets an equal share of every class.

    Args:
        labels: (M,) classes.
        folds: F, at least 2; a class has at least so many clouds.
        generator: Source of the order.

    Returns:
        (M,) the fold of each cloud.

    Raises:
        ConfigError: There are fewer than 2 folds, or a class has fewer clouds than folds.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if folds < 2 or len(classes) == 0 or counts.min() < folds:
        raise ConfigError(
            expected="at least 2 folds and in every class at least as many clouds",
            got=f"{folds} folds and a smallest class of {min(counts, default=0)}",
            fix="Use fewer folds, or drop the small classes.",
        )
    fold = np.empty(len(labels), dtype=np.int64)
    start = 0  # the next class goes on where the last one stopped, so that folds are equally large
    for label in classes:
        rows = generator.permutation(np.flatnonzero(labels == label))
        fold[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return fold


def cross_validation(labels: IntArray, folds: int) -> Splits:
    """Return the splits of F-fold cross-validation, with other folds for every seed.

    Raises:
        ConfigError: See :func:`stratified_folds`; raised when the splits are asked for.
    """

    def splits(seed: int) -> list[tuple[Rows, Rows]]:
        fold = stratified_folds(labels, folds, np.random.default_rng(seed))
        return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(folds)]

    return splits


def _known(labels: IntArray) -> list[int]:
    rows: list[int] = np.flatnonzero(labels >= 0).tolist()
    return rows


def _labels(dataset: PointDataset) -> IntArray:
    labels = np.full(len(dataset), -1) if dataset.labels is None else np.asarray(dataset.labels)
    if not (labels >= 0).any():
        raise ConfigError(
            expected=f"clouds with a label in {dataset.name!r}",
            got="none",
            fix="A folder gets its labels from the names of its subfolders.",
        )
    return labels.astype(np.int64)
