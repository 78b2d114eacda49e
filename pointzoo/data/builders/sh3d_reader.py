"""Reads Sweet Home 3D furniture libraries: a zip (``.sh3f`` or ``.jar``) of OBJ models.

A catalogue (a Java properties file inside the zip) gives each model a name, a category, its size
and its maker. Shape legend: T triangles, V vertices, N points.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.errors import FormatError, MissingExtraError
from pointzoo.io.files import check_is_file
from pointzoo.io.siblings import require_small
from pointzoo.io.surface import SurfaceSample

CATALOGUES = (
    "PluginFurnitureCatalog.properties",
    "com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties",
)
METRES_PER_UNIT = 0.01
_LARGEST_MEMBER = 64 << 20
_FIX = "Check the file; furniture libraries are at https://www.sweethome3d.com/importModels.jsp."
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ITEM = re.compile(r"^(\w+)#(\d+)$")


@dataclass(frozen=True)
class Model:
    """One line of a catalogue.

    Attributes:
        id: Identifier in the catalogue.
        name: English name.
        category: English category.
        path: Of the OBJ file inside the archive.
        size: Width, depth and height in metres.
        rotation: (9,) row-major rotation to apply to the file's vertices.
        creator: Who made it.
        top: Height in metres at which other things stand on it; None where nothing can.
    """

    id: str
    name: str
    category: str
    path: str
    size: tuple[float, float, float]
    rotation: tuple[float, ...]
    creator: str
    top: float | None = None


@dataclass(frozen=True)
class Catalogue:
    """All models of an archive and the licence it states."""

    licence: str
    models: tuple[Model, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """The triangles of a model that share a material.

    Attributes:
        triangles: (T, 3, 3) metres, z up.
        uv: (T, 3, 2) texture coordinates, or None.
        image: (height, width, 3) uint8 texture, or None.
        color: (3,) uint8 sRGB, where there is no texture.
        opacity: 1 for what one cannot see through.
    """

    triangles: NDArray[np.float64]
    uv: NDArray[np.float64] | None
    image: NDArray[np.uint8] | None
    color: NDArray[np.uint8]
    opacity: float = 1.0


def read_catalogue(archive: zipfile.ZipFile) -> Catalogue:
    """Read the catalogue of an archive.

    Raises:
        FormatError: There is no catalogue, or a line of it is malformed.
    """
    names = set(archive.namelist())
    found = [name for name in CATALOGUES if name in names]
    if not found:
        raise FormatError(
            expected=f"a furniture library with {CATALOGUES[0]} inside",
            got=str(archive.filename),
            fix=_FIX,
        )
    text = _member(archive, found[0]).decode("latin-1")
    items: dict[int, dict[str, str]] = defaultdict(dict)
    licence = ""
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        value = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value.strip())
        item = _ITEM.match(key.strip())
        if separator and item:
            items[int(item[2])][item[1]] = value
        elif key.strip() == "license":
            licence = value
    try:
        models = tuple(_model(items[number]) for number in sorted(items))
    except (KeyError, ValueError, OverflowError) as error:
        raise FormatError(
            expected=f"name, category, model and size of every model in {found[0]}",
            got=f"{archive.filename}: {type(error).__name__}: {error}",
            fix=_FIX,
        ) from error
    return Catalogue(licence, models)


def _model(item: dict[str, str]) -> Model:
    width, depth, height = (float(item[k]) * METRES_PER_UNIT for k in ("width", "depth", "height"))
    rotation = tuple(map(float, item.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()))
    if not np.isfinite((width, depth, height, *rotation)).all():
        raise ValueError(f"the size or rotation of {item['name']!r}")
    path = item["model"].lstrip("/")
    top = float(item.get("dropOnTopElevation", item["height"])) * METRES_PER_UNIT
    return Model(
        id=item.get("id", path),
        name=item["name"],
        category=item["category"],
        path=path,
        size=(width, depth, height),
        rotation=rotation,
        creator=item.get("creator", "unknown"),
        top=top if top >= 0 else None,
    )


def load_parts(archive: zipfile.ZipFile, model: Model) -> list[Part]:
    """Triangles, texture coordinates and colours of a model, at its catalogue size, z up.

    The file's axes are x right, y up, z towards the viewer; the size of the catalogue stretches
    each axis on its own, as the program does.

    Raises:
        FormatError: The model file is missing or has no face.
        MissingExtraError: trimesh or Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401 - trimesh reads no texture without it
        import trimesh
    except ImportError as error:
        raise MissingExtraError(error.name or "trimesh", "mesh") from error
    try:
        data = _member(archive, model.path)
        scene = trimesh.load_scene(
            io.BytesIO(data),
            file_type="obj",
            resolver=_Siblings(archive, PurePosixPath(model.path).parent),
            process=False,
        )
        meshes = [mesh for mesh in scene.geometry.values() if len(getattr(mesh, "faces", ())) > 0]
        if not meshes:
            raise FormatError(expected=f"faces in {model.path}", got="none", fix=_FIX)
        rotation = np.array(model.rotation, dtype=np.float64).reshape(3, 3)
        corners = [np.asarray(m.vertices)[m.faces] @ rotation.T for m in meshes]  # (T, 3, 3)
        placed = _at_size(corners, model.size)
        return [_part(mesh, triangles) for mesh, triangles in zip(meshes, placed, strict=True)]
    except FormatError:
        raise
    except Exception as error:  # trimesh, Pillow and zipfile raise anything at damaged files
        raise FormatError(
            expected=f"an OBJ model {model.path}", got=f"{type(error).__name__}: {error}", fix=_FIX
        ) from error


