"""Submanifold, strided and inverse sparse convolution, with gradients.

Weights are (K, Cin, Cout); K kernel offsets are enumerated x, y, z with z fastest, and nothing is
flipped (cross-correlation, as ``torch.conv3d``). Nothing is kept for the backward pass but input,
weights and kernel map; gathered rows are gathered again.

Shapes: M voxels of the fine (or only) level, N of the coarse one, U different voxels, K offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops.sparse import core, gpu, memory, reference
from pointzoo.ops.sparse.grid import KernelMap, Pairs, StrideMap, Twins


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What follows a convolution in inference: ``relu(conv * scale + shift + residual)``.

    Attributes:
        scale: (Cout,) of a folded batch normalisation.
        shift: (Cout,)
        residual: (M, Cout) added before the ReLU, or None.
        relu: Whether a ReLU closes it.
        out: (M, Cout) where to write, in the type of the input; rows may lie apart. None for
            memory of its own.
    """

    scale: Tensor
    shift: Tensor
    residual: Tensor | None = None
    relu: bool = True
    out: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Return the epilogue of ``x (M, Cout)``."""
        return self.end(torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype)))

    def end(self, x: Tensor) -> Tensor:
        """Return what follows scale and shift, in place."""
        if self.residual is not None:
            x = x.add_(self.residual)
        x = x.relu_() if self.relu else x
        return x if self.out is None else self.out.copy_(x)


def submanifold_conv(
    x: Tensor, weight: Tensor, kernel_map: KernelMap, *, epilogue: Epilogue | None = None
) -> Tensor:
    """Convolve at the voxels that there are: ``out[p] = sum_k x[p + k - centre] @ weight[k]``.

    A voxel that occurs several times keeps a row for each: a row sees itself, not its twins, at the
    centre, and the sum over twins everywhere else (as spconv on the CPU).

    Args:
        x: (M, Cin) features, float32, float64 or bfloat16.
        weight: (K, Cin, Cout), K = kernel_size**3.
        kernel_map: From :meth:`VoxelGrid.submanifold`.
        epilogue: For inference; its tensors get no gradient.

    Returns:
        (M, Cout) in the type of ``x`` (of the products, under autocast).

    Raises:
        CloudError: ``x`` does not have one row per voxel.
        ConfigError: ``weight`` does not fit ``x`` or the kernel.
    """
    x, weight = _checked(x, weight, kernel_map.num_voxels, kernel_map.kernel_size**3)
    if kernel_map.kernel_size == 1 and (epilogue is None or not core.multiplies(x)):
        return _pointwise(x, weight[0], epilogue)
    twins = kernel_map.twins
    if twins is None:
        return _convolve(x, weight, kernel_map.pairs, None, epilogue)
    sums = _sum_twins(x, twins)
    out = _convolve(sums, weight, kernel_map.pairs).index_select(0, twins.voxel)
    others = x.index_select(0, twins.rows) - sums.index_select(0, twins.voxel[twins.rows])
    own = _pointwise(others, weight[len(weight) // 2], None)
    return _finish(out.index_add(0, twins.rows, own.to(out.dtype)), epilogue)


def strided_conv(
    x: Tensor, weight: Tensor, stride_map: StrideMap, *, epilogue: Epilogue | None = None
) -> Tensor:
    """Convolve to the coarser level: ``out[p] = sum_k x[2 p + k] @ weight[k]``.

    Args:
        x: (M, Cin) features of the fine level; rows of one voxel are summed.
        weight: (8, Cin, Cout)
        stride_map: From :meth:`VoxelGrid.down`.
        epilogue: For inference; its tensors get no gradient.

    Returns:
        (N, Cout)

    Raises:
        CloudError: ``x`` does not have one row per fine voxel.
        ConfigError: ``weight`` does not fit ``x``.
    """
    x, weight = _checked(x, weight, stride_map.num_voxels, 8)
    if stride_map.twins is not None:
        x = _sum_twins(x, stride_map.twins)
    return _convolve(x, weight, stride_map.down, stride_map.up, epilogue)


def inverse_conv(
    x: Tensor, weight: Tensor, stride_map: StrideMap, *, epilogue: Epilogue | None = None
) -> Tensor:
    """Convolve back to the finer level: ``out[i] = x[parent(i)] @ weight[i - 2 parent(i)]``.

    Args:
        x: (N, Cin) features of the coarse level.
        weight: (8, Cin, Cout)
        stride_map: The map that led to the coarse level.
        epilogue: For inference; its tensors get no gradient.

    Returns:
        (M, Cout), equal rows for the rows of one voxel.

    Raises:
        CloudError: ``x`` does not have one row per coarse voxel.
        ConfigError: ``weight`` does not fit ``x``.
    """
    x, weight = _checked(x, weight, stride_map.num_coarse, 8)
    twins = stride_map.twins
    if twins is None:
        return _convolve(x, weight, stride_map.up, stride_map.down, epilogue)
    out = _convolve(x, weight, stride_map.up, stride_map.down)
    return _finish(out.index_select(0, twins.voxel), epilogue)


def _checked(x: Tensor, weight: Tensor, rows: int, offsets: int) -> tuple[Tensor, Tensor]:
    """Check the shapes, and bring both tensors to the type to compute in."""
    if x.ndim != 2 or len(x) != rows:
        raise CloudError(
            expected=f"features ({rows}, C), one row per voxel of the kernel map",
            got=f"shape {tuple(x.shape)}",
            fix="Pass features in the sorted order of the grid that the map came from.",
        )
    if weight.ndim != 3 or len(weight) != offsets or weight.shape[1] != x.shape[1]:
        raise ConfigError(
            expected=f"weights ({offsets}, {x.shape[1]}, Cout)",
            got=f"shape {tuple(weight.shape)}",
            fix="pointzoo.ops.sparse.layouts converts the layouts of other libraries.",
        )
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
        kind = kind if x.device.type != "cpu" or core.fast(kind) else torch.float32
        return x.to(kind), weight
    return x, weight


def _convolve(
    x: Tensor,
    weight: Tensor,
    pairs: Pairs,
    exchanged: Pairs | None = None,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """Sum over ``pairs``; ``exchanged`` is None where reversing the offsets gives it."""
    with torch.autocast(x.device.type, enabled=False):  # the types are chosen by now
        if epilogue is None:
            function: Any = _Convolution  # torch does not annotate apply
            return cast(Tensor, function.apply(x, weight, pairs, exchanged))
        if core.multiplies(x):
            out = epilogue.out
            if out is None:
                out = memory.room_for(x, weight.shape[2], pairs.num_outputs)
            return core.convolve(x, weight, pairs.tiles, **{**vars(epilogue), "out": out})
        return _finish(_forward(x, weight, pairs), epilogue)


def _pointwise(x: Tensor, weight: Tensor, epilogue: Epilogue | None) -> Tensor:
    """Return ``x (M, Cin) @ weight (Cin, Cout)``, in the type of ``x`` under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        if epilogue is None:
            return x @ weight.to(x.dtype)
        weight = (weight * epilogue.scale).to(x.dtype)
        return epilogue.end(torch.addmm(epilogue.shift.to(x.dtype), x, weight))


