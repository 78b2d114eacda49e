"""Draws points from triangle meshes; every corpus builder samples with this one function.

Shape legend: T triangles, N points.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.errors import CloudError

POINTS_PER_SHAPE = 2048
"""How many points every shape of a built corpus has (the count the DCGLR paper trains on)."""


@dataclass(frozen=True, eq=False)
class SurfaceSample:
    """Points drawn from a mesh.

    Attributes:
        coords: (N, 3) float64, in the frame and unit of the mesh.
        normals: (N, 3) float64, unit length: the normal of the triangle, by its winding.
        triangle: (N,) int64, the triangle each point lies on.
        weights: (N, 3) float64, barycentric weights of its three corners.
    """

    coords: NDArray[np.float64]
    normals: NDArray[np.float64]
    triangle: NDArray[np.int64]
    weights: NDArray[np.float64]


def named_generator(name: str) -> np.random.Generator:
    """Return a random generator that depends on a name and on nothing else.

    Args:
        name: Any text, for instance the path of the model inside its archive.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def sample_surface(
    triangles: NDArray[np.floating[Any]], count: int, generator: np.random.Generator
) -> SurfaceSample:
    """Draw points uniformly by area from a triangle soup.

    Args:
        triangles: (T, 3, 3) corner coordinates. Triangles without area are never chosen.
        count: N, how many points to draw.
        generator: Source of randomness; the same state gives the same points.

    Raises:
        CloudError: There is no triangle with a finite area above zero.
    """
    corners = np.asarray(triangles, dtype=np.float64)
    origin = corners[:, 0]
    first, second = corners[:, 1] - origin, corners[:, 2] - origin
    cross = np.cross(first, second)  # (T, 3), length = twice the area
    area = np.linalg.norm(cross, axis=1)
    area = np.where(np.isfinite(area), area, 0.0)
    total = float(area.sum())
    if not (total > 0.0 and np.isfinite(total)):
        raise CloudError(
            expected="a mesh with at least one triangle of finite area above zero",
            got=f"{len(corners)} triangles of total area {total:g}",
            fix="Check that the mesh has faces and that its scale is sane.",
        )
    ends = np.cumsum(area)
    draw = generator.random((count, 3))
    # Side "right" never lands on a triangle of zero area, also not for a draw of exactly 0.
    triangle = np.searchsorted(ends, draw[:, 0] * ends[-1], side="right")
    triangle = np.minimum(triangle, int(np.flatnonzero(area)[-1])).astype(np.int64)
    root = np.sqrt(draw[:, 1])
    u, v = root * (1.0 - draw[:, 2]), root * draw[:, 2]
    coords = origin[triangle] + u[:, None] * first[triangle] + v[:, None] * second[triangle]
    normals = cross[triangle] / area[triangle, None]
    return SurfaceSample(coords, normals, triangle, np.stack([1.0 - u - v, u, v], axis=1))
