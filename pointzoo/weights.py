"""The weight folder: written atomically, read strictly.

A folder holds ``model.safetensors`` (parameters in half precision by default, buffers in full),
``config.json`` and the card ``README.md``. ``config.json`` says which architecture the tensors
belong to, what the encoder reads, the sha256 of the tensor file, and a fingerprint: statistics of
the output on a bundled sample. The sha256 finds a damaged file; the fingerprint finds what a
checksum cannot see, such as other code, another config or another preprocessing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.cards import CARD_FILE, Card, Facts, render_card
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.encoders.base import EncoderConfig, PointEncoder, normalize_coords
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.errors import ConfigError, FormatError, InputError, PointzooError, WeightError
from pointzoo.features import cloud_from_array, extract
from pointzoo.intake import MAX_TEXT, parse_json, read_limited, require_own

SCHEMA = 1
MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
ASSETS = Path(__file__).with_name("assets")

FINGERPRINT_VALUES = 16
FINGERPRINT_TOLERANCE = 0.01
"""Largest difference, relative to the root mean square of the group. Another CPU differs by about
1e-5; a tie between neighbours that falls the other way moves one patch of 32, about 1e-3; a wrong
weight, config or preprocessing moves everything by the order of 1."""

_KEYS = {
    "schema": int,
    "architecture": str,
    "config": dict,
    "channels": list,
    "preprocessing": dict,
    "out_channels": int,
    "scene_channels": int,
    "parameters": int,
    "sha256": str,
    "fingerprint": dict,
}


def sample_cloud() -> PointCloud:
    """Return the bundled sample: 1,024 points of a chair, metres, with colours and normals."""
    return cloud_from_array(np.load(ASSETS / "sample.npy", allow_pickle=False))


def save_encoder(
    encoder: PointEncoder,
    folder: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    card: Card | None = None,
    readme: str = "",
    half: bool = True,
) -> Path:
    """Write an encoder as a weight folder that :func:`pointzoo.load_encoder` reads.

    The folder appears at once or not at all. An older weight folder of that name is replaced;
    files in it that are not part of a weight (pictures of the card) are kept.

    Args:
        encoder: An encoder of a registered architecture; it is left as it is.
        folder: Where to write; the parent must exist.
        architecture: Its registered name; None finds it by class and config.
        card: The card; None writes a README that says that there is none.
        readme: What the README says if there is no card.
        half: Store parameters in half precision where their values allow it.

    Returns:
        The folder.

    Raises:
        ConfigError: The architecture is not registered, or ``folder`` holds something else.
        WeightError: The encoder holds NaN or infinite values.
    """
    target = Path(folder)
    _require_replaceable(target)
    name = architecture or architecture_of(encoder)
    tensors = _stored(encoder, half=half)
    data = safetensors.torch.save(tensors)
    config = _describe(encoder, name, hashlib.sha256(data).hexdigest())
    stored = _assemble(build_described(config), tensors, name)
    config["fingerprint"] = fingerprint(stored)
    bare = readme or f"# {target.name}\n\nThis weight has no card.\n"
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    staging.mkdir()
    try:
        (staging / MODEL_FILE).write_bytes(data)
        (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        text = render_card(dataclasses.replace(card, facts=facts(config, data))) if card else bare
        (staging / CARD_FILE).write_text(text, encoding="utf-8")
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def facts(config: Mapping[str, Any], data: bytes) -> Facts:
    """Return what a card says about the content ``data`` of a file of tensors.

    Args:
        config: What ``config.json`` says, for parameters and channels.
        data: The whole file.
    """
    return Facts(
        parameters=config["parameters"],
        channels=tuple(channel["name"] for channel in config["channels"]),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def load_folder(folder: str | os.PathLike[str], *, sha256: str | None = None) -> PointEncoder:
    """Read a weight folder: float32, CPU, evaluation mode, verified.

    Args:
        folder: A folder that :func:`save_encoder` wrote.
        sha256: Checksum that ``model.safetensors`` must have, beside the one in ``config.json``.

    Raises:
        WeightError: A file is missing, damaged, of another schema, or not what it says.
    """
    root = Path(folder)
    config = read_config(root)
    encoder = build_described(config)
    data = _read_bytes(root / MODEL_FILE, largest_file(encoder.state_dict()))
    digest = hashlib.sha256(data).hexdigest()
    for origin, wanted in (("config.json", config["sha256"]), ("the registry", sha256)):
        if wanted is not None and wanted != digest:
            raise WeightError(
                expected=f"{root / MODEL_FILE} with the sha256 {wanted[:12]}... of {origin}",
                got=f"{digest[:12]}...",
                fix="The file is damaged or was replaced: get it again.",
            )
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightError(
            expected=f"a readable {root / MODEL_FILE}", got=str(error), fix="Get the file again."
        ) from error
    _assemble(encoder, tensors, config["architecture"])
    try:
        found = fingerprint(encoder)
    except (PointzooError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise WeightError(
            expected=f"settings in {root / CONFIG_FILE} that the encoder runs with",
            got=" ".join(str(error).split())[:300],
            fix="The folder was edited: get it again.",
        ) from error
    _require_fingerprint(config["fingerprint"], found, root)
    return encoder


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a weight folder.

    Raises:
        WeightError: It is missing, malformed, of another schema, or lacks an entry.
    """
    path = folder / CONFIG_FILE
    try:
        config = parse_json(_read_bytes(path, MAX_TEXT))
    except FormatError as error:
        raise WeightError(
            expected=f"JSON in {path}", got=error.got, fix="Get the file again."
        ) from error
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        raise WeightError(
            expected=f"{path} of schema {SCHEMA}",
            got=repr(config.get("schema")) if isinstance(config, dict) else "no JSON object",
            fix="Install the release of pointzoo that wrote it.",
        )
    wrong = [k for k, kind in _KEYS.items() if not isinstance(config.get(k), kind)]
    if wrong:
        raise WeightError(
            expected=f"{path} with {', '.join(_KEYS)}",
            got=f"{', '.join(wrong)} missing or of the wrong type",
            fix="Write the folder with pointzoo.save_encoder.",
        )
    return config


