"""Parts of the papers' data sets: areas, few labelled points, few scenes, blocks, folds.

Shape legend: M clouds, N points, B blocks, P points of a block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data import FileDataset, PointDataset, open_dataset
from pointzoo.data.scenes import read_scenes
from pointzoo.errors import ConfigError, FormatError
from pointzoo.finetuning.data import Subset
from pointzoo.io.arrays import load_arrays
from pointzoo.io.files import check_is_file, malformed, parsing
from pointzoo.tasks.labelled import stratified_folds

Pair = tuple[PointDataset, PointDataset]
"""What is trained on, and what is tested on."""

Opener = Callable[[Path, str, int], Pair]
"""From a path, a variant of a protocol and a seed."""

BLOCK_POINTS = 4096
_FEWEST = 100
"""Blocks with fewer points are left out, as in PointNet's preprocessing of S3DIS."""
_FOLDS = 5


def scannet(path: Path, variant: str, seed: int, *, labels: str = "segment20") -> Pair:
    """Open ScanNet in Pointcept's layout; variants: ``""``, ``"20 points"``, ``"5 %"`` and so on.

    The lists of the Data Efficient benchmark lie in ``tasks/points/points20`` (indices of points by
    scene, as saved by torch; or ``points20.npz`` or ``.json``) and ``tasks/scenes/5.txt``.

    Raises:
        FormatError: A list is damaged or names what is not there.
        FileNotFoundError: A list is missing.
        ConfigError: A split is missing.
    """
    del seed
    train: PointDataset = read_scenes(path, "train", labels=labels)
    amount, _, what = variant.partition(" ")
    if what == "points":
        train = FewPoints(train, read_points(path / "tasks" / "points", f"points{amount}"))
    elif what == "%":
        train = _listed_scenes(train, path / "tasks" / "scenes" / f"{amount}.txt")
    return train, read_scenes(path, "val", labels=labels)


def scannet200(path: Path, variant: str, seed: int) -> Pair:
    """Open ScanNet in Pointcept's layout, with the labels of ScanNet200; see :func:`scannet`."""
    return scannet(path, variant, seed, labels="segment200")


def s3dis_area5(path: Path, variant: str, seed: int) -> Pair:
    """Open S3DIS in Pointcept's layout: Area 5 is tested on."""
    del variant, seed
    return read_scenes(path, "train"), read_scenes(path, "test")


def s3dis_blocks(path: Path, variant: str, seed: int) -> Pair:
    """Cut S3DIS into blocks as DCGLR does: train on one area (``"Area 1"``), test on Area 6.

    Raises:
        ConfigError: An area is missing.
    """
    scenes = read_scenes(path)
    areas = (_area(scenes, variant.replace(" ", "_")), _area(scenes, "Area_6"))
    train, test = (
        cut_blocks(area, np.random.default_rng([seed, i])) for i, area in enumerate(areas)
    )
    return train, test


def parts(path: Path, variant: str, seed: int) -> Pair:
    """Open a data set with parts named train and test (or val)."""
    del variant, seed
    return open_dataset(path, "train"), open_dataset(path, "test")


def share(path: Path, variant: str, seed: int) -> Pair:
    """Open a data set with parts, and keep a share of the training clouds: ``"20 %"``.

    Of one seed, a larger share holds the clouds of a smaller one.
    """
    train, test = parts(path, variant, seed)
    order = np.random.default_rng([seed, 1]).permutation(len(train))
    count = max(1, round(float(variant.partition(" ")[0]) / 100 * len(train)))
    return Subset(train, order[:count]), test


def fold(path: Path, variant: str, seed: int) -> Pair:
    """Open a data set of objects without parts; variant ``"fold 2"`` tests on fold 2 of five."""
    whole = open_dataset(path)
    labels = np.full(len(whole), -1) if whole.labels is None else np.asarray(whole.labels)
    rows = np.flatnonzero(labels >= 0)
    folds = stratified_folds(labels[rows], _FOLDS, np.random.default_rng(seed))
    tested = folds == int(variant.partition(" ")[2]) - 1
    return Subset(whole, rows[~tested]), Subset(whole, rows[tested])


