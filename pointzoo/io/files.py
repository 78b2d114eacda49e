"""Opening files that may be damaged, and replacing files in one step."""

from __future__ import annotations

import errno
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pointzoo.errors import FormatError, PointzooError


def check_is_file(path: Path) -> None:
    """Refuse what is no regular file, before a parser waits on a pipe or lists a folder.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        FormatError: It is a folder, a pipe or a device.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise FormatError(
            expected="a point cloud file",
            got=f"{path}, a {'folder' if path.is_dir() else 'special file'}",
            fix="Pass the path of one file; open_dataset() takes folders.",
        )


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Report whatever a parser raises at damaged content as a :class:`FormatError`.

    Args:
        path: The file, for the message.
        kind: What it should have been, for instance ``"PLY"``.
    """
    try:
        yield
    except PointzooError:
        raise
    except BaseException as error:  # parsers of other packages raise anything at damaged files
        panic = type(error).__name__ == "PanicException"  # of Rust, which is no Exception
        if not panic and not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's fault; a seek to nowhere (EINVAL) is the content's
        raise FormatError(
            expected=f"a whole, well-formed {kind} file",
            got=f"{path}: {type(error).__name__}: {error}",
            fix="It may be cut off or damaged, or be another format under this ending.",
        ) from error


def quiet(name: str) -> None:
    """Keep a package from logging to stderr what it also raises; an application's handlers stay."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def malformed(path: Path, kind: str, problem: str) -> FormatError:
    """Build the error for a file whose content contradicts itself."""
    return FormatError(
        expected=f"a whole, well-formed {kind} file",
        got=f"{path}: {problem}",
        fix="It may be cut off or damaged; get or export it again.",
    )


def check_rows(path: Path, kind: str, promised: int, row_bytes: int, available: int) -> None:
    """Refuse a header that promises more than the file can hold, before memory is taken for it.

    Args:
        path: The file, for the message.
        kind: Name of the format.
        promised: Rows in the header.
        row_bytes: The fewest bytes a row can take.
        available: Bytes that follow the header.

    Raises:
        FormatError: The rows do not fit, or their number is negative.
    """
    if promised < 0 or promised * row_bytes > available:
        room = f"room for {available // row_bytes}" if row_bytes else "no rows at all"
        raise malformed(path, kind, f"the header promises {promised} rows, there is {room}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place when the block ends without an error.

    A reader sees the old content or the new, never a part; an error leaves the old file alone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    stream = temporary.open("xb")
    try:
        with stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
