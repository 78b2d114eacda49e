"""The folder of rooms: labelled scans of different sizes as long arrays, and a manifest.

A folder of M rooms with P points altogether::

    coords.npy     (P, 3) float32, metres, z up
    colors.npy     (P, 3) uint8, sRGB
    normals.npy    (P, 3) float16, unit length, towards the side the scanner saw
    labels.npy     (P,) int16, index in the class names, -1 where unlabelled
    instance.npy   (P,) int32, object of the room, -1 for none
    offsets.npy    (M,) int64, points up to and with each room
    manifest.json  the command, the class names, and per room its split and whose models are in it
    frames/        NAME.npz per room, where asked for (:func:`read_frames`)

The same command gives the same bytes. Arrays are mapped: a room is read when it is asked for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.scene_classes import SCANNET20
from pointzoo.errors import ConfigError, FormatError
from pointzoo.intake import MAX_MANIFEST, make_record, parse_json, read_limited
from pointzoo.io.arrays import load_arrays, map_npy

SCHEMA = 1
"""Version of the folder layout; a reader refuses any other."""

MANIFEST = "manifest.json"
_KIND = "rooms"
_REBUILD = "Build the rooms again with `pointzoo corpus rooms`."
_ARRAYS: Mapping[str, tuple[str, int]] = {
    "coords": ("float32", 3),
    "colors": ("uint8", 3),
    "normals": ("float16", 3),
    "labels": ("int16", 0),
    "instance": ("int32", 0),
}


@dataclass(frozen=True)
class ModelSource:
    """A model that stands in a room.

    Attributes:
        name: Of the model.
        source: Archive and path inside it.
        sha256: Of the file.
        author: Who made it.
        licence: As an SPDX identifier where there is one.
    """

    name: str
    source: str
    sha256: str
    author: str
    licence: str


@dataclass(frozen=True)
class RoomRecord:
    """One line of the manifest.

    Attributes:
        name: Unique within the folder.
        split: ``"train"`` or ``"test"``.
        kind: For instance ``"kitchen"``.
        models: Names of the models in it.
    """

    name: str
    split: str
    kind: str
    models: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Room:
    """A room with its points, as a builder hands it over (shapes as in the folder)."""

    record: RoomRecord
    coords: NDArray[np.floating[Any]]
    colors: NDArray[np.uint8]
    normals: NDArray[np.floating[Any]]
    labels: NDArray[np.integer[Any]]
    instance: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RoomsHeader:
    """What holds for the whole folder.

    Attributes:
        name: Short name, for instance ``"rooms"``.
        description: One or two sentences.
        command: The command that builds it again.
        licence: Summary of the licences in it.
        pretraining: Whether released weights may be trained on it.
        class_names: Names that the labels index.
        versions: Of the programs that made it.
    """

    name: str
    description: str
    command: str
    licence: str
    pretraining: bool
    class_names: tuple[str, ...] = SCANNET20
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RoomsManifest:
    """A manifest, read back."""

    header: RoomsHeader
    rooms: tuple[RoomRecord, ...]
    models: tuple[ModelSource, ...]


@dataclass(frozen=True, eq=False)
class RoomsDataset:
    """M rooms whose points lie in mapped arrays; a :class:`~pointzoo.data.PointDataset`.

    Attributes:
        name: Of the folder.
        names: (M,) one name per room.
        splits: (M,) ``"train"`` or ``"test"``.
        class_names: Names that the labels of the points index.
    """

    name: str
    names: tuple[str, ...]
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    _arrays: Mapping[str, NDArray[Any]]
    _starts: IntArray
    _stops: IntArray

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels, rooms have none."""
        return None

    def __len__(self) -> int:
        """Return M, the number of rooms."""
        return len(self.names)

    def __getitem__(self, index: int) -> PointCloud:
        """Read room ``index``; the field ``instance`` tells the objects apart.

        Raises:
            IndexError: There is no such room.
        """
        rows = slice(int(self._starts[index]), int(self._stops[index]))
        arrays = {key: np.asarray(value[rows]) for key, value in self._arrays.items()}
        return PointCloud(
            coords=arrays["coords"],
            colors=arrays["colors"],
            normals=arrays["normals"],
            labels=arrays["labels"],
            fields={"instance": arrays["instance"]},
        )


