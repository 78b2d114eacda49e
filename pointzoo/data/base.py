"""What every data set of point clouds offers, and the one whose clouds lie in arrays.

Shape legend: M clouds, P points of each cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.errors import CloudError


@runtime_checkable
class PointDataset(Protocol):
    """M point clouds with names and, where they are known, one class label each."""

    @property
    def name(self) -> str:
        """Short name of the data set."""

    @property
    def names(self) -> tuple[str, ...]:
        """(M,) one name per cloud, unique."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that the labels index; empty where there are no labels."""

    @property
    def labels(self) -> IntArray | None:
        """(M,) index in the class names, -1 where unknown; None where there are no labels."""

    def __len__(self) -> int:
        """Return M, the number of clouds."""

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``; a negative one counts from the end.

        Raises:
            IndexError: There is no such cloud.
        """


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """M clouds of equally many points in arrays, which may be memory-mapped files.

    Only shapes are checked when it is built, so that opening a mapped file reads nothing.

    Attributes:
        name: Short name of the data set.
        coords: (M, P, 3) metres, or the unit of the source.
        normals: (M, P, 3) unit length, or None.
        colors: (M, P, 3) uint8, or floating point in 0..1, or None.
        point_fields: Other per-point arrays (M, P), by name.
        labels: (M,) index in ``class_names``, -1 where unknown, or None.
        class_names: Names that the labels index.
        names: One unique name per cloud; empty: ``"0"``, ``"1"``, ...

    Raises:
        CloudError: The shapes do not fit, names repeat, or a label has no class name.
    """

    name: str
    coords: NDArray[Any]
    normals: NDArray[Any] | None = None
    colors: NDArray[Any] | None = None
    labels: IntArray | None = None
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    point_fields: Mapping[str, NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        """Check the shapes, fill in the names."""
        if self.coords.ndim != 3 or self.coords.shape[2] != 3:
            raise _mismatch("coords (M, P, 3)", f"shape {self.coords.shape}")
        for key in ("normals", "colors"):
            value = getattr(self, key)
            if value is not None and value.shape != self.coords.shape:
                raise _mismatch(f"{key} of shape {self.coords.shape}", f"shape {value.shape}")
        for key, value in (self.point_fields or {}).items():
            if value.shape[:2] != self.coords.shape[:2]:
                shape = f"{self.coords.shape[:2]}"
                raise _mismatch(f"field {key!r} of shape {shape}", f"shape {value.shape}")
        self._check_labels()
        if not self.names:
            object.__setattr__(self, "names", tuple(map(str, range(len(self)))))
        if len(self.names) != len(self) or len(set(self.names)) != len(self):
            got = f"{len(self.names)} names, {len(set(self.names))} of them different"
            raise _mismatch(f"{len(self)} different names", got)

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        if self.labels.shape != (len(self),) or self.labels.dtype.kind not in "iu":
            got = f"shape {self.labels.shape} of {self.labels.dtype}"
            raise _mismatch(f"labels ({len(self)},) of integers", got)
        if len(self) and not -1 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            got = f"{self.labels.min()} to {self.labels.max()}"
            raise _mismatch(f"labels from -1 to {len(self.class_names) - 1}", got)

    def __len__(self) -> int:
        """Return M, the number of clouds."""
        return len(self.coords)

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``; only its rows are read from a mapped file.

        Raises:
            IndexError: There is no such cloud.
        """
        fields = self.point_fields or {}
        return PointCloud(
            coords=np.asarray(self.coords[index]),
            normals=None if self.normals is None else np.asarray(self.normals[index]),
            colors=None if self.colors is None else np.asarray(self.colors[index]),
            fields={key: np.asarray(value[index]) for key, value in fields.items()},
        )


def _mismatch(expected: str, got: str) -> CloudError:
    return CloudError(expected=expected, got=got, fix="The arrays must describe the same clouds.")
