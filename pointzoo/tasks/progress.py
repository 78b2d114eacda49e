"""A progress bar for work in stages, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Bar:
    """The current stage; without a display nothing is shown.

    Attributes:
        title: What the work is about; stands before every stage.
        display: Where stages are drawn, or None.
    """

    title: str
    display: Progress | None

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of ``total`` steps; the one before disappears."""
        if self.display is not None:
            for task in self.display.task_ids:
                self.display.remove_task(task)
            self.display.add_task(f"{self.title}: {stage}", total=total)

    def advance(self, steps: int = 1) -> None:
        """Count one step or several."""
        if self.display is not None:
            self.display.advance(self.display.task_ids[-1], steps)


@contextmanager
def progress_bar(title: str, *, shown: bool) -> Iterator[Bar]:
    """Show progress on stderr while the block runs."""
    if not shown:
        yield Bar(title, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as display:
        yield Bar(title, display)
