"""Several point clouds as flat tensors with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pointzoo.errors import CloudError


@dataclass(frozen=True, eq=False)
class PointBatch:
    """B clouds of any sizes, N points in all, stored one after the other.

    Attributes:
        coords: (N, 3) floating point, in the frame that the encoder's preprocessing produced.
        features: (N, C) optional channels after the coordinates (colours, normals), C may be 0.
        offsets: (B,) int64, cumulative row counts: cloud b is rows ``offsets[b - 1]:offsets[b]``.

    Raises:
        CloudError: Shapes do not fit, a cloud is empty, or the tensors live on different devices.
    """

    coords: Tensor
    features: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        """Check the shapes; values are checked where clouds come in."""
        rows = len(self.coords)
        if self.coords.shape != (rows, 3) or self.features.shape[:1] != (rows,):
            raise CloudError(
                expected="coords (N, 3) and features (N, C)",
                got=f"{tuple(self.coords.shape)} and {tuple(self.features.shape)}",
                fix="Build the batch with PointBatch.collate.",
            )
        if len({self.coords.device, self.features.device, self.offsets.device}) > 1:
            raise CloudError(
                expected="coords, features and offsets on one device",
                got=f"{self.coords.device}, {self.features.device}, {self.offsets.device}",
                fix="Move the whole batch with batch.to(device).",
            )
        counts = self.counts
        if len(counts) == 0 or bool((counts <= 0).any()) or int(self.offsets[-1]) != rows:
            raise CloudError(
                expected=f"offsets that cut {rows} rows into clouds of at least one point",
                got=f"{self.offsets.tolist()[:8]}",
                fix="Offsets are cumulative row counts without a leading zero.",
            )

    @classmethod
    def collate(cls, coords: Sequence[Tensor], features: Sequence[Tensor] | None = None) -> PointBatch:
        """Put clouds one after the other.

        Args:
            coords: One (N_b, 3) tensor per cloud.
            features: One (N_b, C) tensor per cloud; None for no channels.

        Raises:
            CloudError: There is no cloud, or one is empty.
        """
        if not coords:
            raise CloudError(expected="at least one cloud", got="none", fix="Pass a non-empty list.")
        flat = torch.cat(list(coords))
        extra = flat.new_zeros(len(flat), 0) if features is None else torch.cat(list(features))
        sizes = torch.tensor([len(c) for c in coords], device=flat.device)
        return cls(flat, extra, sizes.cumsum(0))

    @classmethod
    def stack(cls, coords: Tensor, features: Tensor | None = None) -> PointBatch:
        """Build a batch from clouds of equal size.

        Args:
            coords: (B, P, 3).
            features: (B, P, C), or None for no channels.
        """
        clouds, points, _ = coords.shape
        flat = coords.reshape(clouds * points, 3)  # (B, P, 3) -> (N, 3)
        channels = 0 if features is None else features.shape[2]
        extra = flat.new_zeros(len(flat), 0) if features is None else features.reshape(-1, channels)
        offsets = torch.arange(1, clouds + 1, device=coords.device) * points
        return cls(flat, extra, offsets)

    @property
    def num_clouds(self) -> int:
        """B, the number of clouds."""
        return len(self.offsets)

    @property
    def counts(self) -> Tensor:
        """(B,) points per cloud."""
        return torch.diff(self.offsets, prepend=self.offsets.new_zeros(1))

    @property
    def batch_index(self) -> Tensor:
        """(N,) the cloud that each point belongs to."""
        clouds = torch.arange(self.num_clouds, device=self.offsets.device)
        return torch.repeat_interleave(clouds, self.counts)

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Cut rows that belong to the points (N, ...) into one tensor per cloud."""
        return values.split(self.counts.tolist())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PointBatch:
        """Move to a device and / or convert the floating-point tensors."""
        return PointBatch(
            self.coords.to(device=device, dtype=dtype),
            self.features.to(device=device, dtype=dtype),
            self.offsets.to(device=device),
        )
