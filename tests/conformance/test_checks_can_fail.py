"""Every check fails on the encoder that was broken for it, and on no healthy one."""

from __future__ import annotations

import re

import pytest
import torch
from broken_encoders import VICTIMS, Victim, left_in_training
from reference_encoders import Extremes, Pointwise, PointwiseConfig

from pointzoo import testing
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import CheckFailedError, UnknownNameError
from pointzoo.testing import CHECKS, check_encoder


def make_pointwise() -> PointEncoder:
    torch.manual_seed(0)
    return Pointwise(PointwiseConfig()).eval()


def make_extremes() -> PointEncoder:
    torch.manual_seed(0)
    return Extremes(PointwiseConfig(channels=("normals",), normalize="center")).eval()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("make", [make_pointwise, make_extremes])
def test_a_healthy_encoder_passes(check, make):
    CHECKS[check](make)


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda v: v.name)
def test_a_broken_encoder_is_caught(victim: Victim):
    with pytest.raises(CheckFailedError) as caught:
        CHECKS[victim.check](victim.make)
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.fix


def test_a_fault_of_another_kind_does_not_trip_a_check():
    (dead,) = (victim for victim in VICTIMS if victim.name == "DeadParameter")
    check_encoder(dead.make, checks=set(CHECKS) - {dead.check})


def test_every_check_has_a_victim():
    assert {victim.check for victim in VICTIMS} == set(CHECKS)


def test_every_check_is_public_and_states_its_promise():
    assert [f.__name__ for f in CHECKS.values()] == [f"check_{name}" for name in CHECKS]
    for check in CHECKS.values():
        assert check.__name__ in testing.__all__
        assert re.match(r"[A-Z].*\.$", check.__doc__.splitlines()[0])


def test_all_checks_at_once_report_each_failure():
    check_encoder(make_pointwise, checks=["ready_to_use", "output_shapes"])
    with pytest.raises(CheckFailedError, match="ready_to_use: expected every module in evaluation"):
        check_encoder(left_in_training)
    with pytest.raises(CheckFailedError) as caught:
        check_encoder(left_in_training, checks=["ready_to_use"])
    assert not caught.value.fix.startswith("Begin with")
    with pytest.raises(CheckFailedError, match=r"ready_to_use: .*; output_shapes: "):
        check_encoder(lambda: torch.nn.Linear(3, 3), checks=["ready_to_use", "output_shapes"])


def test_an_unknown_check_is_refused_before_any_runs():
    with pytest.raises(UnknownNameError, match="'output_shapes'"):
        check_encoder(left_in_training, checks=["ready_to_use", "output_shape"])


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_leaves_the_global_random_state(check):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    CHECKS[check](make_extremes)
    assert torch.equal(torch.get_rng_state(), before)
