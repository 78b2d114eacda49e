"""Point clouds in and out of files.

:func:`read` takes whatever a file ends with; :func:`write` the formats that hold points. Nothing is
lost without a word: a field that a format cannot hold is an error, and what a reader leaves out is
in :attr:`RawCloud.notes`, which :func:`pointzoo.inspection.inspect` shows.

==========================  ====================================================================
ending                      what is read
==========================  ====================================================================
.ply .pcd                   every property, by name (:mod:`pointzoo.io.columns`)
.xyz .txt .asc .csv .pts    columns, by name or place (:mod:`pointzoo.io.text`)
.npy .npz                   a table (N, 3+) or arrays by name (:mod:`pointzoo.io.arrays`)
.las .laz                   every dimension (:mod:`pointzoo.io.las`; extra ``las``)
.off .obj .stl .glb .gltf   points drawn from the surface (:mod:`pointzoo.io.mesh`; extra ``mesh``)
==========================  ====================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError, FormatError
from pointzoo.io.arrays import read_npy, read_npz, write_npy, write_npz
from pointzoo.io.files import check_is_file, replacing
from pointzoo.io.las import read_las, write_las
from pointzoo.io.mesh import MESH_POINTS, read_mesh
from pointzoo.io.objects import from_object
from pointzoo.io.pcd import read_pcd, write_pcd
from pointzoo.io.ply import read_ply, write_ply
from pointzoo.io.raw import RawCloud
from pointzoo.io.text import read_text, write_text

__all__ = [
    "MESH_ENDINGS",
    "MESH_POINTS",
    "READABLE",
    "WRITABLE",
    "RawCloud",
    "from_object",
    "read",
    "read_raw",
    "write",
]


@dataclass(frozen=True)
class _Options:
    points: int
    columns: Sequence[str] | None


_Reader = Callable[[Path, _Options], RawCloud]
_Writer = Callable[[BinaryIO, PointCloud], None]


def _mesh(path: Path, options: _Options) -> RawCloud:
    return read_mesh(path, options.points)


def _text(path: Path, options: _Options) -> RawCloud:
    return read_text(path, options.columns)


_READERS: dict[str, _Reader] = {
    ".asc": _text,
    ".csv": _text,
    ".glb": _mesh,
    ".gltf": _mesh,
    ".las": lambda path, _: read_las(path),
    ".laz": lambda path, _: read_las(path),
    ".npy": lambda path, _: read_npy(path),
    ".npz": lambda path, _: read_npz(path),
    ".obj": _mesh,
    ".off": _mesh,
    ".pcd": lambda path, _: read_pcd(path),
    ".ply": lambda path, _: read_ply(path),
    ".pts": _text,
    ".stl": _mesh,
    ".txt": _text,
    ".xyz": _text,
}
_WRITERS: dict[str, _Writer] = {
    ".csv": partial(write_text, delimiter=","),
    ".las": partial(write_las, compress=False),
    ".laz": partial(write_las, compress=True),
    ".npy": write_npy,
    ".npz": write_npz,
    ".pcd": write_pcd,
    ".ply": write_ply,
    ".txt": write_text,
    ".xyz": write_text,
}

READABLE = tuple(_READERS)
"""Endings that :func:`read` takes."""
WRITABLE = tuple(_WRITERS)
"""Endings that :func:`write` takes."""
MESH_ENDINGS = tuple(ending for ending, reader in _READERS.items() if reader is _mesh)
"""Endings of meshes, from whose surface points are drawn."""


def read(
    path: str | os.PathLike[str],
    *,
    points: int = MESH_POINTS,
    columns: Sequence[str] | None = None,
    color_scale: float | None = None,
) -> PointCloud:
    """Read a point cloud.

    Coordinates keep the unit and the frame of the file, in float64; rows with NaN are kept.

    Args:
        path: The file; its ending says the format, see :data:`READABLE`.
        points: How many points to draw from a mesh; no other format uses it.
        columns: Names of all columns of a text file, in order, where the file does not say them.
        color_scale: The stored colour that means 1, where it is neither 1 nor 255 nor 65,535.

    Raises:
        FormatError: The ending is unknown, or the content is damaged, cut off or no point cloud.
        FileNotFoundError: There is no such file.
        MissingExtraError: The format needs a package that is not installed.
        ConfigError: ``points`` or ``color_scale`` is not positive.
        CloudError: A mesh has no surface.
    """
    if color_scale is not None and not color_scale > 0:
        raise ConfigError(
            expected="a positive color_scale", got=f"{color_scale}", fix="255 is the usual one."
        )
    return read_raw(path, points=points, columns=columns).to_cloud(color_scale)


def read_raw(
    path: str | os.PathLike[str],
    *,
    points: int = MESH_POINTS,
    columns: Sequence[str] | None = None,
) -> RawCloud:
    """Read a file as it is: colours in whatever range, and notes on what was left out.

    Args:
        path: See :func:`read`.
        points: See :func:`read`.
        columns: See :func:`read`.

    Raises:
        FormatError: See :func:`read`.
        FileNotFoundError: There is no such file.
        MissingExtraError: The format needs a package that is not installed.
        ConfigError: ``points`` is less than 1.
        CloudError: A mesh has no surface.
    """
    if points < 1:
        raise ConfigError(expected="points of at least 1", got=f"{points}", fix="Raise it.")
    source = Path(path)
    check_is_file(source)
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise _unknown_ending(source, READABLE)
    return reader(source, _Options(points, columns))


def write(path: str | os.PathLike[str], cloud: PointCloud) -> None:
    """Write a point cloud; a file of that name is replaced once the new one is whole.

    Every format holds coordinates, colours, normals, labels and fields, NPY coordinates alone. No
    value changes, but LAS rounds colours to 16 bits and, where no decimal scale fits them,
    coordinates; and the type of a number may become another that holds it (int64 an int32, in text
    any a float64).

    Args:
        path: The file; its ending says the format, see :data:`WRITABLE`.
        cloud: What to write.

    Raises:
        FormatError: The ending is unknown, or the format cannot hold a part of the cloud.
        MissingExtraError: The format needs a package that is not installed.
        OSError: The folder does not exist or cannot be written.
    """
    target = Path(path)
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        raise _unknown_ending(target, WRITABLE)
    with replacing(target) as stream:
        writer(stream, cloud)


def _unknown_ending(path: Path, known: tuple[str, ...]) -> FormatError:
    return FormatError(
        expected=f"a file that ends in {', '.join(known)}",
        got=path.name,
        fix="Convert it, or rename it if it is one of these.",
    )
