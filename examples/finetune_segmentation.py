"""Train on labelled rooms, then label a new one: python finetune_segmentation.py [FOLDER].

FOLDER holds train/ and perhaps val/ with clouds that have a class per point; without it small rooms
are made up. The model, its scores per class and its confusion matrix are written to ``OUT``,
``segmentation.png`` shows a room that it has not seen: its points on the left, their classes on the
right. ``pointzoo finetune`` and ``pointzoo predict`` do the same from a shell.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import toys

import pointzoo as pz
from pointzoo.viz import render_image, write_png


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="labelled clouds in train/ and val/")
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms", help="a name or a folder")
    parser.add_argument("--method", default="linear", help="linear, decoder, lora or full")
    parser.add_argument("--steps", type=int, default=40, help="of all but linear, which is fitted")
    parser.add_argument("--out", type=Path, default=Path("model"), help="folder of the model")
    options = parser.parse_args(arguments)

    data = options.folder or (toys.rooms("train", 8), toys.rooms("validation", 3))
    length = {} if options.method == "linear" else {"max_steps": options.steps}
    pz.finetune(
        options.encoder, data, task="segmentation", method=options.method, out=options.out, **length
    )
    model = pz.load_model(options.out)  # the same model, as any later program gets it
    print((options.out / "validation.txt").read_text())

    room = toys.rooms("new", 1)[0]
    found = model.predict(room)
    print(f"{len(found.labels):,} points, {100 * (found.labels == room.labels).mean():.1f} % right")
    colors = np.resize(toys.COLORS, (len(model.class_names), 3))[found.labels]
    pictures = [render_image(room.coords, c, size=480) for c in (np.asarray(room.colors), colors)]
    print("wrote", write_png(options.out / "segmentation.png", np.concatenate(pictures, axis=1)))


if __name__ == "__main__":
    main()
