"""Pure functions from a point cloud to a point cloud.

Each returns a new cloud and leaves the given one alone. Random ones take a generator. Colours,
labels and other fields stay with their points; normals turn with the coordinates. A field that is
itself a direction (a velocity, say) is not known to be one and stays as it is.

Shape legend: N points, K neighbours.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError

Orientation = Literal["outward", "upward"]

_CHUNK = 65_536
"""Points whose neighbourhoods are held in memory at once."""


def center(cloud: PointCloud) -> PointCloud:
    """Move the centroid (the mean of the points) to the origin; an empty cloud stays empty."""
    if len(cloud) == 0:
        return cloud
    return cloud.replace(coords=cloud.coords - cloud.coords.mean(axis=0))


def unit_sphere(cloud: PointCloud) -> PointCloud:
    """Move the centroid to the origin and scale so that the farthest point has distance 1.

    The normalisation of ModelNet and ShapeNet experiments. Points that all coincide are only moved.

    Raises:
        CloudError: There is no point, or a coordinate is NaN or infinite.
    """
    centred = center(cloud.require_usable())
    radius = float(np.linalg.norm(centred.coords, axis=1).max())
    return centred if radius == 0.0 else centred.replace(coords=centred.coords / radius)


def scale(cloud: PointCloud, factor: float) -> PointCloud:
    """Multiply the coordinates by ``factor``, for instance 0.001 to get from millimetres to metres.

    Raises:
        ConfigError: The factor is not a positive finite number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ConfigError(
            expected="a positive finite factor", got=f"{factor}", fix="Mirroring is a rotate()."
        )
    return cloud.replace(coords=cloud.coords * factor)


def rotate(cloud: PointCloud, matrix: ArrayLike) -> PointCloud:
    """Turn coordinates and normals about the origin: p -> R p.

    Args:
        cloud: The cloud.
        matrix: (3, 3) orthogonal; one with determinant -1 mirrors.

    Raises:
        ConfigError: The matrix is not orthogonal (to 1e-6).
    """
    turn = np.asarray(matrix, dtype=np.float64)
    if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), rtol=0.0, atol=1e-6):
        raise ConfigError(
            expected="an orthogonal (3, 3) matrix",
            got=f"shape {turn.shape}" if turn.shape != (3, 3) else f"{turn.tolist()}",
            fix="Build one with scipy.spatial.transform.Rotation, or use rotate_z().",
        )
    normals = cloud.normals
    if normals is not None:
        normals = (normals.astype(np.float64) @ turn.T).astype(np.float32)
    return cloud.replace(coords=cloud.coords @ turn.T, normals=normals)


def rotate_z(cloud: PointCloud, angle: float) -> PointCloud:
    """Turn about the z axis, counter-clockwise seen from above.

    Args:
        cloud: The cloud.
        angle: Radians.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    return rotate(cloud, [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def jitter(
    cloud: PointCloud, generator: np.random.Generator, *, sigma: float = 0.01, clip: float = 0.05
) -> PointCloud:
    """Add independent Gaussian noise to every coordinate.

    Args:
        cloud: The cloud.
        generator: Source of the noise.
        sigma: Standard deviation, in the unit of the coordinates.
        clip: Largest change of a coordinate.

    Raises:
        ConfigError: ``sigma`` or ``clip`` is negative or not finite.
    """
    if not (0 <= sigma < math.inf and 0 <= clip < math.inf):
        raise ConfigError(
            expected="sigma and clip at least 0 and finite",
            got=f"sigma={sigma}, clip={clip}",
            fix="Pass lengths in the unit of the coordinates.",
        )
    noise = generator.normal(0.0, sigma, size=cloud.coords.shape).clip(-clip, clip)
    return cloud.replace(coords=cloud.coords + noise)


def subsample(cloud: PointCloud, count: int, generator: np.random.Generator) -> PointCloud:
    """Draw ``count`` points, in random order.

    No point is drawn twice as long as there are enough. A smaller cloud gives every point equally
    often, as far as ``count`` divides, and the rest without replacement.

    Args:
        cloud: The cloud.
        count: Number of points to draw, at least 1.
        generator: Source of the choice.

    Raises:
        ConfigError: ``count`` is less than 1.
        CloudError: The cloud is empty.
    """
    if count < 1:
        raise ConfigError(expected="a count of at least 1", got=f"{count}", fix="Raise it.")
    size = len(cloud)
    if size == 0:
        cloud.require_usable()
    rounds = -(-count // size)
    rows = np.concatenate([generator.permutation(size) for _ in range(rounds)])[:count]
    return cloud.select(rows)


def estimate_normals(
    cloud: PointCloud, k: int = 16, *, orient: Orientation = "outward"
) -> PointCloud:
    """Replace the normals by the direction of least spread among each point's neighbours.

    The sign, which the neighbours do not tell, is chosen so that a normal points away from the
    centroid (``"outward"``, for objects) or has a positive z (``"upward"``, for terrain and
    floors); exactly sideways ones take a positive z, then y, then x. Neighbours on one line give
    some direction across it, coinciding ones give +z.

    Args:
        cloud: The cloud.
        k: Neighbours of a point, itself among them; all points where there are fewer.
        orient: How the sign is chosen.

    Raises:
        ConfigError: ``k`` is less than 3, or ``orient`` is unknown.
        CloudError: There is no point, or a coordinate is NaN or infinite.
    """
    if k < 3 or orient not in ("outward", "upward"):
        raise ConfigError(
            expected="k of at least 3 and orient 'outward' or 'upward'",
            got=f"k={k}, orient={orient!r}",
            fix="Three points span a plane.",
        )
    points = center(cloud.require_usable()).coords
    tree = cKDTree(points)
    neighbours = list(range(1, min(k, len(points)) + 1))
    normals = np.empty(points.shape, dtype=np.float32)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        _, rows = tree.query(part, k=neighbours)
        normals[start : start + _CHUNK] = _least_spread(points[rows])
    if orient == "outward":
        side = (normals * points).sum(axis=1)
    else:
        side = normals[:, 2].astype(np.float64)
    for axis in (2, 1, 0):
        side = np.where(side == 0.0, normals[:, axis], side)
    return cloud.replace(normals=normals * np.where(side < 0.0, -1.0, 1.0)[:, None])


def _least_spread(groups: NDArray[Any]) -> NDArray[Any]:
    """Eigenvector of the smallest eigenvalue of each covariance: (N, K, 3) -> (N, 3)."""
    offsets = groups - groups.mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", offsets, offsets)
    values, vectors = np.linalg.eigh(covariance)
    normals: NDArray[Any] = vectors[:, :, 0].copy()
    normals[values[:, 2] <= 0.0] = (0.0, 0.0, 1.0)
    return normals
