"""The training loop of fine-tuning: steps, evaluations, checkpoints.

Every random choice is a function of the seed and the step, as in :mod:`pointzoo.pretrain.loop`, so
that a run that was killed and resumed ends with the bits of one that was not, on a CPU with the
same number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo.data.base import PointDataset
from pointzoo.errors import ConfigError, TrainingError
from pointzoo.finetuning.config import FinetuneConfig
from pointzoo.finetuning.data import Drawing
from pointzoo.finetuning.methods import parameter_groups, set_modes
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.task import Score
from pointzoo.pretrain.checkpoint import load_checkpoint, read_facts, save_checkpoint
from pointzoo.pretrain.report import Report
from pointzoo.pretrain.samples import step_generator
from pointzoo.pretrain.schedules import one_cycle_schedule
from pointzoo.pretrain.signals import Stop, stop_on_signals
from pointzoo.tasks.segmentation import measure_statistics
from pointzoo.tasks.supervised import use_amp

CHECKPOINT = "checkpoint.safetensors"
_MAY_CHANGE = ("checkpoint_minutes", "log_steps", "tensorboard")


@dataclass
class Progress:
    """How far a run has come; goes into the checkpoint.

    Attributes:
        step: Steps of the optimiser done.
        best: Best value of the metric so far, or None.
        best_step: When that was.
        waited: Evaluations since then.
        stopped: Whether the run ended early for lack of improvement.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False

    def require_possible(self) -> None:
        """Raise a ValueError if a number is none, or below 0."""
        counts = (self.step, self.best_step, self.waited)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"counts {counts}")
        if not (self.best is None or isinstance(self.best, float)) or self.stopped not in (0, 1):
            raise ValueError(f"best {self.best!r}, stopped {self.stopped!r}")


@dataclass(frozen=True, eq=False)
class Run:
    """What a training needs.

    Attributes:
        network: What learns says ``requires_grad``.
        drawing: Gives the batches.
        config: Settings.
        class_weights: (K,) or None.
        validation: What is evaluated, or None.
        out: Folder of the run.
        facts: What must not change between the parts of a run, as JSON types.
        keep_best: Called with the score when the network is better than ever; it is ready to be
            saved then.
        fitted: Whether the head was fitted before; then the network is judged before the first
            step, so that the best one is never worse than that.
        progress: Show a progress bar on stderr.
    """

    network: Network
    drawing: Drawing
    config: FinetuneConfig
    class_weights: Tensor | None
    validation: PointDataset | None
    out: Path
    facts: Mapping[str, Any]
    keep_best: Callable[[Score], object]
    fitted: bool = False
    progress: bool = False


