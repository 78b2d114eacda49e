"""Checkpoints of Pointcept as weight folders.

Pointcept's SpUNet-v1m1 (https://github.com/Pointcept/Pointcept @ d74c646, MIT) becomes a
:class:`~pointzoo.encoders.sparse_unet.SparseUNet`: widths, depths, number of stages and input width
are read off the tensors, heads are dropped and listed, and anything else that is missing or left
over is refused. Reading a file never runs code from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointzoo.convert.checkpoint import read_checkpoint
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.encoders.sparse_unet import ColorRange, SparseUNet, SparseUNetConfig
from pointzoo.errors import ConfigError, WeightError
from pointzoo.ops.sparse.layouts import SpconvLayout, from_spconv, spconv_layouts
from pointzoo.weights import save_encoder

State = dict[str, Tensor]

HEADS = ("final", "mask_token", "color_head", "normal_head", "seg_head", "bias_head", "cls_head")
"""What Pointcept puts on or beside the backbone in pre-training (MSC), segmentation, PointGroup."""

_STEM = "conv_input.0.weight"

_FOREIGN = (
    (
        r"(^|\.)(embedding_table|class_embedding|.*\.bns\.|.*\.modulation\.|conv_input\.conv\.)",
        "SpUNet-v1m3 of PPT: its normalisation depends on the data set that a scene comes from, "
        "which a cloud does not say",
    ),
    (
        r"\.kernel$",
        "a network of MinkowskiEngine or torchsparse (Res16UNet34C of PointContrast and CSC, "
        "SPVCNN): its stem, its strided convolutions and the constants of its normalisation are "
        "others than those of SpUNet-v1m1",
    ),
    (
        r"(^|\.)(embedding\.stem|enc\.enc\d|patch_embed)\b",
        "a Point Transformer (PTv3, Sonata, Concerto): it is no sparse U-Net",
    ),
)


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: The weight folder; :func:`pointzoo.load_encoder` reads it.
        architecture: The registered architecture that it is a size of.
        config: The settings that were read off the tensors.
        parameters: Number of parameters.
        dropped: Keys of the checkpoint that are not part of the encoder (heads, mask token).
    """

    folder: Path
    architecture: str
    config: SparseUNetConfig
    parameters: int
    dropped: tuple[str, ...]

    def summary(self) -> str:
        """Say in a few lines what was read and how."""
        config = self.config
        reads = ", ".join(config.channels) or f"{config.feature_channels} values without names"
        colors = f" (colours in {config.color_range})" if "colors" in config.channels else ""
        lines = [
            f"{self.folder}  ({self.architecture}, {self.parameters:,} parameters)",
            f"reads {reads}{colors} in voxels of {config.grid_size:g} m",
            f"stages {config.stage_channels}, blocks {config.layers}, stem {config.base_channels}",
        ]
        if self.dropped:
            lines.append(f"dropped {', '.join(self.dropped)}")
        return "\n".join(lines)


def convert_pointcept(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    color_range: ColorRange = "-1..1",
    channels: Sequence[str] | None = None,
    grid_size: float = 0.02,
    stem_layout: SpconvLayout | None = None,
    license: str = "unknown",
    half: bool = False,
) -> Conversion:
    """Turn a Pointcept SpUNet-v1m1 checkpoint into a weight folder.

    Args:
        checkpoint: A ``.pth`` as Pointcept's trainers write it or a bare state dict, or a
            ``.safetensors``; of the backbone alone, or with MSC or segmentation heads, with or
            without the prefixes ``module.`` and ``backbone.``.
        folder: Where to write; see :func:`pointzoo.save_encoder`.
        color_range: What colours were in training: -1..1 in Pointcept until its version 1.5, 0..1
            since. Only :meth:`SparseUNet.forward_voxels` is not affected.
        channels: What the inputs are, in order; empty: values without names. None takes 3 inputs
            as colours, 6 as colours and normals, and any other number as without names.
        grid_size: Edge of a voxel in training, metres.
        stem_layout: Layout of the stem, where its shape does not tell (base width 5).
        license: Licence of the weights, for the card.
        half: Store parameters in half precision; features then differ in the third digit.

    Returns:
        What was done.

    Raises:
        FormatError: The file cannot be read as a checkpoint.
        WeightError: It holds another network, or keys are missing, left over or misshapen.
        ConfigError: An option does not fit, or ``folder`` holds something else.
    """
    path = Path(checkpoint)
    state, dropped = split_state(read_checkpoint(path))
    config = infer_config(state, color_range=color_range, channels=channels, grid_size=grid_size)
    with torch.device("meta"):
        encoder = SparseUNet(config)
    encoder.load_state_dict(_translated(state, encoder, stem_layout), strict=True, assign=True)
    architecture = _nearest(config)
    readme = _readme(path, Path(folder).name, config, license, dropped)
    written = save_encoder(
        encoder.eval(), folder, architecture=architecture, half=half, readme=readme
    )
    parameters = sum(p.numel() for p in encoder.parameters())
    return Conversion(written, architecture, config, parameters, dropped)


