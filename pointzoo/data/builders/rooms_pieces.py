"""The furniture that rooms are made of: models with a role, a class and a split.

Only models under CC0 or CC-BY are taken. In every role a quarter of the models, at least one where
there are two, is kept for test rooms; copies of one geometry are taken once, so that no shape is
on both sides.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from pointzoo.data.builders.rooms_mesh import Image, Mesh, join, plain
from pointzoo.data.builders.rooms_roles import Use, use_of
from pointzoo.data.builders.sh3d import find_archives, licence_of
from pointzoo.data.builders.sh3d_reader import (
    Model,
    Part,
    load_parts,
    open_archive,
    read_catalogue,
)
from pointzoo.data.corpus import sha256_of
from pointzoo.data.rooms import ModelSource
from pointzoo.errors import ConfigError, FormatError

TEST_SHARE = 0.25
MAX_TRIANGLES = 64_000
MAX_SMALL_TRIANGLES = 32_000
"""Of models below half a metre, of which a room holds many."""
_TEXELS = 256
_GLASS = 0.6  # opacity below which light passes


@dataclass(frozen=True, eq=False)
class Piece:
    """A model that can be put into a room.

    Attributes:
        name: Unique.
        use: Its role and class.
        mesh: Standing on z = 0, centred in x and y, its back towards +y.
        size: (3,) width, depth, height.
        top: Height at which things stand on it; None where nothing can.
        title: Its name in the catalogue.
    """

    name: str
    use: Use
    mesh: Mesh
    size: NDArray[np.float64]
    top: float | None
    title: str


Pieces = Mapping[str, tuple[Piece, ...]]
"""Pieces by role."""


@dataclass(frozen=True, eq=False)
class Furniture:
    """All pieces, by split, and where each comes from."""

    train: Pieces
    test: Pieces
    sources: tuple[ModelSource, ...]


def load_furniture(sources: Sequence[Path], *, progress: bool = True) -> Furniture:
    """Read all models that have a role.

    Args:
        sources: ``.sh3f`` files, or folders that hold some at any depth.
        progress: Show a progress bar on standard error.

    Raises:
        ConfigError: No library under a free licence is among them.
        MissingExtraError: trimesh or Pillow is not installed.
    """
    pieces: list[Piece] = []
    origins: list[ModelSource] = []
    seen: set[str] = set()
    for path in find_archives(sources):
        with open_archive(path) as archive:
            catalogue = read_catalogue(archive)
            licence, free = licence_of(catalogue.licence)
            if not free:
                continue
            wanted = [(m, use) for m in catalogue.models if (use := use_of(m)) is not None]
            for model, use in track(wanted, path.stem, disable=not progress):
                piece = _load(archive, path.stem, model, use, seen)
                if piece is not None:
                    pieces.append(piece)
                    digest = sha256_of(archive.read(model.path))
                    place = f"{path.name}:{model.path} ({model.name})"
                    origins.append(ModelSource(piece.name, place, digest, model.creator, licence))
    if not pieces:
        raise ConfigError(
            expected="furniture libraries under CC0 or CC-BY",
            got=f"none in {', '.join(map(str, sources))}",
            fix="Get them with `apt-get download sweethome3d-furniture`, then `dpkg -x`.",
        )
    train, test = _split(pieces)
    return Furniture(train, test, tuple(origins))


def _split(pieces: Sequence[Piece]) -> tuple[Pieces, Pieces]:
    """A quarter of each role to the test rooms, drawn by checksum of the names."""
    roles: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        roles[piece.use.role].append(piece)
    train: dict[str, tuple[Piece, ...]] = {}
    test: dict[str, tuple[Piece, ...]] = {}
    for role in sorted(roles):
        order = sorted(roles[role], key=lambda piece: sha256_of(piece.name.encode()))
        held = max(round(TEST_SHARE * len(order)), 1) if len(order) > 1 else 0
        test[role], train[role] = tuple(order[:held]), tuple(order[held:])
    return train, test


def _load(
    archive: zipfile.ZipFile, library: str, model: Model, use: Use, seen: set[str]
) -> Piece | None:
    try:
        parts = load_parts(archive, model)
    except FormatError:
        return None
    limit = MAX_TRIANGLES if max(model.size) > 0.5 else MAX_SMALL_TRIANGLES
    count = sum(len(part.triangles) for part in parts)
    signature = _signature(parts)
    if count > limit or signature in seen:
        return None
    seen.add(signature)
    mesh = join([_mesh_of(part) for part in parts])
    low, high = mesh.bounds
    middle = (low + high) / 2
    mesh = mesh.moved((-middle[0], -middle[1], -low[2]))
    name = f"{library}/{model.path.removesuffix('.obj')}"
    return Piece(name, use, mesh, (high - low).astype(np.float64), model.top, model.name)


def _mesh_of(part: Part) -> Mesh:
    count = len(part.triangles)
    image: Image = plain(part.color) if part.image is None else _reduced(part.image)
    uv = np.zeros((count, 3, 2)) if part.uv is None else np.nan_to_num(part.uv)
    return Mesh(
        part.triangles.astype(np.float32),
        uv.astype(np.float32),
        np.zeros(count, dtype=np.int64),
        (image,),
        np.full(count, part.opacity < _GLASS),
    )


def _reduced(image: Image) -> Image:
    """Every n-th texel: a scan sees a texel of a centimetre at best."""
    step = max(1, max(image.shape[:2]) // _TEXELS)
    return np.ascontiguousarray(image[::step, ::step])


def _signature(parts: Sequence[Part]) -> str:
    """Equal for copies of one geometry that differ by colour or size."""
    vertices = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    cells = np.round((vertices - low) / np.maximum(high - low, 1e-9) * 200).astype(np.int16)
    return sha256_of(np.unique(cells, axis=0).tobytes())
