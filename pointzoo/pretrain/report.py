"""Progress bar, JSON-lines log and TensorBoard events of a training run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pointzoo.errors import MissingExtraError
from pointzoo.intake import parse_json

LOG = "log.jsonl"


class Report:
    """Says how a run goes, on a terminal and in ``log.jsonl``.

    Lines of the log hold ``kind`` ("step", "health", "validation"), ``step``, ``time`` (Unix
    seconds) and the values; a step line averages the steps since the last one. ``waiting`` is the
    share of the time that the networks waited for data, ``views`` the share that went into crops,
    sampling and neighbours.
    """

    def __init__(
        self,
        out: Path,
        step: int,
        total: int,
        *,
        enabled: bool,
        tensorboard: bool,
        shown: bool = True,
    ) -> None:
        """Open the log; lines after ``step``, written by a run that was killed, are dropped.

        Args:
            out: Folder of the run.
            step: Steps done before.
            total: Steps of the whole run.
            enabled: Whether this process reports at all.
            tensorboard: Whether to write TensorBoard events, too.
            shown: Whether to show a bar on stderr.
        """
        self.enabled = enabled
        self.sums: dict[str, float] = {}
        self.count, self.waited = 0, 0.0
        self.started = time.perf_counter()
        self.console = Console(stderr=True, quiet=not (enabled and shown))
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console, disable=not (enabled and shown))
        self.task = self.progress.add_task("train", total=total, completed=step, text="")
        self.path = out / LOG
        self.events: Any = _events(out) if tensorboard and enabled else None
        if enabled:
            _truncate(self.path, step)

    def __enter__(self) -> Report:
        """Show the bar."""
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar."""
        self.progress.stop()
        if self.events is not None:
            self.events.close()

    def step(
        self, step: int, values: Mapping[str, float], waited: float, *, clouds: int, every: int
    ) -> None:
        """Count a step; write a line every ``every`` steps.

        Args:
            step: Steps done.
            values: What to average and log.
            waited: Seconds that the step waited for its batch.
            clouds: Clouds of the step, over all processes.
            every: Steps per line.
        """
        self.count += 1
        self.waited += waited
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.progress.update(self.task, completed=step)
        if step % every:
            return
        elapsed = time.perf_counter() - self.started
        means = {key: value / self.count for key, value in self.sums.items()}
        views = self.sums.get("views_seconds", 0.0) / elapsed
        rate = {
            "clouds_per_second": clouds * self.count / elapsed,
            "waiting": self.waited / elapsed,
            "views": views,
        }
        self._write("step", step, {**means, **rate})
        text = (
            f"loss {means['loss']:.3f}, {rate['clouds_per_second']:.0f} clouds/s, "
            f"waiting {rate['waiting']:.0%}, views {views:.0%}"
        )
        self.progress.update(self.task, text=text)
        self.sums, self.count, self.waited = {}, 0, 0.0
        self.started = time.perf_counter()

    def health(self, step: int, values: Mapping[str, float]) -> None:
        """Log a health check and print it above the bar."""
        self.note("health", step, values)

    def note(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log what was measured after a step, and print it above the bar."""
        self._write(kind, step, values)
        shown = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in values.items())
        self.progress.console.print(f"step {step}: {shown}")

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if not self.enabled:
            return
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.events is not None:
            for key, value in values.items():
                self.events.add_scalar(f"{kind}/{key}", value, step)


def _truncate(path: Path, step: int) -> None:
    """Drop lines after ``step``, and a line that a killed process left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if parse_json(line)["step"] <= step:
                kept.append(line + "\n")
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def _events(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
    return SummaryWriter(str(out / "events"))
