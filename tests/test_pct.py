"""PCT against a plain second implementation, cloud by cloud and edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_dgcnn import plain_conv, settle
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.pct import PCT, OffsetAttention, PCTConfig
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.errors import CloudError, ConfigError

SIZES = (70, 1, 33, 64, 7)


def make(**changes: object) -> PCT:
    encoder = build("pct_test", **changes).double()
    settle(encoder)
    return encoder


def make_batch(encoder: PCT, sizes: tuple[int, ...] = SIZES) -> PointBatch:
    generator = torch.Generator().manual_seed(1)
    width = encoder.in_channels
    rows = [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in sizes]
    return PointBatch.collate([r[:, :3] for r in rows], [r[:, 3:] for r in rows])


def farthest(coords: Tensor, count: int) -> Tensor:
    chosen = [int((coords - coords.mean(dim=0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        distance = (coords[:, None] - coords[chosen]).norm(dim=2).amin(dim=1)
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def attend(layer: OffsetAttention, x: Tensor) -> Tensor:
    """Offset attention as the authors' code has it, for one cloud."""
    query, value = layer.query(x), layer.value(x)
    attention = torch.softmax(query @ query.T, dim=-1)
    attention = attention / (1e-9 + attention.sum(dim=0, keepdim=True))
    collected = (value.T @ attention).T
    return x + torch.relu(layer.norm(layer.out(x - collected)))


def plain(encoder: PCT, coords: Tensor, extra: Tensor) -> dict[str, Tensor]:
    config = encoder.config
    kept = farthest(coords, min(len(coords), config.max_points)).sort().values
    x, places = encoder.embedding(torch.cat([coords, extra], dim=1)[kept]), coords[kept]
    size = len(kept)
    for step, (group, most) in enumerate(zip(encoder.groups, config.samples, strict=True), start=1):
        chosen = farthest(places, min(most, max(1, size // 2**step)))
        order = (places[chosen][:, None] - places).norm(dim=2).argsort(dim=1, stable=True)
        members = order[:, torch.arange(config.neighbors) % len(places)]
        own = x[chosen][:, None].expand(-1, config.neighbors, -1)
        x = plain_conv(group, torch.cat([x[members] - own, own], dim=2))
        places = places[chosen]
    embedded, found = x, []
    x = encoder.before(x)
    for layer in encoder.attention:
        x = attend(layer, x)
        found.append(x)
    fused = encoder.norm(encoder.fuse(torch.cat([*found, embedded], dim=1)))
    tokens = nn.functional.leaky_relu(fused, 0.2)
    return {"scene": tokens.amax(dim=0), "tokens": tokens, "token_coords": places}


@pytest.mark.parametrize(
    "changes", [{}, {"channels": ("normals", "colors")}, {"max_points": 40}, {"neighbors": 40}]
)
@torch.no_grad()
def test_it_computes_what_the_paper_says(changes):
    encoder = make(**changes)
    batch = make_batch(encoder)
    output = encoder(batch)
    counts = torch.diff(output.token_offsets, prepend=torch.zeros(1, dtype=torch.int64)).tolist()
    split = {
        "scene": output.scene,
        "tokens": output.tokens.split(counts),
        "token_coords": output.token_coords.split(counts),
    }
    clouds = zip(batch.split(batch.coords), batch.split(batch.features), strict=True)
    for b, (coords, extra) in enumerate(clouds):
        for name, expected in plain(encoder, coords, extra).items():
            np.testing.assert_allclose(split[name][b], expected, rtol=0, atol=1e-10, err_msg=name)


@torch.no_grad()
def test_a_full_batch_needs_no_mask_and_gives_the_same():
    encoder = make()
    full, ragged = make_batch(encoder, (40, 40)), make_batch(encoder, (40, 40, 90))
    np.testing.assert_allclose(encoder(full).scene, encoder(ragged).scene[:2], atol=1e-12)


def test_samples_are_a_half_and_a_quarter_up_to_their_most():
    encoder = make()
    geometry = encoder.geometry(make_batch(encoder, (1, 3, 8, 40, 200)))
    cuts = [torch.diff(g.offsets, prepend=torch.zeros(1)).tolist() for g in geometry.graphs]
    assert cuts == [[1, 1, 4, 20, 24], [1, 1, 2, 10, 12]]


@torch.no_grad()
def test_point_features_at_a_token_are_the_token():
    encoder = make()
    batch = make_batch(encoder, (60,))
    output = encoder(batch)
    at = torch.cdist(output.token_coords, batch.coords).argmin(dim=1)
    np.testing.assert_allclose(output.point[at], output.tokens, atol=1e-12)


def test_training_normalises_over_the_whole_batch():
    encoder = make().train()
    batch = make_batch(encoder, (40, 24))
    tokens = encoder(batch).tokens
    assert encoder.norm.num_batches_tracked == 1
    assert len(tokens) == 10 + 6
    encoder.zero_grad()
    tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_sizes_are_the_authors():
    config = ARCHITECTURES["pct"].config
    assert config == PCTConfig()
    with torch.device("meta"):
        encoder = build("pct")
    assert encoder.fuse.weight.shape == (1024, 1280)
    assert (encoder.out_channels, encoder.scene_channels) == (1024, 1024)
    assert [tuple(g.linears[0].weight.shape) for g in encoder.groups] == [(128, 128), (256, 256)]
    assert encoder.attention[0].query.weight.shape == (64, 256)


@pytest.mark.parametrize(
    "changes",
    [{"embedding": 0}, {"group_widths": (8, 10)}, {"group_widths": (8,)}, {"samples": (4, 0)},
     {"neighbors": 0}, {"depth": 0}, {"fused": 0}, {"max_points": 0}],
)  # fmt: skip
def test_sizes_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        build("pct_test", **changes)


def test_another_width_of_the_batch_is_refused():
    with pytest.raises(CloudError, match="3 channels"):
        build("pct_test", channels=("colors",))(PointBatch.stack(torch.zeros(1, 9, 3)))
