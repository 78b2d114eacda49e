"""Pushing to a Hub and fetching from it: the real client and a real server on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from finetune_toys import Rooms, make_room
from hub_server import HubServer, Repo
from huggingface_hub import constants
from test_cards import CARD

import pointzoo as pz
from pointzoo import hub, sharing, zoo
from pointzoo.cli import main
from pointzoo.errors import ConfigError, FormatError, HubError, UnknownNameError, WeightError
from pointzoo.finetuning.model import Model
from pointzoo.finetuning.share import push_directory
from pointzoo.hub import HubName

NAME = "hf-hub:me/toy"
FIELDS = {
    "license": "cc-by-4.0",
    "hardware": "one CPU core",
    "hours": 0.01,
    "sources": [{"name": "made-up rooms", "author": "the tests", "license": "cc0-1.0"}],
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A running Hub that the client of this process talks to, with an empty cache."""
    with HubServer().running() as running:
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def encoder() -> pz.PointEncoder:
    return pz.create_encoder("vit3d_test", seed=3)


@pytest.fixture
def pushed(server: HubServer, encoder: pz.PointEncoder) -> str:
    """Return the commit of an encoder on the Hub, not cached yet."""
    return encoder.push_to_hub("me/toy", card=CARD).name.revision


@pytest.fixture(scope="module")
def model() -> Model:
    data = Rooms(seeds=(0, 1))
    return pz.finetune("sparseunet_test", data, max_steps=2, amp=False)


