"""Write the generated parts of the documents; cog calls these functions (``make docs``).

``cog --check`` compares the documents with what these functions return, so a table cannot drift
away from the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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
