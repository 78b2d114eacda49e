"""Checks of gradients, of number types, and of copies that train apart."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.base import PointEncoder
from pointzoo.testing.support import (
    Make,
    conformance,
    encode,
    features_of,
    make_batch,
    random_projection,
    require,
    require_identical,
)

BF16_BOUND = 0.05
"""Allowed relative error (L2) under bfloat16 autocast: 8 bits round by 0.4 % in every layer."""

GRADIENT_STEP, GRADIENT_BOUND = 1e-6, 1e-3
"""Step of the central difference, and its allowed distance from the float64 gradient.

Directions are scaled so that every parameter adds about 1 to the slope: a wrong one shows at 0.1
and above, while rounding gives 1e-7, and a ReLU that switches within a step gives 1e-5.
"""


@conformance
def check_every_parameter_learns(make: Make) -> None:
    """Give every parameter a finite gradient that is not 0, in training."""
    encoder = make().train()
    random_projection(encoder(make_batch(encoder))).backward()
    silent, broken = [], []
    for name, parameter in encoder.named_parameters():
        gradient = parameter.grad
        if gradient is None or not bool(gradient.any()):
            silent.append(name)
        elif not bool(gradient.isfinite().all()):
            broken.append(name)
    require(
        not silent,
        expected="a gradient for every parameter from the sum of all outputs",
        got=f"none for {silent[:5]}",
        fix="Remove the parameter, or make it count in an output.",
    )
    require(
        not broken,
        expected="finite gradients",
        got=f"NaN or infinity for {broken[:5]}",
        fix="Look for a square root or a division at 0.",
    )


@conformance
def check_teacher_is_independent(make: Make) -> None:
    """Give an independent teacher by deepcopy, also in the middle of training."""
    student = make()
    batch = make_batch(student)
    random_projection(student.train()(batch)).backward()
    teacher = copy.deepcopy(student)
    before = encode(teacher.eval(), batch)
    require_identical(
        before,
        encode(student.eval(), batch),
        what="the student's output from a deepcopy",
        fix="Copy every tensor that the forward pass reads.",
    )
    random_projection(student.train()(batch)).backward()
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    require_identical(
        encode(teacher, batch),
        before,
        what="the teacher's output as it was before the student's step",
        fix="Keep no tensor that copies share, and leave __deepcopy__ alone.",
    )


@conformance
def check_gradients(make: Make) -> None:
    """Have the gradient that finite differences have, in float64 and in training."""
    encoder = make().double().train()
    batch = make_batch(encoder).to(dtype=torch.float64)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    projected = _projected(encoder, batch)
    gradients = torch.autograd.grad(projected, parameters, materialize_grads=True)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        direction = [
            torch.randn(g.shape, generator=generator, dtype=g.dtype) / g.norm().clamp_min(1.0)
            for g in gradients  # so that no parameter hides behind another
        ]
        got = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        expected = _slope(encoder, batch, parameters, direction)
        require(
            abs(got - expected) <= GRADIENT_BOUND,
            expected=f"the slope {expected:.6f} that finite differences find",
            got=f"{got:.6f} from backward",
            fix="Look at detach, no_grad and backward functions of your own.",
        )


@conformance
def check_bfloat16(make: Make) -> None:
    """Stay close to float32 under bfloat16 autocast."""
    encoder = make()
    batch = make_batch(encoder)
    exact = features_of(encode(encoder, batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = features_of(encode(encoder, batch))
    for name, value in exact.items():
        error = float((rough[name].float() - value).norm() / value.norm().clamp_min(1e-12))
        require(
            error <= BF16_BOUND,
            expected=f"{name} features within {BF16_BOUND:g} of float32 under autocast",
            got=f"a relative error of {error:g}",
            fix="Keep coordinates, differences and norms in float32.",
        )


def _projected(encoder: PointEncoder, batch: PointBatch) -> Tensor:
    torch.manual_seed(0)  # the same dropout every time
    return random_projection(encoder(batch))


def _slope(
    encoder: PointEncoder,
    batch: PointBatch,
    parameters: list[nn.Parameter],
    direction: list[Tensor],
) -> float:
    """Return the central difference of the projected output along a direction."""
    start = [parameter.detach().clone() for parameter in parameters]
    values = []
    with torch.no_grad():
        for step in (GRADIENT_STEP, -GRADIENT_STEP):
            for parameter, origin, along in zip(parameters, start, direction, strict=True):
                parameter.copy_(origin + step * along)
            values.append(float(_projected(encoder, batch)))
    return (values[0] - values[1]) / (2.0 * GRADIENT_STEP)
