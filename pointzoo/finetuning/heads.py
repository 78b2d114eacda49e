"""Heads that several tasks use.

Shape legend: B clouds, N points, C channels, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pointzoo.finetuning.task import Encoded

Part = Literal["point", "scene", "both"]


class Head(nn.Module):
    """A linear layer, or an MLP with one hidden layer, on rows of points or clouds.

    The hidden layer stands between layer normalisations, so that features of any scale suit it and
    a row's output depends on that row alone.
    """

    def __init__(self, channels: int, classes: int, *, hidden: int, reads: Part) -> None:
        """Build it.

        Args:
            channels: C of what it reads.
            classes: K.
            hidden: Width of the hidden layer; 0 for none.
            reads: Whether a row is a point, a cloud, or a point beside its cloud.
        """
        super().__init__()
        self.reads = reads
        self.layers: nn.Module
        if hidden:
            self.layers = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, hidden),
                nn.LayerNorm(hidden),
                nn.GELU(),
                nn.Linear(hidden, classes),
            )
        else:
            self.layers = nn.Linear(channels, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return logits (N, K), or (B, K) where clouds are read."""
        if self.reads == "scene":
            rows = encoded.scene
        elif self.reads == "point":
            rows = encoded.rows()
        else:
            scene = encoded.scene[encoded.batch.batch_index]  # (B, D) -> (N, D)
            rows = torch.cat([encoded.rows(), scene.to(encoded.rows().dtype)], dim=1)
        logits: Tensor = self.layers(rows)
        return logits
