"""A data set with the classes of a model: the same names may come in another order, or in part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Renumbered:
    """A data set whose labels are numbered otherwise.

    Attributes:
        whole: The data set.
        class_names: Names that the new labels index.
        numbers: (K_old,) the new label of each old one.
    """

    whole: PointDataset
    class_names: tuple[str, ...]
    numbers: IntArray

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.whole.name

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clouds."""
        return self.whole.names

    @property
    def labels(self) -> IntArray | None:
        """(M,) new classes of the clouds, or None."""
        labels = self.whole.labels
        return None if labels is None else self._new(np.asarray(labels))

    def __len__(self) -> int:
        """Return M."""
        return len(self.whole)

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``; its points have new labels where clouds have none themselves."""
        cloud = self.whole[index]
        if cloud.labels is None or self.whole.labels is not None:
            return cloud
        return cloud.replace(labels=self._new(cloud.labels))

    def _new(self, labels: IntArray) -> IntArray:
        """Unknown stays unknown, and what is out of range stays so."""
        inside = (labels >= 0) & (labels < len(self.numbers))
        renumbered: IntArray = np.where(inside, self.numbers[np.where(inside, labels, 0)], labels)
        return renumbered


def with_classes(data: PointDataset, class_names: Sequence[str]) -> PointDataset:
    """Return a data set whose labels index the class names of a model.

    A data set without class names is taken as it is.

    Raises:
        ConfigError: The data set has a class that the model does not know.
    """
    wanted = tuple(class_names)
    if data.class_names in ((), wanted):
        return data
    unknown = [name for name in data.class_names if name not in wanted]
    if unknown:
        raise ConfigError(
            expected=f"classes out of {', '.join(wanted)}",
            got=f"{', '.join(unknown[:5])} in {data.name!r}",
            fix="Rename the classes, or leave those out.",
        )
    numbers = np.array([wanted.index(name) for name in data.class_names], dtype=np.int64)
    return Renumbered(data, wanted, numbers)
