"""A scan of 20 million points through ``pointzoo features``: peak memory, time, tiled = whole.

    python benchmarks/big_scan.py WORK                    # 20 million points, .las
    python benchmarks/big_scan.py WORK --points 2000000 --ending .ply --encoder NAME_OR_FOLDER
    python benchmarks/big_scan.py WORK --only halo        # difference to the whole by halo

The scan is a building of furnished rooms at projected coordinates, with 3 mm of noise and 10,000
points per square metre, made from a seed; where tiles are compared with the whole, the rooms stand
in a row, with 600 points per square metre. Without ``--encoder`` it goes through sparseunet14 with
random weights and the batch statistics of a room. Peak memory is that of the process of the
command, as the kernel counts it. Results go to docs/results/big_scan.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import pointzoo as pz
from pointzoo.features import evaluating
from pointzoo.io.chunks import CloudChunks
from pointzoo.tiling import compute_tiles, make_plan
from pointzoo.tiling.run import TiledScan

DENSITY, SPARSE = 10_000, 600
"""Points per square metre, of the large scan and of the one that is compared."""
ORIGIN = (691_000.0, 5_335_000.0, 517.0)
ROOM = (5.0, 4.0, 3.0)
LONGEST = 8.0
"""Passes over the voxels, halos included, from which a comparison is left out."""
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "big_scan.json"


def rooms(
    points: int, density: int = DENSITY, *, in_a_row: bool = False
) -> Iterator[pz.PointCloud]:
    """Yield the rooms of a square building, or of a long one, with that many points in all."""
    rng = np.random.default_rng(0)
    number, left = 0, points
    side = points if in_a_row else int(np.ceil(np.sqrt(points / density / 120)))
    while left > 0:
        corner = np.array([number % side * ROOM[0], number // side * ROOM[1], 0.0])
        coords, colors = _room(rng, density)
        keep = min(left, len(coords))
        yield pz.PointCloud(coords[:keep] + corner + ORIGIN, colors=colors[:keep])
        number, left = number + 1, left - keep


def _room(rng: np.random.Generator, density: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    boxes = [(np.zeros(3), np.array(ROOM))]
    for _ in range(12):
        size = rng.uniform([0.3, 0.3, 0.3], [1.8, 1.0, 1.6])
        place = rng.uniform(0, 1, 3) * (np.array(ROOM) - size)
        boxes.append((place * [1, 1, 0], size))
    parts = [_faces(rng, place, size, density) for place, size in boxes]
    order = rng.permutation(sum(len(coords) for coords, _ in parts))
    return (
        np.concatenate([coords for coords, _ in parts])[order],
        np.concatenate([colors for _, colors in parts])[order],
    )


def _faces(
    rng: np.random.Generator, place: NDArray[np.float64], size: NDArray[np.float64], density: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    coords, colors = [], []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for side in (0.0, 1.0):
            count = int(density * size[others].prod())
            face = rng.uniform(size=(count, 3))
            face[:, axis] = side
            points = place + face * size + rng.normal(scale=0.003, size=(count, 3))
            base, stripe = rng.integers(40, 216, 3), rng.uniform(2, 20)
            shade = 25 * np.sin(stripe * points.sum(axis=1))[:, None] + rng.normal(0, 5, (count, 3))
            coords.append(points)
            colors.append(np.clip(base + shade, 0, 255).astype(np.uint8))
    return np.concatenate(coords), np.concatenate(colors)


def write_scan(path: Path, points: int) -> None:
    """Write the building room by room, so that making it needs little memory."""
    if path.suffix in (".las", ".laz"):
        import laspy

        header = laspy.LasHeader(point_format=2)
        header.scales, header.offsets = np.full(3, 1e-4), np.array(ORIGIN)
        with laspy.open(path, "w", header=header) as writer:
            for room in rooms(points):
                record = laspy.ScaleAwarePointRecord.zeros(len(room), header=header)
                record.x, record.y, record.z = room.coords.T
                record.red, record.green, record.blue = np.rint(room.colors * 65_535).T
                writer.write_points(record)
        return
    parts = list(rooms(points))
    coords = np.concatenate([part.coords for part in parts])
    colors = np.concatenate([part.colors for part in parts])
    pz.write(path, pz.PointCloud(coords, colors=colors))


def make_weights(folder: Path) -> Path:
    """Save sparseunet14 with random weights and the batch statistics of one room."""
    encoder = pz.create_encoder("sparseunet14", channels=("colors",), grid_size=0.05)
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    cloud = next(rooms(300_000))
    coords, channels = encoder.preprocess(cloud)
    with torch.no_grad():
        encoder.train()(pz.PointBatch.collate([coords], [channels]))
    for norm in norms:
        norm.momentum = 0.01
    return pz.save_encoder(encoder.eval(), folder)


def run_features(scan: Path, out: Path, encoder: str, options: list[str]) -> dict[str, object]:
    """Run the command in a process of its own; return time and peak memory."""
    command = [sys.executable, "-c", "from pointzoo.cli import main; main()", "features"]
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603  # our own command
        [*command, str(scan), "-o", str(out), "--encoder", encoder, *options],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 2),
        "output_gb": round(out.stat().st_size / 1e9, 2),
        "cut": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "",
    }


def by_halo(
    encoder: pz.PointEncoder, points: int, tile_voxels: int, halos: list[int] | None
) -> list[dict[str, object]]:
    """Compare tiles with the whole on a scan of ``points`` points."""
    parts = list(rooms(points, SPARSE, in_a_row=True))
    cloud = pz.PointCloud(
        np.concatenate([p.coords for p in parts]),
        colors=np.concatenate([p.colors for p in parts]),
    )
    chunks = CloudChunks(cloud)

    def compute(**options: int) -> tuple[TiledScan, float]:
        start = time.perf_counter()
        with evaluating(encoder):
            return compute_tiles(encoder, chunks, **options), time.perf_counter() - start

    whole, seconds = compute(tile_voxels=10**9)
    rows = whole.store.read(whole.positions)
    spread, length = float(rows.std()), float(np.linalg.norm(rows - rows.mean(axis=0)))
    found: list[dict[str, object]] = [
        {"tiles": 1, "voxels": len(whole.table), "seconds": round(seconds, 1), "std": spread}
    ]
    print(json.dumps(found[-1]), flush=True)
    reach, stride = encoder.receptive_field, encoder.stride
    for halo in halos or sorted({0, stride, 2 * stride, 3 * stride, reach // 2, reach}):
        plan = make_plan(
            whole.table.coords,
            stride=stride,
            receptive_field=reach,
            tile_voxels=tile_voxels,
            halo=halo,
        )
        if plan.overhead > LONGEST:
            continue
        scan, seconds = compute(tile_voxels=tile_voxels, halo=halo)
        away = scan.store.read(scan.positions) - rows
        found.append(
            {
                "halo": plan.halo,
                "exact": plan.exact,
                "tiles": len(plan),
                "overhead": round(plan.overhead, 2),
                "seconds": round(seconds, 1),
                "relative difference": float(np.linalg.norm(away)) / length,
                "largest difference / std": float(np.abs(away).max()) / spread,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="Folder for the scan and the features.")
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--compared", type=int, default=500_000, help="Points, tiled and whole.")
    parser.add_argument("--tile-voxels", type=int, default=130_000, help="Of the comparison.")
    parser.add_argument("--halos", nargs="+", type=int, help="Of the comparison, voxels.")
    parser.add_argument("--ending", default=".las")
    parser.add_argument("--encoder", help="Name or folder.")
    parser.add_argument("--only", choices=["run", "halo"])
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--keep", action="store_true", help="Keep scan and features.")
    parser.add_argument("--dry", action="store_true", help="Leave the JSON file as it is.")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    encoder = given.encoder or str(make_weights(given.work / "weights"))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    made = {
        "command": " ".join(["python benchmarks/big_scan.py", *_words(given.work)]),
        "encoder": given.encoder or "sparseunet14, random weights",
        "threads": torch.get_num_threads(),
    }
    if given.only != "halo":
        results["run"] = {**made, **whole_run(given, encoder)}
        print(json.dumps(results["run"], indent=2), flush=True)
    if given.only != "run":
        network = pz.load_encoder(encoder)
        found = by_halo(network, given.compared, given.tile_voxels, given.halos)
        results["halo"] = {**made, "points": given.compared, "found": found}
    if not given.dry:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _words(work: Path) -> list[str]:
    return ["WORK" if word == str(work) else word for word in sys.argv[1:]]


def whole_run(given: argparse.Namespace, encoder: str) -> dict[str, object]:
    """Write the large scan, compute its features, look at them."""
    scan, out = given.work / f"scan{given.ending}", given.work / "features.npy"
    if not scan.exists():
        write_scan(scan, given.points)
    found = run_features(scan, out, encoder, ["--half"] if given.half else [])
    features = np.load(out, mmap_mode="r")
    assert len(features) == given.points
    assert np.isfinite(features[:: max(1, given.points // 1000)]).all()
    size = round(scan.stat().st_size / 1e9, 2)
    if not given.keep:
        scan.unlink()
        out.unlink()
    return {"points": given.points, "input": given.ending, "input_gb": size, **found}


if __name__ == "__main__":
    main()
