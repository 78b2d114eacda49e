"""The one thing that setup.cfg cannot say: optional C extensions, built where a compiler is.

They are plain C, loaded with ctypes; where one cannot be built the package runs in PyTorch.
OpenMP is linked by its soname, so that it is the runtime which torch has already loaded.
"""

import sys

from setuptools import Extension, setup

openmp = ["-fopenmp"] if sys.platform == "linux" else []
core = Extension(
    "pointzoo.ops._core",
    sources=[f"pointzoo/ops/{name}.c" for name in ("_core", "_clusters", "_graph")],
    depends=["pointzoo/ops/_select.h"],
    extra_compile_args=["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", *openmp],
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
    extra_compile_args=["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", *openmp],
    extra_link_args=openmp,
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    py_limited_api=True,
    optional=True,
)
setup(ext_modules=[core, sparse])
