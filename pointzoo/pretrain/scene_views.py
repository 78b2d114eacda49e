"""Two views of a scene: spatial, photometric and sampling augmentations of MSC, in their order.

Paper: X. Wu et al., arXiv 2303.14191, section 4.1 and Table 4; the rest follows Pointcept @
d74c646. The order is theirs, but photometric changes are only computed for the points that sampling
keeps: the result is the same, at a tenth of the work. Runs in numpy, in the workers of the loader.

Shape legend: N points of the scene, M points of a view. Coordinates are kept as (3, N) here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pointzoo import transforms
from pointzoo.augment import grid_cells, nearest, pick_per_cell, shake, turn_and_mirror
from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.errors import ConfigError
from pointzoo.pretrain.photometric import ColorJitter, jitter_colors

GridFrame = Literal["augmented", "original"]


@dataclass(frozen=True)
class SceneAugmentation:
    """Random changes of a scene and of each view; the defaults are the paper's (Table 4).

    Attributes:
        scale: Range of the factor of the whole scene, shared by both views.
        turn: Largest rotation about z, radians.
        tilt: Largest rotation about x and y, radians.
        flip: Probability of mirroring x, and of mirroring y.
        jitter_sigma: Standard deviation of the noise on every coordinate, metres.
        jitter_clip: Largest noise, metres.
        colors: Photometric changes.
        grid_size: Edge of a voxel, metres; a view keeps one random point of each.
        grid_frame: Frame in which that point is chosen: ``augmented`` (section 4.1, Pointcept) or
            ``original`` (appendix A.2). The voxels that the network sees are augmented either way.
        crop: Share of a view's points that are kept: those nearest to a random one.
        radius: Both views come from what lies within this horizontal distance of a random point,
            metres; None for the whole scene (the paper).
        channel_dropout: Probability that a view is shown without its colours, and without its
            normals, so that weights survive clouds that have none.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    turn: float = math.pi
    tilt: float = math.pi / 64
    flip: float = 0.5
    jitter_sigma: float = 0.005
    jitter_clip: float = 0.02
    colors: ColorJitter = field(default_factory=ColorJitter)
    grid_size: float = 0.02
    grid_frame: GridFrame = "augmented"
    crop: float = 0.6
    radius: float | None = None
    channel_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A number is out of range.
        """
        low, high = self.scale
        lengths = (self.grid_size, math.inf if self.radius is None else self.radius, low)
        shares = (self.flip, self.channel_dropout)
        fine = min(lengths) > 0.0 and low <= high and 0.0 < self.crop <= 1.0
        fine = fine and min(shares) >= 0.0 and max(shares) <= 1.0
        if not fine or self.grid_frame not in ("augmented", "original"):
            raise ConfigError(
                expected="positive lengths, shares from 0 to 1, a range (low, high), and grid_frame"
                " 'augmented' or 'original'",
                got=repr(self),
                fix="Correct the setting.",
            )


@dataclass(frozen=True, eq=False)
class SceneView:
    """One view of a scene.

    Attributes:
        coords: (M, 3) float32 metres, after all spatial changes, centred in x and y.
        origin: (M, 3) float32 metres, the same points in the frame that both views share.
        cells: (M, 3) int32 voxels, counted from the smallest of the view before it was cropped,
            in ascending order.
        colors: (M, 3) float32 in 0..1, after the photometric changes; 0 where there are none.
        source_colors: (M, 3) float32, before them.
        normals: (M, 3) float32 unit length, turned with the view.
        hidden: Channels that the network is not shown.
    """

    coords: FloatArray
    origin: FloatArray
    cells: IntArray
    colors: FloatArray
    source_colors: FloatArray
    normals: FloatArray
    hidden: frozenset[str]


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene as views are made of it.

    Attributes:
        coords: (3, N) float32 metres: x and y centred, the lowest z 0.
        colors: (N, 3) float32 in 0..1, or None.
        normals: (N, 3) float32.
    """

    coords: FloatArray
    colors: FloatArray | None
    normals: FloatArray


def scene_views(
    cloud: PointCloud, change: SceneAugmentation, generator: np.random.Generator
) -> tuple[SceneView, SceneView]:
    """Make the query and the key view of a scene.

    Args:
        cloud: At least one point, finite coordinates, z up. Normals are estimated where there are
            none, towards the middle of the scene, as those of a scan from inside a room are.
        change: What is changed.
        generator: Source of the random numbers.

    Raises:
        CloudError: The cloud is empty or a coordinate is not finite.
    """
    scene = make_scene(cloud, change, generator)
    return make_view(scene, change, generator), make_view(scene, change, generator)


def make_scene(
    cloud: PointCloud, change: SceneAugmentation, generator: np.random.Generator
) -> Scene:
    """Cut out, centre and scale what both views share; see :func:`scene_views`."""
    cloud = cloud.require_usable()
    if change.radius is not None:
        cloud = cloud.select(_within(cloud.coords, change.radius, generator))
    normals = cloud.normals
    if normals is None:
        outward = transforms.estimate_normals(cloud, orient="outward").normals
        assert outward is not None
        normals = -outward
    low, high = cloud.coords.min(axis=0), cloud.coords.max(axis=0)
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    coords = np.ascontiguousarray((cloud.coords - middle).T, dtype=np.float32)
    coords *= np.float32(generator.uniform(*change.scale))
    return Scene(coords, cloud.colors, normals)


def make_view(scene: Scene, change: SceneAugmentation, generator: np.random.Generator) -> SceneView:
    """Turn, mirror, shake, recolour, sample and crop a scene."""
    about = {"z": change.turn, "x": change.tilt, "y": change.tilt}
    angles = {axis: generator.uniform(-most, most) for axis, most in about.items()}
    mirror = np.where(generator.random(2) < change.flip, -1.0, 1.0)
    turn, moved = turn_and_mirror(scene.coords, angles, mirror)
    shake(moved, change.jitter_sigma, change.jitter_clip, generator)
    cells = grid_cells(moved, change.grid_size)
    framed = change.grid_frame == "augmented"
    chosen = cells if framed else grid_cells(scene.coords, change.grid_size)
    rows = pick_per_cell(chosen, generator)
    centre = int(generator.integers(len(rows)))
    rows = rows[nearest(moved[:, rows], centre, max(int(len(rows) * change.crop), 1))]
    if not framed:
        rows = rows[np.lexsort(cells[::-1, rows])]
    coords = moved[:, rows]
    coords[:2] -= (coords[:2].min(axis=1) + coords[:2].max(axis=1))[:, None] / 2
    colors = source = np.zeros((len(rows), 3), np.float32)
    if scene.colors is not None:
        source = scene.colors[rows]
        colors = jitter_colors(scene.colors, rows, change.colors, generator)
    dropped = generator.random(2) < change.channel_dropout
    missing = (scene.colors is None or dropped[0], dropped[1])
    return SceneView(
        coords=np.ascontiguousarray(coords.T),
        origin=np.ascontiguousarray(scene.coords[:, rows].T),
        cells=np.ascontiguousarray(cells[:, rows].T),
        colors=colors,
        source_colors=source,
        normals=scene.normals[rows] @ turn.T,
        hidden=frozenset(n for n, m in zip(("colors", "normals"), missing, strict=True) if m),
    )


def _within(coords: FloatArray, radius: float, generator: np.random.Generator) -> IntArray:
    centre = coords[int(generator.integers(len(coords)))]
    squared = (coords[:, 0] - centre[0]) ** 2 + (coords[:, 1] - centre[1]) ** 2
    rows: IntArray = np.flatnonzero(squared <= radius**2)
    return rows
