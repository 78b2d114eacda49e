"""What is fuzzed: for every reader and parser its valid inputs, and the call that takes one.

``tests/test_fuzz.py`` runs a few examples of each and every input that once crashed
(``tests/fuzz/TARGET/``); ``benchmarks/fuzz.py`` runs for as long as it is told.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import tamper
import test_io_fuzz
import yaml

import pointzoo as pz
from pointzoo import io
from pointzoo.cards import check_card
from pointzoo.data import open_dataset
from pointzoo.data.corpus import read_corpus
from pointzoo.data.rooms import read_frames, read_rooms
from pointzoo.errors import PointzooError
from pointzoo.finetuning.store import _digest
from pointzoo.hub import HubName
from pointzoo.sharing import as_card
from pointzoo.viz.figures import read_curves

Run = Callable[[bytes, Path], object]
Seeds = Callable[[Path], list[bytes]]

INTERESTING = (
    *(b"0", b"-1", b"1", b"4294967295", b"1152921504606846976", b"1e999", b"nan", b"-0.0", b"null"),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b":",
        b",",
        b"\n",
        b"#",
        b"&a ",
        b"*a",
        b"!!binary ",
        b"? ",
    ),
    *(b"0x", b"..", b"../", b"/dev/zero", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"[[[[[["),
    *(struct.pack("<I", n) for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
    *(struct.pack("<Q", n) for n in (0, 2**31, 2**40, 2**60, 2**63, 2**64 - 1)),
)
VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "../x",
    "/etc/passwd", "\ud800", "\x00", "0", [], {}, [[]], [{}], {"x": 1}, [1, 2, 3], ["a"], "é" * 50,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that reads bytes of others.

    Attributes:
        seeds: Makes valid inputs, in a folder that it may use.
        run: Takes one; gets an empty folder.
        kind: How it is mutated: ``bytes``, ``json``, ``yaml`` or ``tensors``.
    """

    seeds: Seeds
    run: Run
    kind: str = "bytes"


# Targets ------------------------------------------------------------------------------------------


def reader(name: str) -> Target:
    ending = name[name.rindex(".") :]

    def run(data: bytes, place: Path) -> object:
        path = place / f"a{ending}"
        path.write_bytes(data)
        return io.read(path, points=20)

    kind = "json" if ending == ".gltf" else "bytes"
    return Target(lambda place: [test_io_fuzz.seed(name, place)], run, kind)


