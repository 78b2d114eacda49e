"""Time sparse convolution and SparseUNet34 against spconv, ocnn, dense convolution and the limit.

One interleaved run: in each round every candidate does the same task once, and ``torch.mm`` is
timed just before and after each. The limit is the number of multiply-adds, counted from the kernel
maps, at the rate of ``torch.mm``: of (2048, C) x (C, C) for one convolution, of (2048, 256) x
(256, 256) for the network. Peers that are not installed are named and left out:

* spconv runs on one thread, as its CPU scatter gives wrong sums with more; its backward pass asks
  for a CUDA stream, which is patched away.
* ocnn has no kernel of 5 x 5 x 5: its stem has 3 x 3 x 3, which is less work.
* "dense" is ``torch.conv3d`` over the bounding box of the scene; the whole network does not fit.

Peak memory is that of a process of its own. Run it on a quiet machine:

    python benchmarks/sparse_conv.py [--threads 2] [--rounds 7] [--output FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pointzoo as pz
from pointzoo.encoders.sparse_blocks import Down, Submanifold, Up
from pointzoo.ops.sparse import VoxelGrid, core, submanifold_conv

Run = Callable[[], Any]
GRID_SIZE = 0.02  # metres
WIDTHS, LAYERS = (32, 64, 128, 256, 256, 128, 96, 96), (2, 3, 4, 6, 2, 2, 2, 2)
CORE, PLAIN, BF16 = "pointzoo", "pointzoo without core", "pointzoo bfloat16"
BARS = {"inference": (0.8, 3.0, 1.4), "training step": (0.7, 2.5, 1.4)}
PATIENCE = 8.0  # seconds: a candidate slower than this is timed in three rounds only


# ---- the scene ---------------------------------------------------------------------------------


def room(points: int = 200_000) -> Tensor:
    """Walls, floor, ceiling and furniture of boxes, scanned with 1.5 mm of noise, (N, 3) metres."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([3.4, 2.8, 2.0])
    boxes = [(torch.zeros(3), size)]
    for _ in range(7):
        edges = 0.2 + torch.rand(3, generator=generator) * torch.tensor([1.2, 0.8, 1.0])
        place = torch.rand(3, generator=generator) * (size - edges)
        boxes.append((place * torch.tensor([1.0, 1.0, 0.3]), edges))
    corners, sides = [], []
    for corner, edges in boxes:
        for axis in range(3):
            u, v = (torch.eye(3)[a] * edges[a] for a in range(3) if a != axis)
            across = torch.eye(3)[axis] * edges[axis]
            corners += [corner, corner + across]
            sides += [torch.stack([u, v])] * 2
    spans = torch.stack(sides)
    area = torch.linalg.cross(spans[:, 0], spans[:, 1]).norm(dim=1)
    face = torch.multinomial(area, points, replacement=True, generator=generator)
    share = torch.rand(points, 2, 1, generator=generator)
    coords = torch.stack(corners)[face] + (share * spans[face]).sum(dim=1)
    c, s = math.cos(0.3), math.sin(0.3)
    turn = torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return coords @ turn + torch.randn(points, 3, generator=generator) * 0.0015


@dataclass(frozen=True)
class Scene:
    """Voxels in random order, as a data set gives them, and as grids of 5 levels."""

    coords: Tensor
    offsets: Tensor
    features: Tensor
    levels: list[VoxelGrid]

    @staticmethod
    def build() -> Scene:
        cells = torch.unique((room() / GRID_SIZE).floor().long(), dim=0)
        cells = cells - cells.amin(dim=0)
        generator = torch.Generator().manual_seed(1)
        cells = cells[torch.randperm(len(cells), generator=generator)]
        offsets = torch.tensor([len(cells)])
        levels = [VoxelGrid.build(cells, offsets)[0]]
        for _ in range(4):
            levels.append(levels[-1].down()[0])
        features = torch.rand(len(cells), 6, generator=generator)
        return Scene(cells, offsets, features, levels)


def pairs_of(grid: VoxelGrid, kernel_size: int) -> int:
    return sum(grid.submanifold(kernel_size).pairs.list.counts)


# ---- peers: layers that a network is made of ----------------------------------------------------


