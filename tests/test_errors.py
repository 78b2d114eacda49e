"""The exception tree: families, messages, and survival of pickling and copying."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from pointzoo import errors
from pointzoo.errors import (
    CheckFailedError,
    CloudError,
    CollapseError,
    ConfigError,
    ExportError,
    FormatError,
    HubError,
    InputError,
    MissingExtraError,
    PointzooError,
    TrainingError,
    UnknownNameError,
    WeightError,
)

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, PointzooError)
]
ORDINARY = [kind for kind in KINDS if kind is not MissingExtraError]

FAMILIES = {
    InputError: ValueError,
    CloudError: ValueError,
    FormatError: ValueError,
    ConfigError: ValueError,
    HubError: ValueError,
    UnknownNameError: KeyError,
    MissingExtraError: ImportError,
    WeightError: RuntimeError,
    ExportError: RuntimeError,
    TrainingError: RuntimeError,
    CollapseError: TrainingError,
    CheckFailedError: AssertionError,
    PointzooError: Exception,
}


def test_the_tree_is_whole_and_drawn_in_the_docstring():
    assert set(KINDS) == set(FAMILIES)
    for kind, family in FAMILIES.items():
        assert issubclass(kind, family)
        assert issubclass(kind, PointzooError)
        assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", ORDINARY)
def test_a_message_says_expected_got_and_fix(kind):
    error = kind(expected="a cup", got="a spoon", fix="Look in the cupboard.")
    assert str(error) == "expected a cup, got a spoon. Look in the cupboard."
    assert (error.expected, error.got, error.fix) == ("a cup", "a spoon", "Look in the cupboard.")
    with pytest.raises(TypeError):
        kind("a message of another form")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])  # noqa: S301
def test_an_error_survives_pickling_and_copying(kind, duplicate):
    if kind is MissingExtraError:
        error = kind("laspy", "las")
    else:
        error = kind(expected="a cup", got="a spoon", fix="Look.")
    again = duplicate(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_missing_extra_names_the_command():
    error = MissingExtraError("laspy", "las")
    assert "'laspy'" in str(error)
    assert "pip install 'pointzoo[las]'" in error.fix


def test_an_unknown_name_lists_the_nearest():
    known = ["vit3d_base", "vit3d_small", "vit3d_tiny", "sparseunet14"]
    error = UnknownNameError.of("encoder", "vit3d_tny", known)
    assert error.fix.startswith("Did you mean 'vit3d_tiny'")
    assert "sparseunet14" not in error.fix
    assert "encoder" in error.expected
    assert error.got == "'vit3d_tny'"


def test_an_unlike_name_lists_what_there_is():
    error = UnknownNameError.of("encoder", "zzz", ["b", "a"])
    assert error.fix == "Did you mean 'a', 'b'?"
    assert UnknownNameError.of("encoder", "zzz", []).fix == "None is registered."
    many = UnknownNameError.of("encoder", "#", [f"name{i:02}" for i in range(20)])
    assert many.fix.count("name") == 10
