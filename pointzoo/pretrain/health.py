"""What is watched while a network trains."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from pointzoo import metrics
from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.features import extract


def measure_health(
    encoder: PointEncoder,
    data: PointDataset,
    *,
    clouds: int = 512,
    look_at: Callable[[PointCloud], PointCloud] | None = None,
) -> dict[str, float]:
    """Measure whether scene features are varied and whether neighbours share a class.

    Args:
        encoder: Put into evaluation mode meanwhile.
        data: The data set.
        clouds: Up to this many of its clouds, evenly spaced, are encoded.
        look_at: Gives the part of each that is encoded; None: all of it.

    Returns:
        ``feature_std`` (1 for isotropic features, 0 after a collapse), ``effective_rank``, and
        ``knn_accuracy`` (leave one out, k = 20, cosine) where there are labels.
    """
    rows = np.unique(np.linspace(0, len(data) - 1, clouds).round().astype(np.int64))
    shown = [data[int(row)] for row in rows]
    found = extract(encoder, shown if look_at is None else list(map(look_at, shown)))
    scenes = torch.from_numpy(np.stack([features.scene for features in found]))
    health = {
        "feature_std": metrics.feature_std(scenes),
        "effective_rank": metrics.effective_rank(scenes),
    }
    if data.labels is not None:
        labels = torch.from_numpy(np.asarray(data.labels)[rows])
        known = labels >= 0
        if int(known.sum()) > 1:
            health["knn_accuracy"] = metrics.knn_accuracy(scenes[known], labels[known])
    return health


def bfloat16_pays(size: int = 1024, repeats: int = 5) -> bool:
    """Measure whether bfloat16 matrix products are clearly faster than float32 here.

    Some CPUs emulate bfloat16 and are tens of times slower with it; some have units for it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            float((matrix @ matrix)[0, 0])  # reading a value waits for the device
            times.append(time.perf_counter() - started)
        return min(times)

    # by a quarter: products of this size are its weakest, and it halves all other traffic too
    return 1.25 * seconds(torch.bfloat16) < seconds(torch.float32)
