"""Make weights_cards/NAME.dcglr_shapes out of a finished run: weight, card and pictures.

    python scripts/release_dcglr.py RUN --trained-on CORPUS... --measured-on SH3D21 ...

RUN is the folder of `pointzoo pretrain dcglr`, with its weights and its log; its architecture gives
the name. The figures of the card come from docs/results: sh3d21.json (benchmarks/sh3d_probe.py),
sh3d_points.json (`pointzoo probe ... --out`) and sh3d_finetune.json (benchmarks/sh3d_finetune.py),
so measure the weights first. The checksum that is printed belongs into pointzoo/zoo.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from release_card import CARDS, RESULTS, author_list, hours, metrics, source, stored_results

import figures  # isort: skip  # release_card says where it lies
from pointzoo import viz
from pointzoo.cards import Card, DataSource, Metric
from pointzoo.data import open_dataset
from pointzoo.data.corpus import MANIFEST, read_manifest
from pointzoo.encoders.base import PointEncoder
from pointzoo.pretrain.checkpoint import read_facts
from pointzoo.pretrain.loop import CHECKPOINT
from pointzoo.tasks.evaluation import ProbeResult
from pointzoo.weights import MODEL_FILE, load_folder, read_config, sample_cloud, save_encoder

CORPUS = "dcglr_shapes"
SHOWN = ("svm", "svm_tuned", "knn", "supervised")
ATTENTION_CLASSES = ("chair", "table", "lamp", "bed", "cabinet")
KINDS = {
    "vit3d_tiny": "A 3D-ViT of 1.9 M parameters",
    "dgcnn_small": "A DGCNN (arXiv 1801.07829) of half the usual width",
    "pct_small": "A point cloud transformer (PCT, arXiv 2012.09688) of half the usual width",
}

SUMMARY = """{kind} that turns point clouds of single objects into
features, pretrained without labels by DCGLR (distillation with contrast over global and local
crops, arXiv 2202.04241) on procedural furniture and toy-brick parts. It reads coordinates only: no
colours, no normals."""

INTENDED_USE = """Features of single objects with the z axis up, of a few hundred to a few thousand
points, for retrieval, clustering, probing, few labels, or as a start for fine-tuning. It removes
position and scale."""

LIMITATIONS = """- It saw {clouds:,} clouds of {shapes:,} synthetic objects, in {hours} hours on
  one CPU core. The paper's run is {times:,} times longer. It shows the whole path and is a small
  default; train your own for serious work (`pointzoo pretrain dcglr`, which goes on from this
  weight with `--encoder {name}`).
{more}- It knows objects, not scenes. It gives features for a room or a LiDAR scan, but one cloud is
  one unit sphere, and small things in a large scan look like their surroundings.
- Views in training were turned about z at random, but features still change with such a turn.
  Objects on their side and scans from one side were not in the training data.
- Colour and the size of the object are invisible to it."""

CHOSEN_ON_SH3D = """- The same network with random weights is not far behind on SH3D-21, and
  hand-made descriptors are close: see the figures above.
- SH3D-21 is not untouched: five recipes were tried for a few minutes each,
  and the scale of the patches and the pooled scene feature were chosen, by looking at accuracies
  there. Its figures are flattering by an unknown amount.
"""
ATTENTION = """Attention of the class token, one row per shape, one column per head (shapes it never
saw):

![attention of the class token](attention.png)

Eigenvalues of the covariance of the scene features on SH3D-21, beside the same network with random
weights:

![eigenvalue spectrum](spectrum.png)

"""
DENSITY = """- Look at the figures above before you use it: those of the same network without
  pretraining stand beside them. Go by those of kNN and of the SVM whose constant was tuned: the
  plain SVM fails on random weights because their features are small, not because they are worse.
- Neighbourhoods are a fixed number of points: features change with the number of
  points of a cloud (in training {points} of each). Nothing was chosen by looking at SH3D-21.
