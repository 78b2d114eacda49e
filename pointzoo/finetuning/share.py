"""Putting trained models on the Hub, and folders of whichever kind."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pointzoo.card_text import PIPELINE_TAGS
from pointzoo.cards import CARD_FILE, Facts, Metric, check_card, render_card
from pointzoo.errors import FormatError
from pointzoo.finetuning.model import Model, load_model
from pointzoo.finetuning.source import embedded
from pointzoo.finetuning.store import CONFIG_FILE, KIND, PUBLISHED
from pointzoo.intake import parse_json, read_limited
from pointzoo.sharing import (
    CODE_LICENSE,
    CardLike,
    Push,
    add_pictures,
    as_card,
    published,
    push_encoder,
    push_folder,
)
from pointzoo.weights import load_folder
from pointzoo.zoo import load_encoder

METRICS = {"miou": "mean_iou", "class miou": "mean_iou", "accuracy": "accuracy"}
"""The Hub's names of metrics."""


def push_model(
    model: Model,
    repo_id: str,
    *,
    card: CardLike = None,
    pictures: Iterable[str | os.PathLike[str]] = (),
    **options: Any,
) -> Push:
    """Put a model on the Hub, where ``load_model("hf-hub:owner/repo")`` finds it.

    What the model knows about itself (task, classes, training, scores) need not be in the card: the
    licence of the weights, the sources of the training data with theirs, hardware and hours are
    what is left to say. An encoder that lies in a folder of this machine is put into the model.

    Args:
        model: A trained model.
        repo_id: ``owner/name``.
        card: See :func:`pointzoo.sharing.push_encoder`.
        pictures: Files that the card shows.
        options: Of :func:`pointzoo.sharing.push_folder`.

    Returns:
        What was pushed.

    Raises:
        FormatError: The card lacks something; the message names every field.
        HubError: The Hub refuses or cannot be reached.
    """
    if model.source.kind == "folder":
        model = dataclasses.replace(model, source=embedded(model.network.encoder))
    whole = as_card(card, _known(model, repo_id))
    with tempfile.TemporaryDirectory() as place:
        folder = model.write(Path(place) / "model", "", published=True)
        whole = dataclasses.replace(whole, facts=_facts(model, folder))
        (folder / CARD_FILE).write_text(render_card(whole), encoding="utf-8")
        add_pictures(folder, pictures)
        return push_folder(folder, repo_id, **options)


def push_directory(
    folder: str | os.PathLike[str], repo_id: str, *, card: CardLike = None, **options: Any
) -> Push:
    """Load a weight folder or a model folder, so that it is known to be whole, and push it.

    Args:
        folder: Written by :func:`pointzoo.save_encoder`, :meth:`Model.save` or
            :func:`pointzoo.finetune`. Its pictures go with it where its card is used.
        repo_id: ``owner/name``.
        card: See :func:`pointzoo.sharing.push_encoder`; None takes the folder's, if it is one.
        options: Of :func:`pointzoo.sharing.push_folder`.

    Raises:
        WeightError: The folder is damaged.
        FormatError: The card lacks something; the message names every field.
        HubError: The Hub refuses or cannot be reached.
    """
    root = Path(folder)
    if _is_model(root):
        model = load_model(root)
        own = None if card is not None or not _has_card(root) else root
        pictures = [] if own is None else _pictures(root)
        return push_model(model, repo_id, card=own or card, pictures=pictures, **options)
    if card is not None:
        return push_encoder(load_encoder(root), repo_id, card=card, **options)
    load_folder(root)
    return push_folder(root, repo_id, **options)


def _is_model(folder: Path) -> bool:
    try:
        config = parse_json(read_limited(folder / CONFIG_FILE))
    except (OSError, ValueError):
        return False  # load_folder says what is wrong
    return isinstance(config, dict) and config.get("kind") == KIND


def _has_card(folder: Path) -> bool:
    """Say whether the README is a card, complete or not, and not the note of ``Model.save``."""
    try:
        check_card(folder)
    except FormatError:
        return False
    return True


def _pictures(folder: Path) -> list[Path]:
    return [
        path for path in published(folder) if path.name not in (CONFIG_FILE, CARD_FILE, PUBLISHED)
    ]


def _facts(model: Model, folder: Path) -> Facts:
    data = (folder / PUBLISHED).read_bytes()
    return Facts(
        parameters=sum(p.numel() for p in model.network.parameters()),
        channels=tuple(channel.name for channel in model.network.encoder.channel_contract),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _known(model: Model, repo_id: str) -> dict[str, Any]:
    """Return the fields of the card that the model knows."""
    settings, task = model.settings, model.task.name
    trained = f"pointzoo.finetune({model.source.name!r}, {settings.get('data', 'DATA')!r}"
    scores = [
        (part, name, float(value))
        for part, score in model.scores.items()
        for name, value in score["values"].items()
    ]
    measures = dict.fromkeys(METRICS[name] for _, name, _ in scores if name in METRICS)
    classes = ", ".join(model.class_names)
    return {
        "name": repo_id.rpartition("/")[2],
        "architecture": model.source.architecture,
        "summary": f"A model for {task} of point clouds, trained with labels ({model.method}) on "
        f"features of {model.source.architecture}. Its classes: {classes}.",
        "code_license": CODE_LICENSE,
        "command": f"{trained}, task={task!r}, method={model.method!r})",
        "seed": settings.get("seed", 0),
        "commit": f"v{version('pointzoo')}",
        "results": [
            Metric(f"{part} {name}", f"{100 * value:.1f} %", f"model.evaluate(DATA)  # {part}")
            for part, name, value in scores
        ],
        "intended_use": f"Clouds like those it was trained on, for {task}.",
        "limitations": "It knows its classes and nothing else, and was measured on no other data "
        "than the above.",
        "tags": ("point-cloud", "3d", task),
        "metrics": tuple(measures) or ("accuracy",),
        "pipeline_tag": PIPELINE_TAGS[1],
    }  # fmt: skip
