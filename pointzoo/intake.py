"""Files that come from somebody else: read with a limit, parsed into plain values alone.

Whatever is wrong with one comes back as a :class:`~pointzoo.errors.FormatError`, which is a
``ValueError``, or as the ``OSError`` of the file system: never as a recursion error, a process
without memory, or one that waits for a pipe.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pointzoo.errors import FormatError


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


RecordT = TypeVar("RecordT", bound=_Record)

MAX_TEXT = 4 << 20
"""Bytes of a config, a card's header or a line of a journal; theirs are thousands."""
MAX_MANIFEST = 256 << 20
"""Bytes of the manifest of a corpus, which lists every shape."""
_MAX_DEPTH = 32
_MAX_YAML = 256 << 10  # PyYAML reads about 100 kB a second
_MAX_INTEGER = 2**63
_FIX = "Get the file again from who made it."


def read_limited(path: Path, most: int = MAX_TEXT) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        FormatError: It is a folder, a pipe or a device, or has more bytes.
        OSError: It is not there or cannot be read.
    """
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        raise FormatError(
            expected=f"a regular file at {path}", got="a folder, pipe or device", fix=_FIX
        )
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(size + 1) if size <= most else b""
    if not len(data) <= size <= most:
        raise FormatError(
            expected=f"at most {most:,} bytes in {path}",
            got=f"{max(size, len(data)):,} bytes",
            fix=_FIX,
        )
    return data


def require_own(path: Path) -> None:
    """Refuse a link that leads out of its folder.

    In the cache of the Hub a file of a snapshot is a link to one of the blobs of its repository.

    Raises:
        FormatError: It leads elsewhere.
    """
    folder = Path(os.path.realpath(path.parent))
    allowed = [folder]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parent.parent / "blobs")
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(place) for place in allowed):
        raise FormatError(
            expected=f"{path.name} in {folder}",
            got=f"a link to {target}",
            fix="Copy the file there, if you trust it.",
        )


def parse_json(data: bytes | str, place: object = "") -> Any:
    """Parse JSON: at most 32 levels, whole numbers of 64 bits, text that is UTF-8.

    Args:
        data: The text.
        place: Where it comes from, for the message.

    Raises:
        FormatError: It is not.
    """
    kind = f"JSON in {place}" if place else "JSON"
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        found = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise _unusable(kind, str(error)) from error
    escaped = re.search(r"\\u[dD][89a-fA-F]", text) is not None  # perhaps half a character
    _require_plain(found, kind, thorough=escaped)
    return found


def parse_yaml(text: str) -> Any:
    """Parse YAML into what JSON could hold: no aliases, no tags that make other objects.

    Raises:
        FormatError: It is malformed, longer than 256 kB, or holds anything else.
    """
    import yaml

    if len(text) > _MAX_YAML:
        raise _unusable("YAML", f"{len(text):,} characters")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # PyYAML needs minutes for a few thousand brackets
                raise _unusable("YAML", f"more than {_MAX_DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):  # a few lines can stand for gigabytes
                raise _unusable("YAML", f"the alias *{event.anchor}")
        found = yaml.safe_load(text)
    except FormatError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, ArithmeticError) as error:
        # an impossible date is a ValueError
        raise _unusable("YAML", str(error).splitlines()[0]) from error
    _require_plain(found, "YAML", thorough=True)
    return found


def make_record(kind: type[RecordT], values: Mapping[str, Any]) -> RecordT:
    """Build a dataclass from parsed values, whose types have to be those of its fields.

    Fields of text, whole numbers, truth, tuples of text and mappings of text are looked at.

    Raises:
        TypeError: A value has another type, a key is unknown, or one is missing.
    """
    given = dict(values)
    for entry in dataclasses.fields(kind):
        value, wanted = given.get(entry.name), str(entry.type)
        if entry.name not in given:
            continue
        parts: tuple[Any, ...] = ()
        if wanted == "tuple[str, ...]" and isinstance(value, list):
            given[entry.name], wanted = tuple(value), "list"
            parts = tuple(value)
        elif wanted == "Mapping[str, str]" and isinstance(value, dict):
            parts, wanted = tuple(value.values()), "dict"
        if type(value).__name__ != wanted or not all(isinstance(part, str) for part in parts):
            raise TypeError(f"{entry.name} of {kind.__name__} is {str(value)[:50]}")
    return kind(**given)


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _require_plain(value: Any, kind: str, *, thorough: bool) -> None:
    """Go through a tree level by level."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        if thorough:
            for item in level:
                _require_leaf(item, kind)
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise _unusable(kind, f"more than {_MAX_DEPTH} levels")


def _children(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from item.keys()
        yield from item.values()
    elif isinstance(item, list):
        yield from item


def _require_leaf(item: Any, kind: str) -> None:
    if isinstance(item, str):
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise _unusable(kind, "half a character") from error
    elif isinstance(item, int):
        if abs(item) > _MAX_INTEGER:
            raise _unusable(kind, "a whole number of more than 64 bits")
    elif item is not None and not isinstance(item, float | dict | list):
        raise _unusable(kind, f"a {type(item).__name__}")


def _unusable(kind: str, problem: str) -> FormatError:
    return FormatError(expected=f"plain {kind}", got=" ".join(problem.split())[:200], fix=_FIX)