def environment(server: HubServer, home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a new process that uses the server."""
    return {
        **os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_TOKEN": server.token,
        "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip


def python(code: str, env: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *words]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def same(one: pz.PointEncoder, other: pz.PointEncoder) -> bool:
    mine, yours = one.state_dict(), other.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(mine[key], yours[key]) for key in mine)


def test_an_encoder_comes_back_bit_for_bit(server: HubServer, encoder, tmp_path: Path):
    picture = tmp_path / "view.png"
    picture.write_bytes(b"a picture")
    card = dataclasses.replace(CARD, notes="## Pictures\n\n![a view](view.png)")
    done = encoder.push_to_hub("me/toy", card=card, pictures=[picture], message="First")
    repo = server.repos["me/toy"]
    assert repo.messages == ["initial commit", "First"]
    assert sorted(repo.commits[done.name.revision]) == [
        ".gitattributes", "README.md", "config.json", "model.safetensors", "view.png",
    ]  # fmt: skip
    assert done.done
    loaded = pz.load_encoder(NAME)
    assert same(loaded, encoder)
    info = pz.encoder_info(NAME)
    assert info.name == str(done.name)
    assert info.card is not None
    assert info.card.license == "apache-2.0"
    assert info.card.facts is not None
    assert info.card.facts.parameters == sum(p.numel() for p in encoder.parameters())


def test_a_model_comes_back_in_a_new_process_and_without_the_server(
    server: HubServer, model: Model, tmp_path: Path
):
    done = model.push_to_hub("me/rooms", card=FIELDS)
    files = server.repos["me/rooms"].commits[done.name.revision]
    assert set(files) - {".gitattributes"} == {"model.safetensors", "config.json", "README.md"}
    room = make_room(9)
    np.savez(tmp_path / "in.npz", coords=room.coords, colors=room.colors)
    expected = model.predict(pz.PointCloud(room.coords, colors=room.colors)).probabilities
    code = f"""
import socket, sys, time, numpy as np, pointzoo as pz, torch
torch.set_num_threads(1)
import pointzoo.finetuning.model
if sys.argv[1:] == ["alone"]:
    socket.socket.connect = time.sleep = None  # whoever asks or waits fails
start = time.process_time()  # a busy machine does not count
model = pz.load_model("hf-hub:me/rooms")
print(time.process_time() - start)
room = np.load({str(tmp_path / "in.npz")!r})
cloud = pz.PointCloud(room["coords"], colors=room["colors"])
np.save({str(tmp_path / "out.npy")!r}, model.predict(cloud).probabilities)
"""
    env = environment(server, tmp_path / "home")
    python(code, env)
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    asked = len(server.requests)
    (tmp_path / "out.npy").unlink()
    seconds = float(python(code, {**env, "HF_ENDPOINT": "http://127.0.0.1:1"}, "alone"))
    assert seconds < 2
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    assert len(server.requests) == asked


def test_a_branch_means_what_it_meant_when_it_was_fetched(server: HubServer, pushed: str, encoder):
    assert same(pz.load_encoder(NAME), encoder)
    asked = len(server.requests)
    server.status = 503  # nobody is asked any more
    assert same(pz.load_encoder(NAME), encoder)
    assert same(pz.load_encoder(f"{NAME}@{pushed}"), encoder)
    assert len(server.requests) == asked
    server.status = 0
    other = pz.create_encoder("vit3d_test", seed=4)
    other.push_to_hub("me/toy", card=CARD)
    assert same(pz.load_encoder(NAME), other)  # who pushes sees it
    assert same(pz.load_encoder(f"{NAME}@{pushed}"), encoder)


def test_a_branch_of_ones_own(server: HubServer, pushed: str):
    other = pz.create_encoder("vit3d_test", seed=5)
    other.push_to_hub("me/toy", card=CARD, revision="try/wide", private=True)
    assert not server.repos["me/toy"].private  # it was there already
    assert same(pz.load_encoder(f"{NAME}@try/wide"), other)
    assert pz.encoder_info(NAME).name == f"{NAME}@{pushed}"
    assert [entry.refs for entry in hub.list_cached()] in ([("main",), ("try/wide",)],
                                                           [("try/wide",), ("main",)])  # fmt: skip


def test_offline(server: HubServer, pushed: str, encoder, monkeypatch):
    pz.load_encoder(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    assert same(pz.load_encoder(NAME), encoder)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        pz.load_encoder("hf-hub:me/another")


def test_a_dead_server_is_not_waited_for(server: HubServer, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(time, "sleep", None)  # no retries
    with pytest.raises(HubError, match="Check the network and HF_ENDPOINT"):
        pz.load_encoder(NAME)


def test_a_dropped_connection_is_taken_up_again(
    server: HubServer, pushed: str, encoder, monkeypatch
):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is kept of a piece: 10 MB
    server.drop = 2
    assert same(pz.load_encoder(NAME), encoder)
    ranges = [r for method, path, r in server.asked("model.safetensors") if method == "GET"]
    assert len(ranges) == 3
    assert not ranges[0]
    assert ranges[1].startswith("bytes=")
    assert ranges[2].startswith("bytes=")


def test_a_connection_that_always_drops(server: HubServer, pushed: str, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    server.drop = 10**6
    with pytest.raises(HubError, match="Check the network"):
        pz.load_encoder(NAME)
    assert hub.cached(HubName.parse(NAME)) is None


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "README.md"])
def test_wrong_bytes_are_thrown_away(server: HubServer, pushed: str, encoder, file: str):
    server.spoil = {file}
    with pytest.raises(HubError, match=f"expected {file} of .* got other bytes"):
        pz.load_encoder(NAME)
    server.spoil = set()
    assert same(pz.load_encoder(NAME), encoder)


def test_tensors_that_are_not_those_of_the_config(server: HubServer, pushed: str):
    repo = server.repos["me/toy"]
    data = repo.commits[pushed]["model.safetensors"]
    repo.commit("main", {"model.safetensors": data[:-1] + b"x"}, "a stranger")
    with pytest.raises(HubError, match="got other bytes"):
        pz.load_encoder(NAME)
    assert hub.cached(HubName.parse(NAME)) is None


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "no valid token.*HF_TOKEN"),
        (403, "not allowed.*HF_TOKEN"),
        (418, "HTTP 418"),
        (429, "too many requests.*Wait"),
        (500, "the Hub has a fault.*Try again later"),
        (503, "the Hub has a fault"),
    ],
)
def test_the_hub_refuses(server: HubServer, pushed: str, status: int, told: str, encoder):
    server.status = status
    with pytest.raises(HubError, match=told):
        pz.load_encoder(NAME)
    with pytest.raises(HubError, match=told):
        encoder.push_to_hub("me/toy", card=CARD)


def test_what_is_not_there(server: HubServer, pushed: str, monkeypatch):
    with pytest.raises(HubError, match="404: no repository 'me/nothing'"):
        pz.load_encoder("hf-hub:me/nothing")
    with pytest.raises(HubError, match="404: no revision 'v9'"):
        pz.load_encoder(f"{NAME}@v9")
    repo = server.repos["me/toy"]
    repo.commits[repo.commit("main", {}, "less")].pop("config.json")
    with pytest.raises(HubError, match=r"got no config\.json"):
        pz.load_encoder(NAME)
    server.file_status = 404
    with pytest.raises(HubError, match="HTTP 404: a file is missing"):
        pz.load_encoder(f"{NAME}@{pushed}")
    server.file_status = 403
    with pytest.raises(HubError, match="HTTP 403: not allowed"):
        pz.load_encoder(f"{NAME}@{pushed}")


def test_private_and_gated_repositories(server: HubServer, encoder, monkeypatch):
    encoder.push_to_hub("me/toy", card=CARD, private=True)
    assert server.repos["me/toy"].private
    monkeypatch.setenv("HF_TOKEN", "somebody")
    with pytest.raises(HubError, match=r"401: no valid token.*set HF_TOKEN"):
        pz.load_encoder(NAME)
    with pytest.raises(HubError, match="401"):
        encoder.push_to_hub("me/other", card=CARD)
    encoder.push_to_hub("me/other", card=CARD, token=server.token)
    monkeypatch.setenv("HF_TOKEN", server.token)
    server.repos["me/toy"].gated = True
    with pytest.raises(HubError, match=r"gated.*Ask for access"):
        pz.load_encoder(NAME)


def test_two_processes_fetch_at_once_and_one_is_killed(
    server: HubServer, pushed: str, tmp_path: Path
):
    server.pause = 0.02
    home = tmp_path / "home"
    code = f"from pointzoo.hub import *; print(fetch(HubName.parse({NAME!r})))"
    command = [sys.executable, "-c", code]
    options: dict[str, Any] = {"env": environment(server, home), "stdout": subprocess.PIPE,
                               "stderr": subprocess.DEVNULL, "text": True}  # fmt: skip
    with subprocess.Popen(command, **options) as first:
        while not any(m == "GET" for m, *_ in server.asked("model.safetensors")):
            time.sleep(0.01)
        with subprocess.Popen(command, **options) as second:
            time.sleep(0.1)
            first.send_signal(signal.SIGKILL)
            folder = Path(second.communicate()[0].strip())
            assert second.returncode == 0
        assert first.wait() == -signal.SIGKILL
    blobs = home / "hub" / "models--me--toy" / "blobs"
    assert all(hub._is_intact(blob) for blob in blobs.iterdir())
    for partial in blobs.glob("*.incomplete"):
        os.utime(partial, (0, 0))  # a minute later
    environ = environment(server, home)
    checked = python("from pointzoo.hub import *; print(*map(damage, list_cached()))", environ)
    assert checked == "[]"
    assert not list(blobs.glob("*.incomplete"))
    assert len(pz.load_encoder(folder).state_dict())
    server.status = 503
    assert python(code, environment(server, home)) == str(folder)


def test_partial_files_of_the_dead_are_swept(server: HubServer, pushed: str):
    store = hub._store("me/toy")
    data = server.repos["me/toy"].commits[pushed]["model.safetensors"]
    (store / "blobs").mkdir(parents=True)
    blob = hub.hashlib.sha256(data).hexdigest()
    old, new = (store / "blobs" / f"{blob}.{word}.incomplete" for word in ("old", "new"))
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (0, 0))
    other = store / "blobs" / f"{'0' * 64}.incomplete"  # of a file that is not whole: goes on
    other.write_bytes(b"")
    os.utime(other, (0, 0))
    hub.fetch(HubName.parse(NAME))
    assert not old.exists()
    assert new.exists()
    os.utime(new, (0, 0))
    assert hub.damage(hub.list_cached()[0]) == []
    assert not new.exists()
    assert other.exists()


def test_a_registered_name_that_lives_on_the_hub(server: HubServer, pushed: str, monkeypatch):
    data = server.repos["me/toy"].commits[pushed]["model.safetensors"]
    entry = zoo.Weight("vit3d_test.toy", "vit3d_test", hub.hashlib.sha256(data).hexdigest(),
                       repo="me/toy", commit=pushed)  # fmt: skip
    monkeypatch.setattr(zoo, "WEIGHTS", {entry.name: entry})
    info = pz.encoder_info(entry.name)
    assert info.pretrained
    assert not info.runs_here
    assert pz.list_encoders(runs_here=False) == [entry.name]
    assert not server.asked("resolve")
    pz.load_encoder(entry.name)
    info = pz.encoder_info(entry.name)
    assert info.runs_here
    assert info.name == entry.name
    wrong = dataclasses.replace(entry, sha256="0" * 64)
    monkeypatch.setattr(zoo, "WEIGHTS", {entry.name: wrong})
    with pytest.raises(WeightError, match="of the registry"):
        pz.load_encoder(entry.name)


@pytest.mark.parametrize("full", [False, True])
def test_a_model_names_its_encoder_on_the_hub_or_holds_it(
    server: HubServer, pushed: str, tmp_path: Path, full: bool
):
    source: Any = NAME
    if full:  # a folder of this machine is nothing that others can load
        source = sharing.export_weight(NAME, tmp_path / "encoder")
    made = pz.finetune(source, Rooms(seeds=(0, 1)))
    made.push_to_hub("me/rooms", card=FIELDS)
    if full:
        (tmp_path / "encoder").rename(tmp_path / "moved")
    found = pz.load_model("hf-hub:me/rooms")
    assert found.source.kind == ("embedded" if full else "hub")
    assert found.source.name == ("vit3d_test" if full else f"{NAME}@{pushed}")
    room = make_room(9)
    expected, got = made.predict(room), found.predict(room)
    assert np.array_equal(expected.probabilities, got.probabilities)


def test_a_dry_run_sends_nothing(server: HubServer, encoder, model: Model):
    planned = encoder.push_to_hub("me/toy", card=CARD, dry_run=True)
    assert not planned.done
    assert [name for name, _ in planned.files] == ["README.md", "config.json", "model.safetensors"]
    assert model.push_to_hub("me/rooms", card=FIELDS, dry_run=True).name == HubName("me/rooms")
    assert not server.requests


@pytest.mark.parametrize("field", ["license", "hardware", "hours", "sources"])
def test_a_card_that_lacks_a_field_keeps_a_model_here(server: HubServer, model: Model, field: str):
    less = {key: value for key, value in FIELDS.items() if key != field}
    with pytest.raises(FormatError, match=rf"{field} is (missing|empty)"):
        model.push_to_hub("me/rooms", card=less)
    assert not server.requests


def test_a_card_that_cannot_be(server: HubServer, encoder, model: Model, tmp_path: Path):
    with pytest.raises(FormatError, match=r"license is .*pointzoo.sources is empty"):
        encoder.push_to_hub("me/toy")
    with pytest.raises(UnknownNameError, match="licence"):
        encoder.push_to_hub("me/toy", card={"licence": "mit"})
    with pytest.raises(FormatError, match="license is unknown"):
        encoder.push_to_hub("me/toy", card=dataclasses.replace(CARD, license="unknown"))
    with pytest.raises(FormatError, match=r"view.png is not in the folder"):
        encoder.push_to_hub("me/toy", card=dataclasses.replace(CARD, notes="![x](view.png)"))
    with pytest.raises(FormatError, match="the architecture 'vit3d_test', the card 'pct'"):
        encoder.push_to_hub("me/toy", card=dataclasses.replace(CARD, architecture="pct"))
    with pytest.raises(ConfigError, match="pictures"):
        encoder.push_to_hub("me/toy", card=CARD, pictures=[tmp_path / "notes.txt"])
    with pytest.raises(FormatError, match="fields of a card"):
        model.push_to_hub("me/toy", card={**FIELDS, "hours": "long"})
    for name, text in (("a.yaml", "- 1"), ("b.json", "{"), ("c.yml", "a: [")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match="fields of a card"):
            model.push_to_hub("me/toy", card=tmp_path / name)
    assert not server.requests


def test_the_validator_of_the_hub_has_the_last_word(server: HubServer, encoder):
    with pytest.raises(HubError, match='"license" must be one of'):
        encoder.push_to_hub("me/toy", card=dataclasses.replace(CARD, license="wtfpl"))
    assert server.repos["me/toy"].messages == ["initial commit"]


@pytest.mark.parametrize(
    "name", ["toy", "me/toy/x", "../toy", "me/..", "me/a--b", "me/toy@", "me/toy@../../x", "me/t y"]
)
def test_names_that_are_none(name: str):
    with pytest.raises(ConfigError, match="hf-hub:owner/repo"):
        pz.load_encoder(f"hf-hub:{name}")


def test_folders_are_pushed_as_they_are(server: HubServer, encoder, model: Model, tmp_path: Path):
    folder = pz.save_encoder(encoder, tmp_path / "toy", card=CARD)
    push_directory(folder, "me/toy")
    pushed = server.repos["me/toy"].commits[server.repos["me/toy"].branches["main"]]
    assert pushed["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert pushed["README.md"] == (folder / "README.md").read_bytes()
    (tmp_path / "card.json").write_text(json.dumps(FIELDS))
    saved = model.save(tmp_path / "rooms")
    push_directory(saved, "me/rooms", card=tmp_path / "card.json")
    again = sharing.export_weight("hf-hub:me/rooms", tmp_path / "again")
    push_directory(again, "me/twice")  # its card is complete by now
    assert pz.encoder_info(folder).card is not None
    push_directory(folder, "me/other", card=CARD)
    assert same(pz.load_encoder("hf-hub:me/other"), pz.load_encoder(folder))
    with pytest.raises(WeightError):
        push_directory(tmp_path, "me/nothing")
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(WeightError, match="sha256"):
        sharing.push_folder(folder, "me/toy")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightError, match=r"model.safetensors and config.json"):
        sharing.push_folder(folder, "me/toy")


def test_what_is_in_the_cache(server: HubServer, pushed: str, encoder, tmp_path: Path):
    assert hub.list_cached() == []
    pz.load_encoder(NAME)
    foreign = hub._store("you/language") / "snapshots" / ("1" * 40)
    foreign.mkdir(parents=True)
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    broken = hub._store("you/broken") / "snapshots" / ("1" * 40)
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    (entry,) = hub.list_cached()
    assert entry.name == HubName("me/toy", pushed)
    assert entry.refs == ("main",)
    assert hub.damage(entry) == []
    exported = sharing.export_weight(NAME, tmp_path / "toy")
    assert same(pz.load_encoder(exported), encoder)
    with pytest.raises(ConfigError, match="new or empty folder"):
        sharing.export_weight(NAME, exported)
    blob = (entry.folder / "model.safetensors").resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1])
    assert hub.damage(entry) == ["model.safetensors is not what the Hub has"]
    with pytest.raises(WeightError, match="sha256"):
        sharing.export_weight(NAME, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    (entry.folder / "model.safetensors").unlink()
    assert hub.damage(entry) == ["model.safetensors is missing"]
    (entry.folder / "model.safetensors").write_bytes(data[:-1])  # no link: no checksum of the Hub
    assert hub.damage(entry) == ["model.safetensors has another sha256 than config.json says"]
    with pytest.raises(UnknownNameError, match="me/toy"):
        hub.clear_cache("me/toi")
    with pytest.raises(UnknownNameError):
        hub.clear_cache("you/language")
    assert [one.name for one in hub.clear_cache()] == [entry.name]
    assert hub.list_cached() == []
    assert foreign.is_dir()


def test_a_damaged_ref_is_no_ref(server: HubServer, pushed: str, encoder):
    pz.load_encoder(NAME)
    (hub._store("me/toy") / "refs" / "main").write_bytes(b"\xff../../..")
    assert hub.cached(HubName.parse(NAME)) is None
    (hub._store("me/toy") / "refs" / "main").write_text("../../..")
    assert hub.cached(HubName.parse(NAME)) is None
    assert same(pz.load_encoder(NAME), encoder)


def test_a_commit_that_is_none(server: HubServer, pushed: str):
    repo = server.repos["me/toy"]
    repo.commits["../../x"] = repo.commits[pushed]
    repo.branches["main"] = "../../x"
    with pytest.raises(HubError, match=r"the commit '../../x'"):
        pz.load_encoder(NAME)


def test_a_disk_that_refuses(server: HubServer, pushed: str, tmp_path: Path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(HubError, match="Free space or mend permissions"):
        pz.load_encoder(NAME)


def test_a_repository_without_a_card(server: HubServer, pushed: str, encoder):
    repo = server.repos["me/toy"]
    server.repos["me/bare"] = Repo()
    files = {key: data for key, data in repo.commits[pushed].items() if key != "README.md"}
    server.repos["me/bare"].commit("main", files, "by hand")
    assert same(pz.load_encoder("hf-hub:me/bare"), encoder)
    assert pz.encoder_info("hf-hub:me/bare").card is None


def command(*words: object, code: int = 0, answer: str = "") -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], input=answer)
    assert result.exit_code == code, result.output
    return result.stdout


def test_commands(server: HubServer, model: Model, tmp_path: Path):
    saved = model.save(tmp_path / "rooms")
    (tmp_path / "card.json").write_text(json.dumps(FIELDS))
    words = ("push", saved, "me/rooms", "--card", tmp_path / "card.json")
    assert "would be pushed: hf-hub:me/rooms@main" in command(*words, "--dry-run")
    assert not server.requests
    assert "pushed: hf-hub:me/rooms@" in command(*words, "--private", "--message", "Mine")
    assert server.repos["me/rooms"].private
    assert server.repos["me/rooms"].messages[-1] == "Mine"
    refused = CliRunner().invoke(main, ["push", str(saved), "me/rooms"])
    assert refused.exit_code == 2
    assert "license is empty; pointzoo.hardware is empty" in refused.stderr
    assert command("cache", "list") == ""
    out = tmp_path / "out"
    assert command("cache", "export", "hf-hub:me/rooms", out) == f"{out}\n"
    assert pz.load_model(out).class_names == model.class_names
    pz.write(tmp_path / "room.ply", make_room(9))
    command("predict", "hf-hub:me/rooms", tmp_path / "room.ply", "-o", tmp_path / "labelled.ply")
    assert "main" in command("cache", "list")
    assert command("cache", "verify").endswith(": whole\n")
    (hub.list_cached()[0].folder / "README.md").resolve().write_text("other")
    assert "README.md is not what the Hub has" in command("cache", "verify", code=2)
    command("cache", "clear", answer="n\n", code=1)
    assert hub.list_cached()
    assert "deleted hf-hub:me/rooms@" in command("cache", "clear", "me/rooms", "--yes")
    assert command("cache", "list") == ""
