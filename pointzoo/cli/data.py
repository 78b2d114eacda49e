"""Commands that look at data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointzoo.cli.base import path_option


@click.group()
def data() -> None:
    """Look at data sets before something is trained on them."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--encoder", default="sparseunet14", show_default=True,
              help="Whose training is timed; '' for none.")  # fmt: skip
@path_option("--classes", help="JSON file with the names of the classes.")
@click.option("--field", help="Field that holds the labels of points.")
@click.option("--instance", help="Field that tells objects apart.")
@click.option("--ignore", type=int, multiple=True, help="Label value that is no label; may repeat.")
@click.option("--remap", multiple=True, metavar="OLD=NEW", help="New label value; may repeat.")
@click.option("--ratio", type=float, multiple=True, help="Share of train, then val, then test.")
@click.option("--objects/--scenes", default=None, help="Labels of files, or of points.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    context: click.Context,
    /,
    folder: Path,
    encoder: str,
    remap: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Say what is wrong with the data set in FOLDER, and what training on it would cost.

    The exit code is 1 if there are errors: what a training would stop at or be misled by.
    """
    import json
    import sys

    from pointzoo.data.check import check_data, render
    from pointzoo.settings import parse_settings
    from pointzoo.tasks.progress import progress_bar
    from pointzoo.zoo import start_encoder

    network = start_encoder(encoder) if encoder else None
    options = {key: value for key, value in options.items() if value not in (None, ())}
    if remap:
        options["remap"] = {int(old): int(new) for old, new in parse_settings(remap).items()}
    with progress_bar("check", shown=sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            if done == 1:
                bar.start("reading", total)
            bar.advance()

        report = check_data(folder, encoder=network, after_cloud=show, **options)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else render(report))
    context.exit(0 if report.ok else 1)
