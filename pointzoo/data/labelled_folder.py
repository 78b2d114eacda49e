"""A user's own folder: scenes with labels per point, or objects in folders named by class.

::

    scenes/classes.json                names of the classes; see Labelling.of (may be missing)
    scenes/train/a.ply                 labels in a field of the file ...
    scenes/train/b.las                 ... of any format that has fields ...
    scenes/val/c.xyz  c.labels.npy     ... or beside it (.npy, .npz, .txt); c.instances.npy too
    scenes/val/d/coord.npy ...         ... or as Pointcept writes scenes: d/segment.npy

    objects/train/chair/1.ply          see read_folder

Instead of the folders train, val and test there may be lists train.txt, val.txt and test.txt, or a
ratio is given (:mod:`pointzoo.data.splits`). Shape legend: M scenes, N points, K classes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pointzoo import io
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.folder import SIDECAR, FileDataset, files_of, read_folder
from pointzoo.data.labelling import (
    CLASSES_FILE,
    Labelling,
    find_instances,
    find_labels,
    read_beside,
)
from pointzoo.data.scenes import color_bytes, load_array
from pointzoo.data.splits import choose, parts_of, place_of
from pointzoo.errors import CloudError, FormatError, PointzooError


@dataclass(frozen=True, eq=False)
class FolderDataset:
    """M scenes with labels per point, one file or folder each, read when they are asked for.

    A :class:`~pointzoo.data.PointDataset`; :func:`open_folder` makes one.

    Attributes:
        name: Of the folder.
        paths: The scenes.
        names: (M,) paths below the folder.
        labelling: Where labels are and what they mean.
        every: The scenes of all splits: classes that come from the data come from all of them.
        columns: Names of the columns of text files, where the files do not say them.
        splits: (M,) ``"train"``, ``"val"``, ``"test"``, or empty where nothing says it.
    """

    name: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labelling: Labelling = dataclasses.field(default_factory=Labelling)
    every: tuple[Path, ...] = ()
    columns: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ()

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels, scenes have none."""
        return None

    @cached_property
    def resolved(self) -> Labelling:
        """The labelling with its classes; reads all scenes once where they come from the data.

        Raises:
            FormatError: A file cannot be read.
        """
        if self.labelling.known:
            return self.labelling
        found: set[int] = set()
        for path in self.every or self.paths:
            values = self._read(path)[1]
            if values is not None:
                found.update(self.labelling.values_of(values))
        order = tuple(sorted(found))
        return dataclasses.replace(self.labelling, names=tuple(map(str, order)), values=order)

    @property
    def class_names(self) -> tuple[str, ...]:
        """(K,) names that the labels index; the values themselves where nobody named them.

        Raises:
            FormatError: A file cannot be read (only where classes come from the data).
        """
        return self.resolved.names

    def __len__(self) -> int:
        """Return M, the number of scenes."""
        return len(self.paths)

    def __getitem__(self, index: int) -> PointCloud:
        """Read scene ``index``; the field ``instance``, where known, tells the objects apart.

        A scene without labels is unlabelled: -1 everywhere.

        Raises:
            IndexError: There is no such scene.
            FormatError: A file is damaged, or a label is none of the classes.
            FileNotFoundError: The file is gone.
        """
        path = self.paths[index]
        cloud, values, instances = self._read(path)
        labels: IntArray = np.full(len(cloud), -1)
        if values is not None:
            labels = self.resolved.classes_of(values, path)
        extra = {} if instances is None else {"instance": instances}
        try:
            return cloud.replace(labels=labels, fields={**cloud.fields, **extra})
        except CloudError as error:
            raise FormatError(
                expected=f"a label for each point of {path}",
                got=error.got,
                fix="Write the labels again, in the order of the points.",
            ) from error

    def values(self, index: int) -> tuple[PointCloud, IntArray | None]:
        """Read scene ``index`` and its labels (N,) as the file has them; None where it has none.

        Raises:
            IndexError: There is no such scene.
            FormatError: A file is damaged.
            FileNotFoundError: The file is gone.
        """
        return self._read(self.paths[index])[:2]

    def _read(self, path: Path) -> tuple[PointCloud, IntArray | None, IntArray | None]:
        cloud = _read_arrays(path) if path.is_dir() else io.read(path, columns=self.columns)
        name, instance = self.labelling.field, self.labelling.instance
        values = read_beside(path, "label", name)
        if values is None:
            values = find_labels(cloud, name, path)
        instances = read_beside(path, "instance", instance)
        if instances is None:
            instances = find_instances(cloud, instance, path)
        return cloud, values, instances


