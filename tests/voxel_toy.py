"""A small network with a bounded receptive field, for tests of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from pointzoo import features
from pointzoo.cloud import FloatArray, PointCloud


class Toy(nn.Module):
    """Sums over neighbouring voxels, then over neighbouring cells of 4 x 4 x 4 voxels."""

    out_channels = 5
    stride = 4
    receptive_field = 1 + 4 + 3 + 1
    grid_size = 0.1
    capabilities = SimpleNamespace(tiles=True)
    config = SimpleNamespace(normalize="center", point_features="nearest")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 5)
        self.passes: list[int] = []

    def point_channels(self, cloud: PointCloud) -> FloatArray:
        colors = cloud.colors
        return np.full((len(cloud), 3), 0.5, np.float32) if colors is None else colors

    def forward_voxels(self, coords: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        assert offsets.tolist() == [len(coords)]
        self.passes.append(len(coords))
        fine = self.first(_spread(coords, values)).tanh()
        cells, index = torch.unique(coords // 4, dim=0, return_inverse=True)
        sums = fine.new_zeros(len(cells), 5).index_add(0, index, fine)
        coarse = self.second(_spread(cells, sums)).tanh()
        return _spread(coords, fine + coarse[index])

    def extract(self, source: Any) -> features.Features:
        return features.extract(self, source)


def _spread(coords: Tensor, values: Tensor) -> Tensor:
    tree = cKDTree(coords.numpy())
    pairs = tree.sparse_distance_matrix(tree, 1.5, p=np.inf, output_type="coo_matrix")
    return torch.zeros_like(values).index_add(0, torch.tensor(pairs.row), values[pairs.col])


def make_toy() -> Toy:
    """Return one in float64, so that differences are faults, not rounding."""
    torch.manual_seed(0)
    return Toy().eval().double()


@dataclass(frozen=True)
class Wall:
    """A bent, coloured wall with a floor, points in random order, at projected coordinates."""

    points: int = 6000
    far: tuple[float, float, float] = (4.0e5, 5.4e6, 120.0)

    def cloud(self) -> PointCloud:
        """Draw the points."""
        rng = np.random.default_rng(self.points)
        u, v = rng.uniform(0, 12, self.points), rng.uniform(0, 3, self.points)
        wall = np.stack([u, np.sin(u), v], axis=1)
        floor = np.stack([u, 2 * v, 0.05 * np.sin(7 * u)], axis=1)
        coords = np.where(rng.random((self.points, 1)) < 0.5, wall, floor) + self.far
        return PointCloud(
            coords,
            colors=rng.integers(0, 256, (self.points, 3), np.uint8),
            labels=np.arange(self.points),
            fields={"quality": rng.random(self.points).astype(np.float32)},
        )
