"""DCGLR: distillation with contrast over global and local crops of object point clouds.

Paper: K. Fu et al., arXiv 2202.04241, section 3.2. No code was released; what the paper leaves out
follows facebookresearch/dino @ 7c446df and fukexue/POS-BERT @ d922651 (same first author).

Shape legend: I global views, J local-side views, B clouds, P points, K projector outputs.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo import transforms
from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.pretrain import losses, views
from pointzoo.pretrain.loop import RunResult, train
from pointzoo.pretrain.objective import Clock, Objective, TrainingConfig
from pointzoo.pretrain.schedules import cosine_schedule
from pointzoo.pretrain.views import Augmentation, ObjectClouds


@dataclass(frozen=True)
class DCGLRConfig(TrainingConfig):
    """Settings of the trainer; the defaults are the paper's, and DINO's where it is silent.

    Attributes:
        points: P, points drawn from every cloud.
        global_crops: I, at least 2.
        global_ratio: Share of the points in a global crop, Eq. 4.
        local_crops: Number of local crops.
        local_ratio: Share of the points in a local crop, Eq. 5.
        half_clouds: Clouds of half resolution (FPS) added to the local side.
        augmentation: Random changes of a view.
        projector_outputs: K.
        projector_hidden: Width of the projector's hidden layers.
        projector_bottleneck: Width before the last, weight-normalised layer.
        projector_norm: Batch normalisation in the projector's hidden layers (DINO's
            ``use_bn_in_head``). Networks whose scene features share a large common part (DGCNN and
            PCT pool what an activation made positive) stay at uniform targets without it.
        teacher_temperature: tau, sharpening.
        student_temperature: DINO's; the paper gives one tau only.
        center_momentum: q of Eq. 9.
        teacher_momentum: lambda of Eq. 13 at the start; it rises to 1 by a cosine.
        global_weight: Weight of Eq. 10 in Eq. 12.
        local_weight: Weight of Eq. 11 in Eq. 12.
        average: ``paper`` adds the two means (Eq. 12); ``dino`` takes one mean over all pairs.
        learning_rate: AdamW's peak rate for a batch of 256; scaled linearly with the batch.
        final_learning_rate: Rate at the end of the cosine, not scaled.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: At the start and at the end of its cosine; biases and 1-D tensors have none.
        clip_gradient: Largest norm of the gradient of each parameter tensor.
        freeze_last_epochs: Epochs in which the projector's last layer stays as it was drawn.
    """

    points: int = 2048
    global_crops: int = 2
    global_ratio: tuple[float, float] = (0.7, 1.0)
    local_crops: int = 8
    local_ratio: tuple[float, float] = (0.2, 0.5)
    half_clouds: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)
    projector_outputs: int = 512
    projector_hidden: int = 2048
    projector_bottleneck: int = 256
    projector_norm: bool = False
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    center_momentum: float = 0.9
    teacher_momentum: float = 0.996
    global_weight: float = 1.0
    local_weight: float = 1.0
    average: Literal["paper", "dino"] = "paper"
    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-6
    warmup_epochs: int = 10
    weight_decay: tuple[float, float] = (0.04, 0.4)
    clip_gradient: float = 3.0
    freeze_last_epochs: int = 1

    def __post_init__(self) -> None:
        """Check the values that would otherwise fail late or silently.

        Raises:
            ConfigError: A number is out of range.
        """
        super().__post_init__()
        counts = (self.global_crops - 2, self.local_crops, self.half_clouds, self.points - 2)
        if min(counts) < 0:
            raise ConfigError(
                expected="at least 2 global crops, no negative counts, at least 2 points",
                got=f"{self.global_crops}, {self.local_crops}, {self.half_clouds}, {self.points}",
                fix="The paper uses 2 global crops, 8 local crops, 2 half clouds and 2048 points.",
            )
        ratios = (self.global_ratio, self.local_ratio)
        if not all(0.0 < low <= high <= 1.0 for low, high in ratios):
            raise ConfigError(
                expected="crop ratios (low, high) with 0 < low <= high <= 1",
                got=f"{ratios}",
                fix="The paper uses (0.7, 1.0) and (0.2, 0.5).",
            )
        temperatures = (self.teacher_temperature, self.student_temperature)
        if min(temperatures) <= 0.0 or self.average not in ("paper", "dino"):
            raise ConfigError(
                expected="positive temperatures and average 'paper' or 'dino'",
                got=f"{temperatures}, {self.average!r}",
                fix="The paper sharpens with 0.04.",
            )


PRESETS: Mapping[str, DCGLRConfig] = MappingProxyType(
    {
        "paper": DCGLRConfig(epochs=300, batch_size=64),
        "cpu": DCGLRConfig(
            epochs=20,
            batch_size=32,
            points=1024,
            local_crops=4,
            augmentation=Augmentation(half_shift=0.2, rotation="independent"),
            projector_hidden=1024,
            teacher_momentum=0.99,
            learning_rate=4e-3,
            warmup_epochs=1,
        ),
    }
)
"""``paper``: section 4.1, batch and epochs from POS-BERT. ``cpu``: fewer points and crops, a
shorter and steeper schedule, sized for hours on a few cores."""


class Projector(nn.Module):
    """Projector of Eq. 6, 7: 3-layer MLP, L2 normalisation, weight-normalised linear layer."""

    def __init__(self, inputs: int, config: DCGLRConfig) -> None:
        """Build the layers with truncated-normal weights (std 0.02)."""
        super().__init__()
        hidden, bottleneck = config.projector_hidden, config.projector_bottleneck
        norm = [nn.BatchNorm1d(hidden)] if config.projector_norm else []
        self.mlp = nn.Sequential(
            nn.Linear(inputs, hidden),
            *norm,
            nn.GELU(),
            nn.Linear(hidden, hidden),
            *copy.deepcopy(norm),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last = nn.Parameter(torch.empty(config.projector_outputs, bottleneck))
        nn.init.trunc_normal_(self.last, std=0.02)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Project (R, D) to (R, K); the last layer's rows have length 1 (gain fixed at 1)."""
        x = nn.functional.normalize(self.mlp(x), dim=-1)
        return nn.functional.linear(x, nn.functional.normalize(self.last, dim=-1))


