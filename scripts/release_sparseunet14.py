"""Make weights_cards/sparseunet14.msc_rooms out of a finished run: weight, card and pictures.

    python scripts/release_sparseunet14.py RUN --rooms ROOMS --commit ... --command ...

RUN is the folder of `pointzoo pretrain msc`. The figures of the card come from docs/results:
rooms.json, rooms_methods.json and rooms_instances.json, so run the benchmarks of these names
(rooms.json: rooms_labels.py) on the weights first. The checksum that is printed belongs into
pointzoo/zoo.py.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from release_card import CARDS, author_list, hours, metrics, source, stored_results

import figures  # isort: skip  # release_card says where it lies
from pointzoo import viz
from pointzoo.cards import Card, DataSource, Metric
from pointzoo.cloud import PointCloud
from pointzoo.data import PointDataset, open_dataset
from pointzoo.data.rooms import MANIFEST, RoomsManifest, read_rooms_manifest
from pointzoo.pretrain.checkpoint import load_checkpoint, read_facts
from pointzoo.pretrain.loop import CHECKPOINT
from pointzoo.pretrain.msc import MSC, MSCConfig
from pointzoo.pretrain.scene_views import SceneAugmentation
from pointzoo.weights import MODEL_FILE, load_folder, save_encoder
from pointzoo.zoo import create_encoder

NAME = "sparseunet14.msc_rooms"
SHOWN = 3
"""Rooms in a picture: the first of the test rooms, none of them chosen."""
CUT = 2.1
"""Metres above the floor from which a picture of a room leaves everything out."""

SUMMARY = """A SparseUNet with 14 convolutional layers that gives every point of a coloured indoor
scan a feature, pretrained without labels by Masked Scene Contrast (arXiv 2303.14191) on rooms that
were composed of free furniture models and scanned by a simulated camera. It reads colours and
normals in voxels of 5 cm; either may be missing."""

INTENDED_USE = """Point features of indoor scans in metres, z up, for few labels, linear probes,
clustering, or as a start for fine-tuning on a segmentation of your own."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("--rooms", type=Path, required=True, help="the corpus of rooms")
    parser.add_argument("--commit", required=True, help="commit the run was made at")
    parser.add_argument("--command", required=True, help="command that made the run")
    parser.add_argument("--hardware", required=True)
    options = parser.parse_args()
    facts = read_facts(options.run / CHECKPOINT)
    config = facts["config"]
    manifest = read_rooms_manifest(options.rooms)
    card = Card(
        name=NAME,
        architecture="sparseunet14",
        summary=SUMMARY,
        license="apache-2.0",
        code_license="apache-2.0",
        sources=_sources(options.rooms, manifest),
        command=options.command,
        seed=config["seed"],
        commit=options.commit,
        hardware=options.hardware,
        hours=hours(options.run, config["batch_size"]),
        results=_results(),
        metrics=("mean_iou",),
        intended_use=INTENDED_USE,
        limitations=_limitations(manifest, facts["step"] * config["batch_size"]),
        notes=_notes(manifest),
    )
    target = CARDS / NAME
    encoder = load_folder(options.run / "weights")
    save_encoder(encoder, target, architecture="sparseunet14", card=card)
    _pictures(options.run, open_dataset(options.rooms, "test"), target)
    sys.stdout.write(f"{hashlib.sha256((target / MODEL_FILE).read_bytes()).hexdigest()}\n")


def _trained_on(manifest: RoomsManifest) -> dict[str, str]:
    """Return author of each model that stands in a room of the training split."""
    used = {name for room in manifest.rooms if room.split == "train" for name in room.models}
    return {model.name: model.author for model in manifest.models if model.name in used}


def _sources(rooms: Path, manifest: RoomsManifest) -> tuple[DataSource, ...]:
    """Return one source per licence of the models."""
    authors = _trained_on(manifest)
    groups = defaultdict(list)
    for model in manifest.models:
        if model.name in authors:
            # the Hub knows no names for the licences of single countries
            groups[model.licence.removesuffix("-US")].append(model.author)
    return tuple(
        source(
            rooms / MANIFEST,
            f"{manifest.header.name}: {len(names)} models of furniture",
            manifest.header.command,
            names,
            licence,
        )
        for licence, names in sorted(groups.items())
    )


def _results() -> tuple[Metric, ...]:
    """Return what the benchmarks on rooms found."""
    found: tuple[Metric, ...] = ()
    for file, named in {
        "rooms.json": lambda stored: figures.rooms_labels(stored, NAME),
        "rooms_methods.json": figures.rooms_methods,
        "rooms_instances.json": figures.rooms_instances,
    }.items():
        stored = stored_results(file)
        found += metrics(named(stored), stored.get("command", ""))
    return found


