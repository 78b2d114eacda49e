"""Which clouds a step sees: a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset

Draw = tuple[int, int]
"""Epoch and row of one cloud."""


@dataclass(frozen=True)
class Plan(Sampler[list[Draw]]):
    """Batches of rows, shuffled anew in every epoch, cut between processes.

    Attributes:
        clouds: Rows of the data set.
        batch_size: Rows per step, over all processes.
        steps: The steps to make, counted from the beginning of the run.
        seed: Of the shuffling.
        rank: This process.
        processes: How many there are.
    """

    clouds: int
    batch_size: int
    steps: range
    seed: int
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield this process's share of each step's batch."""
        per_epoch = self.clouds // self.batch_size
        shuffled, order = -1, np.empty(0, np.int64)
        for step in self.steps:
            epoch, position = divmod(step, per_epoch)
            if epoch != shuffled:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.clouds)
                shuffled = epoch
            rows = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield [(epoch, int(row)) for row in rows[self.rank :: self.processes]]


class Samples(Dataset[Any]):
    """Clouds of a data set, each prepared with a generator of its own."""

    def __init__(
        self,
        prepare: Callable[[PointCloud, np.random.Generator], Any],
        data: PointDataset,
        seed: int,
    ) -> None:
        """Keep what is needed to make a sample."""
        self.prepare, self.data, self.seed = prepare, data, seed

    def __getitem__(self, draw: Draw) -> Any:
        """Return one sample."""
        generator = np.random.default_rng([self.seed, *draw])
        return self.prepare(self.data[draw[1]], generator)


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Return the generator of one step in one process."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
