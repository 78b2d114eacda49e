"""Reductions of rows that share an index."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pointzoo.errors import CloudError, ConfigError

Reduction = Literal["sum", "mean", "max", "min"]
_SCATTER = {"max": "amax", "min": "amin"}


def segment_reduce(
    values: Tensor, index: Tensor, num_segments: int, reduce: Reduction = "sum"
) -> Tensor:
    """Reduce the rows of every segment to one.

    Args:
        values: (N, C) rows; gradients flow to them (equal extrema share theirs).
        index: (N,) segment of each row, 0 to ``num_segments - 1``, in any order.
        num_segments: How many segments there are; one without rows gives zeros.
        reduce: ``"sum"``, ``"mean"``, ``"max"`` or ``"min"``.

    Returns:
        (num_segments, C). Bit-equal between runs on the CPU; on CUDA sums follow
        ``torch.use_deterministic_algorithms``.

    Raises:
        CloudError: Shapes do not fit or an index is out of range.
        ConfigError: An unknown reduction.
    """
    if values.ndim != 2 or index.shape != values.shape[:1] or index.dtype != torch.int64:
        raise CloudError(
            expected="values (N, C) and index (N,) int64",
            got=f"{tuple(values.shape)} and {tuple(index.shape)} of {index.dtype}",
            fix="Pass one segment number per row.",
        )
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < num_segments:
        raise CloudError(
            expected=f"index from 0 to {num_segments - 1}",
            got=f"{int(index.min())} to {int(index.max())}",
            fix="Raise num_segments or mend the index.",
        )
    if reduce in _SCATTER:
        target = values.new_zeros(num_segments, values.shape[1])
        where = index[:, None].expand_as(values)  # (N,) -> (N, C)
        return target.scatter_reduce(0, where, values, _SCATTER[reduce], include_self=False)
    if reduce not in {"sum", "mean"}:
        raise ConfigError(
            expected="reduce of 'sum', 'mean', 'max' or 'min'",
            got=repr(reduce),
            fix="Choose one of these.",
        )
    total = values.new_zeros(num_segments, values.shape[1]).index_add(0, index, values)
    if reduce == "sum":
        return total
    rows = torch.bincount(index, minlength=num_segments).clamp(min=1)
    return total / rows[:, None].to(values.dtype)
