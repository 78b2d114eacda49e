"""The command that runs the benchmarks of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointzoo.cli.base import echo_table, path_option


@click.command()
@click.argument("name")
@path_option("--data", help="The data set in its published layout.")
@path_option("--test", help="Other test data (morse-transfer: the MORSE rooms).")
@click.option(
    "--encoder", help="Weights, weight folder or architecture; the protocol's if not given."
)
@click.option("--init", "inits", multiple=True, type=click.Choice(["scratch", "pretrained"]),
              help="Start from random weights or pretrained ones; both if not given.")  # fmt: skip
@click.option("--method", type=click.Choice(["linear", "decoder", "lora", "full"]),
              help="Of fine-tuning; the protocol's if not given.")  # fmt: skip
@click.option("--seeds", default="0", show_default=True, help="For example 0,1,2.")
@click.option("--variant", "variants", multiple=True, help="Part of the table; may repeat.")
@click.option("--views", help="Test-time views: one, scannet, s3dis; the protocol's if not given.")
@click.option("--limit", type=int, help="Test on the first so many clouds alone.")
@click.option("--steps", type=int, help="Stop training after this many steps.")
@click.option("--epochs", type=int, help="Passes over the training data.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Another setting of fine-tuning; may repeat.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@path_option("-o", "--out", help="JSON file; a stopped run goes on from it.")
def benchmark(
    name: str,
    data: Path | None,
    seeds: str,
    steps: int | None,
    epochs: int | None,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Run the benchmark NAME as its paper does, beside the paper's figures; `list` shows all."""
    import sys

    from pointzoo.protocols import PROTOCOLS, get_protocol, run_benchmark, tables
    from pointzoo.settings import parse_settings

    if name == "list":
        echo_table(tables.overview(PROTOCOLS.values()))
        return
    protocol = get_protocol(name)
    if data is None:
        raise click.UsageError("Missing option '--data'.")
    changed = parse_settings(settings)
    changed |= {k: v for k, v in (("max_steps", steps), ("epochs", epochs)) if v is not None}
    result = run_benchmark(
        name,
        data,
        seeds=tables.numbers(seeds),
        settings=changed,
        after_cell=lambda cell: click.echo(tables.line(protocol, cell), err=True),
        progress=sys.stderr.isatty(),
        **{key: value or None for key, value in options.items() if key != "device"},
        device=options["device"],
    )
    echo_table(tables.comparison(protocol, result))
