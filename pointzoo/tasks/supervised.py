"""The same network trained with labels: how far are frozen features from that?

Augmentation as in the DGCNN family: every training cloud is scaled per axis by U(2/3, 3/2), moved
by U(-0.2, 0.2) and jittered (sigma 0.01, clipped at 0.05), in the encoder's normalised frame.

Shape legend: M clouds, B clouds of a batch, N points of a batch, C channels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import IntArray
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.tasks.evaluation import ProbeResult, evaluate
from pointzoo.tasks.labelled import Labelled, Rows, Setting
from pointzoo.tasks.progress import progress_bar

Cloud = tuple[Tensor, Tensor]
"""Preprocessed coordinates (N, 3) and channels (N, C - 3)."""

MakeEncoder = Callable[[int], PointEncoder]
"""From a seed to an encoder of its own that may be trained."""


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of the training with labels.

    Attributes:
        epochs: Passes over the training clouds.
        batch_size: Clouds per step.
        learning_rate: Largest rate of AdamW; rises linearly for a tenth of the steps and then
            falls to 0 along a cosine.
        weight_decay: Of weight matrices; biases and norms have none.
        label_smoothing: Share of the target spread over all classes.
        clip: Largest norm of the gradient.
        amp: Compute in bfloat16; None: where the CPU has matrix instructions for it (AMX) or the
            encoder is on a GPU.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip: float = 3.0
    amp: bool | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise ConfigError(
                expected="at least 1 epoch, 2 clouds per batch and a positive learning rate",
                got=f"{self.epochs}, {self.batch_size}, {self.learning_rate}",
                fix="Correct the setting.",
            )


class Classifier(nn.Module):
    """An encoder with a linear layer on its scene feature."""

    def __init__(self, encoder: PointEncoder, classes: int) -> None:
        """Add the layer."""
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.scene_channels)
        self.head = nn.Linear(encoder.scene_channels, classes)

    def forward(self, batch: PointBatch) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.head(self.norm(self.encoder(batch, points=False).scene))
        return logits


def supervised(
    make: MakeEncoder,
    dataset: PointDataset,
    *,
    name: str,
    config: SupervisedConfig | None = None,
    test: PointDataset | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    points: int = 1024,
    rotation: str = "none",
    progress: bool = False,
) -> ProbeResult:
    """Train the whole network on the training folds and classify the test fold.

    The last epoch counts; the test fold is not looked at before.

    Args:
        make: Builds the encoder for a seed: with random weights to train from scratch, with
            pretrained ones to fine-tune.
        dataset: The clouds and their labels; clouds without a label are left out.
        name: How the result names the network.
        config: Settings of the training.
        test: A test set, instead of folds.
        folds: See :class:`pointzoo.tasks.labelled.Setting`, as for the rest.
        seeds: See there; also the seeds of weights, order and augmentation.
        points: See there.
        rotation: See there; with ``"z"`` training turns each cloud anew in every epoch.
        progress: Show a progress bar on stderr.

    Raises:
        ConfigError: There are no labels or too few of a class, or a setting is out of range.
    """
    config = config or SupervisedConfig()
    data = Labelled.of(dataset, test, Setting(points, rotation, tuple(seeds), folds))
    start = time.perf_counter()
    with progress_bar(name, shown=progress) as bar:
        bar.start("training", len(data.setting.seeds) * data.folds * config.epochs)
        prepared: dict[int, list[Cloud]] = {}

        def predict(seed: int, train: Rows, rows: Rows) -> IntArray:
            encoder = make(seed)
            if seed not in prepared:
                prepared.clear()  # one seed after the other
                prepared[seed] = [encoder.preprocess(cloud) for cloud, _ in data.drawn(seed)]
            clouds = prepared[seed]
            model = train_classifier(
                encoder,
                [clouds[row] for row in train],
                torch.from_numpy(data.labels[train]),
                classes=len(data.class_names),
                config=config,
                seed=seed,
                turn=rotation == "z",
                after_epoch=bar.advance,
            )
            return classify(model, [clouds[row] for row in rows], config.batch_size)

        return evaluate(
            predict,
            data,
            subject=name,
            classifier="supervised",
            seconds=time.perf_counter() - start,
            settings=_plain(config),
        )


def train_classifier(
    encoder: PointEncoder,
    clouds: Sequence[Cloud],
    labels: Tensor,
    *,
    classes: int,
    config: SupervisedConfig,
    seed: int,
    turn: bool = False,
    after_epoch: Callable[[], object] = lambda: None,
) -> Classifier:
    """Train an encoder and a linear layer on labelled clouds; the encoder itself is changed.

    Args:
        encoder: The encoder, on the device that is to be used.
        clouds: M preprocessed clouds.
        labels: (M,) int64.
        classes: K.
        config: Settings.
        seed: Of the layer, the order of the clouds and the augmentation.
        turn: Whether to turn each cloud about z by a random angle.
        after_epoch: Called after every epoch.

    Returns:
        The trained network in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Classifier(encoder, classes)
    device = next(encoder.parameters()).device
    model.to(device).train()
    batches = max(1, len(clouds) // config.batch_size)
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(config.epochs * batches))
    for _ in range(config.epochs):
        order = torch.randperm(len(clouds), generator=generator)
        for rows in order.tensor_split(batches):
            batch = augment(_collate([clouds[row] for row in rows.tolist()]), generator, turn=turn)
            with torch.autocast(device.type, torch.bfloat16, enabled=use_amp(config.amp, device)):
                logits = model(batch.to(device))
            target = labels[rows].to(device)
            loss = nn.functional.cross_entropy(
                logits.float(), target, label_smoothing=config.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            schedule.step()
        after_epoch()
    return model.eval()


def classify(model: Classifier, clouds: Sequence[Cloud], batch_size: int) -> IntArray:
    """Return the class (M,) that a trained network gives to each preprocessed cloud."""
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, len(clouds), batch_size):
            batch = _collate(clouds[start : start + batch_size]).to(device)
            found.append(model(batch).argmax(dim=1).cpu())
    classes: IntArray = torch.cat(found).numpy()
    return classes