"""
PAPER_CLOUDS = 57_448 * 300
"""Clouds that the paper's run sees: ShapeNet, epochs as in POS-BERT."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("--trained-on", type=Path, nargs="+", required=True, help="corpora")
    parser.add_argument("--measured-on", type=Path, required=True, help="the SH3D-21 corpus")
    parser.add_argument("--commit", required=True, help="commit the run was made at")
    parser.add_argument("--command", required=True, help="command that made the run")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--remark", default="The run was not interrupted.", help="how it went")
    options = parser.parse_args()
    facts = read_facts(options.run / CHECKPOINT)
    settings = facts["config"]
    encoder = load_folder(options.run / "weights")
    architecture = read_config(options.run / "weights")["architecture"]
    name = f"{architecture}.{CORPUS}"
    spent = hours(options.run, settings["batch_size"])
    clouds = facts["step"] * settings["batch_size"]
    shapes = sum(len(read_manifest(corpus).records) for corpus in options.trained_on)
    more = CHOSEN_ON_SH3D if architecture == "vit3d_tiny" else DENSITY.format(**settings)
    card = Card(
        name=name,
        architecture=architecture,
        summary=SUMMARY.format(kind=KINDS[architecture]),
        license="apache-2.0",
        code_license="apache-2.0",
        sources=tuple(map(_source, options.trained_on)),
        command=options.command,
        seed=settings["seed"],
        commit=options.commit,
        hardware=options.hardware,
        hours=spent,
        results=_results(name, architecture),
        intended_use=INTENDED_USE,
        limitations=LIMITATIONS.format(
            name=name, clouds=clouds, shapes=shapes, hours=spent, more=more,
            times=round(PAPER_CLOUDS // clouds, -1),
        ),
        notes=_notes(
            options.trained_on, options.remark, attention=encoder.capabilities.class_attention
        ),
    )  # fmt: skip
    target = CARDS / name
    save_encoder(encoder, target, architecture=architecture, card=card)
    _pictures(options.run, options.measured_on, target)
    sys.stdout.write(f"{hashlib.sha256((target / MODEL_FILE).read_bytes()).hexdigest()}\n")


def _source(corpus: Path) -> DataSource:
    manifest = read_manifest(corpus)
    (licence,) = {record.licence for record in manifest.records}
    what = f"{manifest.header.name}: {len(manifest.records):,} shapes"
    authors = (record.author for record in manifest.records)
    return source(corpus / MANIFEST, what, manifest.header.command, authors, licence)


def _results(name: str, architecture: str) -> tuple[Metric, ...]:
    """Return what the files say about the weight and the same network with random weights."""
    found = []
    for row, command in _probed():
        subjects = (name, f"random:{architecture}", f"supervised:{architecture}")
        own = row.subject in subjects and row.classifier in SHOWN
        best = (row.subject, row.classifier, row.rotation) == ("descriptor:all", "svm", "none")
        if own or (best and row.points == 2048):
            found.append(Metric(*row.metric("SH3D-21"), command))
    trained = stored_results("sh3d_finetune.json")
    found += metrics(figures.sh3d_finetune(trained, name), trained.get("command", ""))
    return tuple(found)


def _probed() -> list[tuple[ProbeResult, str]]:
    """Return every row of the probes, with the command that gave it."""
    rows = []
    for part in json.loads((RESULTS / "sh3d21.json").read_text())["parts"].values():
        rows += [(ProbeResult.from_dict(row), part["command"]) for row in part["results"]]
    probed = stored_results("sh3d_points.json")
    rows += [(ProbeResult.from_dict(row), probed["command"]) for row in probed.get("results", ())]
    return rows


def _notes(corpora: Sequence[Path], remark: str, *, attention: bool) -> str:
    names = author_list(
        record.author for corpus in corpora for record in read_manifest(corpus).records
    )
    return f"""## What it looks at

{ATTENTION if attention else ""}Point features of the bundled sample, first three principal
components as colours:

![principal components](components.png)

The run:

![training curves](training.png)

## To repeat it

The commands above build both corpora again, byte for byte, and train from the seed. {remark}
Another processor, number of threads or version of PyTorch rounds otherwise, so that the weights
will not be equal, only as good.

## Authors of the training data

Number of shapes in brackets. {names}"""


def _pictures(run: Path, measured_on: Path, target: Path) -> None:
    encoder = load_folder(target)
    if encoder.capabilities.class_attention:
        _attention(encoder, measured_on, target)
    sample = sample_cloud()
    colors = viz.pca_colors(encoder.extract(sample).point)
    viz.render_cloud(sample.coords, colors, target / "components.png", size=360)
    keys = ("loss", "teacher_entropy", "mean_target_entropy", "effective_rank", "knn_accuracy")
    viz.training_figure(run / "log.jsonl", target / "training.png", keys=keys)


def _attention(encoder: PointEncoder, measured_on: Path, target: Path) -> None:
    data = open_dataset(measured_on)
    labels = np.asarray(data.labels)
    rows = [int(np.flatnonzero(labels == data.class_names.index(c))[0]) for c in ATTENTION_CLASSES]
    clouds = {name: data[row] for name, row in zip(ATTENTION_CLASSES, rows, strict=True)}
    viz.attention_figure(encoder, clouds, target / "attention.png", size=120)
    parts = json.loads((RESULTS / "sh3d21.json").read_text())["parts"]
    spectra = {"pretrained": parts["weights"]["spectrum"], "random": parts["random"]["spectrum"]}
    viz.spectrum_figure(spectra, target / "spectrum.png")


if __name__ == "__main__":
    main()
