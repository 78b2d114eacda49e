"""The card of a weight: where it comes from, what it may be used for, and what it cannot do.

A card is the ``README.md`` of a weight folder. Its header (YAML between two ``---`` lines) holds
the fields that the Hub reads and, under ``pointzoo``, the provenance; the text says the same to
people.
:func:`render_card` writes both from one :class:`Card`, so that they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pointzoo.card_text import (
    CARD_SCHEMA,
    FACTS_SECTION,
    LIBRARY,
    PIPELINE_TAGS,
    SECTIONS,
    card_problems,
    sections_of,
    split_text,
    title_of,
)
from pointzoo.errors import FormatError, UnknownNameError
from pointzoo.intake import parse_json, read_limited, require_own

CARD_FILE = "README.md"
COMMERCIAL_LICENSES = frozenset(
    {
        "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0",
        "cc-by-4.0", "cc-by-sa-4.0", "lal-1.3", "unlicense",
    }
)  # fmt: skip
"""Licences, by Hub identifier, that allow commercial use of what they cover."""


@dataclass(frozen=True)
class DataSource:
    """One source of training data.

    Attributes:
        name: What it is, with the version.
        author: Who made it.
        license: Hub identifier in lower case, for example ``cc-by-3.0``.
        url: Where it can be had; may be empty.
    """

    name: str
    author: str
    license: str
    url: str = ""


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Attributes:
        name: What was measured and on which data.
        value: The figure with its unit and interval, as it should be read.
        command: The command that measures it again.
    """

    name: str
    value: str
    command: str


