"""Whatever was tampered with is refused by a typed error, in bounded time and memory."""

from __future__ import annotations

import resource
import signal
import tracemalloc
from pathlib import Path

import pytest
from tamper import CASES, KINDS, Case, attempt, prepare

from pointzoo.errors import PointzooError

SECONDS = 20  # a busy machine needs some; a hang lasts longer
LARGEST = 128 << 20  # bytes of Python and numpy
GROWTH = 768 << 20  # bytes of the whole process, over all cases


class HangError(BaseException):
    """Raised by the alarm; no handler of errors may swallow it."""


def ring(_signal: object, _frame: object) -> None:
    raise HangError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("whole")
    return {kind: prepare(kind, place / kind) for kind in KINDS}


@pytest.fixture(scope="module", autouse=True)
def _bounded(whole: dict[str, Path]) -> object:
    """Measure what the process takes over all cases."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < GROWTH


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"fields", "file", "pickle", "log", "frames"}))
def test_whole_inputs_are_taken(whole: dict[str, Path], kind: str, tmp_path: Path):
    attempt(Case(kind, "nothing", lambda _: None), whole[kind], tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.what}")
def test_tampered_inputs_are_refused(whole: dict[str, Path], case: Case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    previous = signal.signal(signal.SIGALRM, ring)
    tracemalloc.start()
    signal.alarm(SECONDS)
    try:
        with pytest.raises(PointzooError):
            attempt(case, whole[case.kind], tmp_path)
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        signal.alarm(0)
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, previous)
    assert not (tmp_path / "harm").exists()
