"""Data sets whose clouds are files, read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointzoo import io
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.errors import ConfigError, FormatError

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SUBSTITUTES = {"val": "test", "test": "val"}


@dataclass(frozen=True, eq=False)
class FileDataset:
    """M clouds, one file each.

    Attributes:
        name: Short name of the data set.
        paths: The files.
        names: One unique name per cloud.
        labels: (M,) index in ``class_names``, -1 where unknown, or None.
        class_names: Names that the labels index.
        points: Points to draw from each file that is a mesh.
        columns: Names of the columns of text files, where the files do not say them.
    """

    name: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: IntArray | None = None
    class_names: tuple[str, ...] = ()
    points: int = io.MESH_POINTS
    columns: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return M, the number of clouds."""
        return len(self.paths)

    def __getitem__(self, index: int) -> PointCloud:
        """Read cloud ``index``; the same file gives the same points, drawn ones too.

        Raises:
            IndexError: There is no such cloud.
            FormatError: The file is damaged.
        """
        return io.read(self.paths[index], points=self.points, columns=self.columns)


def read_folder(
    path: Path, split: str | None = None, *, points: int = io.MESH_POINTS
) -> FileDataset:
    """Open a folder of point-cloud or mesh files of any format.

    The class of a file is the first folder it lies in; folders named train, val or test (training,
    valid, validation, testing) above or right below the class are parts: ``train/chair/1.ply`` and
    ``chair/train/1.ply`` are the same. Files that lie beside class folders are left out, as are
    hidden ones and linked folders. Without class folders there are no labels.

    Args:
        path: The folder.
        split: ``"train"``, ``"val"`` or ``"test"`` (of the last two, the one that exists), or None
            for all files.
        points: Points to draw from each file that is a mesh.

    Raises:
        FormatError: There is no file of a known format.
        ConfigError: There is no such split.
    """
    found = [(file, *_place(path, file)) for file in _files(path)]
    classes = tuple(sorted({name for _, name, _ in found if name}))  # of all parts
    splits = {part for _, _, part in found}
    if split is not None:
        wanted = split if split in splits else _SUBSTITUTES.get(split)
        found = [entry for entry in found if entry[2] == wanted]
        if not found or wanted is None:
            raise ConfigError(
                expected=f"a folder {split!r} in {path}",
                got=", ".join(sorted(part for part in splits if part)) or "no such parts",
                fix="Leave out the split, or sort the files into train/ and test/.",
            )
    if classes:
        found = [entry for entry in found if entry[1]]
    if not found:
        raise FormatError(
            expected=f"files that end in {', '.join(io.READABLE)}",
            got=f"none in {path}",
            fix="Pass the folder that holds the class folders or the files.",
        )
    return FileDataset(
        name=path.resolve().name,
        paths=tuple(file for file, _, _ in found),
        names=tuple(file.relative_to(path).as_posix() for file, _, _ in found),
        labels=np.array([classes.index(name) for _, name, _ in found]) if classes else None,
        class_names=classes,
        points=points,
    )


def _files(path: Path) -> Iterator[Path]:
    """Files of known formats, in an order that no file system decides."""
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in io.READABLE:
                yield Path(folder, name)


def _place(root: Path, file: Path) -> tuple[str, str]:
    """Class and part of a file, each empty where there is none."""
    folders = list(file.relative_to(root).parts[:-1])
    for i, name in enumerate(folders[:2]):
        part = _SPLITS.get(name.lower())
        if part:
            del folders[i]
            return (folders[0] if folders else ""), part
    return (folders[0] if folders else ""), ""
