"""Sparse convolution in plain PyTorch: it runs everywhere, and the compiled core must equal it.

Per kernel offset: gather the rows that have a partner, multiply, add to the rows of the output. No
row occurs twice within an offset, so that the sums have one order on every device. An offset where
each row meets itself (the centre of a submanifold kernel, an eighth of its pairs) is one product
that the others are added to.

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
    for offset, (outputs, inputs) in enumerate(lists):
        if len(outputs) and offset != whole:
            product = wide.index_select(0, inputs) @ factors[offset]
            total.index_add_(0, outputs, product.to(total.dtype))
    return total.to(x.dtype)


def weight_gradient(x: Tensor, grad: Tensor, pairs: PairList) -> Tensor:
    """Return (K, Cin, Cout): ``x (M, Cin)`` transposed times ``grad (N, Cout)`` over the pairs."""
    wide, grad = _wide(x), _wide(grad)
    total = x.new_zeros(len(pairs.counts), x.shape[1], grad.shape[1], dtype=_accumulator(x))
    for offset, (outputs, inputs) in enumerate(_by_offset(pairs)):
        if _is_identity(outputs, inputs, len(grad), len(x)):
            total[offset] = wide.T @ grad
        elif len(outputs):
            total[offset] = wide.index_select(0, inputs).T @ grad.index_select(0, outputs)
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
