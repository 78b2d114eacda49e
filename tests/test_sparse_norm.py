"""Normalisation, addition and ReLU as one operation, against PyTorch one by one in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointzoo.encoders.sparse_blocks import Norm
from pointzoo.ops.sparse import can_normalise, core, normalise

CASES = [(2, 1), (3, 5), (257, 8), (5000, 37), (4100, 96)]


def _literal(
    norm: torch.nn.BatchNorm1d, x: Tensor, residual: Tensor | None, *, relu: bool
) -> Tensor:
    y = norm(x)
    y = y if residual is None else y + residual
    return y.relu() if relu else y


def _norms(columns: int, generator: torch.Generator) -> tuple[Norm, torch.nn.BatchNorm1d]:
    norm = Norm(columns).train()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=generator)
        norm.bias.normal_(generator=generator)
    literal = torch.nn.BatchNorm1d(columns, eps=norm.eps, momentum=norm.momentum).double()
    literal.load_state_dict(norm.state_dict())
    return norm, literal


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_equal_to_the_operations_one_by_one(level: int, relu: bool, adds: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    best = core.instruction_set()
    core.instruction_set(level)
    try:
        for rows, columns in CASES:
            norm, literal = _norms(columns, generator)
            x = torch.randn(rows, columns, generator=generator) * 3 + 5
            given = [x, torch.randn(rows, columns, generator=generator)][: 1 + adds]
            grad = torch.randn(rows, columns, generator=generator)
            ours = [t.clone().requires_grad_() for t in given]
            exact = [t.double().requires_grad_() for t in given]
            y = norm.activate(*ours, relu=relu)
            y.backward(grad)
            wanted = _literal(literal, exact[0], exact[1] if adds else None, relu=relu)
            wanted.backward(grad.double())
            pairs = [(y, wanted)]
            pairs += [(a.grad, b.grad) for a, b in zip(ours, exact, strict=True)]
            pairs += [(norm.weight.grad, literal.weight.grad), (norm.bias.grad, literal.bias.grad)]
            pairs += [(norm.running_mean, literal.running_mean)]
            pairs += [(norm.running_var, literal.running_var)]
            for found, expected in pairs:
                torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-4)
            assert int(norm.num_batches_tracked) == 1
    finally:
        core.instruction_set(3)
    assert core.instruction_set() == best


def test_bfloat16_rounds_once() -> None:
    generator = torch.Generator().manual_seed(1)
    norm, literal = _norms(16, generator)
    x, residual, grad = torch.randn(3, 999, 16, generator=generator).bfloat16().unbind()
    ours = [x.clone().requires_grad_(), residual.clone().requires_grad_()]
    exact = [x.double().requires_grad_(), residual.double().requires_grad_()]
    y = norm.activate(*ours)
    y.backward(grad)
    wanted = _literal(literal, *exact, relu=True)
    wanted.backward(grad.double())
    assert y.dtype == ours[0].grad.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), wanted, rtol=2**-8, atol=1e-6)
    near = wanted > 1e-3  # at the kink the rounded value decides
    torch.testing.assert_close(ours[1].grad.double()[near], exact[1].grad[near])
    torch.testing.assert_close(
        ours[0].grad.double()[near], exact[0].grad[near], rtol=0.02, atol=0.02
    )


def test_nan_stays_and_rows_in_any_layout() -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    weight, bias = torch.ones(3), torch.zeros(3)
    strided, mean, variance = normalise(x[:, ::2], weight, bias, eps=1e-3, relu=False)
    plain, *_ = normalise(x[:, ::2].contiguous(), weight, bias, eps=1e-3, relu=False)
    assert torch.equal(strided, plain)
    torch.testing.assert_close(mean.float(), x[:, ::2].mean(dim=0))
    torch.testing.assert_close(variance.float(), x[:, ::2].var(dim=0, correction=0))
    x[3, 0] = torch.nan
    for kind in (torch.float32, torch.bfloat16):
        y, *_ = normalise(x.to(kind)[:, :3], weight, bias, eps=1e-3, relu=True)
        assert y[:, 0].isnan().all()
        assert y[:, 1:].isfinite().all()


def test_same_bits_with_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(3)
    x, residual, grad = torch.randn(3, 9000, 24, generator=generator).unbind()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norm = Norm(24).train()
            given = [x.clone().requires_grad_(), residual.clone().requires_grad_()]
            y = norm.activate(*given)
            y.backward(grad)
            found.append([y.detach(), given[0].grad, given[1].grad, norm.weight.grad])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_average_of_all_batches() -> None:
    norm = Norm(4).train()
    literal = torch.nn.BatchNorm1d(4, eps=1e-3, momentum=None)
    norm.momentum = None
    for seed in range(3):
        x = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))
        norm.activate(x)
        literal(x)
    torch.testing.assert_close(norm.running_mean, literal.running_mean)
    torch.testing.assert_close(norm.running_var, literal.running_var)


def test_what_it_does_not_take_is_done_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = Norm(3).train()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    assert can_normalise(x, None)
    assert not can_normalise(x[:1], None)
    assert not can_normalise(x, x.bfloat16())
    assert not can_normalise(x.double(), None)
    one = norm.activate(x[:1], x[:1])  # its running statistics
    assert one.shape == (1, 3)
    fused = norm.activate(x, x)
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    assert not can_normalise(x, None)
    torch.testing.assert_close(norm.activate(x, x), fused)
