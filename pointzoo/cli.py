"""The command ``pointzoo``: parses words and calls the library, nothing else.

Imports of the library stand inside the commands, so that ``pointzoo --help`` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pointzoo.errors import PointzooError

if TYPE_CHECKING:
    from pointzoo.pretrain.objective import TrainingConfig

DEFAULT_ENCODER = "vit3d_tiny.dcglr_shapes"
F = TypeVar("F", bound=Callable[..., Any])
ConfigT = TypeVar("ConfigT", bound="TrainingConfig")


class _Failure(click.ClickException):
    """An error of the caller: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message on one line."""
        click.echo(f"Error: {' '.join(self.format_message().split())}", err=True, file=file)


class _Main(click.Group):
    """Turns the errors that pointzoo raises on purpose, and those of files, into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (PointzooError, OSError) as error:
            raise _Failure(str(error)) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointzoo")
def main() -> None:
    """Self-supervised, pretrained encoders for 3D point clouds, and their trainers."""


def _path(*names: str, help: str, required: bool = False, **options: Any) -> Callable[[F], F]:
    kind = click.Path(path_type=Path)
    return click.option(*names, type=kind, required=required, help=help, **options)


@main.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_path(
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


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Say what FILE holds and what looks wrong with it."""
    from pointzoo.inspection import inspect as inspect_file

    click.echo(inspect_file(file))


@main.command()
@click.option("--benchmark/--no-benchmark", default=True, show_default=True,
              help="Measure how fast this machine computes.")  # fmt: skip
def doctor(benchmark: bool) -> None:
    """Say what this installation uses, and why not more."""
    from pointzoo.doctor import examine, render

    click.echo(render(examine(benchmark=benchmark)))


@main.command(name="list")
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
    _echo_table(rows)


@main.command()
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
    _echo_table(rows)


@main.group()
def convert() -> None:
    """Turn checkpoints of other code bases into weight folders."""


@convert.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_path("-o", "--out", required=True, help="Weight folder to write.")
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


@main.group()
def pretrain() -> None:
    """Pretrain an encoder without labels."""


def _training_options(encoder: str, presets: Sequence[str], config: str) -> Callable[[F], F]:
    """Add the options that all trainers have."""
    options = (
        _path("--data", required=True, multiple=True, help="Data set; several are joined."),
        _path("--out", required=True, help="Folder for checkpoint, log and weights."),
        click.option("--encoder", default=encoder, show_default=True,
                     help="Architecture, or a pretrained name or folder to go on from."),
        click.option("--preset", default="paper", show_default=True, type=click.Choice(presets)),
        click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT."),
        click.option("--seed", type=int, help="Of everything random."),
        click.option("--epochs", type=int, help="Passes over the data."),
        click.option("--max-steps", type=int, help="Stop after this many steps."),
        click.option("--batch-size", type=int, help="Clouds per step."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                     help=f"Any setting of {config}; a dot reaches inside."),
    )  # fmt: skip

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _configured(
    preset: ConfigT, given: Mapping[str, int | None], settings: tuple[str, ...]
) -> ConfigT:
    from pointzoo.settings import override, parse_settings

    changes = {key: value for key, value in given.items() if value is not None}
    return override(preset, {**changes, **parse_settings(settings)})


def _echo_run(result: Any) -> None:
    state = "finished" if result.finished else "stopped; --resume goes on"
    click.echo(f"{result.weights}  (step {result.steps}, {state})")


@pretrain.command()
@_training_options("vit3d_tiny", ["paper", "cpu"], "DCGLRConfig")
def dcglr(
    data: tuple[Path, ...],
    out: Path,
    encoder: str,
    preset: str,
    resume: bool,
    settings: tuple[str, ...],
    **given: int | None,
) -> None:
    """Pretrain with DCGLR: distillation with contrast over global and local crops.

    OUT/weights is a weight folder at any time; load it with pointzoo.load_encoder.
    """
    from pointzoo import zoo
    from pointzoo.data import open_dataset
    from pointzoo.data.joined import join_datasets
    from pointzoo.pretrain.dcglr import PRESETS, run

    config = _configured(PRESETS[preset], given, settings)
    dataset = join_datasets([open_dataset(path) for path in data])
    network = zoo.start_encoder(encoder, seed=config.seed)
    _echo_run(run(config, dataset, out, encoder=network, resume=resume))


@pretrain.command()
@_training_options("sparseunet14", ["paper", "pointcept", "cpu"], "MSCConfig")
@click.option("--split", default="train", show_default=True,
              help="Part of data sets that have parts; all for everything.")  # fmt: skip
def msc(
    data: tuple[Path, ...],
    out: Path,
    encoder: str,
    preset: str,
    resume: bool,
    settings: tuple[str, ...],
    split: str,
    **given: int | None,
) -> None:
    """Pretrain with Masked Scene Contrast: contrast and reconstruction of masked scenes.

    A new ENCODER gets the voxels of the views (--set views.grid_size=0.05, metres). OUT/weights is
    a weight folder at any time; load it with pointzoo.load_encoder.
    """
    from pointzoo import zoo
    from pointzoo.pretrain.msc import PRESETS, run
    from pointzoo.pretrain.sources import open_training

    config = _configured(PRESETS[preset], given, settings)
    dataset = open_training(data, split)
    network = zoo.start_encoder(encoder, seed=config.seed, grid_size=config.views.grid_size)
    _echo_run(run(config, dataset, out, encoder=network, resume=resume))


@pretrain.command()
@_training_options("sparseunet14", ["paper", "cpu"], "PointContrastConfig")
@click.option("--split", default="train", show_default=True,
              help="Part of the rooms; all for everything.")  # fmt: skip
def pointcontrast(
    data: tuple[Path, ...],
    out: Path,
    encoder: str,
    preset: str,
    resume: bool,
    settings: tuple[str, ...],
    split: str,
    **given: int | None,
) -> None:
    """Pretrain with PointContrast on overlapping RGB-D frames of rooms, the baseline of MSC.

    DATA is a folder of rooms with frames (corpus rooms --frames). OUT/weights is a weight folder at
    any time; load it with pointzoo.load_encoder.
    """
    from pointzoo import zoo
    from pointzoo.pretrain.frame_pairs import open_frame_pairs
    from pointzoo.pretrain.pointcontrast import PRESETS, run

    config = _configured(PRESETS[preset], given, settings)
    dataset = open_frame_pairs(data, split)
    network = zoo.start_encoder(encoder, seed=config.seed, grid_size=config.views.grid_size)
    _echo_run(run(config, dataset, out, encoder=network, resume=resume))


@main.command()
@click.argument("subjects", metavar="SUBJECT...", nargs=-1, required=True)
@_path("--data", required=True, help="Data set with labels.")
@_path("--test", help="Test set, if it is apart; else cross-validation.")
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
@_path("--out", help="JSON file for all results.")
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


@main.group()
def corpus() -> None:
    """Build the corpora that the bundled weights are trained and measured on."""


@corpus.command()
@click.argument("source", type=click.Path(path_type=Path))
@_path("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--limit", type=int, help="Stop after this many parts.")
def ldraw(source: Path, out: Path, limit: int | None) -> None:
    """Build a corpus of LDraw parts; SOURCE holds the folders parts and p."""
    from pointzoo.data.builders import build_ldraw

    click.echo(build_ldraw(source, out, limit=limit))


@corpus.command()
@click.argument("python", type=click.Path(path_type=Path))
@_path("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--rounds", default=40, show_default=True, help="Rounds over all factories.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@_path("--work", help="Folder that keeps finished objects, so that a stopped build goes on.")
def infinigen(python: Path, out: Path, rounds: int, workers: int, work: Path | None) -> None:
    """Build a corpus of Infinigen objects; PYTHON is the interpreter with bpy and infinigen."""
    from pointzoo.data.builders import build_infinigen

    click.echo(build_infinigen(python, out, rounds=rounds, workers=workers, work=work))


@corpus.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@_path("-o", "--out", required=True, help="Corpus folder to write.")
def sh3d(sources: tuple[Path, ...], out: Path) -> None:
    """Build SH3D-21; a SOURCE is a .sh3f or .jar file of Sweet Home 3D, or a folder with some."""
    from pointzoo.data.builders import build_sh3d

    click.echo(build_sh3d(sources, out))


@corpus.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@_path("-o", "--out", required=True, help="Folder of rooms to write.")
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
@_path("-o", "--out", required=True, help="Folder of rooms to write.")
def morse(python: Path, source: Path, out: Path) -> None:
    """Scan the rooms of MORSE in SOURCE; PYTHON is an interpreter with the package bpy."""
    from pointzoo.data.builders import build_morse

    click.echo(build_morse(python, source, out))


@corpus.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@_path("-o", "--out", required=True, help="Corpus folder to write.")
@click.option("--name", required=True, help="Name of the new corpus.")
def merge(corpora: tuple[Path, ...], out: Path, name: str) -> None:
    """Put several corpora into one."""
    from pointzoo.data.corpus import merge_corpora

    click.echo(merge_corpora(corpora, out, name))


def _echo_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they must be."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
