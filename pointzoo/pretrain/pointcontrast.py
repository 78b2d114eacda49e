"""PointContrast: contrast between the matched points of two RGB-D frames of a room.

The baseline that MSC (arXiv 2303.14191, Table 1a) measures itself against. Paper: S. Xie et al.,
arXiv 2007.10985; code facebookresearch/PointContrast @ 47e8682. Encoder, view sampling, matching,
optimizer, schedule and health are those of :mod:`pointzoo.pretrain.msc`.

Shape legend: B pairs of frames, M points of all frames of one side, P pairs of points, C channels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import CloudError, ConfigError
from pointzoo.pretrain import losses
from pointzoo.pretrain.loop import RunResult, train
from pointzoo.pretrain.photometric import ColorJitter
from pointzoo.pretrain.scene_batch import SceneBatch, collate_views
from pointzoo.pretrain.scene_objective import (
    SceneObjective,
    SceneTrainingConfig,
    pair_health,
    require_voxels,
)
from pointzoo.pretrain.scene_views import (
    Scene,
    SceneAugmentation,
    SceneView,
    make_scene,
    make_view,
)

FRAMES = SceneAugmentation(
    scale=(1.0, 1.0),
    tilt=0.0,
    flip=0.0,
    jitter_sigma=0.0,
    colors=ColorJitter(probability=0.0, noise_probability=0.0),
    crop=1.0,
)
"""Changes of a frame: turned about z and put on a grid, nothing else. The released code turns about
any axis; frames of composed rooms, like the scans of downstream tasks, know where up is."""


@dataclass(frozen=True)
class PointContrastConfig(SceneTrainingConfig):
    """Settings of the trainer; the defaults are those of the released code at 2 cm.

    Attributes:
        views: Random changes of each frame, the voxel size included.
        loss: ``nce`` (PointInfoNCE) or ``hardest`` (hardest-contrastive), section 3.3.
        positive_margin: Of ``hardest``: squared distance that a pair may keep.
        negative_margin: Of ``hardest``: distance that the hardest negative must keep.
    """

    views: SceneAugmentation = FRAMES
    max_pairs: int = 4096
    loss: Literal["nce", "hardest"] = "nce"
    positive_margin: float = 0.1
    negative_margin: float = 1.4

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A number is out of range or the loss unknown.
        """
        super().__post_init__()
        margins = (self.positive_margin, self.negative_margin)
        if self.loss not in ("nce", "hardest") or min(margins) < 0.0 or self.views.radius:
            raise ConfigError(
                expected="loss 'nce' or 'hardest', margins of at least 0, whole frames",
                got=f"{self.loss!r}, {margins}, radius {self.views.radius}",
                fix="Correct the setting.",
            )


PRESETS: Mapping[str, PointContrastConfig] = MappingProxyType(
    {
        "paper": PointContrastConfig(epochs=5, batch_size=32, precision="fp32"),
        "cpu": PointContrastConfig(
            epochs=1,
            batch_size=8,
            views=dataclasses.replace(FRAMES, grid_size=0.05, channel_dropout=0.2),
            match_radius=0.075,
            temperature=0.1,
            schedule="one_cycle",
            cycle_momentum=(0.95, 0.85),
            warmup=0.05,
            clip_gradient=10.0,
        ),
    }
)
"""``paper``: as Table 1a of MSC lists it. ``cpu``: with the voxels and the optimizer of
MSC's preset of that name."""


