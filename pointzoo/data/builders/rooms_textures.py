"""Textures drawn by rule: paint, planks, tiles, carpet, fabric, paintings.

Each is an image (height, width, 3) uint8 that repeats without a seam.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.builders.rooms_mesh import Image

SIDE = 128
"""Texels along each side."""
TILE = 2.0
"""Metres that one texture covers."""

Floats = NDArray[np.float64]
_WOODS = ((196, 154, 108), (160, 115, 75), (120, 80, 50), (215, 185, 145), (175, 160, 140),
          (90, 62, 45), (205, 160, 100))  # fmt: skip
_CARPETS = ((120, 120, 125), (90, 95, 110), (150, 135, 115), (110, 80, 70), (70, 80, 75),
            (165, 160, 150), (95, 60, 65))  # fmt: skip


def smooth_noise(rng: np.random.Generator, side: int = SIDE, roughness: float = 2.0) -> Floats:
    """Seamless noise (side, side) of mean 0 and deviation 1; its power falls as 1/f^roughness."""
    spectrum = np.fft.rfft2(rng.normal(size=(side, side)))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum * frequency ** (-roughness / 2), s=(side, side))
    unit: Floats = (field - field.mean()) / max(float(field.std()), 1e-9)
    return unit


def pick_color(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Floats:
    """Draw a colour (3,) in 0..255 of any hue."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb) * 255.0


def paint(rng: np.random.Generator, *, strong: bool = False) -> Image:
    """Wall paint with stains: off-white, or a colour."""
    if strong or rng.random() < 0.45:
        base = pick_color(rng, (0.08, 0.45), (0.55, 0.9))
    else:
        base = pick_color(rng, (0.0, 0.08), (0.78, 0.95))
    grain = smooth_noise(rng, roughness=2.5) * rng.uniform(2.0, 6.0)
    return _image(base + grain[..., None] + rng.normal(0, 1.5, (SIDE, SIDE, 1)))


def wallpaper(rng: np.random.Generator) -> Image:
    """Stripes or a repeated ornament on paper."""
    base = pick_color(rng, (0.05, 0.3), (0.6, 0.9))
    second = base + rng.uniform(-45, 45, 3)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE * 2 * np.pi
    count = rng.integers(6, 20)
    pattern = np.sin(count * x) if rng.random() < 0.5 else np.sin(count * x) * np.sin(count * y)
    mask = 1 / (1 + np.exp(-6 * pattern[..., None]))
    return _image(base * (1 - mask) + second * mask + smooth_noise(rng)[..., None] * 3)


def planks(rng: np.random.Generator) -> Image:
    """Wooden boards along x, each of its own tone."""
    base = np.array(_WOODS[rng.integers(len(_WOODS))]) + rng.uniform(-12, 12, 3)
    rows = int(rng.choice([8, 12, 16]))
    height = SIDE // rows
    stretched = np.stack([np.roll(smooth_noise(rng, roughness=1.6), s) for s in range(0, 24, 3)])
    grain = np.repeat(stretched.mean(axis=0)[:, ::4], 4, axis=1)[:SIDE, :SIDE]
    tone = np.zeros((SIDE, SIDE))
    seam = np.zeros((SIDE, SIDE), dtype=bool)
    for row in range(rows):
        cuts = np.sort(rng.choice(SIDE, size=3, replace=False))
        tones = rng.normal(0, 9, 4)
        tones[3] = tones[0]
        band = slice(row * height, (row + 1) * height)
        tone[band] = tones[np.searchsorted(cuts, np.arange(SIDE), side="right")]
        seam[band, cuts] = True
        seam[row * height] = True
    return _image(base + (tone + grain * 7)[..., None] - seam[..., None] * 28.0)


