"""Measure frozen features on a labelled folder: python linear_probe.py FOLDER [--encoder NAME].

FOLDER holds one folder of point clouds or meshes per class. A linear classifier and a nearest-
neighbour classifier are fitted to the scene features; the network is not changed. The same network
with random weights says what is due to its architecture alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pointzoo as pz
from pointzoo.data import open_dataset
from pointzoo.tasks.probe import probe


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="one folder per class")
    parser.add_argument("--encoder", default="vit3d_tiny.dcglr_shapes", help="a name or a folder")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--points", type=int, default=2048, help="points drawn from each cloud")
    options = parser.parse_args(arguments)

    dataset = open_dataset(options.folder)
    trained = pz.load_encoder(options.encoder)
    architecture = pz.encoder_info(options.encoder).architecture
    untrained = pz.create_encoder(architecture, **trained.config.to_dict())
    print(f"{len(dataset)} clouds in {len(dataset.class_names)} classes")
    for name, encoder in (("trained", trained), ("random weights", untrained)):
        results = probe(
            encoder,
            dataset,
            classifier=("svm", "knn"),
            folds=options.folds,
            seeds=(0,),
            points=options.points,
        )
        for result in results:
            low, high = result.interval
            accuracy = f"{result.mean:6.1%} ({low:.1%} to {high:.1%})"
            print(f"{name:15} {result.classifier:4} {accuracy}")


if __name__ == "__main__":
    main()
