"""The one door through which the compiled core of sparse convolution comes in.

``_sparse.c`` (products), ``_bfloat16.c`` (those too), ``_norm.c`` (normalisation in training) and
``_voxels.c`` (order and pairs) are one library, loaded with ctypes after torch, so that both share
one OpenMP runtime; a call releases the GIL. ``POINTZOO_COMPILED=0`` in the environment turns it
off.

Shapes: M voxels (sorted, all different), P pairs, K kernel offsets.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_POINTER, _COUNT, _THREADS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_GRID = [*[_POINTER] * 10, _COUNT, _COUNT]
_SIGNATURES: dict[str, list[Any]] = {
    "order": [_POINTER, _POINTER, _COUNT, _POINTER],
    "columns": [_POINTER, _POINTER, _COUNT, *[_POINTER] * 11],
    "halve": [*_GRID, *[_POINTER] * 4],
    "corners": [_POINTER, _POINTER, *[_COUNT] * 4, *[_POINTER] * 3],
    "neighbours": [*_GRID, _COUNT, _COUNT, *[_POINTER] * 3],
    "collect": [*[_POINTER] * 4],
    "narrow": [*[_POINTER] * 3, _COUNT, _COUNT, *[_POINTER] * 3],
    "expect": [_POINTER, _COUNT],
    "convolve": [*[_POINTER] * 3, *[_COUNT] * 5, *[_POINTER] * 6, _COUNT, _POINTER, _COUNT],
    "convolve_bf16": [*[_POINTER] * 3, *[_COUNT] * 5, *[_POINTER] * 6, _COUNT, _POINTER, _COUNT],
    "gradient_bf16": [_POINTER, _POINTER, *[_COUNT] * 5, *[_POINTER] * 4],
    "gradient": [_POINTER, _POINTER, *[_COUNT] * 5, *[_POINTER] * 4],
    "moments": [_POINTER, *[_COUNT] * 3, _POINTER],
    "normalise": [*[_POINTER] * 4, *[_COUNT] * 4, _POINTER],
    "slopes": [*[_POINTER] * 4, *[_COUNT] * 4, _POINTER],
    "turn": [*[_POINTER] * 7, *[_COUNT] * 4, *[_POINTER] * 2],
}
_AMX = 3
_TILE = 256
"""Rows of a tile: with 256 channels, a quarter of a megabyte of cache."""


@functools.cache
def _library() -> ctypes.CDLL | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_sparse{suffix}")
        if path.exists():
            return _bind(path)
    return None


def _bind(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
        for name, signature in _SIGNATURES.items():
            function = getattr(library, f"pointzoo_sparse_{name}")
            function.argtypes, function.restype = [*signature, _THREADS], ctypes.c_int
        library.pointzoo_sparse_width.argtypes = [_COUNT]
        library.pointzoo_sparse_width.restype = _COUNT
    except (OSError, AttributeError):  # built for another machine, or by another version
        return None
    return library


def compiled() -> bool:
    """Say whether the compiled core is in use; without it every operation runs in PyTorch."""
    return os.environ.get("POINTZOO_COMPILED") != "0" and _library() is not None


def takes(x: Tensor) -> bool:
    """Say whether the core works on this tensor: rows on the CPU, fewer than 2**31."""
    return x.device.type == "cpu" and len(x) < 2**31 and compiled()


def multiplies(x: Tensor) -> bool:
    """Say whether the core computes with features ``x``; it has no float64."""
    return x.dtype in {torch.float32, torch.bfloat16} and takes(x)


def fast(dtype: torch.dtype) -> bool:
    """Say whether the CPU multiplies ``dtype`` at least as fast as float32."""
    if dtype == torch.bfloat16:
        return compiled() and instruction_set() == _AMX
    return dtype == torch.float32


def instruction_set(limit: int | None = None) -> int:
    """Return the best instruction set in use, 0 where the core is not compiled.

    Args:
        limit: Use none above it from now on; None leaves the limit as it is, at first none.

    Returns:
        0 for what the compiler takes for granted, 1 for AVX2, 2 for AVX-512, 3 for AVX-512 and, for
        bfloat16, AMX.
    """
    library = _library()
    return (
        0 if library is None else int(library.pointzoo_sparse_level(-1 if limit is None else limit))
    )


def _loaded() -> ctypes.CDLL:
    library = _library()
    assert library is not None  # callers have asked compiled()
    return library


def _run(name: str, *arguments: Tensor | int | None) -> int:
    function = getattr(_loaded(), f"pointzoo_sparse_{name}")
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    return int(function(*plain, torch.get_num_threads()))


def call(name: str, *arguments: Tensor | int | None) -> None:
    """Run a function of the core; tensors are passed as their first element.

    Raises:
        MemoryError: There is not enough memory.
    """
    if _run(name, *arguments):
        raise MemoryError(f"not enough memory for the sparse {name}")


@dataclass(frozen=True, eq=False)
class Tiles:
    """Pairs by tile of output rows, then kernel offset.

    Attributes:
        rows: Rows of the output.
        tile: Rows of a tile.
        offsets: K.
        starts: (tiles * K + 1,) int64, where each list begins.
        inputs: (P,) int32 rows of the input.
        outputs: (P,) int32 rows of the output, from the first of the tile.
    """

    rows: int
    tile: int
    offsets: int
    starts: Tensor
    inputs: Tensor
    outputs: Tensor

    @property
    def plain(self) -> list[Tensor | int]:
        """What the core takes."""
        return [self.rows, self.tile, self.offsets, self.starts, self.inputs, self.outputs]


@dataclass(frozen=True, eq=False)
class Columns:
    """Sorted voxels as columns (one x and y) and lines (one x) of them.

    The voxels of a column also are bits of words, 64 places of z each: L lines, C columns, W words.

    Attributes:
        batch: (L,) the cloud of each line.
        x: (L,) of each line.
        y: (C,) of each column.
        z: (M,) of each voxel.
        columns: (C + 1,) int32, where columns begin among the voxels.
        lines: (L + 1,) int32, where lines begin among the columns.
        bits: (W,) the voxels of each word.
        places: (W,) z // 64 of each word.
        rows: (W + 1,) int32, where words begin among the voxels.
        words: (C + 1,) int32, where columns begin among the words.
    """

    batch: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    columns: Tensor
    lines: Tensor
    bits: Tensor
    places: Tensor
    rows: Tensor
    words: Tensor

    @property
    def plain(self) -> list[Tensor | int]:
        """What the core takes."""
        return [*vars(self).values(), len(self.y), len(self.x)]


def sorted_order(batch: Tensor, coords: Tensor) -> Tensor | None:
    """Return the (M,) stable order by (cloud, x, y, z), None where a key exceeds 64 bits."""
    coords, order = coords.contiguous(), torch.empty_like(batch)
    failed = _run("order", batch, coords, len(batch), order)
    return None if failed else order


def columns_of(batch: Tensor, coords: Tensor) -> Columns:
    """Return the columns, lines and words of sorted voxels."""
    n, counts = len(batch), torch.empty(3, dtype=torch.int64)
    cloud, x, y, z, bits, places = torch.empty(6, n, dtype=torch.int64).unbind()
    columns, lines, rows, words = torch.empty(4, n + 1, dtype=torch.int32).unbind()
    found = cloud, x, y, z, columns, lines, bits, places, rows, words
    call("columns", batch, coords.contiguous(), n, *found, counts)
    c, lines_found, w = counts.tolist()
    sizes = lines_found, lines_found, c, n, c + 1, lines_found + 1, w, w, w + 1, c + 1
    return Columns(*(part[:size].clone() for part, size in zip(found, sizes, strict=True)))


def halve(columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Return cloud and coordinates of the coarse voxels, and the (M,) row of each parent."""
    rows = len(columns.z)
    batch, parent = torch.empty(2, rows, dtype=torch.int64).unbind()
    coords, count = torch.empty(rows, 3, dtype=torch.int64), torch.empty(1, dtype=torch.int64)
    call("halve", *columns.plain, batch, coords, parent, count)
    found = int(count)
    return batch[:found].clone(), coords[:found].clone(), parent.clone()


