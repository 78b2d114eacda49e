"""Coloured triangles: what rooms are put together from before they are scanned.

Every triangle has a texture; a plain colour is a texture of one texel. Frame: metres, z up; a piece
of furniture stands on z = 0 with its back towards +y. Shape legend: T triangles, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers: TypeAlias = Sequence[float] | NDArray[Any]
Image = NDArray[np.uint8]
"""A texture (height, width, 3), sRGB, first row on top."""

_BOX_FACES = (  # corners of a unit cube as x + 2y + 4z, counter-clockwise seen from outside
    ((0, 1, 5, 4), (1, 0, 0), (0, 0, 1)),
    ((3, 2, 6, 7), (1, 0, 0), (0, 0, 1)),
    ((2, 0, 4, 6), (0, 1, 0), (0, 0, 1)),
    ((1, 3, 7, 5), (0, 1, 0), (0, 0, 1)),
    ((4, 5, 7, 6), (1, 0, 0), (0, 1, 0)),
    ((2, 3, 1, 0), (1, 0, 0), (0, 1, 0)),
)


@dataclass(frozen=True, eq=False)
class Mesh:
    """T triangles with textures.

    Attributes:
        triangles: (T, 3, 3) metres.
        uv: (T, 3, 2) texture coordinates; the texture repeats, v points up.
        texture: (T,) index in ``textures``.
        textures: The images.
        glass: (T,) whether one sees through it.
    """

    triangles: Floats
    uv: Floats
    texture: NDArray[np.int64]
    textures: tuple[Image, ...]
    glass: NDArray[np.bool_]

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """Lowest and highest corner (3,)."""
        return self.triangles.min(axis=(0, 1)), self.triangles.max(axis=(0, 1))

    def moved(
        self, position: Numbers = (0.0, 0.0, 0.0), yaw: float = 0.0, scale: Any = 1.0
    ) -> Mesh:
        """Scale, then turn by ``yaw`` radians about z, then shift."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=np.float64)
        placed = (self.triangles * np.asarray(scale, dtype=np.float64)) @ turn.T
        return self._with((placed + np.asarray(position)).astype(np.float32))

    def dyed(self, mix: NDArray[np.floating[Any]]) -> Mesh:
        """Pass every colour through a matrix (3, 3)."""
        images = tuple(np.clip(image @ mix.T, 0, 255).astype(np.uint8) for image in self.textures)
        return Mesh(self.triangles, self.uv, self.texture, images, self.glass)

    def without_glass(self) -> Mesh:
        """Return the triangles that light does not pass."""
        keep = ~self.glass
        return Mesh(
            self.triangles[keep],
            self.uv[keep],
            self.texture[keep],
            self.textures,
            self.glass[keep],
        )

    def _with(self, triangles: Floats) -> Mesh:
        return Mesh(triangles, self.uv, self.texture, self.textures, self.glass)


def hue_rotation(angle: float) -> NDArray[np.float64]:
    """Matrix (3, 3) that turns colours about the grey axis by ``angle`` radians."""
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    same, rest = cos + (1 - cos) / 3, (1 - cos) / 3
    return np.array(
        [
            [same, rest - sin, rest + sin],
            [rest + sin, same, rest - sin],
            [rest - sin, rest + sin, same],
        ]
    )


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several; an image that several share is kept once."""
    images: list[Image] = []
    known: dict[int, int] = {}
    indices = []
    for mesh in meshes:
        local = []
        for image in mesh.textures:
            if id(image) not in known:
                known[id(image)] = len(images)
                images.append(image)
            local.append(known[id(image)])
        indices.append(np.array(local, dtype=np.int64)[mesh.texture])
    return Mesh(
        np.concatenate([mesh.triangles for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(indices),
        tuple(images),
        np.concatenate([mesh.glass for mesh in meshes]),
    )


def plain(color: Numbers) -> Image:
    """Texture of one colour, 0..255."""
    image: Image = np.clip(np.asarray(color), 0, 255).astype(np.uint8).reshape(1, 1, 3)
    return image


def quads(corners: Any, image: Image, uv: Any = None) -> Mesh:
    """Rectangles.

    Args:
        corners: (Q, 4, 3) corners in order.
        image: Their texture.
        uv: (Q, 4, 2) texture coordinates; None: the image once on each.
    """
    points = np.asarray(corners, dtype=np.float32).reshape(-1, 4, 3)
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    where = np.broadcast_to(unit, (len(points), 4, 2)) if uv is None else np.asarray(uv)
    split = np.array([[0, 1, 2], [0, 2, 3]])
    triangles = points[:, split].reshape(-1, 3, 3)
    coordinates = where.astype(np.float32)[:, split].reshape(-1, 3, 2)
    count = len(triangles)
    return Mesh(
        triangles,
        coordinates,
        np.zeros(count, dtype=np.int64),
        (image,),
        np.zeros(count, dtype=np.bool_),
    )


def box(
    size: Numbers,
    image: Image,
    *,
    position: Numbers = (0.0, 0.0, 0.0),
    tile: float | None = None,
) -> Mesh:
    """A box that stands on its position, the middle of its lower side.

    Args:
        size: Width, depth and height.
        image: Texture of every side.
        position: Of the middle of the lower side.
        tile: Side of the texture in metres; None: the image once on each side.
    """
    extent = np.asarray(size, dtype=np.float64)
    cube = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=np.float64)
    points = (cube - [0.5, 0.5, 0.0]) * extent + np.asarray(position)
    corners, uvs = [], []
    for indices, across, up in _BOX_FACES:
        corners.append(points[list(indices)])
        side = np.array([abs(np.dot(across, extent)), abs(np.dot(up, extent))])
        repeat = side / tile if tile else np.ones(2)
        uvs.append(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * repeat)
    return quads(np.array(corners), image, np.array(uvs))
