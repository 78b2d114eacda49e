"""Semantic segmentation: an encoder with a linear layer on its point features, trained as a whole.

AdamW on random crops of the labelled scenes for a fixed number of steps, the rate rising for a
tenth of them and then falling to 0 along a cosine. After the last step the batch statistics are
measured anew on the training scenes: those that were followed while training lag far behind after
some hundred steps (momentum 0.01). Every input of chance is a seed, so that runs from different
weights can be paired.

Shape legend: N points of a batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.metrics import class_iou, confusion_matrix, mean_iou
from pointzoo.tasks.recipes import Recipe, SceneChanges
from pointzoo.tasks.scenes import LabelledScene, change_scene, collate, crop
from pointzoo.tasks.supervised import decay_groups, use_amp, warm_cosine


@dataclass(frozen=True)
class SegmentationConfig:
    """Settings of the training.

    Attributes:
        steps: Steps of the optimiser.
        batch_size: Scenes per step.
        crop_points: Points of each that are seen: those nearest to a random labelled one.
        learning_rate: Largest rate.
        weight_decay: Of weight matrices; biases and norms have none.
        clip: Largest norm of the gradient.
        statistics: Crops whose batch statistics are averaged after the last step.
        amp: Compute in bfloat16 while training; None: where the CPU has matrix instructions for it
            (AMX) or the encoder is on a GPU.
        changes: Random changes of a scene.
    """

    steps: int = 120
    batch_size: int = 2
    crop_points: int = 12_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    clip: float = 3.0
    statistics: int = 8
    amp: bool | None = None
    changes: Recipe = field(default_factory=SceneChanges)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is out of range.
        """
        counts = (self.steps, self.batch_size, self.crop_points, self.statistics)
        if min(counts) < 1 or not self.learning_rate > 0 or not self.clip > 0:
            raise ConfigError(
                expected="at least 1 step, scene, point and crop; positive rate and clip",
                got=f"{counts}, {self.learning_rate}, {self.clip}",
                fix="Correct the setting.",
            )


@dataclass(frozen=True)
class SegmentationScore:
    """How well the points of a set were told apart.

    Attributes:
        miou: Mean intersection over union of the classes that occur, see
            :func:`pointzoo.metrics.mean_iou`.
        accuracy: Share of the labelled points that are right.
        iou: (K,) per class; None for one that does not occur.
    """

    miou: float
    accuracy: float
    iou: tuple[float | None, ...]

    @classmethod
    def of(cls, confusion: Tensor) -> SegmentationScore:
        """Summarise a (K, K) confusion matrix of all points.

        Raises:
            ConfigError: No point has a label.
        """
        per_class = [None if math.isnan(v) else v for v in class_iou(confusion).tolist()]
        miou = mean_iou(confusion)  # first: it refuses a set without labels
        accuracy = float(confusion.diagonal().sum() / confusion.sum())
        return cls(miou, accuracy, tuple(per_class))


