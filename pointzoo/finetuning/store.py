"""The model folder: written so that it is whole or not there, read strictly.

A folder holds ``config.json``, the tensors in ``model.<first digits of their sha256>.safetensors``
(on the Hub ``model.safetensors``), and ``README.md``. ``config.json`` is replaced last and in one
step: it names the tensor file and its sha256, and the tensor file holds the sha256 of the rest of
``config.json``, so that either both are of one model or the folder is refused. A linear head, a
decoder and LoRA store what they add; their encoder is named, with its commit and sha256. Everything
is stored in full precision, so that a model that was loaded predicts what the saved one did, bit
for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pointzoo.errors import ConfigError, FormatError, WeightError
from pointzoo.intake import parse_json, read_limited, require_own
from pointzoo.io.files import replacing

SCHEMA = 1
KIND = "pointzoo model"
CONFIG_FILE = "config.json"
README_FILE = "README.md"
PUBLISHED = "model.safetensors"
"""Name of the tensors in a folder for the Hub, where a commit replaces all files at once."""
_TENSORS = "model.*.safetensors"
_KEYS = {
    "task": dict,
    "method": str,
    "network": dict,
    "encoder": dict,
    "settings": dict,
    "tensors": str,
    "sha256": str,
}


def write_model(
    folder: Path,
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    readme: str,
    *,
    published: bool = False,
) -> Path:
    """Write a model folder; an older model there is replaced, other files stay.

    Args:
        folder: Where to write; made if missing, its parent must exist.
        facts: Everything in ``config.json`` but the checksums.
        tensors: On any device.
        readme: Text of ``README.md``.
        published: Call the tensors :data:`PUBLISHED`. Such a folder cannot be replaced in one step.

    Raises:
        ConfigError: The folder is a file, or holds other things but no run and no model.
        WeightError: A tensor is not finite, or the disk refuses to take the files.
    """
    _require_place(folder)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise WeightError(
                expected=f"finite values in {name!r}",
                got="NaN or infinite values",
                fix="The training went astray: lower the learning rate and train again.",
            )
    plain = json.loads(json.dumps({"schema": SCHEMA, "kind": KIND, **facts}))
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(stored, metadata={"config": _digest(plain)})
    sha256 = hashlib.sha256(data).hexdigest()
    name = PUBLISHED if published else f"model.{sha256[:12]}.safetensors"
    files = {
        name: data,
        README_FILE: readme.encode(),
        CONFIG_FILE: _rendered({**plain, "tensors": name, "sha256": sha256}),
    }
    try:
        if folder.is_dir():
            _replace_files(folder, files)
        else:
            _new_folder(folder, files)
    except OSError as error:
        raise WeightError(
            expected=f"room and permission to write {folder}",
            got=str(error),
            fix="Free space or choose another folder; what was there before is unchanged.",
        ) from error
    return folder


def read_facts(folder: Path) -> tuple[dict[str, Any], int]:
    """Read ``config.json`` of a model folder.

    Returns:
        What it says, not yet compared with the tensors, and the size of their file.

    Raises:
        WeightError: A file is missing, damaged, of another schema, or outside the folder.
    """
    path = folder / CONFIG_FILE
    try:
        require_own(path)
        config = parse_json(read_limited(path))
    except (OSError, FormatError) as error:
        raise _refused(folder, f"{CONFIG_FILE}: {error}") from error
    if not isinstance(config, dict) or (config.get("schema"), config.get("kind")) != (SCHEMA, KIND):
        raise _refused(folder, f"a {CONFIG_FILE} of another kind or schema")
    wrong = [key for key, kind in _KEYS.items() if not isinstance(config.get(key), kind)]
    if wrong:
        raise _refused(folder, f"{CONFIG_FILE} without {', '.join(wrong)}")
    name = config["tensors"]
    if Path(name).name != name:
        raise _refused(folder, f"tensors at {name!r}")
    try:
        require_own(folder / name)
        return config, (folder / name).stat().st_size
    except (OSError, ValueError) as error:
        raise _refused(folder, f"{name}: {error}") from error


def read_tensors(folder: Path, config: Mapping[str, Any], most: int) -> dict[str, Tensor]:
    """Read the tensors of a model folder; they and ``config.json`` have to be of one model.

    Args:
        folder: The folder.
        config: What :func:`read_facts` gave.
        most: Bytes that the file may have.

    Raises:
        WeightError: The file is damaged, too large, or of another model.
    """
    name = config["tensors"]
    try:
        data = read_limited(folder / name, most)
    except (OSError, ValueError, MemoryError) as error:
        raise _refused(folder, f"{name}: {error}") from error
    if hashlib.sha256(data).hexdigest() != config["sha256"]:
        raise _refused(folder, f"{name} with another sha256 than {CONFIG_FILE} says")
    try:
        tensors = safetensors.torch.load(data)
        bound = _metadata(data)["config"]
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _refused(folder, f"{name}: {error}") from error
    plain = {key: value for key, value in config.items() if key not in ("tensors", "sha256")}
    if bound != _digest(plain):
        raise _refused(folder, f"a {CONFIG_FILE} that was changed after the model was saved")
    return tensors


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], names: set[str]) -> None:
    """Put stored tensors into a network, strictly.

    Args:
        module: The network; what is not stored is in it already.
        tensors: By the names of its state.
        names: What has to be there, nothing more.

    Raises:
        WeightError: A tensor is missing, extra, or of another shape, type or not finite.
    """
    state = module.state_dict()
    missing, extra = names - set(tensors), set(tensors) - names
    wrong = [
        name
        for name in set(tensors) & set(state)
        if tensors[name].shape != state[name].shape
        or tensors[name].dtype != state[name].dtype
        or not bool(tensors[name].isfinite().all())
    ]
    for what, found in (("missing", missing), ("extra", extra), ("unfit", set(wrong))):
        if found:
            raise WeightError(
                expected=f"the {len(names)} tensors of the model's network",
                got=f"{len(found)} {what}: {', '.join(sorted(found)[:3])}",
                fix="The model belongs to another release, or was put together by hand.",
            )
    module.load_state_dict({**state, **tensors}, strict=True, assign=True)


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the metadata in the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    found = parse_json(data[8 : 8 + size])["__metadata__"]
    if not isinstance(found, dict):
        raise ValueError("metadata of another kind")  # is caught with its like
    return found


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _rendered(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2) + "\n").encode()


def _replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write tensors first and the config that names them last; then drop older tensors."""
    for name, data in files.items():
        with replacing(folder / name) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    for old in (*folder.glob(_TENSORS), *folder.glob(PUBLISHED)):
        if old.name not in files:
            old.unlink()


def _new_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    staging.mkdir()
    try:
        _replace_files(staging, files)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_place(folder: Path) -> None:
    known = (CONFIG_FILE, "log.jsonl", "checkpoint.safetensors")
    inside = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    foreign = bool(inside) and not inside.intersection(known)
    if foreign or folder.is_file() or not folder.parent.is_dir():
        raise ConfigError(
            expected="a new or empty folder in an existing directory, or an older model",
            got=str(folder),
            fix="Choose another folder.",
        )


def _refused(folder: Path, reason: str) -> WeightError:
    return WeightError(
        expected=f"a whole model folder at {folder}",
        got=reason,
        fix="Get or train the model again; a model folder is written by Model.save.",
    )
