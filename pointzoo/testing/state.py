"""Checks of what is saved and loaded."""

from __future__ import annotations

import torch
from safetensors.torch import load, save
from torch import Tensor

from pointzoo.encoders.base import PointEncoder
from pointzoo.testing.support import (
    Make,
    conformance,
    encode,
    make_batch,
    rebuild,
    require,
    require_identical,
)


@conformance
def check_state_is_complete(make: Make) -> None:
    """Keep everything that decides the output in the state dict."""
    source = make()
    batch = make_batch(source)
    _live_a_little(source)
    torch.manual_seed(9)
    target = rebuild(source)  # under another seed: what is outside the state dict differs
    with torch.no_grad():
        for value in target.state_dict().values():
            value.zero_()
    target.load_state_dict(source.state_dict(), strict=True)
    require_identical(
        encode(target, batch),
        encode(source, batch),
        what="the source's output from an encoder with its state dict",
        fix="Register every tensor as a parameter or as a buffer.",
    )


@conformance
def check_state_is_plain(make: Make) -> None:
    """Survive safetensors: tensors only, none of them twice."""
    source = make()
    batch = make_batch(source)
    state = source.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    require(
        not other,
        expected="tensors in the state dict",
        got=f"something else under {other}",
        fix="Put settings into the config.",
    )
    places: dict[tuple[int, int], str] = {}
    twice = [
        f"{name} = {places[key]}"
        for name, value in state.items()
        if value.numel()
        and places.setdefault(key := (value.data_ptr(), value.numel()), name) != name
    ]
    require(
        not twice,
        expected="each tensor under one name",
        got=f"{twice}",
        fix="Register a shared module once.",
    )
    target = rebuild(source)
    target.load_state_dict(load(save(state)), strict=True)
    require_identical(
        encode(target, batch),
        encode(source, batch),
        what="the same output after safetensors",
        fix="Keep tensors contiguous and of plain types.",
    )


@conformance
def check_state_loads_strictly(make: Make) -> None:
    """Refuse a state dict with a missing, an extra or a misshapen entry."""
    encoder = make()
    state = encoder.state_dict()
    name, value = next(iter(state.items()))
    wrong = {
        "a missing entry": {k: v for k, v in state.items() if k != name},
        "an unknown entry": {**state, "no.such.entry": torch.zeros(1)},
        "another shape": {**state, name: torch.zeros((*value.shape, 2))},
    }
    for what, entries in wrong.items():
        require(
            _refuses(encoder, entries),
            expected=f"RuntimeError for {what}",
            got="none",
            fix="Leave load_state_dict as torch has it.",
        )


def _refuses(encoder: PointEncoder, state: dict[str, Tensor]) -> bool:
    try:
        encoder.load_state_dict(state, strict=True)
    except RuntimeError:
        return True
    return False


def _live_a_little(encoder: PointEncoder) -> None:
    """Move parameters and running statistics away from where they started."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        encoder.train()(make_batch(encoder))
    encoder.eval()
