"""The one thing that setup.cfg cannot say: optional C extensions, built where a compiler is.

They are plain C, loaded with ctypes; where one cannot be built the package runs in PyTorch.
OpenMP is linked by its soname, so that it is the runtime which torch has already loaded.

And the same sources give the same bytes: neither the clock nor the folder, the user or the order of
its files enters a distribution (SOURCE_DATE_EPOCH may set the date, reproducible-builds.org).
"""

import gzip
import os
import sys
import tarfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

EPOCH = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800"))  # 1980, the first zip can say


class ReproducibleSdist(sdist):
    """Writes the archive of a source distribution without anything that differs between builds."""

    def make_archive(self, base_name: str, *_: object, base_dir: str, **__: object) -> str:
        """Pack ``base_dir`` as setup.cfg's only format, gztar, and return the name of the file."""
        target = Path(f"{base_name}.tar.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            target.open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=EPOCH) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(Path(base_dir).rglob("*")):
                if path.is_file():
                    _add(archive, path)
        return str(target)


def _add(archive: tarfile.TarFile, path: Path) -> None:
    entry = tarfile.TarInfo(path.as_posix())
    entry.size, entry.mtime = path.stat().st_size, EPOCH
    entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    with path.open("rb") as content:
        archive.addfile(entry, content)


openmp = ["-fopenmp"] if sys.platform == "linux" else []
core = Extension(
    "pointzoo.ops._core",
    sources=[f"pointzoo/ops/{name}.c" for name in ("_core", "_clusters", "_graph")],
    depends=["pointzoo/ops/_select.h"],
    extra_compile_args=[
        "-O3",
        "-g0",
        "-std=gnu11",
        "-ffp-contract=off",
        "-fno-math-errno",
        *openmp,
    ],
    extra_link_args=openmp,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    py_limited_api=True,
    optional=True,
)
sparse = Extension(
    "pointzoo.ops.sparse._sparse",
    sources=[
        f"pointzoo/ops/sparse/{name}.c" for name in ("_sparse", "_bfloat16", "_norm", "_voxels")
    ],
    depends=[f"pointzoo/ops/sparse/{name}.h" for name in ("_sparse", "_kernels", "_norm")],
    extra_compile_args=[
        "-O3",
        "-g0",
        "-std=gnu11",
        "-ffp-contract=fast",
        "-fno-math-errno",
        *openmp,
    ],
    extra_link_args=openmp,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    py_limited_api=True,
    optional=True,
)
setup(ext_modules=[core, sparse], cmdclass={"sdist": ReproducibleSdist})
