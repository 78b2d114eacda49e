"""The corpus folder: many small point clouds as arrays, and a manifest that says whose they are.

A corpus is a folder::

    coords.npy    (M, N, 3) float32, metres, z up, the bounding box centred on the origin
    normals.npy   (M, N, 3) float16, unit length
    colors.npy    (M, N, 3) uint8, sRGB
    labels.npy    (M,) int64, index in class_names, -1 where unknown
    manifest.json who made each shape, under which licence, and the command that built the folder

Nothing in it depends on the clock, the machine or the order of work: the same command gives the
same bytes. Shape legend: M shapes, N points of each shape.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.base import ArrayDataset
from pointzoo.errors import ConfigError, FormatError
from pointzoo.intake import MAX_MANIFEST, make_record, parse_json, read_limited
from pointzoo.io.arrays import map_npy

SCHEMA = 1
"""Version of the folder layout; a reader refuses any other."""

MANIFEST = "manifest.json"
ARRAYS = ("coords", "normals", "colors", "labels")
_DTYPES = {"coords": "float32", "normals": "float16", "colors": "uint8", "labels": "int64"}
_REBUILD = "Build the corpus again with `pointzoo corpus`."


@dataclass(frozen=True)
class ShapeRecord:
    """One line of the manifest: what a shape is and where it comes from.

    Attributes:
        name: Unique within the corpus.
        label: Index in the class names, -1 where unknown.
        source: Package or archive and path inside it, or factory and seed.
        sha256: Of the source file (of the generated mesh where there is no file).
        author: Who made it.
        licence: Licence of the source, as an SPDX identifier where there is one.
        redistributable: Whether a cloud derived from it may be shipped under an attribution.
    """

    name: str
    label: int
    source: str
    sha256: str
    author: str
    licence: str
    redistributable: bool = True


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape with its points, as a builder hands it over.

    Attributes:
        record: Its line of the manifest.
        coords: (N, 3) metres, z up; :func:`write_corpus` centres it.
        normals: (N, 3) unit length.
        colors: (N, 3) uint8, sRGB.
    """

    record: ShapeRecord
    coords: NDArray[np.floating[Any]]
    normals: NDArray[np.floating[Any]]
    colors: NDArray[np.uint8]


@dataclass(frozen=True)
class SourceFile:
    """A file that shapes were made from, beside the one their record names.

    Attributes:
        path: Where it is in its package.
        sha256: Of its bytes.
        author: Who made it.
        licence: As an SPDX identifier where there is one.
    """

    path: str
    sha256: str
    author: str
    licence: str


@dataclass(frozen=True)
class Skipped:
    """A source that gave no shape, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class CorpusHeader:
    """What holds for a whole corpus.

    Attributes:
        name: Short name, for instance ``"ldraw"``.
        description: One or two sentences.
        command: The command that builds it again.
        class_names: Names that the labels index.
        licence: Summary of the licences in it.
        pretraining: Whether released weights may be trained on it.
        versions: Of the programs that made the shapes, by name; empty where shapes were only read.
    """

    name: str
    description: str
    command: str
    class_names: tuple[str, ...]
    licence: str
    pretraining: bool
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A manifest, read back."""

    header: CorpusHeader
    records: tuple[ShapeRecord, ...]
    files: tuple[SourceFile, ...]
    skipped: tuple[Skipped, ...]

    def count_by_class(self) -> dict[str, int]:
        """Number of shapes of each class, in the order of the class names."""
        counts = Counter(record.label for record in self.records)
        return {name: counts[i] for i, name in enumerate(self.header.class_names)}


