"""Random changes of colours: brightness, contrast, saturation, hue and noise (MSC appendix A.2).

The formulas are those of torchvision as Pointcept @ d74c646 applies them to points, here on colours
in 0..1. Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pointzoo.augment import noisy_colors
from pointzoo.cloud import FloatArray, IntArray

_GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class ColorJitter:
    """How strongly colours change.

    Attributes:
        brightness: Largest change v of the factor, drawn from 1 - v .. 1 + v.
        contrast: The same, away from or towards the mean grey of all points.
        saturation: The same, away from or towards each point's own grey.
        hue: Largest shift along the colour circle, whose length is 1.
        probability: With which each of the four is applied, in random order.
        noise: Standard deviation of the noise on every channel of every point.
        noise_probability: With which a view gets noise.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.02
    probability: float = 0.8
    noise: float = 0.05
    noise_probability: float = 0.95


def adjust_brightness(colors: FloatArray, factor: float) -> FloatArray:
    """Blend (N, 3) colours in 0..1 with black."""
    return _clipped(colors * colors.dtype.type(factor))


def adjust_contrast(colors: FloatArray, factor: float, grey: float | None = None) -> FloatArray:
    """Blend colours with one grey.

    Args:
        colors: (N, 3) in 0..1.
        factor: 0 gives the grey, 1 the colours.
        grey: The grey; None for the mean grey of these points.
    """
    mean = grey_of(colors).mean(dtype=np.float64) if grey is None else grey
    kind = colors.dtype.type
    return _clipped(colors * kind(factor) + kind((1.0 - factor) * mean))


def adjust_saturation(colors: FloatArray, factor: float) -> FloatArray:
    """Blend (N, 3) colours in 0..1 with the grey of each."""
    kind = colors.dtype.type
    return _clipped(colors * kind(factor) + (grey_of(colors) * kind(1.0 - factor))[:, None])


def adjust_hue(colors: FloatArray, shift: float) -> FloatArray:
    """Turn (N, 3) colours in 0..1 along the colour circle by a share of it."""
    red, green, blue = np.ascontiguousarray(colors.T)
    high = np.maximum(np.maximum(red, green), blue)
    span = high - np.minimum(np.minimum(red, green), blue)
    safe = np.where(span > 0, span, colors.dtype.type(1))
    hue = np.where(
        red == high,
        (green - blue) / safe,
        np.where(green == high, (blue - red) / safe + 2, (red - green) / safe + 4),
    )  # in sixths of the circle
    turned = np.empty_like(colors)
    for channel, start in enumerate((5, 3, 1)):
        # a channel falls from the highest to the lowest value and back along the circle
        place = hue + colors.dtype.type(6 * shift + start)
        place -= 6 * np.floor(place / 6)
        turned[:, channel] = high - span * np.clip(np.minimum(place, 4 - place), 0, 1)
    return turned


def grey_of(colors: FloatArray) -> FloatArray:
    """Return the (N,) grey of (N, 3) colours."""
    grey: FloatArray = colors @ np.asarray(_GREY, dtype=colors.dtype)
    return grey


def jitter_colors(
    colors: FloatArray, rows: IntArray, change: ColorJitter, generator: np.random.Generator
) -> FloatArray:
    """Change the colours of a view of which only some points are kept.

    Contrast looks at the mean grey of all points, as if the view had not been sampled yet; all
    other work is only done for the points that are kept.

    Args:
        colors: (N, 3) float32 colours in 0..1 of all points.
        rows: (M,) the points that the view keeps.
        change: How strongly.
        generator: Source of the random numbers.

    Returns:
        (M, 3) float32 in 0..1.
    """
    factors, order = _draw_changes(change, generator)
    whole, grey = colors, None
    if "contrast" in order:
        before = order.index("contrast")
        for name in order[:before]:
            whole = _ADJUST[name](whole, factors[name])
        grey = float(grey_of(whole).mean(dtype=np.float64))
        order = order[before:]
    kept = whole[rows]
    for name in order:
        if name == "contrast":
            kept = adjust_contrast(kept, factors[name], grey)
        else:
            kept = _ADJUST[name](kept, factors[name])
    if generator.random() < change.noise_probability:
        kept = noisy_colors(kept, change.noise, generator)
    return kept


_ADJUST: Mapping[str, Callable[[FloatArray, float], FloatArray]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _draw_changes(
    change: ColorJitter, generator: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Draw how strong each change is, and which are made in which order."""
    reach = {name: getattr(change, name) for name in _ADJUST}
    factors = {name: 1.0 + generator.uniform(-most, most) for name, most in reach.items()}
    factors["hue"] -= 1.0
    names = list(_ADJUST)
    used = generator.random(len(names)) < change.probability
    return factors, [names[i] for i in generator.permutation(len(names)) if used[i]]


def _clipped(colors: FloatArray) -> FloatArray:
    return np.clip(colors, 0.0, 1.0, out=colors)