def augment(batch: PointBatch, generator: torch.Generator, *, turn: bool = False) -> PointBatch:
    """Scale, move and jitter every cloud (see the top of the file), perhaps turn it about z.

    Channels after the coordinates stay as they are.

    Args:
        batch: On the CPU.
        generator: Source of the random numbers.
        turn: Whether to turn.
    """
    clouds, index = batch.num_clouds, batch.batch_index

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    coords = batch.coords
    if turn:
        angle = uniform(0.0, 2 * math.pi, clouds)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(clouds)
        rows = (cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1.0)
        matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (B, 3, 3)
        coords = torch.einsum("nij,nj->ni", matrix[index], coords)
    noise = (0.01 * torch.randn(coords.shape, generator=generator)).clamp(-0.05, 0.05)
    scale, shift = uniform(2 / 3, 3 / 2, clouds, 3), uniform(-0.2, 0.2, clouds, 3)
    coords = (coords + noise) * scale[index] + shift[index]
    return PointBatch(coords, batch.features, batch.offsets)


def _collate(clouds: Sequence[Cloud]) -> PointBatch:
    return PointBatch.collate([c for c, _ in clouds], [f for _, f in clouds])


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters for an optimiser: weight decay on matrices, none on the others."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warm_cosine(steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate by step: up for a tenth, then down along a cosine."""
    warm = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def use_amp(asked: bool | None, device: torch.device) -> bool:
    """Say whether to compute in bfloat16; None: where the device has instructions for it."""
    if asked is not None:
        return asked
    # private, but the only way to ask in every supported version of torch
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type != "cpu" or bool(has_amx())


def _plain(config: SupervisedConfig) -> Mapping[str, Any]:
    return asdict(config)