class Segmenter(nn.Module):
    """An encoder with a linear layer on its point features."""

    def __init__(self, encoder: PointEncoder, classes: int) -> None:
        """Add the layer."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.out_channels, classes)

    def forward(self, batch: PointBatch) -> Tensor:
        """Return the logits (N, K) of all points."""
        features = self.encoder(batch, points=True).point
        logits: Tensor = self.head(features)
        return logits


def train_segmenter(
    encoder: PointEncoder,
    scenes: Sequence[LabelledScene],
    *,
    classes: int,
    config: SegmentationConfig,
    seed: int,
    after_step: Callable[[float], object] = lambda _: None,
) -> Segmenter:
    """Train an encoder and a linear layer on labelled scenes; the encoder itself is changed.

    Args:
        encoder: The encoder, on the device that is to be used.
        scenes: Prepared by :func:`pointzoo.tasks.scenes.load_scene`; may be a sequence that loads
            a scene when it is asked for.
        classes: K.
        config: Settings.
        seed: Of the layer, the order of the scenes, the crops and the changes.
        after_step: Called with the loss after every step.

    Returns:
        The trained network in evaluation mode.

    Raises:
        ConfigError: No point has a label.
    """
    generator = np.random.default_rng(seed)
    model = _with_head(encoder, classes, seed)
    amp = use_amp(config.amp, model.head.weight.device)
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(config.steps))
    order = _endless(scenes, generator)
    for _ in range(config.steps):
        chosen = [next(order) for _ in range(config.batch_size)]
        batch, labels = _draw(chosen, encoder.config.channels, config, generator)
        loss = train_step(model, optimizer, batch, labels, clip=config.clip, amp=amp)
        schedule.step()
        after_step(loss)
    seen = [next(order) for _ in range(config.statistics)]
    cut = (crop(scene, config.crop_points, generator) for scene in seen)
    device = model.head.weight.device
    measure_statistics(model, (collate([scene])[0].to(device) for scene in cut))
    return model.eval()


def train_step(
    model: Segmenter,
    optimizer: torch.optim.Optimizer,
    batch: PointBatch,
    labels: Tensor,
    *,
    clip: float,
    amp: bool = False,
) -> float:
    """Do one step of gradient descent on the mean cross-entropy of the labelled points.

    Args:
        model: In training mode.
        optimizer: Of its parameters.
        batch: N points.
        labels: (N,) int64, -1 for points that do not count; at least one counts.
        clip: Largest norm of the gradient.
        amp: Compute in bfloat16.

    Returns:
        The loss before the step.
    """
    device = model.head.weight.device
    known = (labels >= 0).nonzero()[:, 0].to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        logits = model(batch.to(device))[known]
    loss = nn.functional.cross_entropy(logits.float(), labels.to(device)[known])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return float(loss.detach())


def measure_statistics(model: nn.Module, batches: Iterable[PointBatch]) -> None:
    """Replace the running statistics of batch normalisations by those of some batches.

    Those that are in training mode count; modes and weights do not change.

    Args:
        model: Any network on batches.
        batches: On its device; one forward pass for each, and the average counts.
    """
    every = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))  # noqa: SLF001
    norms = [norm for norm in every if norm.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None means: average over all passes
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def evaluate_segmenter(
    model: Segmenter, scenes: Iterable[LabelledScene], classes: int
) -> SegmentationScore:
    """Classify every point of every scene, one scene at a time, and compare with its label.

    Args:
        model: In evaluation mode.
        scenes: Not thinned: every point counts.
        classes: K.

    Raises:
        ConfigError: No point has a label.
    """
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    device = model.head.weight.device
    with torch.inference_mode():
        for scene in scenes:
            batch, labels = collate([scene])
            predicted = model(batch.to(device)).argmax(dim=1).cpu()
            confusion += confusion_matrix(predicted, labels, classes)
    return SegmentationScore.of(confusion)


def _with_head(encoder: PointEncoder, classes: int, seed: int) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Segmenter(encoder, classes)
    device = next(encoder.parameters()).device
    return model.to(device).train()


def _draw(
    scenes: Sequence[LabelledScene],
    channels: Sequence[str],
    config: SegmentationConfig,
    generator: np.random.Generator,
) -> tuple[PointBatch, Tensor]:
    cut = [crop(scene, config.crop_points, generator) for scene in scenes]
    return collate(change_scene(scene, config.changes, channels, generator) for scene in cut)


def _endless(
    scenes: Sequence[LabelledScene], generator: np.random.Generator
) -> Iterator[LabelledScene]:
    """Yield the scenes with labels over and over, each time in another order."""
    found = True
    while found:
        found = False
        for row in generator.permutation(len(scenes)).tolist():
            scene = scenes[row]
            if bool((scene.labels >= 0).any()):
                found = True
                yield scene
    raise ConfigError(expected="scenes with labelled points", got="none", fix="Label some points.")