def open_folder(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    objects: bool | None = None,
    classes: Sequence[str] | Mapping[int, str] | str | Path | None = None,
    field: str | None = None,
    instance: str | None = None,
    remap: Mapping[int, int] | None = None,
    ignore: int | Sequence[int] | None = None,
    ratio: Sequence[float] | None = None,
    seed: int = 0,
    points: int = io.MESH_POINTS,
    columns: Sequence[str] | None = None,
) -> FolderDataset | FileDataset:
    """Open a folder of one's own; see the top of the file for its layout.

    Args:
        path: The folder.
        split: ``"train"``, ``"val"`` or ``"test"`` (of the last two, the one that exists), or None
            for everything.
        objects: Whether the folder holds objects sorted by class, not scenes with labels per point.
            None: objects where there are folders other than train, val and test, unless
            ``classes.json`` or labels beside files show that these are scenes; without such
            folders, scenes if the first file has labels.
        classes: Names of the classes, names by value, or the path of a JSON file with one of them;
            None: ``classes.json`` in the folder, or else the data.
        field: Field with the labels of the points; None: the likeliest.
        instance: Field that tells objects apart; None: the likeliest.
        remap: New label values for old ones; -1 is no label.
        ignore: Label values that are no label.
        ratio: Shares of train and val, and maybe test, of a random order, instead of lists or
            folders.
        seed: Of that order.
        points: Points to draw from each file that is a mesh.
        columns: Names of the columns of text files, where the files do not say them.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no file of classes.
        FormatError: There is no file of a known format, or a list or ``classes.json`` is damaged.
        ConfigError: There is no such split, or an argument is out of range.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    labelling = Labelling.of(
        root, classes=classes, field=field, instance=instance, remap=remap, ignore=ignore
    )
    files = tuple(files_of(root, scenes=True))
    whole = FolderDataset(
        name=root.resolve().name,
        paths=files,
        names=tuple(file.relative_to(root).as_posix() for file in files),
        labelling=labelling,
        every=files,
        columns=None if columns is None else tuple(columns),
    )
    if _are_objects(root, whole) if objects is None else objects:
        known = labelling.names or None
        return read_folder(root, split, points=points, classes=known, ratio=ratio, seed=seed)
    if not files:
        raise FormatError(
            expected=f"scenes: files that end in {', '.join(io.READABLE)}",
            got=f"none in {root}",
            fix="Pass the folder that holds the files.",
        )
    parts = parts_of(root, files, ratio=ratio, seed=seed)
    chosen = tuple(choose(root, parts, split))
    names = tuple(file.relative_to(root).as_posix() for file in chosen)
    splits = tuple(parts[file] for file in chosen)
    return dataclasses.replace(whole, paths=chosen, names=names, splits=splits)


def _are_objects(root: Path, scenes: FolderDataset) -> bool:
    """Guess whether a folder holds objects sorted by class; see :func:`open_folder`."""
    if not scenes.paths:
        return True  # read_folder says what is missing
    if (root / CLASSES_FILE).is_file() or any(path.is_dir() for path in scenes.paths):
        return False
    if any(SIDECAR.search(file.name) for file in scenes.paths[0].parent.iterdir()):
        return False
    if any(place_of(root, path)[0] for path in scenes.paths):
        return True
    return not _has_labels(scenes)


def _has_labels(scenes: FolderDataset) -> bool:
    """Whether the first scene has labels of more than one value."""
    if scenes.paths[0].suffix.lower() in io.MESH_ENDINGS:
        return False
    try:
        values = scenes.values(0)[1]
    except (PointzooError, OSError):  # whoever reads it will hear of it
        return False
    return values is not None and len(np.unique(values)) > 1


def _read_arrays(folder: Path) -> PointCloud:
    """Read a scene as Pointcept writes it, every array of labels as a field."""
    arrays: dict[str, Any] = {file.stem: load_array(file) for file in folder.glob("*.npy")}
    coords = arrays.pop("coord")
    colors, normals = arrays.pop("color", None), arrays.pop("normal", None)
    try:
        return PointCloud(
            coords=coords,
            colors=None if colors is None else color_bytes(colors),
            normals=normals,
            fields={key: v.reshape(-1) for key, v in arrays.items() if v.size == coords.size // 3},
        )
    except CloudError as error:
        raise FormatError(
            expected=f"arrays of one scene in {folder}",
            got=error.got,
            fix="Write them again, with one row per point.",
        ) from error
