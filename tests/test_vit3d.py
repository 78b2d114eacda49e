"""3D-ViT against a plain second implementation, cloud by cloud and patch by patch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.encoders.vit3d import ViT3D, ViT3DConfig
from pointzoo.errors import CloudError, ConfigError, UnknownNameError

SIZES = (70, 1, 33, 64, 7)


def make(**changes: object) -> ViT3D:
    """Build the test size in float64 with weights that matter everywhere."""
    generator = torch.Generator().manual_seed(0)
    encoder = build("vit3d_test", **changes).double()
    for name, value in encoder.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) - 0.5
            wide = value.ndim > 1 and value.shape[0] > 1
            positive = name.endswith("running_var") or ("norm" in name and value.ndim == 1)
            value.copy_(noise * (3.0 / value.shape[1] ** 0.5 if wide else 0.6) + float(positive))
    return encoder


def make_batch(encoder: ViT3D, sizes: tuple[int, ...] = SIZES) -> PointBatch:
    generator = torch.Generator().manual_seed(1)
    width = encoder.in_channels
    rows = [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in sizes]
    return PointBatch.collate([r[:, :3] for r in rows], [r[:, 3:] for r in rows])


def plain(encoder: ViT3D, coords: Tensor, extra: Tensor) -> dict[str, Tensor]:
    """Compute Eq. 14 to 16 for one cloud the long way."""
    config = encoder.config
    kept = _farthest(coords, min(len(coords), config.max_points))
    kept = kept.sort().values
    centres = kept[_farthest(coords[kept], max(len(kept) // config.patch_points, 1))]
    tokens = torch.stack([_patch(encoder, coords, extra, kept, c) for c in centres])
    x = torch.cat([encoder.class_token[0], tokens])  # (1 + S, D), Eq. 15
    attention = None
    for block in encoder.blocks:
        mixed, attention = _attend(block.attention, block.norm1(x))
        x = x + mixed
        x = x + block.mlp(block.norm2(x))
    x = encoder.norm(x)
    point = torch.stack([_interpolate(p, coords[centres], x[1:]) for p in coords])
    scene = torch.cat([encoder.output(x[0]), x[1:].mean(dim=0), x[1:].amax(dim=0)])
    return {
        "scene": scene, "point": point, "tokens": x[1:],
        "token_coords": coords[centres], "attention": attention[:, 0, 1:],
    }  # fmt: skip


def _farthest(coords: Tensor, count: int) -> Tensor:
    """Sample farthest points; the first is the farthest from the centroid."""
    chosen = [int((coords - coords.mean(dim=0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        distance = (coords[:, None] - coords[chosen]).norm(dim=2).amin(dim=1)
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def _patch(encoder: ViT3D, coords: Tensor, extra: Tensor, kept: Tensor, centre: Tensor) -> Tensor:
    """Embed the K nearest kept points of a centre (Eq. 14)."""
    size, embedding = encoder.config.patch_points, encoder.patch_embedding
    order = (coords[kept] - coords[centre]).norm(dim=1).argsort()
    members = kept[order[torch.arange(size) % len(order)]]  # a small cloud is repeated
    relative = (coords[members] - coords[centre]) / encoder.config.patch_radius
    rows = torch.cat([relative, coords[centre].expand(size, -1), extra[members]], dim=1)
    widest = embedding.last(embedding.mlp(rows)).amax(dim=0)
    return torch.relu(embedding.norm(widest[None])[0])


def _attend(attention: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what every token gets, and the weights (H, 1 + S, 1 + S)."""
    parts = attention.qkv(x).chunk(3, dim=1)
    out, weights = [], []
    for query, key, value in zip(*(p.chunk(attention.heads, dim=1) for p in parts), strict=True):
        weight = torch.exp(query @ key.T / math.sqrt(query.shape[1]))
        weights.append(weight / weight.sum(dim=1, keepdim=True))
        out.append(weights[-1] @ value)
    return attention.proj(torch.cat(out, dim=1)), torch.stack(weights)


