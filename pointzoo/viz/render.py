"""Pictures of point clouds without a graphics library: colours, a small renderer, PNG files.

Shape legend: N points, C channels, P splatted pixels, H and W the size of a picture.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pointzoo.cloud import FloatArray
from pointzoo.errors import CloudError

Image = NDArray[np.uint8]
"""(H, W, 3) red, green, blue."""

VIEWS = ((-60.0, 20.0), (30.0, 20.0))
"""Azimuth and elevation of the camera in degrees: two three-quarter views; z is up."""

_SUPERSAMPLING = 2
_MARGIN = 0.06
_MAX_POINTS = 400_000
_COVERED = 0.35  # share of the picture that a cloud usually covers, to choose the size of a point


def pca_colors(features: ArrayLike) -> FloatArray:
    """Colour points by the first three principal components of their features.

    The sign of a component is chosen so that its largest loading is positive; each component is
    stretched from its 1st to its 99th percentile. A component that does not vary gives 0.5.

    Args:
        features: (N, C) finite, at least one row.

    Returns:
        (N, 3) float32 in 0..1.

    Raises:
        CloudError: The shape is wrong or a value is not finite.
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise CloudError(
            expected="finite features (N, C) with at least one row",
            got=f"shape {values.shape}",
            fix="Pass features.point.",
        )
    centred = values - values.mean(axis=0)
    spread, axes = np.linalg.eigh(centred.T @ centred / len(values))
    colors = np.full((len(values), 3), 0.5)
    noise = 1e-12 * float(np.abs(values).max()) ** 2
    for column in range(min(3, values.shape[1])):
        axis = axes[:, -1 - column]
        if spread[-1 - column] <= noise:
            break
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        colors[:, column] = _stretch(centred @ axis)
    return colors.astype(np.float32)


def _stretch(values: FloatArray) -> FloatArray:
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        low, high = values.min(), values.max()
    stretched: FloatArray = np.clip((values - low) / (high - low), 0.0, 1.0)
    return stretched


def render_cloud(
    coords: ArrayLike,
    colors: ArrayLike,
    path: str | os.PathLike[str],
    *,
    views: Sequence[tuple[float, float]] = VIEWS,
    size: int = 640,
) -> Path:
    """Draw a cloud from several sides, side by side, into a PNG file.

    Args:
        coords: (N, 3), z up.
        colors: (N, 3) in 0..1.
        path: The file; it appears at once.
        views: Azimuth and elevation in degrees of every view; the scale is the same in all.
        size: Height and width of a view in pixels.

    Raises:
        CloudError: There is no point, or shapes do not fit.
    """
    xyz, _ = _checked(coords, colors)
    reach = max(_reach(_project(xyz, view)) for view in views)
    images = [render_image(xyz, colors, view=view, size=size, reach=reach) for view in views]
    return write_png(path, _trim(np.concatenate(images, axis=1), round(_MARGIN * size)))


def _trim(picture: Image, margin: int) -> Image:
    """Cut off white above and below."""
    used = np.flatnonzero((picture < 255).any(axis=(1, 2)))
    first, last = (used[0], used[-1]) if len(used) else (0, len(picture))
    return picture[max(first - margin, 0) : last + margin + 1]


def render_image(
    coords: ArrayLike,
    colors: ArrayLike,
    *,
    view: tuple[float, float] = VIEWS[0],
    size: int = 640,
    reach: float | None = None,
) -> Image:
    """Draw a cloud: orthographic, equal axes, near points before far ones, shaded by depth.

    Every point is a small ball. Where a point lies behind its neighbours in the picture it is
    darkened (eye-dome lighting; Boucheny, "Interactive scientific visualization of large
    datasets", 2009), so that edges and gaps show without normals.

    Args:
        coords: (N, 3), z up.
        colors: (N, 3) in 0..1.
        view: Azimuth and elevation of the camera in degrees.
        size: Height and width in pixels.
        reach: Half the width of what the picture shows, in the unit of ``coords``; None fits it to
            the cloud.

    Returns:
        A white picture with the cloud in the middle.

    Raises:
        CloudError: There is no point, or shapes do not fit.
    """
    xyz, rgb = _checked(coords, colors)
    if len(xyz) > _MAX_POINTS:
        step = math.ceil(len(xyz) / _MAX_POINTS)
        xyz, rgb = xyz[::step], rgb[::step]
    pixels = size * _SUPERSAMPLING
    seen = _project(xyz, view)
    half = reach or _reach(seen)
    seen *= pixels * (1 - 2 * _MARGIN) / 2 / half
    spacing = pixels * math.sqrt(_COVERED / len(xyz))
    radius = min(max(0.75 * spacing, 0.8 * _SUPERSAMPLING), 0.016 * pixels)
    canvas, depth = _splat(seen, rgb, radius, pixels)
    canvas = canvas * _edge_shade(depth, pixels)[..., None]
    canvas[np.isinf(depth)] = 1.0
    small = canvas.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 3).mean(axis=(1, 3))
    image: Image = (small * 255.0 + 0.5).astype(np.uint8)
    return image


