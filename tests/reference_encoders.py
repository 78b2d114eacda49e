"""Two small healthy encoders that keep every promise, one without and one with tokens.

Shape legend: B clouds, N points, C point channels, T tokens, K neighbours, H heads, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, Level, PointEncoder


@dataclass(frozen=True)
class PointwiseConfig(EncoderConfig):
    """Settings of :class:`Pointwise`."""

    width: int = 8
    max_points: int = 8192  # without effect: every point is computed on its own


class Pointwise(PointEncoder):
    """A pointwise MLP; every point also sees the mean and the maximum of its cloud."""

    config_class: ClassVar[type[EncoderConfig]] = PointwiseConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=False, class_attention=False, subsamples=True
    )
    config: PointwiseConfig

    def __init__(self, config: PointwiseConfig) -> None:
        width = config.width
        super().__init__(config, out_channels=width, scene_channels=2 * width)
        self.embed = nn.Sequential(
            nn.Linear(self.in_channels, width),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.scene_head = nn.Linear(2 * width, 2 * width)
        self.point_head = nn.Linear(3 * width, width)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        self.check_channels(batch)
        rows = self.rows(batch)
        scene = self.scene_head(self.pool(rows, batch))  # (B, 2 W)
        point = None
        if points:
            point = self.point_head(torch.cat([rows, scene[batch.batch_index]], dim=1))
        return EncoderOutput(scene, point)

    def rows(self, batch: PointBatch) -> Tensor:
        """Embed every point on its own, (N, W)."""
        embedded: Tensor = self.embed(torch.cat([batch.coords, batch.features], dim=1))
        return embedded

    def pool(self, rows: Tensor, batch: PointBatch) -> Tensor:
        """Pool the points of each cloud, (B, 2 W)."""
        groups = batch.split(rows)
        return torch.stack([torch.cat([g.mean(dim=0), g.amax(dim=0)]) for g in groups])


class Extremes(Pointwise):
    """Tokens are the lowest and the highest point of a cloud, seen with their K neighbours."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=True, class_attention=True, subsamples=True, levels=True
    )
    neighbours = 4
    heads = 2

    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.width, self.heads)
        self.token_head = nn.Linear(config.width, config.width)

    def geometry(self, batch: PointBatch) -> Tensor:
        """Return the rows of the neighbours of the tokens, (T, K), each token's own row first."""
        members, start = [], 0
        for coords in batch.split(batch.coords):
            chosen = coords[[int(coords[:, 2].argmin()), int(coords[:, 2].argmax())]]
            order = torch.cdist(chosen, coords).argsort(dim=1, stable=True)
            column = torch.arange(self.neighbours, device=order.device) % len(coords)
            members.append(order[:, column] + start)
            start += len(coords)
        return torch.cat(members)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        self.check_channels(batch)
        members = self.geometry(batch) if geometry is None else geometry
        rows = self.rows(batch)
        tokens = self.token_head(rows[members].mean(dim=1))  # (T, K, W) -> (T, W)
        pairs = tokens.view(batch.num_clouds, 2, -1)
        weights = self.attend(tokens, batch)  # (B, H, T_b)
        mixed = (weights @ pairs).mean(dim=1)  # (B, W)
        scene = self.scene_head(self.pool(rows, batch) + torch.cat([mixed, mixed], dim=1))
        point = None
        if points:
            point = self.point_head(torch.cat([rows, scene[batch.batch_index]], dim=1))
        offsets = torch.arange(2, 2 * batch.num_clouds + 1, 2, device=tokens.device)
        levels = (self.level(rows, batch, 1), self.level(rows, batch, 2))
        return EncoderOutput(scene, point, tokens, batch.coords[members[:, 0]], offsets, levels)

    def level(self, rows: Tensor, batch: PointBatch, stride: int) -> Level:
        """Average the points of each voxel."""
        edge = 0.3 * stride
        low = torch.stack([coords.amin(dim=0) for coords in batch.split(batch.coords)])
        low = low[batch.batch_index]
        sample = ops.grid_sample(batch.coords.double() - low.double(), batch.offsets, edge)
        features = ops.segment_reduce(rows, sample.inverse, len(sample.index), "mean")
        centres = low[sample.index] + (sample.grid_coords.to(low) + 0.5) * edge
        return Level(features, centres, sample.grid_coords, sample.offsets, stride)

    def attend(self, tokens: Tensor, batch: PointBatch) -> Tensor:
        """Weigh the tokens of each cloud and the class token (score 0), which is then dropped."""
        scores = self.score(tokens).view(batch.num_clouds, 2, self.heads).transpose(1, 2)
        own = scores.new_zeros(*scores.shape[:2], 1)
        return torch.cat([scores, own], dim=2).softmax(dim=2)[..., :2]

    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        """Return one (H, T_b) matrix per cloud."""
        output = self(batch, points=False)
        assert output.tokens is not None
        return tuple(self.attend(output.tokens, batch))
