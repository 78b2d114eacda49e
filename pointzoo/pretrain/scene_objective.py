"""What the trainers of scene encoders share: pairs of points, the optimizer, schedules, health.

Shape legend: P pairs, C channels.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo import metrics
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.ops.sparse.core import fast
from pointzoo.pretrain import losses
from pointzoo.pretrain.matching import match_points
from pointzoo.pretrain.objective import Clock, Objective, TrainingConfig
from pointzoo.pretrain.scene_batch import SceneBatch
from pointzoo.pretrain.schedules import cosine_schedule, one_cycle_schedule

HEALTH_RADIUS = 3.0
"""Metres around the middle of a scene that a health check encodes, to be cheap on large scans."""


@dataclass(frozen=True)
class SceneTrainingConfig(TrainingConfig):
    """Settings that do not depend on how the two views of a scene come about.

    Attributes:
        match_radius: Matched points are nearer than this, metres.
        match_neighbours: A partner is drawn among that many nearest points within the radius.
        max_pairs: Largest number of positive pairs of a process and step.
        temperature: tau of InfoNCE.
        learning_rate: Peak rate of SGD with Nesterov momentum.
        momentum: Of SGD, where it is not cycled.
        schedule: ``cosine`` with a linear warm-up (MSC Table 5), or ``one_cycle`` (Pointcept).
        cycle_momentum: Highest and lowest momentum of ``one_cycle``, in place of ``momentum``.
        warmup: Share of the run until the peak rate.
        final_learning_rate: Rate at the end.
        weight_decay: On all parameters, norms and mask token included.
        clip_gradient: Largest norm of the gradient of all parameters; None: any (the papers).
    """

    match_radius: float = 0.03
    match_neighbours: int = 8
    max_pairs: int = 8192
    temperature: float = 0.4
    learning_rate: float = 0.1
    momentum: float = 0.8
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    cycle_momentum: tuple[float, float] | None = None
    warmup: float = 0.01
    final_learning_rate: float = 1e-6
    weight_decay: float = 1e-4
    clip_gradient: float | None = None

    def __post_init__(self) -> None:
        """Check the values that would otherwise fail late or silently.

        Raises:
            ConfigError: A number is out of range or the schedule unknown.
        """
        super().__post_init__()
        positive = (self.match_radius, self.temperature, self.momentum, self.learning_rate)
        counts = (self.match_neighbours, self.max_pairs)
        fine = min(positive) > 0.0 and min(counts) >= 1 and 0.0 <= self.warmup <= 1.0
        if not fine or self.schedule not in ("cosine", "one_cycle"):
            raise ConfigError(
                expected="positive radius, temperature, momentum, rate and counts, a warm-up from"
                " 0 to 1, and schedule 'cosine' or 'one_cycle'",
                got=f"{positive}, {counts}, {self.warmup}, {self.schedule!r}",
                fix="Correct the setting; the presets hold those of the papers.",
            )


class SceneObjective(Objective, ABC):
    """Base of the trainers that contrast points of two views of a scene.

    Attributes:
        network: The encoder, as its attribute ``encoder``, with whatever is trained beside it.
    """

    config: SceneTrainingConfig
    health_clouds: ClassVar[int] = 32
    network: nn.Module

    @property
    def trainable(self) -> nn.Module:
        """Encoder and heads."""
        return self.network

    @property
    def exported(self) -> PointEncoder:
        """The encoder."""
        encoder = self.network.encoder
        assert isinstance(encoder, PointEncoder)
        return encoder

    def pairs_of(
        self, batch: SceneBatch, generator: torch.Generator, *, max_pairs: int | None = None
    ) -> Tensor:
        """Match the points of the two views; (P, 2) rows of query and key."""
        query, key = batch.query, batch.key
        return match_points(
            query.origin,
            query.offsets,
            key.origin,
            key.offsets,
            radius=self.config.match_radius,
            neighbours=self.config.match_neighbours,
            max_pairs=max_pairs or self.config.max_pairs,
            generator=generator,
        )

    def network_input(self, features: Tensor) -> Tensor:
        """Turn features of views, colours in 0..1, into what ``forward_voxels`` reads."""
        change = getattr(self.exported, "network_input", None)
        return features if change is None else change(features)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group: everything decays, as in Pointcept."""
        parameters = [p for p in self.trainable.parameters() if p.requires_grad]
        return [{"params": parameters, "decays": True}]

    def optimizer(self) -> torch.optim.Optimizer:
        """Build SGD with Nesterov momentum (MSC Table 5)."""
        return torch.optim.SGD(
            self.parameter_groups(), lr=0.0, momentum=self.config.momentum, nesterov=True
        )

    def schedule(self, step: int, clock: Clock) -> dict[str, float]:
        """Return learning rate, weight decay and momentum of a step (MSC Table 5)."""
        config, total = self.config, clock.total_steps
        peak, end, warmup = config.learning_rate, config.final_learning_rate, config.warmup
        momentum = config.momentum
        if config.schedule == "cosine":
            rate = cosine_schedule(step, total, peak, end, warmup=int(warmup * total))
        else:
            rate = one_cycle_schedule(step, total, peak / 10, peak, end, warmup=warmup)
            if config.cycle_momentum is not None:
                high, low = config.cycle_momentum
                momentum = one_cycle_schedule(step, total, high, low, high, warmup=warmup)
        return {"lr": rate, "weight_decay": config.weight_decay, "momentum": momentum}

    def after_backward(self, step: int, clock: Clock) -> None:  # noqa: ARG002  # one rule always
        """Clip the gradient where that is asked for."""
        if self.config.clip_gradient is not None:
            nn.utils.clip_grad_norm_(self.trainable.parameters(), self.config.clip_gradient)

    def after_step(self, step: int, clock: Clock) -> None:
        """Do nothing: there is no teacher."""

    def bfloat16_pays(self) -> bool | None:
        """Say whether sparse convolutions are faster in bfloat16 on this CPU; on CUDA None."""
        return None if torch.cuda.is_available() else fast(torch.bfloat16)

    def look_at(self, cloud: PointCloud) -> PointCloud:
        """Return what lies around the middle of a scene (:data:`HEALTH_RADIUS`)."""
        away = cloud.coords[:, :2] - np.median(cloud.coords[:, :2], axis=0)
        squared = (away**2).sum(axis=1)
        return cloud.select(squared <= max(HEALTH_RADIUS**2, float(squared.min())))

    def collapsed(self, health: Mapping[str, float]) -> str | None:
        """Say why the representation is dead, or None."""
        if min(health["point_rank"], health["effective_rank"]) < 1.5:
            return "all features lie on a line"
        if health["negative_cosine"] > 0.99:
            return "all points have the same feature"
        return None


