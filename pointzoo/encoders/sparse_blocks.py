"""The layers of a SparseUNet: sparse convolutions with batch normalisation, residual blocks.

In evaluation without gradients a normalisation, the residual and the ReLU are folded into the write
of the convolution before them (:class:`~pointzoo.ops.sparse.Epilogue`); in training the three are
one operation (:func:`~pointzoo.ops.sparse.normalise`).

Shape legend: M voxels of a level, I and O channels in and out, K kernel offsets.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from pointzoo.ops.sparse import (
    Epilogue,
    StrideMap,
    VoxelGrid,
    can_normalise,
    inverse_conv,
    normalise,
    strided_conv,
    submanifold_conv,
)


class Norm(nn.BatchNorm1d):
    """Batch normalisation over the voxels of the whole batch, with Pointcept's constants."""

    def __init__(self, channels: int) -> None:
        """Set eps and momentum."""
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (M, C)."""
        if self.training and len(x) == 1:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, variance = self.running_mean, self.running_var
            out: Tensor = nn.functional.batch_norm(
                x, mean, variance, self.weight, self.bias, eps=self.eps
            )
            return out
        return super().forward(x)

    def activate(self, x: Tensor, residual: Tensor | None = None, *, relu: bool = True) -> Tensor:
        """Normalise (M, C), add the residual, cut off below 0."""
        if self.training and can_normalise(x, residual):
            y, mean, variance = normalise(
                x, self.weight, self.bias, residual, eps=self.eps, relu=relu
            )
            self._follow(mean, variance * (len(x) / (len(x) - 1)))
            return y
        normed: Tensor = self(x)
        if residual is not None:
            normed = normed + residual
        return normed.relu_() if relu else normed

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow those of a batch, as PyTorch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:  # the average of all batches
            share = 1.0 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)

    def epilogue(
        self, residual: Tensor | None = None, *, relu: bool = True, out: Tensor | None = None
    ) -> Epilogue | None:
        """Return what a convolution can do instead; None while gradients or statistics count."""
        if self.training or torch.is_grad_enabled():
            return None
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return Epilogue(scale, self.bias - self.running_mean * scale, residual, relu, out)


class Submanifold(nn.Module):
    """Submanifold convolution and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        """Draw the weights as Pointcept does."""
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(kernel_size**3, inputs, outputs))  # (K, I, O)
        self.norm = Norm(outputs)
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(
        self, x: Tensor, grid: VoxelGrid, *, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """Return (M, O) for the voxels (M, I) of ``grid``; a residual is added before the ReLU."""
        epilogue = self.norm.epilogue(residual, relu=relu)
        out = submanifold_conv(
            x, self.weight, grid.submanifold(self.kernel_size), epilogue=epilogue
        )
        return out if epilogue is not None else self.norm.activate(out, residual, relu=relu)


class _Resampling(nn.Module):
    """A 2 x 2 x 2 convolution between levels, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Draw the weights as spconv does: uniform, by the number of inputs."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, inputs, outputs))  # (K, I, O)
        self.norm = Norm(outputs)
        bound = (8 * inputs) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)


class Down(_Resampling):
    """To the next coarser level."""

    def forward(self, x: Tensor, stride_map: StrideMap) -> Tensor:
        """Return the coarse voxels (M', O) for the fine ones (M, I)."""
        epilogue = self.norm.epilogue()
        out = strided_conv(x, self.weight, stride_map, epilogue=epilogue)
        return out if epilogue is not None else self.norm.activate(out)


class Up(_Resampling):
    """Back to the level that ``stride_map`` came from."""

    def forward(self, x: Tensor, stride_map: StrideMap, *, out: Tensor | None = None) -> Tensor:
        """Return the fine voxels (M, O) for the coarse ones (M', I); in ``out`` if it can."""
        epilogue = self.norm.epilogue(out=out)
        fine = inverse_conv(x, self.weight, stride_map, epilogue=epilogue)
        return fine if epilogue is not None else self.norm.activate(fine)


class Block(nn.Module):
    """Residual block of two convolutions; a 1 x 1 x 1 one projects where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build it."""
        super().__init__()
        self.conv1 = Submanifold(inputs, outputs, 3)
        self.conv2 = Submanifold(outputs, outputs, 3)
        self.project = Submanifold(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, grid: VoxelGrid) -> Tensor:
        """Transform the voxels (M, I) of ``grid`` to (M, O)."""
        shortcut = x if self.project is None else self.project(x, grid, relu=False)
        out: Tensor = self.conv2(self.conv1(x, grid), grid, residual=shortcut)
        return out


class Stage(nn.Module):
    """Residual blocks at one level."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        """Build them; the first changes the width."""
        super().__init__()
        widths = [inputs, *[outputs] * blocks]
        self.blocks = nn.ModuleList(Block(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor, grid: VoxelGrid) -> Tensor:
        """Transform the voxels (M, I) of ``grid`` to (M, O)."""
        for block in self.blocks:
            x = block(x, grid)
        return x
