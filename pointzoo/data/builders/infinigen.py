"""Builds the Infinigen corpus: procedural furniture and household objects, without end of seeds.

Infinigen (Raistrick et al., CVPR 2023 and 2024; BSD-3-Clause) runs inside Blender, whose Python
package ``bpy`` wants an environment of its own. So the work is split: worker processes in that
environment make meshes (``infinigen_worker.py``), this module hands them jobs, samples the points,
stops a worker that takes too long, keeps every finished object in a work folder so that a build
can go on where it stopped, and writes the corpus.

Shape legend: T triangles, N points.
"""

from __future__ import annotations

import contextlib
import io
import queue
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from pointzoo.data.builders.infinigen_factories import FACTORIES, Factory
from pointzoo.data.builders.infinigen_process import WorkerProcess
from pointzoo.data.builders.sampling import POINTS_PER_SHAPE, named_generator
from pointzoo.data.corpus import (
    CorpusHeader,
    Shape,
    ShapeRecord,
    Skipped,
    sha256_of,
    write_corpus,
)
from pointzoo.errors import CloudError, FormatError
from pointzoo.io.surface import sample_surface

WORKER = Path(__file__).with_name("infinigen_worker.py")
MODULE_PREFIX = "infinigen.assets.objects."
LARGEST_SIZE = 15.0
"""Metres; a few seeds give a mesh with a vertex kilometres away, which no scan could show."""


@dataclass(frozen=True)
class Job:
    """One object to make."""

    factory: Factory
    index: int

    @property
    def name(self) -> str:
        """Name of the shape in the corpus."""
        return f"{self.factory.name}/{self.index:05d}"

    @property
    def seed(self) -> int:
        """Seed of the factory; by name, as related factories draw alike from equal seeds."""
        return zlib.crc32(self.name.encode())

    def path(self, work: Path) -> Path:
        """Where the finished object is kept."""
        return work / self.factory.name / f"{self.index:05d}.npz"

    def skip_path(self, work: Path) -> Path:
        """Where the reason is kept if the object cannot be made."""
        return self.path(work).with_suffix(".skip")


def plan(rounds: int, factories: Sequence[Factory] = FACTORIES) -> list[Job]:
    """Jobs of some rounds, round by round, so that any prefix is balanced."""
    return [
        Job(factory, number * factory.share + extra)
        for number in range(rounds)
        for factory in factories
        for extra in range(factory.share)
    ]


def build_infinigen(
    python: Path,
    out: Path,
    *,
    rounds: int = 40,
    factories: Sequence[Factory] = FACTORIES,
    work: Path | None = None,
    workers: int = 1,
    limit_s: float = 60.0,
    progress: bool = True,
    worker: Path = WORKER,
) -> Path:
    """Make objects with Infinigen and write them as a corpus.

    The bytes depend on ``rounds``, ``factories`` and the versions of Infinigen and Blender alone,
    as long as no object comes near the time limit.

    Args:
        python: Interpreter of the Blender environment.
        out: The corpus folder to write.
        rounds: Rounds over all factories, each with ``share`` objects per factory.
        factories: The factories.
        work: Folder that keeps finished objects, so that a stopped build goes on; a folder beside
            ``out``, removed at the end, if None.
        workers: Worker processes.
        limit_s: Seconds after which an object is given up and listed as skipped.
        progress: Show a progress bar on standard error.
        worker: The script that makes meshes.

    Returns:
        The corpus folder.

    Raises:
        ConfigError: The interpreter cannot run the worker, or not one object could be made.
    """
    jobs = plan(rounds, factories)
    folder = work or out.with_name(f"{out.name}.work")
    generate(
        python, jobs, folder, workers=workers, limit_s=limit_s, progress=progress, worker=worker
    )
    command = f"pointzoo corpus infinigen --rounds {rounds}"
    assemble(jobs, folder, out, command=command)
    if work is None:
        shutil.rmtree(folder)
    return out


