"""Reads scenes in the layout that Pointcept's preprocessing writes, a folder of arrays each.

============  =====================================================================  ============
ScanNet       ``{train,val,test}/scene0000_00/`` with ``segment20``                  SCANNET20
ScanNet200    the same folders, ``segment200``                                       SCANNET200
ARKitScenes   ``{Training,Validation}/40753679/``                                    no labels
S3DIS         ``Area_{1..6}/office_1/`` with ``segment``; Area_5 is the test split   S3DIS13
============  =====================================================================  ============

Each folder holds ``coord.npy`` (P, 3) in metres and maybe ``color.npy`` (P, 3) in 0..255,
``normal.npy`` (P, 3), the labels and ``instance.npy`` (P,). Older releases wrote one ``.pth`` a
scene, which cannot be read without running what is inside; preprocess those scenes again. Shape
legend: M scenes, P points of a scene.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.scene_classes import S3DIS13, SCANNET20, SCANNET200
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.io.arrays import map_npy

LABELS: Mapping[str, tuple[str, ...]] = {
    "segment20": SCANNET20,
    "segment200": SCANNET200,
    "segment": S3DIS13,
}
"""Classes of each file of labels; where a scene has several, the first that is there is taken."""

_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_AREA = re.compile(r"Area_(\d)", re.IGNORECASE)
_TEST_AREA = "5"
_DEPTH = 3
_FIX = "Run Pointcept's preprocessing again, or leave that scene out."


@dataclass(frozen=True, eq=False)
class SceneDataset:
    """M scenes, each a folder of arrays; a :class:`~pointzoo.data.PointDataset`.

    Attributes:
        name: Of the folder.
        names: (M,) paths below the folder.
        splits: (M,) ``"train"``, ``"val"``, ``"test"``, or ``""`` where the folders do not say.
        class_names: Names that the labels of the points index; empty where there are none.
        root: The folder.
        segment: Name of the file of labels without its ending; empty for none.
    """

    name: str
    names: tuple[str, ...]
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    root: Path
    segment: str

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels, scenes have none."""
        return None

    def __len__(self) -> int:
        """Return M, the number of scenes."""
        return len(self.names)

    def __getitem__(self, index: int) -> PointCloud:
        """Read scene ``index``; the field ``instance``, where known, tells the objects apart.

        Raises:
            IndexError: There is no such scene.
            FormatError: A file is damaged, or the files do not fit each other.
        """
        folder = self.root / self.names[index]
        arrays = {
            key: load_array(folder / f"{key}.npy")
            for key in ("coord", "color", "normal", "instance", self.segment)
            if key and (folder / f"{key}.npy").is_file()
        }
        try:
            return _cloud(arrays, self.segment, len(self.class_names))
        except CloudError as error:
            raise FormatError(
                expected="arrays of one scene", got=f"{folder}: {error}", fix=_FIX
            ) from error


def is_scenes(path: Path) -> bool:
    """Whether a folder holds scenes in this layout."""
    return any(any(path.glob("*/" * depth + "coord.npy")) for depth in range(_DEPTH + 1))


def read_scenes(path: Path, split: str | None = None, *, labels: str | None = None) -> SceneDataset:
    """Open scenes of ScanNet, ScanNet200, ARKitScenes or S3DIS as Pointcept preprocesses them.

    Args:
        path: The folder above the splits or areas, one of them, or one scene.
        split: ``"train"``, ``"val"``, ``"test"``, or None for everything. Of S3DIS, ``"val"`` and
            ``"test"`` are Area 5 and ``"train"`` the others.
        labels: A key of :data:`LABELS`, for instance ``"segment200"``; None: the first that the
            scenes have.

    Raises:
        FormatError: There is no scene.
        ConfigError: There is no such split, or the scenes have no such labels.
    """
    folders = sorted(
        {
            file.parent
            for depth in range(_DEPTH + 1)
            for file in path.glob("*/" * depth + "coord.npy")
        }
    )
    if not folders:
        raise FormatError(
            expected="folders of scenes with coord.npy in each",
            got=f"none in {path}",
            fix="Pass the output folder of Pointcept's preprocessing.",
        )
    found = [(folder, _split_of(path, folder)) for folder in folders]
    if split is not None:
        wanted = {split, "area5"} if split in ("val", "test") else {split}
        chosen = [entry for entry in found if entry[1] in wanted]
        if not chosen:
            raise ConfigError(
                expected=f"scenes of the split {split!r} in {path}",
                got=", ".join(sorted({part for _, part in found if part})) or "no splits",
                fix="Leave out the split, or name one that is there.",
            )
        found = chosen
    segment = _segment(path, [folder for folder, _ in found], labels)
    return SceneDataset(
        name=path.resolve().name,
        names=tuple(folder.relative_to(path).as_posix() for folder, _ in found),
        splits=tuple("test" if part == "area5" else part for _, part in found),
        class_names=LABELS.get(segment, ()),
        root=path,
        segment=segment,
    )


def _split_of(root: Path, folder: Path) -> str:
    """Split that the names of the folders tell, from the root's own name down."""
    for name in (root.resolve().name, *folder.relative_to(root).parts):
        if name.lower() in _SPLITS:
            return _SPLITS[name.lower()]
        area = _AREA.fullmatch(name)
        if area:
            return "area5" if area[1] == _TEST_AREA else "train"
    return ""


def _segment(path: Path, folders: Sequence[Path], labels: str | None) -> str:
    names = (labels,) if labels is not None else tuple(LABELS)
    for name in names:
        if name in LABELS and any((folder / f"{name}.npy").is_file() for folder in folders):
            return name
    if labels is not None:
        raise ConfigError(
            expected=f"labels of one of the kinds {', '.join(LABELS)} that the scenes have",
            got=f"{labels!r} for {path}",
            fix="Leave them out to take what is there.",
        )
    return ""


def load_array(file: Path) -> NDArray[Any]:
    """Load one array of a scene.

    Raises:
        FormatError: It is damaged.
    """
    try:
        return np.array(map_npy(file))
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"the array file {file}", got=f"{type(error).__name__}: {error}", fix=_FIX
        ) from error


def color_bytes(color: NDArray[Any]) -> NDArray[Any]:
    """Return colours (N, 3) of 0..255 as bytes; some write them as floating point."""
    if color.dtype == np.uint8:
        return color
    return np.clip(np.round(color), 0, 255).astype(np.uint8)


def _cloud(arrays: Mapping[str, NDArray[Any]], segment: str, classes: int) -> PointCloud:
    count = len(arrays["coord"])
    color = arrays.get("color")
    labels = np.full(count, -1, dtype=np.int64)
    if segment in arrays:
        labels = arrays[segment].reshape(-1).astype(np.int64)
        labels[(labels < 0) | (labels >= classes)] = -1
    instance = arrays.get("instance")
    return PointCloud(
        coords=arrays["coord"],
        colors=None if color is None else color_bytes(color),
        normals=arrays.get("normal"),
        labels=labels if segment else None,
        fields={} if instance is None else {"instance": instance.reshape(-1)},
    )
