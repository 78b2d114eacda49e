"""Views of object point clouds for DCGLR: crops, half-resolution clouds and augmentations.

Everything works on whole batches of clouds of equal size, on any device, and draws all random
numbers from the generator that is passed in. Views of scenes (MSC) are made in
:mod:`pointzoo.pretrain.scene_views`; their masks and pairs are offered here too.

Shape legend: B clouds, P points per cloud, C channels after the coordinates, V views, T points per
view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.pretrain.masks import cross_masks
from pointzoo.pretrain.matching import match_points

__all__ = [
    "Augmentation",
    "ObjectClouds",
    "Rotation",
    "ball_crops",
    "crop_counts",
    "cross_masks",
    "half_resolution",
    "jitter",
    "match_points",
    "neighbour_groups",
    "rescale",
    "rotate_z",
    "shift",
    "uniform",
]

Rotation = Literal["none", "shared", "independent"]


@dataclass(frozen=True, eq=False)
class ObjectClouds:
    """B clouds of P points each, with their channels.

    Attributes:
        coords: (B, P, 3).
        features: (B, P, C); C may be 0.
    """

    coords: Tensor
    features: Tensor

    def batch(self) -> PointBatch:
        """Return the same clouds as a flat batch."""
        return PointBatch.stack(self.coords, self.features)

    def views(self, count: int) -> ObjectClouds:
        """Repeat the clouds once per view, view by view: (V B, P, ...)."""
        return ObjectClouds(self.coords.repeat(count, 1, 1), self.features.repeat(count, 1, 1))

    def to(self, device: torch.device) -> ObjectClouds:
        """Move to a device."""
        return ObjectClouds(self.coords.to(device), self.features.to(device))

    def take(self, index: Tensor) -> ObjectClouds:
        """Pick points; index (B, T)."""
        return ObjectClouds(_rows(self.coords, index), _rows(self.features, index))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a view; defaults as in POS-BERT (same first author, @ d922651).

    Attributes:
        jitter_sigma: Standard deviation of the noise on every coordinate.
        jitter_clip: Largest noise.
        scale: Each axis is multiplied by a factor drawn from this range.
        shift: Each axis is moved by up to this much.
        half_shift: The same for half-resolution clouds, which are not scaled.
        rotation: About z: ``none``; ``shared``, one angle for all views of a cloud, which shows all
            orientations without asking for invariance; ``independent``, one angle per view.
    """

    jitter_sigma: float = 0.01
    jitter_clip: float = 0.05
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    shift: float = 0.2
    half_shift: float = 1.0
    rotation: Rotation = "none"


