"""Time sampling and nearest neighbours against other packages, interleaved in one run.

Whatever is installed of fpsample, torch_cluster, scipy and Open3D takes part; the others are named.
Every candidate gets the same float32 points, builds its own tree or index within the timed part and
may use the same number of threads (over clouds where a package has no batches and lets go of the
interpreter lock). "same" is the share of results equal to ours; packages may differ in the order
of ties, or (fpsample) in the first point. On a machine that others use, compare the smallest
processor times with one thread: wall times then say who was waiting.

    python benchmarks/ops.py [--repeats 7] [--threads 2] [--skip NAME ...] [--output FILE]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointzoo import ops

Run = Callable[[], Any]
PATIENCE = 3.0  # seconds of processor time: a candidate slower than this is timed once
FIGURES = ("median_s", "min_s", "min_cpu_s")


@dataclass(frozen=True)
class Task:
    """One row of the table: (B, P, 3) points, and what is asked of each cloud."""

    name: str
    points: Tensor
    samples: int = 0
    k: int = 0

    @property
    def offsets(self) -> Tensor:
        return torch.arange(1, len(self.points) + 1) * self.points.shape[1]

    @property
    def queries(self) -> Tensor:
        """(B, S, 3): every point, or as many of them as there are samples."""
        return self.points[:, : self.samples] if self.samples else self.points


def objects(count: int, size: int) -> Tensor:
    """Closed surfaces of random shape, (count, size, 3)."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(count, size, 3, generator=generator)
    direction /= direction.norm(dim=-1, keepdim=True)
    waves = torch.randn(count, 3, 3, generator=generator) * 2
    radius = 1 + 0.3 * (direction @ waves).sin().sum(-1, keepdim=True)
    return direction * radius * torch.rand(count, 1, 3, generator=generator).add(0.3)


def scan(size: int) -> Tensor:
    """Rolling ground with a dozen boxes on it, denser near the scanner, (1, size, 3) metres."""
    generator = np.random.default_rng(0)
    angle, distance = generator.uniform(0, 2 * np.pi, size), generator.gamma(2.0, 8.0, size)
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    z = np.sin(x / 7) + np.cos(y / 5)
    for centre in generator.uniform(-25, 25, (12, 2)):
        inside = (np.abs(x - centre[0]) < 3) & (np.abs(y - centre[1]) < 2)
        wall = inside & (generator.random(size) < 0.5)
        z = np.where(wall, z + generator.uniform(0, 4, size), np.where(inside, 4.0, z))
    points = np.stack([x, y, z], axis=1) + generator.normal(0, 0.01, (size, 3))
    return torch.from_numpy(points.astype(np.float32))[None]


def tasks() -> list[Task]:
    small, large = objects(64, 2048), scan(100_000)
    return [
        Task("FPS, 64 objects of 2,048, 64 each", small, samples=64),
        Task("FPS, 64 objects of 2,048, half of each", small, samples=1024),
        Task("FPS, scan of 100,000, 1,024", large, samples=1024),
        Task("FPS, scan of 100,000, 4,096", large, samples=4096),
        Task("kNN, 64 objects of 2,048, 64 queries, k = 32", small, samples=64, k=32),
        Task("kNN, 64 objects of 2,048, all points, k = 16", small, k=16),
        Task("kNN, scan of 100,000, all points, k = 16", large, k=16),
        Task("kNN, scan of 100,000, all points, k = 32", large, k=32),
    ]


def ours(task: Task, core: str) -> Run:
    flat, clouds = task.points.flatten(0, 1), len(task.points)
    query = task.queries.flatten(0, 1)
    query_offsets = torch.arange(1, clouds + 1) * task.queries.shape[1]
    counts, start = torch.full((clouds,), task.samples), torch.zeros(clouds, dtype=torch.int64)
    first = (task.offsets - task.points.shape[1])[:, None]

    def run() -> np.ndarray:
        os.environ["POINTZOO_COMPILED"] = core
        if task.k:
            index, _ = ops.knn(query, query_offsets, flat, task.offsets, task.k)
            return (index.view(clouds, -1) - first).numpy()
        picks = ops.farthest_point_sampling(flat, task.offsets, counts, start=start)
        return (picks.view(clouds, -1) - first).numpy()

    return run


def with_fpsample(task: Task) -> dict[str, Run]:
    import fpsample

    if task.k:
        return {}
    clouds, pool = list(task.points.numpy()), ThreadPoolExecutor(torch.get_num_threads())

    def over(sample: Callable[[np.ndarray], np.ndarray]) -> Run:
        return lambda: list(pool.map(sample, clouds))

    found: dict[str, Run] = {}
    if len(clouds) > 1:
        found["fpsample"] = over(lambda c: fpsample.fps_sampling(c, task.samples, start_idx=0))
    for h in (3, 5) if len(clouds) > 1 else (5, 7):
        found[f"fpsample kdline h={h}"] = over(
            lambda c, h=h: fpsample.bucket_fps_kdline_sampling(c, task.samples, h=h, start_idx=0)
        )
    return found


