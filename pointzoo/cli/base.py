"""What all commands share: how errors are shown, options with paths, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pointzoo.errors import PointzooError

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """An error of the caller: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message on one line."""
        click.echo(f"Error: {' '.join(self.format_message().split())}", err=True, file=file)


class Main(click.Group):
    """Turns the errors that pointzoo raises on purpose, and those of files, into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (PointzooError, OSError) as error:
            raise Failure(str(error)) from error


def path_option(*names: str, help: str, required: bool = False, **options: Any) -> Callable[[F], F]:
    """Add an option whose value is a path."""
    kind = click.Path(path_type=Path)
    return click.option(*names, type=kind, required=required, help=help, **options)


def echo_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they must be."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