def write_corpus(
    out: Path,
    header: CorpusHeader,
    shapes: Sequence[Shape],
    *,
    files: Sequence[SourceFile] = (),
    skipped: Sequence[Skipped] = (),
) -> Path:
    """Write a corpus folder, replacing one of the same path only when all of it is written.

    Args:
        out: The folder. An existing one is replaced if it is a corpus.
        header: What holds for the whole corpus.
        shapes: The shapes; they are stored in the order of their names.
        files: Source files that the records do not name, such as sub-files and archives.
        skipped: Sources that gave no shape.

    Returns:
        The folder.

    Raises:
        ConfigError: There is no shape, two share a name, or ``out`` holds something else.
    """
    ordered = sorted(shapes, key=lambda shape: shape.record.name)
    _check_names([shape.record.name for shape in ordered])
    arrays: dict[str, NDArray[Any]] = {
        "coords": np.stack([_centred(shape.coords) for shape in ordered]),
        "normals": np.stack([shape.normals.astype(np.float16) for shape in ordered]),
        "colors": np.stack([shape.colors.astype(np.uint8) for shape in ordered]),
        "labels": np.array([shape.record.label for shape in ordered], dtype=np.int64),
    }
    manifest = Manifest(
        header,
        tuple(shape.record for shape in ordered),
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(sorted(skipped, key=lambda skip: skip.name)),
    )
    return _write_folder(out, manifest, arrays)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a corpus folder.

    Raises:
        FormatError: There is no manifest, it is malformed, or its schema is another one.
    """
    file = path / MANIFEST
    try:
        raw = parse_json(read_limited(file, MAX_MANIFEST), file)
        if raw["schema"] != SCHEMA:
            raise FormatError(
                expected=f"a corpus of schema {SCHEMA}", got=f"schema {raw['schema']}", fix=_REBUILD
            )
        names = {f.name for f in dataclasses.fields(CorpusHeader)}
        header = {key: value for key, value in raw.items() if key in names}
        return Manifest(
            make_record(CorpusHeader, header),
            tuple(make_record(ShapeRecord, shape) for shape in raw["shapes"]),
            tuple(make_record(SourceFile, source) for source in raw["files"]),
            tuple(make_record(Skipped, skip) for skip in raw["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            expected=f"a corpus folder with a {MANIFEST}",
            got=f"{file}: {type(error).__name__}: {error}",
            fix=_REBUILD,
        ) from error


def read_corpus(path: Path) -> ArrayDataset:
    """Open a corpus folder; the points stay on disk until they are asked for.

    Raises:
        FormatError: A file is missing or malformed, or the arrays do not fit the manifest.
    """
    manifest = read_manifest(path)
    arrays = {name: _open_array(path, name) for name in ARRAYS}
    count = len(manifest.records)
    for name, array in arrays.items():
        if len(array) != count:
            raise FormatError(
                expected=f"{name}.npy with {count} shapes, as {MANIFEST} lists",
                got=f"{len(array)}",
                fix=_REBUILD,
            )
    if not np.array_equal(arrays["labels"], [record.label for record in manifest.records]):
        raise FormatError(
            expected=f"labels.npy with the labels that {MANIFEST} lists", got="others", fix=_REBUILD
        )
    return ArrayDataset(
        name=manifest.header.name,
        names=tuple(record.name for record in manifest.records),
        class_names=manifest.header.class_names,
        coords=arrays["coords"],
        normals=arrays["normals"],
        colors=arrays["colors"],
        labels=arrays["labels"],
    )


def merge_corpora(paths: Sequence[Path], out: Path, name: str) -> Path:
    """Put several corpora into one, for instance LDraw and Infinigen into ``shapes``.

    Names and classes are prefixed with the name of the corpus they come from. The result may be
    trained on only if every part may.

    Args:
        paths: The corpus folders.
        out: The folder to write.
        name: Name of the new corpus.

    Raises:
        ConfigError: No corpus is given, two have the same name or another number of points.
        FormatError: One of them is not a corpus.
    """
    parts = [read_manifest(path) for path in paths]
    _check_names([part.header.name for part in parts])
    arrays = {key: [_open_array(path, key) for path in paths] for key in ARRAYS}
    sizes = {array.shape[1] for array in arrays["coords"]}
    if len(sizes) > 1:
        raise ConfigError(
            expected="corpora with the same number of points a shape",
            got=f"{sorted(sizes)}",
            fix="Build them with the same number.",
        )
    classes: list[str] = []
    records: list[ShapeRecord] = []
    for part in parts:
        start, prefix = len(classes), part.header.name
        classes += [f"{prefix}/{cls}" for cls in part.header.class_names]
        records += [
            dataclasses.replace(
                record,
                name=f"{prefix}/{record.name}",
                label=record.label + start if record.label >= 0 else -1,
            )
            for record in part.records
        ]
    header = CorpusHeader(
        name=name,
        description=" + ".join(part.header.description for part in parts),
        command=" && ".join(part.header.command for part in parts),
        class_names=tuple(classes),
        licence="; ".join(f"{part.header.name}: {part.header.licence}" for part in parts),
        pretraining=all(part.header.pretraining for part in parts),
        versions={key: value for part in parts for key, value in part.header.versions.items()},
    )
    files = {file.path: file for part in parts for file in part.files}
    skipped = [
        Skipped(f"{part.header.name}/{skip.name}", skip.reason)
        for part in parts
        for skip in part.skipped
    ]
    joined = {key: np.concatenate(arrays[key]) for key in ("coords", "normals", "colors")}
    joined["labels"] = np.array([record.label for record in records], dtype=np.int64)
    kept = tuple(files[path] for path in sorted(files))
    return _write_folder(out, Manifest(header, tuple(records), kept, tuple(skipped)), joined)


def sha256_of(data: bytes) -> str:
    """Hexadecimal sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def _check_names(names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated or not names:
        raise ConfigError(
            expected="at least one name, each of them once",
            got=f"{repeated[:3]} more than once" if repeated else "none",
            fix="Check the sources the builder was given.",
        )


def _centred(coords: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    middle = (coords.min(axis=0) + coords.max(axis=0)) / 2
    centred: NDArray[np.float32] = (coords - middle).astype(np.float32)
    return centred


def _open_array(path: Path, name: str) -> NDArray[Any]:
    file = path / f"{name}.npy"
    try:
        array = map_npy(file)
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"the array file {file}", got=f"{type(error).__name__}: {error}", fix=_REBUILD
        ) from error
    shaped = array.ndim == 1 if name == "labels" else array.ndim == 3 and array.shape[2] == 3
    if array.dtype != _DTYPES[name] or not shaped:
        raise FormatError(
            expected=f"{file} of {_DTYPES[name]}",
            got=f"{array.dtype} of shape {array.shape}",
            fix=_REBUILD,
        )
    return array


def _write_folder(out: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> Path:
    if out.exists() and not (out / MANIFEST).is_file():
        raise ConfigError(
            expected="a new folder or an existing corpus to replace",
            got=f"{out}, which is neither",
            fix="Choose another output folder, or remove that one yourself.",
        )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(temporary / f"{name}.npy", array)
    content = {
        "schema": SCHEMA,
        **dataclasses.asdict(manifest.header),
        "shapes": [dataclasses.asdict(record) for record in manifest.records],
        "files": [dataclasses.asdict(file) for file in manifest.files],
        "skipped": [dataclasses.asdict(skip) for skip in manifest.skipped],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (temporary / MANIFEST).write_text(text, encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    temporary.replace(out)
    return out
