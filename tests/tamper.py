"""Tampered inputs: how each is made from a whole one, and the public call that must refuse it.

``CASES`` is the list; ``tests/test_tamper.py`` runs it and ``benchmarks/tampered_inputs.py`` prints
what each got. A damaged file whose checksums were made right again, as a careful liar would, is
"sealed".
"""

from __future__ import annotations

import hashlib
import io as streams
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from finetune_toys import make_room
from test_cards import CARD
from test_corpus import header, shape
from test_rooms import HEADER, MODELS, frames, room

import pointzoo as pz
from pointzoo.cards import check_card, read_card, render_card
from pointzoo.convert.checkpoint import read_checkpoint
from pointzoo.data.builders.sh3d_reader import load_parts, open_archive, read_catalogue
from pointzoo.data.corpus import read_corpus, write_corpus
from pointzoo.data.rooms import read_frames, read_rooms, write_rooms
from pointzoo.finetuning.store import _digest
from pointzoo.pretrain.checkpoint import load_checkpoint, read_facts, save_checkpoint
from pointzoo.sharing import as_card, export_weight, push_folder
from pointzoo.tiling.store import FolderStore
from pointzoo.viz.figures import read_curves

COMMIT = "1" * 40
BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "[" * 900 + "]" * 900
Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One tampered input.

    Attributes:
        kind: Of the input: a key of :data:`KINDS`.
        what: What was done to it.
        change: Does it, to a copy of a whole one.
    """

    kind: str
    what: str
    change: Change


# Whole inputs -------------------------------------------------------------------------------------


@cache
def encoder() -> pz.PointEncoder:
    return pz.create_encoder("vit3d_test", seed=3)


def make_weight(folder: Path) -> None:
    pz.save_encoder(encoder(), folder, card=CARD)


def make_model(folder: Path) -> None:
    cloud = make_room(0, 60)
    pz.few_shot(encoder(), cloud, [0, 1, 2, 3], ["a", "b", "a", "b"]).save(folder)


def network() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def make_checkpoint(folder: Path) -> None:
    folder.mkdir()
    save_checkpoint(folder / "checkpoint.safetensors", *network(), {"step": 1})


def make_corpus(folder: Path) -> None:
    write_corpus(folder, header(), [shape("b", 1), shape("a", 0)])


def make_rooms(folder: Path) -> None:
    write_rooms(folder, HEADER, [room("a", 5), room("b", 9)], MODELS, frames={"a": frames()})


def make_cache(folder: Path) -> None:
    snapshot = folder / "models--me--toy" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    blobs = folder / "models--me--toy" / "blobs"
    make_weight(snapshot)
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(f"../../blobs/{blob.name}")


def make_store(folder: Path) -> None:
    folder.mkdir()
    store = FolderStore(folder / "tiles", "scan", 10, 3, np.float32)
    store.write(0, 0, np.ones((10, 3), np.float32))


def make_library(folder: Path) -> None:
    folder.mkdir()
    model = "v 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\nmtllib a.mtl\nusemtl m\n"
    pack(folder / "a.sh3f", {CATALOGUE: catalogue(), "a.obj": model})


def make_nothing(folder: Path) -> None:
    folder.mkdir()


CATALOGUE = "PluginFurnitureCatalog.properties"


def catalogue(**changes: str) -> str:
    entry = {"name": "Box", "category": "Kitchen", "model": "/a.obj", "width": "9", "depth": "9",
             "height": "9", **changes}  # fmt: skip
    return "license=CC0\n" + "".join(f"{key}#1={value}\n" for key, value in entry.items())


def pack(path: Path, members: Mapping[str, str | bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


# Public calls -------------------------------------------------------------------------------------


def use_checkpoint(folder: Path) -> object:
    path = folder / "checkpoint.safetensors"
    read_facts(path)
    return load_checkpoint(path, *network())


def use_cache(folder: Path) -> object:
    from huggingface_hub import constants

    with mock.patch.object(constants, "HF_HUB_CACHE", str(folder)):
        return pz.load_encoder(f"hf-hub:me/toy@{COMMIT}")


def use_file(folder: Path) -> object:
    (file,) = (path for path in folder.iterdir() if path.name.startswith("cloud"))
    return pz.read(file)


def use_library(folder: Path) -> object:
    with open_archive(folder / "a.sh3f") as archive:
        return [load_parts(archive, model) for model in read_catalogue(archive).models]


def use_store(folder: Path) -> object:
    store = FolderStore(folder / "tiles", "scan", 10, 3, np.float32)
    assert not store.finished(0) or store.read(np.arange(10)).shape == (10, 3)
    return store


def use_card(folder: Path) -> object:
    problems = check_card(folder)
    assert not problems, problems
    return read_card(folder)


KINDS: dict[str, tuple[Change, Callable[[Path], object]]] = {
    "weight": (make_weight, pz.load_encoder),
    "model": (make_model, pz.load_model),
    "push": (make_weight, lambda folder: push_folder(folder, "me/toy", dry_run=True)),
    "export": (make_weight, lambda folder: export_weight(folder, folder.parent / "copy")),
    "card": (make_weight, read_card),
    "fields": (make_nothing, lambda folder: as_card(folder / "fields.yaml", {})),
    "cache": (make_cache, use_cache),
    "checkpoint": (make_checkpoint, use_checkpoint),
    "corpus": (make_corpus, read_corpus),
    "rooms": (make_rooms, read_rooms),
    "frames": (make_rooms, lambda folder: read_frames(folder, "../a")),
    "tiles": (make_store, use_store),
    "library": (make_library, use_library),
    "file": (make_nothing, use_file),
    "pickle": (make_nothing, lambda folder: read_checkpoint(folder / "a.safetensors")),
    "log": (make_nothing, lambda folder: read_curves(folder / "log.jsonl")),
}


# Changes ------------------------------------------------------------------------------------------


def tensors_of(folder: Path) -> Path:
    return next(path for path in folder.glob("*.safetensors"))


def flip(place: float, bit: int = 4, name: str = "") -> Change:
    def change(folder: Path) -> None:
        path = folder / name if name else tensors_of(folder)
        data = bytearray(path.read_bytes())
        data[int(place * len(data)) if place < 1 else int(place)] ^= bit
        path.write_bytes(data)

    return change


def seal(folder: Path, data: bytes) -> None:
    """Put a tensor file in place and make every checksum of it right."""
    tensors_of(folder).write_bytes(data)
    path = folder / "config.json"
    if path.exists():
        config = json.loads(path.read_text())
        config["sha256"] = hashlib.sha256(data).hexdigest()
        path.write_text(json.dumps(config))


def sealed(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the tensors."""

    def apply(folder: Path) -> None:
        path = tensors_of(folder)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = safetensors.torch.load_file(path)
        change(tensors)
        seal(folder, safetensors.torch.save(tensors, metadata))

    return apply


