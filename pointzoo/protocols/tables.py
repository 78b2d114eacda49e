"""Protocols and results as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pointzoo.errors import ConfigError
from pointzoo.protocols.run import summarise
from pointzoo.protocols.table import Protocol, Published

Rows = list[tuple[str, ...]]


def overview(protocols: Iterable[Protocol]) -> Rows:
    """List protocols with what the papers print."""
    rows: Rows = [("name", "what", "metric", "published (%)", "where")]
    for protocol in protocols:
        for place, variant in enumerate(_variants(protocol)):
            figures = ", ".join(_figure(p) for p in protocol.paper if p.variant == variant)
            what = protocol.about if not place else ""
            rows.append(
                (
                    protocol.name if not place else "",
                    f"{what}; {variant}" if what and variant else what or variant,
                    protocol.metric,
                    figures or "-",
                    protocol.source or "-",
                )
            )
    return rows


def comparison(protocol: Protocol, result: Mapping[str, Any]) -> Rows:
    """Put results beside the paper's figures."""
    rows: Rows = [("variant", "start", "encoder", "method", result["metric"], "seeds", "published")]
    for row in summarise(result):
        figures = ", ".join(_figure(p) for p in protocol.paper if p.variant == row["variant"])
        rows.append(
            (
                row["variant"] or "-",
                row["init"],
                row["encoder"],
                row["method"],
                mean_and_spread(row),
                str(row["seeds"]),
                figures or "-",
            )
        )
    return rows


def line(protocol: Protocol, cell: Mapping[str, Any]) -> str:
    """Say what one run gave."""
    figure = 100 * cell["score"]["values"][protocol.metric]
    words = (protocol.name, cell["variant"], cell["init"], cell["method"], f"seed {cell['seed']}:")
    return (
        f"{' '.join(filter(None, words))} {protocol.metric} {figure:.1f}, {cell['seconds']:.0f} s"
    )


def mean_and_spread(row: Mapping[str, Any]) -> str:
    """Write a mean, with the standard deviation over seeds where there are several."""
    spread = "" if row["spread"] is None else f" ± {row['spread']:.1f}"
    return f"{row['mean']:.1f}{spread}"


def numbers(words: str) -> tuple[int, ...]:
    """Parse seeds as a command line gives them: ``0,1,2``.

    Raises:
        ConfigError: These are no whole numbers.
    """
    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError as error:
        raise ConfigError(
            expected="whole numbers with commas between them", got=words, fix="As in 0,1,2."
        ) from error


def _variants(protocol: Protocol) -> Sequence[str]:
    return ("5 folds",) if protocol.variants[0].startswith("fold ") else protocol.variants


def _figure(published: Published) -> str:
    network = "" if published.encoder == "SparseUNet" else f" {published.encoder}"
    digits = 1 if round(published.value, 1) == published.value else 2
    return f"{published.init}{network} {published.value:.{digits}f}"
