"""Batch normalisation in training, with the addition and the ReLU behind it, as one operation.

Shapes: M rows, C channels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointzoo.ops.sparse import core


def can_normalise(x: Tensor, residual: Tensor | None) -> bool:
    """Say whether :func:`normalise` takes these: float32 or bfloat16, both alike, on the CPU."""
    alike = residual is None or residual.dtype == x.dtype
    return alike and len(x) > 1 and core.multiplies(x)


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel by the mean and variance of the rows, add, cut off below 0.

    Args:
        x: (M, C), M at least 2; see :func:`can_normalise`.
        weight: (C,) float32.
        bias: (C,) float32.
        residual: (M, C) added before the ReLU, or None.
        eps: Added to the variance.
        relu: Whether a ReLU closes it.

    Returns:
        (M, C) in the type of ``x``, and mean and variance (divided by M), (C,) float64, without
        gradients.
    """
    function: Any = _Normalisation  # torch does not annotate apply
    return cast(
        "tuple[Tensor, Tensor, Tensor]", function.apply(x, weight, bias, residual, eps, relu)
    )


class _Normalisation(torch.autograd.Function):
    """The sums in float64, everything else in one pass over the rows in either direction."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = core.plain(x, x.dtype)
        more = None if residual is None else core.plain(residual, x.dtype)
        sizes = _sizes(x)
        sums = torch.empty(2, x.shape[1], dtype=torch.float64)
        core.call("moments", x, *sizes, sums)
        mean = sums[0] / len(x)
        variance = (sums[1] / len(x) - mean.square()).clamp_(min=0.0)
        inverse = (variance + eps).rsqrt()
        scale = weight.detach().double() * inverse
        shift = (bias.detach().double() - mean * scale).float()
        y = torch.empty_like(x)
        core.call("normalise", x, more, scale.float(), shift, *_with(sizes, relu), y)
        ctx.save_for_backward(x, y if relu else None, mean, inverse, scale)
        ctx.relu = relu
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, y, mean, inverse, scale = ctx.saved_tensors
        grad = core.plain(grad, x.dtype)
        sizes = _with(_sizes(x), ctx.relu)
        sums = torch.empty(2, x.shape[1], dtype=torch.float64)
        middle = mean.float()
        core.call("slopes", x, y, grad, middle, *sizes, sums)
        slope = scale * inverse.square() * sums[1] / len(x)
        level = scale * sums[0] / len(x)
        dx = torch.empty_like(x)
        asked = ctx.needs_input_grad[3]
        behind = torch.empty_like(x) if asked and ctx.relu else None
        factors = (middle, scale.float(), slope.float(), level.float())
        core.call("turn", x, y, grad, *factors, *sizes, dx, behind)
        more = (grad if behind is None else behind) if asked else None
        return dx, (sums[1] * inverse).float(), sums[0].float(), more, None, None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return len(x), x.shape[1], int(x.dtype == torch.bfloat16)


def _with(sizes: tuple[int, int, int], relu: bool) -> tuple[int, int, int, int]:
    return sizes[0], sizes[1], int(relu), sizes[2]
