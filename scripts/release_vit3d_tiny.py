"""Make weights_cards/vit3d_tiny.dcglr_shapes out of a finished run: weight, card and pictures.

    python scripts/release_vit3d_tiny.py RUN --trained-on CORPUS... --measured-on SH3D21 ...

RUN is the folder of `pointzoo pretrain dcglr`, with its weights and its log. The figures of the
card come from docs/results/sh3d21.json, so run benchmarks/sh3d_probe.py on the weights first. The
checksum that is printed belongs into pointzoo/zoo.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from release_card import CARDS, ROOT, author_list, hours, source

from pointzoo import viz
from pointzoo.cards import Card, DataSource, Metric
from pointzoo.data import open_dataset
from pointzoo.data.corpus import MANIFEST, read_manifest
from pointzoo.pretrain.checkpoint import read_facts
from pointzoo.pretrain.loop import CHECKPOINT
from pointzoo.tasks.evaluation import ProbeResult
from pointzoo.weights import MODEL_FILE, load_folder, sample_cloud, save_encoder

NAME = "vit3d_tiny.dcglr_shapes"
RESULTS = ROOT / "docs" / "results" / "sh3d21.json"
ATTENTION_CLASSES = ("chair", "table", "lamp", "bed", "cabinet")

SUMMARY = """A 3D-ViT of 1.9 M parameters that turns point clouds of single objects into
features, pretrained without labels by DCGLR (distillation with contrast over global and local
crops, arXiv 2202.04241) on procedural furniture and toy-brick parts. It reads coordinates only: no
colours, no normals."""

INTENDED_USE = """Features of single objects with the z axis up, of a few hundred to a few thousand
points, for retrieval, clustering, probing, few labels, or as a start for fine-tuning. It removes
position and scale."""

LIMITATIONS = """- It saw 192,000 clouds of 7,677 synthetic objects, in two hours on one CPU core.
  The paper's run is a hundred times longer. It shows the whole path and is a small default; train
  your own for serious work (`pointzoo pretrain dcglr`, which goes on from this weight with
  `--encoder vit3d_tiny.dcglr_shapes`).
- The same network with random weights is not far behind on SH3D-21, and hand-made descriptors are
  close: see the figures above.
- SH3D-21 is not untouched: five recipes were tried for a few minutes each, and the scale of the
  patches and the pooled scene feature were chosen, by looking at accuracies there. Its figures are
  flattering by an unknown amount.
- It knows objects, not scenes. It gives features for a room or a LiDAR scan, but one cloud is one
  unit sphere, and small things in a large scan share a token with their surroundings.
- Views in training were turned about z at random, but features still change with such a turn.
  Objects on their side and scans from one side were not in the training data.
- Colour and the size of the object are invisible to it."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("--trained-on", type=Path, nargs="+", required=True, help="corpora")
    parser.add_argument("--measured-on", type=Path, required=True, help="the SH3D-21 corpus")
    parser.add_argument("--commit", required=True, help="commit the run was made at")
    parser.add_argument("--command", required=True, help="command that made the run")
    parser.add_argument("--hardware", required=True)
    options = parser.parse_args()
    settings = read_facts(options.run / CHECKPOINT)["config"]
    target = CARDS / NAME
    card = Card(
        name=NAME,
        architecture="vit3d_tiny",
        summary=SUMMARY,
        license="apache-2.0",
        code_license="apache-2.0",
        sources=tuple(map(_source, options.trained_on)),
        command=options.command,
        seed=settings["seed"],
        commit=options.commit,
        hardware=options.hardware,
        hours=hours(options.run, settings["batch_size"]),
        results=_results(json.loads(RESULTS.read_text())),
        intended_use=INTENDED_USE,
        limitations=LIMITATIONS,
        notes=_notes(options.trained_on),
    )
    encoder = load_folder(options.run / "weights")
    save_encoder(encoder, target, architecture="vit3d_tiny", card=card)
    _pictures(options.run, options.measured_on, target)
    sys.stdout.write(f"{hashlib.sha256((target / MODEL_FILE).read_bytes()).hexdigest()}\n")


