"""What the tests of SparseUNet share: states under Pointcept's names, and a dense network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pointzoo.convert.pointcept import pointcept_name
from pointzoo.encoders.sparse_unet import SparseUNet, SparseUNetConfig
from pointzoo.ops.sparse import layouts

GOLDEN = Path(__file__).parent / "golden"
TINY = SparseUNetConfig(
    base_channels=8, stage_channels=(8, 16, 24, 32, 32, 24, 16, 16), layers=(1,) * 8
)
STATES = {  # seed of the recipe, sha256 of all tensors
    "tiny": (1001, "f35f76a01e5e89fec45ffce2f3449865f2cd1db7e56c851571c2c22b716f8d32"),
    "full": (2002, "4538602051b68966e60947742f35eaf9ecd6ba8a328af4f1f7b8fb47c43eae55"),
}


def golden(name: str) -> dict[str, Tensor]:
    """Return what Pointcept's own module gave on spconv 2.3.8 (one thread), and float64 gradients.

    Rows of outputs and taps, and every fourth output channel of the full stem's gradient, are
    picked out to keep the files small; the weights come from :func:`pointcept_state`.
    """
    with np.load(GOLDEN / f"spunet_{name}.npz") as stored:
        found = {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}
    whole = {k: v.long() for k, v in found.items() if v.dtype == torch.int16}
    return {**found, **whole}


def golden_state(name: str) -> dict[str, Tensor]:
    """Return the weights that the golden files were made with, checked."""
    seed, digest = STATES[name]
    state = pointcept_state(TINY if name == "tiny" else SparseUNetConfig(), seed)
    found = hashlib.sha256()
    for key in sorted(state):
        found.update(key.encode())
        found.update(state[key].numpy().tobytes())
    assert found.hexdigest() == digest
    return state


def pointcept_state(config: SparseUNetConfig, seed: int) -> dict[str, Tensor]:
    """Draw a state under Pointcept's names and in spconv's layout: one generator, sorted keys."""
    with torch.device("meta"):
        own = SparseUNet(config).state_dict()
    shapes = {pointcept_name(k): _spconv_shape(tuple(v.shape)) for k, v in own.items()}
    rng = np.random.default_rng(seed)
    state = {key: _draw(rng, key, shapes[key]) for key in sorted(shapes)}
    return {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}


def _spconv_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3:
        return shape
    edge = round(shape[0] ** (1 / 3))
    return (shape[2], edge, edge, edge, shape[1])


def _draw(rng: np.random.Generator, key: str, shape: tuple[int, ...]) -> Any:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith((".running_mean", ".bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:
        low, high = 0.6, 1.4
        if key.endswith(".running_var"):
            low, high = 0.5, 1.5
        elif key.endswith(".bn2.weight"):
            low, high = 0.2, 0.6
        return rng.uniform(low, high, shape).astype(np.float32)
    scale = math.sqrt(2.0 / (shape[4] * min(math.prod(shape[1:4]), 9)))
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def make_scene(count: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return voxels on a few surfaces, in two clouds and no order, with features and offsets."""
    rng = np.random.default_rng(seed)
    clouds = []
    for size in (count, count // 2):
        coords = rng.integers(0, (16, 13, 10), (4 * size, 3))
        coords[::2, 2] = 0
        coords[1::4, 0] = 3
        unique = np.unique(coords, axis=0)
        clouds.append(rng.permutation(unique)[:size])
    coords = torch.from_numpy(np.concatenate(clouds))
    features = torch.from_numpy(rng.standard_normal((len(coords), width)).astype(np.float32))
    return coords, features, torch.tensor([len(c) for c in clouds]).cumsum(0)


def dense_output(
    state: Mapping[str, Tensor], coords: Tensor, features: Tensor, offsets: Tensor
) -> Tensor:
    """Compute what SpUNet-v1m1 gives in evaluation with dense float64 convolutions."""
    weights = {k: v.double() for k, v in state.items()}
    starts = [0, *offsets.tolist()[:-1]]
    clouds = [
        _Dense(weights, coords[i:j])(features[i:j].double())
        for i, j in zip(starts, offsets.tolist(), strict=True)
    ]
    return torch.cat(clouds)


class _Dense:
    """The network of one cloud over a full grid; voxels that are not occupied are kept at 0."""

    def __init__(self, state: Mapping[str, Tensor], coords: Tensor) -> None:
        self.state, self.coords = state, coords
        self.stages = len({key.split(".")[1] for key in state if key.startswith("down.")})
        step = 2**self.stages
        self.shape = tuple(int(n) // step * step + step for n in coords.amax(dim=0))

    def __call__(self, features: Tensor) -> Tensor:
        x, y, z = self.coords.T
        grid = features.new_zeros(1, features.shape[1], *self.shape)
        grid[0, :, x, y, z] = features.T
        mask = features.new_zeros(1, 1, *self.shape)
        mask[0, 0, x, y, z] = 1
        grid = self.unit(grid, mask, "conv_input.0", "conv_input.1").relu()
        way = []
        for s in range(self.stages):
            way.append((grid, mask))
            mask = functional.max_pool3d(mask, 2)
            grid = self.unit(grid, mask, f"down.{s}.0", f"down.{s}.1", stride=2).relu()
            grid = self.blocks(grid, mask, f"enc.{s}")
        for s in reversed(range(self.stages)):
            skip, mask = way.pop()
            weight = self.state[f"up.{s}.0.weight"].permute(4, 0, 1, 2, 3)
            grid = functional.conv_transpose3d(grid, weight, stride=2)
            grid = (self.norm(grid, f"up.{s}.1") * mask).relu()
            grid = self.blocks(torch.cat([grid, skip], dim=1), mask, f"dec.{s}")
        return grid[0, :, x, y, z].T

    def blocks(self, grid: Tensor, mask: Tensor, name: str) -> Tensor:
        number = 0
        while f"{name}.block{number}.conv1.weight" in self.state:
            block = f"{name}.block{number}"
            shortcut = grid
            if f"{block}.proj.0.weight" in self.state:
                shortcut = self.unit(grid, mask, f"{block}.proj.0", f"{block}.proj.1")
            out = self.unit(grid, mask, f"{block}.conv1", f"{block}.bn1").relu()
            grid = (self.unit(out, mask, f"{block}.conv2", f"{block}.bn2") + shortcut).relu()
            number += 1
        return grid

    def unit(self, grid: Tensor, mask: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{conv}.weight"]
        outputs, edge, inputs = weight.shape[0], weight.shape[1], weight.shape[4]
        if edge == 1:  # spconv reads its memory as (inputs, outputs)
            dense = weight.reshape(inputs, outputs).T[..., None, None, None]
        else:
            dense = weight.permute(0, 4, 1, 2, 3)
        out = functional.conv3d(grid, dense, stride=stride, padding=0 if stride > 1 else edge // 2)
        return self.norm(out, norm) * mask

    def norm(self, grid: Tensor, name: str) -> Tensor:
        values = [self.state[f"{name}.{part}"][:, None, None, None] for part in
                  ("running_mean", "running_var", "weight", "bias")]  # fmt: skip
        mean, variance, weight, bias = values
        return (grid - mean) / (variance + 1e-3).sqrt() * weight + bias


def as_native(state: Mapping[str, Tensor], *, everywhere: bool = False) -> dict[str, Tensor]:
    """Return the state as spconv 2.1 stored it: the stem, or every kernel, in the native layout."""

    def turn(key: str, value: Tensor) -> Tensor:
        if value.ndim != 5 or not (everywhere or key == "conv_input.0.weight"):
            return value
        return layouts.to_spconv(layouts.from_spconv(value, layout="krsc"), layout="native")

    return {key: turn(key, value) for key, value in state.items()}