def uniform(
    shape: Sequence[int], low: float, high: float, like: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw uniformly from low..high, with the type and device of ``like``."""
    draws = torch.rand(
        tuple(shape), generator=generator, dtype=torch.float32, device=generator.device
    )
    return (low + (high - low) * draws).to(like)


def jitter(clouds: ObjectClouds, change: Augmentation, generator: torch.Generator) -> ObjectClouds:
    """Add clipped Gaussian noise to the coordinates."""
    shape = clouds.coords.shape
    noise = torch.randn(shape, generator=generator, device=generator.device).to(clouds.coords)
    noise = (noise * change.jitter_sigma).clamp(-change.jitter_clip, change.jitter_clip)
    return ObjectClouds(clouds.coords + noise, clouds.features)


def crop_counts(
    points: int, ratio: tuple[float, float], shape: int, generator: torch.Generator
) -> Tensor:
    """Draw how many points each crop keeps: ceil(r P), r uniform in ``ratio`` (Eq. 4 and 5)."""
    low, high = ratio
    draws = torch.rand(shape, generator=generator, device=generator.device)
    counts = (points * (low + (high - low) * draws)).ceil().long()
    return counts.clamp(1, points)


def neighbour_groups(clouds: ObjectClouds, size: int = 4) -> Tensor:
    """Find the ``size`` nearest points of every point, itself included: (B, P, size) rows."""
    batch = clouds.batch()
    count, points, _ = clouds.coords.shape
    rows, _ = ops.knn(batch.coords, batch.offsets, batch.coords, batch.offsets, size)
    starts = torch.arange(count, device=rows.device)[:, None, None] * points
    return rows.view(count, points, size) - starts


def ball_crops(
    clouds: ObjectClouds,
    groups: Tensor,
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> ObjectClouds:
    """Crop a ball around a random point of every cloud, all crops of equal size afterwards.

    A crop holds the ceil(r P) points nearest to the centre. Crops with fewer than ceil(r_max P)
    points are topped up with means of neighbour groups of random crop points, so that they stack.
    The groups are those of the whole cloud, so a mean at the rim may reach one spacing outside.

    Args:
        clouds: (B, P) clouds, one crop each; repeat them with :meth:`ObjectClouds.views`.
        groups: (B, P, G) result of :func:`neighbour_groups`.
        ratio: Range of r.
        generator: Source of the random numbers.

    Returns:
        (B, ceil(r_max P)) clouds.
    """
    count, points, _ = clouds.coords.shape
    size = min(math.ceil(points * ratio[1] - 1e-9), points)
    kept = crop_counts(points, ratio, count, generator).clamp(max=size).to(clouds.coords.device)
    centre = torch.randint(points, (count,), generator=generator, device=generator.device).to(
        kept.device
    )
    origin = clouds.coords[torch.arange(count, device=kept.device), centre]  # (B, 3)
    distance = (clouds.coords - origin[:, None]).square().sum(-1)  # (B, P)
    nearest = distance.topk(size, dim=1, largest=False, sorted=True).indices  # (B, T)
    position = torch.arange(size, device=kept.device).expand(count, -1)
    synthetic = position >= kept[:, None]
    drawn = (uniform((count, size), 0.0, 1.0, distance, generator) * kept[:, None]).long()
    index = nearest.gather(1, torch.where(synthetic, drawn.clamp(max=size - 1), position))
    own = clouds.take(index)
    members = _rows(groups, index)  # (B, T, G)
    group = clouds.take(members.flatten(1))  # (B, T G)
    shape = (count, size, groups.shape[2], -1)
    mask = synthetic[:, :, None]
    return ObjectClouds(
        torch.where(mask, group.coords.view(shape).mean(2), own.coords),
        torch.where(
            mask, group.features.reshape(*shape[:3], own.features.shape[2]).mean(2), own.features
        ),
    )


def half_resolution(clouds: ObjectClouds) -> ObjectClouds:
    """Keep half the points of every cloud by farthest point sampling (section 4.1)."""
    count, points, _ = clouds.coords.shape
    batch = clouds.batch()
    half = max(points // 2, 1)
    counts = torch.full((count,), half, device=batch.offsets.device)
    rows = ops.farthest_point_sampling(batch.coords, batch.offsets, counts)
    starts = torch.arange(count, device=rows.device)[:, None] * points
    return clouds.take(rows.view(count, half) - starts)


def rescale(
    clouds: ObjectClouds,
    scale: tuple[float, float],
    channels: tuple[str, ...],
    generator: torch.Generator,
) -> ObjectClouds:
    """Multiply each axis of each cloud by its own random factor; normals follow."""
    factor = uniform((len(clouds.coords), 1, 3), *scale, clouds.coords, generator)
    features = _map_normals(clouds.features, channels, lambda n: n / factor)
    return ObjectClouds(clouds.coords * factor, features)


def shift(clouds: ObjectClouds, reach: float, generator: torch.Generator) -> ObjectClouds:
    """Move each cloud along each axis by up to ``reach``."""
    move = uniform((len(clouds.coords), 1, 3), -reach, reach, clouds.coords, generator)
    return ObjectClouds(clouds.coords + move, clouds.features)


def rotate_z(clouds: ObjectClouds, angle: Tensor, channels: tuple[str, ...]) -> ObjectClouds:
    """Rotate each cloud about z; angle (B,) in radians, right-handed."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, torch.ones_like(angle))
    matrix = torch.stack(rows, dim=1).view(-1, 3, 3)  # (B, 3, 3)
    turned = clouds.coords @ matrix.transpose(1, 2)
    features = _map_normals(clouds.features, channels, lambda n: n @ matrix.transpose(1, 2))
    return ObjectClouds(turned, features)


def _map_normals(
    features: Tensor, channels: tuple[str, ...], change: Callable[[Tensor], Tensor]
) -> Tensor:
    if "normals" not in channels:
        return features
    start = 3 * channels.index("normals")
    normals = torch.nn.functional.normalize(change(features[..., start : start + 3]), dim=-1)
    return torch.cat([features[..., :start], normals, features[..., start + 3 :]], dim=-1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Gather rows; values (B, P, C), index (B, T) -> (B, T, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
