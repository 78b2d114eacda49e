"""Readers for the published layouts of object data sets.

========================  =====================================================================
ShapeNet                  ``shapenet57448xyzonly.npz``: ``data`` (57448, 2048, 3+), no labels
ModelNet40 CAD            ``modelnet40_normal_resampled/``: one text file per shape, x,y,z,nx,ny,nz
ModelNet40 HDF5           ``modelnet40_ply_hdf5_2048/``: ``data``, ``label``, maybe ``normal``
ScanObjectNN              ``main_split/*_objectdataset*.h5``: ``data``, ``label``, ``mask``
========================  =====================================================================

Coordinates come as the files have them; :func:`pointzoo.transforms.unit_sphere` is the usual
normalisation. Shape legend: M clouds, P points of each cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.base import ArrayDataset
from pointzoo.data.folder import FileDataset
from pointzoo.errors import ConfigError, FormatError, MissingExtraError
from pointzoo.io.arrays import map_array
from pointzoo.io.files import check_is_file, malformed, parsing

Split = Literal["train", "val", "test"]

SCANOBJECTNN_CLASSES = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door"),
    *("shelf", "table", "bed", "pillow", "sink", "sofa", "toilet"),
)
"""In the order of the labels (https://hkust-vgd.github.io/scanobjectnn/)."""

_LARGEST_RATIO = 1100  # deflate gives 1032 at most


def read_shapenet(path: Path) -> ArrayDataset:
    """Open the pretraining set of the DCGLR paper (1.4 GB, mapped where it is not compressed).

    Args:
        path: The NPZ file.

    Raises:
        FormatError: The file is damaged or has no array ``data`` (M, P, 3+).
    """
    coords = map_array(path, "data")
    _check_clouds(path, coords)
    return ArrayDataset(name=path.stem, coords=coords[:, :, :3])


def read_modelnet_text(path: Path, split: Split | None = None) -> FileDataset:
    """Open ModelNet40 CAD (or its subset ModelNet10): 10,000 points with normals a shape.

    Args:
        path: The folder ``modelnet40_normal_resampled``.
        split: ``"train"`` (9,843 shapes), ``"test"`` (2,468), or None for both, train first.

    Raises:
        FormatError: A list is missing or names an unknown class.
        ConfigError: There is no such split.
    """
    lists = sorted(path.glob("modelnet*_shape_names.txt"), reverse=True)  # 40 before 10
    if not lists:
        raise malformed(path, "ModelNet", "there is no modelnet40_shape_names.txt")
    prefix = lists[0].name.removesuffix("_shape_names.txt")
    classes = _lines(lists[0])
    shapes = [shape for part in _parts(split) for shape in _lines(path / f"{prefix}_{part}.txt")]
    labels = [_class_index(path, classes, shape.rpartition("_")[0]) for shape in shapes]
    return FileDataset(
        name=path.name,
        paths=tuple(path / classes[i] / f"{s}.txt" for i, s in zip(labels, shapes, strict=True)),
        names=tuple(shapes),
        labels=np.array(labels, dtype=np.int64),
        class_names=classes,
        columns=("x", "y", "z", "nx", "ny", "nz"),
    )


def read_modelnet_hdf5(path: Path, split: Split | None = None) -> ArrayDataset:
    """Open ModelNet40 in HDF5: 2,048 points a shape, read into memory.

    Args:
        path: The folder ``modelnet40_ply_hdf5_2048``.
        split: ``"train"``, ``"test"``, or None for both, train first.

    Raises:
        FormatError: A file is missing or damaged.
        ConfigError: There is no such split.
        MissingExtraError: h5py is not installed.
    """
    classes = _lines(path / "shape_names.txt")
    parts, names = [], []
    for part in _parts(split):
        files = [path / Path(line).name for line in _lines(path / f"{part}_files.txt")]
        arrays = [_read_hdf5(file, ("data", "label"), ("normal",)) for file in files]
        parts += arrays
        count = sum(len(array["data"]) for array in arrays)
        names += [f"{part}/{i}" for i in range(count)]
    return _join(path.name, parts, classes, names)


def read_scanobjectnn(path: Path, split: Split | None = None) -> ArrayDataset:
    """Open ScanObjectNN: 2,048 points a scanned object, read into memory.

    The field ``mask`` of a cloud is -1 on points of the background.

    Args:
        path: One HDF5 file (any variant), or the folder with ``training_objectdataset.h5`` and
            ``test_objectdataset.h5``.
        split: ``"train"`` or ``"test"`` of a folder; None for both, train first, and for a file.

    Raises:
        FormatError: A file is missing or damaged.
        ConfigError: There is no such split.
        MissingExtraError: h5py is not installed.
    """
    files: list[tuple[str, Path]] = [(path.stem, path)]
    if path.is_dir():
        stems = {"train": "training", "test": "test"}
        files = [(part, path / f"{stems[part]}_objectdataset.h5") for part in _parts(split)]
    elif split is not None:
        raise no_split(path, split)
    parts, names = [], []
    for part, file in files:
        parts.append(_read_hdf5(file, ("data", "label"), ("mask",)))
        names += [f"{part}/{i}" for i in range(len(parts[-1]["data"]))]
    return _join(path.stem, parts, SCANOBJECTNN_CLASSES, names)


def no_split(path: Path, split: str) -> ConfigError:
    """Build the error for a split that a data set does not have."""
    return ConfigError(
        expected=f"a data set with a part {split!r}",
        got=f"{path}, which has none",
        fix="Leave out the split, or pass the path of the part.",
    )


def _parts(split: Split | None) -> tuple[Literal["train", "test"], ...]:
    if split is None:
        return ("train", "test")
    if split not in ("train", "test"):
        raise ConfigError(
            expected="the split 'train' or 'test'", got=f"{split!r}", fix="It has no other."
        )
    return (split,)


def _lines(path: Path) -> tuple[str, ...]:
    """Non-empty lines of a list file."""
    check_is_file(path)
    with parsing(path, "list"):
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        return tuple(line for line in lines if line)


def _class_index(path: Path, classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise malformed(path, "ModelNet", f"a shape of the unlisted class {name!r}")
    return classes.index(name)


def _check_clouds(path: Path, coords: NDArray[Any]) -> None:
    if coords.ndim != 3 or coords.shape[2] < 3 or coords.dtype.kind != "f":
        raise malformed(path, "data set", f"'data' has shape {coords.shape} of {coords.dtype}")


def _read_hdf5(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, NDArray[Any]]:
    """Read arrays of an HDF5 file: ``data`` (M, P, 3), ``label`` (M,), others (M, P, ...)."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "hdf5") from error
    check_is_file(path)
    arrays: dict[str, NDArray[Any]] = {}
    with parsing(path, "HDF5"):
        try:
            with h5py.File(path, "r") as file:
                for key in (*required, *(key for key in optional if key in file)):
                    if file[key].external or file.get(key, getlink=True).__class__ != h5py.HardLink:
                        raise malformed(path, "HDF5", f"{key!r} lies in another file")
                    if file[key].nbytes > _LARGEST_RATIO * path.stat().st_size:
                        raise malformed(path, "HDF5", f"{key!r} claims more than fits")
                    arrays[key] = file[key][()]
        except OSError as error:  # h5py's word for damage
            raise malformed(path, "HDF5", str(error)) from error
        _check_clouds(path, arrays["data"])
        arrays["data"] = arrays["data"][:, :, :3]
        arrays["label"] = arrays["label"].reshape(-1).astype(np.int64)
    if any(len(array) != len(arrays["data"]) for array in arrays.values()):
        raise malformed(path, "HDF5", "the arrays have unequal lengths")
    return arrays


def _join(
    name: str,
    parts: Sequence[dict[str, NDArray[Any]]],
    classes: tuple[str, ...],
    names: Sequence[str],
) -> ArrayDataset:
    keys = [key for key in parts[0] if all(key in part for part in parts)]
    sizes = {part["data"].shape[1] for part in parts}
    if len(sizes) > 1:
        raise FormatError(
            expected="files with equally many points a cloud",
            got=f"{sorted(sizes)}",
            fix="Open the files one by one.",
        )
    joined = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    return ArrayDataset(
        name=name,
        coords=joined["data"],
        normals=joined.get("normal"),
        labels=joined["label"],
        class_names=classes,
        names=tuple(names),
        point_fields={"mask": joined["mask"]} if "mask" in joined else None,
    )
