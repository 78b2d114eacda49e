"""Reductions over the neighbours of a point: largest value and sum, without the (T, K, C) middle.

Shapes: B clouds, T targets and N points in all, K neighbours, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointzoo.errors import CloudError
from pointzoo.ops import backends, ragged


def neighbor_pool(
    values: Tensor,
    index: Tensor,
    offsets: Tensor,
    sign: Tensor | None = None,
    *,
    total: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return ``values[index].amax(dim=1)`` and, if asked for, ``values[index].sum(dim=1)``.

    A minimum is the maximum of the negative: ``sign`` chooses for every channel. The gradient of an
    extreme value goes to the first neighbour that has it.

    Args:
        values: (N, C) floating point; gradients flow to them.
        index: (T, K) rows of ``values`` for every target, all of the target's own cloud.
        offsets: (B,) cumulative numbers of targets.
        sign: (C,) 1 where the largest value is wanted, -1 where the smallest; None for all 1.
        total: Whether the sums are wanted.

    Returns:
        (T, C) extreme values, and (T, C) sums or None. Bit-equal between runs on the CPU.

    Raises:
        CloudError: Shapes or types do not fit, or a row is out of range.
    """
    fits = values.ndim == 2 and values.is_floating_point() and index.ndim == 2
    if not (fits and index.dtype == torch.int64 and index.shape[1]):
        raise CloudError(
            expected="values (N, C) in floating point and index (T, K) in int64, K at least 1",
            got=f"{tuple(values.shape)} of {values.dtype}, {tuple(index.shape)} of {index.dtype}",
            fix="Pass one row of values per point, and what knn returned.",
        )
    ragged.check_offsets("offsets", offsets, len(index), empty=True)
    low, high = torch.aminmax(index) if len(index) else (0, -1)
    if int(low) < 0 or int(high) >= len(values):
        raise CloudError(
            expected=f"index from 0 to {len(values) - 1}",
            got=f"{int(low)} to {int(high)}",
            fix="The rows are counted over all clouds, as knn counts them.",
        )
    if sign is None:
        sign = values.new_ones(values.shape[1])
    function: Any = _NeighborPool  # torch does not annotate apply
    best, sums = function.apply(values, index, offsets, sign, total)
    return best, sums


def _compiled(values: Tensor) -> bool:
    return backends.takes(values, 0.0, None)  # no distance: values may be of any size


class _NeighborPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, index: Tensor, offsets: Tensor, sign: Tensor, total: bool
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.shape = values.shape
        pool = _pool_core if _compiled(values) else _pool_torch
        best, sums, rows = pool(values, index, sign, total=total)
        ctx.save_for_backward(index, offsets, rows)
        return best, sums

    @staticmethod
    def backward(
        ctx: Any, to_best: Tensor | None, to_total: Tensor | None
    ) -> tuple[Tensor, None, None, None, None]:
        index, offsets, rows = ctx.saved_tensors
        some = to_best if to_best is not None else to_total
        assert some is not None  # else autograd would not ask
        out = some.new_zeros(ctx.shape)
        to_best = out.new_zeros(rows.shape) if to_best is None else to_best
        spread = _spread_core if _compiled(out) else _spread_torch
        return spread(out, index, offsets, rows, to_best, to_total), None, None, None, None


def _pool_core(
    values: Tensor, index: Tensor, sign: Tensor, *, total: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    values, index, sign = values.contiguous(), index.contiguous(), sign.contiguous()
    (targets, k), channels = index.shape, values.shape[1]
    best = values.new_empty(targets, channels)
    sums = torch.empty_like(best) if total else None
    rows = torch.empty(targets, channels, dtype=torch.int32)
    backends.call("pool", values, index, sign, targets, channels, k, best, rows, sums)
    return best, sums, rows


def _pool_torch(
    values: Tensor, index: Tensor, sign: Tensor, *, total: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    sums = values[index[:, 0]]
    best, rows = sums * sign, index[:, :1].expand_as(sums)
    for column in index[:, 1:].unbind(dim=1):  # (T,): no (T, K, C)
        value = values[column]
        sums = sums + value if total else sums
        value = value * sign
        better = value > best
        best = torch.where(better, value, best)
        rows = torch.where(better, column[:, None], rows)
    return best * sign, sums if total else None, rows.to(torch.int32)


def _spread_core(
    out: Tensor,
    index: Tensor,
    offsets: Tensor,
    rows: Tensor,
    to_best: Tensor,
    to_total: Tensor | None,
) -> Tensor:
    index, to_best, offsets = index.contiguous(), to_best.contiguous(), ragged.plain(offsets)
    to_total = None if to_total is None else to_total.contiguous()
    sizes = (len(offsets), out.shape[1], index.shape[1])
    backends.call("pool_backward", index, rows, to_best, to_total, offsets, *sizes, out)
    return out


def _spread_torch(
    out: Tensor,
    index: Tensor,
    offsets: Tensor,  # noqa: ARG001  # one signature for both forms
    rows: Tensor,
    to_best: Tensor,
    to_total: Tensor | None,
) -> Tensor:
    out.scatter_add_(0, rows.to(torch.int64), to_best)
    if to_total is not None:
        for column in index.unbind(dim=1):
            out.index_add_(0, column, to_total)
    return out
