"""The clouds of a fine-tuning: which train, which validate, and how a step draws them.

Every random choice is a function of the seed and the step, so that a resumed run repeats what a run
in one piece would have done.

Shape legend: B clouds of a batch, N points, K classes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointzoo import transforms
from pointzoo.batch import PointBatch
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, TrainingError
from pointzoo.finetuning.config import FinetuneConfig
from pointzoo.finetuning.task import Item, Task
from pointzoo.pretrain.masks import mix_offsets
from pointzoo.pretrain.samples import epoch_order
from pointzoo.tasks.changes import change_cloud
from pointzoo.tasks.recipes import get_recipe
from pointzoo.tasks.scenes import thinned

Data: TypeAlias = "str | os.PathLike[str] | PointDataset | tuple[PointDataset, PointDataset]"
"""A path, a data set, or a training and a validation set."""

CACHED_POINTS = 20_000_000
"""Points of training clouds that are kept in memory, about 70 bytes each."""

_VALIDATION = frozenset({"val", "valid", "validation"})


@dataclass(frozen=True, eq=False)
class Subset:
    """Some clouds of a data set.

    Attributes:
        whole: The data set.
        rows: (M,) which of its clouds.
    """

    whole: PointDataset
    rows: IntArray

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.whole.name

    @property
    def names(self) -> tuple[str, ...]:
        """(M,) names of the clouds."""
        return tuple(self.whole.names[row] for row in self.rows)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data set."""
        return self.whole.class_names

    @property
    def labels(self) -> IntArray | None:
        """(M,) classes of the clouds, or None."""
        return None if self.whole.labels is None else np.asarray(self.whole.labels)[self.rows]

    def __len__(self) -> int:
        """Return M."""
        return len(self.rows)

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``."""
        return self.whole[int(self.rows[index])]


def split(
    data: Data, *, share: float, seed: int, objects: bool | None = None
) -> tuple[PointDataset, PointDataset | None]:
    """Return the training set, and the validation set if there is one.

    A path is opened by :func:`pointzoo.data.open_dataset`. Where it has a part that is really named
    val (valid, validation), that part validates; a part named test is never touched. Otherwise
    ``share`` of the training clouds is held out: of every class the same share, where clouds have
    classes.

    Args:
        data: See :data:`Data`.
        share: 0 for no validation.
        seed: Of the choice.
        objects: Whether a folder holds objects sorted by class, not scenes with labels of points;
            None: as :func:`pointzoo.data.open_dataset` guesses.

    Raises:
        FileNotFoundError: There is nothing at the path.
        FormatError: The layout is unknown.
        ConfigError: A part is empty, or the parts have other classes.
    """
    train: PointDataset
    validation: PointDataset | None
    if isinstance(data, tuple):
        train, validation = data
    elif isinstance(data, str | os.PathLike):
        train, validation = _open(Path(data), objects)
        if validation is None:
            train, validation = _held_out(train, share, seed)
    else:
        train, validation = _held_out(data, share, seed)
    for part, what in ((train, "training"), (validation, "validation")):
        if part is not None and not len(part):
            raise ConfigError(
                expected=f"at least one {what} cloud", got="none", fix="Add data to that part."
            )
    if validation is not None and validation.class_names != train.class_names:
        raise ConfigError(
            expected=f"a validation set with the classes {train.class_names}",
            got=repr(validation.class_names),
            fix="Give both parts the same class names in the same order.",
        )
    return train, validation


def _open(path: Path, objects: bool | None) -> tuple[PointDataset, PointDataset | None]:
    try:
        train = open_dataset(path, "train", objects=objects)
    except ConfigError:  # no parts
        return open_dataset(path, objects=objects), None
    return train, validation_part(path, objects=objects)


def validation_part(path: Path, *, objects: bool | None = None) -> PointDataset | None:
    """Return the part of a data set that is really named val (valid, validation), if it has one.

    Raises:
        FormatError: The layout is unknown.
    """
    try:
        found = open_dataset(path, "val", objects=objects)
    except ConfigError:
        return None
    return found if _is_validation(found) else None


def _is_validation(part: PointDataset) -> bool:
    """Say whether a part that was asked for as val is one: some layouts give test instead."""
    splits = getattr(part, "splits", None)
    if splits is not None:
        return set(splits) <= _VALIDATION
    folders = [set(Path(name.lower()).parts[:2]) for name in part.names]
    return all(_VALIDATION & parents for parents in folders)


def _held_out(
    data: PointDataset, share: float, seed: int
) -> tuple[PointDataset, PointDataset | None]:
    """Return the clouds that stay and those that are held out."""
    if share == 0.0 or len(data) < 2:
        return data, None
    labels = np.zeros(len(data), np.int64) if data.labels is None else np.asarray(data.labels)
    generator = np.random.default_rng([seed, 1])
    chosen: list[int] = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen += rows[: min(round(share * len(rows)), len(rows) - 1)].tolist()
    if not chosen:
        chosen = [int(generator.integers(len(data)))]
    rows = np.sort(np.array(chosen, dtype=np.int64))
    return Subset(data, np.setdiff1d(np.arange(len(data)), rows)), Subset(data, rows)


class Items(Sequence[Item]):
    """The clouds of a data set as an encoder sees them, kept in memory as far as they fit."""

    def __init__(
        self, data: PointDataset, encoder: PointEncoder, task: Task[Any], *, thin: float | None
    ) -> None:
        """Keep what is needed to read a cloud.

        Args:
            data: The clouds.
            encoder: Whose frame they are brought into.
            task: Whose labels they need.
            thin: See :class:`pointzoo.finetuning.config.FinetuneConfig`.
        """
        self.data, self.encoder, self.task = data, encoder, task
        grid = getattr(encoder.config, "grid_size", 0.0)
        self.edge = grid / 2 if thin is None else thin
        self._kept: OrderedDict[int, Item] = OrderedDict()
        self._points = 0

    def __len__(self) -> int:
        """Return how many clouds there are."""
        return len(self.data)

    def __getitem__(self, row: Any) -> Any:
        """Return cloud ``row``.

        Raises:
            ConfigError: Its labels cannot be trained on.
            CloudError: Its points cannot be used.
            FormatError: Its file is damaged.
            TrainingError: Its file is gone.
        """
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        item = self._read(range(len(self))[row])
        self._kept[row] = item
        self._points += len(item.cloud)
        while self._points > CACHED_POINTS and len(self._kept) > 1:
            self._points -= len(self._kept.popitem(last=False)[1].cloud)
        return item

    def _read(self, row: int) -> Item:
        labels = self.data.labels
        label = -1 if labels is None else int(labels[row])
        item = Item(self._cloud(row).require_usable(), label, self.data.names[row])
        self.task.require_labels(item)
        cloud = thinned(item.cloud, self.edge) if self.edge else item.cloud
        coords, _ = self.encoder.preprocess(cloud)
        return item.with_cloud(cloud.replace(coords=coords.numpy()))

    def _cloud(self, row: int) -> PointCloud:
        try:
            return self.data[row]
        except OSError as error:
            raise TrainingError(
                expected=f"the cloud {self.data.names[row]!r} of {self.data.name!r}",
                got=str(error),
                fix="Bring the file back and go on with resume=True.",
            ) from error


def labelled_rows(items: Items) -> IntArray:
    """Return the rows of the clouds that a loss can use; labels of points are read and checked.

    Raises:
        ConfigError: There is none, or all labels are of one class.
    """
    known = items.data.labels
    if items.task.reads_points or known is None:
        counts = torch.stack([items.task.class_counts([item]) for item in items])
    else:  # classes of whole clouds are known without reading one
        classes = torch.arange(len(items.task.class_names))
        counts = (torch.from_numpy(np.asarray(known, np.int64))[:, None] == classes).long()
    rows: IntArray = np.flatnonzero(counts.sum(dim=1).numpy())
    present = int((counts.sum(dim=0) > 0).sum())
    if present < 2:
        raise ConfigError(
            expected="labels of at least two classes in the training clouds",
            got=f"{present} in {len(items)} clouds of {items.data.name!r}",
            fix="Label more; `pointzoo data check` counts the classes of every part.",
        )
    return rows


def class_weights(items: Items, rows: IntArray, config: FinetuneConfig) -> Tensor | None:
    """Return a weight per class (K,), or None; see ``FinetuneConfig.class_weights``.

    Raises:
        ConfigError: Another number of weights than classes is given, or one is negative.
    """
    given, classes = config.class_weights, len(items.task.class_names)
    if given == "none":
        return None
    if not isinstance(given, str):
        if len(given) != classes or min(given) < 0:
            raise ConfigError(
                expected=f"{classes} class weights of at least 0",
                got=repr(given),
                fix=f"One for each of {', '.join(items.task.class_names)}.",
            )
        return torch.tensor(given)
    counts = items.task.class_counts(items[int(row)] for row in rows).double()
    share = counts / counts.sum()
    weights = torch.where(counts > 0, share.clamp(min=1e-12).rsqrt(), 0.0)
    return (weights / weights[counts > 0].mean()).float()


@dataclass(frozen=True, eq=False)
class Drawing:
    """How a batch is drawn.

    Attributes:
        items: The clouds.
        rows: Those that have labels.
        config: Settings.
        seed: Of all choices.
    """

    items: Items
    rows: IntArray
    config: FinetuneConfig
    seed: int

    @property
    def batch_size(self) -> int:
        """Clouds of a batch; all of them where there are fewer."""
        return min(self.config.batch_size, len(self.rows))

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return len(self.rows) // self.batch_size

    def batch(self, number: int) -> tuple[PointBatch, Any]:
        """Return batch ``number`` of the run, changed at random, and what the loss needs."""
        epoch, position = divmod(number, self.batches)
        order = epoch_order((len(self.rows),), (), self.seed, epoch)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        items = []
        for place, row in enumerate(chosen):
            generator = np.random.default_rng([self.seed, 2, number, place])
            items.append(self._changed(self.items[int(self.rows[row])], generator))
        batch, target = self.collate(items)
        generator = np.random.default_rng([self.seed, 3, number])
        if self.config.mix > 0.0 and generator.random() < self.config.mix:
            batch = PointBatch(batch.coords, batch.features, mix_offsets(batch.offsets))
        return batch, target

    def collate(self, items: Sequence[Item]) -> tuple[PointBatch, Any]:
        """Put items into a batch as they are; return it and what the loss needs."""
        coords = [torch.from_numpy(item.cloud.coords.astype(np.float32)) for item in items]
        encoder = self.items.encoder
        channels = [torch.from_numpy(encoder.read_channels(item.cloud)) for item in items]
        return PointBatch.collate(coords, channels), self.items.task.target(items)

    def _changed(self, item: Item, generator: np.random.Generator) -> Item:
        recipe = get_recipe(self.config.augmentation)
        cut = _cut if self.items.task.crops else _subsampled
        cloud = cut(item.cloud, self.config.crop_points, generator)
        return item.with_cloud(change_cloud(cloud, recipe, generator))


def require_mixable(task: Task[Any], encoder: PointEncoder, config: FinetuneConfig) -> None:
    """Refuse to lay clouds over each other where that means nothing.

    Raises:
        ConfigError: The task judges whole clouds, or the encoder does not work on voxels.
    """
    if config.mix > 0.0 and not (task.mixes and encoder.capabilities.levels):
        raise ConfigError(
            expected="mix=0 for this task and encoder",
            got=str(config.mix),
            fix="Mixing is for segmentation with encoders that work on voxels.",
        )


def _cut(cloud: PointCloud, points: int, generator: np.random.Generator) -> PointCloud:
    """Return the points nearest to a random labelled one; a smaller cloud as it is."""
    if not points or len(cloud) <= points:
        return cloud
    known: NDArray[Any] = np.arange(len(cloud))
    if cloud.labels is not None and bool((cloud.labels >= 0).any()):
        known = np.flatnonzero(cloud.labels >= 0)
    away = ((cloud.coords - cloud.coords[generator.choice(known)]) ** 2).sum(axis=1)
    return cloud.select(np.argpartition(away, points - 1)[:points])


def _subsampled(cloud: PointCloud, points: int, generator: np.random.Generator) -> PointCloud:
    """Return random points of an object, which is seen as a whole; a smaller one as it is."""
    if not points or len(cloud) <= points:
        return cloud
    return transforms.subsample(cloud, points, generator)