def shapenet_part(path: Path, variant: str, seed: int) -> Pair:
    """Open ShapeNetPart: ``shapenetcore_partanno_segmentation_benchmark_v0_normal``.

    Raises:
        FormatError: A list is damaged.
        FileNotFoundError: A list is missing.
    """
    del variant, seed
    lists = path / "train_test_split"
    train = [*_shapes(lists, "train"), *_shapes(lists, "val")]  # as everybody trains
    return _shape_files(path, train), _shape_files(path, _shapes(lists, "test"))


@dataclass(frozen=True, eq=False)
class FewPoints:
    """A data set of which only listed points keep their labels.

    Attributes:
        whole: The data set.
        rows: The labelled points of each cloud, by the last part of its name.
    """

    whole: PointDataset
    rows: Mapping[str, IntArray]

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.whole.name

    @property
    def names(self) -> tuple[str, ...]:
        """(M,) of its clouds."""
        return self.whole.names

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data set."""
        return self.whole.class_names

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels."""
        return None

    def __len__(self) -> int:
        """Return M."""
        return len(self.whole)

    def __getitem__(self, index: int) -> PointCloud:
        """Return cloud ``index``.

        Raises:
            FormatError: The list lacks the cloud, or names points that it does not have.
        """
        cloud, name = self.whole[index], self.names[index].rpartition("/")[2]
        rows = self.rows.get(name)
        if rows is None or cloud.labels is None or (len(rows) and rows.max() >= len(cloud)):
            raise FormatError(
                expected=f"labelled points of {name!r} below {len(cloud)} in the list",
                got="none" if rows is None else f"{len(rows)} up to {int(rows.max(initial=-1))}",
                fix="Use the list that belongs to these scenes.",
            )
        labels = np.full(len(cloud), -1)
        labels[rows] = cloud.labels[rows]
        return cloud.replace(labels=labels)


def read_points(folder: Path, stem: str) -> dict[str, IntArray]:
    """Read the labelled points of each scene; nothing in the file is run.

    Args:
        folder: Where the lists are.
        stem: Name of the list; one saved by torch has no ending.

    Raises:
        FileNotFoundError: There is no such list.
        FormatError: It is damaged or holds other things.
    """
    path = folder / stem
    stored: Mapping[str, Any]
    if (folder / f"{stem}.npz").is_file():
        stored = load_arrays(folder / f"{stem}.npz")
    elif (folder / f"{stem}.json").is_file():
        path = folder / f"{stem}.json"
        with parsing(path, "JSON"):
            stored = json.loads(path.read_text(encoding="utf-8"))
    else:
        check_is_file(path)
        with parsing(path, "torch"), _numpy_allowed():
            stored = torch.load(path, map_location="cpu", weights_only=True)
    with parsing(path, "list of points"):
        return {name: np.asarray(rows, dtype=np.int64).reshape(-1) for name, rows in stored.items()}


class _numpy_allowed:  # noqa: N801  # a context manager
    """Let torch rebuild arrays of numbers, under the names that numpy 1 and 2 give them."""

    def __enter__(self) -> None:
        self.before = torch.serialization.get_safe_globals()
        torch.serialization.add_safe_globals(_NUMPY)

    def __exit__(self, *_: object) -> None:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(self.before)


