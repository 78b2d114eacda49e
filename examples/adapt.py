"""Go on pretraining on scans of your own, without labels: python adapt.py [FOLDER] [--steps N].

FOLDER holds scans; without it small rooms are made up. A linear head on the features, fitted before
and after, says whether it helped (here on made-up rooms; use labelled ones of yours). A few
steps only show how it is done: a real run takes an hour or more. ``OUT/weights`` is a weight
folder like any other, and ``--resume`` goes on after a break.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import toys

import pointzoo as pz


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="scans; their labels are not looked at")
    parser.add_argument("--encoder", default="sparseunet14.msc_rooms", help="a name or a folder")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("adapted"), help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from OUT")
    options = parser.parse_args(arguments)

    before = pz.load_encoder(options.encoder)
    after = pz.adapt(
        before,
        options.folder or toys.rooms("unlabelled", 8),
        options.out,
        steps=options.steps,
        resume=options.resume,
    )
    print(f"before: {probe(before):.1f} mIoU, after {options.steps} steps: {probe(after):.1f}")
    print(f"load it with pz.load_encoder({str(options.out / 'weights')!r})")


def probe(encoder: pz.PointEncoder) -> float:
    """Return the mean IoU, in percent, of a linear head on frozen features."""
    model = pz.finetune(encoder, (toys.rooms("train", 4), toys.rooms("validation", 3)))
    return 100 * float(model.scores["validation"]["values"]["miou"])


if __name__ == "__main__":
    main()
