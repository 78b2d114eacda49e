"""Batches of two views of each scene, as the trainers of scene encoders read them.

Shape legend: B scenes, M points of all query (key) views, C values that the network reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointzoo.encoders.base import CHANNEL_FILL
from pointzoo.pretrain.scene_views import SceneView


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """The query (or key) views of a batch, one after the other.

    Attributes:
        origin: (M, 3) float32, metres, in the frame that both views of a scene share.
        cells: (M, 3) int64 voxels.
        features: (M, C) what the network reads, before masking.
        colors: (M, 3) colours to reconstruct.
        normals: (M, 3) unit normals to reconstruct.
        colored: (M,) whether the colours are known and shown.
        offsets: (B,) cumulative row counts.
    """

    origin: Tensor
    cells: Tensor
    features: Tensor
    colors: Tensor
    normals: Tensor
    colored: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> ViewBatch:
        """Move to a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return ViewBatch(**moved)


@dataclass(frozen=True, eq=False)
class SceneBatch:
    """Both views of B scenes."""

    query: ViewBatch
    key: ViewBatch

    def to(self, device: torch.device) -> SceneBatch:
        """Move to a device."""
        return SceneBatch(self.query.to(device), self.key.to(device))


def collate_views(
    samples: Sequence[tuple[SceneView, SceneView]], channels: Sequence[str], *, source_colors: bool
) -> SceneBatch:
    """Put the views of several scenes into one batch.

    Args:
        samples: Query and key view of each scene.
        channels: What the network reads, in its order; a hidden channel gets the value that the
            encoder gives to clouds without it.
        source_colors: Whether the colours to reconstruct are those before the photometric changes.
    """
    query, key = (
        _stack([pair[side] for pair in samples], channels, source_colors=source_colors)
        for side in (0, 1)
    )
    return SceneBatch(query, key)


def _stack(
    views: Sequence[SceneView], channels: Sequence[str], *, source_colors: bool
) -> ViewBatch:
    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(view, name) for view in views]))

    counts = torch.tensor([len(view.cells) for view in views])
    columns = [_column(views, name) for name in channels]
    return ViewBatch(
        origin=joined("origin"),
        cells=joined("cells").long(),
        features=torch.cat(columns, dim=1),
        colors=joined("source_colors" if source_colors else "colors"),
        normals=joined("normals"),
        colored=torch.tensor(["colors" not in v.hidden for v in views]).repeat_interleave(counts),
        offsets=counts.cumsum(0),
    )


def _column(views: Sequence[SceneView], name: str) -> Tensor:
    """Return (M, 3) values of a channel, filled where it is hidden."""
    parts = [
        np.full_like(getattr(view, name), CHANNEL_FILL[name])
        if name in view.hidden
        else getattr(view, name)
        for view in views
    ]
    return torch.from_numpy(np.concatenate(parts))