def _renamed(module: str) -> Any:
    """Return numpy's function that makes an empty array, as if it came from another module."""

    def rebuild(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
        return np.ndarray.__new__(kind, shape, dtype=code.decode())

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = module, *["_reconstruct"] * 2
    return rebuild


_NUMPY: list[Any] = [
    *(_renamed(f"numpy.{core}.multiarray") for core in ("core", "_core")),
    *(np.ndarray, np.dtype, type(np.dtype(np.int64)), type(np.dtype(np.int32))),
]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of scenes, equally many points each; a :class:`~pointzoo.data.PointDataset`.

    Attributes:
        name: Of the data set.
        names: (B,) one per block.
        class_names: Names that the labels of the points index.
        coords: (B, P, 3) float32 metres, the middle of the block at x = y = 0.
        point_labels: (B, P) int64.
    """

    name: str
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    coords: NDArray[np.float32]
    point_labels: IntArray

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels, blocks have none."""
        return None

    def __len__(self) -> int:
        """Return B."""
        return len(self.names)

    def __getitem__(self, index: int) -> PointCloud:
        """Return block ``index``."""
        return PointCloud(coords=self.coords[index], labels=self.point_labels[index])


def cut_blocks(
    scenes: PointDataset,
    generator: np.random.Generator,
    *,
    edge: float = 1.0,
    points: int = BLOCK_POINTS,
) -> Blocks:
    """Cut scenes into square blocks and draw points from each, as PointNet does with S3DIS.

    A block with fewer points gives some of them twice; one with fewer than 100 is left out.

    Args:
        scenes: With labels of points.
        generator: Source of the choice of points.
        edge: Of a block, metres.
        points: P.

    Raises:
        ConfigError: No block is left.
    """
    names, coords, labels = [], [], []
    for row, name in enumerate(scenes.names):
        cloud = scenes[row]
        low = cloud.coords.min(axis=0)
        cells = np.floor((cloud.coords[:, :2] - low[:2]) / edge).astype(np.int64)
        known = np.full(len(cloud), -1) if cloud.labels is None else cloud.labels
        for cell, inside in _groups(cells):
            if len(inside) < _FEWEST:
                continue
            rows = generator.choice(inside, points, replace=len(inside) < points)
            middle = np.array([*(low[:2] + (cell + 0.5) * edge), low[2]])
            names.append(f"{name}/{cell[0]}_{cell[1]}")
            coords.append((cloud.coords[rows] - middle).astype(np.float32))
            labels.append(known[rows])
    if not names:
        raise ConfigError(
            expected=f"blocks of at least {_FEWEST} points",
            got=f"none in {scenes.name!r}",
            fix="Pass the folder of the preprocessed scenes.",
        )
    return Blocks(scenes.name, tuple(names), scenes.class_names, np.stack(coords), np.stack(labels))


def _groups(cells: IntArray) -> Iterable[tuple[IntArray, IntArray]]:
    different, inverse = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(inverse.reshape(-1)))
    return zip(different, np.split(order, ends[:-1]), strict=True)


def _area(scenes: PointDataset, area: str) -> Subset:
    rows = [row for row, name in enumerate(scenes.names) if area in name.split("/")]
    if not rows:
        raise ConfigError(
            expected=f"scenes in a folder {area}",
            got=f"none in {scenes.name!r}",
            fix="Pass the folder that holds Area_1 to Area_6.",
        )
    return Subset(scenes, np.array(rows))


def _listed_scenes(train: PointDataset, path: Path) -> Subset:
    check_is_file(path)
    with parsing(path, "list"):
        wanted = path.read_text(encoding="utf-8").split()
    rows = {name.rpartition("/")[2]: row for row, name in enumerate(train.names)}
    if missing := [name for name in wanted if name not in rows]:
        raise malformed(path, "list", f"the scene {missing[0]!r} is not there")
    return Subset(train, np.array([rows[name] for name in wanted]))


def _shapes(lists: Path, part: str) -> list[str]:
    path = lists / f"shuffled_{part}_file_list.json"
    check_is_file(path)
    with parsing(path, "JSON"):  # "shape_data/02691156/1a04e3eab45ca15dd86060f189eb133"
        return [
            str(line).partition("/")[2] for line in json.loads(path.read_text(encoding="utf-8"))
        ]


def _shape_files(path: Path, shapes: list[str]) -> FileDataset:
    table = path / "synsetoffset2category.txt"
    check_is_file(table)
    with parsing(table, "list"):
        pairs = dict(line.split()[::-1] for line in table.read_text().splitlines() if line.strip())
        numbers = {offset: row for row, offset in enumerate(pairs)}
        labels = np.array([numbers[shape.partition("/")[0]] for shape in shapes], dtype=np.int64)
    return FileDataset(
        name=path.name,
        paths=tuple(path / f"{shape}.txt" for shape in shapes),
        names=tuple(shapes),
        labels=labels,
        class_names=tuple(pairs.values()),
        columns=("x", "y", "z", "nx", "ny", "nz", "label"),
    )
