"""Putting weights on the Hub with their cards, and taking cached ones to other machines.

What is pushed is ``model.safetensors``, ``config.json``, ``README.md`` and the pictures that this
shows, in one commit. A card that lacks a required field, an unknown licence or files that
contradict each other keep it from being pushed, before anything is sent.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointzoo.cards import CARD_FILE, Card, check_card, make_card, read_card
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, FormatError, WeightError
from pointzoo.hub import HubName, sha256_of_file, upload
from pointzoo.intake import parse_json, parse_yaml, read_limited, require_own
from pointzoo.weights import CONFIG_FILE, MODEL_FILE, architecture_of, save_encoder
from pointzoo.zoo import locate

CODE_LICENSE = "apache-2.0"
PICTURES = (".png", ".jpg", ".jpeg")
FIELDS_FILES = (".yaml", ".yml", ".json")

CardLike = Card | Mapping[str, Any] | str | os.PathLike[str] | None
"""A card, its fields by name, a file with one of the two, a folder with a card, or nothing."""


@dataclass(frozen=True)
class Push:
    """What was pushed, or would have been.

    Attributes:
        name: Where it is: the repository, with the commit, or for a dry run the branch.
        files: Names and sizes in bytes, in the order of their names.
        done: False for a dry run.
    """

    name: HubName
    files: tuple[tuple[str, int], ...]
    done: bool


def push_encoder(
    encoder: PointEncoder,
    repo_id: str,
    *,
    card: CardLike = None,
    pictures: Iterable[str | os.PathLike[str]] = (),
    **options: Any,
) -> Push:
    """Put an encoder on the Hub, where ``load_encoder("hf-hub:owner/repo")`` finds it.

    It is stored in half precision where that loses nothing, and in full precision elsewhere.

    Args:
        encoder: An encoder of a registered architecture.
        repo_id: ``owner/name``.
        card: A card, its fields by name (:class:`pointzoo.cards.Card`), a file with one of the two
            (``README.md``, or YAML or JSON with fields), or a folder that holds a card.
        pictures: Files that the card shows.
        options: Of :func:`push_folder`.

    Returns:
        What was pushed.

    Raises:
        FormatError: The card lacks something; the message names every field.
        HubError: The Hub refuses or cannot be reached.
    """
    architecture = architecture_of(encoder)
    name = HubName(repo_id).repo.split("/")[1]
    known = {"name": name, "architecture": architecture, "code_license": CODE_LICENSE}
    whole = as_card(card, known)
    exact = all(bool((p.half().to(p.dtype) == p).all()) for p in encoder.parameters())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        save_encoder(encoder, folder, architecture=architecture, card=whole, half=exact)
        add_pictures(folder, pictures)
        return push_folder(folder, repo_id, **options)


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    message: str = "",
    dry_run: bool = False,
    token: str | None = None,
) -> Push:
    """Put a folder with weights and a complete card on the Hub, in one commit.

    Args:
        folder: A weight folder, or a model folder whose tensors are ``model.safetensors``.
        repo_id: ``owner/name``; made if it does not exist.
        private: Make a new repository private; an existing one stays as it is.
        revision: A branch; made if it does not exist.
        message: Of the commit.
        dry_run: Check everything that can be checked here, and send nothing.
        token: Instead of the one that ``HF_TOKEN`` or ``hf auth login`` gives.

    Returns:
        What was pushed.

    Raises:
        FormatError: The card lacks something; the message names every field.
        WeightError: A file is missing, or the tensors have another sha256 than the config says.
        ConfigError: ``repo_id`` or ``revision`` is not a name.
        HubError: The Hub refuses or cannot be reached.
    """
    name, root = HubName(repo_id, revision), Path(folder)
    _require_card(root)
    _require_agreement(root)
    files = {path.name: path for path in published(root)}
    listed = tuple((inside, path.stat().st_size) for inside, path in files.items())
    if dry_run:
        return Push(name, listed, done=False)
    text = message or f"Push {name.repo.split('/')[1]} with pointzoo"
    commit = upload(name, files, message=text, private=private, token=token)
    return Push(HubName(name.repo, commit), listed, done=True)


def export_weight(source: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Copy a weight or model into a folder that needs neither cache nor network.

    Args:
        source: A registered name, ``hf-hub:owner/repo@revision``, or a folder.
        folder: Where to; must not exist or be empty, its parent must exist.

    Returns:
        The folder, for :func:`pointzoo.load_encoder` or :func:`pointzoo.load_model`.

    Raises:
        UnknownNameError: There is no such name or folder.
        ConfigError: The folder holds something already.
        WeightError: The weight is damaged.
        HubError: It is not in the cache, and the Hub does not give it.
    """
    found, _ = locate(source)
    target = Path(folder)
    if not target.parent.is_dir() or (target.exists() and any(target.iterdir())):
        raise ConfigError(
            expected="a new or empty folder in an existing directory",
            got=str(target),
            fix="Choose another folder.",
        )
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    staging.mkdir()
    try:
        for path in published(found):
            shutil.copyfile(path, staging / path.name)
        _require_agreement(staging)
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def published(folder: Path) -> list[Path]:
    """Return the files of a folder that belong to its weight, by name: not runs, not logs.

    Raises:
        FormatError: One is a link to a file outside the folder, which nobody means to publish.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and (path.name in (MODEL_FILE, CONFIG_FILE, CARD_FILE) or path.suffix.lower() in PICTURES)
    )
    for path in found:
        require_own(path)
    return found


def as_card(given: CardLike, known: Mapping[str, Any]) -> Card:
    """Return a complete card.

    Args:
        given: See :data:`CardLike`.
        known: Fields that need not be given; ``given`` wins over them.

    Raises:
        FormatError: Something required is missing; the message names every field.
        UnknownNameError: A field does not exist.
    """
    if isinstance(given, Card):
        return given
    if given is None or isinstance(given, Mapping):
        return make_card({**known, **(given or {})})
    path = Path(given)
    if path.suffix.lower() in FIELDS_FILES:
        return make_card({**known, **_read_fields(path)})
    return dataclasses.replace(read_card(path), facts=None)


def add_pictures(folder: Path, pictures: Iterable[str | os.PathLike[str]]) -> None:
    """Copy pictures into a folder.

    Raises:
        ConfigError: A file is no picture.
    """
    for picture in map(Path, pictures):
        if picture.suffix.lower() not in PICTURES:
            raise ConfigError(
                expected=f"pictures ({', '.join(PICTURES)})",
                got=str(picture),
                fix="Leave other files out.",
            )
        shutil.copyfile(picture, folder / picture.name)


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        found = parse_yaml(read_limited(path).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"YAML or JSON with the fields of a card in {path}",
            got=" ".join(str(error).split()),
            fix="For example {license: cc-by-4.0}.",
        ) from error
    if not isinstance(found, dict):
        raise FormatError(
            expected=f"fields of a card by name in {path}",
            got=type(found).__name__,
            fix="For example {license: cc-by-4.0}.",
        )
    return {str(key): value for key, value in found.items()}


def _require_card(folder: Path) -> None:
    problems = check_card(folder)
    if not problems:
        card = read_card(folder)
        licenses = {"license": card.license, "code_license": card.code_license}
        licenses |= {f"sources[{i}].license": s.license for i, s in enumerate(card.sources)}
        problems = [f"{field} is unknown" for field, word in licenses.items() if word == "unknown"]
    if problems:
        raise FormatError(
            expected=f"a complete card in {folder} before anything is pushed",
            got="; ".join(problems),
            fix="Fill the gaps: card={'license': ...} or a README.md by pointzoo.cards.",
        )


def _require_agreement(folder: Path) -> None:
    try:
        require_own(folder / MODEL_FILE)
        wanted = parse_json(read_limited(folder / CONFIG_FILE))["sha256"]
        got = sha256_of_file(folder / MODEL_FILE)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightError(
            expected=f"{MODEL_FILE} and {CONFIG_FILE} of pointzoo in {folder}",
            got=f"{type(error).__name__}: {error}",
            fix="Write the folder with pointzoo.save_encoder or Model.save.",
        ) from error
    if got != wanted:
        raise WeightError(
            expected=f"{folder / MODEL_FILE} with the sha256 of {CONFIG_FILE}",
            got=f"{got[:12]}...",
            fix="The file is damaged or was replaced: get it again.",
        )
