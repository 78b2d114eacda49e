"""The one training loop: any objective, one process or many, resumable to the bit on a CPU.

Every random number is a function of the seed and the step, so a resumed run needs no stored
generator states.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch.utils.data import DataLoader

from pointzoo.data.base import PointDataset
from pointzoo.data.joined import JoinedDataset
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import CollapseError, ConfigError, TrainingError
from pointzoo.pretrain.checkpoint import load_checkpoint, read_facts, save_checkpoint
from pointzoo.pretrain.health import bfloat16_pays, measure_health
from pointzoo.pretrain.objective import Clock, Objective, Runtime, TrainingConfig
from pointzoo.pretrain.report import Report
from pointzoo.pretrain.samples import Plan, Samples, step_generator
from pointzoo.pretrain.signals import Stop, stop_on_signals
from pointzoo.weights import save_encoder

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights"
_MAY_CHANGE = {
    "epochs", "max_steps", "workers", "checkpoint_minutes", "health_minutes", "log_steps",
    "tensorboard",
}  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        steps: Steps done in all, earlier runs included.
        finished: Whether the run came to its end (False after Ctrl-C or SIGTERM).
        seconds: Time of this call.
        health: The last health check.
        weights: Folder with the exported encoder, for :func:`pointzoo.load_encoder`; None where
            its class is not in the registry, so that only the checkpoint holds it.
    """

    steps: int
    finished: bool
    seconds: float
    health: Mapping[str, float]
    weights: Path | None


def train(
    objective: Objective, data: PointDataset, out: Path, *, resume: bool = False
) -> RunResult:
    """Train until the end of the schedule, Ctrl-C or SIGTERM.

    ``out`` receives ``checkpoint.safetensors``, ``log.jsonl`` and ``weights/``. On a CPU a run that
    was killed and resumed ends with the same bits as one that was not, given the same thread count.

    Args:
        objective: Networks and loss.
        data: The clouds.
        out: Folder of the run, made if missing.
        resume: Go on from the checkpoint in ``out``; without one the run starts from the beginning.
            With another length than before, the schedules continue as those of the new length.

    Raises:
        ConfigError: The data set is smaller than a batch, ``out`` holds a run and ``resume`` is
            false, or the settings differ from those of the checkpoint.
        TrainingError: The checkpoint is damaged, or the loss is not finite.
        CollapseError: The representation collapsed.
    """
    with torch.random.fork_rng():
        return _Run(objective, data, out, resume=resume).go()


