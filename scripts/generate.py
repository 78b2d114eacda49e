"""Write the generated parts of the documents; cog calls these functions (``make docs``).

``cog --check`` compares the documents with what these functions return, so a table cannot drift
away from the code.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

if sys.version_info >= (3, 11):
    import tomllib
else:  # the tools of the development environment bring it on older versions
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table, with an empty line on either side.

    Args:
        header: One title per column.
        rows: One cell per column.
    """
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n\n"


def module_table() -> str:
    """Return every module of the package with the first sentence of its docstring."""
    rows = []
    for path in sorted((ROOT / "pointzoo").rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if not docstring and path.name == "__init__.py":
            continue
        relative = path.relative_to(ROOT)
        name = relative.parent if path.name == "__init__.py" else relative.with_suffix("")
        dotted = ".".join(name.parts)
        rows.append((f"[`{dotted}`](../{relative.as_posix()})", _first_sentence(docstring)))
    return table(("Module", "What it is for"), rows)


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.replace("|", "\\|")


def layers() -> str:
    """Return the layers that import-linter holds, top first, as a code block."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    blocks = []
    for contract in contracts:
        if contract["type"] == "layers":
            names = "\n".join(f"    {layer}" for layer in contract["layers"])
            blocks.append(f"{contract['containers'][0]}:\n{names}")
    return "\n```text\n" + "\n\n".join(blocks) + "\n```\n\n"


def cli_reference() -> str:
    """Return a section per command with its help text, arguments and options."""
    from pointzoo import cli

    root = click.Context(
        cli.main, info_name="pointzoo", terminal_width=96, **cli.main.context_settings
    )
    return "".join(_command_sections(root))


def _command_sections(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            child = command.commands[name]
            yield from _command_sections(click.Context(child, parent=context, info_name=name))


def zoo_table() -> str:
    """Return the architectures and the pretrained weights."""
    import pointzoo as pz

    rows = []
    for info in map(pz.encoder_info, pz.list_encoders()):
        licence = info.card.license if info.card else "-"
        size = f"{info.parameters / 1e6:.2g} M"
        rows.append((f"`{info.name}`", info.description, size, str(info.out_channels), licence))
    header = ("Name", "Architecture", "Parameters", "Channels", "Licence of the weights")
    return table(header, rows)


def _stored(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((ROOT / "docs" / "results" / name).read_text("utf-8"))
    return stored


def _by(stored: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in stored["versions"].items())
    return f"`{stored['command']}` on {stored['machine']}; {versions}.\n\n"


def _milliseconds(seconds: dict[str, float]) -> str:
    middle, low, high = (1e3 * seconds[key] for key in ("median", "low", "high"))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def onnx_table() -> str:
    """Return how far exported encoders are from PyTorch, and how fast both are."""
    stored = _stored("onnx.json")
    rows = [
        (
            f"`{row['name']}`",
            f"{row['megabytes']:.1f}",
            f"{row['difference']:.1e}",
            f"{row['largest']:.2g}",
            f"{row['points']:,}",
            _milliseconds(row["torch"]),
            _milliseconds(row["onnx"]),
        )
        for row in stored["rows"]
    ]
    header = ("Encoder", "MB", "Largest difference", "Largest feature", "Points timed",
              "PyTorch, ms", "ONNX Runtime, ms")  # fmt: skip
    return table(header, rows) + _by(stored)


def precision_table() -> str:
    """Return what number types cost in accuracy and save in time."""
    stored = _stored("precision.json")
    rows = [
        (
            f"`{part['weights']}`",
            row["kind"],
            f"{row['metric']} {100 * row['score']:.2f} %",
            f"{100 * (row['score'] - part['rows'][0]['score']):+.2f}",
            _milliseconds(row["seconds"]),
            f"{part['rows'][0]['seconds']['median'] / row['seconds']['median']:.2f}",
            f"{row['megabytes']:.1f}",
        )
        for part in stored["parts"]
        for row in part["rows"]
    ]
    header = ("Encoder", "Numbers", "Linear probe", "Change", "ms a cloud", "Times as fast", "MB")
    return table(header, rows) + _by(stored)
