"""A handful of labelled points of a room that no training saw: how well are the others classified?

    python benchmarks/rooms_few_shot.py ROOMS [--encoder NAME_OR_FOLDER] [--per-class 10]

The same head (:func:`pointzoo.few_shot`) on the encoder's features, on those of the same network
with random weights, and on colour, normal and height, for every test room and seed; and the same
number of labels again where the head asks for them, against as many at random.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pointzoo as pz
from pointzoo.batch import PointBatch
from pointzoo.data import open_dataset
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.finetuning.few_shot import FewShot
from pointzoo.metrics import confusion_matrix, mean_iou

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "rooms_few_shot.json"


class RawChannels(PointEncoder):
    """Colour, normal and height as they are, as an encoder."""

    config_class = EncoderConfig
    capabilities = Capabilities(tokens=False, class_attention=False)

    def __init__(self) -> None:
        config = EncoderConfig(channels=("colors", "normals"), normalize="center")
        super().__init__(config, out_channels=7, scene_channels=7)
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(
        self,
        batch: PointBatch,
        *,
        points: bool = True,
        geometry: Any = None,  # noqa: ARG002
    ) -> EncoderOutput:
        rows = torch.cat([batch.features, batch.coords[:, 2:]], dim=1) * self.one
        scene = torch.stack([part.mean(dim=0) for part in batch.split(rows)])
        return EncoderOutput(scene, rows if points else None)


def miou(head: FewShot, room: pz.PointCloud) -> float:
    confusion = confusion_matrix(
        torch.from_numpy(head.labels), torch.tensor(room.labels), len(head.class_names)
    )
    return mean_iou(confusion)


def more_labels(head: FewShot, room: pz.PointCloud, rows: Any) -> float:
    """Return the score after the labels of some rows are known too; unlabelled points stay out."""
    assert room.labels is not None
    known = rows[room.labels[rows] >= 0]
    return miou(head.add(known, room.labels[known]), room)


def measure(encoder: Any, room: pz.PointCloud, names: Any, per_class: int, seed: int) -> Any:
    assert room.labels is not None
    rng = np.random.default_rng(seed)
    present = np.unique(room.labels[room.labels >= 0])
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(room.labels == k))[:per_class] for k in present]
    )
    head = pz.few_shot(encoder, room, rows, room.labels[rows], classes=names)
    wrong = head.labels != room.labels
    others = np.setdiff1d(np.flatnonzero(room.labels >= 0), rows)
    count = len(rows)
    return {
        "miou": miou(head, room),
        "seconds": head.seconds,
        "uncertainty of wrong points": float(head.uncertainty[wrong].mean()),
        "uncertainty of right points": float(head.uncertainty[~wrong].mean()),
        "miou, as many asked for": more_labels(head, room, head.next_points(count)),
        "miou, as many at random": more_labels(head, room, rng.permutation(others)[:count]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", type=Path)
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--test-rooms", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    given = parser.parse_args()
    data = open_dataset(given.rooms, "test")
    architecture = pz.encoder_info(given.encoder).architecture
    chosen = np.linspace(0, len(data) - 1, given.test_rooms).astype(int).tolist()
    results: dict[str, Any] = {}
    for name in ("pretrained", "random", "colour, normal, height"):
        cells = []
        for row in chosen:
            room = data[row]
            for seed in range(given.seeds):
                encoder: Any = pz.load_encoder(given.encoder) if name == "pretrained" else None
                if name == "random":
                    encoder = pz.create_encoder(architecture, seed=seed)
                cells.append(
                    measure(encoder or RawChannels().eval(), room, data.class_names,
                            given.per_class, seed)
                )  # fmt: skip
        results[name] = {
            key: round(statistics.mean(cell[key] for cell in cells), 4) for key in cells[0]
        }
        print(name, results[name])
    settings = {key: str(value) for key, value in vars(given).items() if key != "out"}
    given.out.write_text(json.dumps({"settings": settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
