"""Scans a furnished room: a walk of depth cameras, fused into one cloud.

Every view casts one ray a pixel (Embree), loses what is out of range, at grazing angles or behind
something, and measures with an error that grows with the square of the distance. Views are fused
in voxels; what no view saw is a hole. Light falls from lamps with shadows.

Shape legend: T triangles, R rays, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders.rooms_mesh import Mesh, join
from pointzoo.data.builders.rooms_plan import Item
from pointzoo.errors import MissingExtraError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sensor:
    """A depth camera and how its views are fused.

    Attributes:
        width: Pixels across.
        height: Pixels down.
        field: Horizontal angle of view in degrees.
        reach: Nearest and farthest depth in metres.
        noise: Standard deviation in metres at no distance, and its growth per square metre.
        grazing: Smallest cosine between ray and normal that returns.
        voxel: Side of the voxels of the fused cloud in metres.
        views: Views per square metre of floor.
    """

    width: int = 160
    height: int = 120
    field: float = 62.0
    reach: tuple[float, float] = (0.35, 4.5)
    noise: tuple[float, float] = (0.0015, 0.0016)
    grazing: float = 0.1
    voxel: float = 0.02
    views: float = 1.6

    @property
    def intrinsics(self) -> Floats:
        """(3, 3) pixels; centres of pixels lie at integers."""
        focal = self.width / 2 / np.tan(np.radians(self.field) / 2)
        middle = ((self.width - 1) / 2, (self.height - 1) / 2)
        return np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class Hits:
    """What R rays met; only rays that met something are listed.

    Attributes:
        ray: (R,) which ray.
        triangle: (R,) which triangle.
        distance: (R,) metres along the ray.
        bary: (R, 3) barycentric weights.
    """

    ray: NDArray[np.int64]
    triangle: NDArray[np.int64]
    distance: Floats
    bary: Floats


class Scene:
    """All triangles of a room, ready to be hit by rays.

    Args:
        items: What is in the room.
        lamps: (L, 3) places of lamps.

    Raises:
        MissingExtraError: embreex is not installed.
    """

    def __init__(self, items: Sequence[Item], lamps: Floats) -> None:
        """Build the search tree."""
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise MissingExtraError("embreex", "rooms") from error
        mesh = join([item.mesh for item in items])
        counts = [len(item.mesh.triangles) for item in items]
        self.mesh: Mesh = mesh
        self.label = np.repeat([item.label for item in items], counts)
        self.instance = np.repeat([item.instance for item in items], counts)
        self.lamps = lamps
        edges = mesh.triangles[:, 1:].astype(np.float64) - mesh.triangles[:, :1]
        cross = np.cross(edges[:, 0], edges[:, 1])
        length = np.linalg.norm(cross, axis=1, keepdims=True)
        self.normals: Floats = cross / np.maximum(length, 1e-12)
        sizes = np.array([image.shape[:2] for image in mesh.textures], dtype=np.int64)
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]])
        self._texels = np.concatenate([image.reshape(-1, 3) for image in mesh.textures])
        self._tree: Any = rtcore_scene.EmbreeScene()
        self._geometry: Any = TriangleMesh(self._tree, mesh.triangles)

    def cast(self, origins: NDArray[Any], directions: NDArray[Any]) -> Hits:
        """First triangle that each ray (R, 3) meets."""
        result = self._tree.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(directions, dtype=np.float32),
            query="INTERSECT",
            output=True,
        )
        rows = np.flatnonzero(result["primID"] >= 0)
        u, v = result["u"][rows].astype(np.float64), result["v"][rows].astype(np.float64)
        return Hits(
            rows,
            result["primID"][rows].astype(np.int64),
            result["tfar"][rows].astype(np.float64),
            np.stack([1 - u - v, u, v], axis=1),
        )

    def colors(self, triangle: NDArray[np.int64], bary: Floats) -> Floats:
        """Colour (N, 3) in 0..255 of points on triangles, without light."""
        uv = np.einsum("nk,nkc->nc", bary, self.mesh.uv[triangle]) % 1.0
        texture = self.mesh.texture[triangle]
        height, width = self._sizes[texture].T
        column = np.minimum((uv[:, 0] * width).astype(np.int64), width - 1)
        row = np.minimum(((1.0 - uv[:, 1]) * height).astype(np.int64), height - 1)
        texels: Floats = self._texels[self._starts[texture] + row * width + column].astype(float)
        return texels

    def light(self, points: Floats, normals: Floats, rng: np.random.Generator) -> Floats:
        """Brightness (N,) of surfaces: sky light, and lamps with soft shadows."""
        total = np.full(len(points), 0.62) + 0.08 * normals[:, 2]
        for lamp in self.lamps:
            source = lamp + rng.normal(0, 0.12, (len(points), 3))
            to_lamp = source - points
            distance = np.linalg.norm(to_lamp, axis=1)
            direction = to_lamp / np.maximum(distance, 1e-6)[:, None]
            cosine = np.clip((direction * normals).sum(axis=1), 0, 1)
            lit = cosine > 0.02
            start = points[lit] + normals[lit] * 0.02
            blocked = self._tree.run(
                start.astype(np.float32),
                direction[lit].astype(np.float32),
                (distance[lit] * 0.97 - 0.05).clip(0.01).astype(np.float32),
                query="OCCLUDED",
            )
            shine = cosine[lit] / (0.6 + 0.22 * distance[lit] ** 2) * (blocked != 0)
            total[lit] += 0.62 * shine / len(self.lamps) ** 0.5
        return total


@dataclass(frozen=True, eq=False)
class Cloud:
    """A fused scan of N points."""

    coords: Floats
    colors: NDArray[np.uint8]
    normals: Floats
    labels: NDArray[np.int64]
    instance: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _View:
    """What one view saw (N,)."""

    place: Floats
    seen: Floats
    color: Floats
    normal: Floats
    triangle: NDArray[np.int64]


def pixel_rays(sensor: Sensor, pose: Floats, offset: Floats | None = None) -> Floats:
    """Directions (H * W, 3) of unit depth; ``offset`` (2,) shifts them by parts of a pixel."""
    matrix = sensor.intrinsics
    y, x = np.mgrid[0 : sensor.height, 0 : sensor.width].astype(np.float64)
    if offset is not None:
        x, y = x + offset[0], y + offset[1]
    rays = np.stack(
        [
            (x - matrix[0, 2]) / matrix[0, 0],
            (y - matrix[1, 2]) / matrix[1, 1],
            np.ones_like(x),
        ],
        axis=-1,
    )
    turned: Floats = rays.reshape(-1, 3) @ pose[:3, :3].T
    return turned


def scan(scene: Scene, poses: Sequence[Floats], sensor: Sensor, rng: np.random.Generator) -> Cloud:
    """Scan a room from the poses (4, 4) and fuse the views."""
    views = [_look(scene, pose, sensor, rng) for pose in poses]
    place = np.concatenate([view.place for view in views])
    if len(place) == 0:
        return Cloud(place, place.astype(np.uint8), place, *[np.zeros(0, dtype=np.int64)] * 2)
    keys = np.floor(place / sensor.voxel).astype(np.int64)
    keys -= keys.min(axis=0)
    extent = keys.max(axis=0) + 1
    flat = (keys[:, 0] * extent[1] + keys[:, 1]) * extent[2] + keys[:, 2]
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(first, len(ordered)))

    def mean(values: Floats) -> Floats:
        sums: Floats = np.add.reduceat(values[order], first, axis=0)
        return sums / counts[:, None]

    kept = (counts > 1) | (rng.random(len(counts)) < 0.3)
    coords = mean(np.concatenate([view.seen for view in views]))[kept]
    colors = mean(np.concatenate([view.color for view in views]))[kept]
    normals = mean(np.concatenate([view.normal for view in views]))[kept]
    triangle = np.concatenate([view.triangle for view in views])[order[first]][kept]
    normals = _smooth_normals(coords, normals, sensor.voxel * 2.5, rng)
    coords = coords + normals * _waves(coords, rng)[:, None]
    bright = scene.light(coords, normals, rng)
    shaded = colors * bright[:, None] + rng.normal(0, 2.0, colors.shape)
    return Cloud(
        coords,
        np.clip(shaded, 0, 255).astype(np.uint8),
        normals,
        scene.label[triangle],
        scene.instance[triangle],
    )


def _look(scene: Scene, pose: Floats, sensor: Sensor, rng: np.random.Generator) -> _View:
    """One view: ranges with noise, colours with the exposure of that view."""
    rays = pixel_rays(sensor, pose, rng.random(2) - 0.5)
    length = np.linalg.norm(rays, axis=1)
    rays /= length[:, None]
    origin = pose[:3, 3]
    hits = scene.cast(np.broadcast_to(origin, rays.shape), rays)
    direction = rays[hits.ray]
    depth = hits.distance / length[hits.ray]
    normal = scene.normals[hits.triangle]
    cosine = -(normal * direction).sum(axis=1)
    normal = normal * np.where(cosine < 0, -1.0, 1.0)[:, None]  # towards the camera
    near, far = sensor.reach
    fade = np.clip((far - depth) / 0.8, 0.0, 1.0) * np.clip(np.abs(cosine) / 0.25, 0.0, 1.0)
    keep = (depth > near) & (depth < far) & (np.abs(cosine) > sensor.grazing)
    keep &= rng.random(len(depth)) < fade
    rows = np.flatnonzero(keep)
    hits = Hits(hits.ray[rows], hits.triangle[rows], hits.distance[rows], hits.bary[rows])
    sigma = sensor.noise[0] + sensor.noise[1] * depth[rows] ** 2
    error = rng.normal(0, 1, len(rows)) * sigma + rng.normal(0, 0.002)
    drift = rng.normal(0, 0.0025, 3)
    place = origin + direction[rows] * hits.distance[:, None] + drift
    gain = rng.normal(1, 0.05) * rng.normal(1, 0.015, 3)
    color = scene.colors(hits.triangle, hits.bary) * gain
    return _View(
        place,
        place + direction[rows] * error[:, None],
        color + rng.normal(0, 4, color.shape),
        normal[rows],
        hits.triangle,
    )


def _smooth_normals(
    coords: Floats, normals: Floats, cell: float, rng: np.random.Generator
) -> Floats:
    """Normals as those of a mesh fused from depth: rounded over edges, a little rough."""
    keys = np.floor(coords / cell).astype(np.int64)
    _, index, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    mean = np.stack([np.bincount(index, normals[:, k]) for k in range(3)], axis=1)
    mixed = normals + 0.6 * (mean / counts[:, None])[index] + rng.normal(0, 0.09, normals.shape)
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.where(length > 1e-6, mixed / np.maximum(length, 1e-6), [0.0, 0.0, 1.0])


def _waves(coords: Floats, rng: np.random.Generator) -> Floats:
    """Slow waviness (N,) of fused surfaces, some millimetres."""
    total = np.zeros(len(coords))
    for _ in range(5):
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / rng.uniform(0.25, 1.2) / np.linalg.norm(direction)
        total += 0.0018 * np.sin(coords @ direction + rng.random() * 2 * np.pi)
    return total
