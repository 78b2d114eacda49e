"""Commands that build the corpora."""

from __future__ import annotations

from pathlib import Path

import click

from pointzoo.cli.base import path_option


@click.group()
def corpus() -> None:
    """Build the corpora that the bundled weights are trained and measured on."""


@corpus.command()
@click.argument("source", type=click.Path(path_type=Path))
@path_option("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--limit", type=int, help="Stop after this many parts.")
def ldraw(source: Path, out: Path, limit: int | None) -> None:
    """Build a corpus of LDraw parts; SOURCE holds the folders parts and p."""
    from pointzoo.data.builders import build_ldraw

    click.echo(build_ldraw(source, out, limit=limit))


@corpus.command()
@click.argument("python", type=click.Path(path_type=Path))
@path_option("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--rounds", default=40, show_default=True, help="Rounds over all factories.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@path_option("--work", help="Folder that keeps finished objects, so that a stopped build goes on.")
def infinigen(python: Path, out: Path, rounds: int, workers: int, work: Path | None) -> None:
    """Build a corpus of Infinigen objects; PYTHON is the interpreter with bpy and infinigen."""
    from pointzoo.data.builders import build_infinigen

    click.echo(build_infinigen(python, out, rounds=rounds, workers=workers, work=work))


@corpus.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@path_option("-o", "--out", required=True, help="Corpus folder to write.")
def sh3d(sources: tuple[Path, ...], out: Path) -> None:
    """Build SH3D-21; a SOURCE is a .sh3f or .jar file of Sweet Home 3D, or a folder with some."""
    from pointzoo.data.builders import build_sh3d

    click.echo(build_sh3d(sources, out))


@corpus.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@path_option("-o", "--out", required=True, help="Folder of rooms to write.")
@click.option("--train", default=300, show_default=True, help="Rooms of the training furniture.")
@click.option("--test", default=60, show_default=True, help="Rooms of furniture kept for testing.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other rooms.")
@click.option("--frames", default=0, show_default=True, help="RGB-D frames to keep of each room.")
def rooms(
    sources: tuple[Path, ...], out: Path, train: int, test: int, seed: int, frames: int
) -> None:
    """Compose and scan rooms; a SOURCE is a .sh3f file of furniture, or a folder with some."""
    from pointzoo.data.builders import build_rooms

    click.echo(build_rooms(sources, out, train=train, test=test, seed=seed, frames=frames))


@corpus.command()
@click.argument("python", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@path_option("-o", "--out", required=True, help="Folder of rooms to write.")
def morse(python: Path, source: Path, out: Path) -> None:
    """Scan the rooms of MORSE in SOURCE; PYTHON is an interpreter with the package bpy."""
    from pointzoo.data.builders import build_morse

    click.echo(build_morse(python, source, out))


@corpus.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@path_option("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--name", required=True, help="Name of the new corpus.")
def merge(corpora: tuple[Path, ...], out: Path, name: str) -> None:
    """Put several corpora into one."""
    from pointzoo.data.corpus import merge_corpora

    click.echo(merge_corpora(corpora, out, name))
