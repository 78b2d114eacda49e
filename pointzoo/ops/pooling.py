"""Maxima and means over the members of a group or of a cloud.

Shape legend: T groups, K members, H inputs, D outputs, B clouds, N rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointzoo.ops import ragged

_CPU_CHUNK_ROWS = 4096
"""Rows per chunk on a CPU: a chunk of a few hundred columns stays in the cache of a core."""


def linear_max(members: Tensor, weight: Tensor) -> Tensor:
    """Return ``(members @ weight.T).amax(dim=1)`` without keeping the (T, K, D) product.

    The product is made chunk by chunk, in the forward and again in the backward pass. On a CPU this
    is several times faster than the three separate operations, whose cost is moving that product
    through memory. Where members tie for the maximum, the gradient is shared equally, as ``amax``
    does it.

    Args:
        members: (T, K, H) floating point.
        weight: (D, H) of the same type.

    Returns:
        (T, D).
    """
    function: Any = _LinearMax  # torch does not annotate apply
    out: Tensor = function.apply(members, weight)
    return out


def largest_and_mean(rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return maximum and mean of the rows of every cloud, (B, D) each, from (N, D)."""
    sizes = ragged.sizes_of(offsets).tolist()
    if min(sizes) == max(sizes):
        clouds = rows.unflatten(0, (len(sizes), sizes[0]))  # (N, D) -> (B, P, D)
        return clouds.amax(dim=1), clouds.mean(dim=1)
    parts = rows.split(sizes)
    return torch.stack([p.amax(dim=0) for p in parts]), torch.stack([p.mean(dim=0) for p in parts])


def _chunks(members: Tensor) -> int:
    if members.device.type != "cpu":
        return max(len(members), 1)
    return max(_CPU_CHUNK_ROWS // members.shape[1], 1)


class _LinearMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, members: Tensor, weight: Tensor) -> Tensor:
        parts = [(part @ weight.t()).amax(dim=1) for part in members.split(_chunks(members))]
        out = torch.cat(parts)
        ctx.save_for_backward(members, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        members, weight, out = ctx.saved_tensors
        step = _chunks(members)
        to_members = torch.empty_like(members)
        wide = torch.promote_types(weight.dtype, torch.float32)
        to_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
        for start in range(0, len(members), step):
            part = slice(start, start + step)
            best = (members[part] @ weight.t()).eq_(out[part, None])  # (t, K, D), 1 at the maxima
            share = gradients[0][part] / best.sum(dim=1).clamp_min(1.0)
            spread = best.mul_(share[:, None]).flatten(0, 1)  # (t K, D)
            torch.mm(spread, weight, out=to_members[part].flatten(0, 1))
            to_weight += spread.t() @ members[part].flatten(0, 1)
        return to_members, to_weight.to(weight.dtype)