def split_state(loaded: Mapping[str, Any]) -> tuple[State, tuple[str, ...]]:
    """Return the tensors of the backbone without prefixes, and the keys that were dropped.

    The backbone is where the stem is (``module.backbone.conv_input``, say); heads are beside it or
    at its end.

    Raises:
        WeightError: It is another network, there are several, something is neither backbone nor
            head, or a value is no tensor.
    """
    _refuse_other_networks(loaded)
    prefixes = [key.removesuffix(_STEM) for key in loaded if key.endswith(_STEM)]
    if len(prefixes) != 1:
        got = f"{len(prefixes)} stems" if prefixes else f"{len(loaded)} keys: {_some(loaded)}"
        raise _wrong(f"the stem of a SpUNet-v1m1, {_STEM}, once", got)
    inside, beside = prefixes[0], prefixes[0].removesuffix("backbone.")
    state: State = {}
    dropped: list[str] = []
    other: list[str] = []
    for key, value in loaded.items():
        if key.removeprefix(inside).split(".")[0] in HEADS:
            dropped.append(key)
        elif key.startswith(inside):
            state[key.removeprefix(inside)] = value
        else:
            head = key.removeprefix(beside).split(".")[0] in HEADS
            (dropped if head else other).append(key)
    if other:
        raise _wrong("a backbone and heads alone", f"{len(other)} left over: {_some(other)}")
    odd = [k for k, v in state.items() if not (isinstance(v, Tensor) and v.layout == torch.strided)]
    if odd:
        raise _wrong("tensors in the state dict", f"something else: {_some(odd)}")
    return state, tuple(sorted(dropped))


def infer_config(
    state: Mapping[str, Tensor],
    *,
    color_range: ColorRange,
    channels: Sequence[str] | None,
    grid_size: float,
) -> SparseUNetConfig:
    """Read the settings of a network off its tensors.

    Args:
        state: As :func:`split_state` returns it.
        color_range: See :func:`convert_pointcept`, as for the others.
        channels: See there.
        grid_size: See there.

    Raises:
        WeightError: A tensor that tells a width is missing or misshapen.
        ConfigError: ``channels`` do not fit the number of inputs.
    """
    stages = _count(state, r"down\.(\d+)\.")
    stem = state[_STEM]
    if not stages or stem.ndim != 5:
        raise _wrong(
            f"{_STEM} of five axes and the stages down.0 ... of SpUNet-v1m1",
            f"shape {tuple(stem.shape)} and {stages} stages",
        )
    if not _count(state, r"up\.(\d+)\."):
        raise _wrong(
            "a decoder (up.0 ..., dec.0 ...)",
            "an encoder alone (Pointcept's enc_mode), which has no features at its finest level",
        )
    ways = [("down", "enc", range(stages)), ("up", "dec", range(stages)[::-1])]
    widths = [_width(state, f"{way}.{s}.1.weight") for way, _, levels in ways for s in levels]
    blocks = [_count(state, rf"{to}\.{s}\.block(\d+)\.") for _, to, levels in ways for s in levels]
    if 0 in blocks:
        raise _wrong(f"blocks in each of {2 * stages} stages", f"{blocks} of them")
    given = {} if channels is None else {"channels": tuple(channels)}
    inputs = SparseUNetConfig.completed({"in_channels": stem.shape[-1], **given})
    return SparseUNetConfig(
        **inputs,
        color_range=color_range,
        grid_size=grid_size,
        base_channels=_width(state, "conv_input.1.weight"),
        stage_channels=tuple(widths),
        layers=tuple(blocks),
    )


def _translated(
    state: Mapping[str, Tensor], encoder: SparseUNet, stem_layout: SpconvLayout | None
) -> State:
    """Return the tensors under our names and in our layout.

    Raises:
        WeightError: A key is missing or left over, or a tensor has another shape or type.
        ConfigError: The layout of the stem has to be said.
    """
    wanted = encoder.state_dict()
    names = {own: pointcept_name(own) for own in wanted}
    counters = {name for name in names.values() if name.endswith("num_batches_tracked")}
    missing = set(names.values()) - counters - set(state)
    extra = set(state) - set(names.values())
    if missing or extra:
        parts = [("missing", missing), ("left over", extra)]
        raise _wrong(
            f"the {len(names)} tensors of a SpUNet-v1m1 of these widths",
            "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in parts if keys),
        )
    usual = _usual_layout(state)
    found: State = {}
    for own, name in names.items():
        if name in counters:
            found[own] = _counter(name, state.get(name, torch.zeros(())))
        else:
            layout = (stem_layout if usual == "krsc" else usual) if own == "stem.weight" else usual
            found[own] = _converted(name, state[name], tuple(wanted[own].shape), layout)
    return found


