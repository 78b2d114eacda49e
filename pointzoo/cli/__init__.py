"""The command ``pointzoo``: parses words and calls the library, nothing else.

Imports of the library stand inside the commands, so that ``pointzoo --help`` is quick.
"""

from __future__ import annotations

import click

from pointzoo.cli import benchmark, corpus, data, encoders, export, finetune, hub, pretrain
from pointzoo.cli.base import Main


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointzoo")
def main() -> None:
    """Self-supervised, pretrained encoders for 3D point clouds, and their trainers."""


for _command in (
    encoders.features,
    encoders.inspect,
    encoders.doctor,
    encoders.list_,
    encoders.info,
    encoders.probe,
    encoders.convert,
    pretrain.pretrain,
    finetune.finetune,
    finetune.predict,
    corpus.corpus,
    data.data,
    benchmark.benchmark,
    export.export,
    hub.push,
    hub.cache,
    hub.card,
):
    main.add_command(_command)
