"""Sparse convolution in plain PyTorch: it runs everywhere, and the compiled core must equal it.

Per kernel offset: gather the rows that have a partner, multiply, add to the rows of the output. No
row occurs twice within an offset, so that the sums have one order on every device.

Shapes: M input rows, N output rows, K kernel offsets.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pointzoo.ops.sparse.search import PairList


def convolve(x: Tensor, weight: Tensor, pairs: PairList, rows: int) -> Tensor:
    """Return (rows, Cout) sums of ``x (M, Cin)`` times ``weight (K, Cin, Cout)`` over the pairs.

    Sums are float32 at least; the result has the type of ``x``.
    """
    wide = _wide(x)
    total = x.new_zeros(rows, weight.shape[2], dtype=_accumulator(x))
    factors = weight.to(wide.dtype)
    for offset, (outputs, inputs) in enumerate(_by_offset(pairs)):
        if len(outputs):
            product = wide.index_select(0, inputs) @ factors[offset]
            total.index_add_(0, outputs, product.to(total.dtype))
    return total.to(x.dtype)


def weight_gradient(x: Tensor, grad: Tensor, pairs: PairList) -> Tensor:
    """Return (K, Cin, Cout): ``x (M, Cin)`` transposed times ``grad (N, Cout)`` over the pairs."""
    wide, grad = _wide(x), _wide(grad)
    total = x.new_zeros(len(pairs.counts), x.shape[1], grad.shape[1], dtype=_accumulator(x))
    for offset, (outputs, inputs) in enumerate(_by_offset(pairs)):
        if len(outputs):
            total[offset] = wide.index_select(0, inputs).T @ grad.index_select(0, outputs)
    return total


def _by_offset(pairs: PairList) -> list[tuple[Tensor, Tensor]]:
    ends = list(itertools.accumulate(pairs.counts))
    bounds = zip([0, *ends[:-1]], ends, strict=True)
    return [(pairs.outputs[i:j], pairs.inputs[i:j]) for i, j in bounds]


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _wide(x: Tensor) -> Tensor:
    """Return ``x`` in the type to multiply in: many CPUs have no fast bfloat16 product."""
    return x.to(_accumulator(x)) if x.device.type == "cpu" else x