def gltf(place: Path) -> list[bytes]:
    import trimesh

    scene = trimesh.Scene(trimesh.creation.box())
    files = trimesh.exchange.gltf.export_gltf(scene, merge_buffers=True)
    model = json.loads(files["model.gltf"])
    import base64

    (buffer,) = (value for name, value in files.items() if name.endswith(".bin"))
    model["buffers"][0]["uri"] = (
        "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    )
    return [json.dumps(model).encode()]


@cache
def whole(kind: str, place: Path) -> Path:
    return tamper.prepare(kind, place / f"whole_{kind}")


def part(
    kind: str, file: str, use: Callable[[Path], object], mutation: str, seal: Any = None
) -> Target:
    """One file of a folder."""
    origin: list[Path] = []

    def seeds(place: Path) -> list[bytes]:
        origin[:] = [whole(kind, place)]
        return [path_in(origin[0], file).read_bytes()]

    def run(data: bytes, place: Path) -> object:
        folder = place / "folder"
        shutil.copytree(origin[0], folder, symlinks=True)
        path_in(folder, file).write_bytes(data)
        if seal is not None:
            seal(folder, data)
        return use(folder)

    return Target(seeds, run, mutation)


def path_in(folder: Path, file: str) -> Path:
    return tamper.tensors_of(folder) if file == "TENSORS" else folder / file


def reseal(folder: Path, data: bytes) -> None:
    """Make the checksums right that follow from the config of a model."""
    try:
        config = json.loads(data)
        plain = {k: v for k, v in config.items() if k not in ("tensors", "sha256")}
        digest = _digest(plain)
    except (ValueError, AttributeError, RecursionError):
        return
    path = tamper.tensors_of(folder)
    stored = safetensors.torch.save(safetensors.torch.load_file(path), {"config": digest})
    path.write_bytes(stored)
    config |= {"sha256": hashlib.sha256(stored).hexdigest(), "tensors": path.name}
    (folder / "config.json").write_text(json.dumps(config))


def written(name: str, use: Callable[[Path], object], content: bytes, kind: str) -> Target:
    """A file alone."""

    def run(data: bytes, place: Path) -> object:
        (place / name).write_bytes(data)
        return use(place / name)

    return Target(lambda _: [content], run, kind)


def library(name: str) -> Target:
    """A member of a furniture library."""
    obj = (
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 1\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
    )
    members: dict[str, str | bytes] = {
        tamper.CATALOGUE: tamper.catalogue(),
        "a.obj": obj,
        "a.mtl": "newmtl m\nKd 1 0 0\nd 0.5\nmap_Kd t.png\n",
        "t.png": tamper.png(8, 8),
    }

    def run(data: bytes, place: Path) -> object:
        tamper.pack(place / "a.sh3f", {**members, name: data})
        return tamper.use_library(place)

    first = members[name]
    return Target(lambda _: [first if isinstance(first, bytes) else first.encode()], run)


def archive() -> Target:
    def seeds(place: Path) -> list[bytes]:
        (place / "library").mkdir(exist_ok=True)
        tamper.member()(place / "library")
        return [(place / "library" / "a.sh3f").read_bytes()]

    def run(data: bytes, place: Path) -> object:
        (place / "a.sh3f").write_bytes(data)
        return tamper.use_library(place)

    return Target(seeds, run)


def name(data: bytes, _: Path) -> object:
    return HubName.parse(data.decode("utf-8", "replace"))


def classes(folder: Path) -> object:
    np.savez(folder.parent / "a.npz", coords=np.zeros((3, 3)), labels=np.arange(3))
    return open_dataset(folder.parent)


def card(folder: Path) -> object:
    return check_card(folder)


LOG = b"".join(b'{"kind": "step", "step": %d, "loss": 0.5, "time": 1.0}\n' % n for n in range(3))
TARGETS: dict[str, Target] = {
    **{f"read {seed}": reader(seed) for seed in test_io_fuzz.SEEDS},
    "read mesh.gltf": Target(gltf, reader("mesh.gltf").run, "json"),
    "weight config": part("weight", "config.json", pz.load_encoder, "json"),
    "weight tensors": part("weight", "TENSORS", pz.load_encoder, "tensors", tamper.seal),
    "weight info": part("weight", "config.json", pz.encoder_info, "json"),
    "model config": part("model", "config.json", pz.load_model, "json", reseal),
    "model tensors": part("model", "TENSORS", pz.load_model, "tensors", tamper.seal),
    "card": part("weight", "README.md", card, "yaml"),
    "card fields": written(
        "fields.yaml",
        lambda path: as_card(path, {}),
        b"license: mit\nsources:\n- {name: a, author: b, license: mit}\ntags: [x]\nhours: 1.5\n",
        "yaml",
    ),
    "checkpoint": part("checkpoint", "checkpoint.safetensors", tamper.use_checkpoint, "tensors"),
    "corpus manifest": part("corpus", "manifest.json", read_corpus, "json"),
    "corpus array": part("corpus", "coords.npy", lambda f: read_corpus(f)[0], "bytes"),
    "rooms manifest": part("rooms", "manifest.json", lambda f: read_rooms(f)[0], "json"),
    "rooms offsets": part("rooms", "offsets.npy", lambda f: read_rooms(f)[0], "bytes"),
    "rooms frames": part("rooms", "frames/a.npz", lambda f: read_frames(f, "a"), "bytes"),
    "tiles journal": part("tiles", "tiles/done.jsonl", tamper.use_store, "json"),
    "library archive": archive(),
    "library catalogue": library(tamper.CATALOGUE),
    "library model": library("a.obj"),
    "library material": library("a.mtl"),
    "library texture": library("t.png"),
    "training log": written("log.jsonl", read_curves, LOG, "bytes"),
    "classes": written("classes.json", classes, b'{"classes": ["a", "b", "c"]}', "json"),
    "hub name": Target(lambda _: [b"hf-hub:owner/repo@main"], name),
}


# Mutations ----------------------------------------------------------------------------------------


def mutate(target: Target, seeds: Sequence[bytes], rng: Random) -> bytes:
    """Return a damaged input: by its structure, by its bytes, or by both."""
    data = rng.choice(seeds)
    structured = STRUCTURED.get(target.kind)
    if structured is not None and rng.random() < 0.6:
        data = structured(data, rng)
        if rng.random() < 0.7:
            return data
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _bytes(data, rng, rng.choice(seeds))
    return data[: 1 << 16]


def _bytes(data: bytes, rng: Random, other: bytes) -> bytes:
    near = rng.random() < 0.5  # headers decide more than data
    span = min(len(data), 600) if near else len(data)
    i = rng.randrange(span + 1)
    j = min(len(data), i + rng.choice((1, 1, 2, 4, 8, 40, 400)))
    step = rng.randrange(9)
    if step == 0 and data:
        i = min(i, len(data) - 1)
        return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]
    if step == 1:
        return data[:i]
    if step == 2:
        return data[:i] + data[j:]
    if step == 3:
        return data[:j] + data[i:]  # twice
    if step == 4:
        return data[:i] + rng.choice(INTERESTING) * rng.choice((1, 1, 1, 50)) + data[i:]
    if step == 5:
        word = rng.choice(INTERESTING)
        return data[:i] + word + data[i + len(word) :]
    if step == 6:
        k = rng.randrange(len(other) + 1)
        return data[:i] + other[k:]
    if step == 7:
        found = list(re.finditer(rb"-?\d+", data[:4000]))
        if found:
            match = rng.choice(found)
            return data[: match.start()] + rng.choice(INTERESTING[:9]) + data[match.end() :]
    return data[:i] + rng.randbytes(j - i) + data[j:]