class _Siblings(Mapping[str, bytes]):
    """The material and texture files beside a model, read when trimesh asks for them."""

    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath) -> None:
        self._archive = archive
        self._folder = folder

    def __getitem__(self, name: str) -> bytes:
        """Bytes of a file; trimesh goes on without it after a KeyError."""
        return _member(self._archive, str(self._folder / name.strip().replace("\\", "/")))

    def __iter__(self) -> Iterator[str]:
        """Names of the files."""
        paths = map(PurePosixPath, self._archive.namelist())
        return (path.name for path in paths if path.parent == self._folder)

    def __len__(self) -> int:
        """Number of the files."""
        return sum(1 for _ in self)


def _at_size(
    corners: list[NDArray[np.float64]], size: tuple[float, float, float]
) -> list[NDArray[np.float64]]:
    """Stretch to width, depth, height and turn y up into z up."""
    low = np.min([part.min(axis=(0, 1)) for part in corners], axis=0)
    high = np.max([part.max(axis=(0, 1)) for part in corners], axis=0)
    width, depth, height = size
    scale = np.array([width, height, depth]) / np.maximum(high - low, 1e-9)
    scale = np.where(high - low > 1e-9, scale, 1.0)  # a flat model stays flat
    turned = [(part - (low + high) / 2) * scale for part in corners]
    return [np.stack([p[..., 0], -p[..., 2], p[..., 1]], axis=-1) for p in turned]


def _part(mesh: Any, triangles: NDArray[np.float64]) -> Part:
    visual = mesh.visual
    material = getattr(visual, "material", None)
    diffuse = getattr(material, "diffuse", None)
    color = np.asarray(diffuse if diffuse is not None else (160, 160, 160, 255))[:3]
    color = color.astype(np.uint8)
    opacity = _opacity(getattr(material, "kwargs", {}))
    uv, image = getattr(visual, "uv", None), getattr(material, "image", None)
    if uv is None or image is None:
        return Part(triangles, None, None, color, opacity)
    require_small(image)
    pixels = np.asarray(image.convert("RGB"))
    return Part(triangles, np.asarray(uv)[mesh.faces], pixels, color, opacity)


def _opacity(material: Mapping[str, Any]) -> float:
    """Opacity that a material states, by ``d`` or by its opposite ``Tr``."""
    try:
        if "d" in material:
            return float(material["d"][-1])
        return 1.0 - float(material["tr"][-1]) if "tr" in material else 1.0
    except (ValueError, IndexError):
        return 1.0


def sample_colors(parts: list[Part], sample: SurfaceSample) -> NDArray[np.uint8]:
    """Colour (N, 3) of points sampled from the concatenated triangles of some parts."""
    colors = np.zeros((len(sample.triangle), 3), dtype=np.uint8)
    start = 0
    for part in parts:
        stop = start + len(part.triangles)
        rows = np.flatnonzero((sample.triangle >= start) & (sample.triangle < stop))
        if part.uv is None or part.image is None:
            colors[rows] = part.color
        else:
            at = np.einsum(
                "nk,nkc->nc", sample.weights[rows], part.uv[sample.triangle[rows] - start]
            )
            colors[rows] = _texel(part.image, at)
        start = stop
    return colors


def _texel(image: NDArray[np.uint8], uv: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Nearest texel; the texture repeats, v points up."""
    height, width = image.shape[:2]
    wrapped = np.nan_to_num(uv) % 1.0
    column = np.minimum((wrapped[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum(((1.0 - wrapped[:, 1]) * height).astype(np.int64), height - 1)
    texels: NDArray[np.uint8] = image[row, column]
    return texels


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a library.

    Raises:
        FormatError: The file is no zip.
    """
    try:
        check_is_file(path)
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
        raise FormatError(
            expected="a furniture library (.sh3f or .jar)",
            got=f"{path}: {type(error).__name__}: {error}",
            fix=_FIX,
        ) from error
    return archive


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of an archive.

    Raises:
        KeyError: There is none of that name.
        FormatError: It is damaged, or larger than any model or picture is.
    """
    entry = archive.getinfo(name)
    if entry.file_size > _LARGEST_MEMBER:
        raise FormatError(
            expected=f"{name} of at most {_LARGEST_MEMBER:,} bytes",
            got=f"{entry.file_size:,} unpacked",
            fix=_FIX,
        )
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise FormatError(
            expected=f"a whole {name} in {archive.filename}",
            got=f"{type(error).__name__}: {error}",
            fix=_FIX,
        ) from error
