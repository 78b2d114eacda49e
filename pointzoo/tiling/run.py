"""The network over all tiles of a scan.

Shape legend: N points, M voxels, C channels into the network, D channels out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo.cloud import FloatArray, IntArray, PointCloud
from pointzoo.errors import WeightError
from pointzoo.tiling.plan import TILE_VOXELS, Plan, Tile, make_plan
from pointzoo.tiling.store import MemoryStore, Store
from pointzoo.tiling.voxels import VoxelTable

MakeStore: TypeAlias = "Callable[[str, int, int, type[np.floating[Any]]], Store]"
"""From a fingerprint, M, D and a number type to where the rows go."""

_READ = 65_536  # rows of the store that are averaged at a time


class VoxelEncoder(Protocol):
    """As much of an encoder as tiles need; declared by the capability ``tiles``.

    Its scene feature is the mean and the maximum over the voxels. Points get the feature of their
    voxel, or, with ``config.point_features == "trilinear"``, a blend of those around them.
    """

    out_channels: int
    config: Any

    @property
    def grid_size(self) -> float:
        """Edge of a voxel, metres."""

    @property
    def stride(self) -> int:
        """Edge of a cell of the coarsest level, in voxels."""

    @property
    def receptive_field(self) -> int:
        """How far, in voxels along any axis, an input can be from an output that it changes."""

    def point_channels(self, cloud: PointCloud) -> FloatArray:
        """Return what the network reads of each point, (n, C); a voxel gets their mean."""

    def forward_voxels(self, grid_coords: Tensor, features: Tensor, offsets: Tensor) -> Tensor: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class TiledScan:
    """Features of all voxels of a scan, and how they were computed.

    Attributes:
        table: The voxels.
        plan: The tiles.
        scene: (2 D,) float32, mean and maximum over the voxels.
        channels: D.
        store: Holds the features of the voxels.
        positions: (M,) where the row of each voxel stands in the store.
        trilinear: Whether points get a blend instead of the feature of their voxel.
    """

    table: VoxelTable
    plan: Plan
    scene: FloatArray
    channels: int
    store: Store
    positions: IntArray
    trilinear: bool = False

    def rows(self, coords: FloatArray) -> FloatArray:
        """Return the features (n, D) of n points of the scan."""
        if not self.trilinear:
            return self.store.read(self.positions[self.table.rows_of(coords)])
        voxels, weights = self.table.around(coords)
        needed, place = np.unique(voxels, return_inverse=True)
        rows = self.store.read(self.positions[needed])
        place = place.reshape(voxels.shape)
        blend = np.zeros((len(coords), self.channels), np.float32)
        for corner in range(voxels.shape[1]):
            blend += rows[place[:, corner]] * weights[:, corner, None].astype(np.float32)
        return blend.astype(rows.dtype)

    def summary(self) -> str:
        """Say in a line how the scan was cut."""
        halo = f"halo of {self.plan.halo} voxels"
        if self.plan.exact:
            halo += ", as wide as the receptive field" * (len(self.plan) > 1)
        else:
            halo += ", narrower than the receptive field"
        return (
            f"{self.table.points:,} points, {len(self.table):,} voxels, "
            f"{len(self.plan)} tile{'s' * (len(self.plan) != 1)}, {halo}"
        )


def compute_tiles(
    encoder: VoxelEncoder,
    chunks: Iterable[PointCloud],
    *,
    tile_voxels: int = TILE_VOXELS,
    halo: int | None = None,
    half: bool = False,
    make_store: MakeStore | None = None,
    after_points: Callable[[int], object] = lambda _: None,
    after_tile: Callable[[int], object] = lambda _: None,
) -> TiledScan:
    """Compute the features of every voxel of a scan.

    The encoder is used as it is: set it to evaluation first. Needs about 100 bytes per voxel of the
    scan, the memory of one tile, and what the store takes.

    Args:
        encoder: One with the capability ``tiles``.
        chunks: The scan, a part at a time; it is read twice.
        tile_voxels: See :func:`pointzoo.tiling.plan.make_plan`, as for the halo.
        halo: See there.
        half: Keep float16 instead of float32.
        make_store: Where rows go; None: into memory.
        after_points: Called with the points of each chunk that was read.
        after_tile: Called after each tile with the number of its voxels.

    Raises:
        CloudError: The points cannot be used.
        WeightError: The encoder gives NaN or infinite features.
    """
    table = VoxelTable.build(
        chunks, encoder.grid_size, encoder.point_channels, after_chunk=after_points
    )
    plan = make_plan(
        table.coords,
        stride=encoder.stride,
        receptive_field=encoder.receptive_field,
        tile_voxels=tile_voxels,
        halo=halo,
    )
    kind = np.float16 if half else np.float32
    fingerprint = _fingerprint(encoder, table, plan, np.dtype(kind).name)
    store = (make_store or _in_memory)(fingerprint, len(table), encoder.out_channels, kind)
    with torch.inference_mode():
        for number, tile in enumerate(plan):
            if not store.finished(number):
                rows = _require_finite(_encode(encoder, table, tile))
                store.write(number, tile.start, to_half(rows) if half else rows)
            after_tile(tile.core)
    return TiledScan(
        table,
        plan,
        _pool(store, len(table)),
        encoder.out_channels,
        store,
        plan.positions(),
        trilinear=getattr(encoder.config, "point_features", "nearest") == "trilinear",
    )


def whole_points(encoder: object) -> int | None:
    """Return above how many points a scan is computed in tiles, or None for never.

    An encoder that scales clouds to the unit sphere has no voxels of a fixed size: a cloud cannot
    be large for it.
    """
    capabilities, config = getattr(encoder, "capabilities", None), getattr(encoder, "config", None)
    in_metres = getattr(config, "normalize", "") == "center"
    return TILE_VOXELS if in_metres and getattr(capabilities, "tiles", False) else None


def _in_memory(
    fingerprint: str,  # noqa: ARG001  # the signature of every store
    rows: int,
    channels: int,
    dtype: type[np.floating[Any]],
) -> Store:
    return MemoryStore(rows, channels, dtype)


def _encode(encoder: VoxelEncoder, table: VoxelTable, tile: Tile) -> FloatArray:
    coords = table.coords_of(tile.rows)
    # counted from a multiple of the stride, so that cells stay what they are in the whole scan
    coords -= coords.min(axis=0) // encoder.stride * encoder.stride
    parameter = next(encoder.parameters())
    output = encoder.forward_voxels(
        torch.from_numpy(coords).to(parameter.device),
        torch.from_numpy(table.features[tile.rows]).to(parameter),
        torch.tensor([len(coords)], device=parameter.device),
    )
    rows: FloatArray = output[: tile.core].float().cpu().numpy()
    return rows


def to_half(rows: FloatArray) -> FloatArray:
    """Return features in float16.

    Raises:
        WeightError: A value is too large for it.
    """
    with np.errstate(over="ignore"):
        short: FloatArray = rows.astype(np.float16)
    if not np.isfinite(short).all():
        raise WeightError(
            expected="features within the range of float16",
            got=f"values up to {float(np.abs(rows).max()):g}",
            fix="Write float32.",
        )
    return short


def _require_finite(rows: FloatArray) -> FloatArray:
    if not np.isfinite(rows).all():
        raise WeightError(
            expected="finite features",
            got="NaN or infinite values",
            fix="The encoder's weights or its number type cannot deal with this scan.",
        )
    return rows


def _pool(store: Store, rows: int) -> FloatArray:
    total, highest = np.float64(0.0), np.float64(-np.inf)
    for start in range(0, rows, _READ):
        part = store.read(np.arange(start, min(start + _READ, rows)))
        total = total + part.sum(axis=0, dtype=np.float64)
        highest = np.maximum(highest, part.max(axis=0))
    return np.concatenate([total / rows, highest]).astype(np.float32)


def _fingerprint(encoder: VoxelEncoder, table: VoxelTable, plan: Plan, dtype: str) -> str:
    digest = hashlib.sha256(f"{table.fingerprint()} {plan.halo} {len(plan)} {dtype}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
