"""The command that takes an encoder out of Python."""

from __future__ import annotations

from pathlib import Path

import click

from pointzoo.cli.base import path_option


@click.command()
@click.argument("name")
@path_option("-o", "--out", required=True, help="File to write, ending in .onnx.")
def export(name: str, out: Path) -> None:
    """Write the encoder NAME as an ONNX file, compared with it on ten clouds.

    NAME is a pretrained name, a weight folder, hf-hub:OWNER/REPO@REVISION, or an architecture,
    which gets random weights.
    """
    from pointzoo.onnx_export import export_onnx

    file = export_onnx(name, out)
    click.echo(
        f"{file.path}: {file.size / 1e6:.1f} MB, at most {file.agreement.difference:.1e} from "
        f"PyTorch on {len(file.agreement.sizes)} clouds"
    )