class _Run:
    """State of one call of :func:`train`."""

    def __init__(
        self, objective: Objective, data: PointDataset, out: Path, *, resume: bool
    ) -> None:
        config = objective.config
        self.objective, self.data, self.out, self.config = objective, data, out, config
        self.clock = _clock(config, data)
        self.checkpoint = out / CHECKPOINT
        stored = self._stored(resume=resume)
        self.precision = _precision(objective, stored)
        # accelerate's own mixed precision cannot change within a process; bfloat16 needs no scaler.
        # An objective need not use every parameter of an encoder (a head for points).
        self.accelerator = Accelerator(
            mixed_precision="no",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        objective.to(self.accelerator.device).train()
        self.optimizer = objective.optimizer()
        self.step = int(stored["step"]) if stored else 0
        if stored:
            load_checkpoint(self.checkpoint, objective, self.optimizer)
        objective.runtime = Runtime(
            forward=self.accelerator.prepare_model(objective.trainable),
            autocast=self._autocast,
            reduce_mean=lambda tensor: self.accelerator.reduce(tensor, "mean"),
        )
        known = {entry.encoder_class for entry in ARCHITECTURES.values()}
        self.weights = out / WEIGHTS if type(objective.exported) in known else None
        self.last: dict[str, float] = {}
        self.health: dict[str, float] = {}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        device, enabled = self.accelerator.device.type, self.precision == "bf16"
        return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)

    def _stored(self, *, resume: bool) -> dict[str, Any] | None:
        self.out.mkdir(parents=True, exist_ok=True)
        if not self.checkpoint.exists():
            return None
        if not resume:
            raise ConfigError(
                expected=f"a folder without a run in {self.out}",
                got=CHECKPOINT,
                fix="Pass resume (--resume) to go on, or choose another folder.",
            )
        stored = read_facts(self.checkpoint)
        self._require_possible(stored)
        stored["config"] = _binding(stored["config"])
        changed = [key for key, value in self._facts().items() if stored.get(key) != value]
        if changed:
            raise ConfigError(
                expected="the settings, network and data that the run began with",
                got=f"another {', '.join(changed)}",
                fix="Repeat the command of the run, or start anew in another folder.",
            )
        return stored

    def _require_possible(self, stored: Mapping[str, Any]) -> None:
        kinds = {"step": int, "config": dict, "precision": str}
        wrong = [key for key, kind in kinds.items() if not isinstance(stored.get(key), kind)]
        if wrong or stored["step"] < 0:
            raise TrainingError(
                expected=f"a checkpoint of a pretraining in {self.checkpoint}",
                got=f"another {', '.join(wrong) or 'step'}",
                fix="Start anew in another folder, or restore the file.",
            )

    def _facts(self) -> dict[str, Any]:
        """Return what must not change between the parts of a run, as JSON types."""
        facts = {
            "config": _binding(dataclasses.asdict(self.config)),
            "objective": type(self.objective).__name__,
            "encoder": self.objective.exported.config.to_dict(),
            "data": [self.data.name, len(self.data)],
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain

    def go(self) -> RunResult:
        """Run the steps."""
        started = time.perf_counter()
        report = Report(
            self.out, self.step, self.clock.total_steps,
            enabled=self.accelerator.is_main_process, tensorboard=self.config.tensorboard,
        )  # fmt: skip
        with report, stop_on_signals() as stop:
            if self.step == 0:
                self._save()
            self._steps(report, stop)
            self._save()
            self._check_health(report)
        return RunResult(
            self.step,
            self.step >= self.clock.total_steps,
            time.perf_counter() - started,
            self.health,
            self.weights,
        )

    def _steps(self, report: Report, stop: Stop) -> None:
        saved = checked = time.perf_counter()
        waiting = time.perf_counter()
        for batch in self._loader():
            waited = time.perf_counter() - waiting
            values = self._one_step(batch)
            self.step += 1
            report.step(
                self.step, values, waited,
                clouds=self.config.batch_size, every=self.config.log_steps,
            )  # fmt: skip
            now = time.perf_counter()
            check, save, ends = self._agree(
                now - checked > 60 * self.config.health_minutes,
                now - saved > 60 * self.config.checkpoint_minutes,
                stop.asked,
            )
            if check:
                self._check_health(report)
                checked = time.perf_counter()
            if save:
                self._save()
                saved = time.perf_counter()
            if ends:
                return
            waiting = time.perf_counter()

    def _agree(self, *wishes: bool) -> list[bool]:
        """Return which wishes any process has: all of them must do the same after a step."""
        if self.accelerator.num_processes == 1:
            return list(wishes)
        flags = torch.tensor(wishes, dtype=torch.float32, device=self.accelerator.device)
        return [bool(flag) for flag in self.accelerator.reduce(flags, "sum")]

    def _one_step(self, batch: Any) -> dict[str, float]:
        values = self.objective.schedule(self.step, self.clock)
        for group in self.optimizer.param_groups:
            group["lr"] = values["lr"]
            group["weight_decay"] = values["weight_decay"] if group["decays"] else 0.0
            if "momentum" in values:
                group["momentum"] = values["momentum"]
        generator = step_generator(self.config.seed, self.step, self.accelerator.process_index)
        torch.manual_seed(generator.initial_seed() % 2**63)  # for layers that draw (dropout)
        loss, logged = self.objective.loss(batch.to(self.accelerator.device), generator)
        values |= {"loss": float(loss.detach()), **logged}
        self._require_finite("loss", values["loss"])
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        self._require_finite("gradient", float(sum(gradient.norm() for gradient in gradients)))
        self.objective.after_backward(self.step, self.clock)
        self.optimizer.step()
        self.objective.after_step(self.step, self.clock)
        self.last = values
        return values

    def _require_finite(self, what: str, value: float) -> None:
        if not np.isfinite(value):
            raise TrainingError(
                expected=f"a finite {what}",
                got=f"{value} at step {self.step}",
                fix="Lower the learning rate or use precision fp32; the last checkpoint is good.",
            )

    def _loader(self) -> DataLoader[Any]:
        plan = Plan(
            lengths=_lengths(self.data),
            shares=self.config.shares,
            batch_size=self.config.batch_size,
            steps=range(self.step, self.clock.total_steps),
            seed=self.config.seed,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        return DataLoader(
            Samples(self.objective.prepare, self.data, self.config.seed),
            batch_sampler=plan,
            collate_fn=self.objective.collate,
            num_workers=self.config.workers,
        )

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            facts = {**self._facts(), "step": self.step, "precision": self.precision}
            save_checkpoint(self.checkpoint, self.objective, self.optimizer, facts)

    def _check_health(self, report: Report) -> None:
        """Measure the exported encoder, write its weights, and stop after a collapse."""
        if not self.accelerator.is_main_process:
            return
        self.health = measure_health(
            self.objective.exported,
            self.data,
            clouds=self.objective.health_clouds,
            look_at=self.objective.look_at,
        )
        report.health(self.step, self.health)
        if self.weights is not None:
            save_encoder(self.objective.exported, self.weights)
        # a finished run that is resumed makes no step, so there is nothing to judge
        reason = self.objective.collapsed({**self.last, **self.health}) if self.last else None
        if reason:
            raise CollapseError(
                expected="features that tell clouds and points apart",
                got=f"a collapse at step {self.step}: {reason}",
                fix="Lower the learning rate or the teacher temperature, or warm up longer.",
            )


def _binding(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _MAY_CHANGE}


def _lengths(data: PointDataset) -> tuple[int, ...]:
    return tuple(map(len, data.parts)) if isinstance(data, JoinedDataset) else (len(data),)


def _clock(config: TrainingConfig, data: PointDataset) -> Clock:
    parts, shares = len(_lengths(data)), config.shares
    if shares and (len(shares) != parts or min(shares) <= 0):
        raise ConfigError(
            expected=f"a positive share for each of the {parts} data sets",
            got=repr(shares),
            fix="Set shares to as many numbers as there are data sets, or leave it empty.",
        )
    steps = len(data) // config.batch_size
    if steps < 1:
        raise ConfigError(
            expected=f"at least one batch of {config.batch_size} clouds",
            got=f"a data set of {len(data)}",
            fix="Lower the batch size, or add data.",
        )
    total = steps * config.epochs if config.max_steps is None else config.max_steps
    return Clock(steps, total, config.batch_size)


def _precision(objective: Objective, stored: Mapping[str, Any] | None) -> str:
    """Return fp32 or bf16; a resumed run keeps what it began with, whatever is measured today."""
    wanted = objective.config.precision
    if wanted != "auto":
        return wanted
    if stored:
        return str(stored["precision"])
    pays = objective.bfloat16_pays()
    return "bf16" if (bfloat16_pays() if pays is None else pays) else "fp32"
