"""Losses and schedules against values computed from the paper's equations by other code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pointzoo.errors import ConfigError
from pointzoo.pretrain.losses import distillation_loss, teacher_entropy, update_center
from pointzoo.pretrain.schedules import cosine_schedule

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return golden("dcglr_loss.npz")


def inputs(stored: dict[str, np.ndarray], dtype: torch.dtype) -> list[Tensor]:
    names = ("teacher_global", "student_global", "student_local", "center")
    return [torch.from_numpy(stored[name]).to(dtype) for name in names]


# float64 leaves 1e-12 for the order of sums over 512 outputs; float32 has 24 bits
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)]
)


@PRECISIONS
def test_the_losses_are_those_of_eq_10_and_11(stored, dtype, tolerance):
    global_loss, local_loss = distillation_loss(
        *inputs(stored, dtype),
        teacher_temperature=float(stored["teacher_temp"]),
        student_temperature=float(stored["student_temp"]),
    )
    assert global_loss.dtype == local_loss.dtype == dtype
    assert float(global_loss) == pytest.approx(float(stored["loss_g"]), rel=tolerance)
    assert float(local_loss) == pytest.approx(float(stored["loss_l"]), rel=tolerance)


@PRECISIONS
def test_the_gradients_are_those_of_eq_12(stored, dtype, tolerance):
    teacher, student_global, student_local, center = inputs(stored, dtype)
    for tensor in (teacher, student_global, student_local):
        tensor.requires_grad_()
    sum(distillation_loss(teacher, student_global, student_local, center)).backward()
    assert teacher.grad is None
    for tensor, name in ((student_global, "global"), (student_local, "local")):
        expected = stored[f"grad_student_{name}"]
        np.testing.assert_allclose(
            tensor.grad.numpy(), expected, rtol=0, atol=tolerance * 10 * np.abs(expected).max()
        )


def test_one_temperature_for_both_gives_another_loss(stored):
    losses = distillation_loss(
        *inputs(stored, torch.float64), teacher_temperature=0.04, student_temperature=0.04
    )
    for loss, name in zip(losses, ("loss_g", "loss_l"), strict=True):
        expected = float(stored[f"{name}_if_student_temp_is_teacher_temp"])
        assert float(loss) == pytest.approx(expected, rel=1e-12)


@PRECISIONS
def test_the_center_follows_the_mean_of_all_teacher_views(stored, dtype, tolerance):
    teacher, _, _, center = inputs(stored, dtype)
    kept = center.clone()
    moved = update_center(center, teacher, momentum=float(stored["center_momentum"]))
    np.testing.assert_allclose(moved, stored["new_center"], rtol=0, atol=tolerance)
    assert not np.allclose(moved, stored["new_center_if_only_first_view"], atol=1e-4)
    assert torch.equal(center, kept)


def test_pairs_agree_with_a_loop_over_the_equations(stored):
    teacher, student_global, student_local, center = inputs(stored, torch.float64)

    def cross_entropy(view: Tensor, other: Tensor) -> float:
        target = torch.exp((view - center) / 0.04)
        target = target / target.sum(dim=1, keepdim=True)
        logits = other / 0.1
        return float(-(target * (logits - logits.logsumexp(dim=1, keepdim=True))).sum(1).mean())

    between = np.array([[cross_entropy(t, s) for s in student_global] for t in teacher])
    np.fill_diagonal(between, 0.0)  # a view is not compared with itself
    np.testing.assert_allclose(between, stored["pair_global"], rtol=1e-12)
    across = [[cross_entropy(t, s) for s in student_local] for t in teacher]
    np.testing.assert_allclose(across, stored["pair_local"], rtol=1e-12)


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(0, 3), st.integers(1, 3), st.integers(2, 5))
def test_identical_uniform_views_cost_the_entropy(views, local_views, clouds, width):
    teacher = torch.zeros(views, clouds, width, dtype=torch.float64)
    student = torch.zeros(local_views, clouds, width, dtype=torch.float64)
    global_loss, local_loss = distillation_loss(teacher, teacher, student, teacher[0, 0])
    assert float(global_loss) == pytest.approx(math.log(width))
    assert float(local_loss) == pytest.approx(math.log(width) if local_views else 0.0)


def test_no_local_views_cost_nothing_and_still_have_a_gradient():
    teacher, student = torch.randn(2, 3, 4), torch.randn(2, 3, 4, requires_grad=True)
    global_loss, local_loss = distillation_loss(teacher, student, student[:0], torch.zeros(4))
    assert float(local_loss) == 0.0
    (global_loss + local_loss).backward()
    assert student.grad.any()


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 3, 4), (1, 3, 4), (2, 3, 4), (4,)),
        ((2, 3, 4), (3, 3, 4), (2, 3, 4), (4,)),
        ((2, 3, 4), (2, 3, 4), (2, 2, 4), (4,)),
        ((2, 3, 4), (2, 3, 4), (2, 3, 5), (4,)),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4), (3,)),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4), (1, 4)),
        ((3, 4), (3, 4), (3, 4), (4,)),
        ((2, 3, 4), (2, 3, 4), (4,), (4,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ConfigError, match=r"\(I >= 2, B, K\)"):
        distillation_loss(*(torch.zeros(shape) for shape in shapes))


def test_entropy_tells_uniform_sharp_and_equal_targets_apart():
    eye = torch.eye(4)[None] * 10
    single, mean = teacher_entropy(eye, torch.zeros(4), temperature=0.1)
    assert single == pytest.approx(0.0, abs=1e-6)
    assert mean == pytest.approx(math.log(4))
    single, mean = teacher_entropy(eye[:, :1].repeat(1, 4, 1), torch.zeros(4), temperature=0.1)
    assert mean == pytest.approx(0.0, abs=1e-6)
    assert teacher_entropy(eye * 0, torch.zeros(4), temperature=0.1)[0] == pytest.approx(
        math.log(4)
    )


# Schedules


def test_schedules_are_dinos():
    stored = golden("dcglr_schedules.npz")
    momentum = [cosine_schedule(i, 100, 0.996, 1.0) for i in range(100)]
    np.testing.assert_allclose(momentum, stored["momentum_20x5"], rtol=1e-13)
    decay = [cosine_schedule(i, 100, 0.04, 0.4) for i in range(100)]
    np.testing.assert_allclose(decay, stored["wd_20x5"], rtol=1e-13)
    peak, low = float(stored["lr_peak"]), float(stored["lr_min"])
    rate = [cosine_schedule(i, 100, peak, low, warmup=50) for i in range(100)]
    np.testing.assert_allclose(rate, stored["lr_warm10_of_20x5"], rtol=1e-13, atol=1e-18)


def test_schedules_at_their_ends():
    assert cosine_schedule(0, 10, 3.0, 1.0) == 3.0
    assert cosine_schedule(10, 10, 3.0, 1.0) == 1.0
    assert cosine_schedule(99, 10, 3.0, 1.0) == 1.0
    assert cosine_schedule(0, 10, 3.0, 1.0, warmup=1) == 3.0
    assert cosine_schedule(0, 10, 3.0, 1.0, warmup=2) == 0.0
    assert cosine_schedule(1, 10, 3.0, 1.0, warmup=2) == 3.0
    assert [cosine_schedule(i, 3, 3.0, 1.0, warmup=3) for i in range(3)] == [0.0, 1.5, 3.0]


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (5, 6), (5, -1)])
def test_impossible_schedules_are_refused(total, warmup):
    with pytest.raises(ConfigError, match="warmup"):
        cosine_schedule(0, total, 1.0, 0.0, warmup=warmup)
