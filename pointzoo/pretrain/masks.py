"""Contrastive cross masks and view mixing of Masked Scene Contrast.

Paper: X. Wu et al., arXiv 2303.14191, section 4.2 and Fig. 4.

Shape legend: B clouds, N points of all clouds of a view, P occupied patches of both views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointzoo import ops
from pointzoo.errors import ConfigError


def cross_masks(
    query_coords: Tensor,
    query_offsets: Tensor,
    key_coords: Tensor,
    key_offsets: Tensor,
    *,
    grid_size: float,
    rate: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw masks of whole patches for two views of the same clouds, without a patch in common.

    A patch is a cell ``floor(coords / grid_size)`` of one cloud, taken in the type of the
    coordinates. Of the P patches that the two views occupy in the whole batch, int(P rate) are
    masked in each view. Pointcept @ d74c646 numbers cells in a way that joins distant ones; these
    are real cells.

    Args:
        query_coords: (Nq, 3) coordinates of one view in the frame that both share, metres.
        query_offsets: (B,) cumulative row counts.
        key_coords: (Nk, 3) coordinates of the other view in the same frame.
        key_offsets: (B,) cumulative row counts.
        grid_size: Edge of a patch, metres.
        rate: Share of the patches to mask in each view, 0 to 0.5.
        generator: Source of the choice.

    Returns:
        (Nq,) and (Nk,) booleans, True where a point is masked.

    Raises:
        ConfigError: ``rate`` or ``grid_size`` is out of range.
        CloudError: Shapes do not fit, a cloud is empty or a coordinate not finite.
    """
    if not 0.0 <= rate <= 0.5:
        raise ConfigError(
            expected="a mask rate from 0 to 0.5",
            got=f"{rate}",
            fix="The two masks share no patch; the paper uses 0.3.",
        )
    if not grid_size > 0.0:
        raise ConfigError(
            expected="a positive patch size in metres", got=f"{grid_size}", fix="Pass e.g. 0.1."
        )
    coords = torch.cat([query_coords, key_coords])
    cells = (coords / coords.new_tensor(grid_size)).floor()  # in the type that the caller has
    cloud = torch.cat([_cloud_of(query_offsets), _cloud_of(key_offsets)])
    order = cloud.argsort(stable=True)  # both views of a cloud side by side
    patches = ops.grid_sample(cells[order], query_offsets + key_offsets, 1.0)
    patch = torch.empty_like(order)
    patch[order] = patches.inverse
    count = len(patches.counts)
    drawn = torch.randperm(count, generator=generator, device=generator.device).to(patch.device)
    masked = int(count * rate)
    owner = torch.zeros(count, dtype=torch.int8, device=patch.device)  # (P,) which view hides it
    owner[drawn[:masked]] = 1
    owner[drawn[masked : 2 * masked]] = 2
    hidden = owner[patch]
    return hidden[: len(query_coords)] == 1, hidden[len(query_coords) :] == 2


def mix_offsets(offsets: Tensor) -> Tensor:
    """Merge clouds (0, 1), (2, 3), ... of a batch into one each (Fig. 4); rows stay where they are.

    Args:
        offsets: (B,) cumulative row counts.

    Returns:
        (ceil(B / 2),) cumulative row counts; the last cloud of an odd batch stays alone.
    """
    pairs = offsets[1::2]
    return torch.cat([pairs, offsets[-1:]]) if len(offsets) % 2 else pairs


def _cloud_of(offsets: Tensor) -> Tensor:
    sizes = torch.diff(offsets, prepend=offsets.new_zeros(1))
    return torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
