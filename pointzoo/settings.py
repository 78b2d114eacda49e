"""Change settings of a frozen config by words, as command lines give them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from pointzoo.errors import ConfigError, UnknownNameError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


ConfigT = TypeVar("ConfigT", bound=_Dataclass)


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """Parse words of the form ``KEY=VALUE``; a value is JSON, or text where it is not JSON.

    Raises:
        ConfigError: A word has no ``=`` or no key, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals or key in found:
            raise ConfigError(
                expected="settings as KEY=VALUE, each key once",
                got=repr(word),
                fix="For example points=1024 or augmentation.rotation=shared.",
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def override(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Return a copy of a frozen dataclass with some settings replaced.

    Args:
        config: A dataclass, whose fields may be dataclasses again.
        changes: Values by name; ``outer.inner`` reaches into a field. A value must be of the type
            of the present one; a whole number serves as a float, a list as a tuple, and a setting
            that is None takes a number or a text.

    Raises:
        UnknownNameError: There is no such setting.
        ConfigError: A value has another type, or the config refuses it.
    """
    nested: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    names = [f.name for f in dataclasses.fields(config)]
    for key, value in changes.items():
        name, _, inner = key.partition(".")
        if name not in names:
            raise UnknownNameError.of(f"setting of {type(config).__name__}", name, names)
        if inner:
            nested.setdefault(name, {})[inner] = value
        else:
            plain[name] = _like(getattr(config, name), value, key)
    for name, inside in nested.items():
        plain[name] = override(_as_config(getattr(config, name), name), inside)
    return dataclasses.replace(config, **plain)


def _as_config(value: Any, name: str) -> Any:
    if not dataclasses.is_dataclass(value):
        raise ConfigError(
            expected=f"a plain value for {name}", got="a dot behind it", fix=f"Set {name} itself."
        )
    return value


def _like(current: Any, value: Any, key: str) -> Any:
    """Return ``value`` in the type of ``current``."""
    if isinstance(current, float) and type(value) is int:
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list):
        like = current if len(current) == len(value) else value if not current else ()
        if like:
            return tuple(_like(old, new, key) for old, new in zip(like, value, strict=True))
    wanted = (int, float, str) if current is None else (type(current),)
    if type(value) in wanted and not isinstance(value, list | tuple):
        return value
    raise ConfigError(
        expected=f"{key} like {current!r}",
        got=repr(value),
        fix="Numbers, true, false and lists are written as in JSON: local_ratio=[0.2,0.5].",
    )
