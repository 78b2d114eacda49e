"""Settings by words: typed like the config, or refused."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.settings import override, parse_settings


@dataclass(frozen=True)
class Inner:
    kind: str = "none"
    scale: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True)
class Config:
    count: int = 3
    rate: float = 0.5
    on: bool = False
    limit: int | None = None
    channels: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_words_are_parsed_as_json_or_text():
    words = ["a=1", "b=0.5", "c=true", "d=[1,2]", "e=shared", "f=x=y", "g=", 'h="7"']
    assert parse_settings(words) == {
        "a": 1, "b": 0.5, "c": True, "d": [1, 2], "e": "shared", "f": "x=y", "g": "", "h": "7",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["a"], ["=1"], [""], ["a=1", "a=2"]])
def test_other_words_are_refused(words: list[str]):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_settings(words)


def test_settings_take_the_type_of_the_config():
    changed = override(
        Config(),
        {
            "count": 5,
            "rate": 2,
            "on": True,
            "limit": 7,
            "channels": ["colors", "normals"],
            "inner.kind": "shared",
            "inner.scale": [1, 3.5],
        },
    )
    assert changed == Config(5, 2.0, True, 7, ("colors", "normals"), Inner("shared", (1.0, 3.5)))
    assert isinstance(changed.rate, float)
    assert isinstance(changed.inner.scale[0], float)
    assert override(Config(), {}) == Config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 1.5),
        ("count", "many"),
        ("count", True),
        ("count", None),
        ("rate", "fast"),
        ("on", 1),
        ("limit", [1]),
        ("inner", 3),
        ("inner.scale", [1]),
        ("inner.scale", [1, "x"]),
        ("inner.scale", 3),
        ("inner.kind", 3),
        ("count.low", 3),
    ],
)
def test_other_types_are_refused(key: str, value: object):
    with pytest.raises(ConfigError):
        override(Config(), {key: value})


@pytest.mark.parametrize("key", ["counts", "inner.kinds", "", "."])
def test_unknown_settings_are_refused(key: str):
    with pytest.raises(UnknownNameError):
        override(Config(), {key: 1})


@settings(max_examples=40)
@given(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_anything_is_a_config_or_a_typed_error(key: str, value: object):
    try:
        changed = override(Config(), {key: value})
    except ConfigError:
        return
    except UnknownNameError:
        return
    assert isinstance(changed, Config)