def _interpolate(place: Tensor, centres: Tensor, tokens: Tensor) -> Tensor:
    """Weigh the three nearest tokens by the inverse of their squared distance."""
    distance = (centres - place).square().sum(dim=1)
    nearest = distance.argsort()[:3]
    if distance[nearest[0]] == 0:
        return tokens[nearest[0]]
    weight = 1.0 / distance[nearest]
    return (weight[:, None] * tokens[nearest]).sum(dim=0) / weight.sum()


@pytest.mark.parametrize(
    "changes", [{}, {"channels": ("normals", "colors")}, {"max_points": 40}, {"patch_points": 3}]
)
@torch.no_grad()
def test_it_computes_what_the_equations_say(changes):
    encoder = make(**changes)
    batch = make_batch(encoder)
    output, attention = encoder(batch), encoder.class_attention(batch)
    counts = torch.diff(output.token_offsets, prepend=torch.zeros(1, dtype=torch.int64)).tolist()
    split = {
        "scene": output.scene, "point": batch.split(output.point),
        "tokens": output.tokens.split(counts), "attention": attention,
        "token_coords": output.token_coords.split(counts),
    }  # fmt: skip
    clouds = zip(batch.split(batch.coords), batch.split(batch.features), strict=True)
    for b, (coords, extra) in enumerate(clouds):
        for name, expected in plain(encoder, coords, extra).items():
            np.testing.assert_allclose(split[name][b], expected, rtol=0, atol=1e-10, err_msg=name)


@torch.no_grad()
def test_a_full_batch_needs_no_mask_and_gives_the_same():
    encoder = make()
    full, ragged = make_batch(encoder, (40, 40)), make_batch(encoder, (40, 40, 90))
    np.testing.assert_allclose(encoder(full).scene, encoder(ragged).scene[:2], atol=1e-12)


def test_a_patch_is_a_token():
    encoder = make(patch_points=8)
    output = encoder(make_batch(encoder, (7, 8, 15, 16, 80)))
    assert output.token_offsets.tolist() == [1, 2, 3, 5, 15]  # int(N / K), at least 1


def test_training_in_bfloat16_has_nearly_the_gradients_of_float32():
    encoder = make().float().train()
    batch = make_batch(encoder).to(dtype=torch.float32)
    parameters = list(encoder.parameters())

    def gradient() -> Tensor:
        found = torch.autograd.grad(encoder(batch, points=False).scene.float().sum(), parameters)
        return torch.cat([g.flatten().float() for g in found])

    exact = gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gradient()
    # 8 bits in every layer, there and back, and other points win the maximum of a patch
    assert float((rough - exact).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0},
        {"depth": 0},
        {"heads": 5},
        {"mlp_ratio": 0.0},
        {"patch_points": 0},
        {"patch_widths": [8, 0]},
        {"patch_radius": 0.0},
        {"max_points": 0},
    ],
)
def test_sizes_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        build("vit3d_test", **changes)


def test_another_width_of_the_batch_is_refused():
    with pytest.raises(CloudError, match="3 channels"):
        build("vit3d_test", channels=("colors",))(PointBatch.stack(torch.zeros(1, 9, 3)))


# The registry


def test_an_unknown_architecture_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="'vit3d_tiny'"):
        build("vit3d_tinny")
    with pytest.raises(ConfigError, match="unknown width"):
        build("vit3d_test", width=3)


def test_architectures_are_what_their_names_say():
    assert ARCHITECTURES["vit3d_small"].config == ViT3DConfig()  # the paper's
    counts = {}
    for name, entry in ARCHITECTURES.items():
        assert entry.name == name
        assert entry.description
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in build(name).parameters())
    sizes = [counts[f"vit3d_{size}"] for size in ("test", "tiny", "small", "base")]
    assert sizes == sorted(sizes)
    assert 1e6 < counts["vit3d_tiny"] < 6e6  # "a few million"


def test_building_draws_from_the_global_generator_and_is_ready():
    torch.manual_seed(3)
    first = build("vit3d_test")
    torch.manual_seed(3)
    second = build("vit3d_test")
    third = build("vit3d_test")
    assert torch.equal(first.class_token, second.class_token)
    assert not torch.equal(first.class_token, third.class_token)
    assert not first.training
