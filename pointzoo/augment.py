"""Random changes of points and colours that pretraining and training with labels share.

Pure functions on arrays; randomness comes from a generator that is passed in. The recipes that
combine them are :mod:`pointzoo.pretrain.scene_views` (two views of a scene) and
:mod:`pointzoo.tasks.recipes` (training with labels). Formulas follow Pointcept @ d74c646.

Shape legend: N points, M points that are kept. Coordinates are kept as (3, N) here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pointzoo.cloud import FloatArray, IntArray

_ELASTIC_CELLS = 128
"""Cells of the noise of :func:`elastic` along an axis; beyond them the noise repeats."""


def rotation(axis: Literal["x", "y", "z"], angle: float) -> NDArray[np.float64]:
    """Return the right-handed rotation matrix about an axis; angle in radians, p -> R p."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[second, first] = math.sin(angle)
    matrix[first, second] = -matrix[second, first]
    return matrix


def turn_and_mirror(
    coords: FloatArray, angles: Mapping[str, float], mirror: NDArray[Any]
) -> tuple[FloatArray, FloatArray]:
    """Rotate about z through the origin, x and y through the middle, then mirror x and y.

    Args:
        coords: (3, N) float32.
        angles: Of ``x``, ``y`` and ``z``, radians.
        mirror: (2,) factors of x and y, 1 or -1.

    Returns:
        The whole as one (3, 3) orthogonal matrix, and the (3, N) coordinates.
    """
    whole = rotation("z", angles["z"])
    moved = whole.astype(np.float32) @ coords
    steps = (rotation("x", angles["x"]), np.diag([*mirror, 1.0]) @ rotation("y", angles["y"]))
    for axis, step in zip("xy", steps, strict=True):
        middle = (moved.min(axis=1) + moved.max(axis=1)).astype(np.float64) / 2
        # mirrored after the rotation: the middle goes along
        stay = np.diag([*mirror, 1.0]) @ middle if axis == "y" else middle
        moved = step.astype(np.float32) @ moved
        moved += (stay - step @ middle).astype(np.float32)[:, None]
        whole = step @ whole
    return whole.astype(np.float32), moved


def shake(coords: FloatArray, sigma: float, clip: float, generator: np.random.Generator) -> None:
    """Add Gaussian noise, clipped, to float32 coordinates of any shape, in place."""
    noise = generator.standard_normal(coords.shape, dtype=np.float32)
    noise *= np.float32(sigma)
    coords += np.clip(noise, -clip, clip, out=noise)


def elastic(
    coords: FloatArray, cell: float, strength: float, generator: np.random.Generator
) -> FloatArray:
    """Shift every point by a smooth random field.

    Gaussian noise on a grid around the points, smoothed twice by the mean of three cells along each
    axis, read between its nodes by trilinear interpolation. Along an axis longer than 128 cells the
    field repeats, so that a large scan does not fill the memory.

    Args:
        coords: (3, N) float32 metres.
        cell: Edge of a cell of the noise, metres.
        strength: Shift that a noise of 1 stands for, metres.
        generator: Source of the noise.

    Returns:
        (3, N) float32.
    """
    places = (coords - coords.min(axis=1, keepdims=True)) / np.float32(cell) + 1
    needed = [int(most) + 2 for most in places.max(axis=1)]
    nodes = [min(count, _ELASTIC_CELLS) for count in needed]
    noise = generator.standard_normal((3, *nodes), dtype=np.float32)
    modes = ["constant" if a == b else "wrap" for a, b in zip(needed, nodes, strict=True)]
    for _ in range(2):
        for axis, mode in enumerate(modes):
            noise = ndimage.uniform_filter1d(noise, 3, axis=axis + 1, mode=mode)
    shift = np.stack(
        [ndimage.map_coordinates(part, places, order=1, mode="grid-wrap") for part in noise]
    )
    moved: FloatArray = coords + shift * np.float32(strength)
    return moved


def grid_cells(coords: FloatArray, grid_size: float) -> IntArray:
    """Return the (3, N) cells of (3, N) coordinates, counted from the smallest on each axis."""
    cells = np.floor(coords / coords.dtype.type(grid_size))
    cells -= cells.min(axis=1, keepdims=True)
    return cells.astype(np.int32)


def pick_per_cell(cells: IntArray, generator: np.random.Generator) -> IntArray:
    """Choose one random point of each occupied cell.

    Args:
        cells: (3, N) cells from 0 on.
        generator: Source of the choice.

    Returns:
        (M,) rows, ascending by cell: x, then y, then z.
    """
    order = generator.permutation(cells.shape[1])  # the first point of each cell is then random
    shuffled = cells[:, order].astype(np.int64)
    extent = [int(e) + 1 for e in cells.max(axis=1)]
    if math.prod(extent) < 2**63:
        key = (shuffled[0] * extent[1] + shuffled[1]) * extent[2] + shuffled[2]
        by_cell = np.argsort(key)
        changes = np.diff(key[by_cell]) != 0
    else:
        by_cell = np.lexsort(shuffled[::-1])
        changes = np.diff(shuffled[:, by_cell]).any(axis=0)
    rows: IntArray = order[by_cell[np.append(True, changes)]]
    return rows


def nearest(coords: FloatArray, centre: int, count: int) -> IntArray:
    """Return the rows, ascending, of the ``count`` points of (3, N) nearest to point ``centre``."""
    offset = coords - coords[:, centre, None]
    squared = np.einsum("an,an->n", offset, offset)
    rows: IntArray = np.sort(np.argpartition(squared, count - 1)[:count])
    return rows


def stretch_contrast(
    colors: FloatArray, low: FloatArray, high: FloatArray, blend: float
) -> FloatArray:
    """Blend colours with themselves stretched to the full range.

    Args:
        colors: (N, 3) in 0..1.
        low: (3,) the colour of each channel that becomes 0.
        high: (3,) the colour that becomes 1; a channel where both are equal is only shifted.
        blend: 0 leaves the colours, 1 stretches them fully.
    """
    span = np.where(high > low, high - low, 1).astype(np.float32)
    stretched: FloatArray = colors + np.float32(blend) * ((colors - low) / span - colors)
    return stretched


def noisy_colors(colors: FloatArray, sigma: float, generator: np.random.Generator) -> FloatArray:
    """Add Gaussian noise to every channel of every point; (N, 3) float32 in 0..1."""
    noise = generator.standard_normal(colors.shape, dtype=np.float32)
    changed: FloatArray = np.clip(colors + noise * np.float32(sigma), 0.0, 1.0)
    return changed
