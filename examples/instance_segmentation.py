"""Train PointGroup to find objects: python instance_segmentation.py [--encoder NAME].

Makes small rooms with balls, boxes and posts on a floor, trains an instance segmentation model on
them from pretrained weights, and draws a room it has not seen as ``instances.png``: the objects as
they are on the left, as the model finds them on the right.

For rooms of your own pass a folder instead of ``toys.rooms``: clouds with a class per point, and a
field ``instance`` that numbers the objects of a cloud.
"""

from __future__ import annotations

import argparse
import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import toys

import pointzoo as pz
from pointzoo.cloud import FloatArray, IntArray
from pointzoo.viz import render_image, write_png


def color(instances: IntArray) -> FloatArray:
    """Return a colour for every object, and grey for none."""
    hues = [colorsys.hsv_to_rgb(0.618 * k % 1.0, 0.7, 0.9) for k in range(instances.max() + 1)]
    colors: FloatArray = np.array([(0.8, 0.8, 0.8), *hues])[instances + 1]
    return colors


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms", help="a name or a folder")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(arguments)

    train, validation = toys.rooms("train", 16), toys.rooms("validation", 4)
    model = pz.finetune(
        options.encoder,
        (train, validation),
        task="instance",
        method="full",
        max_steps=options.steps,
        validate_steps=options.steps,
        radius=0.1,  # neighbouring points of these rooms are up to 6 cm apart
    )
    print(model.evaluate(validation).table())

    room = toys.rooms("test", 1)[0]
    found = model.predict(room)
    print(f"{len(np.unique(room.fields['instance'])) - 1} objects, {len(found.scores)} found:")
    for number, (kind, score) in enumerate(zip(found.classes, found.scores, strict=True)):
        points = int((found.instances == number).sum())
        print(f"  {toys.CLASSES[kind]:5} {points:5} points, score {score:.2f}")

    truth, guess = (
        render_image(room.coords, color(instances), size=480)
        for instances in (np.asarray(room.fields["instance"]), found.instances)
    )
    options.out.mkdir(parents=True, exist_ok=True)
    picture = write_png(options.out / "instances.png", np.concatenate([truth, guess], axis=1))
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
