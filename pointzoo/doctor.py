"""What this installation is made of, what it uses and why not more: ``pointzoo doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from pointzoo import ops, zoo
from pointzoo.ops import backends
from pointzoo.ops.sparse import VoxelGrid, core, gpu, submanifold_conv

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "las": ("laspy", "lazrs"),
        "mesh": ("trimesh", "pillow"),
        "rooms": ("trimesh", "pillow", "embreex"),
        "scenezoo": ("scenezoo",),
        "hdf5": ("h5py",),
        "eval": ("scikit-learn",),
        "onnx": ("onnx", "onnxruntime"),
        "viz": ("matplotlib",),
        "tensorboard": ("tensorboard",),
    }
)
"""Packages of each extra, as setup.cfg has them."""

INSTRUCTIONS = ("what every processor has", "AVX2", "AVX-512", "AVX-512 and AMX")
"""Names of the levels of :func:`pointzoo.ops.sparse.core.instruction_set`."""

_CORE = ("pointzoo", "torch", "numpy", "scipy", "safetensors")
_REPEATS = 3


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        title: What it is about.
        rows: What was looked at, and what was found.
    """

    title: str
    rows: tuple[tuple[str, str], ...]


def examine(*, benchmark: bool = True) -> tuple[Section, ...]:
    """Look at versions, devices, compiled cores, backends, extras and weights.

    A GPU backend that is new here is tested against the reference, which may take some seconds.

    Args:
        benchmark: Also measure how fast this machine computes; a second or two.
    """
    sections = [
        Section("versions", _versions()),
        Section("devices", _devices()),
        Section("compiled cores", _cores()),
        Section("GPU backends of sparse convolution", _backends()),
        Section("extras", _extras()),
        Section("bundled weights", _weights()),
    ]
    if benchmark:
        sections.append(Section("benchmark", _benchmark()))
    return tuple(sections)


def render(sections: tuple[Section, ...]) -> str:
    """Put the report in words, one finding a line."""
    width = max(len(name) for section in sections for name, _ in section.rows)
    lines = []
    for section in sections:
        lines += [section.title, *(f"  {n.ljust(width)}  {found}" for n, found in section.rows), ""]
    return "\n".join(lines).rstrip()


def _versions() -> tuple[tuple[str, str], ...]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found = [(name, version_of(name) or "not installed") for name in _CORE]
    return (("python", platform.python_version()), ("system", system), *found)


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> tuple[tuple[str, str], ...]:
    allowed = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(allowed(0)) if allowed else os.cpu_count()
    rows = [
        ("processor", f"{_processor()}, {cores} cores for this process"),
        ("threads", f"{torch.get_num_threads()} of torch (OMP_NUM_THREADS sets them)"),
        ("instructions", f"{torch.backends.cpu.get_cpu_capability()} in torch"),
    ]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = (
            f"torch is built for CUDA {built} but finds none" if built else "torch is built without"
        )
        return (*rows, ("CUDA", f"none: {why}"))
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        rows.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"))
    return tuple(rows)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()


def _cores() -> tuple[tuple[str, str], ...]:
    points = "in use" if backends.compiled() else _why_not(backends.__file__, "_core")
    sparse = _why_not(core.__file__, "_sparse")
    if core.compiled():
        sparse = f"in use, with {INSTRUCTIONS[core.instruction_set()]}"
    return (("points (neighbours, sampling)", points), ("sparse convolution", sparse))


def _why_not(module: str, stem: str) -> str:
    if os.environ.get("POINTZOO_COMPILED") == "0":
        reason = "turned off by POINTZOO_COMPILED=0"
    elif not any(Path(module).parent.glob(f"{stem}*.so")):
        reason = "not built, there was no C compiler at installation"
    else:
        reason = "built for another machine or by another version"
    return f"not in use: {reason}; PyTorch computes the same, slower"


def _backends() -> tuple[tuple[str, str], ...]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for status in gpu.statuses(device):
        state = "found" if status.usable else "not used" if status.version is None else "refused"
        version = f" {status.version}" if status.version else ""
        rows.append((status.name + version, f"{state}: {status.reason}"))
    return tuple(rows)


def _extras() -> tuple[tuple[str, str], ...]:
    rows = []
    for extra, packages in EXTRAS.items():
        versions = {package: version_of(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        found = ", ".join(f"{package} {version}" for package, version in versions.items())
        lacking = f"missing {', '.join(missing)}: pip install 'pointzoo[{extra}]'"
        rows.append((extra, lacking if missing else found))
    return tuple(rows)


def _weights() -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, "there" if (zoo.weights_folder() / name).is_dir() else "missing")
        for name in zoo.WEIGHTS
    )


@torch.inference_mode()
def _benchmark() -> tuple[tuple[str, str], ...]:
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(1024, 256, generator=generator), torch.randn(256, 256, generator=generator)
    product = _milliseconds(lambda: torch.mm(*square))
    rate = 2 * 1024 * 256 * 256 / product / 1e6  # GFLOP/s
    coords = _surface(generator)
    offsets = torch.tensor([len(coords)])
    kind = "tiles" if core.compiled() else "list"
    build = _milliseconds(
        lambda: getattr(VoxelGrid.build(coords, offsets)[0].submanifold(3).pairs, kind)
    )
    kernel_map = VoxelGrid.build(coords, offsets)[0].submanifold(3)
    x = torch.randn(len(coords), 64, generator=generator)
    weight = torch.randn(27, 64, 64, generator=generator)
    convolve = _milliseconds(lambda: submanifold_conv(x, weight, kernel_map))
    pairs = sum(kernel_map.pairs.list.counts)
    speed = 2 * pairs * 64 * 64 / convolve / 1e6
    points = torch.rand(20_000, 3, generator=generator)
    ends = torch.tensor([len(points)])
    nearest = _milliseconds(lambda: ops.knn(points, ends, points, ends, 8))
    return (
        ("matrix product", f"{rate:.0f} GFLOP/s"),
        ("kernel map", f"{build:.0f} ms for {len(coords):,} voxels, 3 x 3 x 3"),
        ("convolution", f"{convolve:.0f} ms, 64 to 64 channels: {speed:.0f} GFLOP/s"),
        ("neighbours", f"{nearest:.0f} ms for the 8 nearest of {len(points):,} points"),
    )


def _surface(generator: torch.Generator) -> torch.Tensor:
    """Return about 20,000 voxels of a wavy floor with walls, as scans of rooms have them."""
    x, y = torch.meshgrid(torch.arange(110), torch.arange(110), indexing="ij")
    noise = torch.rand(x.shape, generator=generator)
    floor = torch.stack([x, y, (2 * noise).long()], dim=2).reshape(-1, 3)  # (110, 110, 3) -> (M, 3)
    wall = torch.stack([x, (3 * noise).long(), y], dim=2).reshape(-1, 3)
    voxels: torch.Tensor = torch.unique(torch.cat([floor, wall]), dim=0)
    return voxels


def _milliseconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
