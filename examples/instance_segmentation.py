"""Train PointGroup to find objects: python instance_segmentation.py [--encoder NAME].

Makes small rooms with balls, boxes and posts on a floor, trains an instance segmentation model on
them from pretrained weights, and draws a room it has not seen as ``instances.png``: the objects as
they are on the left, as the model finds them on the right.

For rooms of your own pass a folder instead of ``Rooms``: clouds with a class per point, and a field
``instance`` that numbers the objects of a cloud.
"""

from __future__ import annotations

import argparse
import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pointzoo as pz
from pointzoo.cloud import FloatArray, IntArray
from pointzoo.viz import render_image, write_png

CLASSES = ("floor", "ball", "box", "post")
COLORS = np.array([[0.6, 0.55, 0.5], [0.8, 0.3, 0.2], [0.2, 0.4, 0.8], [0.3, 0.6, 0.3]])


@dataclass(frozen=True)
class Rooms:
    """Rooms made of random numbers; anything with these attributes is a data set."""

    name: str
    names: tuple[str, ...]
    class_names: tuple[str, ...] = CLASSES
    labels: None = None  # rooms have no class, their points have

    def __len__(self) -> int:
        """Return the number of rooms."""
        return len(self.names)

    def __getitem__(self, index: int) -> pz.PointCloud:
        """Make a room, always the same for the same name."""
        return make_room(np.random.default_rng([*self.names[index].encode()]))


def rooms(name: str, count: int) -> Rooms:
    return Rooms(name, tuple(f"{name} {number}" for number in range(count)))


def make_room(rng: np.random.Generator) -> pz.PointCloud:
    """Return a floor of 3 m with five to eight objects."""
    coords = [rng.uniform(-1.5, 1.5, (5000, 3)) * (1, 1, 0)]
    labels, instances = [0] * 5000, [-1] * 5000
    places = [(x, y, 0.0) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    for number, place in enumerate(rng.permutation(places)[: rng.integers(5, 9)]):
        kind = int(rng.integers(1, len(CLASSES)))
        coords.append(make_object(kind, rng) + place + rng.uniform(-0.15, 0.15, 3) * (1, 1, 0))
        labels += [kind] * 600
        instances += [number] * 600
    tint = rng.normal(0, 0.05, (len(labels), 3))
    return pz.PointCloud(
        np.concatenate(coords),
        colors=np.clip(COLORS[labels] + tint, 0, 1),
        labels=np.array(labels),
        fields={"instance": np.array(instances)},
    )


def make_object(kind: int, rng: np.random.Generator) -> FloatArray:
    """Return 600 points on a ball, a box or a post that stands on the floor."""
    size = rng.uniform(0.2, 0.35)
    points = rng.normal(size=(600, 3))
    if kind == 3:
        points[:, :2] *= 0.1 / np.linalg.norm(points[:, :2], axis=1, keepdims=True)
        points[:, 2] = rng.uniform(0, 4 * size, 600)
    else:
        order = 2 if kind == 1 else np.inf
        points *= size / np.linalg.norm(points, ord=order, axis=1, keepdims=True)
        points[:, 2] += size
    return points


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

    train, validation = rooms("train", 16), rooms("validation", 4)
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

    room = rooms("test", 1)[0]
    found = model.predict(room)
    print(f"{len(np.unique(room.fields['instance'])) - 1} objects, {len(found.scores)} found:")
    for number, (kind, score) in enumerate(zip(found.classes, found.scores, strict=True)):
        points = int((found.instances == number).sum())
        print(f"  {CLASSES[kind]:5} {points:5} points, score {score:.2f}")

    truth, guess = (
        render_image(room.coords, color(instances), size=480)
        for instances in (np.asarray(room.fields["instance"]), found.instances)
    )
    options.out.mkdir(parents=True, exist_ok=True)
    picture = write_png(options.out / "instances.png", np.concatenate([truth, guess], axis=1))
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
