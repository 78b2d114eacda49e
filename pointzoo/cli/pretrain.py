"""Commands of the trainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pointzoo.cli.base import F, path_option

if TYPE_CHECKING:
    from pointzoo.pretrain.objective import TrainingConfig

ConfigT = TypeVar("ConfigT", bound="TrainingConfig")


@click.group()
def pretrain() -> None:
    """Pretrain an encoder without labels."""


def _training_options(encoder: str, presets: Sequence[str], config: str) -> Callable[[F], F]:
    """Add the options that all trainers have."""
    options = (
        path_option("--data", required=True, multiple=True, help="Data set; several are joined."),
        path_option("--out", required=True, help="Folder for checkpoint, log and weights."),
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
