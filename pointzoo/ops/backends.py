"""The one door through which the compiled core and scipy come in.

The core (``_core.c``, ``_clusters.c``, ``_graph.c``) is loaded with ctypes after torch, so that
both share one OpenMP runtime; a call releases the GIL. ``POINTZOO_COMPILED=0`` in the environment
turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from pathlib import Path

import torch
from torch import Tensor

LARGEST = 1e15
"""Largest absolute coordinate that the core takes; squares of differences stay finite."""

_POINTER, _COUNT, _THREADS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "pointzoo_fps": [*[_POINTER] * 4, _COUNT, _POINTER, _THREADS],
    "pointzoo_knn": [*[_POINTER] * 4, _COUNT, _COUNT, _POINTER, _POINTER, _THREADS],
    "pointzoo_ball_crop": [*[_POINTER] * 4, _COUNT, _POINTER, _THREADS],
    "pointzoo_components": [_POINTER, _POINTER, _COUNT, _POINTER, _POINTER, _THREADS],
    "pointzoo_knn_wide": [*[_POINTER] * 4, *[_COUNT] * 3, _POINTER, _POINTER, _THREADS],
    "pointzoo_pool": [*[_POINTER] * 3, *[_COUNT] * 3, *[_POINTER] * 3, _THREADS],
    "pointzoo_pool_backward": [*[_POINTER] * 5, *[_COUNT] * 3, _POINTER, _THREADS],
}


@functools.cache
def _library() -> ctypes.CDLL | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_core{suffix}")
        if path.exists():
            return _bind(path)
    return None


def _bind(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
        for name, signature in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = signature, ctypes.c_int
    except (OSError, AttributeError):  # built for another machine, or by another version
        return None
    return library


def compiled() -> bool:
    """Say whether the compiled core is in use; without it every operation runs in PyTorch."""
    return os.environ.get("POINTZOO_COMPILED") != "0" and _library() is not None


def takes(coords: Tensor, largest: float, channels: int | None = 3) -> bool:
    """Say whether the core computes with these points.

    Args:
        coords: (N, C) points.
        largest: Their largest absolute coordinate.
        channels: The C that the function of the core is for, or None for any.
    """
    usual = coords.dtype == torch.float32 and coords.device.type == "cpu"
    fits = channels in {None, coords.shape[1]} and largest <= LARGEST and len(coords) < 2**31
    return usual and fits and compiled()


def call(name: str, *arguments: Tensor | int | None) -> None:
    """Call a function of the core with ``torch.get_num_threads()`` threads.

    Args:
        name: The function, without its prefix.
        *arguments: Contiguous CPU tensors (passed by address), integers, or None for no tensor.

    Raises:
        MemoryError: The core could not get the memory it works in.
    """
    function = getattr(_library(), f"pointzoo_{name}")
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    if function(*plain, torch.get_num_threads()):
        raise MemoryError(f"not enough memory for {name}")