def _source(corpus: Path) -> DataSource:
    manifest = read_manifest(corpus)
    (licence,) = {record.licence for record in manifest.records}
    what = f"{manifest.header.name}: {len(manifest.records):,} shapes"
    authors = (record.author for record in manifest.records)
    return source(corpus / MANIFEST, what, manifest.header.command, authors, licence)


def _results(stored: dict[str, Any]) -> tuple[Metric, ...]:
    wanted = [
        ("weights", NAME, "svm", 2048, "none"), ("weights", NAME, "svm_tuned", 2048, "none"),
        ("weights", NAME, "knn", 2048, "none"), ("weights", NAME, "svm", 2048, "z"),
        ("weights", NAME, "svm", 1024, "none"), ("weights", NAME, "svm", 256, "none"),
        ("random", "random:vit3d_tiny", "svm", 2048, "none"),
        ("random", "random:vit3d_tiny", "knn", 2048, "none"),
        ("descriptors", "descriptor:all", "svm", 2048, "none"),
        ("supervised", "supervised:vit3d_tiny", "supervised", 2048, "none"),
    ]  # fmt: skip
    found = []
    for part, *key in wanted:
        section = stored["parts"].get(part, {"results": []})
        for row in map(ProbeResult.from_dict, section["results"]):
            if [row.subject, row.classifier, row.points, row.rotation] == key:
                low, high = (100 * value for value in row.interval)
                value = f"{100 * row.mean:.1f} % ({low:.1f} to {high:.1f})"
                turned = ", turned about z" if row.rotation == "z" else ""
                label = f"SH3D-21 accuracy, {row.subject}, {row.classifier}, {row.points} points"
                found.append(Metric(label + turned, value, section["command"]))
    return tuple(found)


def _notes(corpora: Sequence[Path]) -> str:
    names = author_list(
        record.author for corpus in corpora for record in read_manifest(corpus).records
    )
    return f"""## What it looks at

Attention of the class token, one row per shape, one column per head (shapes it never saw):

![attention of the class token](attention.png)

Eigenvalues of the covariance of the scene features on SH3D-21, beside the same network with random
weights:

![eigenvalue spectrum](spectrum.png)

Point features of the bundled sample, first three principal components as colours:

![principal components](components.png)

The run:

![training curves](training.png)

## To repeat it

The commands above build both corpora again, byte for byte, and train from the seed. The run was not
interrupted. Another processor, number of threads or version of PyTorch rounds otherwise, so that
the weights will not be equal, only as good.

## Authors of the training data

Number of shapes in brackets. {names}"""


def _pictures(run: Path, measured_on: Path, target: Path) -> None:
    encoder = load_folder(target)
    data = open_dataset(measured_on)
    labels = np.asarray(data.labels)
    rows = [int(np.flatnonzero(labels == data.class_names.index(c))[0]) for c in ATTENTION_CLASSES]
    clouds = {name: data[row] for name, row in zip(ATTENTION_CLASSES, rows, strict=True)}
    viz.attention_figure(encoder, clouds, target / "attention.png", size=120)
    parts = json.loads(RESULTS.read_text())["parts"]
    spectra = {"pretrained": parts["weights"]["spectrum"], "random": parts["random"]["spectrum"]}
    viz.spectrum_figure(spectra, target / "spectrum.png")
    sample = sample_cloud()
    colors = viz.pca_colors(encoder.extract(sample).point)
    viz.render_cloud(sample.coords, colors, target / "components.png", size=360)
    keys = ("loss", "teacher_entropy", "mean_target_entropy", "effective_rank", "knn_accuracy")
    viz.training_figure(run / "log.jsonl", target / "training.png", keys=keys)


if __name__ == "__main__":
    main()