def _finish(x: Tensor, epilogue: Epilogue | None) -> Tensor:
    return x if epilogue is None else epilogue.apply(x)


def _sum_twins(x: Tensor, twins: Twins) -> Tensor:
    """Return (U, C): the rows of each voxel, added up."""
    return x.new_zeros(twins.num_voxels, x.shape[1]).index_add(0, twins.voxel, x)


def _forward(x: Tensor, weight: Tensor, pairs: Pairs, *, reverse: bool = False) -> Tensor:
    if core.multiplies(x):
        return core.convolve(x, weight, pairs.tiles, reverse=reverse)
    weight = weight.flip(0) if reverse else weight
    return gpu.convolve(x, weight, pairs.list, pairs.num_outputs)


def _weight_gradient(x: Tensor, grad: Tensor, pairs: Pairs) -> Tensor:
    if core.multiplies(x):
        return core.weight_gradient(x, grad, pairs.tiles)
    return reference.weight_gradient(x, grad, pairs.list)


class _Convolution(torch.autograd.Function):
    """The sums over pairs, and their gradients as sums over the transposed pairs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, pairs: Pairs, exchanged: Pairs | None
    ) -> Tensor:
        """Return the (rows, Cout) sums."""
        ctx.save_for_backward(x, weight)
        ctx.pairs, ctx.exchanged = pairs, exchanged
        return _forward(x, weight, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients of ``x`` and ``weight``."""
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned, mirrored = weight.transpose(1, 2), ctx.exchanged is None
            pairs = ctx.pairs if mirrored else ctx.exchanged
            grad_x = _forward(grad, turned, pairs, reverse=mirrored)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(x, grad, ctx.pairs).to(weight.dtype)
        return grad_x, grad_weight, None, None
