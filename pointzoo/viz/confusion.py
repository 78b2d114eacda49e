"""A confusion matrix as a picture. It needs the extra ``viz``.

Shape legend: K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pointzoo.errors import ConfigError
from pointzoo.viz.figures import new_figure, save_figure

_TEXT = "#333333"


def confusion_figure(
    confusion: ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draw what each class is taken for: a row per true class, its cells in percent of the row.

    Classes that never occur, neither truly nor as a guess, are left out.

    Args:
        confusion: (K, K) counts, true class by predicted class.
        class_names: K names.
        path: PNG file; it appears at once.

    Raises:
        ConfigError: Shapes do not fit, or nothing was counted.
        MissingExtraError: matplotlib is not installed.
    """
    counts = np.asarray(confusion, np.float64)
    if counts.shape != (len(class_names),) * 2 or not counts.sum():
        raise ConfigError(
            expected=f"counts for {len(class_names)} x {len(class_names)} classes",
            got=f"shape {counts.shape} with {counts.sum():g} in all",
            fix="Pass a confusion matrix and a name for each class.",
        )
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    shown = counts[np.ix_(used, used)]
    rows = shown.sum(axis=1, keepdims=True)
    share = 100.0 * shown / np.where(rows > 0, rows, 1.0)
    names = [class_names[k] for k in used.tolist()]
    size = max(3.0, 0.45 * len(used) + 1.5)
    figure, axes = new_figure(1, 1, width=size, height=size)
    axis = axes[0][0]
    axis.imshow(share, cmap="Blues", vmin=0.0, vmax=100.0)
    for row in range(len(used)):
        for column in range(len(used)):
            if share[row, column] >= 0.5:
                color = "white" if share[row, column] > 60.0 else _TEXT
                text = f"{share[row, column]:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    ticks = range(len(used))
    axis.set_xticks(ticks, names, rotation=90, fontsize=8, color=_TEXT)
    axis.set_yticks(ticks, names, fontsize=8, color=_TEXT)
    axis.set_xlabel("predicted", fontsize=9, color=_TEXT)
    axis.set_ylabel("true, percent of its points or clouds", fontsize=9, color=_TEXT)
    figure.tight_layout()
    return save_figure(figure, path)