def tiles(rng: np.random.Generator, *, light: bool = False) -> Image:
    """Square or oblong tiles with joints."""
    low = 0.7 if light else 0.35
    base = pick_color(rng, (0.0, 0.3), (low, 0.95))
    other = base * rng.uniform(0.6, 1.0) if rng.random() < 0.3 else base
    columns, rows = (int(rng.choice([4, 8, 16])), int(rng.choice([4, 8])))
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    column, row = x * columns // SIDE, y * rows // SIDE
    joint = (x % (SIDE // columns) == 0) | (y % (SIDE // rows) == 0)
    tone = rng.normal(0, 5, (rows, columns))[row, column]
    color = np.where(((column + row) % 2 == 0)[..., None], base, other)
    grout = np.clip(base * rng.uniform(0.55, 1.15), 0, 235)
    value = color + tone[..., None] + smooth_noise(rng)[..., None] * 3
    return _image(np.where(joint[..., None], grout, value))


def carpet(rng: np.random.Generator) -> Image:
    """Carpet, strongly grained."""
    base = np.array(_CARPETS[rng.integers(len(_CARPETS))]) + rng.uniform(-15, 15, 3)
    grain = smooth_noise(rng, roughness=0.6) * rng.uniform(6, 14)
    return _image(base + grain[..., None] + smooth_noise(rng, roughness=3)[..., None] * 5)


def rug(rng: np.random.Generator) -> Image:
    """A rug: nested frames and an ornament."""
    colors = np.stack([pick_color(rng, (0.2, 0.7), (0.25, 0.85)) for _ in range(4)])
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    ring = np.maximum(abs(x), abs(y)) if rng.random() < 0.7 else np.hypot(x, y) * 0.8
    count = rng.integers(3, 9)
    ornament = (np.sin(count * np.pi * x) * np.cos(count * np.pi * y) > 0.3) * 1
    index = (ring * rng.integers(2, 7)).astype(np.int64) + ornament
    grain = rng.normal(0, 7, (SIDE, SIDE, 1))
    return _image(colors[index % 4] + grain)


def fabric(rng: np.random.Generator, *, light: bool = False) -> Image:
    """Cloth of one colour, striped or checked."""
    base = pick_color(rng, (0.05, 0.6), (0.65, 0.95) if light else (0.25, 0.9))
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE * 2 * np.pi
    count = rng.integers(3, 24)
    stripes = (np.sin(count * x) > 0.4) * 1.0 + (np.sin(count * y) > 0.4) * (rng.random() < 0.3)
    strength = rng.uniform(10, 50) if rng.random() < 0.4 else 0.0
    value = base + (stripes * strength)[..., None] * rng.choice([-1.0, 1.0])
    return _image(value + rng.normal(0, 4, (SIDE, SIDE, 1)))


def wood(rng: np.random.Generator) -> Image:
    """A wooden or painted board without seams."""
    if rng.random() < 0.4:
        return _image(pick_color(rng, (0.0, 0.12), (0.6, 0.95)) + rng.normal(0, 2, (32, 32, 1)))
    base = np.array(_WOODS[rng.integers(len(_WOODS))]) + rng.uniform(-15, 15, 3)
    grain = np.repeat(smooth_noise(rng, 64, 1.5)[:, ::8], 8, axis=1)
    return _image(base + grain[..., None] * 9)


def stone(rng: np.random.Generator) -> Image:
    """Speckled stone or laminate of a worktop."""
    base = pick_color(rng, (0.0, 0.2), (0.2, 0.9))
    speckle = (rng.random((SIDE, SIDE, 1)) < 0.2) * rng.uniform(-60, 60)
    return _image(base + smooth_noise(rng, roughness=1)[..., None] * 8 + speckle)


def painting(rng: np.random.Generator) -> Image:
    """A picture: a landscape, an abstract of blots, or a photograph-like gradient."""
    colors = np.stack([pick_color(rng, (0.1, 0.9), (0.15, 0.95)) for _ in range(5)])
    field = smooth_noise(rng, roughness=3.0)
    y = np.linspace(-1, 1, SIDE)[:, None]
    kind = rng.integers(3)
    height = field * 0.5 + (y * 1.5 if kind == 0 else 0.0)
    if kind == 2:
        weight = np.clip(field * 0.3 + 0.5, 0, 1)[..., None]
        return _image(colors[0] * weight + colors[1] * (1 - weight))
    index = np.clip(((height + 1.5) / 3 * 5), 0, 4).astype(np.int64)
    return _image(colors[index] + smooth_noise(rng, roughness=1.5)[..., None] * 10)


def book_spines(rng: np.random.Generator) -> Image:
    """A row of book backs."""
    image = np.zeros((8, 64, 3))
    column = 0
    while column < 64:
        width = int(rng.integers(1, 5))
        image[:, column : column + width] = pick_color(rng, (0.1, 0.8), (0.15, 0.95))
        column += width
    image[rng.integers(8)] += 30
    return _image(image)


def _image(value: Any) -> Image:
    image: Image = np.clip(value, 0, 255).astype(np.uint8)
    return image