def _limitations(manifest: RoomsManifest, scenes: int) -> str:
    rooms = sum(room.split == "train" for room in manifest.rooms)
    return f"""- It is a small network after a short run. A linear layer on its features tells
  classes apart much better than one on random features, and is still wrong about most small or rare
  things.
- How it is fine-tuned matters. `pz.finetune` (a head fitted first, the encoder at a tenth of the
  rate; heads read all levels) gains over random weights above, most where few points are labelled;
  240 steps do not train random weights to their end. The plain training of
  benchmarks/rooms_labels.py (one rate, a random head) gained nothing on the one seed that has both.
- It saw {scenes:,} crops of {rooms} composed rooms. The paper's run saw a million of
  real ones. Train your own for serious work (`pointzoo pretrain msc`, which goes on from this
  weight with `--encoder {NAME}`).
- The rooms are composed and their scan is simulated. How far its features carry over to real scans
  was not measured. The test rooms come from the same program, with furniture it never saw. On the
  five MORSE rooms, which others composed, it gains less: "on morse" above gives what fine-tuning
  makes of all rooms or of few labelled points, and a linear layer gains about half as much. With
  15 labelled rooms nothing sure is left there, and one run of `pointzoo benchmark morse-transfer`
  (one seed, 240 steps) did better from scratch: 23.8 against 20.0 mIoU.
- It knows rooms of a few metres with furniture, in metres, with z up and the colours and normals of
  a scan. Outdoor scenes, large halls, single objects and aerial scans were not in its data.
- Voxels of 5 cm: what is smaller shares a feature with its surroundings.
- Its figures are for classes of the furniture that it was trained on, by other models of them."""


def _notes(manifest: RoomsManifest) -> str:
    return f"""## What it learnt

Rooms it never saw: as scanned, with hidden patches (black), and the hidden patches as it fills
them in (the paper's Fig. 5):

![hidden patches and their reconstruction](reconstruction.png)

Point features of the same rooms, first three principal components as colours, beside those of the
same network with random weights:

![principal components](components.png)

The first three components still say mostly how high a point lies on a wall, the shortcut which
geometry offers to contrast within a scene. Armchairs stand out; most of what tells furniture apart
lies in further components, as the linear probe says.

The run:

![training curves](training.png)

## To repeat it

The command under "Trained on" builds the rooms again, byte for byte. Another processor, number of
threads or version of PyTorch rounds otherwise, so that the weights will not be equal, only as good.

## Authors of the furniture

Number of models in brackets. {author_list(_trained_on(manifest).values())}"""


def _pictures(run: Path, rooms: PointDataset, target: Path) -> None:
    objective = _objective(run)
    shown = {rooms.names[row]: _open_box(rooms[row]) for row in range(SHOWN)}
    hidden = {}
    for name, room in shown.items():
        found = objective.reconstruct(room, torch.Generator().manual_seed(0))
        masked = np.where(found.mask[:, None], 0.0, found.colors)
        columns = {"scan": found.colors, "hidden": masked, "reconstructed": found.predicted}
        hidden[name] = {title: (found.coords, colors) for title, colors in columns.items()}
    viz.clouds_figure(hidden, target / "reconstruction.png", view=(-60.0, 50.0), size=230)
    encoder = load_folder(target)
    torch.manual_seed(0)
    random = create_encoder("sparseunet14", **encoder.config.to_dict())
    features = {}
    for name, room in shown.items():
        columns = {"scan": np.asarray(room.colors)}
        for title, network in (("pretrained", encoder), ("random weights", random)):
            columns[title] = viz.pca_colors(network.extract(room).point)
        features[name] = {title: (room.coords, colors) for title, colors in columns.items()}
    viz.clouds_figure(features, target / "components.png", view=(-60.0, 50.0), size=230)
    keys = (
        *("contrast_loss", "color_loss", "normal_loss", "positive_cosine", "negative_cosine"),
        *("point_rank", "effective_rank", "lr"),
    )
    viz.training_figure(run / "log.jsonl", target / "training.png", keys=keys)


def _objective(run: Path) -> MSC:
    """Return network, token and heads as the run left them."""
    settings = read_facts(run / CHECKPOINT)["config"]
    weight = settings["normal_weight"]
    views = SceneAugmentation(grid_size=settings["views"]["grid_size"])
    config = MSCConfig(
        views=views, mask_rate=settings["mask_rate"], mask_size=settings["mask_size"],
        normal_weight=weight,
    )  # fmt: skip
    objective = MSC(load_folder(run / "weights"), config)
    load_checkpoint(run / CHECKPOINT, objective, objective.optimizer())
    return objective


def _open_box(room: PointCloud) -> PointCloud:
    """Leave out the upper part of a room, so that one can look in."""
    return room.select(room.coords[:, 2] < room.coords[:, 2].min() + CUT)


if __name__ == "__main__":
    main()
