"""An encoder with a head on it, and what it says about whole clouds, in tiles where they are large.

Shape legend: B clouds, N points, M voxels, C point channels, R columns of the head's output,
L levels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.encoders.base import EncoderOutput, PointEncoder
from pointzoo.encoders.sparse_unet import SparseUNet
from pointzoo.encoders.voxelize import VoxelGeometry
from pointzoo.errors import WeightError
from pointzoo.features import evaluating
from pointzoo.finetuning.task import Encoded, Task
from pointzoo.io.chunks import CloudChunks
from pointzoo.ops.sparse import VoxelGrid
from pointzoo.tiling import compute_tiles, whole_points
from pointzoo.weights import sample_cloud

Reads = Literal["point", "levels"]
"""What a head gets of each point. ``point``: the encoder's point feature. ``levels``: all there is
about it side by side, in blocks: the features of its voxels at every level (where an encoder has no
levels the point feature and the scene feature), and what the encoder read there."""


class Network(nn.Module):
    """An encoder with a head.

    Attributes:
        encoder: Gradients flow into it where one of its parameters asks for them.
        head: What the task built.
        task: The task.
        reads: See :data:`Reads`.
        widths: Columns of each block of a point's row.
    """

    def __init__(
        self,
        encoder: PointEncoder,
        task: Task[Any],
        *,
        reads: Reads = "point",
        hidden: int = 0,
        widths: tuple[int, ...] | None = None,
        empty: bool = False,
    ) -> None:
        """Build the head; its random weights come from torch's global generator.

        Args:
            encoder: The encoder, which is not copied.
            task: The task.
            reads: What the head gets of each point.
            hidden: Width of a hidden layer of the head; 0 for a linear one.
            widths: Of the blocks of a point's row, where they are known already; None: the encoder
                is asked.
            empty: Give the head no memory (the meta device), because its state is put in later.
        """
        super().__init__()
        self.encoder, self.task, self.reads = encoder, task, reads
        self.widths = widths or self._block_widths()
        with torch.device("meta") if empty else contextlib.nullcontext():
            self.head = task.build_head(sum(self.widths), encoder.scene_channels, hidden=hidden)
        if not empty:
            self.head.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.encoder.parameters()).device

    @property
    def has_levels(self) -> bool:
        """Whether heads read levels of voxels."""
        return self.reads == "levels" and self.encoder.capabilities.levels

    def _block_widths(self) -> tuple[int, ...]:
        """Return the widths of the blocks that a point's row consists of."""
        encoder = self.encoder
        if self.reads == "point" or not self.task.reads_points:
            return (encoder.out_channels,)
        if self.has_levels:
            with evaluating(encoder), torch.no_grad():
                output = encoder(self.batch([sample_cloud()]), points=False)
            found = [level.features.shape[1] for level in output.levels]
        else:
            found = [encoder.out_channels, encoder.scene_channels]
        return (*found, *[3] * (encoder.feature_channels // 3))

    def forward(self, batch: PointBatch) -> Any:
        """Return the head's output for a batch."""
        return self.head(self.encode(batch))

    def encode(self, batch: PointBatch) -> Encoded:
        """Return what the head reads of a batch."""
        geometry = self.encoder.geometry(batch) if self.has_levels else None
        with self._gradients():
            output = self.encoder(batch, points=self.task.reads_points, geometry=geometry)
        return Encoded(batch, self._rows(output, batch, geometry), output.scene)

    def _gradients(self) -> contextlib.AbstractContextManager[Any]:
        """Leave gradients out of an encoder that learns nothing; it folds its layers then."""
        learns = any(parameter.requires_grad for parameter in self.encoder.parameters())
        return contextlib.nullcontext() if learns else torch.no_grad()

    def _rows(self, output: EncoderOutput, batch: PointBatch, geometry: Any) -> Tensor | None:
        if not self.task.reads_points:
            return None
        assert output.point is not None, "asked for"
        if self.reads == "point":
            return output.point
        if not self.has_levels:
            scene = output.scene[batch.batch_index]
            return torch.cat([output.point, scene, batch.features.to(scene.dtype)], dim=1)
        assert isinstance(geometry, VoxelGeometry), "an encoder with levels works on voxels"
        assert isinstance(self.encoder, SparseUNet), "the one with levels"
        finest = output.levels[0]
        inputs = geometry.mean(self.encoder.network_input(batch.features))
        levels = [(level.stride, level.features) for level in output.levels]
        rows = beside(finest.grid_coords, finest.offsets, [*levels, (1, inputs)])
        return geometry.at_points(rows)

    def features(self, cloud: PointCloud) -> FloatArray:
        """Return what the head reads of every point of a cloud as read, in tiles where it is large.

        Args:
            cloud: N points, at least one, finite.

        Returns:
            (N, C) float32.

        Raises:
            CloudError: The cloud cannot be used.
            WeightError: The encoder gives NaN or infinite features.
        """
        return self._per_point(cloud, _Rows(), tiles=True)

    def rows(self, cloud: PointCloud) -> FloatArray:
        """Return the head's output for every point of a cloud as read, in tiles where it is large.

        For tasks whose head gives a point (R,) whatever the others are (``per_point``).

        Args:
            cloud: N points, at least one, finite.

        Returns:
            (N, R) float32.

        Raises:
            CloudError: The cloud cannot be used.
            WeightError: The network gives NaN or infinite values.
        """
        return self._per_point(cloud, self.head, tiles=self.task.per_point)

    def _per_point(self, cloud: PointCloud, head: nn.Module, *, tiles: bool) -> FloatArray:
        limit = whole_points(self.encoder)
        with evaluating(self), torch.inference_mode():
            if limit is not None and len(cloud) > limit and tiles:
                return self._tiles(cloud, head)
            output: Tensor = head(self.encode(self.batch([cloud])))
        return _finite(output.float().cpu().numpy())

    def batch(self, clouds: Sequence[PointCloud]) -> PointBatch:
        """Put clouds as read into a batch on the network's device."""
        coords, channels = zip(*map(self.encoder.preprocess, clouds), strict=True)
        return PointBatch.collate(coords, channels).to(self.device)

    def _tiles(self, cloud: PointCloud, head: nn.Module) -> FloatArray:
        chunks = CloudChunks(cloud.replace(labels=None, fields={}))
        scan = compute_tiles(_Tiled(self, head), chunks)
        parts = [scan.rows(chunk.coords) for chunk in chunks]
        return np.concatenate(parts).astype(np.float32, copy=False)


class _Rows(nn.Module):
    """A head that gives what it reads."""

    def forward(self, encoded: Encoded) -> Tensor:
        """Return the rows (N, C)."""
        return encoded.rows()


class _Tiled(nn.Module):
    """The network as :mod:`pointzoo.tiling` sees an encoder: voxels in, head's output out."""

    def __init__(self, network: Network, head: nn.Module) -> None:
        """Keep the network and look at the width of the head's output."""
        super().__init__()
        self.network, self.head = network, head
        encoder = network.encoder
        assert isinstance(encoder, SparseUNet), "the encoder that declares tiles"
        self.encoder = encoder
        self.config: Any = encoder.config
        self.grid_size, self.stride = encoder.grid_size, encoder.stride
        self.receptive_field = encoder.receptive_field
        self.point_channels = encoder.point_channels
        sample = network.encode(network.batch([sample_cloud()]))
        self.out_channels = int(head(sample).shape[1])

    def forward_voxels(self, grid_coords: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        """Return the head's output (M, R) of each voxel."""
        levels, place = self.encoder.voxel_levels(grid_coords, features, offsets)
        grid, finest = levels[0]
        if self.network.has_levels:
            stacked = [(2**s, rows) for s, (_, rows) in enumerate(levels)]
            inputs = torch.empty_like(features)
            inputs[place] = features  # as the finest level is sorted
            finest = beside(_from_zero(grid, self.stride), grid.offsets, [*stacked, (1, inputs)])
        batch = PointBatch(grid_coords.float(), features, offsets)
        scene = finest.new_zeros(len(offsets), self.encoder.scene_channels)
        output: Tensor = self.head(Encoded(batch, finest.index_select(0, place), scene))
        return output


def beside(coords: Tensor, offsets: Tensor, levels: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Put the features of the voxels that hold a finest voxel side by side.

    Args:
        coords: (M, 3) integers from 0 on, the finest voxels, sorted by cloud, x, y, z, each once.
        offsets: (B,) cumulative row counts.
        levels: Stride and features (M_s, C_s) of L levels, each sorted alike.

    Returns:
        (M, C_0 + ... + C_L).
    """
    found = []
    for stride, features in levels:
        if stride == 1:
            found.append(features)
            continue
        # the occupied cells of a level, in its order
        cells = torch.div(coords, stride, rounding_mode="floor")
        parent = ops.grid_sample(cells.double(), offsets, 1.0).inverse
        found.append(features.index_select(0, parent))
    dtype = found[0].dtype
    return torch.cat([rows.to(dtype) for rows in found], dim=1)


def _from_zero(grid: VoxelGrid, stride: int) -> Tensor:
    """Return the coordinates of a grid moved to where cells of ``stride`` begin at 0."""
    low = torch.div(grid.coords.amin(dim=0), stride, rounding_mode="floor")
    return grid.coords - low * stride


def _finite(rows: FloatArray) -> FloatArray:
    if not np.isfinite(rows).all():
        raise WeightError(
            expected="finite values from the head",
            got="NaN or infinite values",
            fix="The training went astray: lower the learning rate and train again.",
        )
    return rows
