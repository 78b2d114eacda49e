"""Checks and reshapes shared by the operations on ragged batches.

Shapes: B clouds, N points in all, P points in the largest cloud, C coordinates per point.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError


def sizes_of(offsets: Tensor) -> Tensor:
    """Return the (B,) row counts of cumulative ``offsets (B,)``."""
    return torch.diff(offsets, prepend=offsets.new_zeros(1))


def cloud_index(sizes: Tensor) -> Tensor:
    """Return the (N,) cloud that each row belongs to, for ``sizes (B,)``."""
    return torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)


def check_points(name: str, coords: Tensor, channels: int | None = 3) -> float:
    """Check that coordinates can be measured, and return their largest absolute value.

    Args:
        name: What the error calls them.
        coords: (N, C) points.
        channels: The C that is required, or None for any.

    Raises:
        CloudError: Wrong shape or type, or a value that is NaN or infinite.
    """
    if coords.ndim != 2 or channels not in {None, coords.shape[-1]} or coords.shape[-1] == 0:
        raise CloudError(
            expected=f"{name} of shape (N, {'C' if channels is None else channels})",
            got=f"shape {tuple(coords.shape)}",
            fix="Pass one row per point, all clouds one after the other.",
        )
    if coords.dtype not in {torch.float32, torch.float64}:
        raise CloudError(
            expected=f"{name} in float32 or float64",
            got=str(coords.dtype),
            fix="Convert with coords.float().",
        )
    if len(coords) == 0:
        return 0.0
    low, high = torch.aminmax(coords)  # either is NaN if any value is
    largest = max(-float(low), float(high))
    if not math.isfinite(largest):
        raise CloudError(
            expected=f"finite {name}",
            got="NaN or infinite values",
            fix="Remove those points first, for example with PointCloud.drop_nonfinite().",
        )
    return largest


def check_offsets(name: str, offsets: Tensor, rows: int, *, empty: bool = False) -> None:
    """Check that ``offsets`` cut ``rows`` rows into clouds.

    Args:
        name: What the error calls them.
        offsets: (B,) integers, cumulative row counts.
        rows: The number of rows there are.
        empty: Whether a cloud may have no row.

    Raises:
        CloudError: Not cumulative counts of ``rows`` rows, or an empty cloud where none may be.
    """
    integral = not offsets.is_floating_point() and offsets.dtype != torch.bool
    if offsets.ndim == 1 and len(offsets) and integral and int(offsets[-1]) == rows:
        smallest = int(sizes_of(offsets).min())
        if smallest >= (0 if empty else 1):
            return
    least = "at least zero" if empty else "at least one"
    raise CloudError(
        expected=f"{name} (B,) that cut {rows} rows into clouds of {least} point",
        got=f"{offsets.flatten().tolist()[:8]} of {offsets.dtype}",
        fix="Offsets are cumulative row counts without a leading zero; leave empty clouds out.",
    )


def check_counts(counts: Tensor, sizes: Tensor) -> None:
    """Check that ``counts (B,)`` points can be taken from clouds of ``sizes (B,)`` points.

    Raises:
        ConfigError: A count is below one or larger than its cloud, or their number differs.
    """
    fits = counts.shape == sizes.shape and not counts.is_floating_point()
    if fits and bool(((counts >= 1) & (counts <= sizes)).all()):
        return
    raise ConfigError(
        expected=f"counts (B,) between 1 and the sizes of the clouds, {sizes.tolist()[:8]}",
        got=f"{counts.flatten().tolist()[:8]} of {counts.dtype}",
        fix="Clip the counts to the number of points in each cloud.",
    )


def check_rows(name: str, rows: Tensor, sizes: Tensor) -> None:
    """Check that ``rows (B,)`` name one row inside each cloud of ``sizes (B,)`` points.

    Raises:
        ConfigError: A row lies outside its cloud, or their number differs.
    """
    fits = rows.shape == sizes.shape and not rows.is_floating_point()
    if fits and bool(((rows >= 0) & (rows < sizes)).all()):
        return
    raise ConfigError(
        expected=f"{name} (B,) that name one row in each of {len(sizes)} clouds",
        got=f"{rows.flatten().tolist()[:8]} of {rows.dtype}",
        fix="Pass one row of every cloud.",
    )


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances of ``a (..., C)`` and ``b (..., C)``, which broadcast.

    The squares are added in the order of the coordinates, one operation at a time: the compiled
    core does the same, so that both agree to the last bit.
    """
    total = (a[..., 0] - b[..., 0]).square()
    for axis in range(1, a.shape[-1]):
        total = total + (a[..., axis] - b[..., axis]).square()
    return total


def pad(values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Put every cloud in a row of its own.

    Args:
        values: (N, C) flat rows.
        sizes: (B,) rows per cloud.

    Returns:
        (B, P, C), zero where a cloud has ended, and a (B, P) mask of the rows that exist, None
        when all clouds have equal size.
    """
    width = int(sizes.max())
    if len(values) == len(sizes) * width:
        return values.reshape(len(sizes), width, values.shape[1]), None  # (N, C) -> (B, P, C)
    exists = torch.arange(width, device=values.device) < sizes[:, None]
    padded = values.new_zeros(len(sizes), width, values.shape[1])
    padded[exists] = values
    return padded, exists


def groups_of(sizes: Tensor, limit: float = 2.0) -> list[Tensor]:
    """Group clouds so that padding them wastes little.

    Args:
        sizes: (B,) points per cloud.
        limit: Largest ratio of sizes within one group.

    Returns:
        Index tensors that together name every cloud once.
    """
    if int(sizes.max()) <= limit * int(sizes.min()):
        return [torch.arange(len(sizes), device=sizes.device)]
    ordered, order = sizes.sort(stable=True)
    values, cuts = ordered.tolist(), [0]
    for position, size in enumerate(values):
        if size > limit * values[cuts[-1]]:
            cuts.append(position)
    return [order[i:j] for i, j in pairwise([*cuts, len(values)])]


def rows_of(sizes: Tensor, starts: Tensor) -> Tensor:
    """Return the flat rows ``starts[b] .. starts[b] + sizes[b]`` of every cloud, concatenated."""
    total = int(sizes.sum())
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.arange(total, device=sizes.device) + torch.repeat_interleave(shift, sizes)


def plain(numbers: Tensor) -> Tensor:
    """Return integers as the compiled core reads them: int64, one after the other."""
    return numbers.to(torch.int64).contiguous()
