"""Data sets whose clouds are files, read when they are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointzoo import io
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.splits import choose, list_files, parts_of, place_of
from pointzoo.errors import ConfigError, FormatError

SIDECAR = re.compile(r"\.(labels?|instances?)\.(npy|npz|txt)$", re.IGNORECASE)
"""Names of files that hold labels of the points of the file beside them: ``scan.labels.npy``."""


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
        splits: (M,) ``"train"``, ``"val"``, ``"test"`` or empty; None where nobody looked.
    """

    name: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: IntArray | None = None
    class_names: tuple[str, ...] = ()
    points: int = io.MESH_POINTS
    columns: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None

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
    path: Path,
    split: str | None = None,
    *,
    points: int = io.MESH_POINTS,
    classes: Sequence[str] | None = None,
    ratio: Sequence[float] | None = None,
    seed: int = 0,
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
        classes: Names of all class folders in the order of the labels; None: sorted.
        ratio: See :func:`pointzoo.data.splits.parts_of`; the shares hold in every class.
        seed: See there.

    Raises:
        FormatError: There is no file of a known format, or a list names one that is not there.
        ConfigError: There is no such split, or a folder is none of the classes.
    """
    files = list(files_of(path))
    named = {file: place_of(path, file)[0] for file in files}
    names = tuple(sorted(set(named.values()) - {""}))  # of all parts
    if names:
        files = [file for file in files if named[file]]
    if not files:
        raise FormatError(
            expected=f"files that end in {', '.join(io.READABLE)}",
            got=f"none in {path}",
            fix="Pass the folder that holds the class folders or the files.",
        )
    if names and classes is not None:
        _check_classes(path, names, classes)
        names = tuple(classes)
    groups = [named[file] for file in files]
    parts = parts_of(path, files, ratio=ratio, seed=seed, groups=groups)
    files = choose(path, parts, split)
    return FileDataset(
        name=path.resolve().name,
        paths=tuple(files),
        names=tuple(file.relative_to(path).as_posix() for file in files),
        labels=np.array([names.index(named[file]) for file in files]) if names else None,
        class_names=names,
        points=points,
        splits=tuple(parts[file] for file in files),
    )


def files_of(path: Path, *, scenes: bool = False) -> Iterator[Path]:
    """Yield the files of known formats below a folder, in an order that no file system decides.

    Args:
        path: The folder; hidden files and folders, linked folders, lists of splits and labels that
            lie beside a cloud are left out.
        scenes: Also yield folders with a ``coord.npy`` (:mod:`pointzoo.data.scenes`), as one each.
    """
    lists = set(list_files(path).values())
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if scenes and "coord.npy" in files:
            subfolders.clear()
            yield Path(folder)
            continue
        for name in sorted(files):
            file = Path(folder, name)
            known = file.suffix.lower() in io.READABLE and not SIDECAR.search(name)
            if known and not name.startswith(".") and file not in lists:
                yield file


def _check_classes(path: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    if missing := sorted(set(found) - set(classes)):
        raise ConfigError(
            expected=f"folders of the classes {', '.join(classes)} in {path}",
            got=", ".join(missing),
            fix="Name every folder in the list of classes.",
        )
