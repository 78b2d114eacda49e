"""Commands for weights on the Hub, in the cache, and for their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointzoo.cli.base import Failure, echo_table, path_option


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/REPO")
@path_option("--card", help="README.md, or YAML or JSON with what the card lacks.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", default="main", show_default=True, help="Branch.")
@click.option("--message", default="", help="Of the commit.")
@click.option("--dry-run", is_flag=True, help="Check everything, send nothing.")
def push(folder: Path, repo: str, card: Path | None, **options: Any) -> None:
    """Put the weight or model in DIR on the Hub, in one commit.

    Nothing is sent if the card lacks something. HF_TOKEN or `hf auth login` says who you are,
    HF_ENDPOINT names a mirror.
    """
    from pointzoo.finetuning.share import push_directory

    pushed = push_directory(folder, repo, card=card, **options)
    echo_table([(name, f"{size:,} bytes") for name, size in pushed.files])
    click.echo(f"{'pushed' if pushed.done else 'would be pushed'}: {pushed.name}")


@click.group()
def cache() -> None:
    """Weights that were fetched from the Hub and lie on this machine."""


@cache.command(name="list")
def list_() -> None:
    """List them."""
    from pointzoo.hub import list_cached

    rows = [
        (str(entry.name), ", ".join(entry.refs) or "-", f"{entry.size:,} bytes")
        for entry in list_cached()
    ]
    if rows:
        echo_table(rows)


@cache.command()
def verify() -> None:
    """Read every file and compare it with its checksum."""
    from pointzoo.hub import damage, list_cached

    bad = 0
    for entry in list_cached():
        problems = damage(entry)
        bad += bool(problems)
        click.echo(f"{entry.name}: {'; '.join(problems) or 'whole'}")
    if bad:
        raise Failure(f"{bad} damaged; 'pointzoo cache clear OWNER/REPO' removes one.")


@cache.command()
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def export(name: str, folder: Path) -> None:
    """Copy the weight or model NAME into DIR, for a machine without network."""
    from pointzoo.sharing import export_weight

    click.echo(export_weight(name, folder))


@cache.command()
@click.argument("repo", metavar="[OWNER/REPO]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(repo: str | None, yes: bool) -> None:
    """Delete what of pointzoo is in the cache, or one repository."""
    from pointzoo.hub import clear_cache

    if not yes:
        click.confirm(f"Delete {repo or 'all weights of pointzoo'} from the cache?", abort=True)
    for entry in clear_cache(repo):
        click.echo(f"deleted {entry.name}")


@click.group()
def card() -> None:
    """Cards of weights: check them, measure their figures again."""


@card.command()
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path))
def check(folders: tuple[Path, ...]) -> None:
    """Compute again what the cards in DIR state; without DIR, of all bundled weights."""
    from pointzoo.audit import bundled_folders, check_weight

    bad = 0
    for folder in folders or bundled_folders():
        problems = check_weight(folder)
        bad += bool(problems)
        click.echo(f"{folder.name}: {'; '.join(problems) or 'true'}")
    if bad:
        raise Failure(f"{bad} of the cards or weights are not what they say.")


@card.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask before the commands of the card are run.")
def build(folder: Path, yes: bool) -> None:
    """Run the commands that the card in DIR names for its figures, and write what came out."""
    from pointzoo.audit import build_card
    from pointzoo.cards import read_card

    for command in dict.fromkeys(result.command for result in read_card(folder).results):
        click.echo(command)
    if not yes:
        click.confirm("Run these commands?", abort=True)
    echo_table([(result.name, result.value) for result in build_card(folder).results])