def parent_tiles(parent: Tensor, coords: Tensor) -> Tiles:
    """Return the pairs from coarse to fine voxels."""
    return _corner_tiles(parent, coords, len(parent), down=False)


def child_tiles(parent: Tensor, coords: Tensor, rows: int) -> Tiles:
    """Return the pairs from fine to ``rows`` coarse voxels."""
    return _corner_tiles(parent, coords, rows, down=True)


def _corner_tiles(parent: Tensor, coords: Tensor, rows: int, *, down: bool) -> Tiles:
    tiles, pairs = -(-rows // _TILE), len(parent)
    starts = torch.empty(tiles * 8 + 1, dtype=torch.int64)
    inputs = torch.empty(pairs, dtype=torch.int32)
    outputs = torch.empty(pairs, dtype=torch.int32)
    sizes = pairs, int(down), _TILE, tiles
    call("corners", parent, coords.contiguous(), *sizes, starts, inputs, outputs)
    return Tiles(rows, _TILE, 8, starts, inputs, outputs)


def neighbour_tiles(columns: Columns, kernel_size: int) -> Tiles:
    """Return the pairs of a submanifold convolution."""
    rows, tiles = len(columns.z), -(-len(columns.z) // _TILE)
    near = torch.empty(kernel_size**2, len(columns.y), dtype=torch.int32)
    starts = torch.empty(tiles * kernel_size**3 + 1, dtype=torch.int64)
    pairs = torch.empty(1, dtype=torch.int64)  # a pointer
    call("neighbours", *columns.plain, kernel_size // 2, _TILE, near, starts, pairs)
    inputs = outputs = None
    try:
        inputs, outputs = torch.empty(2, int(starts[-1]), dtype=torch.int32).unbind()
    finally:
        call("collect", int(pairs), starts, inputs, outputs)
    return Tiles(rows, _TILE, kernel_size**3, starts, inputs, outputs)


def own_tiles(rows: int) -> Tiles:
    """Return pairs of each row with itself."""
    row = torch.arange(rows, dtype=torch.int32)
    starts = torch.arange(0, rows + _TILE, _TILE).clamp(max=rows)[: -(-rows // _TILE) + 1]
    return Tiles(rows, _TILE, 1, starts, row, row % _TILE)


def narrower_tiles(wider: Tiles) -> Tiles:
    """Return the pairs of the kernel two narrower than ``wider``, an odd one of at least 3."""
    side = round(wider.offsets ** (1 / 3))
    tiles, inner = -(-wider.rows // wider.tile), slice(1, -1)
    sizes = wider.starts.diff().view(tiles, side, side, side)[:, inner, inner, inner]
    starts = torch.zeros(sizes.numel() + 1, dtype=torch.int64)
    torch.cumsum(sizes.reshape(-1), 0, out=starts[1:])
    inputs, outputs = torch.empty(2, int(starts[-1]), dtype=torch.int32).unbind()
    lists = wider.starts, wider.inputs, wider.outputs
    call("narrow", *lists, tiles, side, starts, inputs, outputs)
    return Tiles(wider.rows, wider.tile, (side - 2) ** 3, starts, inputs, outputs)


def convolve(
    x: Tensor,
    weight: Tensor,
    tiles: Tiles,
    *,
    reverse: bool = False,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Return the sums over pairs of ``x (., Cin)`` times ``weight (K, Cin, Cout)``.

    Args:
        x: Rows of the input.
        weight: In any memory layout.
        tiles: The pairs.
        reverse: Take the weights of the kernel offsets in reverse order.
        scale: (Cout,), with ``shift (Cout,)``: ``sums * scale + shift + residual``, or None.
        shift: None if ``scale`` is.
        residual: (rows, Cout) or None.
        relu: Whether a ReLU follows, if there is ``scale``.
        out: (rows, Cout) where to write, in the type of ``x``; its rows may lie apart. None for
            fresh memory.
    """
    kind, (depth, columns), function = x.dtype, weight.shape[1:], _function("convolve", x)
    stored = torch.bfloat16 if function.endswith("bf16") else torch.float32
    x, weight = plain(x, stored), weight.detach().to(torch.float32)
    strides = list(weight.stride())
    weight = weight[-1] if reverse else weight
    strides[0] = -strides[0] if reverse else strides[0]
    fits = out is not None and out.dtype == stored == kind
    y = out if out is not None and fits else x.new_empty(tiles.rows, columns, dtype=stored)
    kinds = (scale, torch.float32), (shift, torch.float32), (residual, stored)
    epilogue = [None if part is None else plain(part, dtype) for part, dtype in kinds]
    sizes = torch.tensor(strides), depth, columns
    call(function, x, weight, *sizes, *tiles.plain, *epilogue, int(relu), y, y.stride(0))
    y = y.to(kind)
    return y if out is None or y is out else out.copy_(y)


def weight_gradient(x: Tensor, grad: Tensor, tiles: Tiles) -> Tensor:
    """Return (K, Cin, Cout), float32: ``x`` transposed times ``grad (rows, Cout)`` over pairs."""
    function, columns = _function("gradient", x), grad.shape[1]
    if function.endswith("bf16"):
        stored, width = torch.bfloat16, columns
    else:
        stored, width = torch.float32, _loaded().pointzoo_sparse_width(columns)
    x, grad = plain(x, stored), plain(grad, stored)
    if width != columns:
        grad = torch.nn.functional.pad(grad, (0, width - columns))
    total = x.new_empty(tiles.offsets, x.shape[1], width, dtype=torch.float32)
    call(function, x, grad, x.shape[1], width, *tiles.plain, total)
    return total[..., :columns]


def _function(name: str, x: Tensor) -> str:
    """Return the function that computes with ``x``; without AMX, bfloat16 becomes float32."""
    return f"{name}_bf16" if x.dtype == torch.bfloat16 and fast(x.dtype) else name


def plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` as the core reads it, one row after the other."""
    as_it_is = x.dtype == dtype and x.is_contiguous()
    return x if as_it_is else x.detach().to(dtype).contiguous()