class Spconv:
    """Layers of spconv; x is its sparse tensor."""

    name, threads = "spconv", 1

    def __init__(self) -> None:
        import spconv.pytorch as spconv
        import spconv.pytorch.ops as ops

        ops.get_current_stream = lambda: 0  # the backward pass asks for one without need
        self.lib = spconv
        self.native = {"bias": False, "algo": spconv.ConvAlgo.Native}

    def start(self, grid: VoxelGrid, features: Tensor) -> Any:
        rows = torch.column_stack([grid.batch, grid.coords]).int()
        shape = (grid.coords.amax(dim=0) + 96).tolist()
        return self.lib.SparseConvTensor(features, rows, shape, len(grid.offsets))

    def same(self, i: int, o: int, k: int, level: int) -> nn.Module:
        return self.lib.SubMConv3d(i, o, k, indice_key=f"same{k}.{level}", **self.native)

    def down(self, i: int, o: int, level: int) -> nn.Module:
        return self.lib.SparseConv3d(i, o, 2, 2, indice_key=f"down{level}", **self.native)

    def up(self, i: int, o: int, level: int) -> nn.Module:
        return self.lib.SparseInverseConv3d(i, o, 2, indice_key=f"down{level}", **self.native)

    def call(self, layer: nn.Module, x: Any, level: int) -> Any:  # noqa: ARG002
        return layer(x)

    def values(self, x: Any) -> Tensor:
        return x.features

    def with_values(self, x: Any, values: Tensor) -> Any:
        return x.replace_feature(values)


class Ocnn:
    """Layers of ocnn on the non-empty nodes of an octree; x is (octree, rows)."""

    name, threads = "ocnn", 0
    depth = 8

    def __init__(self) -> None:
        try:
            importlib.import_module("torchvision.models")
        except (ImportError, RuntimeError):  # ocnn wants it for a model that is not used here
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            sys.modules["torchvision"] = vision = types.ModuleType("torchvision")
            vision.models = sys.modules["torchvision.models"] = types.ModuleType("models")
            vision.models.resnet18 = None
        self.lib = importlib.import_module("ocnn")
        self.octree = importlib.import_module("ocnn.octree")

    def tree(self, grid: VoxelGrid, level: int = 0) -> Any:
        depth = self.depth - level
        points = self.octree.Points((grid.coords.float() + 0.5) / 2 ** (depth - 1) - 1)
        octree = self.octree.Octree(depth, 2, 1)
        octree.build_octree(points)
        octree.construct_all_neigh()
        return octree

    def start(self, grid: VoxelGrid, features: Tensor) -> Any:
        return self.tree(grid), features

    def same(self, i: int, o: int, k: int, level: int) -> nn.Module:  # noqa: ARG002
        if k == 1:
            return nn.Linear(i, o, bias=False)
        return self.lib.nn.OctreeConv(i, o, [3], 1, nempty=True)

    def down(self, i: int, o: int, level: int) -> nn.Module:  # noqa: ARG002
        return self.lib.nn.OctreeConv(i, o, [2], 2, nempty=True)

    def up(self, i: int, o: int, level: int) -> nn.Module:  # noqa: ARG002
        return self.lib.nn.OctreeDeconv(i, o, [2], 2, nempty=True)

    def call(self, layer: nn.Module, x: Any, level: int) -> Any:
        octree, rows = x
        if isinstance(layer, nn.Linear):
            return octree, layer(rows)
        return octree, layer(rows, octree, octree.depth - level)

    def values(self, x: Any) -> Tensor:
        return x[1]

    def with_values(self, x: Any, values: Tensor) -> Any:
        return x[0], values