@dataclass(frozen=True, eq=False)
class Frames:
    """RGB-D images of one room from F places.

    Attributes:
        depth: (F, height, width) uint16, millimetres along the optical axis, 0 where unseen.
        color: (F, height, width, 3) uint8, sRGB.
        pose: (F, 4, 4) float64, camera to room; the camera looks along +z, y down.
        intrinsics: (3, 3) float64, pixels; centres of pixels lie at integers.
    """

    depth: NDArray[np.uint16]
    color: NDArray[np.uint8]
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]


def write_rooms(
    out: Path,
    header: RoomsHeader,
    rooms: Iterable[Room],
    models: Iterable[ModelSource],
    *,
    frames: Mapping[str, Frames] | None = None,
) -> Path:
    """Write a folder of rooms, replacing one of the same path only when all of it is written.

    Args:
        out: The folder. An existing one is replaced if it is a folder of rooms.
        header: What holds for all rooms.
        rooms: The rooms; one at a time is held in memory. ``frames`` may be filled while they are
            made: each room's frames are written after it and dropped.
        models: Whose models may stand in them; only those that do are listed.
        frames: RGB-D frames by name of the room.

    Returns:
        The folder.

    Raises:
        ConfigError: There is no room, two share a name, or ``out`` holds something else.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise ConfigError(
            expected="a new folder or an existing folder of rooms to replace",
            got=f"{out}, which is neither",
            fix="Choose another output folder, or remove that one yourself.",
        )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    try:
        records = _write_arrays(temporary, rooms, frames)
        used = {name for record in records for name in record.models}
        content = {
            "schema": SCHEMA,
            "kind": _KIND,
            **dataclasses.asdict(header),
            "rooms": [dataclasses.asdict(record) for record in records],
            "models": [
                dataclasses.asdict(model)
                for model in sorted(models, key=lambda model: model.name)
                if model.name in used
            ],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return out


def is_rooms(path: Path) -> bool:
    """Whether a folder looks like a folder of rooms."""
    return (path / MANIFEST).is_file() and (path / "offsets.npy").is_file()


def read_rooms_manifest(path: Path) -> RoomsManifest:
    """Read the manifest of a folder of rooms.

    Raises:
        FormatError: There is no manifest, it is malformed, or its schema is another one.
    """
    file = path / MANIFEST
    try:
        raw = parse_json(read_limited(file, MAX_MANIFEST), file)
        if (raw["kind"], raw["schema"]) != (_KIND, SCHEMA):
            raise ValueError(f"{raw['kind']!r} of schema {raw['schema']}, not {SCHEMA}")
        names = {f.name for f in dataclasses.fields(RoomsHeader)}
        header = {key: value for key, value in raw.items() if key in names}
        return RoomsManifest(
            make_record(RoomsHeader, header),
            tuple(make_record(RoomRecord, room) for room in raw["rooms"]),
            tuple(make_record(ModelSource, model) for model in raw["models"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            expected=f"a folder of rooms with a {MANIFEST}",
            got=f"{file}: {type(error).__name__}: {error}",
            fix=_REBUILD,
        ) from error


def read_rooms(path: Path, split: str | None = None) -> RoomsDataset:
    """Open a folder of rooms.

    Args:
        path: The folder.
        split: ``"train"``, ``"test"`` (``"val"`` is the same), or None for all rooms.

    Raises:
        FormatError: A file is missing or malformed, or the arrays do not fit the manifest.
        ConfigError: There is no such split.
    """
    manifest = read_rooms_manifest(path)
    offsets = _open_array(path, "offsets", "int64", 0)
    stops = np.asarray(offsets)
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
    if len(stops) != len(manifest.rooms) or (stops < starts).any() or not len(stops):
        raise _mismatch(f"offsets of {len(manifest.rooms)} rooms", f"{len(stops)} of {path}")
    arrays = {key: _open_array(path, key, *kind) for key, kind in _ARRAYS.items()}
    for key, array in arrays.items():
        if len(array) != stops[-1]:
            raise _mismatch(f"{key}.npy with {stops[-1]} rows", f"{len(array)}")
    wanted = "test" if split == "val" else split
    chosen = [i for i, room in enumerate(manifest.rooms) if wanted in (None, room.split)]
    if not chosen:
        raise ConfigError(
            expected=f"rooms of the split {split!r}",
            got=", ".join(sorted({room.split for room in manifest.rooms})),
            fix="Leave out the split, or name one that is there.",
        )
    return RoomsDataset(
        name=manifest.header.name,
        names=tuple(manifest.rooms[i].name for i in chosen),
        splits=tuple(manifest.rooms[i].split for i in chosen),
        class_names=manifest.header.class_names,
        _arrays=arrays,
        _starts=starts[chosen],
        _stops=stops[chosen],
    )


def read_frames(path: Path, name: str) -> Frames:
    """Read the RGB-D frames of one room.

    Args:
        path: The folder of rooms.
        name: Of the room.

    Raises:
        FormatError: The room has no frames, or the file is damaged.
    """
    file = path / "frames" / f"{name}.npz"
    try:
        if file.parent != path / "frames" or ".." in name:
            raise ValueError("a room with a path for a name")  # is caught with its like
        arrays = load_arrays(file)
        return Frames(*(arrays[f.name] for f in dataclasses.fields(Frames)))
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            expected=f"RGB-D frames {file}",
            got=f"{type(error).__name__}: {error}",
            fix="Build the rooms with `pointzoo corpus rooms --frames 40`.",
        ) from error


def _write_arrays(
    folder: Path, rooms: Iterable[Room], frames: Mapping[str, Frames] | None
) -> list[RoomRecord]:
    """Append room after room, so that not all of them are in memory."""
    records: list[RoomRecord] = []
    counts: list[int] = []
    files = {key: (folder / f"{key}.raw").open("wb") for key in _ARRAYS}
    try:
        for room in rooms:
            records.append(room.record)
            counts.append(len(room.coords))
            for key, (dtype, _) in _ARRAYS.items():
                files[key].write(np.ascontiguousarray(getattr(room, key), dtype=dtype).tobytes())
            if frames and room.record.name in frames:
                _write_frames(folder / "frames", room.record.name, frames[room.record.name])
    finally:
        for file in files.values():
            file.close()
    names = [record.name for record in records]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            expected="at least one room, and names that differ",
            got=f"{len(names)} rooms with {len(set(names))} names",
            fix="Ask for at least one room.",
        )
    np.save(folder / "offsets.npy", np.cumsum(np.array(counts, dtype=np.int64)))
    for key, (dtype, width) in _ARRAYS.items():
        _raw_to_npy(folder, key, dtype, (sum(counts), width) if width else (sum(counts),))
    return records


def _raw_to_npy(folder: Path, key: str, dtype: str, shape: tuple[int, ...]) -> None:
    raw = folder / f"{key}.raw"
    with (folder / f"{key}.npy").open("wb") as target, raw.open("rb") as source:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target, 1 << 20)
    raw.unlink()


def _write_frames(folder: Path, name: str, frames: Frames) -> None:
    folder.mkdir(exist_ok=True)
    arrays = {f.name: getattr(frames, f.name) for f in dataclasses.fields(Frames)}
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def _open_array(path: Path, name: str, dtype: str, width: int) -> NDArray[Any]:
    file = path / f"{name}.npy"
    try:
        array = map_npy(file)
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"the array file {file}", got=f"{type(error).__name__}: {error}", fix=_REBUILD
        ) from error
    if array.dtype != dtype or array.shape[1:] != ((width,) if width else ()):
        raise _mismatch(f"{file} of {dtype}", f"{array.dtype} of shape {array.shape}")
    return array


def _mismatch(expected: str, got: str) -> FormatError:
    return FormatError(expected=expected, got=got, fix=_REBUILD)
