"""Recipes of :mod:`pointzoo.tasks.recipes` applied to points.

:func:`change_points` takes arrays in the frame that an encoder's preprocessing produced,
:func:`change_cloud` a whole cloud. Randomness comes from a numpy generator that is passed in. Shape
legend: N points, M points that are kept.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointzoo import augment
from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.tasks.recipes import ObjectRecipe, Recipe, SceneChanges, SceneRecipe


@dataclass(frozen=True, eq=False)
class Points:
    """Points as a recipe reads and returns them.

    Attributes:
        coords: (M, 3) float32, metres or the unit of the encoder's frame.
        colors: (M, 3) float32 in 0..1, or None.
        normals: (M, 3) float32 unit length, or None.
        rows: (M,) the row of each point among those that were handed in: any other array follows
            with ``array[rows]``.
    """

    coords: FloatArray
    colors: FloatArray | None
    normals: FloatArray | None
    rows: IntArray

    @classmethod
    def of(
        cls, coords: FloatArray, colors: FloatArray | None = None, normals: FloatArray | None = None
    ) -> Points:
        """Take all points of some arrays."""
        return cls(coords, colors, normals, np.arange(len(coords)))

    def select(self, index: IntArray) -> Points:
        """Return some of the points."""
        colors = None if self.colors is None else self.colors[index]
        normals = None if self.normals is None else self.normals[index]
        return Points(self.coords[index], colors, normals, self.rows[index])


def change_points(
    points: Points,
    recipe: Recipe,
    generator: np.random.Generator,
    *,
    keep: IntArray | None = None,
) -> Points:
    """Change points at random; the arrays that are handed in stay as they are.

    Args:
        points: At least one point.
        recipe: What is changed.
        generator: Source of the random numbers.
        keep: Rows that a :class:`SceneRecipe` neither drops nor thins out (the labelled points of
            ScanNet's limited annotations); a crop may still leave them outside.
    """
    if isinstance(recipe, SceneRecipe):
        return _change_scene(points, recipe, generator, keep)
    if isinstance(recipe, SceneChanges):
        return _change_lightly(points, recipe, generator)
    if isinstance(recipe, ObjectRecipe):
        return _change_object(points, recipe, generator)
    return points


def change_cloud(
    cloud: PointCloud,
    recipe: Recipe,
    generator: np.random.Generator,
    *,
    keep: IntArray | None = None,
) -> PointCloud:
    """Change a cloud at random; labels and fields follow their points.

    Args:
        cloud: At least one point, finite coordinates.
        recipe: What is changed; an :class:`ObjectRecipe` expects a size of about 1.
        generator: Source of the random numbers.
        keep: See :func:`change_points`; None: the labelled ones, where the recipe asks for them.

    Raises:
        CloudError: The cloud is empty or a coordinate is not finite.
    """
    labelled = isinstance(recipe, SceneRecipe) and recipe.keep_labelled
    if keep is None and labelled and cloud.labels is not None:
        keep = np.flatnonzero(cloud.labels >= 0)
    middle = cloud.require_usable().coords.mean(axis=0)  # map coordinates do not fit float32
    near = (cloud.coords - middle).astype(np.float32)
    changed = change_points(
        Points.of(near, cloud.colors, cloud.normals), recipe, generator, keep=keep
    )
    return cloud.select(changed.rows).replace(
        coords=changed.coords + middle, colors=changed.colors, normals=changed.normals
    )


def _change_scene(
    points: Points, recipe: SceneRecipe, generator: np.random.Generator, keep: IntArray | None
) -> Points:
    kept = np.zeros(len(points.coords), dtype=bool)
    kept[() if keep is None else keep] = keep is not None
    if generator.random() < recipe.dropout_probability:
        count = len(points.coords) - int(len(points.coords) * (1.0 - recipe.dropout))
        stay = np.ones(len(points.coords), dtype=bool)
        stay[generator.permutation(len(stay))[:count]] = False
        stay[0] |= not (stay | kept).any()  # of very few points
        points, kept = points.select(np.flatnonzero(stay | kept)), kept[stay | kept]
    coords, turn = _moved_scene(points.coords, recipe, generator)
    chosen = np.arange(coords.shape[1])
    if recipe.grid_size is not None:
        cells = augment.grid_cells(coords, recipe.grid_size)
        chosen = np.union1d(augment.pick_per_cell(cells, generator), np.flatnonzero(kept))
    most = max(1, int(len(chosen) * recipe.crop_share))
    most = most if recipe.crop_points is None else min(most, recipe.crop_points)
    if most < len(chosen):
        centre = int(generator.integers(len(chosen)))
        chosen = chosen[augment.nearest(coords[:, chosen], centre, most)]
    if recipe.shuffle:
        chosen = generator.permutation(chosen)
    colors, normals = points.colors, points.normals
    return Points(
        coords=np.ascontiguousarray(coords[:, chosen].T),
        colors=None if colors is None else _recolored(colors, chosen, recipe, generator),
        normals=None if normals is None else normals[chosen] @ turn.T,
        rows=points.rows[chosen],
    )


def _moved_scene(
    coords: FloatArray, recipe: SceneRecipe, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the coordinates (3, N) after all spatial changes, and the rotation (3, 3) alone."""
    low, high = coords.min(axis=0), coords.max(axis=0)
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], dtype=np.float32)
    centred = np.ascontiguousarray((coords - middle).T)
    angles = {}
    for axis, most in (("z", recipe.turn), ("x", recipe.tilt), ("y", recipe.tilt)):
        used = generator.random() < recipe.rotate_probability
        angles[axis] = generator.uniform(-most, most) if used else 0.0
    mirror = np.where(generator.random(2) < recipe.flip, -1.0, 1.0)
    turn, moved = augment.turn_and_mirror(centred, angles, mirror)
    moved *= np.float32(generator.uniform(*recipe.scale))
    augment.shake(moved, recipe.jitter_sigma, recipe.jitter_clip, generator)
    if generator.random() < recipe.elastic_probability:
        for cell, strength in recipe.elastic:
            moved = augment.elastic(moved, cell, strength, generator)
    return moved, turn