def with_torch_cluster(task: Task) -> dict[str, Run]:
    import torch_cluster

    clouds, size, _ = task.points.shape
    flat, query = task.points.flatten(0, 1), task.queries.flatten(0, 1)
    batch = torch.arange(clouds).repeat_interleave(size)
    own = torch.arange(clouds).repeat_interleave(task.queries.shape[1])
    if task.k:
        return {"torch_cluster": lambda: torch_cluster.knn(flat, query, task.k, batch, own)[1]}
    ratio = task.samples / size
    return {"torch_cluster": lambda: torch_cluster.fps(flat, batch, ratio, random_start=False)}


def with_scipy(task: Task) -> dict[str, Run]:
    from scipy.spatial import cKDTree

    if not task.k:
        return {}
    pairs = list(zip(task.points.double().numpy(), task.queries.double().numpy(), strict=True))
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)

    def search(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        workers = threads if len(pairs) == 1 else 1
        return cKDTree(pair[0]).query(pair[1], task.k, workers=workers)[1]

    return {"scipy cKDTree": lambda: list(pool.map(search, pairs))}


def with_open3d(task: Task) -> dict[str, Run]:
    import open3d

    core = open3d.core
    clouds = [core.Tensor(c) for c in task.points.numpy()]
    queries = [core.Tensor(np.ascontiguousarray(c)) for c in task.queries.numpy()]
    if not task.k:
        if len(task.points) * task.points.shape[1] * task.samples > 1e7:
            return {}  # minutes: it takes 2 s for the smallest task
        geometry = [open3d.t.geometry.PointCloud(c) for c in clouds]
        return {"Open3D": lambda: [g.farthest_point_down_sample(task.samples) for g in geometry]}

    def search() -> list[np.ndarray]:
        found = []
        for cloud, query in zip(clouds, queries, strict=True):
            index = core.nns.NearestNeighborSearch(cloud)
            index.knn_index()
            found.append(index.knn_search(query, task.k)[0].numpy())
        return found

    return {"Open3D": search}


PEERS = {
    "fpsample": with_fpsample,
    "torch_cluster": with_torch_cluster,
    "scipy": with_scipy,
    "open3d": with_open3d,
}


def agreement(result: Any, want: np.ndarray) -> float | None:
    """Return the share of equal indices, None where the result is of another kind."""
    try:
        found = np.stack([np.asarray(part) for part in result]).reshape(want.shape)
    except (TypeError, ValueError):
        return None
    return float((found == want).mean())


def measure(candidates: dict[str, Run], repeats: int) -> dict[str, dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    same: dict[str, float | None] = {}
    want = candidates["pointzoo"]()
    for _ in range(repeats + 1):  # the first round warms up, and drops the very slow
        for name, run in candidates.items():
            if times[name] and times[name][0][1] > PATIENCE:
                continue
            wall, processor = time.perf_counter(), time.process_time()
            result = run()
            spent = time.perf_counter() - wall, time.process_time() - processor
            times[name].append(spent)
            same.setdefault(name, agreement(result, want))
    rows = {}
    for name, spent in times.items():
        wall, processor = zip(*(spent[1:] or spent), strict=True)
        figures = statistics.median(wall), min(wall), min(processor)
        rows[name] = {**dict(zip(FIGURES, figures, strict=True)), "same": same[name]}
    return rows


def show(task: Task, rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    print(f"\n{task.name}\n  {'':24}{'median ms':>11}{'min ms':>11}{'CPU ms':>11}{'same':>8}")
    for name, row in sorted(rows.items(), key=lambda item: item[1][FIGURES[-1]]):
        same = "-" if row["same"] is None else f"{row['same']:.1%}"
        print(f"  {name:24}" + "".join(f"{row[f] * 1e3:11.2f}" for f in FIGURES) + f"{same:>8}")
    ratios = {}
    for figure in FIGURES:
        peers = [row[figure] for name, row in rows.items() if not name.startswith("pointzoo")]
        if peers:
            ratios[figure] = min(peers) / rows["pointzoo"][figure]
    print(
        "  fastest peer / pointzoo: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()),
        flush=True,
    )
    return ratios


def version_of(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        print(f"{name} is missing: {error}")
        return None
    return importlib.metadata.version(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[], help="candidates to leave out, by name")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    peers = {name: version for name in PEERS if (version := version_of(name))}
    versions = {"torch": torch.__version__, "numpy": np.__version__, **peers}
    print(f"compiled core: {ops.compiled()}; {options.threads} threads; {versions}")
    report = []
    for task in tasks():
        candidates = {"pointzoo": ours(task, "1"), "pointzoo without core": ours(task, "0")}
        for peer in peers:
            candidates |= PEERS[peer](task)
        candidates = {name: run for name, run in candidates.items() if name not in options.skip}
        rows = measure(candidates, options.repeats)
        report.append({"task": task.name, "rows": rows, "fastest_peer_over_ours": show(task, rows)})
    if options.output:
        machine = {"processor": platform.processor(), "python": platform.python_version()}
        content = {"threads": options.threads, "versions": versions, **machine, "tasks": report}
        partial = options.output.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(options.output)


if __name__ == "__main__":
    main()
