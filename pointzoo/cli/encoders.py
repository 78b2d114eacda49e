"""Commands that use encoders: features, the zoo, this machine, probes, conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointzoo.cli.base import echo_table, path_option

DEFAULT_ENCODER = "vit3d_tiny.dcglr_shapes"


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@path_option(
    "-o", "--out", required=True, help="File ending in .npz, .npy or .ply; a folder for several."
)
@click.option(
    "--encoder", default=DEFAULT_ENCODER, show_default=True, help="Name or weight folder."
)
@click.option("--pca", is_flag=True, help="Also write OUT.pca.ply and OUT.pca.png.")
@click.option("--half", is_flag=True, help="Write features in float16: half the size.")
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
def features(
    files: tuple[Path, ...], out: Path, encoder: str, pca: bool, half: bool, device: str
) -> None:
    """Compute features of every point of FILE.

    The .npz holds point (N, C) in the order of the file, scene (D,), coords (N, 3), tokens (T, C)
    and token_coords (T, 3); .npy holds point alone; .ply the file's own fields and feature_0 ...
    With --pca, colours are the first three principal components of the features.

    An encoder that works on voxels computes a large scan in tiles, in bounded memory, and writes it
    a part at a time (.npy or .npz). If the run is killed, the same command goes on.
    """
    import sys

    from pointzoo.export import export_features, plan_targets
    from pointzoo.zoo import load_encoder

    plan_targets(files, out)
    network = load_encoder(encoder, device=device)
    for written in export_features(
        network,
        files,
        out,
        pca=pca,
        half=half,
        progress=sys.stderr.isatty(),
        report=lambda line: click.echo(line, err=True),
    ):
        click.echo(written)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Say what FILE holds and what looks wrong with it."""
    from pointzoo.inspection import inspect as inspect_file

    click.echo(inspect_file(file))


@click.command()
@click.option("--benchmark/--no-benchmark", default=True, show_default=True,
              help="Measure how fast this machine computes.")  # fmt: skip
def doctor(benchmark: bool) -> None:
    """Say what this installation uses, and why not more."""
    from pointzoo.doctor import examine, render

    click.echo(render(examine(benchmark=benchmark)))


@click.command(name="list")
@click.argument("pattern", default="*")
@click.option("--pretrained/--untrained", default=None, help="With or without trained weights.")
@click.option("--commercial", is_flag=True, help="Only where all licences allow commercial use.")
@click.option("--runs-here", is_flag=True, help="Only what runs on this machine as it is.")
def list_(pattern: str, pretrained: bool | None, commercial: bool, runs_here: bool) -> None:
    """List the encoders whose names match PATTERN."""
    from pointzoo.zoo import encoder_info, list_encoders

    names = list_encoders(
        pattern,
        pretrained=pretrained,
        commercial=commercial or None,
        runs_here=runs_here or None,
    )
    rows = [("name", "parameters", "reads", "licence of the weights", "about")]
    for info in map(encoder_info, names):
        reads = " ".join(channel.name for channel in info.channels)
        licence = info.card.license if info.card else "-"
        rows.append((info.name, f"{info.parameters / 1e6:.1f} M", reads, licence, info.description))
    echo_table(rows)