def build_described(config: Mapping[str, Any]) -> PointEncoder:
    """Build the encoder that a ``config.json`` describes, without memory (on the meta device).

    Raises:
        WeightError: The architecture or a setting is unknown, or the file contradicts itself.
    """
    name = config["architecture"]
    try:
        with torch.device("meta"):
            encoder = build(name, **config["config"])
    except (InputError, TypeError, ValueError, RuntimeError) as error:
        raise WeightError(
            expected=f"an architecture and settings that this release knows ({name!r})",
            got=str(error),
            fix="Install the release of pointzoo that wrote the weight.",
        ) from error
    declared = _describe(encoder, name, config["sha256"])
    # a setting that a later release added is not in the file: the fingerprint judges its default
    wrong = [key for key, value in declared.items() if key != "config" and config[key] != value]
    if wrong:
        raise WeightError(
            expected=f"{CONFIG_FILE} to describe {name!r}",
            got=f"another {', '.join(wrong)}",
            fix="The folder was edited, or comes from another release: get it again.",
        )
    return encoder


def fingerprint(encoder: PointEncoder) -> dict[str, list[float]]:
    """Return statistics of the output on :func:`sample_cloud`, five significant digits.

    Returns:
        ``scene``: entries of the scene feature, evenly spaced; ``point_mean`` and ``point_std``:
        mean and deviation over the points of evenly spaced channels.
    """
    scene, point = _sample_features(encoder)
    groups = {
        "scene": _spread(scene),
        "point_mean": _spread(point.mean(axis=0)),
        "point_std": _spread(point.std(axis=0)),
    }
    return {name: [float(f"{v:.5g}") for v in values] for name, values in groups.items()}


def _sample_features(encoder: PointEncoder) -> tuple[FloatArray, FloatArray]:
    """Return scene and point features of :func:`sample_cloud`.

    An encoder whose inputs have no names gets colours and normals of the sample, over and over.
    """
    cloud = sample_cloud()
    if encoder.feature_channels == 3 * len(encoder.config.channels):
        features = extract(encoder, cloud)
        return features.scene, features.point.astype(np.float64)
    assert cloud.colors is not None
    assert cloud.normals is not None
    both = np.concatenate([cloud.colors, cloud.normals], axis=1)
    columns = np.arange(encoder.feature_channels) % both.shape[1]
    coords = normalize_coords(cloud.coords, encoder.config.normalize)
    batch = PointBatch.collate([torch.from_numpy(coords)], [torch.from_numpy(both[:, columns])])
    with torch.no_grad():
        output = encoder(batch)
    assert output.point is not None
    return output.scene[0].numpy(), output.point.double().numpy()


def _spread(values: FloatArray) -> FloatArray:
    count = min(FINGERPRINT_VALUES, len(values))
    rows = np.linspace(0, len(values) - 1, count).round().astype(np.int64)
    chosen: FloatArray = values[rows]
    return chosen


def _require_fingerprint(
    wanted: Mapping[str, Any], got: Mapping[str, list[float]], folder: Path
) -> None:
    """Compare group by group; see :data:`FINGERPRINT_TOLERANCE`."""
    for name, values in got.items():
        try:
            target = np.asarray(wanted.get(name), np.float64)
        except (TypeError, ValueError):
            target = np.empty(0)
        if target.shape != (len(values),):
            raise WeightError(
                expected=f"a fingerprint in {folder / CONFIG_FILE} with {len(values)} x {name}",
                got=f"shape {target.shape}",
                fix="Write the folder with pointzoo.save_encoder.",
            )
        scale = max(float(np.sqrt(np.mean(target**2))), 1e-6)
        error = float(np.abs(target - values).max()) / scale
        if not error <= FINGERPRINT_TOLERANCE:
            raise WeightError(
                expected=f"the fingerprint of {folder.name} on the bundled sample",
                got=f"{name} that differs by {error:.2g} of its size",
                fix="Weights, config or code are not those of the card; reinstall pointzoo.",
            )