def first(value: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(tensors: dict[str, Any]) -> None:
        name = min(n for n in tensors if tensors[n].is_floating_point() and tensors[n].ndim)
        tensors[name] = value(tensors[name])

    return sealed(change)


def header_of(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the header of the tensor file."""

    def apply(folder: Path) -> None:
        data = tensors_of(folder).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        new = json.dumps(header).encode()
        seal(folder, struct.pack("<Q", len(new)) + new + data[8 + length :])

    return apply


def offsets(begin: int, end: int) -> Change:
    def change(header: dict[str, Any]) -> None:
        name = max(key for key in header if key != "__metadata__")
        was = header[name]["data_offsets"]
        header[name]["data_offsets"] = [max(was[0] + begin, 0), was[1] + end]

    return header_of(change)


def raw(data: bytes) -> Change:
    return lambda folder: seal(folder, data)


def shape_lie(header: dict[str, Any]) -> None:
    name = min(key for key in header if key != "__metadata__")
    header[name]["shape"] = [2**62, 2**62]


def config(file: str = "config.json", **changes: Any) -> Change:
    """Change entries of a JSON file; a function gets the old value. Of a model all is sealed."""

    def apply(folder: Path) -> None:
        path = folder / file
        found = json.loads(path.read_text())
        for key, value in changes.items():
            found[key] = value(found.get(key)) if callable(value) else value
        path.write_text(json.dumps(found))
        if "kind" in found and file == "config.json":  # the tensors of a model know its config
            plain = {k: v for k, v in found.items() if k not in ("tensors", "sha256")}
            tensors = safetensors.torch.load_file(tensors_of(folder))
            seal(folder, safetensors.torch.save(tensors, {"config": _digest(plain)}))

    return apply


def inside(**changes: Any) -> Callable[[Any], Any]:
    return lambda old: {**old, **changes}


def text(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def linked(name: str, target: str) -> Change:
    """Replace a file by a link; ``{outside}`` is a copy of it outside of the folder."""

    def apply(folder: Path) -> None:
        path = tensors_of(folder) if name == "TENSORS" else folder / name
        outside = folder.parent / "outside"
        if path.exists():
            shutil.copyfile(path, outside)
            path.unlink()
        else:
            outside.write_bytes(b"a secret")
        path.symlink_to(target.format(outside=outside))

    return apply


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    def apply(folder: Path) -> None:
        path = tensors_of(folder) if name == "TENSORS" else folder / name
        path.unlink(missing_ok=True)
        make(path)

    return apply


def sparse(path: Path) -> None:
    """A file of 2**40 bytes that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.truncate(2**40)


class Harm:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def pickled() -> bytes:
    stream = streams.BytesIO()
    torch.save({"a": Harm()}, stream)
    return stream.getvalue()


def card(header: str) -> Change:
    """Put lines at the top of the header of a card."""
    return text("README.md", render_card(CARD).replace("---\n", f"---\n{header}", 1))


def snapshot(change: Change) -> Change:
    return lambda folder: change(folder / "models--me--toy" / "snapshots" / COMMIT)


def zip_bomb(name: str, ratio_name: str = "coords.npy") -> Change:
    """An archive that unpacks to 128 MiB."""

    def apply(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            header = streams.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f8", "fortran_order": False, "shape": (2**24 // 3, 3)}
            )
            block = bytes(1 << 20)
            with archive.open(ratio_name, "w") as entry:
                entry.write(header.getvalue())
                for _ in range(128):
                    entry.write(block)

    return apply


@cache
def bomb_of(size: int) -> bytes:
    stream = streams.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CATALOGUE, catalogue())
        archive.writestr("a.obj", bytes(size))
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """A picture of one colour that unpacks to three bytes a pixel."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(squeeze.compress(row) for _ in range(8)) + squeeze.flush()
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", ihdr), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def textured(picture: bytes, name: str = "t.png") -> Change:
    def apply(folder: Path) -> None:
        (folder / "cloud.obj").write_text(
            "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\n"
            "f 1/1 2/2 3/3\n"
        )
        (folder / "m.mtl").write_text(f"newmtl m\nKd 1 1 1\nmap_Kd {name}\n")
        (folder / name).write_bytes(picture)

    return apply


def gltf(uri: str) -> Change:
    """A mesh whose buffer is elsewhere; ``{secret}`` is a readable file outside the folder."""

    def apply(folder: Path) -> None:
        secret = folder.parent / "secret.bin"
        secret.write_bytes(np.arange(9, dtype="<f4").tobytes())
        content = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "accessors": [
                {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}
            ],
            "bufferViews": [{"buffer": 0, "byteLength": 36}],
            "buffers": [{"byteLength": 36, "uri": uri.format(secret=secret)}],
        }  # fmt: skip
        (folder / "cloud.gltf").write_text(json.dumps(content))

    return apply


def member(**changes: Any) -> Change:
    """Change the furniture library."""
    model = "v 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n"
    return lambda folder: pack(
        folder / "a.sh3f",
        {CATALOGUE: catalogue(), "a.obj": model, **changes},
    )


def stored(name: str, array: Any) -> Change:
    return lambda folder: np.save(folder / f"{name}.npy", array)


def npy(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = streams.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + bytes(64)


# The list -----------------------------------------------------------------------------------------

_TENSORS: dict[str, Change] = {
    "a flipped bit in the data of a tensor": flip(0.9),
    "a flipped bit in the header": flip(20),
    "NaN in a tensor (sealed)": first(lambda t: t * float("nan")),
    "infinity in a tensor (sealed)": first(lambda t: t + float("inf")),
    "an extra tensor (sealed)": sealed(lambda t: t.update(more=torch.zeros(3))),
    "a missing tensor (sealed)": sealed(lambda t: t.pop(min(t))),
    "no tensor at all (sealed)": sealed(lambda t: t.clear()),
    "a tensor of another shape (sealed)": first(lambda t: torch.cat([t, t])),
    "a tensor of another type (sealed)": first(lambda t: t.double()),
    "a tensor of whole numbers (sealed)": first(lambda t: t.long()),
    "a header that claims 2**60 bytes": raw(struct.pack("<Q", 2**60) + b"{}"),
    "a header of 2**64 - 1 bytes": raw(b"\xff" * 8 + b"{}"),
    "a header that is no JSON": raw(struct.pack("<Q", 4) + b"{{{{"),
    "a header of a thousand levels": raw(struct.pack("<Q", len(DEEP)) + DEEP.encode()),
    "tensors that overlap": offsets(-8, -8),
    "a tensor that reaches past the end": offsets(0, 4096),
    "offsets that run backwards": offsets(10**6, -8),
    "a shape of 2**124 values": header_of(shape_lie),
    "bytes after the last tensor": lambda f: seal(f, tensors_of(f).read_bytes() + b"more"),
    "an empty tensor file": raw(b""),
    "a pickle named .safetensors": raw(pickled()),
    "a directory in place of the tensors": replaced("TENSORS", Path.mkdir),
    "a pipe in place of the tensors": replaced("TENSORS", os.mkfifo),
    "a link to /dev/zero in place of the tensors": linked("TENSORS", "/dev/zero"),
    "a link to a file outside the folder": linked("TENSORS", "{outside}"),
    "a link to nothing": linked("TENSORS", "nowhere"),
    "a link to itself": replaced("TENSORS", lambda p: p.symlink_to(p.name)),
    "a sparse file of 2**40 bytes": replaced("TENSORS", sparse),
}
_CONFIGS: dict[str, Change] = {
    "an empty config": text("config.json", ""),
    "a config of 900 levels": text("config.json", '{"schema": 1, "x": ' + DEEP + "}"),
    "a config of 100,000 levels": text("config.json", "[" * 100_000),
    "a config of 8 MB": text("config.json", '{"schema": 1, "x": "' + "x" * (8 << 20) + '"}'),
    "a number of 10,000 digits": text("config.json", '{"schema": ' + "9" * 10_000 + "}"),
    "a number of 1,000 digits": text("config.json", '{"schema": 1, "x": ' + "9" * 1000 + "}"),
    "half a character": text("config.json", '{"schema": 1, "x": "\\ud800"}'),
    "bytes that are no text": text("config.json", b"\xff\xfe\x00\x00"),
    "no object": text("config.json", "[1]"),
    "a directory in place of the config": replaced("config.json", Path.mkdir),
    "a pipe in place of the config": replaced("config.json", os.mkfifo),
    "a link to /dev/zero in place of the config": linked("config.json", "/dev/zero"),
    "a config linked from outside the folder": linked("config.json", "{outside}"),
    "a config that links to nothing": linked("config.json", "nowhere"),
    "another schema": config(schema=2),
}
_WEIGHT: dict[str, Change] = {
    "another architecture": config(architecture="dgcnn_test"),
    "an unknown architecture": config(architecture="../../vit3d_test"),
    "10**9 layers": config(config=inside(depth=10**9)),
    "a width of 10**12": config(config=inside(dim=10**12)),
    "a width that is text": config(config=inside(dim="wide")),
    "patches of 10**12 points": config(config=inside(patch_points=10**12)),
    "a patch radius that is NaN": config(config=inside(patch_radius=float("nan"))),
    "clouds of 10**12 points": config(config=inside(max_points=10**12)),
    "a setting that is a list of lists": config(config=inside(dim=[[1]])),
    "a fingerprint of NaN": config(
        fingerprint=lambda old: {k: [float("nan")] * len(v) for k, v in old.items()}
    ),
    "a fingerprint of huge numbers": config(
        fingerprint=lambda old: {k: [2**63] * len(v) for k, v in old.items()}
    ),
    "a checksum that is a path": config(sha256="../../etc/passwd"),
}
_MODEL: dict[str, Change] = {
    "a config that was changed": text("config.json", "{}"),
    "tensors at ../": config(tensors="../outside.safetensors"),
    "tensors at an absolute path": config(tensors="/etc/passwd"),
    "tensors at ''": config(tensors=""),
    "tensors at a name with a zero byte": config(tensors="a\x00b"),
    "another task (sealed)": config(task=inside(name="singing")),
    "class names that are no text (sealed)": config(task=inside(class_names=[1, 2])),
    "class names that are one text (sealed)": config(task=inside(class_names="ab")),
    "one class more (sealed)": config(task=inside(class_names=["a", "b", "c"])),
    "a head of width 10**12 (sealed)": config(network=inside(hidden=10**12)),
    "a head of width -1 (sealed)": config(network=inside(hidden=-1)),
    "additions of rank 10**12 (sealed)": config(network=inside(rank=10**12)),
    "a head that reads a file (sealed)": config(network=inside(reads="../secret")),
    "an encoder of 10**9 layers (sealed)": config(
        encoder=lambda old: {**old, "config": {**old["config"], "depth": 10**9}}
    ),
    "an encoder of width 10**5 (sealed)": config(
        encoder=lambda old: {**old, "config": {**old["config"], "dim": 10**5}}
    ),
    "an encoder at ../ (sealed)": config(encoder=inside(kind="folder", name="../../x")),
    "a folder that is a name on the Hub (sealed)": config(
        encoder=inside(kind="folder", name="hf-hub:me/toy")
    ),
    "an encoder of an unknown kind (sealed)": config(encoder=inside(kind="zip")),
    "another encoder than the one it was trained on (sealed)": config(
        encoder=inside(kind="registered", name="vit3d_tiny.dcglr_shapes", sha256="0" * 64)
    ),
    "scores that are text (sealed)": config(scores={"validation": "good"}),
    "scores with a figure that is text (sealed)": config(
        scores={"v": {"metric": "miou", "values": {"miou": "x"}, "per_class": {},
                      "class_names": [], "confusion": []}}
    ),
}  # fmt: skip
_CARDS: dict[str, Change] = {
    "an empty card": text("README.md", ""),
    "a card of 8 MB": text("README.md", "---\n" + "a: b\n" * (1 << 21) + "---\n"),
    "a header of 300 kB": card("x: " + "y" * 300_000 + "\n"),
    "a header of 900 levels": card(f"x: {DEEP}\n"),
    "the billion laughs in YAML": card(BILLION),
    "a YAML alias to what it is in": card("x: &x [*x]\n"),
    "a YAML tag that makes an object": card("x: !!python/object/apply:os.system [id]\n"),
    "a YAML tag of bytes": card("x: !!binary aGk=\n"),
    "a YAML set": card("x: !!set {a, b}\n"),
    "a YAML date": card("x: 2026-01-01\n"),
    "a date that cannot be": card("x: 2026-99-99\n"),
    "a YAML number of 10,000 hexadecimal digits": card("x: 0x" + "f" * 10_000 + "\n"),
    "a YAML number to the base of 60": card("x: 1" + ":59" * 9_000 + "\n"),
    "half a character": card('x: "\\ud800"\n'),
    "bytes that are no text": text("README.md", b"---\n\xff\xfe\n---\n"),
    "a directory in place of the card": replaced("README.md", Path.mkdir),
    "a pipe in place of the card": replaced("README.md", os.mkfifo),
    "a link to /dev/zero in place of the card": linked("README.md", "/dev/zero"),
    "a link to a file outside the folder": linked("README.md", "{outside}"),
    "a link to nothing": linked("README.md", "nowhere"),
}
_PUSH: dict[str, Change] = {
    "a picture that links to a file outside": linked("secret.png", "{outside}"),
    "tensors that link to a file outside": linked("TENSORS", "{outside}"),
    "a card that shows a picture at ../": lambda f: (
        (f.parent / "p.png").write_bytes(b"x"),
        text("README.md", render_card(CARD) + "\n![x](../p.png)\n")(f),
    ),
    "a card of 30,000 opened brackets": text("README.md", render_card(CARD) + "![" * 30_000),
}
_CACHE: dict[str, Change] = {
    "a link to a file outside the repository": snapshot(linked("model.safetensors", "{outside}")),
    "a config that links outside the repository": snapshot(linked("config.json", "{outside}")),
    "a link to a blob that is gone": lambda f: [
        blob.unlink() for blob in (f / "models--me--toy" / "blobs").iterdir()
    ],
    "a flipped bit in a blob": snapshot(flip(0.9)),
}
_CHECKPOINT: dict[str, Change] = {
    key: change
    for key, change in _TENSORS.items()
    if key not in (
        "a flipped bit in the data of a tensor",  # has no checksum; see SECURITY.md
        "a link to a file outside the folder",  # of the user's own run
    )
    and "whole numbers" not in key and "another type" not in key
}  # fmt: skip
_CHECKPOINT |= {
    "facts of 900 levels": header_of(lambda h: h.update(__metadata__={"facts": DEEP})),
    "facts of 100,000 levels": header_of(lambda h: h.update(__metadata__={"facts": "[" * 10**5})),
    "no facts": header_of(lambda h: h.pop("__metadata__")),
    "a state of a parameter that there is not": sealed(
        lambda t: t.update({"optimizer.99.exp_avg": torch.zeros(2)})
    ),
    "a state of another shape": sealed(lambda t: t.update({"optimizer.0.exp_avg": torch.ones(1)})),
    "a missing part of a state": sealed(lambda t: t.pop("optimizer.0.exp_avg")),
    "a state of a parameter that is no number": sealed(
        lambda t: t.update({"optimizer.x.exp_avg": torch.ones(1)})
    ),
}
_CORPUS: dict[str, Change] = {
    "a manifest that lists more shapes": config(
        "manifest.json", shapes=lambda old: [*old, {**old[0], "name": "c"}]
    ),
    "a manifest with other labels": config(
        "manifest.json", shapes=lambda old: [{**shape, "label": 0} for shape in old]
    ),
    "shapes that are text": config("manifest.json", shapes="ab"),
    "class names that are a number": config("manifest.json", class_names=5),
    "a manifest of 900 levels": config("manifest.json", versions=json.loads(DEEP)),
    "a manifest of 100,000 levels": text("manifest.json", "[" * 100_000),
    "a number of 10,000 digits": text("manifest.json", '{"schema": ' + "9" * 10_000 + "}"),
    "a manifest that is a pipe": replaced("manifest.json", os.mkfifo),
    "labels that are no class": lambda f: (
        stored("labels", np.array([0, 7]))(f),
        config("manifest.json", shapes=lambda old: [old[0], {**old[1], "label": 7}])(f),
    ),
    "an array of 2**60 rows": text("coords.npy", npy((2**60, 16, 3))),
    "an array of another shape": stored("coords", np.zeros((2, 16), np.float32)),
    "normals of fewer points": stored("normals", np.zeros((2, 5, 3), np.float16)),
    "an array of objects": stored("labels", np.array([{}, {}])),
    "an archive named .npy": lambda f: pack(f / "coords.npy", {"a.npy": npy((1,))}),
    "an array that is a pipe": replaced("coords.npy", os.mkfifo),
    "an empty array file": text("coords.npy", b""),
}
_ROOMS: dict[str, Change] = {
    "offsets past the end": stored("offsets", np.array([5, 10**12])),
    "offsets that run backwards": stored("offsets", np.array([20, 14])),
    "offsets below 0": stored("offsets", np.array([-5, 14])),
    "no offsets": stored("offsets", np.zeros(0, np.int64)),
    "a manifest that lists more rooms": config(
        "manifest.json", rooms=lambda old: [*old, {**old[0], "name": "c"}]
    ),
    "rooms that are a number": config("manifest.json", rooms=7),
    "an array of 2**60 rows": text("coords.npy", npy((2**60, 3))),
    "an array of fewer rows": stored("colors", np.zeros((3, 3), np.uint8)),
    "a manifest of 900 levels": config("manifest.json", versions=json.loads(DEEP)),
    "a manifest that is a pipe": replaced("manifest.json", os.mkfifo),
    "an array that is a pipe": replaced("labels.npy", os.mkfifo),
}
_LIBRARY: dict[str, Change] = {
    "a zip bomb: a model of 128 MiB": text("a.sh3f", bomb_of(128 << 20)),
    "a model at ../": member(**{CATALOGUE: catalogue(model="../../a.obj")}),
    "a size of 10**400": member(**{CATALOGUE: catalogue(width="1e400")}),
    "a rotation of two numbers": member(**{CATALOGUE: catalogue(modelRotation="1 0")}),
    "a texture of 8,300 x 8,300 in a kilobyte": member(
        **{
            "a.obj": "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 1\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n",
            "a.mtl": "newmtl m\nmap_Kd t.png\n",
            "t.png": png(8_300, 8_300),
        }
    ),
    "a model that is no OBJ": member(**{"a.obj": b"\x00\xff" * 50}),
    "a flipped bit in the model": lambda f: flip(
        (f / "a.sh3f").read_bytes().index(b"a.obj") + 9, name="a.sh3f"
    )(f),
    "no archive": text("a.sh3f", "PK"),
    "an empty file": text("a.sh3f", ""),
}
_FILE: dict[str, Change] = {
    "a zip bomb in .npz": zip_bomb("cloud.npz"),
    "a pickle in .npy": lambda f: np.save(f / "cloud.npy", np.array([Harm()])),
    "a pickle in .npz": lambda f: np.savez(f / "cloud.npz", coords=np.array([Harm()])),
    "a member of .npz at ../ alone": lambda f: pack(f / "cloud.npz", {"../a.npy": npy((2**40, 3))}),
    "2**60 rows in .npy": text("cloud.npy", npy((2**60, 3))),
    "a texture of 8,300 x 8,300 in a kilobyte": textured(png(8_300, 8_300)),
    "a mesh with its buffer at ../": gltf("../secret.bin"),
    "a mesh with its buffer at an absolute path": gltf("{secret}"),
    "a mesh with a buffer of /dev/zero": gltf("/dev/zero"),
    "a mesh with a buffer on the network": gltf("http://127.0.0.1:9/a.bin"),
    "a mesh with a buffer that is no base64": gltf("data:application/octet-stream;base64,@@@"),
    "a PLY of 2**60 points": text(
        "cloud.ply",
        f"ply\nformat binary_little_endian 1.0\nelement vertex {2**60}\nproperty float x\n"
        "property float y\nproperty float z\nend_header\n",
    ),
    "a PCD that unpacks to 2**31 bytes": text(
        "cloud.pcd",
        b"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 178956970\n"
        b"HEIGHT 1\nPOINTS 178956970\nDATA binary_compressed\n"
        + struct.pack("<II", 20, 2**31 - 8) + bytes(20),
    ),
    "an empty file": text("cloud.ply", ""),
    "a directory": lambda f: (f / "cloud.ply").mkdir(),
    "a pipe": lambda f: os.mkfifo(f / "cloud.ply"),
    "a link to /dev/zero": lambda f: (f / "cloud.txt").symlink_to("/dev/zero"),
    "bytes under the name of a mesh": text("cloud.glb", b"glTF" + bytes(200)),
}  # fmt: skip
_OTHERS: dict[str, dict[str, Change]] = {
    "fields": {
        "the billion laughs in YAML": text("fields.yaml", BILLION),
        "a YAML tag that makes an object": text("fields.yaml", "a: !!python/name:os.system\n"),
        "a link to /dev/zero": lambda f: (f / "fields.yaml").symlink_to("/dev/zero"),
        "2,000 levels": text("fields.yaml", "[" * 2_000),
        "a field that is an object": text("fields.yaml", "sources: {a: 1}\n"),
    },
    "frames": {"a room named ../a": lambda f: shutil.copyfile(f / "frames/a.npz", f / "a.npz")},
    "tiles": {
        "rows that were cut off": text("tiles/rows.bin", b"few"),
    },
    "pickle": {
        "a pickle named .safetensors": text("a.safetensors", pickled()),
        "a bare pickle named .safetensors": text("a.safetensors", pickle.dumps(Harm())),
        "a header that claims 2**60 bytes": text("a.safetensors", struct.pack("<Q", 2**60)),
        "a pipe": lambda f: os.mkfifo(f / "a.safetensors"),
    },
    "log": {
        "a line of 100,000 levels": text("log.jsonl", "[" * 100_000 + "\n" + '{"step": 1}\n'),
        "a step of 1,000 digits": text("log.jsonl", '{"step": ' + "9" * 1000 + '}\n{"step": 1}\n'),
        "a pipe": lambda f: os.mkfifo(f / "log.jsonl"),
    },
    "export": {"tensors that link to a file outside": linked("TENSORS", "{outside}")},
}
_LISTS: dict[str, dict[str, Change]] = {
    "weight": {**_TENSORS, **_CONFIGS, **_WEIGHT},
    "model": {**_TENSORS, **_CONFIGS, **_MODEL},
    "card": _CARDS,
    "push": _PUSH,
    "cache": _CACHE,
    "checkpoint": _CHECKPOINT,
    "corpus": _CORPUS,
    "rooms": _ROOMS,
    "library": _LIBRARY,
    "file": _FILE,
    **_OTHERS,
}
CASES = tuple(
    Case(kind, what, change) for kind, cases in _LISTS.items() for what, change in cases.items()
)


def prepare(kind: str, place: Path) -> Path:
    """Make a whole input of a kind in a folder."""
    KINDS[kind][0](place)
    return place


def attempt(case: Case, whole: Path, place: Path) -> object:
    """Copy a whole input, tamper with it, and hand it to the library."""
    folder = place / "input"
    shutil.copytree(whole, folder, symlinks=True)
    case.change(folder)
    return KINDS[case.kind][1](folder)
