"""Go on pretraining on clouds of one's own: python continue_pretraining.py FOLDER [--steps N].

No labels are needed. The new weights lie in ``OUT/weights`` and are loaded like any other. A few
steps show that it works; a real run takes hours (``pointzoo pretrain dcglr`` has every setting,
``--resume`` goes on after a break).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pointzoo as pz
from pointzoo.data import open_dataset
from pointzoo.pretrain import dcglr


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="point clouds or meshes, in folders or not")
    parser.add_argument("--encoder", default="vit3d_tiny.dcglr_shapes", help="a name or a folder")
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8, help="clouds per step")
    parser.add_argument("--points", type=int, default=1024, help="points drawn from each cloud")
    options = parser.parse_args(arguments)

    config = dataclasses.replace(
        dcglr.PRESETS["cpu"],
        max_steps=options.steps,
        batch_size=options.batch,
        points=options.points,
        log_steps=1,
    )
    encoder = pz.load_encoder(options.encoder)
    result = dcglr.run(config, open_dataset(options.folder), options.out, encoder=encoder)
    print(f"{result.steps} steps in {result.seconds:.0f} s")

    weights = options.out / "weights"
    again = pz.load_encoder(weights)
    print(f"loaded {weights}: {again.scene_channels} channels for a cloud")


if __name__ == "__main__":
    main()
