"""Values carried from one set of points to another.

Shapes: B clouds, S sources and N targets in all, C channels, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pointzoo.errors import CloudError
from pointzoo.ops import ragged
from pointzoo.ops.neighbors import knn


def interpolate(
    values: Tensor,
    source_coords: Tensor,
    source_offsets: Tensor,
    target_coords: Tensor,
    target_offsets: Tensor,
    *,
    k: int = 3,
) -> Tensor:
    """Carry values from one set of points to another, weighted by inverse squared distance.

    A target that coincides with a source gets exactly its value (the mean of several that
    coincide). Gradients flow to ``values`` only.

    Args:
        values: (S, C) floating point.
        source_coords: (S, 3) where the values are known.
        source_offsets: (B,) cumulative numbers of sources.
        target_coords: (N, 3) where they are wanted.
        target_offsets: (B,) cumulative numbers of targets.
        k: Sources that each target looks at; fewer where a cloud has fewer.

    Returns:
        (N, C).

    Raises:
        CloudError: Shapes do not fit, or what :func:`knn` raises.
        ConfigError: ``k`` is below 1.
    """
    if values.ndim != 2 or len(values) != len(source_coords) or not values.is_floating_point():
        raise CloudError(
            expected=f"values (S, C) in floating point for {len(source_coords)} source points",
            got=f"shape {tuple(values.shape)} of {values.dtype}",
            fix="Pass one row of values per source point.",
        )
    find = _opaque_shares if torch.compiler.is_compiling() else _shares
    index, weight = find(target_coords, target_offsets, source_coords, source_offsets, k)
    weight = weight.to(values.dtype)
    return functional.embedding_bag(index, values, per_sample_weights=weight, mode="sum")


def _shares(
    target_coords: Tensor,
    target_offsets: Tensor,
    source_coords: Tensor,
    source_offsets: Tensor,
    k: int,
) -> tuple[Tensor, Tensor]:
    """Return the rows (N, K) of the sources that each target looks at, and their shares (N, K)."""
    index, distance = knn(target_coords, target_offsets, source_coords, source_offsets, k)
    available = ragged.sizes_of(source_offsets)[ragged.cloud_index(ragged.sizes_of(target_offsets))]
    repeated = torch.arange(k, device=index.device) >= available[:, None]  # (N, K)
    nearest = distance[:, :1]
    coincide = (distance == 0).to(distance.dtype)
    # Relative to the nearest, so that nothing overflows and no epsilon sets a scale.
    weight = torch.where(nearest == 0, coincide, nearest / distance).masked_fill(repeated, 0.0)
    return index, weight / weight.sum(1, keepdim=True)


# What torch.compile and torch.export see instead: one operation that they do not look into.
_opaque_shares = torch.library.custom_op(
    "pointzoo::shares",
    _shares,
    mutates_args=(),
    # torch 2.4 does not read the annotations of a module that postpones them
    schema="(Tensor target_coords, Tensor target_offsets, Tensor source_coords, "
    "Tensor source_offsets, int k) -> (Tensor, Tensor)",
)


@_opaque_shares.register_fake
def _(
    target_coords: Tensor,
    target_offsets: Tensor,  # noqa: ARG001  # one signature for both
    source_coords: Tensor,  # noqa: ARG001
    source_offsets: Tensor,  # noqa: ARG001
    k: int,
) -> tuple[Tensor, Tensor]:
    shape = len(target_coords), k
    return target_coords.new_empty(shape, dtype=torch.int64), target_coords.new_empty(shape)