@click.command()
@click.argument("name")
def info(name: str) -> None:
    """Describe the encoder NAME, or the weight folder NAME."""
    from pointzoo.zoo import encoder_info

    found = encoder_info(name)
    channels = (
        f"{c.name}{'' if c.required else f' (optional, else {c.fill:g})'}" for c in found.channels
    )
    rows = [
        ("name", found.name),
        ("architecture", f"{found.architecture}: {found.description}"),
        ("parameters", f"{found.parameters:,}"),
        ("reads", ", ".join(channels)),
        ("point features", f"{found.out_channels} channels"),
        ("scene feature", f"{found.scene_channels} channels"),
        (
            "points",
            "any number"
            if found.max_points is None
            else f"any number; above {found.max_points:,} subsampled and interpolated back",
        ),
        ("pretrained", f"yes, {found.folder}" if found.pretrained else "no"),
        ("sha256", found.sha256 or "-"),
    ]
    if (card := found.card) is not None:
        rows += [
            ("licences", f"code {card.code_license}, weights {card.license}, "
                         f"data {', '.join(card.data_licenses)}"),
            ("commercial use", "yes" if card.commercial else "no"),
            ("trained on", "; ".join(source.name for source in card.sources)),
            ("by", f"{card.command} (seed {card.seed}, commit {card.commit})"),
            ("on", f"{card.hardware}, {card.hours:g} hours"),
            *((result.name, f"{result.value} ({result.command})") for result in card.results),
        ]  # fmt: skip
    echo_table(rows)


@click.command()
@click.argument("subjects", metavar="SUBJECT...", nargs=-1, required=True)
@path_option("--data", required=True, help="Data set with labels.")
@path_option("--test", help="Test set, if it is apart; else cross-validation.")
@click.option("--classifier", "classifiers", multiple=True, default=("svm", "knn"),
              show_default=True, help="svm, knn, logistic ...; may be repeated.")  # fmt: skip
@click.option("--folds", default=5, show_default=True, help="Parts of the cross-validation.")
@click.option(
    "--seeds", default=3, show_default=True, help="How often with other folds and points."
)
@click.option("--points", multiple=True, type=int, default=(2048,), show_default=True,
              help="Points drawn from each cloud; may be repeated.")  # fmt: skip
@click.option("--rotation", "rotations", multiple=True, default=("none",), show_default=True,
              help="none or z; may be repeated.")  # fmt: skip
@path_option("--out", help="JSON file for all results.")
def probe(
    subjects: tuple[str, ...],
    data: Path,
    test: Path | None,
    classifiers: tuple[str, ...],
    folds: int,
    seeds: int,
    points: tuple[int, ...],
    rotations: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure how well simple classifiers do on frozen features.

    A SUBJECT is a pretrained name, a weight folder, random:ARCHITECTURE or descriptor:NAME.
    """
    from pointzoo.tasks.probe import run_probe

    results = run_probe(
        subjects,
        data,
        classifiers=classifiers,
        test=test,
        folds=folds,
        seeds=tuple(range(seeds)),
        points=points,
        rotations=rotations,
        output=out,
    )
    for result in results:
        click.echo(result.summary())


@click.group()
def convert() -> None:
    """Turn checkpoints of other code bases into weight folders."""


@convert.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@path_option("-o", "--out", required=True, help="Weight folder to write.")
@click.option("--color-range", default="-1..1", show_default=True,
              type=click.Choice(["-1..1", "0..1"]), help="Of the colours in training.")  # fmt: skip
@click.option("--channels", metavar="NAMES",
              help="What the inputs are, such as colors,normals, or none.")  # fmt: skip
@click.option("--grid-size", default=0.02, show_default=True, help="Of the voxels, metres.")
@click.option("--stem-layout", type=click.Choice(["krsc", "native"]),
              help="Of a stem of width 5, whose shape does not tell.")  # fmt: skip
@click.option("--license", default="unknown", show_default=True, help="Of the weights.")
@click.option("--half", is_flag=True, help="Store half precision.")
def pointcept(checkpoint: Path, out: Path, channels: str | None, **options: Any) -> None:
    """Convert a SpUNet-v1m1 of Pointcept: .pth or .safetensors, with or without heads.

    Widths, depths and the number of inputs are read off the tensors. 3 inputs are taken as colours
    and 6 as colours and normals unless --channels says otherwise. Heads are dropped.
    """
    from pointzoo.convert import convert_pointcept

    names = None
    if channels is not None:
        names = [] if channels == "none" else [name.strip() for name in channels.split(",")]
    click.echo(convert_pointcept(checkpoint, out, channels=names, **options).summary())