def _recolored(
    colors: FloatArray, rows: IntArray, recipe: SceneRecipe, generator: np.random.Generator
) -> FloatArray:
    """Return the changed colours of some rows; contrast looks at all of them."""
    changed = colors[rows]
    if generator.random() < recipe.auto_contrast:
        low, high = colors.min(axis=0), colors.max(axis=0)
        changed = augment.stretch_contrast(changed, low, high, generator.random())
    if generator.random() < recipe.color_shift_probability:
        shift = generator.uniform(-recipe.color_shift, recipe.color_shift, 3).astype(np.float32)
        changed = np.clip(changed + shift, 0.0, 1.0)
    if generator.random() < recipe.color_noise_probability:
        changed = augment.noisy_colors(changed, recipe.color_noise, generator)
    return np.clip(changed, 0.0, 1.0)


def _change_object(points: Points, recipe: ObjectRecipe, generator: np.random.Generator) -> Points:
    if recipe.dropout > 0.0:
        count = len(points.coords)
        stay = count - int(count * generator.uniform(0.0, recipe.dropout))
        points = points.select(np.sort(generator.permutation(count)[:stay]))
    turn = augment.rotation("z", generator.uniform(-recipe.turn, recipe.turn)).astype(np.float32)
    factor = generator.uniform(*recipe.scale, 3).astype(np.float32)
    shift = generator.uniform(-recipe.shift, recipe.shift, 3).astype(np.float32)
    coords = points.coords @ turn.T
    augment.shake(coords, recipe.jitter_sigma, recipe.jitter_clip, generator)
    normals = points.normals
    if normals is not None:  # across a surface that was stretched
        across = (normals @ turn.T) / factor
        length = np.linalg.norm(across, axis=1, keepdims=True)
        normals = across / np.where(length > 0.0, length, 1.0)
    return dataclasses.replace(points, coords=coords * factor + shift, normals=normals)


def _change_lightly(points: Points, change: SceneChanges, generator: np.random.Generator) -> Points:
    angle = generator.uniform(-change.turn, change.turn)
    mirror = np.where(generator.random(2) < change.flip, -1.0, 1.0)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = torch.eye(3)  # products in torch: the figures of docs/results/rooms.json are its
    matrix[:2, :2] = torch.from_numpy(np.diag(mirror) @ turn)
    noise = generator.standard_normal((len(points.coords), 3), dtype=np.float32).clip(-3, 3)
    coords = _tensor(points.coords) @ matrix.T * float(generator.uniform(*change.scale))
    coords = coords + torch.from_numpy(noise) * change.jitter
    colors, normals = points.colors, points.normals
    return Points(
        coords=coords.numpy(),
        colors=None if colors is None else _tinted(_tensor(colors), change, generator).numpy(),
        normals=None if normals is None else (_tensor(normals) @ matrix.T).numpy(),
        rows=points.rows,
    )


def _tinted(colors: Tensor, change: SceneChanges, generator: np.random.Generator) -> Tensor:
    factor = 1.0 + generator.uniform(-change.contrast, change.contrast)
    shift = generator.uniform(-change.brightness, change.brightness, 3).astype(np.float32)
    noise = generator.standard_normal(tuple(colors.shape), dtype=np.float32) * change.color_noise
    middle = colors.mean(dim=0)
    changed = (colors - middle) * factor + middle + torch.from_numpy(shift + noise)
    return changed.clamp(0.0, 1.0)


def _tensor(array: FloatArray) -> Tensor:
    """Return a tensor of an array that may be read-only; nothing writes to it."""
    writable = array if array.flags.writeable else array.copy()
    return torch.from_numpy(writable)
