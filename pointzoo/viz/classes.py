"""Points in the colours of their classes, with a legend. The figure needs the extra ``viz``.

Shape legend: N points, K classes.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pointzoo.cloud import FloatArray
from pointzoo.errors import CloudError
from pointzoo.viz.figures import new_figure, save_figure
from pointzoo.viz.render import VIEWS, render_image

_GOLDEN = 0.618033988749895
_UNKNOWN = 0.75


def class_colors(labels: ArrayLike) -> FloatArray:
    """Return a colour for every label; the same label always gets the same one.

    Hues follow each other at the golden angle, saturation and lightness alternate; negative labels
    are grey.

    Args:
        labels: (N,) integers.

    Returns:
        (N, 3) float32 in 0..1.
    """
    values = np.asarray(labels, np.int64)
    if not len(values):
        return np.zeros((0, 3), np.float32)
    highest = max(int(values.max()), 0)
    table = np.full((highest + 2, 3), _UNKNOWN, np.float32)  # the last row is for -1
    for label in range(highest + 1):
        light, strong = (0.48, 0.62, 0.36)[label % 3], (0.75, 0.55)[label // 3 % 2]
        table[label] = colorsys.hls_to_rgb(label * _GOLDEN % 1.0, light, strong)
    colors: FloatArray = table[np.where(values < 0, highest + 1, values)]
    return colors


def classes_figure(
    coords: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    size: int = 480,
) -> Path:
    """Draw a cloud from two sides in the colours of its classes, with a legend of those it has.

    Args:
        coords: (N, 3), z up.
        labels: (N,) classes, negative where unknown.
        class_names: K names.
        path: PNG file; it appears at once.
        size: Height and width of a view in pixels.

    Raises:
        CloudError: There is no point, or shapes do not fit.
        MissingExtraError: matplotlib is not installed.
    """
    values = np.asarray(labels, np.int64)
    if not len(values) or int(values.max()) >= len(class_names):
        raise CloudError(
            expected=f"labels below {len(class_names)} for at least one point",
            got=f"{len(values)} labels up to {values.max(initial=-1)}",
            fix="Pass the class names of the model.",
        )
    colors = class_colors(values)
    present = np.unique(values)
    rows = -(-len(present) // 5)
    figure, axes = new_figure(1, 2, width=size / 150, height=size / 150 + 0.22 * rows)
    for axis, view in zip(axes[0], VIEWS, strict=False):
        axis.imshow(render_image(coords, colors, view=view, size=size))
        axis.set_axis_off()
    names = [class_names[k] if k >= 0 else "unknown" for k in present]
    marks = [
        axes[0][0].plot([], [], "s", color=tuple(class_colors([k])[0]), label=name)[0]
        for k, name in zip(present, names, strict=True)
    ]
    figure.legend(handles=marks, loc="lower center", ncols=5, fontsize=7, frameon=False)
    share = 0.22 * rows / (size / 150 + 0.22 * rows)
    figure.subplots_adjust(left=0, right=1, top=1, bottom=share, wspace=0)
    return save_figure(figure, path)