def pointcept_name(name: str) -> str:
    """Return what Pointcept calls a tensor of :class:`SparseUNet`."""
    for pattern, replacement in (
        (r"^stem\.", "conv_input."),
        (r"\.blocks\.(\d+)\.", r".block\1."),
        (r"\.conv(\d)\.norm\.", r".bn\1."),
        (r"\.project\.", ".proj."),
        (r"^(conv_input|down\.\d+|up\.\d+|.*\.proj)\.weight$", r"\1.0.weight"),
        (r"\.norm\.", ".1."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def _counter(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim:
        raise _wrong(f"one number in {name}", f"shape {tuple(tensor.shape)}")
    return tensor.to(torch.int64)


def _converted(
    name: str, tensor: Tensor, shape: tuple[int, ...], layout: SpconvLayout | None
) -> Tensor:
    """Return a tensor as we hold it: float32, convolutions as (K, I, O)."""
    if not tensor.is_floating_point():
        raise _wrong(f"floating-point {name}", str(tensor.dtype))
    if len(shape) == 3:
        tensor = _kernel(name, tensor, layout)
    if tuple(tensor.shape) != shape:
        raise _wrong(f"{name} with {' x '.join(map(str, shape))} values",
                     f"{' x '.join(map(str, tensor.shape))}")  # fmt: skip
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise _wrong(f"finite {name} of at least 0", f"{float(tensor.min()):g}")
    return tensor.float().contiguous()


def _kernel(name: str, tensor: Tensor, layout: SpconvLayout | None) -> Tensor:
    try:
        fitting = spconv_layouts(tuple(tensor.shape))
    except ConfigError as error:
        raise _wrong(f"{name} of {error.expected.removeprefix('a ')}", error.got) from error
    if len(fitting) == 1 or tensor.shape[2] == 1:
        return from_spconv(tensor)
    if layout is None:
        raise ConfigError(
            expected=f"a stem_layout for {name}, whose shape fits two",
            got=f"{tuple(tensor.shape)}",
            fix="Say krsc (spconv 2.2 and later) or native (spconv 2.1).",
        )
    return from_spconv(tensor, layout=layout)


def _usual_layout(state: Mapping[str, Tensor]) -> SpconvLayout:
    """Return the layout of the kernels of 2 and 3 voxels, which is that of the whole file.

    Some of them always tell it: no width is 2 and 3 at once.
    """
    kernels = [v for v in state.values() if v.ndim == 5 and v.shape[2] in (2, 3)]
    native = [k for k in kernels if len(set(k.shape[:3])) == 1 and len(set(k.shape[:4])) > 1]
    krsc = [k for k in kernels if len(set(k.shape[1:4])) == 1 and len(set(k.shape[:4])) > 1]
    return "native" if native and not krsc else "krsc"


def _nearest(config: SparseUNetConfig) -> str:
    """Return the architecture with that many blocks a stage, else the one of Pointcept."""
    for name, entry in ARCHITECTURES.items():
        known = entry.config
        if isinstance(known, SparseUNetConfig) and known.layers == config.layers:
            return name
    return "sparseunet34"


def _refuse_other_networks(state: Mapping[str, Any]) -> None:
    for pattern, what in _FOREIGN:
        signs = [key for key in state if re.search(pattern, key)]
        if signs:
            raise WeightError(
                expected="a Pointcept SpUNet-v1m1",
                got=f"{_some(signs)}",
                fix=f"Not supported, because this is {what}.",
            )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers, from 0 upwards, stand at a place of the names."""
    found = {int(match[1]) for key in state if (match := re.match(pattern, key))}
    if found != set(range(len(found))):
        raise _wrong(f"{pattern} numbered from 0 without gaps", f"numbers {sorted(found)}")
    return len(found)


def _width(state: Mapping[str, Tensor], name: str) -> int:
    """Return the width that a batch normalisation has."""
    if name not in state or state[name].ndim != 1:
        raise _wrong(
            f"{name}, the weight of a batch normalisation",
            f"shape {tuple(state[name].shape)}" if name in state else "no tensor of that name",
        )
    return len(state[name])


def _wrong(expected: str, got: str) -> WeightError:
    fix = "Pass a Pointcept SpUNet-v1m1 checkpoint (the file as its trainer wrote it is fine)."
    return WeightError(expected=expected, got=got, fix=fix)


def _some(keys: Iterable[str], most: int = 8) -> str:
    listed = sorted(keys)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" * (len(listed) > most))


def _readme(
    path: Path, title: str, config: SparseUNetConfig, license: str, dropped: Sequence[str]
) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    reads = ", ".join(config.channels) or f"{config.feature_channels} values without names"
    return f"""---
license: {json.dumps(license)}
library_name: pointzoo
---
# {title}

Converted from the Pointcept SpUNet-v1m1 checkpoint `{path.name}` (sha256 {digest}) by
`pointzoo convert pointcept`. The licence of the weights is that of the checkpoint: {license}.

- reads: {reads}
- colours in training: {config.color_range}
- voxels: {config.grid_size:g} m
- dropped: {", ".join(dropped) or "nothing"}
"""
