"""Which clouds a step sees: a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.base import PointDataset

Draw = tuple[int, int]
"""Epoch and row of one cloud."""


def epoch_order(lengths: Sequence[int], shares: Sequence[float], seed: int, epoch: int) -> IntArray:
    """Return the rows of one epoch, shuffled; as many as there are rows in all.

    Args:
        lengths: Rows of each part of the data set; the parts lie one after the other.
        shares: Relative share of the epoch that each part supplies; empty: by length. A part with
            a smaller quota than rows gives another random choice in every epoch, one with a larger
            quota is gone through several times.
        seed: Of the shuffling.
        epoch: Number of the epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    total = sum(lengths)
    if not shares:
        return generator.permutation(total)
    ends = np.round(np.cumsum(shares) / np.sum(shares) * total).astype(np.int64)
    quotas = np.diff(ends, prepend=0)
    starts = np.cumsum([0, *lengths[:-1]])
    rows = []
    for start, length, quota in zip(starts, lengths, quotas, strict=True):
        rounds = -(-int(quota) // length)
        drawn = [generator.permutation(length) for _ in range(rounds)]
        rows.append(start + np.concatenate([np.empty(0, np.int64), *drawn])[:quota])
    return generator.permutation(np.concatenate(rows))


@dataclass(frozen=True)
class Plan(Sampler[list[Draw]]):
    """Batches of rows, shuffled anew in every epoch, cut between processes.

    Attributes:
        lengths: Rows of each part of the data set.
        shares: See :func:`epoch_order`.
        batch_size: Rows per step, over all processes.
        steps: The steps to make, counted from the beginning of the run.
        seed: Of the shuffling.
        rank: This process.
        processes: How many there are.
    """

    lengths: tuple[int, ...]
    shares: tuple[float, ...]
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
        per_epoch = sum(self.lengths) // self.batch_size
        shuffled = -1
        order: IntArray = np.empty(0, np.int64)
        for step in self.steps:
            epoch, position = divmod(step, per_epoch)
            if epoch != shuffled:
                order = epoch_order(self.lengths, self.shares, self.seed, epoch)
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
