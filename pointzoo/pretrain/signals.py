"""Ctrl-C and SIGTERM as a wish to stop after the current step."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether somebody wants the run to end.

    Attributes:
        asked: Becomes true with the first signal.
    """

    asked: bool = False


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Note Ctrl-C and SIGTERM instead of dying of them; outside the main thread nothing changes."""
    stop = Stop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever owns it decides
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
