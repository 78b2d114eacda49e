"""The one door through which the compiled core of sparse convolution comes in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tiles:
    """Pairs by tile of output rows, then kernel offset."""


def neighbour_tiles(batch: Tensor, coords: Tensor, kernel_size: int) -> Tiles:
    """Return the pairs of a submanifold convolution."""
    raise NotImplementedError


def parent_tiles(parent: Tensor, coords: Tensor) -> Tiles:
    """Return the pairs from coarse to fine voxels."""
    raise NotImplementedError


def child_tiles(parent: Tensor, coords: Tensor, rows: int) -> Tiles:
    """Return the pairs from fine to coarse voxels."""
    raise NotImplementedError


def fast(dtype: torch.dtype) -> bool:
    """Say whether the core multiplies in ``dtype`` at least as fast as in float32."""
    return dtype == torch.float32
