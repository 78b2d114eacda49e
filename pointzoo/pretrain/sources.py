"""The data that a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pointzoo.data import PointDataset, join_datasets, open_dataset
from pointzoo.data.readers import Split
from pointzoo.errors import ConfigError

EVERYTHING = "all"


def open_training(paths: Sequence[Path], split: str = "train") -> PointDataset:
    """Open data sets to train on and join them, without the clouds that are kept for tests.

    Args:
        paths: The data sets.
        split: The part of those that have parts; :data:`EVERYTHING` for all of it. A data set
            without parts is taken whole where ``split`` is ``"train"``.

    Raises:
        ConfigError: A data set has no such part, or two have the same name.
        FileNotFoundError: There is nothing at a path.
        FormatError: A layout is unknown, or a file is missing or damaged.
    """
    return join_datasets([_open(path, split) for path in paths])


def _open(path: Path, split: str) -> PointDataset:
    if split == EVERYTHING:
        return open_dataset(path)
    try:
        return open_dataset(path, cast(Split, split))
    except ConfigError:
        if split != "train":
            raise
        return open_dataset(path)
