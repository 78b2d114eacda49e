"""Builds SH3D-21: furniture and household models of Sweet Home 3D in 21 classes, to measure on.

Sources: the furniture libraries of Sweet Home 3D (Debian packages ``sweethome3d-furniture``,
``sweethome3d-furniture-nonfree`` and the default catalogue inside ``sweethome3d.jar``), modelled
by many people. Parts of it are under share-alike licences, so the corpus as a whole is marked as
not for pretraining and its shapes say whether they may be passed on.

Models with the same geometry (recoloured or stretched variants) are kept once, so that no shape
can be in a training fold and in the test fold.

Shape legend: T triangles, N points.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from pointzoo.data.builders.sampling import POINTS_PER_SHAPE, named_generator
from pointzoo.data.builders.sh3d_classes import CLASS_NAMES, class_of
from pointzoo.data.builders.sh3d_reader import (
    Model,
    Part,
    load_parts,
    open_archive,
    read_catalogue,
    sample_colors,
)
from pointzoo.data.corpus import (
    CorpusHeader,
    Shape,
    ShapeRecord,
    Skipped,
    SourceFile,
    sha256_of,
    write_corpus,
)
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.io.surface import sample_surface

INSTALL = (
    "Get them with `apt-get download sweethome3d sweethome3d-furniture "
    "sweethome3d-furniture-nonfree` (Debian; the last from the component non-free) and "
    "`dpkg -x PACKAGE.deb DIR`; they lie in DIR/usr/share/sweethome3d."
)

# What the catalogues state, as SPDX identifiers, and whether a cloud may be passed on with an
# attribution alone. The jar says "GNU GPL / CC-BY 3.0"; Debian's reading is GPL-2+, the stricter.
_LICENCES: tuple[tuple[str, str, bool], ...] = (
    (r"GNU GPL", "GPL-2.0-or-later", False),
    (r"Free Art", "LAL-1.3", False),
    (r"Public domain", "CC0-1.0", True),
    (r"Attribution 3\.0 United States", "CC-BY-3.0-US", True),
    (r"Creative Commons Attribution 3\.0", "CC-BY-3.0", True),
)
_GRID = 200
"""Vertices are compared on a grid of this many cells along each side of the bounding box."""


def build_sh3d(sources: Sequence[Path], out: Path, *, progress: bool = True) -> Path:
    """Write the SH3D-21 corpus.

    Args:
        sources: ``.sh3f`` and ``.jar`` files, or folders that hold some at any depth.
        out: The corpus folder to write.
        progress: Show a progress bar on standard error.

    Returns:
        The corpus folder.

    Raises:
        ConfigError: There is no library in ``sources``, or no model in it has a class.
        FormatError: A library is not one, or its catalogue is malformed.
        MissingExtraError: trimesh is not installed.
    """
    archives = find_archives(sources)
    shapes: list[Shape] = []
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for path in archives:
        with open_archive(path) as archive:
            catalogue = read_catalogue(archive)
            wanted = [m for m in catalogue.models if class_of(m.name, m.category) is not None]
            for model in track(wanted, path.stem, disable=not progress):
                result = _attempt(archive, path.name, catalogue.licence, model, seen)
                if isinstance(result, Skipped):
                    skipped.append(result)
                else:
                    shapes.append(result)
    header = CorpusHeader(
        name="sh3d21",
        description="Sweet Home 3D models in 21 classes by name, for evaluation only.",
        command="pointzoo corpus sh3d " + " ".join(path.name for path in archives),
        class_names=CLASS_NAMES,
        licence="mixed, per shape; shapes that are not redistributable are marked",
        pretraining=False,
    )
    files = [_archive_file(path) for path in archives]
    return write_corpus(out, header, shapes, files=files, skipped=skipped)


def find_archives(sources: Sequence[Path]) -> list[Path]:
    """Libraries among some files and folders, those under the freest licences first.

    Raises:
        ConfigError: There is none, or a path does not exist.
    """
    found: dict[str, Path] = {}
    for source in sources:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            if file.suffix in {".sh3f", ".jar"} and file.is_file():
                found[file.name] = file
    if not found:
        raise ConfigError(
            expected="Sweet Home 3D furniture libraries (.sh3f) or sweethome3d.jar",
            got=f"none in {', '.join(map(str, sources)) or 'no path at all'}",
            fix=INSTALL,
        )
    return sorted(found.values(), key=lambda path: (not _free(path), path.name))


def licence_of(stated: str) -> tuple[str, bool]:
    """SPDX identifier of a catalogue's licence text, and whether attribution alone satisfies it."""
    for pattern, spdx, redistributable in _LICENCES:
        if re.search(pattern, stated):
            return spdx, redistributable
    return "unknown", False


def _free(path: Path) -> bool:
    # So that of two equal models the one that may be passed on is kept.
    with open_archive(path) as archive:
        return licence_of(read_catalogue(archive).licence)[1]


def _name(archive: str, model: Model) -> str:
    # By path: a few identifiers are given twice in a catalogue.
    return f"{Path(archive).stem}/{model.path.removesuffix('.obj')}"


def _attempt(
    archive: zipfile.ZipFile, file: str, stated: str, model: Model, seen: dict[str, str]
) -> Shape | Skipped:
    """Sample a model, or say why not; ``seen`` maps signatures of geometry to names."""
    name = _name(file, model)
    try:
        parts = load_parts(archive, model)
        triangles = np.concatenate([part.triangles for part in parts])
        sample = sample_surface(triangles, POINTS_PER_SHAPE, named_generator(name))
    except (CloudError, FormatError) as error:
        return Skipped(name, str(error))
    signature = _signature(parts)
    if signature in seen:
        return Skipped(name, f"same geometry as {seen[signature]}")
    seen[signature] = name
    licence, redistributable = licence_of(stated)
    record = ShapeRecord(
        name=name,
        label=CLASS_NAMES.index(str(class_of(model.name, model.category))),
        source=f"{file}:{model.path} ({model.name})",
        sha256=sha256_of(archive.read(model.path)),
        author=model.creator,
        licence=licence,
        redistributable=redistributable,
    )
    return Shape(record, sample.coords, sample.normals, sample_colors(parts, sample))


def _signature(parts: Sequence[Part]) -> str:
    """Equal for models that differ only by colour, scale, or the order of their vertices."""
    vertices: NDArray[np.float64] = np.concatenate([p.triangles.reshape(-1, 3) for p in parts])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    cells = np.round((vertices - low) / np.maximum(high - low, 1e-9) * _GRID).astype(np.int16)
    return sha256_of(np.unique(cells, axis=0).tobytes())


def _archive_file(path: Path) -> SourceFile:
    with open_archive(path) as archive:
        licence = licence_of(read_catalogue(archive).licence)[0]
    return SourceFile(path.name, sha256_of(path.read_bytes()), "see the shapes", licence)