class PeerUNet(nn.Module):
    """SparseUNet34 from the layers of a peer."""

    def __init__(self, kit: Any) -> None:
        super().__init__()
        self.kit, self.layers = kit, nn.ModuleDict()
        fine = [32, *WIDTHS[:3]]
        self._add("stem", kit.same(6, 32, 5, 0), 32)
        for s in range(4):
            up = WIDTHS[7 - s]
            self._add(f"down{s}", kit.down(fine[s], WIDTHS[s], s), WIDTHS[s])
            self._add(f"up{s}", kit.up(WIDTHS[6 - s] if s < 3 else WIDTHS[3], up, s), up)
            self._stage(f"enc{s}", WIDTHS[s], WIDTHS[s], LAYERS[s], s + 1)
            self._stage(f"dec{s}", up + fine[s], up, LAYERS[7 - s], s)

    def _add(self, name: str, layer: nn.Module, width: int) -> None:
        self.layers[name] = layer
        self.layers[f"{name}norm"] = nn.BatchNorm1d(width, eps=1e-3, momentum=0.01)

    def _stage(self, name: str, i: int, o: int, blocks: int, level: int) -> None:
        for b, (width, out) in enumerate(pairwise([i, *[o] * blocks])):
            self._add(f"{name}_{b}a", self.kit.same(width, out, 3, level), out)
            self._add(f"{name}_{b}b", self.kit.same(out, out, 3, level), out)
            if width != out:
                self._add(f"{name}_{b}p", self.kit.same(width, out, 1, level), out)

    def _run(self, name: str, x: Any, level: int, more: Tensor | None = None) -> Any:
        x = self.kit.call(self.layers[name], x, level)
        values = self.layers[f"{name}norm"](self.kit.values(x))
        values = values if more is None else values + more
        return self.kit.with_values(x, values if name.endswith("p") else values.relu_())

    def _blocks(self, name: str, x: Any, count: int, level: int) -> Any:
        for b in range(count):
            project = f"{name}_{b}p"
            short = self._run(project, x, level) if project in self.layers else x
            inner = self._run(f"{name}_{b}a", x, level)
            x = self._run(f"{name}_{b}b", inner, level, self.kit.values(short))
        return x

    def forward(self, grid: VoxelGrid, features: Tensor) -> Tensor:
        x = self._run("stem", self.kit.start(grid, features), 0)
        way = []
        for s in range(4):
            way.append(x)
            x = self._blocks(f"enc{s}", self._run(f"down{s}", x, s), LAYERS[s], s + 1)
        for s in reversed(range(4)):
            x = self._run(f"up{s}", x, s + 1)
            both = torch.cat([self.kit.values(x), self.kit.values(way[s])], dim=1)
            x = self._blocks(f"dec{s}", self.kit.with_values(x, both), LAYERS[7 - s], s)
        return self.kit.values(x)


# ---- tasks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What every candidate does; the work in GFLOP, 0 where there is no product."""

    name: str
    runs: dict[str, Run]
    work: float = 0.0
    width: int = 256


def threads_of(run: Run, count: int) -> Run:
    def limited() -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
        try:
            return run()
        finally:
            torch.set_num_threads(before)

    return limited


def ours(run: Run, *, compiled: bool) -> Run:
    def chosen() -> Any:
        os.environ["POINTZOO_COMPILED"] = str(int(compiled))
        return run()

    return chosen


def both(run: Run) -> dict[str, Run]:
    return {CORE: ours(run, compiled=True), PLAIN: ours(run, compiled=False)}


def fresh(grid: VoxelGrid) -> VoxelGrid:
    return VoxelGrid(grid.coords, grid.batch, grid.offsets)


def maps_by_us(scene: Scene, kernel_size: int) -> None:
    """Sort, and build the form of the map that the path in use multiplies with."""
    grid = VoxelGrid.build(scene.coords, scene.offsets)[0]
    form = "tiles" if core.compiled() else "list"
    if kernel_size:
        getattr(grid.submanifold(kernel_size).pairs, form)
    for _ in range(0 if kernel_size else 4):
        grid, stride = grid.down()
        getattr(stride.down, form), getattr(stride.up, form)