@dataclass(frozen=True)
class Facts:
    """What can be computed again from the files of a weight.

    Attributes:
        parameters: Number of parameters.
        channels: What the encoder reads from a cloud, in order.
        size: Bytes of ``model.safetensors``.
        sha256: Its checksum.
    """

    parameters: int
    channels: tuple[str, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        name: Name of the weight, ``architecture.recipe_corpus``.
        architecture: A registered architecture.
        summary: One paragraph: what the weight is.
        license: Licence of the weight, Hub identifier.
        code_license: Licence of the code that runs it.
        sources: What it was trained on; their licences are the licences of the data.
        command: The command that trained it.
        seed: The seed of that command.
        commit: The commit of pointzoo that it ran at, 7 to 40 hexadecimal digits; or its release,
            such as ``v0.1.0``.
        hardware: What it ran on.
        hours: How long it ran, wall clock.
        results: Measured figures.
        intended_use: What it is good for, Markdown.
        limitations: What it cannot do, Markdown.
        tags: Tags for the Hub beside the architecture.
        datasets: Training sets that have a Hub name.
        metrics: Hub names of the metrics.
        notes: Further sections (pictures), Markdown; may be empty.
        pipeline_tag: What the Hub files it under; one of :data:`PIPELINE_TAGS`.
        facts: Sizes and checksum; None until the weight is written.
    """

    name: str
    architecture: str
    summary: str
    license: str
    code_license: str
    sources: tuple[DataSource, ...]
    command: str
    seed: int
    commit: str
    hardware: str
    hours: float
    results: tuple[Metric, ...]
    intended_use: str
    limitations: str
    tags: tuple[str, ...] = ("point-cloud", "3d", "self-supervised")
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    notes: str = field(default="", repr=False)
    pipeline_tag: str = PIPELINE_TAGS[0]
    facts: Facts | None = None

    @property
    def data_licenses(self) -> tuple[str, ...]:
        """Licences of the training data, sorted, each once."""
        return tuple(sorted({source.license for source in self.sources}))

    @property
    def commercial(self) -> bool:
        """Whether code, weight and training data all allow commercial use."""
        return {self.license, self.code_license, *self.data_licenses} <= COMMERCIAL_LICENSES


def render_card(card: Card) -> str:
    """Return the card as Markdown with its header."""
    import yaml

    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        f"---\n{header}---\n",
        f"# {card.name}\n\n{card.summary.strip()}\n",
        _section("Trained on", _source_table(card)),
        _section("How it was trained", _recipe(card)),
        _section("Metrics", _metric_list(card)),
        *([_section(FACTS_SECTION, _facts_text(card.facts))] if card.facts else []),
        _section("Licences", _licenses(card)),
        _section("Intended use", card.intended_use),
        _section("What it cannot do", card.limitations),
    ]
    notes = [f"{card.notes.strip()}\n"] if card.notes.strip() else []
    return "\n".join(parts + notes)


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read a card.

    Args:
        path: A ``README.md``, or the folder that holds it.

    Raises:
        FormatError: The file is missing, its header cannot be parsed, or something required is
            missing or of the wrong type; the message lists everything that is wrong.
    """
    header, body = _split(_card_file(path))
    _require_complete(f"in {path}", card_problems(header, body))
    own = header[LIBRARY]
    title, summary = title_of(body)
    sections = sections_of(body)
    known = {heading: sections.pop(heading) for heading in SECTIONS}
    sections.pop(FACTS_SECTION, None)
    facts = own.get("facts")
    return Card(
        name=title,
        summary=summary,
        architecture=own["architecture"],
        license=header["license"],
        code_license=own["code_license"],
        sources=tuple(DataSource(**source) for source in own["sources"]),
        command=own["command"],
        seed=own["seed"],
        commit=own["commit"],
        hardware=own["hardware"],
        hours=float(own["hours"]),
        results=tuple(Metric(**result) for result in own["results"]),
        intended_use=known["Intended use"],
        limitations=known["What it cannot do"],
        tags=tuple(tag for tag in header["tags"] if tag != own["architecture"]),
        datasets=tuple(header["datasets"]),
        metrics=tuple(header["metrics"]),
        notes="\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items()),
        pipeline_tag=header["pipeline_tag"],
        facts=Facts(**{**facts, "channels": tuple(facts["channels"])}) if facts else None,
    )


def make_card(fields: Mapping[str, Any]) -> Card:
    """Build a card from its fields by name, as they come from YAML or JSON.

    Args:
        fields: Fields of :class:`Card`; ``sources`` and ``results`` may be lists of mappings.

    Raises:
        UnknownNameError: There is no such field.
        FormatError: A field is missing, empty or of the wrong type; the message names every one.
    """
    empty: dict[str, Any] = {
        "sources": (), "results": (), "seed": 0, "hours": 0.0,
        **dict.fromkeys(("name", "architecture", "summary", "license", "code_license", "command",
                         "commit", "hardware", "intended_use", "limitations"), ""),
    }  # fmt: skip
    known = [entry.name for entry in dataclasses.fields(Card)]
    for name in fields:
        if name not in known:
            raise UnknownNameError.of("field of a card", name, known)
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    try:
        for name, kind in (("sources", DataSource), ("results", Metric)):
            entries = given.get(name, ())
            given[name] = tuple(e if isinstance(e, kind) else kind(**e) for e in entries)
        card = Card(**{**empty, **given})
        render_card(card)
    except (TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            expected="the fields of a card",
            got=str(error),
            fix="pointzoo.cards.Card says what they are.",
        ) from error
    require_complete(card)
    return card


def require_complete(card: Card) -> None:
    """Refuse a card in which something required is missing or empty.

    Raises:
        FormatError: The message names every field that is.
    """
    header, body = split_text(render_card(card), card.name)
    _require_complete(f"for {card.name!r}", card_problems(header, body))


def _require_complete(place: str, problems: list[str]) -> None:
    if problems:
        raise FormatError(
            expected=f"a complete card {place}",
            got="; ".join(problems),
            fix="Fill the gaps; pointzoo.cards.render_card writes a complete card.",
        )


def check_card(folder: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with the card of a weight folder, as sentences; empty if nothing is.

    Beside what :func:`read_card` wants, the card names the architecture of ``config.json``, every
    picture it shows is there, and its text is what its header says.

    Raises:
        FormatError: There is no card, or its header cannot be parsed at all.
    """
    root = Path(folder)
    header, body = _split(_card_file(root))
    problems = card_problems(header, body)
    shown = re.findall(r"!\[[^\]\n]{0,200}\]\(([^)\s]{1,200})\)", body)  # bounded: no long search
    problems += [
        f"the picture {name} is not in the folder"
        for name in shown
        if "://" not in name and not _is_beside(root, name)
    ]
    if not problems:
        card = read_card(root)
        problems += _config_problems(root, card)
        if render_card(card) != _read_text(root / CARD_FILE):
            problems.append(
                "the text and the header disagree; render_card writes both from one Card"
            )
    return problems


def _header(card: Card) -> dict[str, Any]:
    return {
        "license": card.license,
        "library_name": LIBRARY,
        "pipeline_tag": card.pipeline_tag,
        "tags": [card.architecture, *card.tags],
        "datasets": list(card.datasets),
        "metrics": list(card.metrics),
        LIBRARY: {
            "schema": CARD_SCHEMA,
            "architecture": card.architecture,
            "code_license": card.code_license,
            "command": card.command,
            "seed": card.seed,
            "commit": card.commit,
            "hardware": card.hardware,
            "hours": card.hours,
            "sources": [asdict(source) for source in card.sources],
            "results": [asdict(result) for result in card.results],
            **(
                {"facts": {**asdict(card.facts), "channels": list(card.facts.channels)}}
                if card.facts
                else {}
            ),
        },
    }


def _section(heading: str, text: str) -> str:
    return f"## {heading}\n\n{text.strip()}\n"


def _source_table(card: Card) -> str:
    rows = [
        f"| {f'[{s.name}]({s.url})' if s.url else s.name} | {s.author} | {s.license} |"
        for s in card.sources
    ]
    return "\n".join(["| source | author | licence |", "|---|---|---|", *rows])


def _recipe(card: Card) -> str:
    return (
        f"    {card.command}\n\n"
        f"Seed {card.seed}, commit `{card.commit}`, {card.hours:g} hours on {card.hardware}."
    )


def _metric_list(card: Card) -> str:
    return "\n".join(f"- {r.name}: **{r.value}**, by `{r.command}`" for r in card.results)


def _facts_text(facts: Facts) -> str:
    return (
        f"{facts.parameters:,} parameters in {facts.size:,} bytes, sha256 `{facts.sha256}`. "
        f"It reads {', '.join(facts.channels)}."
    )


def _licenses(card: Card) -> str:
    use = "allow" if card.commercial else "do not all allow"
    return (
        f"Code: {card.code_license}. Weights: {card.license}. "
        f"Training data: {', '.join(card.data_licenses)}. Together they {use} commercial use."
    )


def _card_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    return file / CARD_FILE if file.is_dir() else file


def _read_text(file: Path) -> str:
    try:
        require_own(file)
        return read_limited(file).decode("utf-8")
    except (OSError, ValueError) as error:
        raise FormatError(
            expected=f"a card at {file}",
            got=error.got if isinstance(error, FormatError) else type(error).__name__,
            fix="A weight folder holds README.md, UTF-8.",
        ) from error


def _split(file: Path) -> tuple[dict[str, Any], str]:
    return split_text(_read_text(file), str(file))


def _is_beside(root: Path, name: str) -> bool:
    """Say whether a file is in a folder, where a name with ``..`` or a link may lead out of it."""
    file = root / name
    inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root))
    if inside or Path(name).name == name:
        with suppress(FormatError, OSError, ValueError):
            require_own(file)
            return file.is_file()
    return False


def _config_problems(root: Path, card: Card) -> list[str]:
    try:
        config = parse_json(_read_text(root / "config.json"))
    except FormatError:
        return ["there is no readable config.json beside the card"]
    config = config if isinstance(config, dict) else {}
    encoder = config.get("encoder")  # of a model
    own = encoder if isinstance(encoder, dict) else config
    found = own.get("architecture")
    if found != card.architecture:
        return [f"config.json holds the architecture {found!r}, the card {card.architecture!r}"]
    return []
