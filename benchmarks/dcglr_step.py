"""Time one DCGLR training step against a plain re-implementation in the same run.

The plain side follows the structure of the DINO reference: every crop is made, sampled, grouped and
encoded on its own, farthest point sampling and nearest neighbours run per crop in plain PyTorch,
the teacher samples and groups again, and attention, normalisation and maximum are separate
operations. Both sides have the same sizes, crops, losses, optimizer and precision.

    python benchmarks/dcglr_step.py [--batch 32] [--points 2048] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import math
import statistics
import time

import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.encoders.registry import build
from pointzoo.pretrain.dcglr import DCGLR, PRESETS, DCGLRConfig, Projector
from pointzoo.pretrain.health import bfloat16_pays
from pointzoo.pretrain.objective import Clock, Runtime
from pointzoo.pretrain.views import ObjectClouds


def plain_fps(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling, (B, N, 3) -> (B, count), as PointNet++ code bases write it."""
    clouds, size, _ = points.shape
    chosen = torch.zeros(clouds, count, dtype=torch.long)
    distance = torch.full((clouds, size), math.inf)
    farthest = torch.zeros(clouds, dtype=torch.long)
    rows = torch.arange(clouds)
    for i in range(count):
        chosen[:, i] = farthest
        centre = points[rows, farthest][:, None]
        distance = torch.minimum(distance, ((points - centre) ** 2).sum(-1))
        farthest = distance.max(-1).indices
    return chosen