def change_tree(tree: Any, rng: Random) -> Any:
    """Replace, remove, rename or repeat something anywhere in a tree of lists and dictionaries."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        step = rng.random()
        if step < 0.12:
            return {k: v for k, v in tree.items() if k != key}
        if step < 0.2:
            return {**tree, str(rng.choice(VALUES)): tree[key]}
        return {**tree, key: change_tree(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        i = rng.randrange(len(tree))
        step = rng.random()
        if step < 0.15:
            return tree[:i] + tree[i + 1 :]
        if step < 0.3:
            return [*tree, tree[i]]
        return [*tree[:i], change_tree(tree[i], rng), *tree[i + 1 :]]
    if isinstance(tree, int | float) and rng.random() < 0.4:
        return tree * rng.choice((-1, 2, 10**6, 0.5))
    return rng.choice(VALUES)


def _json(data: bytes, rng: Random) -> bytes:
    tree = json.loads(data.splitlines()[0] if data.count(b"\n{") else data)
    for _ in range(rng.choice((1, 1, 2))):
        tree = change_tree(tree, rng)
    return json.dumps(tree).encode()


def _yaml(data: bytes, rng: Random) -> bytes:
    text = data.decode()
    header, rest = (text.split("---\n", 2)[1:]) if text.startswith("---") else (text, None)
    tree = change_tree(yaml.safe_load(header), rng)
    new = yaml.safe_dump(json.loads(json.dumps(tree)), allow_unicode=rng.random() < 0.5)
    whole = new if rest is None else f"---\n{new}---\n{rest}"
    return whole.encode("utf-8", "surrogatepass")


def _tensors(data: bytes, rng: Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = change_tree(json.loads(data[8 : 8 + length]), rng)
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + data[8 + length :]


STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json, "yaml": _yaml, "tensors": _tensors,
}  # fmt: skip


def execute(target: Target, data: bytes, place: Path) -> BaseException | None:
    """Run a target in an empty folder; what it raised, unless that is what it should raise."""
    place.mkdir()
    try:
        target.run(data, place)
    except (PointzooError, OSError):
        return None
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is a crash
        return error
    finally:
        shutil.rmtree(place)
    return None