def pair_health(query: Tensor, key: Tensor) -> dict[str, float]:
    """Measure the features of pairs.

    Args:
        query: (P, C) features of one view.
        key: (P, C) features of the matched points of the other view.

    Returns:
        ``positive_cosine`` and ``negative_cosine``, the means over matched and over other points,
        ``point_rank``, the effective rank of the query features, and ``pairs``, P. With fewer than
        two pairs there is nothing to measure: cosines 0, rank C.
    """
    if len(query) < 2:
        nothing = {"positive_cosine": 0.0, "negative_cosine": 0.0}
        return {**nothing, "point_rank": float(query.shape[1]), "pairs": float(len(query))}
    positive, negative = losses.pair_cosines(query, key)
    sample = query.detach()[:: max(len(query) // 1024, 1)]
    return {
        "positive_cosine": positive,
        "negative_cosine": negative,
        "point_rank": metrics.effective_rank(sample),
        "pairs": float(len(query)),
    }


def require_voxels(encoder: PointEncoder, grid_size: float) -> None:
    """Refuse an encoder that cannot be trained on views of a scene.

    Args:
        encoder: The encoder.
        grid_size: Edge of the voxels of the views, metres.

    Raises:
        ConfigError: It does not read voxels, reads neither colours nor normals, or has voxels of
            another size.
    """
    if not hasattr(encoder, "forward_voxels") or not encoder.config.channels:
        raise ConfigError(
            expected="an encoder of voxels that reads colours or normals",
            got=f"{type(encoder).__name__} with channels {encoder.config.channels}",
            fix="Use sparseunet14 or another of its family.",
        )
    own = getattr(encoder.config, "grid_size", grid_size)
    if own != grid_size:
        raise ConfigError(
            expected=f"an encoder with voxels of {grid_size:g} m, as the views have",
            got=f"{own:g} m",
            fix="Build it with that grid_size, or set views.grid_size.",
        )
