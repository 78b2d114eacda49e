"""Every reader and parser takes whatever bytes it gets, or refuses them by a typed error.

A few examples of each target; ``benchmarks/fuzz.py`` runs them for longer. Inputs that once
crashed or hung lie in ``tests/fuzz/TARGET/`` and are run again.
"""

from __future__ import annotations

import signal
import tempfile
import warnings
from pathlib import Path
from random import Random

import pytest
from fuzz_targets import TARGETS, execute, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEPT = sorted(path for path in (Path(__file__).parent / "fuzz").rglob("*") if path.is_file())
SECONDS = 30  # generous: the machine may be busy, a hang lasts longer
COSTLY = ("weight config", "weight tensors", "model config", "model tensors")


class HangError(BaseException):
    """Raised by the alarm; no handler of errors may swallow it."""


def ring(_signal: object, _frame: object) -> None:
    raise HangError


@pytest.fixture(autouse=True)
def _alarm() -> object:
    previous = signal.signal(signal.SIGALRM, ring)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parsers at damaged content
        yield
    signal.signal(signal.SIGALRM, previous)


def check(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as top:
        TARGETS[name].seeds(Path(top))
        found = execute(TARGETS[name], data, Path(top) / "work")
    if found is not None:
        raise found


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_mutations(name: str, tmp_path: Path):
    target = TARGETS[name]
    seeds = target.seeds(tmp_path)

    @settings(
        max_examples=4 if name in COSTLY else 12,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.integers(0, 2**32))
    def run(number: int) -> None:
        data = mutate(target, seeds, Random(number))  # noqa: S311
        signal.alarm(SECONDS)
        found = execute(target, data, tmp_path / "work")
        signal.alarm(0)
        if found is not None:
            raise found

    run()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_crashed(path: Path):
    signal.alarm(SECONDS)
    check(path.parent.name.replace("_", " "), path.read_bytes())
    signal.alarm(0)


def test_something_was_kept():
    assert KEPT