def plain_rows(values: Tensor, index: Tensor) -> Tensor:
    return values[torch.arange(len(values)).view(-1, *[1] * (index.dim() - 1)), index]


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
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
    """The arithmetic of ``vit3d_tiny`` in separate, plain operations."""

    def __init__(self, dim: int, depth: int, heads: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((6, *widths[:-1]), widths, strict=True):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], dim, bias=False))
        self.bn = nn.BatchNorm1d(dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*(PlainBlock(dim, heads, 2 * dim) for _ in range(depth)))
        self.norm, self.output = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, dim)

    def forward(self, points: Tensor) -> Tensor:
        clouds, size, _ = points.shape
        with torch.no_grad():
            centres = plain_rows(points, plain_fps(points, size // 32))  # (B, S, 3)
            members = torch.cdist(centres, points).topk(32, largest=False).indices
        patches = plain_rows(points, members)  # (B, S, K, 3)
        middle = centres[:, :, None].expand_as(patches)
        rows = torch.cat([patches - middle, middle], -1)
        x = self.mlp(rows.reshape(-1, 6)).view(clouds, size // 32, 32, -1).amax(2)
        x = torch.relu(self.bn(x.flatten(0, 1))).view(clouds, size // 32, -1)
        x = torch.cat([self.token.expand(clouds, -1, -1).to(x.dtype), x], 1)
        return self.output(self.norm(self.blocks(x))[:, 0])


class Plain:
    """Student, teacher and one step, crop by crop."""

    def __init__(self, config: DCGLRConfig) -> None:
        shape = build("vit3d_tiny").config
        net = PlainViT(shape.dim, shape.depth, shape.heads, shape.patch_widths)
        self.config = config
        self.student = nn.Sequential(net, Projector(shape.dim, config)).train()
        self.teacher = copy.deepcopy(self.student).requires_grad_(requires_grad=False)
        self.center = torch.zeros(config.projector_outputs)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4)

    def crop(self, points: Tensor, low: float, high: float) -> Tensor:
        """One crop of every cloud, topped up with means of four neighbours."""
        clouds, size, _ = points.shape
        points = points + (torch.randn_like(points) * 0.01).clamp(-0.05, 0.05)
        target = math.ceil(size * high)
        out = []
        for cloud in points:
            kept = math.ceil(size * (low + (high - low) * float(torch.rand(()))))
            centre = cloud[int(torch.randint(size, ()))]
            part = cloud[((cloud - centre) ** 2).sum(-1).topk(kept, largest=False).indices]
            missing = target - kept
            if missing > 0:
                picks = part[torch.randint(kept, (missing,))]
                near = torch.cdist(picks, part).topk(4, largest=False).indices
                part = torch.cat([part, part[near].mean(1)])
            out.append(part)
        scale = torch.empty(clouds, 1, 3).uniform_(2 / 3, 3 / 2)
        shift = torch.empty(clouds, 1, 3).uniform_(-0.2, 0.2)
        return torch.stack(out) * scale + shift

    def step(self, points: Tensor, autocast: contextlib.AbstractContextManager[None]) -> None:
        config = self.config
        crops = [self.crop(points, *config.global_ratio) for _ in range(config.global_crops)]
        crops += [self.crop(points, *config.local_ratio) for _ in range(config.local_crops)]
        for _ in range(config.half_clouds):
            noisy = points + (torch.randn_like(points) * 0.01).clamp(-0.05, 0.05)
            half = plain_rows(noisy, plain_fps(noisy, points.shape[1] // 2))
            crops.append(half + torch.empty(len(half), 1, 3).uniform_(-1, 1))
        with autocast:
            with torch.no_grad():
                teacher = [self.teacher(crop).float() for crop in crops[: config.global_crops]]
            student = [self.student(crop).float() for crop in crops]
        targets = [((t - self.center) / 0.04).softmax(-1) for t in teacher]
        sums = {True: 0.0, False: 0.0}
        counts = {True: 0, False: 0}
        for i, target in enumerate(targets):
            for j, output in enumerate(student):
                if i != j:
                    near = j < config.global_crops
                    sums[near] += -(target * (output / 0.1).log_softmax(-1)).sum(-1).mean()
                    counts[near] += 1
        loss = sum(sums[k] / counts[k] for k in sums)
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.student.parameters():
            nn.utils.clip_grad_norm_(parameter, 3.0)
        self.optimizer.step()
        with torch.no_grad():
            self.center = self.center * 0.9 + torch.cat(teacher).mean(0) * 0.1
            pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
            for slow, fast in pairs:
                slow.mul_(0.996).add_(fast, alpha=0.004)


class Ours:
    """The bundled trainer's step, without the reading of data."""

    def __init__(self, config: DCGLRConfig) -> None:
        self.objective = DCGLR(build("vit3d_tiny"), config).train()
        groups = self.objective.parameter_groups()
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
        self.clock = Clock(100, 1000, config.batch_size)
        self.generator = torch.Generator().manual_seed(0)
        self.views: list[float] = []

    def step(self, points: Tensor, autocast: contextlib.AbstractContextManager[None]) -> None:
        self.objective.runtime = Runtime(autocast=lambda: autocast)
        clouds = ObjectClouds(points, points.new_zeros(*points.shape[:2], 0))
        loss, logged = self.objective.loss(clouds, self.generator)
        self.views.append(logged["views_seconds"])
        self.optimizer.zero_grad()
        loss.backward()
        self.objective.after_backward(500, self.clock)
        self.optimizer.step()
        self.objective.after_step(500, self.clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--points", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["paper"], points=options.points, batch_size=options.batch)
    points = torch.nn.functional.normalize(torch.randn(options.batch, options.points, 3), dim=-1)
    precisions = ["float32"] + (["bfloat16"] if bfloat16_pays() else [])
    print(f"batch {options.batch} x {options.points} points, {options.threads} threads, "
          f"compiled core: {ops.compiled()}")  # fmt: skip
    for precision in precisions:
        sides = {"plain": Plain(config), "pointzoo": Ours(config)}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(options.repeats + 1):
            for name, side in sides.items():
                autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
                started = time.perf_counter()
                side.step(points, autocast)
                if repeat:  # the first warms up
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        share = statistics.median(
            views / total
            for views, total in zip(sides["pointzoo"].views[1:], seconds["pointzoo"], strict=True)
        )
        ratios = [p / o for p, o in zip(seconds["plain"], seconds["pointzoo"], strict=True)]
        print(json.dumps({
            "precision": precision,
            "plain_seconds": round(medians["plain"], 3),
            "pointzoo_seconds": round(medians["pointzoo"], 3),
            "times_faster": round(medians["plain"] / medians["pointzoo"], 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            "share_of_crops_fps_knn": round(share, 3),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
