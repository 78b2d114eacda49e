"""Whatever was tampered with is refused by a typed error, in bounded time and memory."""

from __future__ import annotations

import resource
import shutil
import signal
import tracemalloc
from pathlib import Path

import pytest
from hub_server import HubServer
from tamper import CARD, CASES, KINDS, Case, attempt, encoder, prepare
from test_hub import server  # noqa: F401  # a fixture

import pointzoo as pz
from pointzoo import hub
from pointzoo.errors import PointzooError

SECONDS = 90  # a busy machine that measures coverage needs some; a hang lasts longer
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


def test_names_on_the_hub_lead_nowhere(server: HubServer, tmp_path: Path):  # noqa: F811
    """Files of a repository beside the three that are needed are never fetched."""
    done = encoder().push_to_hub("me/toy", card=CARD)
    repo = server.repos["me/toy"]
    repo.commit("main", {"../../../evil": b"x", "/evil": b"x", "a/../../evil": b"x"}, "a stranger")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    pz.load_encoder("hf-hub:me/toy")
    found = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink()}
    assert found == {"README.md", "config.json", "model.safetensors"}
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    hub.clear_cache()
    repo.commit("main", {"config.json": b"[" * 100_000}, "a stranger")
    with pytest.raises(PointzooError):
        pz.load_encoder("hf-hub:me/toy")
    assert pz.load_encoder(str(done.name))


def test_a_link_in_the_cache_is_damage(whole: dict[str, Path], tmp_path: Path, monkeypatch):
    from huggingface_hub import constants

    folder = Path(shutil.copytree(whole["cache"], tmp_path / "cache", symlinks=True))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    (entry,) = hub.list_cached()
    assert hub.damage(entry) == []
    card = entry.folder / "README.md"
    outside = tmp_path / "outside"
    outside.write_bytes(card.read_bytes())
    card.unlink()
    card.symlink_to(outside)
    assert hub.damage(entry) == ["README.md is not what the Hub has"]
    hub._spoiled(card, entry.name)
    assert outside.exists()
    assert not card.exists()
