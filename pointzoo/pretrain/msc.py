"""Masked Scene Contrast: contrast and reconstruction between two masked views of a scene.

Paper: X. Wu et al., arXiv 2303.14191. Where paper and released code (Pointcept @ d74c646, config
``pretrain-msc-v1m1-0-spunet-base``) differ, a setting says so and :data:`PRESETS` hold both.

Shape legend: B scenes, M points of all views of one side, C values that the network reads, P pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.voxelize import VoxelGeometry
from pointzoo.errors import CloudError, ConfigError
from pointzoo.features import evaluating
from pointzoo.pretrain import losses
from pointzoo.pretrain.loop import RunResult, train
from pointzoo.pretrain.masks import cross_masks, mix_offsets
from pointzoo.pretrain.scene_batch import SceneBatch, ViewBatch, collate_views
from pointzoo.pretrain.scene_objective import (
    SceneObjective,
    SceneTrainingConfig,
    pair_health,
    require_voxels,
)
from pointzoo.pretrain.scene_views import SceneAugmentation, SceneView, scene_views


@dataclass(frozen=True)
class MSCConfig(SceneTrainingConfig):
    """Settings of the trainer; the defaults are the paper's.

    Attributes:
        views: View generation (section 4.1, Table 4), the voxel size included.
        mask_rate: r of section 4.2, share of the patches that each view hides, up to 0.5.
        mask_size: Edge of a patch, metres (Table 1f; the code uses 0.1).
        mix_query: Probability that the query views of a batch are mixed in pairs (Fig. 4).
        mix_key: The same for the key views.
        pair_masked: Whether masked points take part in pairs (as in the code).
        contrast_weight: Weight of Eq. 2 in Eq. 6.
        contrast_divisor: By which the contrastive loss is divided once more. The released code
            divides its gradient by the number of processes on top of averaging over them: its 8
            GPUs make 8.
        color_weight: Weight of Eq. 4 in Eq. 6.
        normal_weight: Weight of Eq. 5 in Eq. 6; 0 leaves the head out (as the released config).
        color_target: Colours to reconstruct: ``original`` (section 4.2) or those of the
            ``augmented`` view (the code).
    """

    views: SceneAugmentation = field(default_factory=SceneAugmentation)
    mask_rate: float = 0.3
    mask_size: float = 0.15
    mix_query: float = 0.8
    mix_key: float = 0.0
    pair_masked: bool = True
    contrast_weight: float = 1.0
    contrast_divisor: int = 1
    color_weight: float = 1.0
    normal_weight: float = 1.0
    color_target: Literal["original", "augmented"] = "original"

    def __post_init__(self) -> None:
        """Check the values that would otherwise fail late or silently.

        Raises:
            ConfigError: A number is out of range or a word unknown.
        """
        super().__post_init__()
        shares = (2 * self.mask_rate, self.mix_query, self.mix_key)
        fine = min(shares) >= 0.0 and max(shares) <= 1.0
        fine = fine and self.mask_size > 0.0 and self.contrast_divisor >= 1
        if not fine or self.color_target not in ("original", "augmented"):
            raise ConfigError(
                expected="probabilities from 0 to 1, mask_rate to 0.5, a positive mask_size and"
                " contrast_divisor, and color_target 'original' or 'augmented'",
                got=f"{shares}, {self.mask_size}, {self.contrast_divisor}, {self.color_target!r}",
                fix="Correct the setting; PRESETS hold those of the paper and of the code.",
            )


PRESETS: Mapping[str, MSCConfig] = MappingProxyType(
    {
        "paper": MSCConfig(epochs=600, batch_size=32, precision="fp32"),
        "pointcept": MSCConfig(
            epochs=600,
            batch_size=32,
            precision="fp32",
            mask_rate=0.4,
            mask_size=0.1,
            contrast_divisor=8,
            normal_weight=0.0,
            color_target="augmented",
            schedule="one_cycle",
            cycle_momentum=(0.95, 0.85),
        ),
        "cpu": MSCConfig(
            epochs=30,
            batch_size=4,
            views=SceneAugmentation(grid_size=0.05, radius=2.0, channel_dropout=0.2),
            mask_size=0.25,
            match_radius=0.075,
            max_pairs=4096,
            temperature=0.1,
            schedule="one_cycle",
            cycle_momentum=(0.95, 0.85),
            warmup=0.05,
            clip_gradient=10.0,
        ),
    }
)
"""``paper``: section 5 and Tables 4, 5. ``pointcept``: the released config. ``cpu``: coarser
voxels, smaller scenes with lengths to match and a lower temperature (docs/decisions/0013), sized
for an hour or two on a core."""


class MSCNetwork(nn.Module):
    """Encoder, mask token and reconstruction heads."""

    def __init__(self, encoder: PointEncoder, *, normals: bool) -> None:
        """Draw token (truncated normal, std 0.02) and heads."""
        super().__init__()
        self.encoder: Any = encoder  # with forward_voxels
        self.mask_token = nn.Parameter(torch.empty(1, 3 * len(encoder.config.channels)))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.color_head = nn.Linear(encoder.out_channels, 3)
        self.normal_head = nn.Linear(encoder.out_channels, 3) if normals else None

    def forward(
        self, views: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Encode views one after the other (each with batch statistics of its own).

        Args:
            views: Cells (M, 3), features (M, C), offsets and mask (M,) of each side.

        Returns:
            Point features, colours and normals of the masked points of each side, float32.
        """
        return [self._one(*view) for view in views]

    def _one(
        self, cells: Tensor, features: Tensor, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        shown = torch.where(mask[:, None], self.mask_token.to(features), features)  # Eq. 3
        points: Tensor = self.encoder.forward_voxels(cells, shown, offsets)
        hidden = points[mask]
        normals = None if self.normal_head is None else self.normal_head(hidden).float()
        return points.float(), self.color_head(hidden).float(), normals


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a network makes of the hidden part of a scene (Fig. 5).

    Attributes:
        coords: (M, 3) float32, the middle of the points of each voxel, metres, centred.
        colors: (M, 3) float32 in 0..1, what was there.
        mask: (M,) whether a voxel was hidden.
        predicted: (M, 3) float32 in 0..1, ``colors`` with the hidden ones as the network sees them.
    """

    coords: FloatArray
    colors: FloatArray
    mask: NDArray[np.bool_]
    predicted: FloatArray


class MSC(SceneObjective):
    """Encoder, heads, and one training step (Fig. 3)."""

    config: MSCConfig

    def __init__(self, encoder: PointEncoder, config: MSCConfig) -> None:
        """Put token and heads on an encoder; they are drawn from the seed.

        Raises:
            ConfigError: The encoder does not read voxels, reads neither colours nor normals, or has
                voxels of another size than the views.
        """
        super().__init__(config)
        require_voxels(encoder, config.views.grid_size)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.network = MSCNetwork(encoder, normals=config.normal_weight > 0.0)

    def prepare(
        self, cloud: PointCloud, generator: np.random.Generator
    ) -> tuple[SceneView, SceneView]:
        """Make the two views of a scene."""
        return scene_views(cloud, self.config.views, generator)

    def collate(self, samples: Sequence[tuple[SceneView, SceneView]]) -> SceneBatch:
        """Put the views of several scenes into one batch."""
        original = self.config.color_target == "original"
        return collate_views(samples, self.exported.config.channels, source_colors=original)

    def loss(
        self, batch: SceneBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Run one step up to the loss of Eq. 6."""
        started = time.perf_counter()
        masks = self._masks(batch, generator)
        pairs = self._pairs(batch, masks, generator)
        offsets = self._offsets(batch, generator)
        seconds = time.perf_counter() - started
        sides = (batch.query, batch.key)
        shown = [
            (side.cells, self.network_input(side.features), offset, mask)
            for side, offset, mask in zip(sides, offsets, masks, strict=True)
        ]
        with self.runtime.autocast():
            made = self.run_trainable(shown)
        query, key = made[0][0][pairs[:, 0]], made[1][0][pairs[:, 1]]
        contrast = losses.info_nce(query, key, temperature=self.config.temperature)
        color, normal = self._reconstruction(sides, masks, made)
        config = self.config
        weighted = config.contrast_weight * contrast / config.contrast_divisor
        total = weighted + config.color_weight * color + config.normal_weight * normal
        parts = torch.stack([contrast, color, normal]).detach()
        contrast, color, normal = self.runtime.reduce_mean(parts)
        return total, {
            "contrast_loss": float(contrast),
            "color_loss": float(color),
            "normal_loss": float(normal),
            **pair_health(query, key),
            "views_seconds": seconds,
        }

    def _masks(self, batch: SceneBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        query, key = batch.query, batch.key
        return cross_masks(
            query.origin,
            query.offsets,
            key.origin,
            key.offsets,
            grid_size=self.config.mask_size,
            rate=self.config.mask_rate,
            generator=generator,
        )

    def _pairs(
        self, batch: SceneBatch, masks: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> Tensor:
        if self.config.pair_masked:
            return self.pairs_of(batch, generator)
        pairs = self.pairs_of(batch, generator, max_pairs=len(batch.query.origin))
        pairs = pairs[~(masks[0][pairs[:, 0]] | masks[1][pairs[:, 1]])]
        order = torch.randperm(len(pairs), generator=generator, device=generator.device)
        return pairs[order[: self.config.max_pairs].to(pairs.device)]

    def _offsets(self, batch: SceneBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mix the views of one side or the other (Fig. 4)."""
        draw = torch.rand(2, generator=generator, device=generator.device).tolist()
        query, key = batch.query.offsets, batch.key.offsets
        return (
            mix_offsets(query) if draw[0] < self.config.mix_query else query,
            mix_offsets(key) if draw[1] < self.config.mix_key else key,
        )

    def _reconstruction(
        self,
        sides: tuple[ViewBatch, ViewBatch],
        masks: tuple[Tensor, Tensor],
        made: Sequence[tuple[Tensor, Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor]:
        """Return Eq. 4 and Eq. 5 over the masked points of both views."""
        wanted = [
            (v.colors[m], v.normals[m], v.colored[m]) for v, m in zip(sides, masks, strict=True)
        ]
        colors, normals, colored = map(torch.cat, zip(*wanted, strict=True))
        predicted = torch.cat([side[1] for side in made])
        color = losses.masked_color_loss(predicted[colored], self._network_colors(colors[colored]))
        heads = [side[2] for side in made if side[2] is not None]
        if not heads:
            return color, color.new_zeros(())
        return color, losses.masked_normal_loss(torch.cat(heads), normals)

    @torch.inference_mode()
    def reconstruct(self, cloud: PointCloud, generator: torch.Generator) -> Reconstruction:
        """Hide patches of a whole scene and reconstruct their colours, in evaluation mode (Fig. 5).

        Args:
            cloud: A scene with colours.
            generator: Chooses the patches; ``mask_rate`` of them.

        Raises:
            CloudError: The cloud has no colours, is empty or not finite.
        """
        if cloud.colors is None:
            raise CloudError(
                expected="a scene with colours", got="none", fix="Read one that has them."
            )
        network, config = self.network, self.config
        batch = PointBatch.collate(*([part] for part in self.exported.preprocess(cloud)))
        voxels: VoxelGeometry = self.exported.geometry(batch)
        coords, offsets = voxels.mean(batch.coords), voxels.grid.offsets
        colors = voxels.mean(torch.tensor(cloud.colors))
        mask, _ = cross_masks(
            coords, offsets, coords, offsets,
            grid_size=config.mask_size, rate=config.mask_rate, generator=generator,
        )  # fmt: skip
        features = self.network_input(voxels.mean(batch.features))
        with evaluating(network):
            ((_, hidden, _),) = network([(voxels.grid.coords, features, offsets, mask)])
        if self._signed:
            hidden = hidden / 2 + 0.5
        predicted = colors.clone()
        predicted[mask] = hidden.clamp(0.0, 1.0)
        return Reconstruction(coords.numpy(), colors.numpy(), mask.numpy(), predicted.numpy())

    def _network_colors(self, colors: Tensor) -> Tensor:
        """Return colours 0..1 in the range that the encoder takes them in."""
        return colors * 2.0 - 1.0 if self._signed else colors

    @property
    def _signed(self) -> bool:
        return getattr(self.exported.config, "color_range", "0..1") == "-1..1"


def run(
    config: MSCConfig,
    data: PointDataset,
    out: Path,
    *,
    encoder: PointEncoder,
    resume: bool = False,
) -> RunResult:
    """Pretrain an encoder with MSC; see :func:`pointzoo.pretrain.loop.train`.

    Args:
        config: The settings, for example ``PRESETS["cpu"]``.
        data: Scenes, z up, in metres; labels are not looked at.
        out: Folder for checkpoint, log and weights; made if missing.
        encoder: The network to train, with its initial weights.
        resume: Go on from the checkpoint in ``out``.

    Raises:
        ConfigError: The encoder does not fit, the data set is smaller than a batch, or ``out``
            holds another run.
        CollapseError: The representation collapsed.
    """
    return train(MSC(encoder, config), data, out, resume=resume)
