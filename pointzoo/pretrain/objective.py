"""What a trainer supplies to the training loop, and the settings that all trainers share."""

from __future__ import annotations

import contextlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run that do not depend on the objective.

    Attributes:
        epochs: Passes over the data.
        batch_size: Clouds per step, over all processes.
        shares: Relative share of the samples that each of several joined data sets supplies, in
            their order; empty: by size.
        max_steps: Length of the run in steps, instead of ``epochs``.
        seed: Of everything random.
        precision: ``auto`` measures whether bfloat16 pays on this device.
        workers: Processes that read and prepare clouds; 0 does it between the steps.
        checkpoint_minutes: Time between checkpoints.
        health_minutes: Time between health checks, each of which exports the weights.
        log_steps: Steps between lines of the log.
        tensorboard: Also write TensorBoard events.
    """

    epochs: int = 100
    batch_size: int = 64
    shares: tuple[float, ...] = ()
    max_steps: int | None = None
    seed: int = 0
    precision: Precision = "auto"
    workers: int = 0
    checkpoint_minutes: float = 3.0
    health_minutes: float = 5.0
    log_steps: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A number is out of range or the precision unknown.
        """
        steps = 1 if self.max_steps is None else self.max_steps
        counts = (self.epochs, self.batch_size, self.log_steps, steps)
        if min(counts) < 1 or self.workers < 0 or self.precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(
                expected="counts of at least 1 and precision 'auto', 'fp32' or 'bf16'",
                got=f"{counts}, workers {self.workers}, precision {self.precision!r}",
                fix="Correct the setting.",
            )


@dataclass(frozen=True)
class Clock:
    """How long a run is.

    Attributes:
        steps_per_epoch: Batches in one pass over the data; an incomplete one is dropped.
        total_steps: Length of the run.
        batch_size: Clouds per step, over all processes.
    """

    steps_per_epoch: int
    total_steps: int
    batch_size: int


@dataclass(frozen=True)
class Runtime:
    """What an objective needs to know about where it runs; the default is one process in float32.

    Attributes:
        forward: Wraps the call of the trainable module (distributed data parallel), or None.
        autocast: Context in which networks run.
        reduce_mean: Averages a tensor over the processes.
    """

    forward: Callable[..., Any] | None = None
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    reduce_mean: Callable[[Tensor], Tensor] = operator.pos


class Objective(nn.Module, ABC):
    """What a trainer supplies to the loop. Its state dict is what a checkpoint holds.

    Attributes:
        config: Settings of the run.
        runtime: Set by :func:`train`.
        health_clouds: Clouds that a health check encodes, evenly spaced over the data set.
    """

    health_clouds: ClassVar[int] = 512

    def __init__(self, config: TrainingConfig) -> None:
        """Keep the settings."""
        super().__init__()
        self.config = config
        self.runtime = Runtime()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the runtime, which belongs to its process; loader workers need none."""
        return {**self.__dict__, "runtime": Runtime()}

    def run_trainable(self, *inputs: Any) -> Any:
        """Call the trainable module, through distributed data parallel where it is on."""
        return (self.runtime.forward or self.trainable)(*inputs)

    @property
    @abstractmethod
    def trainable(self) -> nn.Module:
        """The module whose gradients are computed."""

    @property
    @abstractmethod
    def exported(self) -> PointEncoder:
        """The encoder that the run is for."""

    @abstractmethod
    def prepare(self, cloud: PointCloud, generator: np.random.Generator) -> Any:
        """Turn a cloud of the data set into one sample; runs in the loader's workers."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """Make a batch, with a method ``to(device)``."""

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch and what to log about it."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups; ``decays`` says whether a group has weight decay."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer of :meth:`parameter_groups`; the default is AdamW."""
        return torch.optim.AdamW(self.parameter_groups(), lr=0.0, fused=True)

    @abstractmethod
    def schedule(self, step: int, clock: Clock) -> dict[str, float]:
        """Return ``lr``, ``weight_decay`` and, where it changes, ``momentum`` of a step."""

    def bfloat16_pays(self) -> bool | None:
        """Say whether this trainer is faster in bfloat16 here, for precision ``auto``.

        None, the default, leaves it to the speed of matrix products.
        """
        return None

    def look_at(self, cloud: PointCloud) -> PointCloud:
        """Return the part of a cloud that a health check encodes; the default is all of it."""
        return cloud

    @abstractmethod
    def after_backward(self, step: int, clock: Clock) -> None:
        """Change gradients (clip, freeze) before the optimizer uses them."""

    @abstractmethod
    def after_step(self, step: int, clock: Clock) -> None:
        """Follow the optimizer (move a teacher)."""

    @abstractmethod
    def collapsed(self, health: Mapping[str, float]) -> str | None:
        """Say why the representation is dead, or None; values of the step and of the check."""
