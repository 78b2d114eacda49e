"""Train on objects in folders named by class: python finetune_classification.py [FOLDER].

FOLDER holds a folder per class, or train/ and val/ with those inside; without it balls, boxes and
posts are written to ``OUT/objects`` first. The model is written to ``OUT/model``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import toys

import pointzoo as pz


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder per class")
    parser.add_argument("--encoder", default="vit3d_tiny.dcglr_shapes", help="a name or a folder")
    parser.add_argument("--method", default="linear", help="linear, lora or full")
    parser.add_argument("--out", type=Path, default=Path("objects_run"), help="folder to write")
    options = parser.parse_args(arguments)

    folder = options.folder or write_objects(options.out / "objects")
    model = pz.finetune(
        options.encoder, folder, task="classification", method=options.method,
        out=options.out / "model",
    )  # fmt: skip
    print(pz.load_model(options.out / "model").evaluate(folder).table())
    some = min(folder.rglob("*.ply"))
    found = model.predict(some)
    likely = found.probabilities[found.label]
    print(f"{some.relative_to(folder)}: {model.class_names[found.label]} ({likely:.2f})")


def write_objects(folder: Path) -> Path:
    """Write twelve objects of each class to train/ and four to val/."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for kind, name in enumerate(toys.CLASSES[1:], start=1):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                cloud = pz.PointCloud(toys.make_object(kind, rng))
                pz.write(folder / part / name / f"{number}.ply", cloud)
    return folder


if __name__ == "__main__":
    main()
