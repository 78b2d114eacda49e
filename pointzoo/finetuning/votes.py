"""Views of a cloud whose predictions are averaged: test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pointzoo import transforms
from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError

MOST = 64
"""Views at most."""


def views(cloud: PointCloud, votes: int) -> Iterator[PointCloud]:
    """Yield the cloud itself and then turned about z by equal angles, every other one mirrored.

    Points keep their order; normals turn along. No random number is drawn.

    Args:
        cloud: At least one point.
        votes: How many views.

    Raises:
        ConfigError: ``votes`` is out of range.
    """
    if not 1 <= votes <= MOST:
        raise ConfigError(
            expected=f"from 1 to {MOST} votes", got=str(votes), fix="8 is usually enough."
        )
    yield cloud
    for number in range(1, votes):
        turned = transforms.rotate_z(cloud, 2.0 * math.pi * number / votes)
        yield _mirrored(turned) if number % 2 else turned


def _mirrored(cloud: PointCloud) -> PointCloud:
    across = np.array([-1.0, 1.0, 1.0])
    normals = None if cloud.normals is None else cloud.normals * across.astype(np.float32)
    return cloud.replace(coords=cloud.coords * across, normals=normals)