def _checked(coords: ArrayLike, colors: ArrayLike) -> tuple[FloatArray, FloatArray]:
    xyz, rgb = np.asarray(coords, np.float64), np.asarray(colors, np.float64)
    if xyz.ndim != 2 or xyz.shape[1:] != (3,) or xyz.shape != rgb.shape or not len(xyz):
        raise CloudError(
            expected="coords and colors (N, 3) with at least one point",
            got=f"{xyz.shape} and {rgb.shape}",
            fix="Pass one colour per point.",
        )
    return xyz, rgb


def _project(xyz: FloatArray, view: tuple[float, float]) -> FloatArray:
    """Return right, up and towards the camera; the middle of the picture is 0, 0."""
    azimuth, elevation = np.radians(view)
    to_camera = np.array(
        [
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    up = np.cross(to_camera, right)
    turned = (xyz - xyz[0]) @ np.stack([right, up, to_camera], axis=1)
    middle: FloatArray = turned - (turned.min(axis=0) + turned.max(axis=0)) / 2
    return middle


def _reach(seen: FloatArray) -> float:
    """Return half the width of what must be shown; rounding of a line of sight is no width."""
    return max(float(np.abs(seen[:, :2]).max()), 1e-6 * float(np.abs(seen).max())) or 1.0


def _splat(
    seen: FloatArray, rgb: FloatArray, radius: float, pixels: int
) -> tuple[FloatArray, FloatArray]:
    """Draw every point as a ball; return colours (pixels, pixels, 3) and depth (inf: nothing)."""
    reach = math.floor(radius)
    steps = np.arange(-reach, reach + 1)
    right, down = (grid.ravel() for grid in np.meshgrid(steps, steps))
    inside = right**2 + down**2 <= radius**2
    right, down = right[inside], down[inside]
    bulge = np.sqrt(1.0 - (right**2 + down**2) / radius**2)  # 1 in the middle of a ball
    column = (np.round(seen[:, :1] + pixels / 2).astype(np.int64) + right).ravel()  # (P,)
    row = (np.round(pixels / 2 - seen[:, 1:2]).astype(np.int64) + down).ravel()
    depth = (-seen[:, 2:3] - radius * bulge).ravel().astype(np.float32)
    color = (rgb[:, None] * (0.8 + 0.2 * bulge)[None, :, None]).astype(np.float32).reshape(-1, 3)
    kept = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
    place = row[kept] * pixels + column[kept]
    order = np.argsort(-depth[kept], kind="stable")  # far to near: the last one drawn stays
    canvas = np.ones((pixels * pixels, 3), np.float32)
    buffer = np.full(pixels * pixels, np.inf, np.float32)
    canvas[place[order]] = color[kept][order]
    buffer[place[order]] = depth[kept][order]
    return canvas.reshape(pixels, pixels, 3), buffer.reshape(pixels, pixels)


def _edge_shade(depth: FloatArray, pixels: int) -> FloatArray:
    """Return how bright a pixel is, given how far it lies behind its neighbours and in front."""
    filled = np.where(np.isinf(depth), np.nanmax(np.where(np.isinf(depth), np.nan, depth)), depth)
    behind = np.zeros_like(filled)
    for reach in (_SUPERSAMPLING, 3 * _SUPERSAMPLING):
        for axis, step in ((0, reach), (0, -reach), (1, reach), (1, -reach)):
            behind += np.clip(filled - np.roll(filled, step, axis=axis), 0.0, 0.06 * pixels)
    near, far = filled.min(), filled.max()
    fog = 0.15 * (filled - near) / (far - near) if far > near else 0.0
    shade: FloatArray = np.exp(-6.0 * behind / pixels) * (1.0 - fog)
    return shade


def write_png(path: str | os.PathLike[str], image: NDArray[Any]) -> Path:
    """Write a picture as PNG; the same picture gives the same bytes.

    Args:
        path: The file; it appears at once.
        image: (H, W, 3) uint8.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a filter byte (0: none) before every row
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bit, true colour
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    partial.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    partial.replace(target)
    return target
