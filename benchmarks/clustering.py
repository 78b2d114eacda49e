"""Time clustering of points within a radius against other packages, interleaved in one run.

    python benchmarks/clustering.py [--repeats 5] [--threads 1] [--output FILE]

Whatever is installed of scikit-learn (DBSCAN whose points are all core points), Open3D (the same)
and scipy (pairs of a KD-tree, connected components) takes part; each is called once per class.
Points lie on the walls of a room, one in each voxel of 2 cm, or where offsets move them: in heaps
around the centres of objects. The radius is PointGroup's 3 cm. "same" says whether a package found
the same clusters. The figures are seconds of processor time, the smallest of all repeats.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pointzoo import ops

RADIUS = 0.03
PATIENCE = 20.0  # seconds: a candidate slower than this is timed once
Run = Callable[[], np.ndarray]


def room(size: int) -> np.ndarray:
    """Return points on the six sides of a cube, in random order, 2 cm apart on average."""
    rng = np.random.default_rng(0)
    side = 0.02 * (size / 6) ** 0.5
    points = rng.uniform(0, side, (size, 3))
    face = rng.integers(6, size=size)
    points[np.arange(size), face // 2] = side * (face % 2)
    return (points + rng.normal(0, 0.002, points.shape)).astype(np.float32)


def heaps(size: int) -> np.ndarray:
    """Return the points of a room, moved to the middle of a cube of 1.5 m, 3 cm astray."""
    points = room(size)
    noise = np.random.default_rng(1).normal(0, 0.03, points.shape)
    return ((np.floor(points / 1.5) + 0.5) * 1.5 + noise).astype(np.float32)


def classes(size: int) -> np.ndarray:
    """Return a class for every point: cubes of 1.5 m in four classes."""
    return np.abs(np.floor(room(size) / 1.5).astype(np.int64).sum(axis=1)) % 4


def ours(points: np.ndarray, labels: np.ndarray) -> Run:
    coords, kinds = torch.from_numpy(points), torch.from_numpy(labels)
    return lambda: ops.cluster(coords, torch.tensor([len(coords)]), kinds, RADIUS).numpy()


def per_class(labels: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> Run:
    def run() -> np.ndarray:
        found, first = np.empty(len(labels), np.int64), 0
        for kind in np.unique(labels):
            rows = np.flatnonzero(labels == kind)
            found[rows] = find(rows) + first
            first = int(found[rows].max()) + 1
        return found

    return run


def with_sklearn(points: np.ndarray, labels: np.ndarray) -> Run:
    from sklearn.cluster import DBSCAN

    model = DBSCAN(eps=RADIUS, min_samples=1)
    return per_class(labels, lambda rows: model.fit_predict(points[rows]))


def with_open3d(points: np.ndarray, labels: np.ndarray) -> Run:
    import open3d

    def find(rows: np.ndarray) -> np.ndarray:
        vectors = open3d.utility.Vector3dVector(points[rows].astype(np.float64))
        cloud = open3d.geometry.PointCloud(vectors)
        return np.asarray(cloud.cluster_dbscan(eps=RADIUS, min_points=1), np.int64)

    return per_class(labels, find)


def with_scipy(points: np.ndarray, labels: np.ndarray) -> Run:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    def find(rows: np.ndarray) -> np.ndarray:
        pairs = cKDTree(points[rows]).query_pairs(RADIUS, output_type="ndarray").T
        ones = np.ones(pairs.shape[1], bool)
        links = coo_array((ones, tuple(pairs)), shape=(len(rows), len(rows)))
        return connected_components(links, directed=False)[1].astype(np.int64)

    return per_class(labels, find)


PEERS = {"scikit-learn": with_sklearn, "open3d": with_open3d, "scipy": with_scipy}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a, b]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


def measure(candidates: dict[str, Run], repeats: int) -> dict[str, dict[str, float | bool]]:
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    equal: dict[str, bool] = {}
    want = candidates["pointzoo"]()
    for _ in range(repeats):
        for name, run in candidates.items():
            if seconds[name] and seconds[name][0] > PATIENCE:
                continue
            start = time.process_time()
            found = run()
            seconds[name].append(time.process_time() - start)
            equal.setdefault(name, same(found, want))
    return {name: {"seconds": min(spent), "same": equal[name]} for name, spent in seconds.items()}


def version_of(name: str) -> str | None:
    try:
        PEERS[name](np.zeros((1, 3)), np.zeros(1))()
    except (ImportError, OSError) as error:
        print(f"{name} is missing: {error}")
        return None
    return importlib.metadata.version(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: version for name in PEERS if (version := version_of(name))}
    versions = {"numpy": np.__version__, "torch": torch.__version__, **found}
    print(f"compiled core: {ops.compiled()}; {options.threads} threads; {versions}")
    report = []
    # heaps: lists of all neighbours do not fit into memory where there are many more
    for shape, size, peers in ((room, 10**5, True), (room, 10**6, True), (heaps, 3 * 10**4, True),
                               (heaps, 10**6, False)):  # fmt: skip
        points, labels = shape(size), classes(size)
        candidates = {"pointzoo": ours(points, labels)}
        candidates |= {n: PEERS[n](points, labels) for n in PEERS if peers and n in versions}
        rows = measure(candidates, options.repeats)
        report.append({"points": shape.__name__, "size": size, "rows": rows})
        print(f"\n{shape.__name__}, {size:,} points")
        for name, row in rows.items():
            ratio = row["seconds"] / rows["pointzoo"]["seconds"]
            print(f"  {name:14}{row['seconds']:9.3f} s{ratio:8.1f} x  same: {row['same']}")
    if options.output:
        command = " ".join(["python benchmarks/clustering.py", *sys.argv[1:]])
        content = {"command": command, "versions": versions, "tasks": report}
        partial = options.output.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(options.output)


if __name__ == "__main__":
    main()
