"""Figures with axes and labels: attention, spectra, training curves. They need the extra ``viz``.

Shape legend: N points, H heads, S tokens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, FormatError, MissingExtraError
from pointzoo.intake import MAX_MANIFEST, parse_json, read_limited
from pointzoo.viz.render import VIEWS, render_image

_DPI = 150
_TEXT = "#333333"
_LINES = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#8d96a3", "#5b3f8c")


class Attentive(Protocol):
    """An encoder that tells what its class token looks at."""

    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]: ...  # noqa: D102


def attention_figure(
    encoder: PointEncoder,
    clouds: Mapping[str, PointCloud],
    path: str | os.PathLike[str],
    *,
    view: tuple[float, float] = VIEWS[0],
    size: int = 240,
) -> Path:
    """Draw what the class token looks at: one row per cloud, one column per head (paper's Fig. 6).

    Each picture runs from the head's least to its most attended part of that cloud.

    Args:
        encoder: One with the capability ``class_attention``.
        clouds: Clouds by the name that the row gets, z up.
        path: PNG file; it appears at once.
        view: Azimuth and elevation of the camera in degrees.
        size: Height and width of one picture in pixels.

    Raises:
        ConfigError: The encoder has no class attention, or there is no cloud.
        CloudError: A cloud cannot be used.
        MissingExtraError: matplotlib is not installed.
    """
    if not encoder.capabilities.class_attention or not clouds:
        raise ConfigError(
            expected="an encoder with class attention and at least one cloud",
            got=f"{type(encoder).__name__} and {len(clouds)} clouds",
            fix="encoder.capabilities says what an encoder can do.",
        )
    maps = {name: point_attention(encoder, cloud) for name, cloud in clouds.items()}
    heads = len(next(iter(maps.values())))
    figure, axes = new_figure(len(maps), heads, width=size / _DPI, height=size / _DPI)
    colormap = _matplotlib().colormaps["magma"]
    for row, (name, weights) in enumerate(maps.items()):
        for head in range(heads):
            shown = colormap(0.08 + 0.87 * _stretched(weights[head]))[:, :3]
            image = render_image(clouds[name].coords, shown, view=view, size=2 * size)
            axes[row][head].imshow(image, interpolation="antialiased")
            axes[row][head].set_axis_off()
        axes[row][0].text(
            -0.04, 0.5, name, rotation=90, transform=axes[row][0].transAxes, color=_TEXT,
            fontsize=9, ha="right", va="center",
        )  # fmt: skip
    for head in range(heads):
        axes[0][head].set_title(f"head {head + 1}", fontsize=9, color=_TEXT)
    figure.subplots_adjust(left=0.03, right=1, bottom=0, top=0.95, wspace=0.01, hspace=0.01)
    return save_figure(figure, path)


@torch.inference_mode()
def point_attention(encoder: PointEncoder, cloud: PointCloud) -> FloatArray:
    """Return the attention of the class token, brought from the patches to the points.

    Args:
        encoder: One with the capability ``class_attention``, in evaluation mode.
        cloud: A usable cloud of N points.

    Returns:
        (H, N) float32; larger is more.
    """
    coords, channels = encoder.preprocess(cloud)
    parameter = next(encoder.parameters())
    batch = PointBatch.collate([coords], [channels]).to(parameter.device, parameter.dtype)
    output = encoder(batch, points=False)
    (weights,) = cast(Attentive, encoder).class_attention(batch)  # (H, S)
    assert output.token_coords is not None, "class attention is over tokens"
    assert output.token_offsets is not None, "class attention is over tokens"
    spread = ops.interpolate(
        weights.T, output.token_coords, output.token_offsets, batch.coords, batch.offsets
    )  # (N, H)
    found: FloatArray = spread.T.float().cpu().numpy()
    return found


def _stretched(values: FloatArray) -> FloatArray:
    """Stretch to 0..1 between the 2nd and the 98th percentile."""
    low, high = np.percentile(values, (2, 98))
    scaled: FloatArray = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    return scaled


def clouds_figure(
    rows: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    path: str | os.PathLike[str],
    *,
    view: tuple[float, float] = VIEWS[0],
    size: int = 240,
) -> Path:
    """Draw coloured clouds in a table, for instance scenes and what a network makes of them.

    Args:
        rows: By the name of the row, by the name of the column: coords (N, 3), z up, and colours
            (N, 3) in 0..1. Every row has the columns of the first.
        path: PNG file; it appears at once.
        view: Azimuth and elevation of the camera in degrees.
        size: Height and width of one picture in pixels.

    Raises:
        ConfigError: There is no picture, or a row has other columns than the first.
        CloudError: A cloud is empty, or its colours do not fit it.
        MissingExtraError: matplotlib is not installed.
    """
    columns = list(next(iter(rows.values()), {}))
    if not columns or any(list(row) != columns for row in rows.values()):
        raise ConfigError(
            expected="at least one row, and the same columns in all of them",
            got=f"{[list(row) for row in rows.values()]}",
            fix="Give every row the same names in the same order.",
        )
    figure, axes = new_figure(len(rows), len(columns), width=size / _DPI, height=size / _DPI)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        for axis, column in zip(line, columns, strict=True):
            image = render_image(*row[column], view=view, size=2 * size)
            axis.imshow(image, interpolation="antialiased")
            axis.set_axis_off()
        line[0].text(
            -0.04, 0.5, name, rotation=90, transform=line[0].transAxes, color=_TEXT,
            fontsize=9, ha="right", va="center",
        )  # fmt: skip
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=9, color=_TEXT)
    left, top = 0.25 / figure.get_figwidth(), 1 - 0.2 / figure.get_figheight()  # room for names
    figure.subplots_adjust(left=left, right=1, bottom=0, top=top, wspace=0.01, hspace=0.01)
    return save_figure(figure, path)


def spectrum_figure(
    spectra: Mapping[str, ArrayLike], path: str | os.PathLike[str], *, floor: float = 1e-9
) -> Path:
    """Draw the logarithm of covariance eigenvalues, as histograms and in order (paper's Fig. 5b).

    A collapsed representation shows a heap at the floor; a rich one a narrow hill to the right.

    Args:
        spectra: Eigenvalues by the name of what they belong to, for example
            ``feature_spectrum(features)``; the largest of each is scaled to 1.
        path: PNG file; it appears at once.
        floor: Smaller eigenvalues count as this one.

    Raises:
        ConfigError: There is no spectrum, or one is empty or zero.
        MissingExtraError: matplotlib is not installed.
    """
    values = {name: np.sort(np.asarray(v, np.float64))[::-1] for name, v in spectra.items()}
    if not values or any(not len(v) or v[0] <= 0 for v in values.values()):
        raise ConfigError(
            expected="at least one spectrum with a positive eigenvalue",
            got=f"{len(values)} spectra",
            fix="Pass pointzoo.metrics.feature_spectrum of features that vary.",
        )
    logs = {name: np.log10(np.maximum(v / v[0], floor)) for name, v in values.items()}
    figure, ((left, right),) = new_figure(1, 2, width=4.2, height=3.2)
    bins = np.linspace(math.log10(floor), 0.0, 46)
    for color, (name, log) in zip(_cycle(len(logs)), logs.items(), strict=True):
        left.hist(log, bins=bins, color=color, alpha=0.55, label=name, edgecolor="none")
        right.plot(np.arange(1, len(log) + 1), log, color=color, linewidth=1.8, label=name)
    _label(left, "log10 of eigenvalue / largest", "eigenvalues")
    _label(right, "eigenvalue, in order", "log10 of eigenvalue / largest")
    left.legend(frameon=False, fontsize=8, labelcolor=_TEXT)
    figure.tight_layout()
    return save_figure(figure, path)


def training_figure(
    log: str | os.PathLike[str], path: str | os.PathLike[str], *, keys: Sequence[str] | None = None
) -> Path:
    """Draw the curves of a training log, one small panel per quantity.

    Args:
        log: JSON lines with ``step`` and numbers, as the trainers write them (``log.jsonl``). A
            last line that is cut off, as after a crash, is left out.
        path: PNG file; it appears at once.
        keys: The quantities to draw; None draws all.

    Raises:
        FormatError: The log cannot be read, or holds none of the quantities.
        MissingExtraError: matplotlib is not installed.
    """
    curves = read_curves(log)
    chosen = list(curves) if keys is None else [key for key in keys if key in curves]
    if not chosen:
        raise FormatError(
            expected=f"a training log {log} with {', '.join(keys or ['steps'])}",
            got=", ".join(curves) or "no numbers",
            fix="Pass the log.jsonl of a run.",
        )
    columns = min(4, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure, axes = new_figure(rows, columns, width=2.9, height=2.1)
    for axis, key in zip(axes.flat, chosen, strict=False):
        steps, values = np.array(curves[key]).T
        axis.plot(steps, values, color=_LINES[0], linewidth=1.2)
        axis.set_title(key.replace("_", " "), fontsize=9, color=_TEXT, loc="left")
        _label(axis, "", "")
    for axis in axes.flat[len(chosen) :]:
        axis.set_axis_off()
    figure.supxlabel("step", fontsize=9, color=_TEXT)
    figure.tight_layout()
    return save_figure(figure, path)


def read_curves(log: str | os.PathLike[str]) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) pairs by quantity, in the order in which quantities first appear.

    Raises:
        FormatError: The file is missing, or a line before the last is no JSON object.
    """
    try:
        lines = read_limited(Path(log), MAX_MANIFEST).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"a training log at {log}", got=type(error).__name__, fix="Check the path."
        ) from error
    curves: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
            step = float(entry["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise FormatError(
                expected="JSON with a step on every line",
                got=f"{line[:40]!r} on line {number}",
                fix="Pass the log.jsonl of a run.",
            ) from error
        for key, value in entry.items():
            if key not in ("step", "time") and isinstance(value, int | float):
                curves.setdefault(key, []).append((step, float(value)))
    return curves


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz") from error
    return mpl


def new_figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure without pyplot's global state, and its axes (rows, columns)."""
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _label(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=9, color=_TEXT)
    axis.set_ylabel(y, fontsize=9, color=_TEXT)
    axis.tick_params(labelsize=8, colors=_TEXT, length=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#bbbbbb")


def _cycle(count: int) -> list[str]:
    return [_LINES[i % len(_LINES)] for i in range(count)]


def save_figure(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG; the file appears at once."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    figure.savefig(partial, format="png", facecolor="white", metadata={"Software": None})
    partial.replace(target)
    return target
