"""Low-rank additions to the matrices of an encoder.

Paper: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. A
weight W becomes W + (alpha / r) A B with A drawn at random and B zero, so that training starts from
the encoder as it is; alpha is r here. A weight of a sparse convolution (K, I, O) is taken as the
matrix (K I, O) that it is when the K neighbours of a voxel stand side by side: one B for all kernel
offsets and an A of their own for each. A 1 x 1 convolution is a linear layer. A convolution of the
stem is left alone where it is no larger than its additions would be.

Shape legend: K kernel offsets, I inputs, O outputs, r rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)  # noqa: SLF001


class LowRank(nn.Module):
    """The addition to one weight, as a parametrization of it."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        """Draw A from torch's global generator; B is zero."""
        super().__init__()
        rows, columns = matrix_shape(weight)
        drawn = torch.randn(rows, rank).to(weight) / math.sqrt(rank)
        self.a = nn.Parameter(drawn)
        self.b = nn.Parameter(torch.zeros(rank, columns).to(weight))
        self.scale = 1.0 / math.sqrt(rows)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its addition."""
        return weight + (self.a @ self.b).reshape(weight.shape) * self.scale


def add_adapters(module: nn.Module, rank: int) -> int:
    """Give every matrix of a module that is larger than its addition one, and free its norms.

    All other parameters are fixed. Scale and shift of every normalisation learn along; running
    statistics stay those of the encoder (see :mod:`pointzoo.finetuning.methods`).

    Args:
        module: Is changed.
        rank: r; smaller where a matrix is.

    Returns:
        How many matrices got one.
    """
    module.requires_grad_(False)
    adapted = 0
    for part in list(module.modules()):
        weight = getattr(part, "weight", None)
        if isinstance(part, _NORMS):
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(True)
        elif isinstance(weight, nn.Parameter) and weight.ndim >= 2:
            rows, columns = matrix_shape(weight)
            if rank * (rows + columns) < rows * columns:
                parametrize.register_parametrization(part, "weight", LowRank(weight, rank))
                adapted += 1
    return adapted


def has_adapters(module: nn.Module) -> bool:
    """Say whether :func:`add_adapters` was here."""
    return any(isinstance(part, LowRank) for part in module.modules())


def added_names(module: nn.Module) -> set[str]:
    """Return the names, in the state of a module, of what :func:`add_adapters` lets learn."""
    found = set()
    for name, part in module.named_modules():
        if isinstance(part, (LowRank, *_NORMS)):
            found |= {f"{name}.{key}" for key, _ in part.named_parameters(recurse=False)}
    return found


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """Return rows and columns of a weight taken as a matrix; all axes but the last are rows."""
    if weight.ndim == 2:
        return weight.shape[0], weight.shape[1]
    if weight.shape[-1] == 1:  # nn.Conv1d and nn.Conv2d with a kernel of 1: (O, I, 1, ...)
        return weight.shape[0], weight.shape[1:].numel()
    return weight.shape[:-1].numel(), weight.shape[-1]
