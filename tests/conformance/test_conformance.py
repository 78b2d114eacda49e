"""Every registered encoder keeps every promise, and computes what it computed before."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import regenerate
import torch

from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.testing import CHECKS, check_encoder
from pointzoo.zoo import WEIGHTS, load_encoder

PARAMETERS = json.loads((regenerate.STORED / "parameters.json").read_text())
CASES = pytest.mark.parametrize(("name", "channels"), regenerate.cases())


def make(name: str, **overrides: object) -> PointEncoder:
    torch.manual_seed(0)
    return build(name, **overrides)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", regenerate.small_names())
def test_an_encoder_keeps_its_promises(name, check):
    CHECKS[check](functools.partial(make, name))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", regenerate.small_names())
def test_an_encoder_with_channels_keeps_its_promises(name, check):
    more = {"channels": ("normals", "colors"), "normalize": "center"}
    if ARCHITECTURES[name].encoder_class.capabilities.subsamples:
        more["max_points"] = 50
    CHECKS[check](functools.partial(make, name, **more))


def test_weights_of_the_registry_keep_what_does_not_depend_on_training():
    checks = ["builds_quietly", "ready_to_use", "fresh_each_time", "output_shapes"]
    checks += ["degenerate_clouds", "alone_equals_batch", "order_of_points", "repeatable"]
    for name in WEIGHTS:
        check_encoder(functools.partial(load_encoder, name), checks=checks)


def test_every_family_has_a_size_for_tests():
    families = {entry.encoder_class for entry in ARCHITECTURES.values()}
    tested = {ARCHITECTURES[name].encoder_class for name in regenerate.small_names()}
    assert tested == families
    for name in regenerate.small_names():
        assert sum(p.numel() for p in build(name).parameters()) < regenerate.SMALL


def test_every_architecture_is_stored():
    assert set(PARAMETERS) == set(ARCHITECTURES)
    files = {path.name for path in regenerate.STORED.glob("*.npz")}
    assert files == {regenerate.file_of(*case).name for case in regenerate.cases()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_names_and_shapes_are_as_stored(name):
    assert regenerate.parameter_shapes(name) == PARAMETERS[name]


@CASES
def test_outputs_in_float64_are_as_stored(name, channels):
    # sums in another order, over some hundred terms, in float64
    _assert_as_stored(regenerate.outputs(name, channels, torch.float64), name, channels, 1e-10)


@CASES
def test_outputs_in_float32_are_as_stored(name, channels):
    # float32 rounds by 6e-8 in each of about twenty operations in a row
    _assert_as_stored(regenerate.outputs(name, channels, torch.float32), name, channels, 1e-5)


def _assert_as_stored(got, name, channels, tolerance):
    with np.load(regenerate.file_of(name, channels)) as stored:
        assert got.keys() == set(stored)
        for key, value in got.items():
            np.testing.assert_allclose(
                value, stored[key], rtol=tolerance, atol=tolerance * np.abs(stored[key]).max()
            )
