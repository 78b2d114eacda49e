"""Opens a data set, whatever layout it has."""

from __future__ import annotations

import os
from pathlib import Path

from pointzoo import io
from pointzoo.data.base import PointDataset
from pointzoo.data.labelled_folder import open_folder
from pointzoo.data.labelling import CLASSES_FILE
from pointzoo.data.readers import (
    Split,
    no_split,
    read_modelnet_hdf5,
    read_modelnet_text,
    read_scanobjectnn,
    read_shapenet,
)
from pointzoo.data.rooms import is_rooms, read_rooms
from pointzoo.data.scenes import is_scenes, read_scenes
from pointzoo.errors import FormatError

_SHAPENET = "shapenet57448xyzonly.npz"
_SCANOBJECTNN = ("training_objectdataset.h5", "test_objectdataset.h5")


def open_dataset(
    path: str | os.PathLike[str],
    split: Split | None = None,
    *,
    points: int = io.MESH_POINTS,
    objects: bool | None = None,
) -> PointDataset:
    """Open a data set of point clouds; the layout is told from the names of the files.

    A corpus folder, a folder of rooms, scenes as Pointcept preprocesses them (see
    :mod:`pointzoo.data.scenes`), ShapeNet, ModelNet40 as text or HDF5, ScanObjectNN (see
    :mod:`pointzoo.data.readers`), or a folder of files: objects sorted by class, or scenes with
    labels per point (see :mod:`pointzoo.data.labelled_folder`).

    Args:
        path: The folder, or the single file of ShapeNet or ScanObjectNN.
        split: ``"train"``, ``"test"`` or, in a folder of files, ``"val"``; None for everything.
        points: Points to draw from each mesh in a folder of files.
        objects: Whether a folder of files holds objects sorted by class; None: as
            :func:`~pointzoo.data.labelled_folder.open_folder` guesses.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        FormatError: The layout is unknown, or a file is missing or damaged.
        ConfigError: The data set has no such split.
        MissingExtraError: The layout needs a package that is not installed.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"no such file or folder: {place}")
    dataset = _open_file(place, split) if place.is_file() else _open_known(place, split)
    return dataset or open_folder(place, split, points=points, objects=objects)


def _open_file(path: Path, split: Split | None) -> PointDataset:
    ending = path.suffix.lower()
    if ending in (".h5", ".hdf5"):
        return read_scanobjectnn(path, split)
    if ending != ".npz":
        raise FormatError(
            expected="a folder, ShapeNet's .npz or ScanObjectNN's .h5",
            got=f"{path}",
            fix="Pass the folder of a data set; a single cloud is read with read().",
        )
    if split is not None:
        raise no_split(path, split)
    return read_shapenet(path)


def _open_known(path: Path, split: Split | None) -> PointDataset | None:
    """Open a folder of a published layout, None if it has none of them."""
    if is_rooms(path):
        return read_rooms(path, split)
    if (path / "manifest.json").is_file() and (path / "coords.npy").is_file():
        if split is not None:
            raise no_split(path, split)
        from pointzoo.data.corpus import read_corpus

        return read_corpus(path)
    if (path / _SHAPENET).is_file():
        return _open_file(path / _SHAPENET, split)
    if any(path.glob("modelnet*_shape_names.txt")):
        return read_modelnet_text(path, split)
    if (path / "shape_names.txt").is_file() and (path / "train_files.txt").is_file():
        return read_modelnet_hdf5(path, split)
    for folder in (path, path / "main_split"):
        if all((folder / name).is_file() for name in _SCANOBJECTNN):
            return read_scanobjectnn(folder, split)
    known = is_scenes(path) and not (path / CLASSES_FILE).is_file()
    return read_scenes(path, split) if known else None
