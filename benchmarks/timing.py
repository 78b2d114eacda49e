"""Timing of several things in one run, for the benchmarks that compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def interleaved(runs: Sequence[Callable[[], object]], repeats: int) -> list[dict[str, float]]:
    """Return median, smallest and largest processor seconds of each, after one run to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, kept in zip(runs, seconds, strict=True):
            start = time.process_time()
            run()
            if repeat:
                kept.append(time.process_time() - start)
    return [
        {"median": statistics.median(kept), "low": min(kept), "high": max(kept)} for kept in seconds
    ]