def generate(
    python: Path,
    jobs: Sequence[Job],
    work: Path,
    *,
    workers: int = 1,
    limit_s: float = 60.0,
    progress: bool = True,
    worker: Path = WORKER,
) -> None:
    """Make every object that ``work`` does not hold yet.

    Raises:
        ConfigError: The interpreter cannot run the worker.
    """
    todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        if not (job.path(work).exists() or job.skip_path(work).exists()):
            todo.put(job)
    total = todo.qsize()
    if not total:
        return
    work.mkdir(parents=True, exist_ok=True)
    modules = sorted({MODULE_PREFIX + job.factory.module for job in jobs})
    failures: list[BaseException] = []
    with Progress(disable=not progress) as bar:
        task = bar.add_task("objects", total=total)

        def drain(number: int) -> None:
            try:
                with (
                    tempfile.TemporaryDirectory(prefix="pointzoo-") as scratch,
                    WorkerProcess(python, worker, modules, number, Path(scratch)) as process,
                ):
                    for _ in _work_off(todo, process, Path(scratch), work, limit_s):
                        bar.advance(task)
            except BaseException as error:  # noqa: BLE001 - handed to the calling thread
                failures.append(error)

        threads = [threading.Thread(target=drain, args=(i,)) for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _work_off(
    todo: queue.SimpleQueue[Job], process: WorkerProcess, scratch: Path, work: Path, limit_s: float
) -> Iterator[Job]:
    """Work off the queue with one worker; yields each finished job."""
    mesh = scratch / "mesh.npz"
    for job in _until_empty(todo):
        request = {
            "module": MODULE_PREFIX + job.factory.module,
            "factory": f"{job.factory.name}Factory",
            "seed": job.seed,
            "out": str(mesh),
        }
        reason = process.make(request, limit_s) or _keep(job, mesh, work, process.versions)
        if reason:
            _write(job.skip_path(work), reason.encode())
        yield job


def _until_empty(todo: queue.SimpleQueue[Job]) -> Iterator[Job]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield todo.get_nowait()


def _keep(job: Job, mesh: Path, work: Path, versions: str) -> str:
    """Sample a mesh and keep its points; the reason in words if it is not fit."""
    with np.load(mesh, allow_pickle=False) as arrays:
        triangles, colors = arrays["triangles"], arrays["colors"]
    try:
        sample = sample_surface(triangles, POINTS_PER_SHAPE, named_generator(job.name))
    except CloudError as error:
        return str(error)
    size = float(np.ptp(sample.coords, axis=0).max())
    if size > LARGEST_SIZE:
        return f"{size:.0f} m across, more than {LARGEST_SIZE:g} m"
    digest = sha256_of(triangles.tobytes() + colors.tobytes())
    points = {
        "coords": sample.coords.astype(np.float32),
        "normals": sample.normals.astype(np.float16),
        "colors": colors[sample.triangle],
        "sha256": np.array(digest),
        "versions": np.array(versions),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **points)
    _write(job.path(work), stream.getvalue())
    return ""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def assemble(jobs: Sequence[Job], work: Path, out: Path, *, command: str) -> Path:
    """Write the corpus of the jobs whose objects ``work`` holds.

    Raises:
        ConfigError: It holds none of them.
        FormatError: A kept object cannot be read.
    """
    class_names = tuple(dict.fromkeys(job.factory.name for job in jobs))
    shapes: list[Shape] = []
    skipped: list[Skipped] = []
    versions: set[str] = set()
    for job in jobs:
        if job.path(work).exists():
            shape, made_by = _load(job, work, class_names.index(job.factory.name))
            shapes.append(shape)
            versions.add(made_by)
        elif job.skip_path(work).exists():
            skipped.append(Skipped(job.name, job.skip_path(work).read_text(encoding="utf-8")))
    header = CorpusHeader(
        name="infinigen",
        description="Procedural furniture, architecture and household objects of Infinigen.",
        command=command,
        class_names=class_names,
        licence="BSD-3-Clause (generator); the objects are its output",
        pretraining=True,
        versions={"infinigen": "; ".join(sorted(versions))},
    )
    return write_corpus(out, header, shapes, skipped=skipped)


def _load(job: Job, work: Path, label: int) -> tuple[Shape, str]:
    path = job.path(work)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            record = ShapeRecord(
                name=job.name,
                label=label,
                source=f"{arrays['versions']}: {MODULE_PREFIX}{job.factory.module}."
                f"{job.factory.name}Factory(seed={job.seed})",
                sha256=str(arrays["sha256"]),
                author="The Infinigen authors (Princeton Vision & Learning Lab)",
                licence="BSD-3-Clause",
            )
            shape = Shape(record, arrays["coords"], arrays["normals"], arrays["colors"])
            return shape, str(arrays["versions"])
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            expected="an object kept by an earlier run",
            got=f"{path}: {type(error).__name__}: {error}",
            fix="Remove that file and run the build again.",
        ) from error
