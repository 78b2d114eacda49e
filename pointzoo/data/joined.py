"""Several data sets, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError


@dataclass(frozen=True, eq=False)
class JoinedDataset:
    """The clouds of several data sets in order, their names and classes prefixed.

    Attributes:
        parts: At least one data set; all have different names.
        name: The names of the parts with ``+`` between them.
        names: One per cloud, ``<part>/<name>``.
        class_names: ``<part>/<class>``; the same class in two parts stays two classes.
        labels: Index in ``class_names``, -1 in parts without labels; None where no part has any.

    Raises:
        ConfigError: There is no part, or two have the same name.
    """

    parts: tuple[PointDataset, ...]
    name: str = field(init=False)
    names: tuple[str, ...] = field(init=False)
    class_names: tuple[str, ...] = field(init=False)
    labels: IntArray | None = field(init=False)

    def __post_init__(self) -> None:
        """Join names, classes and labels."""
        titles = [part.name for part in self.parts]
        if not titles or len(set(titles)) < len(titles):
            raise ConfigError(
                expected="at least one data set, all with different names",
                got=", ".join(titles) or "none",
                fix="Name every data set once; rename a folder where two have the same name.",
            )
        prefixed = [[f"{p.name}/{n}" for n in p.names] for p in self.parts]
        classes = [[f"{p.name}/{c}" for c in p.class_names] for p in self.parts]
        values = {
            "name": "+".join(titles),
            "names": tuple(name for part in prefixed for name in part),
            "class_names": tuple(name for part in classes for name in part),
            "labels": _join_labels(self.parts),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        """Return the number of clouds of all parts."""
        return len(self.names)

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``; a negative one counts from the end.

        Raises:
            IndexError: There is no such cloud.
        """
        row = range(len(self))[index]
        ends = list(accumulate(len(part) for part in self.parts))
        part = bisect_right(ends, row)
        return self.parts[part][row - (ends[part - 1] if part else 0)]


def join_datasets(parts: Sequence[PointDataset]) -> PointDataset:
    """Return one data set as it is, several joined; see :class:`JoinedDataset`.

    Raises:
        ConfigError: There is none, or two have the same name.
    """
    return parts[0] if len(parts) == 1 else JoinedDataset(tuple(parts))


def _join_labels(parts: Sequence[PointDataset]) -> IntArray | None:
    if all(part.labels is None for part in parts):
        return None
    shifted, first = [], 0
    for part in parts:
        own = np.full(len(part), -1) if part.labels is None else np.asarray(part.labels)
        shifted.append(np.where(own < 0, -1, own + first))
        first += len(part.class_names)
    return np.concatenate(shifted)
