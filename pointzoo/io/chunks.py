"""A scan a part at a time, so that memory does not grow with it where the format allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pointzoo.cloud import PointCloud

CHUNK_POINTS = 250_000
"""Points of a part; with 96 features each in float32, 96 MB."""


class Chunks(Protocol):
    """N points, a part at a time; iterating again starts anew."""

    def __len__(self) -> int:
        """Return N."""

    def __iter__(self) -> Iterator[PointCloud]:
        """Yield the points in order, with colours and normals but without other fields."""


@dataclass(frozen=True)
class CloudChunks:
    """A cloud in memory, a part at a time.

    Attributes:
        cloud: All of it.
        rows: Points of a part.
    """

    cloud: PointCloud
    rows: int = CHUNK_POINTS

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.cloud)

    def __iter__(self) -> Iterator[PointCloud]:
        """Yield views of the cloud."""
        colors, normals = self.cloud.colors, self.cloud.normals
        for start in range(0, len(self.cloud), self.rows):
            part = slice(start, start + self.rows)
            yield PointCloud(
                self.cloud.coords[part],
                colors=None if colors is None else colors[part],
                normals=None if normals is None else normals[part],
            )
