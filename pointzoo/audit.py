"""Cards that are true: compute again what a card states, measure again what it claims."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pointzoo.cards import CARD_FILE, Card, Facts, Metric, check_card, read_card, render_card
from pointzoo.errors import ConfigError, FormatError, WeightError
from pointzoo.io.files import replacing
from pointzoo.weights import MODEL_FILE, build_described, facts, load_folder, read_config
from pointzoo.zoo import WEIGHTS, bundled, weights_folder

Run = Callable[[str], str]
"""Runs a command and returns what it printed."""

_PROGRAMS = {
    "python": (sys.executable,),
    "pointzoo": (sys.executable, "-c", "from pointzoo.cli import main; main()"),
}


def bundled_folders() -> list[Path]:
    """Return the folders of all weights that lie in ``weights_cards`` or should lie there."""
    there = {path.parent for path in weights_folder().glob("*/*")}
    wanted = {folder for name in WEIGHTS if (folder := bundled(name)) is not None}
    return sorted(there | wanted)


def check_weight(folder: str | os.PathLike[str]) -> list[str]:
    """Return what is not true of a weight folder and its card, as sentences; empty if all is.

    Parameters, channels, the size and the sha256 of the tensors are computed again and compared
    with what the card states. The card is complete and its text is what its header says; the
    tensors are those that the architecture has, finite, and give the stored fingerprint; a
    registered weight has the sha256 and the architecture of the registry.
    """
    root = Path(folder)
    try:
        problems = check_card(root)
        card = None if problems else read_card(root)
    except FormatError as error:
        problems, card = [str(error)], None
    weight = WEIGHTS.get(root.name) if bundled_name(root) else None
    try:
        load_folder(root, sha256=weight.sha256 if weight else None)
        if card is not None:
            problems += _differences(card.facts, _recomputed(root))
    except WeightError as error:
        problems.append(str(error))
    if weight is not None and card is not None and weight.architecture != card.architecture:
        problems.append(f"the registry says {weight.architecture!r}, the card another architecture")
    return problems


def bundled_name(folder: Path) -> bool:
    """Say whether a folder is one of ``weights_cards``, whose names the registry knows."""
    return folder.resolve().parent == weights_folder().resolve()


def state_facts(folder: str | os.PathLike[str]) -> Card:
    """Write what can be computed from a weight into its card.

    Raises:
        FormatError: The card is not complete.
        WeightError: ``config.json`` or the tensors cannot be read.
    """
    return _rewrite(Path(folder), read_card(folder))


def build_card(folder: str | os.PathLike[str], *, run: Run | None = None) -> Card:
    """Run the commands that a card names for its figures, and write the figures that came out.

    A command is started once, whatever the number of its figures. It prints a line ``NAME: VALUE``
    for each, where NAME is the name that the figure has in the card, as ``pointzoo probe`` does.
    The commands of a card are programs: read them before you run those of a stranger.

    Args:
        folder: A weight folder with a complete card, whose figures need not be right.
        run: Runs a command; None starts ``python`` and ``pointzoo`` and nothing else.

    Returns:
        The card as it is now.

    Raises:
        FormatError: The card is not complete.
        ConfigError: A command is another program, fails, or does not print a figure.
        WeightError: ``config.json`` or the tensors cannot be read.
    """
    card = read_card(folder)
    commands = dict.fromkeys(result.command for result in card.results)
    printed = {command: (run or run_command)(command) for command in commands}
    results = tuple(_measured(result, printed[result.command]) for result in card.results)
    return _rewrite(Path(folder), dataclasses.replace(card, results=results))


def run_command(command: str) -> str:
    """Run a command of a card in the present folder and return what it printed.

    Raises:
        ConfigError: It is neither ``python ...`` nor ``pointzoo ...``, or it fails.
    """
    program, *words = shlex.split(command) or [""]
    if program not in _PROGRAMS:
        raise ConfigError(
            expected="a command that begins with 'python' or 'pointzoo'",
            got=repr(command),
            fix="Correct the card.",
        )
    # words come from a card that the caller decided to run; no shell sees them
    result = subprocess.run(  # noqa: S603
        [*_PROGRAMS[program], *words], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise ConfigError(
            expected=f"{command!r} to end well",
            got=f"exit code {result.returncode}: {_end(result.stderr)}",
            fix="Run it from the folder that its paths are relative to.",
        )
    return result.stdout


def _measured(result: Metric, printed: str) -> Metric:
    found = re.findall(rf"^\s*{re.escape(result.name)}: +(\S.*?)\s*$", printed, re.MULTILINE)
    if not found:
        raise ConfigError(
            expected=f"a line '{result.name}: VALUE' from {result.command!r}",
            got=_end(printed) or "nothing",
            fix="Name the figure in the card as the command prints it.",
        )
    return dataclasses.replace(result, value=found[-1])


def _end(text: str) -> str:
    return " ".join(text.split())[-300:]


def _recomputed(folder: Path) -> Facts:
    config = read_config(folder)
    build_described(config)  # compares parameters and channels with the network itself
    return facts(config, (folder / MODEL_FILE).read_bytes())


def _differences(stated: Facts | None, true: Facts) -> Iterable[str]:
    if stated is None:
        return ["the card does not state its facts; pointzoo.audit.state_facts writes them"]
    return [
        f"the card states {field.name} {getattr(stated, field.name)!r}, "
        f"it is {getattr(true, field.name)!r}"
        for field in dataclasses.fields(Facts)
        if getattr(stated, field.name) != getattr(true, field.name)
    ]


def _rewrite(folder: Path, card: Card) -> Card:
    try:
        whole = dataclasses.replace(card, facts=_recomputed(folder))
    except OSError as error:
        raise WeightError(
            expected=f"{MODEL_FILE} in {folder}", got=str(error), fix="Get the file again."
        ) from error
    with replacing(folder / CARD_FILE) as stream:
        stream.write(render_card(whole).encode())
    return whole
