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
        _require_matrices([self.coords], [self.features])
        _require_one_device([self.coords, self.features, self.offsets])
        rows, dtype = len(self.coords), self.offsets.dtype
        if self.offsets.ndim != 1 or dtype.is_floating_point or dtype == torch.bool:
            raise CloudError(
                expected="offsets (B,) of integers",
                got=f"shape {tuple(self.offsets.shape)} of {dtype}",
                fix="Offsets are cumulative row counts without a leading zero.",
            )
        if torch.compiler.is_compiling():  # a graph is recorded: there are no values to look at
            return
        counts = self.counts
        if len(counts) == 0 or bool((counts <= 0).any()) or int(self.offsets[-1]) != rows:
            raise CloudError(
                expected=f"offsets that cut {rows} rows into clouds of at least one point",
                got=f"{self.offsets.tolist()[:8]}",
                fix="Offsets are cumulative row counts without a leading zero.",
            )

    @classmethod
    def collate(
        cls, coords: Sequence[Tensor], features: Sequence[Tensor] | None = None
    ) -> PointBatch:
        """Put clouds one after the other.

        Args:
            coords: One (N_b, 3) tensor per cloud.
            features: One (N_b, C) tensor per cloud; None for no channels.

        Raises:
            CloudError: There is no cloud, one is empty, the shapes of a cloud do not fit, or the
                tensors live on different devices.
        """
        if not coords:
            raise CloudError(
                expected="at least one cloud", got="none", fix="Pass a non-empty list."
            )
        none = [c.new_zeros((*c.shape[:1], 0)) for c in coords]
        extra = none if features is None else list(features)
        _require_matrices(coords, extra)
        _require_one_device([*coords, *extra])
        flat = torch.cat(list(coords))
        sizes = torch.tensor([len(c) for c in coords], device=flat.device)
        return cls(flat, torch.cat(extra), sizes.cumsum(0))

    @classmethod
    def stack(cls, coords: Tensor, features: Tensor | None = None) -> PointBatch:
        """Build a batch from clouds of equal size.

        Args:
            coords: (B, P, 3).
            features: (B, P, C), or None for no channels.

        Raises:
            CloudError: Shapes do not fit, or there is no cloud or no point.
        """
        misfit = features is not None and features.shape[:-1] != coords.shape[:2]
        if coords.ndim != 3 or coords.shape[2] != 3 or misfit:
            got = "no features" if features is None else str(tuple(features.shape))
            raise CloudError(
                expected="coords (B, P, 3) and features (B, P, C)",
                got=f"{tuple(coords.shape)} and {got}",
                fix="Use PointBatch.collate for clouds of different sizes.",
            )
        clouds, points, _ = coords.shape
        flat = coords.reshape(clouds * points, 3)  # (B, P, 3) -> (N, 3)
        channels = 0 if features is None else features.shape[2]
        extra = (
            flat.new_zeros(len(flat), 0)
            if features is None
            else features.reshape(len(flat), channels)
        )
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
        return torch.split(values, self.counts.tolist())

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PointBatch:
        """Move to a device and / or convert the floating-point tensors."""
        return PointBatch(
            self.coords.to(device=device, dtype=dtype),
            self.features.to(device=device, dtype=dtype),
            self.offsets.to(device=device),
        )


def _require_matrices(coords: Sequence[Tensor], features: Sequence[Tensor]) -> None:
    """Refuse anything but floating-point (N_b, 3) and (N_b, C) with one C for all clouds."""
    shapes = [(tuple(c.shape), tuple(f.shape)) for c, f in zip(coords, features, strict=False)]
    fits = len(coords) == len(features) and all(
        len(c) == 2 and c[1] == 3 and len(f) == 2 and f == (c[0], shapes[0][1][1])
        for c, f in shapes
    )
    if not (fits and all(t.is_floating_point() for t in (*coords, *features))):
        kinds = sorted({str(t.dtype) for t in (*coords, *features)})
        raise CloudError(
            expected="floating-point coords (N, 3) and features (N, C), one of each per cloud",
            got=f"{len(coords)} and {len(features)} of {', '.join(kinds)}: {shapes[:4]}",
            fix="Build the batch from what encoder.preprocess returns.",
        )


def _require_one_device(tensors: Sequence[Tensor]) -> None:
    devices = sorted({str(t.device) for t in tensors})
    if len(devices) > 1:
        raise CloudError(
            expected="coords, features and offsets on one device",
            got=" and ".join(devices),
            fix="Move the whole batch with batch.to(device).",
        )
