"""What the scripts that make weight folders share: sources, hours and authors of a card."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pointzoo.cards import DataSource, Metric

ROOT = Path(__file__).resolve().parent.parent
CARDS = ROOT / "weights_cards"
RESULTS = ROOT / "docs" / "results"
sys.path.append(str(ROOT / "benchmarks"))  # for figures.py


def stored_results(name: str) -> dict[str, Any]:
    """Return what a benchmark wrote into docs/results; no cells where it did not run."""
    file = RESULTS / name
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"cells": []}
    return found


def metrics(figures: dict[str, str], command: str) -> tuple[Metric, ...]:
    """Return figures of one command as a card holds them."""
    return tuple(Metric(name, value, command) for name, value in figures.items())


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def hours(run: Path, batch_size: int) -> float:
    """Sum the time of the steps; pauses between the parts of a resumed run do not count."""
    steps = [line for line in read_log(run) if line["kind"] == "step"]
    every = steps[1]["step"] - steps[0]["step"]
    seconds: float = sum(batch_size * every / line["clouds_per_second"] for line in steps)
    return round(seconds / 3600, 2)


def source(
    manifest: Path, what: str, command: str, authors: Iterable[str], licence: str
) -> DataSource:
    """Describe a corpus.

    Args:
        manifest: Its manifest, whose checksum tells corpora of one command apart.
        what: Name and size, for example ``"ldraw: 5,798 shapes"``.
        command: That builds it.
        authors: Of its sources.
        licence: Of its sources.
    """
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
    different = sorted(set(authors))
    author = different[0] if len(different) == 1 else f"{len(different)} authors, named below"
    return DataSource(f"{what} (`{command}`, manifest {digest})", author, licence.lower())


def author_list(authors: Iterable[str]) -> str:
    """Return names with the number of their works, as the licences ask for."""
    counts = sorted(Counter(authors).items())
    return "; ".join(f"{name} ({count})" for name, count in counts) + "."
