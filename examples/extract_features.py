"""Compute features of a scan and draw them: python extract_features.py [SCAN] [--encoder NAME].

Writes ``features.npz`` (what the network says about every point) and ``features.png`` (the same
points coloured by the first three principal components, so that alike points look alike).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pointzoo as pz
from pointzoo.viz import pca_colors, render_cloud

SCAN = Path(__file__).parent / "data" / "autzen_trees.laz"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", nargs="?", default=SCAN, help="any point cloud file")
    parser.add_argument("--encoder", default="vit3d_tiny.dcglr_shapes", help="a name or a folder")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results")
    options = parser.parse_args(arguments)

    encoder = pz.load_encoder(options.encoder)
    scan = pz.read(options.scan)
    features = encoder.extract(scan)

    print(f"{len(scan):,} points, {features.point.shape[1]} channels each")
    print(f"one vector for the whole cloud: {features.scene.shape}")
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez(options.out / "features.npz", point=features.point, scene=features.scene)
    picture = render_cloud(scan.coords, pca_colors(features.point), options.out / "features.png")
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