class Branch(nn.Module):
    """One branch of Fig. 2: an encoder and its projector."""

    def __init__(self, encoder: PointEncoder, config: DCGLRConfig) -> None:
        """Put a projector on the encoder's scene feature."""
        super().__init__()
        self.encoder = encoder
        self.projector = Projector(encoder.scene_channels, config)

    def forward(self, batches: Sequence[tuple[PointBatch, Any]]) -> Tensor:
        """Encode batches of clouds of different sizes, then project all rows at once.

        Args:
            batches: Each batch with its geometry.

        Returns:
            (R, K), the rows of all batches in order.
        """
        scenes = [self.encoder(batch, points=False, geometry=geo).scene for batch, geo in batches]
        projected: Tensor = self.projector(torch.cat(scenes))
        return projected


@dataclass(frozen=True, eq=False)
class Views:
    """What one step shows to the two branches.

    Attributes:
        globals_: The I global views, flat, view by view.
        locals_: Batches that hold the local crops and the half-resolution clouds, view by view;
            one batch if they have the same number of points.
    """

    globals_: PointBatch
    locals_: tuple[PointBatch, ...]


class DCGLR(Objective):
    """Student, teacher, centre, and one training step (Fig. 2)."""

    config: DCGLRConfig

    def __init__(self, encoder: PointEncoder, config: DCGLRConfig) -> None:
        """Start the teacher as a copy of the student (the paper draws it anew; DINO copies)."""
        super().__init__(config)
        self.student = Branch(encoder, config)
        self.teacher = copy.deepcopy(self.student).requires_grad_(requires_grad=False)
        self.register_buffer("center", torch.zeros(config.projector_outputs))
        self.center: Tensor

    @property
    def trainable(self) -> nn.Module:
        """The student."""
        return self.student

    @property
    def exported(self) -> PointEncoder:
        """The teacher's encoder, whose features downstream tasks use (section 3.2)."""
        return self.teacher.encoder

    def prepare(self, cloud: PointCloud, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw P points of a cloud and preprocess them as the encoder asks."""
        drawn = transforms.subsample(cloud, self.config.points, generator)
        return self.student.encoder.preprocess(drawn)

    def look_at(self, cloud: PointCloud) -> PointCloud:
        """Draw as many points for a health check as for training, the same in every check."""
        return transforms.subsample(cloud, self.config.points, np.random.default_rng(0))

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> ObjectClouds:
        """Stack clouds of equal size."""
        coords, features = zip(*samples, strict=True)
        return ObjectClouds(torch.stack(coords), torch.stack(features))

    def make_views(self, clouds: ObjectClouds, generator: torch.Generator) -> Views:
        """Cut the global and local crops and the half-resolution clouds (Eq. 4, 5, section 4.1)."""
        config, change = self.config, self.config.augmentation
        if change.rotation == "shared":
            clouds = self._turn(clouds, generator)
        groups = views.neighbour_groups(clouds)

        def crops(count: int, ratio: tuple[float, float]) -> ObjectClouds:
            noisy = views.jitter(clouds.views(count), change, generator)
            cut = views.ball_crops(noisy, groups.repeat(count, 1, 1), ratio, generator)
            if change.rotation == "independent":
                cut = self._turn(cut, generator)
            cut = views.rescale(cut, change.scale, self._channels, generator)
            return views.shift(cut, change.shift, generator)

        global_views = crops(config.global_crops, config.global_ratio)
        local_views = [crops(config.local_crops, config.local_ratio)] if config.local_crops else []
        if config.half_clouds:
            noisy = views.jitter(clouds.views(config.half_clouds), change, generator)
            half = views.half_resolution(noisy)
            if change.rotation == "independent":
                half = self._turn(half, generator)
            local_views.append(views.shift(half, change.half_shift, generator))
        return Views(global_views.batch(), _merge(local_views))

    def loss(
        self, batch: ObjectClouds, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Run one step up to the loss of Eq. 12, and move the centre (Eq. 9)."""
        config, clouds = self.config, len(batch.coords)
        started = time.perf_counter()
        made = self.make_views(batch, generator)
        geometry = self.student.encoder.geometry(made.globals_)
        shown = [(made.globals_, geometry)]
        shown += [(view, self.student.encoder.geometry(view)) for view in made.locals_]
        views_seconds = time.perf_counter() - started
        with self.runtime.autocast():
            with torch.no_grad():
                teacher = self.teacher([(made.globals_, geometry)]).float()
            student = self.run_trainable(shown).float()
        teacher = teacher.view(config.global_crops, clouds, -1)  # (I B, K) -> (I, B, K)
        student = student.view(-1, clouds, student.shape[-1])  # ((I + J) B, K) -> (I + J, B, K)
        global_loss, local_loss = losses.distillation_loss(
            teacher,
            student[: config.global_crops],
            student[config.global_crops :],
            self.center,
            teacher_temperature=config.teacher_temperature,
            student_temperature=config.student_temperature,
        )
        single, mean = losses.teacher_entropy(
            teacher, self.center, temperature=config.teacher_temperature
        )
        # the loss uses the old centre (DINO)
        moved = losses.update_center(self.center, teacher, momentum=config.center_momentum)
        self.center.copy_(self.runtime.reduce_mean(moved))
        total = self._combine(global_loss, local_loss, len(student) - config.global_crops)
        return total, {
            "global_loss": float(global_loss.detach()),
            "local_loss": float(local_loss.detach()),
            "teacher_entropy": single,
            "mean_target_entropy": mean,
            "center_norm": float(self.center.norm()),
            "views_seconds": views_seconds,
        }

    def _combine(self, global_loss: Tensor, local_loss: Tensor, local_views: int) -> Tensor:
        weighted = self.config.global_weight * global_loss, self.config.local_weight * local_loss
        if self.config.average == "paper":
            return weighted[0] + weighted[1]
        globals_ = self.config.global_crops
        pairs = globals_ * (globals_ - 1), globals_ * local_views
        return (weighted[0] * pairs[0] + weighted[1] * pairs[1]) / sum(pairs)

    def _turn(self, clouds: ObjectClouds, generator: torch.Generator) -> ObjectClouds:
        angle = views.uniform((len(clouds.coords),), -math.pi, math.pi, clouds.coords, generator)
        return views.rotate_z(clouds, angle, self._channels)

    @property
    def _channels(self) -> tuple[str, ...]:
        return self.student.encoder.config.channels

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Split the student's parameters: weight decay on matrices, none on 1-D tensors."""
        parameters = [p for p in self.student.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if p.ndim > 1], "decays": True},
            {"params": [p for p in parameters if p.ndim <= 1], "decays": False},
        ]

    def schedule(self, step: int, clock: Clock) -> dict[str, float]:
        """Return the learning rate and the weight decay of a step (section 4.1)."""
        config = self.config
        peak = config.learning_rate * clock.batch_size / 256
        warmup = min(config.warmup_epochs * clock.steps_per_epoch, clock.total_steps)
        return {
            "lr": cosine_schedule(
                step, clock.total_steps, peak, config.final_learning_rate, warmup=warmup
            ),
            "weight_decay": cosine_schedule(step, clock.total_steps, *config.weight_decay),
        }

    def after_backward(self, step: int, clock: Clock) -> None:
        """Clip each tensor's gradient, and hold the last layer in the first epochs."""
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, self.config.clip_gradient)
        if step < self.config.freeze_last_epochs * clock.steps_per_epoch:
            self.student.projector.last.grad = None

    @torch.no_grad()
    def after_step(self, step: int, clock: Clock) -> None:
        """Move the teacher's parameters towards the student's (Eq. 13); buffers stay its own."""
        momentum = cosine_schedule(step, clock.total_steps, self.config.teacher_momentum, 1.0)
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1.0 - momentum)

    def collapsed(self, health: Mapping[str, float]) -> str | None:
        """Say why the representation is dead, or None."""
        uniform = math.log(self.config.projector_outputs)
        if health["effective_rank"] < 1.5:
            return f"effective rank {health['effective_rank']:.2f}: all features lie on a line"
        if health["mean_target_entropy"] < 0.05:
            return "every cloud gets the same target"
        if health["teacher_entropy"] > 0.999 * uniform:
            hint = "" if self.config.projector_norm else "; projector_norm=True may help"
            return f"the teacher's targets are uniform{hint}"
        return None


def _merge(clouds: Sequence[ObjectClouds]) -> tuple[PointBatch, ...]:
    """Make one batch of all views if they have the same size, else one each."""
    if len({group.coords.shape[1] for group in clouds}) == 1:
        coords = torch.cat([group.coords for group in clouds])
        return (ObjectClouds(coords, torch.cat([group.features for group in clouds])).batch(),)
    return tuple(group.batch() for group in clouds)


def run(
    config: DCGLRConfig,
    data: PointDataset,
    out: Path,
    *,
    encoder: PointEncoder,
    resume: bool = False,
) -> RunResult:
    """Pretrain an encoder with DCGLR; see :func:`pointzoo.pretrain.loop.train`.

    Args:
        config: The settings, for example ``PRESETS["cpu"]``.
        data: Clouds of objects; labels, where present, are only used to watch kNN accuracy.
        out: Folder for checkpoint, log and weights; made if missing.
        encoder: The network to train, with its initial weights. It becomes the student.
        resume: Go on from the checkpoint in ``out``.

    Raises:
        ConfigError: The data set is smaller than a batch, or ``out`` holds another run.
        CollapseError: The representation collapsed.
    """
    return train(DCGLR(encoder, config), data, out, resume=resume)
