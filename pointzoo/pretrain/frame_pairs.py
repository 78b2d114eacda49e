"""Pairs of RGB-D frames that overlap, as PointContrast contrasts them.

Paper: S. Xie et al., arXiv 2007.10985, section 3.2: frames of a scan whose clouds overlap by more
than 30 % are two views of one place.

Shape legend: F frames of a room, N points of both frames of a pair.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.data import PointDataset, join_datasets
from pointzoo.data.rooms import Frames, is_rooms, read_frames, read_rooms
from pointzoo.errors import ConfigError
from pointzoo.pretrain.sources import EVERYTHING

OVERLAP = 0.3
"""Share of the smaller frame that a pair has in common, at least (section 3.2)."""

_CELL = 0.1
"""Edge of the cells that overlap is counted in, metres."""


@dataclass(frozen=True, eq=False)
class FramePairs:
    """The matched pairs of frames of some rooms; a :class:`~pointzoo.data.PointDataset`.

    A cloud holds the points of both frames in the frame of the room; its field ``frame`` is 0 for
    those of the first and 1 for those of the second.

    Attributes:
        folder: The folder of rooms.
        name: Of the folder.
        pairs: Room and two of its frames.
    """

    folder: Path
    name: str
    pairs: tuple[tuple[str, int, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name per pair."""
        return tuple(f"{room}/{first}-{second}" for room, first, second in self.pairs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: frames are not labelled."""
        return ()

    @property
    def labels(self) -> IntArray | None:
        """None: frames are not labelled."""
        return None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> PointCloud:
        """Read a pair of frames.

        Raises:
            IndexError: There is no such pair.
            FormatError: The frames of the room cannot be read.
        """
        room, *both = self.pairs[index]
        frames = _frames_of(self.folder, room)
        clouds = [unproject(frames, frame) for frame in both]
        parts = {
            name: np.concatenate([getattr(cloud, name) for cloud in clouds])
            for name in ("coords", "colors", "normals")
        }
        side = np.repeat(np.arange(2, dtype=np.int8), [len(cloud) for cloud in clouds])
        return PointCloud(**parts, fields={"frame": side})


def open_frame_pairs(
    paths: Sequence[Path], split: str = "train", *, overlap: float = OVERLAP
) -> PointDataset:
    """Find the pairs of frames of folders of rooms that overlap enough.

    Args:
        paths: Folders of rooms with frames.
        split: The part of each, or :data:`~pointzoo.pretrain.sources.EVERYTHING`.
        overlap: Share of the smaller frame that both have in common, at least.

    Raises:
        ConfigError: A folder holds no rooms, or no pair overlaps so much.
        FormatError: A room has no frames.
    """
    return join_datasets([_open(path, split, overlap) for path in paths])


def _open(path: Path, split: str, overlap: float) -> FramePairs:
    if not is_rooms(path):
        raise ConfigError(
            expected="a folder of rooms with RGB-D frames",
            got=str(path),
            fix="Build one with `pointzoo corpus rooms --frames 40`.",
        )
    rooms = read_rooms(path, None if split == EVERYTHING else split)
    pairs = [
        (name, *pair)
        for name in rooms.names
        for pair in match_frames(read_frames(path, name), overlap=overlap)
    ]
    if not pairs:
        raise ConfigError(
            expected=f"frames that overlap by {overlap:g}",
            got="none",
            fix="Keep more frames of each room, or lower the overlap.",
        )
    return FramePairs(path, rooms.name, tuple(pairs))


def match_frames(frames: Frames, *, overlap: float = OVERLAP) -> list[tuple[int, int]]:
    """Return the pairs of frames of a room that have enough in common, the first one first.

    Args:
        frames: The frames of a room.
        overlap: Least share of the occupied cells of the smaller frame that both occupy.
    """
    cells = [
        _occupied(unproject(frames, i, normals=False).coords) for i in range(len(frames.depth))
    ]
    found = []
    for first, second in combinations(range(len(cells)), 2):
        least = min(len(cells[first]), len(cells[second]))
        shared = len(np.intersect1d(cells[first], cells[second], assume_unique=True))
        if least and shared >= overlap * least:
            found.append((first, second))
    return found


def unproject(frames: Frames, index: int, *, normals: bool = True) -> PointCloud:
    """Turn the pixels of a frame that saw something into points of the room.

    Args:
        frames: The frames of a room.
        index: Which of them.
        normals: Also compute normals, from neighbouring pixels, towards the camera.
    """
    depth = frames.depth[index].astype(np.float64) / 1000.0
    rows, columns = np.indices(depth.shape)
    k = frames.intrinsics
    rays = np.stack(
        [(columns - k[0, 2]) / k[0, 0], (rows - k[1, 2]) / k[1, 1], np.ones_like(depth)], axis=-1
    )
    local = rays * depth[..., None]  # (height, width, 3) in the frame of the camera
    pose, seen = frames.pose[index], depth > 0.0
    turned = None
    if normals:
        turned = _image_normals(local)[seen] @ pose[:3, :3].T
    return PointCloud(
        local[seen] @ pose[:3, :3].T + pose[:3, 3],
        colors=frames.color[index][seen],
        normals=turned,
    )


def _image_normals(points: FloatArray) -> FloatArray:
    """Return (height, width, 3) unit normals of an image of points, towards the camera."""
    right, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(right, down)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    away = (normals * points).sum(axis=-1, keepdims=True) > 0.0
    unit: FloatArray = np.where(away, -normals, normals) / np.maximum(length, 1e-12)
    return unit


def _occupied(coords: FloatArray) -> NDArray[np.int64]:
    """Return the numbers of the cells that points occupy, in the frame of the room."""
    cells = np.floor(coords / _CELL).astype(np.int64) + 2**20
    occupied: NDArray[np.int64] = np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2])
    return occupied


@functools.lru_cache(maxsize=16)
def _frames_of(folder: Path, room: str) -> Frames:
    return read_frames(folder, room)
