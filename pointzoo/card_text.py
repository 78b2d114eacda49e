"""The text of a card: its header, its sections, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pointzoo.errors import FormatError
from pointzoo.intake import parse_yaml

CARD_SCHEMA = 1
LIBRARY = "pointzoo"
PIPELINE_TAGS = ("feature-extraction", "other")
"""Of an encoder, and of a model that predicts: the Hub has no word yet for points with labels."""
SECTIONS = (
    "Trained on", "How it was trained", "Metrics", "Licences", "Intended use", "What it cannot do",
)  # fmt: skip
FACTS_SECTION = "The file"


def split_text(text: str, file: str) -> tuple[dict[str, Any], str]:
    """Return the header and the rest of a card.

    Args:
        text: The whole card.
        file: Where it comes from, for the message.

    Raises:
        FormatError: There is no header, or it cannot be parsed.
    """
    found = re.match(r"---\n(.*?\n)---\n(.*)", text, re.DOTALL)
    header: Any = "none"
    if found is not None:
        try:
            header = parse_yaml(found[1])
        except FormatError as error:
            header = error.got
    if found is None or not isinstance(header, dict):
        raise FormatError(
            expected=f"{file} to begin with a YAML header between two lines '---'",
            got=str(header)[:100],
            fix="Write the card with pointzoo.cards.render_card.",
        )
    return header, found[2]


def title_of(body: str) -> tuple[str, str]:
    """Return the title and the paragraph below it; empty where they are missing."""
    found = re.match(r"\s*# ([^\n]+)\n(.*?)(?=\n## |\Z)", body, re.DOTALL)
    return (found[1].strip(), found[2].strip()) if found else ("", "")


def sections_of(body: str) -> dict[str, str]:
    """Return the text of every section by its heading."""
    found = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", body, re.DOTALL | re.MULTILINE)
    return {heading.strip(): text.strip() for heading, text in found}


_HUB_FIELDS: Mapping[str, tuple[type, ...]] = {
    "license": (str,), "tags": (list,), "datasets": (list,), "metrics": (list,),
}  # fmt: skip
_OWN_FIELDS: Mapping[str, tuple[type, ...]] = {
    "architecture": (str,), "code_license": (str,), "command": (str,), "seed": (int,),
    "commit": (str,), "hardware": (str,), "hours": (int, float), "sources": (list,),
    "results": (list,),
}  # fmt: skip
_MAY_BE_EMPTY = ("datasets", "seed")


def card_problems(header: Mapping[str, Any], body: str) -> list[str]:
    """Return what a card lacks or has wrong, as sentences that name the field."""
    own = header.get(LIBRARY)
    own = own if isinstance(own, dict) else {}
    problems = _field_problems(header, _HUB_FIELDS, "") + _field_problems(
        own, _OWN_FIELDS, "pointzoo."
    )
    if header.get("library_name") != LIBRARY:
        problems.append(f"library_name is not {LIBRARY!r}")
    if header.get("pipeline_tag") not in PIPELINE_TAGS:
        problems.append(f"pipeline_tag is not {' or '.join(map(repr, PIPELINE_TAGS))}")
    if own.get("schema") != CARD_SCHEMA:
        problems.append(f"pointzoo.schema is not {CARD_SCHEMA}")
    if not re.fullmatch(r"[0-9a-f]{7,40}|v\d+(\.\w+)+", str(own.get("commit"))):
        problems.append("pointzoo.commit is not 7 to 40 hexadecimal digits, nor a release (v0.1.0)")
    problems += _entry_problems(
        "sources", own.get("sources"), ("name", "author", "license"), ("url",)
    )
    problems += _entry_problems("results", own.get("results"), ("name", "value", "command"), ())
    problems += _fact_problems(own.get("facts"))
    title, summary = title_of(body)
    if not title or not summary:
        problems.append("there is no title with a paragraph below it")
    sections = sections_of(body)
    return problems + [
        f"section {s!r} is missing or empty" for s in SECTIONS if not sections.get(s)
    ]


def _field_problems(
    values: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]], prefix: str
) -> list[str]:
    problems = []
    for key, kinds in fields.items():
        value = values.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            problems.append(f"{prefix}{key} is missing or not of type {wanted}")
        elif prefix == "" and isinstance(value, list) and not _is_text(value):
            problems.append(f"{key} is not a list of text")
        elif not value and key not in _MAY_BE_EMPTY:
            problems.append(f"{prefix}{key} is empty")
    return problems


def _entry_problems(
    name: str, entries: Any, required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    problems = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        values = entry if isinstance(entry, dict) else {}
        missing = [key for key in required if not values.get(key)]
        if missing:
            problems.append(f"pointzoo.{name}[{index}] lacks {', '.join(missing)}")
        wrong = [str(k) for k, v in values.items() if not isinstance(v, str)]
        wrong += [str(k) for k in values if k not in required + optional and str(k) not in wrong]
        if wrong:
            problems.append(f"pointzoo.{name}[{index}] has unknown or non-text {', '.join(wrong)}")
    return problems


def _fact_problems(facts: Any) -> list[str]:
    if facts is None:
        return []
    kinds = {"parameters": int, "channels": list, "size": int, "sha256": str}
    if not isinstance(facts, dict) or set(facts) != set(kinds):
        return [f"pointzoo.facts does not hold {', '.join(kinds)}"]
    problems = [
        f"pointzoo.facts.{key} is not of type {kind.__name__}"
        for key, kind in kinds.items()
        if not isinstance(facts[key], kind)
    ]
    if not problems and not _is_text(facts["channels"]):
        problems.append("pointzoo.facts.channels is not a list of text")
    return problems


def _is_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
