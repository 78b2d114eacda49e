"""What the conformance tests compare with: parameter names, and outputs of the small encoders.

``python tests/conformance/regenerate.py`` writes ``stored/`` anew. Do that when a network changes
on purpose, and say so in the change: weights stored before do not load or fit any more.

Weights and points come from integer arithmetic, not from a random generator, so that the outputs
depend on nothing but the network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pointzoo.batch import PointBatch
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES, build

STORED = Path(__file__).parent / "stored"
SMALL = 1_000_000


def small_names() -> list[str]:
    """Return the architectures small enough for every check."""
    return [name for name in ARCHITECTURES if name.endswith("_test")]


def parameter_shapes(name: str) -> dict[str, list[int]]:
    """Return name and shape of everything in the state dict, without allocating it."""
    with torch.device("meta"):
        state = build(name).state_dict()
    return {key: list(value.shape) for key, value in state.items()}


def outputs(name: str, channels: tuple[str, ...], dtype: torch.dtype) -> dict[str, NDArray]:
    """Return the outputs for three fixed clouds, from fixed weights."""
    encoder = build(name, channels=channels)
    _fill(encoder)
    sizes = (50, 1, 300)
    width = 3 + encoder.feature_channels
    rows = [_scatter((n, width), salt) for salt, n in enumerate(sizes)]
    batch = PointBatch.collate([r[:, :3] for r in rows], [r[:, 3:] for r in rows])
    with torch.no_grad():
        output = encoder.to(dtype)(batch.to(dtype=dtype))
    found = {"point": output.point, "scene": output.scene, "tokens": output.tokens}
    return {key: value.numpy() for key, value in found.items() if value is not None}


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """Return which outputs are stored: each small architecture without and with channels."""
    return [(name, c) for name in small_names() for c in ((), ("colors", "normals"))]


def file_of(name: str, channels: tuple[str, ...]) -> Path:
    """Return where the outputs of a case are stored."""
    return STORED / f"{'-'.join([name, *channels])}.npz"


def _scatter(shape: Sequence[int], salt: int) -> torch.Tensor:
    """Return float32 numbers in -1..1 that look random and are the same on every machine."""
    mixed = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) + np.uint64(salt << 32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    top = (mixed >> np.uint64(40)).astype(np.float32)  # 24 bits, exact in float32
    return torch.from_numpy(top / np.float32(2**23) - np.float32(1)).view(*shape)


def _fill(encoder: PointEncoder) -> None:
    """Set every tensor to numbers of its own, large enough that every layer matters."""
    for salt, (name, value) in enumerate(sorted(encoder.state_dict().items()), start=100):
        if not value.is_floating_point():
            continue
        fan_in = value[0].numel() if value.ndim > 1 else 12
        positive = name.endswith("running_var") or (value.ndim == 1 and "weight" in name)
        value.copy_(float(positive) + _scatter(value.shape, salt) * math.sqrt(3 / fan_in))


def main() -> None:
    """Write all stored files."""
    STORED.mkdir(exist_ok=True)
    shapes = {name: parameter_shapes(name) for name in ARCHITECTURES}
    lines = [f"{json.dumps(n)}: {{\n{_lines(entries)}\n}}" for n, entries in shapes.items()]
    (STORED / "parameters.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for name, channels in cases():
        np.savez_compressed(file_of(name, channels), **outputs(name, channels, torch.float64))


def _lines(entries: dict[str, list[int]]) -> str:
    return ",\n".join(f" {json.dumps(key)}: {json.dumps(shape)}" for key, shape in entries.items())


if __name__ == "__main__":
    main()
