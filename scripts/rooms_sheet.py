"""Draw rooms of a folder side by side, colours above classes, to look at what was built.

Usage: ``python scripts/rooms_sheet.py FOLDER PICTURE.png NAME...`` (of rooms). The ceiling and
the walls that stand between the viewer and the room are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointzoo.cloud import PointCloud
from pointzoo.data.rooms import read_rooms
from pointzoo.viz.render import render_image

SIZE = 240
VIEW = (35.0, 50.0)
_SHELL = (0, 7, 8, 10, 13)  # wall, door, window, picture, curtain
_GREY = 0.25


def main(folder: str, picture: str, *names: str) -> None:
    """Draw the rooms ``names`` of ``folder``."""
    data = read_rooms(Path(folder))
    tiles = [_tile(data[data.names.index(name)], len(data.class_names)) for name in names]
    sheet = Image.fromarray(np.concatenate(tiles, axis=1))
    sheet.quantize(128).save(picture, optimize=True)


def _tile(cloud: PointCloud, classes: int) -> NDArray[np.uint8]:
    """One room, colours above classes."""
    if cloud.normals is None or cloud.labels is None or cloud.colors is None:
        return np.full((2 * SIZE, SIZE, 3), 255, dtype=np.uint8)
    azimuth = np.radians(VIEW[0])
    towards = cloud.normals[:, 0] * np.cos(azimuth) + cloud.normals[:, 1] * np.sin(azimuth)
    hides = (towards < -0.25) & np.isin(cloud.labels, _SHELL)
    keep = (cloud.coords[:, 2] < min(2.0, float(np.ptp(cloud.coords[:, 2])) - 0.2)) & ~hides
    palette = np.full((classes + 1, 3), _GREY)
    hue = (np.arange(classes) * 0.618) % 1.0
    palette[:classes] = 0.55 + 0.4 * np.cos(2 * np.pi * (hue[:, None] - [0.0, 1 / 3, 2 / 3]))
    rows = np.flatnonzero(keep)
    images = [
        render_image(cloud.coords[rows], colors, view=VIEW, size=SIZE)
        for colors in (cloud.colors[rows], palette[cloud.labels[rows]])
    ]
    return np.concatenate(images, axis=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
