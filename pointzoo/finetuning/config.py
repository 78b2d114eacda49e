"""Settings of a fine-tuning, and the ones that papers used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.finetuning.network import Reads
from pointzoo.finetuning.task import Task, TaskOptions
from pointzoo.settings import override
from pointzoo.tasks.recipes import get_recipe

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "linear": "a linear layer on frozen features, fitted on features computed once",
        "decoder": "a small MLP on frozen features of all levels",
        "lora": "a linear layer, low-rank additions to the encoder's matrices, and its norms",
        "full": "a linear layer and every weight of the encoder",
    }
)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "method": tuple(METHODS),
    "optimizer": ("adamw", "sgd"),
    "reads": ("point", "levels"),
    "schedule": ("cosine", "one_cycle", "poly", "constant"),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of :func:`pointzoo.finetune` that all tasks share.

    Attributes:
        method: See :data:`METHODS`.
        epochs: Passes over the training clouds, where ``max_steps`` does not say how long.
        max_steps: Steps of the optimiser; None: see ``epochs``.
        batch_size: Clouds of a forward pass.
        accumulate: Forward passes per step of the optimiser.
        crop_points: Points of a cloud that are seen in training: those nearest to a random labelled
            one; 0: all.
        thin: Keep one point of each voxel of this edge, a labelled one where there is one, when a
            training cloud is read; None: half a voxel of the encoder, or all points where it has no
            voxels; 0: all points.
        augmentation: Name of a recipe of :mod:`pointzoo.tasks.recipes`.
        mix: Probability that the clouds of a batch are laid over each other in pairs (Mix3D,
            Nekrasov et al., 3DV 2021); for encoders that work on voxels.
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum.
        learning_rate: Largest rate, of the head.
        encoder_rate: The encoder's rate over the head's; None: 0.1 under ``full`` where the encoder
            is a pretrained name or folder, else 1.
        layer_decay: Factor of the rate from each part of the encoder to the one that runs before
            it; 1: all alike.
        freeze: This many parts of the encoder, counted from the input, stay as they are.
        momentum: Of ``sgd``.
        weight_decay: Of weight matrices; biases and norms have none.
        clip: Largest norm of the gradient; 0: any.
        schedule: Of the rate. ``cosine``: up, then down to ``final``; ``one_cycle``: as PyTorch's,
            up from a tenth; ``poly``: down with the power 0.9; ``constant``: up, then level.
        warmup: Share of the steps until the largest rate.
        final: Rate of the last step over the largest.
        class_weights: ``none``; ``sqrt_inverse``: one over the root of the share of a class, 1 on
            average; or a number per class.
        amp: Compute in bfloat16 while training; None: see
            :func:`pointzoo.tasks.supervised.use_amp`.
        statistics: Batches whose batch statistics are averaged before a ``full`` model is judged or
            saved: those followed while training lag behind after some hundred steps.
        rank: Of the additions of ``lora``.
        reads: What the head of ``linear``, ``lora`` and ``full`` gets of each point, see
            :data:`pointzoo.finetuning.network.Reads`; that of ``decoder`` gets ``levels``, which
            is also what segmentation takes unless told otherwise or a preset is a paper's.
        hidden: Width of the hidden layer of ``decoder``.
        probe_first: Whether ``lora`` and ``full`` start with the head that ``linear`` would fit, so
            that the first steps do not spoil the features (A. Kumar et al., "Fine-tuning can
            distort pretrained features and underperform out-of-distribution", ICLR 2022); None:
            where the encoder is a pretrained name or folder.
        penalty: Of ``linear``; see :data:`pointzoo.tasks.scene_probe.PENALTY`.
        sample_points: Labelled points of each cloud that ``linear`` sees.
        validation_share: Share of the training clouds that is held out where the data has no
            validation part of its own; 0: none, so that the last step counts.
        validate_steps: Steps between two evaluations; None: a tenth of all.
        patience: Stop after so many evaluations without improvement; 0: never.
        checkpoint_minutes: Time between two checkpoints.
        log_steps: Steps per line of the log.
        tensorboard: Whether to write TensorBoard events, too.
    """

    method: str = "linear"
    epochs: int = 20
    max_steps: int | None = None
    batch_size: int = 2
    accumulate: int = 1
    crop_points: int = 12_000
    thin: float | None = None
    augmentation: str = "light"
    mix: float = 0.0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    encoder_rate: float | None = None
    layer_decay: float = 1.0
    freeze: int = 0
    momentum: float = 0.9
    weight_decay: float = 0.02
    clip: float = 3.0
    schedule: str = "cosine"
    warmup: float = 0.1
    final: float = 0.0
    class_weights: str | tuple[float, ...] = "none"
    amp: bool | None = None
    statistics: int = 8
    rank: int = 8
    reads: Reads = "point"
    hidden: int = 256
    probe_first: bool | None = None
    penalty: float = 1e-3
    sample_points: int = 1000
    validation_share: float = 0.2
    validate_steps: int | None = None
    patience: int = 0
    checkpoint_minutes: float = 5.0
    log_steps: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is unknown or out of range.
            UnknownNameError: There is no such method, optimiser, schedule or recipe.
        """
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise UnknownNameError.of(key, getattr(self, key), known)
        get_recipe(self.augmentation)
        if isinstance(self.class_weights, str) and self.class_weights not in (
            "none",
            "sqrt_inverse",
        ):
            raise UnknownNameError.of("way to weight classes", self.class_weights, _WEIGHTINGS)
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise ConfigError(
                    expected=f"{key} from {low:g} to {high:g}",
                    got=repr(value),
                    fix="Correct the setting.",
                )


_WEIGHTINGS = ("none", "sqrt_inverse")
_MANY = 1e12
_RANGES: tuple[tuple[str, float, float], ...] = (
    *((key, 1, _MANY) for key in ("epochs", "max_steps", "batch_size", "accumulate", "statistics")),
    *((key, 1, _MANY) for key in ("rank", "hidden", "sample_points", "validate_steps")),
    *((key, 1, _MANY) for key in ("log_steps",)),
    *((key, 0, _MANY) for key in ("crop_points", "thin", "freeze", "weight_decay", "clip")),
    *((key, 0, _MANY) for key in ("penalty", "patience", "checkpoint_minutes", "encoder_rate")),
    *((key, 0, 1) for key in ("mix", "warmup", "final")),
    ("learning_rate", 1e-12, _MANY),
    ("layer_decay", 1e-3, 1),
    ("momentum", 0, 0.9999),
    ("validation_share", 0, 0.9),
)

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        "msc": {
            "method": "full", "probe_first": False, "encoder_rate": 1.0, "reads": "point",
            "epochs": 800, "batch_size": 48, "crop_points": 100_000,
            "augmentation": "scannet", "mix": 0.8, "optimizer": "sgd", "learning_rate": 0.05,
            "momentum": 0.9, "weight_decay": 1e-4, "clip": 0.0, "schedule": "one_cycle",
            "warmup": 0.05, "final": 1e-5, "thin": 0.0,
        },
        "msc_efficient": {
            "method": "full", "probe_first": False, "encoder_rate": 1.0, "reads": "point",
            "epochs": 800, "batch_size": 12, "crop_points": 100_000,
            "augmentation": "scannet", "mix": 0.8, "optimizer": "sgd", "learning_rate": 0.05,
            "momentum": 0.9, "weight_decay": 1e-4, "clip": 0.0, "schedule": "one_cycle",
            "warmup": 0.05, "final": 1e-5, "thin": 0.0,
        },
        "pointcept_s3dis": {
            "method": "full", "probe_first": False, "encoder_rate": 1.0, "reads": "point",
            "epochs": 3000, "batch_size": 12, "crop_points": 100_000,
            "augmentation": "s3dis", "mix": 0.8, "optimizer": "sgd", "learning_rate": 0.1,
            "momentum": 0.9, "weight_decay": 1e-4, "clip": 0.0, "schedule": "poly",
            "warmup": 0.0, "thin": 0.0,
        },
        "pointgroup": {
            "method": "full", "probe_first": False, "encoder_rate": 1.0, "reads": "point",
            "epochs": 800, "batch_size": 12, "crop_points": 0,
            "augmentation": "pointgroup", "optimizer": "sgd", "learning_rate": 0.1,
            "momentum": 0.9, "weight_decay": 1e-4, "clip": 0.0, "schedule": "poly",
            "warmup": 0.0, "thin": 0.0,
        },
        "dgcnn": {
            "method": "full", "probe_first": False, "encoder_rate": 1.0, "reads": "point",
            "epochs": 250, "batch_size": 32, "crop_points": 1024,
            "augmentation": "dgcnn", "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9,
            "weight_decay": 1e-4, "clip": 0.0, "schedule": "cosine", "warmup": 0.0, "final": 0.01,
            "label_smoothing": 0.2, "thin": 0.0,
        },
    }
)  # fmt: skip
"""Settings by name: ``default`` fits a CPU and minutes; ``msc`` and ``msc_efficient`` are Masked
Scene Contrast's Table 6 and Pointcept's configs @ d74c646 (semantic segmentation of ScanNet, with
all labels and with few), ``pointcept_s3dis`` and ``pointgroup`` its S3DIS and instance ones, and
``dgcnn`` is classification as in dgcnn.pytorch @ 07d534c. Keys may be settings of the task."""


def build_config(
    kind: type[Task[Any]], method: str | None, preset: str | None, settings: Mapping[str, Any]
) -> tuple[FinetuneConfig, TaskOptions]:
    """Put settings together: the task's defaults, then the preset, then what the caller asks for.

    Args:
        kind: The task.
        method: See :data:`METHODS`; None: that of the preset, else ``linear``.
        preset: One of :data:`PRESETS`; None: ``default``.
        settings: Settings of :class:`FinetuneConfig` or of the task's options, by name.

    Raises:
        UnknownNameError: There is no such setting, preset or method.
        ConfigError: A value is out of range or of the wrong type.
    """
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError.of("preset", preset, PRESETS)
    chosen = PRESETS[preset or "default"]
    asked = {**kind.defaults, **chosen, **settings}
    asked["method"] = method or chosen.get("method") or "linear"
    asked.setdefault("class_weights", "none")
    two_types = {k: asked.pop(k, None) for k in ("class_weights", "amp", "probe_first")}
    asked = {key: value for key, value in asked.items() if value is not None}
    shared = {field.name for field in dataclasses.fields(FinetuneConfig)}
    own = {field.name for field in dataclasses.fields(kind.options_class)}
    known = sorted(shared | own)
    for key in asked:
        if key.split(".")[0] not in known:
            raise UnknownNameError.of(f"setting of {kind.name}", key, known)
    config = override(FinetuneConfig(), {k: v for k, v in asked.items() if k in shared})
    options = override(
        kind.options_class(), {k: v for k, v in asked.items() if k.split(".")[0] in own}
    )
    weights = two_types["class_weights"]
    if not isinstance(weights, str):
        two_types["class_weights"] = tuple(float(value) for value in weights)
    return dataclasses.replace(config, **two_types), options


def settled(config: FinetuneConfig, *, pretrained: bool) -> FinetuneConfig:
    """Return settings with values for those that depend on where the encoder comes from.

    Args:
        config: Settings.
        pretrained: Whether the encoder is a pretrained name or folder.
    """
    rate, probe = config.encoder_rate, config.probe_first
    if rate is None:
        rate = 0.1 if pretrained and config.method == "full" else 1.0
    if probe is None:
        probe = pretrained
    return dataclasses.replace(config, encoder_rate=rate, probe_first=probe)
