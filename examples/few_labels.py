"""Label a handful of points of one scan, get all others: python few_labels.py [--per-class N].

The scan is a piece of airborne LiDAR: trees at the edge of a meadow. Five points of each are taken
as if somebody had clicked on them; what lies more than 10 feet above the meadow is a tree, which
tells how well the head does. Then the points that ``next_points`` asks for are labelled, too.
``few_labels.png`` shows the predicted classes on the left and how doubtful they are on the right
(yellow: very).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pointzoo as pz
from pointzoo.viz import render_image, write_png

SCAN = Path(__file__).parent / "data" / "autzen_trees.laz"
NAMES = ("meadow", "tree")
COLORS = np.array([[0.7, 0.55, 0.35], [0.35, 0.6, 0.3]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="vit3d_tiny.dcglr_shapes", help="a name or a folder")
    parser.add_argument("--per-class", type=int, default=5, help="labelled points of each class")
    parser.add_argument("--more", type=int, default=5, help="points to ask for afterwards")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(arguments)

    scan = pz.read(SCAN)
    truth = (scan.coords[:, 2] > 430).astype(int)  # the meadow lies at 420 feet
    rng = np.random.default_rng(0)
    clicked = np.concatenate(
        [rng.permutation(np.flatnonzero(truth == k))[: options.per_class] for k in (0, 1)]
    )
    head = pz.few_shot(options.encoder, scan, clicked, truth[clicked], classes=NAMES)
    print(f"{len(clicked)} labels, fitted in {1000 * head.seconds:.0f} ms:", score(head, truth))

    asked = head.next_points(options.more)
    better = head.add(asked, truth[asked])
    print(f"{len(clicked) + len(asked)} labels:", score(better, truth))

    doubt = better.uncertainty[:, None]
    doubtful = np.array([[0.2, 0.2, 0.3]]) * (1 - doubt) + np.array([[1.0, 0.9, 0.2]]) * doubt
    pictures = [
        render_image(scan.coords, colors, size=480) for colors in (COLORS[better.labels], doubtful)
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    print("wrote", write_png(options.out / "few_labels.png", np.concatenate(pictures, axis=1)))


def score(head: pz.FewShot, truth: np.ndarray) -> str:
    """Return how many points of each class are right."""
    right = [100 * (head.labels[truth == k] == k).mean() for k in (0, 1)]
    return ", ".join(f"{value:.1f} % of {name}" for value, name in zip(right, NAMES, strict=True))


if __name__ == "__main__":
    main()
