"""Time encoders of objects against plain implementations of the same networks in the same run.

The plain side is how these networks are usually written: edges (B, N, K, 2C) made in full, a 1 x 1
layer with batch normalisation on all of them, neighbours from a matrix of all distances and
``topk``, farthest points one by one, attention from separate products. Both sides have the same
sizes, clouds and precision (float32), and the sum of the scene features is what is differentiated.
On a machine that others use, compare processor times (the smallest of the repeats).

    python benchmarks/encoders.py [--clouds 32] [--points 1024] [--repeats 3] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.dgcnn import DGCNNConfig
from pointzoo.encoders.pct import PCTConfig
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.encoders.vit3d import ViT3DConfig

NAMES = ("vit3d_tiny", "dgcnn_small", "dgcnn", "pct_small", "pct")


def plain_fps(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling, (B, N, 3) -> (B, count), as PointNet++ code bases write it."""
    clouds, size, _ = points.shape
    chosen = torch.zeros(clouds, count, dtype=torch.long)
    distance = torch.full((clouds, size), math.inf)
    farthest, rows = torch.zeros(clouds, dtype=torch.long), torch.arange(clouds)
    for i in range(count):
        chosen[:, i] = farthest
        centre = points[rows, farthest][:, None]
        distance = torch.minimum(distance, ((points - centre) ** 2).sum(-1))
        farthest = distance.max(-1).indices
    return chosen


def plain_rows(values: Tensor, index: Tensor) -> Tensor:
    return values[torch.arange(len(values)).view(-1, *[1] * (index.dim() - 1)), index]


def plain_knn(query: Tensor, points: Tensor, k: int) -> Tensor:
    """All squared distances by one product, then the K smallest: (B, T, K)."""
    inner = query @ points.transpose(1, 2)
    squares = (query**2).sum(-1)[:, :, None] - 2 * inner + (points**2).sum(-1)[:, None]
    return squares.topk(k, dim=-1, largest=False).indices


