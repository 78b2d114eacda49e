"""Sparse convolution in plain PyTorch: it runs everywhere, and the compiled core must equal it.

Per kernel offset: gather the rows that have a partner, multiply, add to the rows of the output. No
row occurs twice within an offset, so that the sums have one order on every device. An offset where
each row meets itself (the centre of a submanifold kernel, an eighth of its pairs) is one product
that the others are added to. What is gathered and multiplied lies in memory that all offsets share:
fresh memory costs as much as what is written to it.

Shapes: M input rows, N output rows, K kernel offsets, P pairs of an offset.
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
    factors = weight.to(wide.dtype)
    lists = _by_offset(pairs)
    whole = next((k for k, found in enumerate(lists) if _is_identity(*found, rows, len(x))), None)
    if whole is None:
        total = x.new_zeros(rows, weight.shape[2], dtype=_accumulator(x))
    else:
        total = (wide @ factors[whole]).to(_accumulator(x))
    most = max((n for k, n in enumerate(pairs.counts) if k != whole), default=0)
    gathered, product = wide.new_empty(most, x.shape[1]), wide.new_empty(most, weight.shape[2])
    for offset, (outputs, inputs) in enumerate(lists):
        if (count := len(outputs)) and offset != whole:
            rows_in = torch.index_select(wide, 0, inputs, out=gathered[:count])
            rows_out = torch.mm(rows_in, factors[offset], out=product[:count])
            total.index_add_(0, outputs, rows_out.to(total.dtype))
    return total.to(x.dtype)


def weight_gradient(x: Tensor, grad: Tensor, pairs: PairList) -> Tensor:
    """Return (K, Cin, Cout): ``x (M, Cin)`` transposed times ``grad (N, Cout)`` over the pairs."""
    wide, grad = _wide(x), _wide(grad)
    total = x.new_zeros(len(pairs.counts), x.shape[1], grad.shape[1], dtype=_accumulator(x))
    most = max(pairs.counts, default=0)
    given, wanted = wide.new_empty(most, x.shape[1]), grad.new_empty(most, grad.shape[1])
    for offset, (outputs, inputs) in enumerate(_by_offset(pairs)):
        if _is_identity(outputs, inputs, len(grad), len(x)):
            total[offset] = wide.T @ grad
        elif count := len(outputs):
            rows_in = torch.index_select(wide, 0, inputs, out=given[:count])
            rows_out = torch.index_select(grad, 0, outputs, out=wanted[:count])
            total[offset] = rows_in.T @ rows_out
    return total


def _is_identity(outputs: Tensor, inputs: Tensor, rows: int, given: int) -> bool:
    """Tell whether the lists (P,) are both 0 .. rows - 1; outputs ascend and are all different."""
    return len(outputs) == rows == given and torch.equal(outputs, inputs)


def _by_offset(pairs: PairList) -> list[tuple[Tensor, Tensor]]:
    ends = list(itertools.accumulate(pairs.counts))
    bounds = zip([0, *ends[:-1]], ends, strict=True)
    return [(pairs.outputs[i:j], pairs.inputs[i:j]) for i, j in bounds]


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _wide(x: Tensor) -> Tensor:
    """Return ``x`` in the type to multiply in: many CPUs have no fast bfloat16 product."""
    return x.to(_accumulator(x)) if x.device.type == "cpu" else x
