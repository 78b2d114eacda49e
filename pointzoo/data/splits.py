"""Which files of a folder belong to training, validation and test.

Three ways: by lists (``train.txt``, ``val.txt``, ``test.txt`` beside the data, a file a line), by
folders of these names, or by shares of a random order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pointzoo.errors import ConfigError, FormatError
from pointzoo.io.files import parsing

SPLITS = ("train", "val", "test")

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
_SUBSTITUTES = {"val": "test", "test": "val"}


def place_of(root: Path, file: Path) -> tuple[str, str]:
    """Return class and part of a file, each empty where there is none.

    The class is the first folder it lies in; folders named train, val or test (training, valid,
    validation, testing) above or right below the class are parts.
    """
    folders = list(file.relative_to(root).parts[:-1])
    for i, name in enumerate(folders[:2]):
        part = _WORDS.get(name.lower())
        if part:
            del folders[i]
            return (folders[0] if folders else ""), part
    return (folders[0] if folders else ""), ""


def empty_parts(root: Path, parts: Iterable[str]) -> list[str]:
    """Return the folders right below ``root`` that are named like a part which has no file.

    Args:
        root: The folder.
        parts: Those that have files.
    """
    if not root.is_dir():
        return []
    named = {folder.name: _WORDS.get(folder.name.lower()) for folder in root.iterdir()}
    return sorted(name for name, part in named.items() if part and part not in set(parts))


def list_files(root: Path) -> dict[str, Path]:
    """Return the lists of a folder by part, an empty dictionary where there are none."""
    found = {}
    for word, part in reversed(_WORDS.items()):  # the short names win
        path = root / f"{word}.txt"
        if path.is_file() and _is_list(path):
            found[part] = path
    return found


def parts_of(
    root: Path,
    files: Sequence[Path],
    *,
    ratio: Sequence[float] | None = None,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[Path, str]:
    """Return the part of each file: ``"train"``, ``"val"``, ``"test"``, or empty for none.

    Args:
        root: The folder.
        files: All files below it.
        ratio: Shares of train and val, and maybe of test, of a random order of the names; None: by
            lists, or else by folders.
        seed: Of that order.
        groups: One name per file; the shares hold within each group.

    Raises:
        ConfigError: The shares are no shares.
        FormatError: A list names a file that is not there.
    """
    if ratio is not None:
        return _by_ratio(files, _checked_ratio(ratio), seed, groups)
    if lists := list_files(root):
        parts = dict.fromkeys(files, "")
        for part, path in lists.items():
            parts.update(dict.fromkeys(_listed(root, path, files), part))
        return parts
    return {file: place_of(root, file)[1] for file in files}


def choose(root: Path, parts: Mapping[Path, str], split: str | None) -> list[Path]:
    """Return the files of a split in order; all of them for None.

    Args:
        root: The folder, for the message.
        parts: See :func:`parts_of`.
        split: ``"train"``, ``"val"`` or ``"test"``; of the last two, the one that exists.

    Raises:
        ConfigError: There is no such split.
    """
    if split is None:
        return list(parts)
    known = set(parts.values()) - {""}
    wanted = split if split in known else _SUBSTITUTES.get(split)
    if wanted not in known:
        raise ConfigError(
            expected=f"a part {split!r} of {root}",
            got=", ".join(sorted(known)) or "no such parts",
            fix="Leave out the split, sort the files into train/ and val/, list them in train.txt "
            "and val.txt, or pass a ratio.",
        )
    return [file for file, part in parts.items() if part == wanted]


def _is_list(path: Path) -> bool:
    """Whether a text file names files instead of holding points."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        words = re.split(r"[\s,;]+", stream.readline(4096).strip())
    return len(words) < 3 or not all(_NUMBER.fullmatch(word) for word in words)


def _listed(root: Path, path: Path, files: Sequence[Path]) -> list[Path]:
    known: dict[str, list[Path]] = {}
    for file in files:
        relative = file.relative_to(root)
        names = (relative.as_posix(), relative.with_suffix("").as_posix(), file.name, file.stem)
        for name in dict.fromkeys(names):
            known.setdefault(name, []).append(file)
    with parsing(path, "list"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = []
    for line in filter(None, lines):
        matches = known.get(line.removeprefix("./"), [])
        if len(matches) != 1:
            raise FormatError(
                expected=f"files of {root} in {path}, one a line",
                got=f"{line!r}, which {'is not there' if not matches else 'names several'}",
                fix="Write the path below the folder, with the ending.",
            )
        found += matches
    return list(dict.fromkeys(found))


def _checked_ratio(ratio: Sequence[float]) -> tuple[float, ...]:
    shares = tuple(map(float, ratio))
    if len(shares) not in (2, 3) or min(shares) < 0.0 or not 0.0 < sum(shares) <= 1.0 + 1e-9:
        raise ConfigError(
            expected="shares of train and val, and maybe test, that sum to 1 at most",
            got=f"{shares}",
            fix="For example ratio=(0.8, 0.2).",
        )
    return shares


def _by_ratio(
    files: Sequence[Path], shares: tuple[float, ...], seed: int, groups: Sequence[str] | None
) -> dict[Path, str]:
    names = [""] * len(files) if groups is None else list(groups)
    generator = np.random.default_rng(seed)
    parts = dict.fromkeys(files, "")
    for group in sorted(set(names)):
        rows = [row for row, name in enumerate(names) if name == group]
        ends = np.rint(np.cumsum(shares) * len(rows)).astype(int)
        for place, row in enumerate(generator.permutation(rows).tolist()):
            taken = int(np.searchsorted(ends, place, side="right"))
            parts[files[row]] = SPLITS[taken] if taken < len(shares) else ""
    return parts