def map_tasks(scene: Scene, kits: list[Any]) -> list[Task]:
    tasks = []
    for kernel_size in (3, 5, 0):
        runs = both(lambda k=kernel_size: maps_by_us(scene, k))
        for kit in kits:
            if kit.name == "spconv":
                sizes = [kit.same(1, 1, kernel_size, 0)] if kernel_size else []
                layers = sizes or [kit.down(1, 1, level) for level in range(4)]
                chain = nn.Sequential(*layers)
                ones = torch.ones(scene.levels[0].num_voxels, 1)
                run = lambda m=chain, kit=kit, x=ones: m(kit.start(scene.levels[0], x))  # noqa: E731
                runs[kit.name] = threads_of(torch.no_grad()(run), kit.threads)
            else:  # the octree comes with the neighbours of all levels
                runs[kit.name] = lambda kit=kit: kit.tree(scene.levels[0])
        name = f"kernel map, k = {kernel_size}" if kernel_size else "2 x 2 x 2 pyramid, 4 levels"
        tasks.append(Task(name, runs))
    return tasks


def dense(grid: VoxelGrid, x: Tensor, weight: Tensor) -> Tensor:
    coords = grid.coords - grid.coords.amin(dim=0)
    cells = x.new_zeros(1, *(coords.amax(dim=0) + 1).tolist(), x.shape[1])
    at = (0, *coords.unbind(1))
    filled = cells.index_put(tuple(map(torch.as_tensor, at)), x).permute(0, 4, 1, 2, 3)
    kernel = weight.view(3, 3, 3, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
    return torch.conv3d(filled, kernel, padding=1)[0][(slice(None), *coords.unbind(1))].T


def conv_task(scene: Scene, kits: list[Any], level: int, width: int, *, backward: bool) -> Task:
    grid = scene.levels[level]
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(grid.num_voxels, width, generator=generator).requires_grad_(backward)
    weight = (torch.randn(27, width, width, generator=generator) / width).requires_grad_(backward)

    def finish(y: Tensor) -> Tensor:
        if backward:
            y.backward(torch.ones_like(y))
        return y.detach()

    kernel_map = grid.submanifold(3)
    runs = both(lambda: finish(submanifold_conv(x, weight, kernel_map)))
    for kit in kits:
        layer = kit.same(width, width, 3, level)
        if kit.name == "spconv":  # one tensor for all rounds: its map is built in the first
            layer.weight.data = weight.data.view(3, 3, 3, width, width).permute(4, 0, 1, 2, 3)
            layer.weight.data = layer.weight.data.contiguous()
            start = kit.start(grid, x)
        else:
            start = kit.tree(grid, level), x
        place = 0 if kit.name == "ocnn" else level
        run = lambda kit=kit, m=layer, s=start, p=place: finish(kit.values(kit.call(m, s, p)))  # noqa: E731
        runs[kit.name] = threads_of(run, kit.threads)
    runs["dense"] = lambda: finish(dense(grid, x, weight))
    kind = "forward + backward" if backward else "forward"
    work = 2e-9 * pairs_of(grid, 3) * width**2 * (3 if backward else 1)
    return Task(f"level {level}, {width} channels, {kind}", runs, work, width)


def work_of(encoder: nn.Module, scene: Scene) -> float:
    """Return the GFLOP of all convolutions in one forward pass, from the kernel maps."""
    total = [0.0]

    def count(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        grid, (_, i, o) = inputs[1], layer.weight.shape
        size = getattr(layer, "kernel_size", 2)
        rows = grid.num_voxels if size <= 2 else pairs_of(grid, size)
        total[0] += 2e-9 * rows * i * o

    kinds = (Submanifold, Down, Up)
    layers = [m for m in encoder.modules() if isinstance(m, kinds)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    with torch.no_grad():
        encoder.forward_voxels(scene.coords, scene.features, scene.offsets)
    for hook in hooks:
        hook.remove()
    return total[0]


def network_runs(scene: Scene, kits: list[Any], *, train: bool) -> dict[str, Run]:
    encoder = pz.create_encoder("sparseunet34", in_channels=6).train(train)
    voxels = scene.coords, scene.features, scene.offsets

    def over(module: nn.Module, forward: Run) -> Run:
        def step() -> Tensor:
            with torch.set_grad_enabled(train):
                y = forward().float()
                if train:
                    module.zero_grad(set_to_none=True)
                    y.square().mean().backward()
                return y.detach()

        return step

    def rounded() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return encoder.forward_voxels(*voxels)

    runs = both(over(encoder, lambda: encoder.forward_voxels(*voxels)))
    if core.fast(torch.bfloat16):
        runs[BF16] = ours(over(encoder, rounded), compiled=True)
    for kit in kits:
        peer = PeerUNet(kit).train(train)
        run = over(peer, lambda peer=peer: peer(scene.levels[0], scene.features))
        runs[kit.name] = threads_of(run, kit.threads)
    return runs


# ---- measuring ----------------------------------------------------------------------------------


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rate_of(width: int) -> float:
    """Return the GFLOP per second of torch.mm over a tenth of a second."""
    a, b = torch.randn(2048, width), torch.randn(width, width)
    torch.mm(a, b)
    start, spent, count = time.perf_counter(), 0.0, 0
    while spent < 0.1:
        torch.mm(a, b)
        count, spent = count + 1, time.perf_counter() - start
    return 2e-9 * a.numel() * width * count / spent


def measure(task: Task, rounds: int) -> dict[str, Any]:
    """Time all candidates in turn; the limit of each run is that of torch.mm just around it."""
    times: dict[str, list[float]] = {name: [] for name in task.runs}
    rates: dict[str, list[float]] = {name: [] for name in task.runs}
    for _ in range(rounds + 1):
        for name, run in task.runs.items():
            if len(times[name]) < 4 or times[name][0] < PATIENCE:
                before = rate_of(task.width)
                times[name].append(seconds(run))
                rates[name].append((before + rate_of(task.width)) / 2)
    rows: dict[str, Any] = {}
    for name, spent in times.items():
        kept = spent[1:]  # the first round warms up
        rows[name] = {"median_s": statistics.median(kept), "rounds": len(kept)}
        rows[name] |= {"min_s": min(kept), "max_s": max(kept)}
        if task.work:
            limits = [task.work / rate for rate in rates[name][1:]]
            shares = [limit / t for limit, t in zip(limits, kept, strict=True)]
            rows[name] |= {"of_limit": statistics.median(shares)}
            rows[name] |= {"of_limit_min": min(shares), "of_limit_max": max(shares)}
    every = [rate for found in rates.values() for rate in found[1:]]
    report = {"task": task.name, "gflop": task.work, "mm_gflops": statistics.median(every)}
    report |= {"mm_gflops_min": min(every), "mm_gflops_max": max(every)}
    peers = [name for name in rows if not name.startswith("pointzoo")]
    fastest = min(peers, key=lambda name: rows[name]["median_s"], default=None)
    for name, row in rows.items():
        row["fastest_peer_over_this"] = None
        if fastest:
            pairs = zip(times[fastest][1:], times[name][1:], strict=False)  # of one round each
            row["fastest_peer_over_this"] = statistics.median(p / t for p, t in pairs)
    return {**report, "rows": rows}


def show(report: dict[str, Any]) -> None:
    low, rate, high = (report[f"mm_gflops{end}"] for end in ("_min", "", "_max"))
    limit = f", {report['gflop'] / rate * 1e3:.1f} ms at the limit" if report["gflop"] else ""
    print(f"\n{report['task']}{limit} (torch.mm {rate:.0f} GFLOP/s, {low:.0f} .. {high:.0f})")
    for name, row in sorted(report["rows"].items(), key=lambda item: item[1]["median_s"]):
        share = ""
        if "of_limit" in row:
            share = f"{row['of_limit']:7.0%} of limit "
            share += f"({row['of_limit_min']:.0%} .. {row['of_limit_max']:.0%})"
        ratio = row["fastest_peer_over_this"]
        ratio = "" if ratio is None else f"{ratio:7.2f} x fastest peer"
        memory = f"{row['peak_mb']:7.0f} MB" if "peak_mb" in row else ""
        spread = f"({row['min_s'] * 1e3:.1f} .. {row['max_s'] * 1e3:.1f})"
        print(f"  {name:24}{row['median_s'] * 1e3:10.1f} ms {spread:24}{share}{ratio}{memory}")
    sys.stdout.flush()


def peak_memory(name: str, options: argparse.Namespace, task: str) -> float:
    """Return the peak resident memory of one candidate in a process of its own, MB."""
    command = [sys.executable, __file__, "--alone", name, task, "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def alone(name: str, task: str, kits: list[Any]) -> None:
    chosen, train = [k for k in kits if k.name == name], task == "training step"
    runs = network_runs(Scene.build(), chosen, train=train)
    runs[name]()
    runs[name]()
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Return the peak resident memory, MB; getrusage would count the parent's before the exec."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = [s for s in status.read_text().splitlines() if s.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def repeats_equal(count: int) -> bool:
    """Return whether ``count`` forward and backward passes of sparseunet14 are equal to the bit."""
    os.environ["POINTZOO_COMPILED"] = "1"
    cells = torch.unique((room(40_000) / 0.06).floor().long(), dim=0)
    features, offsets = torch.rand(len(cells), 6), torch.tensor([len(cells)])
    encoder = pz.create_encoder("sparseunet14", in_channels=6).train()
    seen = set()
    for _ in range(count):
        encoder.zero_grad(set_to_none=True)
        y = encoder.forward_voxels(cells, features, offsets)
        y.square().mean().backward()
        digest = hashlib.sha256(y.detach().numpy().tobytes())
        for parameter in encoder.parameters():
            digest.update(parameter.grad.numpy().tobytes())
        seen.add(digest.hexdigest())
    print(f"\n{count} passes over {len(cells)} voxels: {len(seen)} different result(s)")
    return len(seen) == 1


def available(skip: list[str]) -> list[Any]:
    return [kit for kind in (Spconv, Ocnn) if kind.name not in skip for kit in opened(kind)]


def opened(kind: type[Any]) -> list[Any]:
    try:
        return [kind()]
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{kind.name} is missing: {error}")
        return []


def verdict(report: dict[str, Any]) -> None:
    limit, peer, plain = BARS[report["task"]]
    row, slow = report["rows"][CORE], report["rows"][PLAIN]
    print(f"  bars: {row['of_limit']:.0%} of the limit (at least {limit:.0%})", end="")
    if row["fastest_peer_over_this"] is not None:
        print(f"; {row['fastest_peer_over_this']:.2f} times the fastest peer ({peer}); ", end="")
        print(f"without core {slow['fastest_peer_over_this']:.2f} ({plain})", end="")
    print(flush=True)


def run_all(options: argparse.Namespace, kits: list[Any]) -> dict[str, Any]:
    scene = Scene.build()
    sizes = [grid.num_voxels for grid in scene.levels]
    near = [pairs_of(grid, 3) / grid.num_voxels for grid in scene.levels]
    print(f"voxels {sizes}, neighbours {[round(n, 1) for n in near]}")
    tasks = map_tasks(scene, kits)
    for level, width in enumerate((32, 64, 128, 256)):
        for backward in (False, True):
            tasks.append(conv_task(scene, kits, level, width, backward=backward))
    reports = []
    for task in tasks:
        reports.append(measure(task, options.rounds))
        show(reports[-1])
    work = work_of(pz.create_encoder("sparseunet34", in_channels=6).eval(), scene)
    for name in BARS:
        train = name == "training step"
        runs = network_runs(scene, kits, train=train)
        report = measure(Task(name, runs, work * (3 if train else 1)), options.rounds)
        del runs
        for row in report["rows"] if options.memory else ():
            report["rows"][row]["peak_mb"] = peak_memory(row, options, name)
        show(report)
        verdict(report)
        reports.append(report)
    return {"voxels": sizes, "neighbours": near, "tasks": reports}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=200, help="passes that must be bit-equal")
    parser.add_argument("--skip", nargs="*", default=[], help="peers to leave out")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peers
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    kits = available(options.skip)
    if options.alone:
        return alone(*options.alone, kits)
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", *[k.name for k in kits])
    }
    level = core.instruction_set()
    print(f"core: {core.compiled()}, level {level}; {options.threads} threads; {versions}")
    content = {
        "threads": options.threads,
        "versions": versions,
        "core": core.compiled(),
        "instruction_set": ("baseline", "AVX2", "AVX-512", "AVX-512 + AMX")[level],
        "processor": platform.processor() or platform.machine(),
        **run_all(options, kits),
        "equal_repeats": {"count": options.repeats, "equal": repeats_equal(options.repeats)},
    }
    if options.output:
        partial = options.output.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(options.output)
    return None


if __name__ == "__main__":
    main()