class PlainLayers(nn.Module):
    """1 x 1 layers with normalisation and activation on (..., C)."""

    def __init__(self, widths: tuple[int, ...], slope: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = linear(x)
            x = nn.functional.leaky_relu(norm(x.flatten(0, -2)).view_as(x), self.slope)
        return x


def plain_edges(x: Tensor, members: Tensor, centres: Tensor | None = None) -> Tensor:
    """Return [x_j - x_i, x_i] for all neighbours, (B, T, K, 2C)."""
    own = x if centres is None else plain_rows(x, centres)
    own = own[:, :, None].expand(-1, -1, members.shape[2], -1)
    return torch.cat([plain_rows(x, members) - own, own], dim=-1)


class PlainDGCNN(nn.Module):
    def __init__(self, config: DGCNNConfig) -> None:
        super().__init__()
        inputs = (3, *config.widths[:-1])
        self.convs = nn.ModuleList(
            PlainLayers((2 * a, b), 0.2) for a, b in zip(inputs, config.widths, strict=True)
        )
        self.embedding = PlainLayers((sum(config.widths), config.embedding), 0.2)
        self.k = config.neighbors

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for conv in self.convs:
            x = conv(plain_edges(x, plain_knn(x, x, self.k))).max(dim=2).values
            found.append(x)
        wide = self.embedding(torch.cat(found, dim=-1))
        return torch.cat([wide.max(dim=1).values, wide.mean(dim=1)], dim=-1)


class PlainOffsetAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(dim, dim // 4, bias=False), nn.Linear(dim, dim)
        self.out = PlainLayers((dim, dim), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x)
        weights = (query @ query.transpose(1, 2)).softmax(-1)
        weights = weights / (1e-9 + weights.sum(dim=1, keepdim=True))
        return x + self.out(x - weights.transpose(1, 2) @ self.value(x))


class PlainPCT(nn.Module):
    def __init__(self, config: PCTConfig) -> None:
        super().__init__()
        (first, dim), self.config = config.group_widths, config
        self.embedding = PlainLayers((3, config.embedding, config.embedding), 0.0)
        widths = ((2 * config.embedding, first, first), (2 * first, dim, dim))
        self.groups = nn.ModuleList(PlainLayers(w, 0.0) for w in widths)
        self.before = PlainLayers((dim, dim, dim), 0.0)
        self.attention = nn.ModuleList(PlainOffsetAttention(dim) for _ in range(config.depth))
        self.fuse = PlainLayers(((config.depth + 1) * dim, config.fused), 0.2)

    def forward(self, coords: Tensor) -> Tensor:
        x = self.embedding(coords)
        for group, most in zip(self.groups, self.config.samples, strict=True):
            centres = plain_fps(coords, min(most, coords.shape[1] // 2))
            members = plain_knn(plain_rows(coords, centres), coords, self.config.neighbors)
            x = group(plain_edges(x, members, centres)).max(dim=2).values
            coords = plain_rows(coords, centres)
        found = [self.before(x)]
        for layer in self.attention:
            found.append(layer(found[-1]))
        return self.fuse(torch.cat([*found[1:], x], dim=-1)).max(dim=1).values


class PlainBlock(nn.Module):
    def __init__(self, config: ViT3DConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        clouds, tokens, dim = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(clouds, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(-1)
        x = x + self.proj((weights @ value).transpose(1, 2).reshape(clouds, tokens, dim))
        return x + self.mlp(self.norm2(x))


class PlainViT(nn.Module):
    def __init__(self, config: ViT3DConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = PlainLayers((6, *config.patch_widths), 0.0)
        self.last = nn.Linear(config.patch_widths[-1], config.dim, bias=False)
        self.after = nn.BatchNorm1d(config.dim)
        self.token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.output = nn.Linear(config.dim, config.dim)

    def forward(self, coords: Tensor) -> Tensor:
        size = self.config.patch_points
        centres = plain_rows(coords, plain_fps(coords, coords.shape[1] // size))
        members = plain_rows(coords, plain_knn(centres, coords, size))
        own = centres[:, :, None].expand_as(members)
        edges = torch.cat([(members - own) / self.config.patch_radius, own], dim=-1)
        widest = self.last(self.patch(edges)).max(dim=2).values
        tokens = torch.relu(self.after(widest.flatten(0, 1))).view_as(widest)
        x = self.norm(self.blocks(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)))
        parts = [self.output(x[:, 0]), x[:, 1:].mean(dim=1), x[:, 1:].max(dim=1).values]
        return torch.cat(parts, dim=1)


PLAIN: dict[type, Callable[[Any], nn.Module]] = {
    ViT3DConfig: PlainViT,
    DGCNNConfig: PlainDGCNN,
    PCTConfig: PlainPCT,
}


def smallest(run: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Return the smallest processor and wall time of forward and backward."""
    times = []
    for _ in range(repeats + 1):  # the first warms up
        wall, processor = time.perf_counter(), time.process_time()
        run().sum().backward()
        times.append((time.process_time() - processor, time.perf_counter() - wall))
    processor, wall = (min(column) for column in zip(*times[1:], strict=True))
    return {"cpu_s": round(processor, 3), "wall_s": round(wall, 3)}


def measure(name: str, coords: Tensor, repeats: int) -> dict[str, Any]:
    encoder, batch = build(name).train(), PointBatch.stack(coords)
    config = ARCHITECTURES[name].config
    plain = PLAIN[type(config)](config).train()
    ours = smallest(lambda: encoder(batch, points=False).scene, repeats)
    theirs = smallest(lambda: plain(coords), repeats)
    ratio = round(theirs["cpu_s"] / ours["cpu_s"], 2)
    return {"encoder": name, "pointzoo": ours, "plain": theirs, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--clouds", type=int, default=32)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    coords = nn.functional.normalize(torch.randn(options.clouds, options.points, 3), dim=-1)
    rows = []
    for name in options.encoders:
        rows.append(measure(name, coords, options.repeats))
        print(json.dumps(rows[-1]), flush=True)
    if options.output:
        facts = {
            "clouds": options.clouds,
            "points": options.points,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.processor()}, torch {torch.__version__}",
            "rows": rows,
        }
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