def total_steps(config: FinetuneConfig, drawing: Drawing) -> int:
    """Return the steps of a whole run."""
    if config.max_steps is not None:
        return config.max_steps
    return max(1, config.epochs * drawing.batches // config.accumulate)


def train(run: Run, *, resume: bool) -> Progress:
    """Train to the end, or until nothing improves; the network is left ready to be saved.

    Args:
        run: What to train.
        resume: Go on from the checkpoint in ``run.out``; without one from the beginning.

    Raises:
        ConfigError: The settings differ from those of the checkpoint.
        TrainingError: The checkpoint is damaged, the loss is not finite, the disk refuses a
            checkpoint, or somebody stopped the run (it can be resumed).
    """
    with torch.random.fork_rng():
        return _Training(run, resume=resume).go()


class _Training:
    """State of one call of :func:`train`."""

    def __init__(self, run: Run, *, resume: bool) -> None:
        """Build the optimiser and read the checkpoint."""
        self.run, self.config, self.network = run, run.config, run.network
        self.total = total_steps(run.config, run.drawing)
        self.every = run.config.validate_steps or max(1, self.total // 10)
        self.amp = use_amp(run.config.amp, self.network.device)
        self.weights = run.class_weights
        if self.weights is not None:
            self.weights = self.weights.to(self.network.device)
        self.optimizer = _optimizer(self.network, run.config)
        self.checkpoint = run.out / CHECKPOINT
        self.progress = Progress()
        self.facts = {**run.facts, "amp": self.amp, "total": self.total}
        if resume and self.checkpoint.exists():
            self._load()

    def go(self) -> Progress:
        """Run the steps that are left."""
        report = Report(
            self.run.out, self.progress.step, self.total,
            enabled=True, tensorboard=self.config.tensorboard, shown=self.run.progress,
        )  # fmt: skip
        with report, stop_on_signals() as stop:
            if not self.progress.step:
                if self.run.fitted and self.run.validation is not None:
                    self._validate(report)
                self._save()
            self._steps(report, stop)
        if self.progress.best is None:  # nothing was judged: the last network counts
            self._measure()
        self.network.eval()
        return self.progress

    def _steps(self, report: Report, stop: Stop) -> None:
        saved = time.perf_counter()
        set_modes(self.network, self.config)
        while self.progress.step < self.total and not self.progress.stopped:
            values, waited = self._one_step()
            self.progress.step += 1
            clouds = self.run.drawing.batch_size * self.config.accumulate
            report.step(
                self.progress.step, values, waited, clouds=clouds, every=self.config.log_steps
            )
            last = self.progress.step == self.total
            if self.run.validation is not None and (last or self.progress.step % self.every == 0):
                self._validate(report)
            now = time.perf_counter()
            ends = last or self.progress.stopped or stop.asked
            if ends or now - saved >= 60 * self.config.checkpoint_minutes:
                self._save()
                saved = now
            if stop.asked and not last:
                raise TrainingError(
                    expected=f"a run of {self.total} steps",
                    got=f"a wish to stop after step {self.progress.step}",
                    fix="Go on with resume=True (--resume).",
                )

    def _one_step(self) -> tuple[dict[str, float], float]:
        rate = self._set_rates()
        step = self.progress.step
        torch.manual_seed(step_generator(self.run.drawing.seed, step, 0).initial_seed() % 2**63)
        self.optimizer.zero_grad(set_to_none=True)
        total, parts, waited = 0.0, dict[str, float](), 0.0
        for part in range(self.config.accumulate):
            started = time.perf_counter()
            batch, target = self.run.drawing.batch(step * self.config.accumulate + part)
            waited += time.perf_counter() - started
            device = self.network.device
            with torch.autocast(device.type, torch.bfloat16, enabled=self.amp):
                output = self.network(batch.to(device))
            loss, logged = self.network.task.loss(output, target.to(device), self.weights)
            (loss / self.config.accumulate).backward()
            total += float(loss.detach()) / self.config.accumulate
            for key, value in logged.items():
                parts[key] = parts.get(key, 0.0) + value / self.config.accumulate
        self._require_finite("loss", total)
        self._require_finite("gradient", self._clipped())
        self.optimizer.step()
        return {"loss": total, "lr": rate, **parts}, waited

    def _clipped(self) -> float:
        learns = [p for p in self.network.parameters() if p.grad is not None]
        most = self.config.clip or float("inf")
        return float(nn.utils.clip_grad_norm_(learns, most))

    def _set_rates(self) -> float:
        factor, momentum = schedule(self.config, self.progress.step, self.total)
        rate = factor * self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
            if self.config.optimizer == "sgd":
                group["momentum"] = momentum
        return rate

    def _require_finite(self, what: str, value: float) -> None:
        if not np.isfinite(value):
            raise TrainingError(
                expected=f"a finite {what}",
                got=f"{value} at step {self.progress.step}",
                fix="Lower the learning rate or set amp=False; the last checkpoint is good.",
            )

    def _validate(self, report: Report) -> None:
        """Judge the network, keep it if it is the best, and see whether to stop."""
        assert self.run.validation is not None, "asked before"
        if self.progress.step:
            self._measure()
        self.network.eval()
        score = self.network.task.evaluate(self.network, self.run.validation)
        report.note("validation", self.progress.step, score.values)
        progress = self.progress
        better = progress.best is None or score.value > progress.best
        if better or score.value == progress.best:  # of equals the one that saw more
            progress.best, progress.best_step = score.value, progress.step
            self.run.keep_best(score)
        progress.waited = 0 if better else progress.waited + 1
        progress.stopped = 0 < self.config.patience <= progress.waited
        set_modes(self.network, self.config)

    def _measure(self) -> None:
        """Bring the statistics of normalisations up to date."""
        if self.config.method == "full":
            set_modes(self.network, self.config)
            first = self.progress.step * self.config.accumulate
            batches = range(first, first + self.config.statistics)
            draw = self.run.drawing.batch
            seen = (draw(number)[0].to(self.network.device) for number in batches)
            measure_statistics(self.network, seen)

    def _save(self) -> None:
        facts = {**self.facts, "progress": dataclasses.asdict(self.progress)}
        try:
            save_checkpoint(self.checkpoint, self.network, self.optimizer, facts)
        except Exception as error:
            with contextlib.suppress(OSError):
                self.checkpoint.with_name(f"{CHECKPOINT}.part").unlink(missing_ok=True)
            raise TrainingError(
                expected=f"room and permission to write {self.checkpoint}",
                got=str(error),
                fix="Free space and go on with resume=True; the checkpoint before is unchanged.",
            ) from error

    def _load(self) -> None:
        stored = read_facts(self.checkpoint)
        facts = {key: _plain(value) for key, value in self.facts.items()}
        changed = [key for key, value in facts.items() if stored.get(key) != value]
        if changed:
            raise ConfigError(
                expected="the settings, encoder and data that the run began with",
                got=f"another {', '.join(changed)}",
                fix="Repeat the call of the run, or start anew in another folder.",
            )
        load_checkpoint(self.checkpoint, self.network, self.optimizer)
        try:
            self.progress = Progress(**stored["progress"])
            self.progress.require_possible()
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                expected=f"a checkpoint of a fine-tuning in {self.checkpoint}",
                got=str(error),
                fix="Start anew in another folder.",
            ) from error


def schedule(config: FinetuneConfig, step: int, total: int) -> tuple[float, float]:
    """Return the factor of the rate and the momentum of a step; see ``FinetuneConfig.schedule``.

    ``one_cycle`` turns the momentum from 0.95 down to 0.85 and back, as PyTorch's does.
    """
    warm = max(1, round(config.warmup * total)) if config.warmup else 0
    if config.schedule == "one_cycle":
        up = config.warmup
        factor = one_cycle_schedule(step, total, 0.1, 1.0, config.final, warmup=up)
        return factor, one_cycle_schedule(step, total, 0.95, 0.85, 0.95, warmup=up)
    if step < warm:
        return (step + 1) / warm, config.momentum
    if config.schedule == "constant":
        return 1.0, config.momentum
    position = (step - warm) / max(1, total - warm)
    down = (1.0 - position) ** 0.9
    if config.schedule == "cosine":
        down = 0.5 * (1.0 + float(np.cos(np.pi * position)))
    return config.final + (1.0 - config.final) * down, config.momentum


def binding(config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings that must not change between the parts of a run."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in _MAY_CHANGE}


def _optimizer(network: Network, config: FinetuneConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(network, config)
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0.0
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _plain(value: Any) -> Any:
    """Return JSON types: tuples and lists are alike there."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