class TwoViews(nn.Module):
    """The encoder, called on one side after the other (each with batch statistics of its own)."""

    def __init__(self, encoder: PointEncoder) -> None:
        """Keep the encoder."""
        super().__init__()
        self.encoder: Any = encoder  # with forward_voxels

    def forward(self, views: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        """Encode cells (M, 3), features (M, C) and offsets of each side; float32 (M, D) each."""
        return [self.encoder.forward_voxels(*view).float() for view in views]


class PointContrast(SceneObjective):
    """Encoder and one training step."""

    config: PointContrastConfig

    def __init__(self, encoder: PointEncoder, config: PointContrastConfig) -> None:
        """Keep the encoder.

        Raises:
            ConfigError: The encoder does not read voxels, reads neither colours nor normals, or has
                voxels of another size than the views.
        """
        super().__init__(config)
        require_voxels(encoder, config.views.grid_size)
        self.network = TwoViews(encoder)

    def prepare(
        self, cloud: PointCloud, generator: np.random.Generator
    ) -> tuple[SceneView, SceneView]:
        """Make a view of each frame of a pair.

        Raises:
            CloudError: The cloud does not say which frame its points belong to.
        """
        if "frame" not in cloud.fields:
            raise CloudError(
                expected="a pair of frames: a field 'frame' of 0 and 1",
                got=f"fields {sorted(cloud.fields)}",
                fix="Open the data with pointzoo.pretrain.frame_pairs.open_frame_pairs.",
            )
        change, side = self.config.views, cloud.fields["frame"]
        scene = make_scene(cloud, change, generator)
        query, key = (make_view(_part(scene, side == frame), change, generator) for frame in (0, 1))
        return query, key

    def collate(self, samples: Sequence[tuple[SceneView, SceneView]]) -> SceneBatch:
        """Put the views of several pairs into one batch."""
        return collate_views(samples, self.exported.config.channels, source_colors=False)

    def loss(
        self, batch: SceneBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Run one step up to the loss of section 3.3."""
        started = time.perf_counter()
        pairs = self.pairs_of(batch, generator)
        seconds = time.perf_counter() - started
        shown = [
            (side.cells, self.network_input(side.features), side.offsets)
            for side in (batch.query, batch.key)
        ]
        with self.runtime.autocast():
            made = self.run_trainable(shown)
        query, key = made[0][pairs[:, 0]], made[1][pairs[:, 1]]
        if self.config.loss == "nce":
            loss = losses.info_nce(query, key, temperature=self.config.temperature)
        else:
            loss = self._hardest(query, key, self._matching(batch, pairs))
        return loss, {
            "contrast_loss": float(self.runtime.reduce_mean(loss.detach())),
            **pair_health(query, key),
            "views_seconds": seconds,
        }

    def _matching(self, batch: SceneBatch, pairs: Tensor) -> Tensor:
        """Return (P, P) whether a query and a key are too near to be a negative."""
        places = []
        for side, rows in zip((batch.query, batch.key), pairs.T, strict=True):
            cloud = torch.searchsorted(side.offsets, rows.contiguous(), right=True)
            apart = cloud[:, None] * 1e4  # metres: the pairs of frames of a batch do not match
            places.append(side.origin[rows].double() + apart)
        return torch.cdist(places[0], places[1]) < self.config.match_radius

    def _hardest(self, query: Tensor, key: Tensor, matching: Tensor) -> Tensor:
        if len(query) < 2:
            return losses.info_nce(query, key, temperature=1.0)
        with torch.no_grad():
            unit = [nn.functional.normalize(side, dim=1) for side in (query, key)]
            likeness = (unit[0] @ unit[1].T).masked_fill(matching, -2.0)  # (P, P)
        return losses.hardest_contrastive(
            query,
            key,
            query[likeness.argmax(0)],
            key[likeness.argmax(1)],
            positive_margin=self.config.positive_margin,
            negative_margin=self.config.negative_margin,
        )


def _part(scene: Scene, rows: NDArray[np.bool_]) -> Scene:
    """Return some points of a scene, in its frame."""
    colors = None if scene.colors is None else scene.colors[rows]
    coords = np.ascontiguousarray(scene.coords[:, rows])
    return Scene(coords, colors, scene.normals[rows])


def run(
    config: PointContrastConfig,
    data: PointDataset,
    out: Path,
    *,
    encoder: PointEncoder,
    resume: bool = False,
) -> RunResult:
    """Pretrain an encoder with PointContrast; see :func:`pointzoo.pretrain.loop.train`.

    Args:
        config: The settings, for example ``PRESETS["cpu"]``.
        data: Pairs of frames, see :func:`pointzoo.pretrain.frame_pairs.open_frame_pairs`.
        out: Folder for checkpoint, log and weights; made if missing.
        encoder: The network to train, with its initial weights.
        resume: Go on from the checkpoint in ``out``.

    Raises:
        ConfigError: The encoder does not fit, the data set is smaller than a batch, or ``out``
            holds another run.
        CollapseError: The representation collapsed.
    """
    return train(PointContrast(encoder, config), data, out, resume=resume)
