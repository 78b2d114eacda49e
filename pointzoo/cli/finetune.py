"""Commands that train models with labels and use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pointzoo.cli.base import path_option


@click.command()
@click.argument("encoder")
@click.argument("data", type=click.Path(path_type=Path))
@path_option("-o", "--out", required=True, help="Folder for the model, its checkpoint and log.")
@click.option("--task", default="segmentation", show_default=True,
              help="segmentation, classification, part or instance.")  # fmt: skip
@click.option("--method", help="linear, decoder, lora or full; linear unless a preset says more.")
@click.option("--preset", help="Settings of a paper: msc, msc_efficient, dgcnn ...")
@click.option("--max-steps", type=int, help="Steps of the optimiser.")
@click.option("--epochs", type=int, help="Passes over the training clouds.")
@click.option("--batch-size", type=int, help="Clouds per step.")
@click.option("--learning-rate", type=float, help="Largest rate.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT.")
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Any setting of FinetuneConfig or of the task.")  # fmt: skip
def finetune(
    encoder: str, data: Path, out: Path, settings: tuple[str, ...], **options: Any
) -> None:
    """Train a model on the labelled clouds in DATA, starting from ENCODER.

    ENCODER is a pretrained name, a weight folder, or an architecture for random weights. DATA holds
    train/ and perhaps val/, with labelled clouds (segmentation, part, instance) or a folder per
    class (classification); any data set that pointzoo reads will do. Without val/ a fifth of the
    training clouds is held out. A part named test is never touched.

    OUT is a model that `pointzoo predict` and pointzoo.load_model take.
    """
    import sys

    from pointzoo.finetuning.api import VALIDATION
    from pointzoo.finetuning.api import finetune as run
    from pointzoo.settings import parse_settings

    named = ("max_steps", "epochs", "batch_size", "learning_rate")
    given = {key: options.pop(key) for key in named}
    given = {key: value for key, value in given.items() if value is not None}
    shown = sys.stderr.isatty()
    model = run(encoder, data, out=out, progress=shown, **options, **given,
                **parse_settings(settings))  # fmt: skip
    table = out / f"{VALIDATION}.txt"
    if VALIDATION in model.scores and table.is_file():
        click.echo(table.read_text(encoding="utf-8"), nl=False)
    click.echo(out)


@click.command()
@click.argument("model")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@path_option("-o", "--out", required=True, help="File to write; a folder for several.")
@click.option("--votes", default=1, show_default=True,
              help="Turned and mirrored views that are averaged.")  # fmt: skip
@path_option("--picture", help="PNG in the colours of the classes; a folder for several.")
@path_option("--encoder", help="Weight folder of the encoder, if it was moved.")
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
def predict(
    model: str, files: tuple[Path, ...], out: Path, votes: int, picture: Path | None,
    encoder: Path | None, device: str,
) -> None:  # fmt: skip
    """Write FILE with what MODEL, a folder or hf-hub:owner/repo, says about each of its points.

    Every field of FILE is kept. Labels become the predicted ones (classification in LAS), the old
    ones stay as input_label, and confidence is added.
    """
    import sys

    from pointzoo.finetuning.files import plan_outputs, predict_files
    from pointzoo.finetuning.model import load_model

    plan_outputs(files, out)
    ready = load_model(model, encoder=encoder, device=device)
    shown = sys.stderr.isatty()
    for written in predict_files(ready, files, out, votes=votes, picture=picture, progress=shown):
        click.echo(written)
    click.echo(", ".join(f"{k} {name}" for k, name in enumerate(ready.class_names)))