def architecture_of(encoder: PointEncoder) -> str:
    """Return the architecture of the encoder's class that shares most settings with it."""
    same = [a for a in ARCHITECTURES.values() if a.encoder_class is type(encoder)]
    if not same:
        raise ConfigError(
            expected="an encoder of a registered architecture",
            got=type(encoder).__name__,
            fix="Add it to pointzoo.encoders.registry.",
        )
    own = encoder.config.to_dict()

    def shared(config: EncoderConfig) -> int:
        return sum(own[key] == value for key, value in config.to_dict().items())

    return max(same, key=lambda architecture: shared(architecture.config)).name


def _stored(encoder: PointEncoder, *, half: bool) -> dict[str, Tensor]:
    """Return the state on the CPU as it is stored; running statistics stay in full precision."""
    parameters = {name for name, _ in encoder.named_parameters()}
    stored = {}
    for name, value in encoder.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if not tensor.isfinite().all():
            raise _tensor_error(name, "finite values", "NaN or infinite values")
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        narrow = tensor.half()
        fits = half and name in parameters and bool(narrow.isfinite().all())
        stored[name] = narrow if fits else tensor
    return stored


def _describe(encoder: PointEncoder, architecture: str, sha256: str) -> dict[str, Any]:
    config = encoder.config.to_dict()
    return {
        "schema": SCHEMA,
        "architecture": architecture,
        "config": config,
        "channels": [dataclasses.asdict(channel) for channel in encoder.channel_contract],
        "preprocessing": {k: config[k] for k in ("normalize", "max_points") if k in config},
        "out_channels": encoder.out_channels,
        "scene_channels": encoder.scene_channels,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "sha256": sha256,
    }


def largest_file(state: Mapping[str, Tensor]) -> int:
    """Return bytes that a file with this state cannot exceed: tensors, and a header of names."""
    return sum(t.numel() * t.element_size() + 1024 for t in state.values()) + (1 << 20)


def _assemble(
    encoder: PointEncoder, tensors: Mapping[str, Tensor], architecture: str
) -> PointEncoder:
    """Put stored tensors into an encoder without memory."""
    state = encoder.state_dict()
    for kind, names in (
        ("missing", set(state) - set(tensors)),
        ("extra", set(tensors) - set(state)),
    ):
        if names:
            raise WeightError(
                expected=f"the {len(state)} tensors of {architecture}",
                got=f"{len(names)} {kind}: {', '.join(sorted(names)[:5])}",
                fix="The weight belongs to another architecture or release.",
            )
    ready = {name: _checked(name, tensors[name], state[name]) for name in state}
    encoder.load_state_dict(ready, strict=True, assign=True)
    assert not any(b.is_meta for b in encoder.buffers()), "a buffer is not in the state dict"
    return encoder.eval()


def _checked(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape != like.shape:
        raise _tensor_error(name, f"shape {tuple(like.shape)}", f"{tuple(tensor.shape)}")
    storable = {like.dtype, torch.float16} if like.is_floating_point() else {like.dtype}
    if tensor.dtype not in storable:
        raise _tensor_error(name, " or ".join(sorted(map(str, storable))), f"{tensor.dtype}")
    if not tensor.isfinite().all():
        raise _tensor_error(name, "finite values", "NaN or infinite values")
    return tensor.to(like.dtype)


def _tensor_error(name: str, expected: str, got: str) -> WeightError:
    return WeightError(
        expected=f"tensor {name!r} with {expected}",
        got=got,
        fix="The weight is damaged or was trained into the void: use another one.",
    )


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        require_own(path)
        return read_limited(path, most)
    except (OSError, MemoryError, FormatError) as error:
        told = error.got if isinstance(error, FormatError) else type(error).__name__
        raise WeightError(
            expected=f"a weight folder with {path.name}",
            got=f"{told} at {path}",
            fix=f"A weight folder holds {MODEL_FILE}, {CONFIG_FILE} and {CARD_FILE}.",
        ) from error


def _require_replaceable(target: Path) -> None:
    parent = target.parent
    if not parent.is_dir():
        raise ConfigError(
            expected="a folder in an existing directory", got=str(target), fix=f"Create {parent}."
        )
    is_weight = (target / CONFIG_FILE).is_file()
    if target.exists() and not is_weight and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            expected="a new or empty folder, or an older weight to replace",
            got=str(target),
            fix="Choose another folder.",
        )


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target`` and carry over files that are not replaced."""
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_name(f"{staging.name}.old")
    target.rename(old)
    staging.rename(target)
    for item in old.iterdir():
        if not (target / item.name).exists():
            item.rename(target / item.name)
    shutil.rmtree(old)
