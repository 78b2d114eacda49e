"""SparseUNet: a U-Net of sparse convolutions over the voxels of a scene.

The backbone of Masked Scene Contrast (X. Wu et al., arXiv 2303.14191), which takes it from
MinkowskiEngine's MinkUNet (C. Choy et al., arXiv 1904.08755). ``sparseunet34`` is layer by layer
the SpUNet-v1m1 of Pointcept @ d74c646 (MIT), without its head; :mod:`pointzoo.convert` reads
checkpoints of that. Code and weights of this file: Apache-2.0.

Differences: encoders of other depths and widths; any number of stages; a network with no channels
reads a constant 1, where a voxel is; a batch normalisation that gets a single row in training uses
its running statistics, as one row has no variance; ``sparseunet14`` and ``sparseunet18`` have the
narrower decoder of MinkUNet14A and 18A.

Shape legend: B clouds, N points, M voxels of a level, C channels, S stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.encoders.base import (
    Capabilities,
    EncoderConfig,
    EncoderOutput,
    Level,
    Normalize,
    PointEncoder,
)
from pointzoo.encoders.sparse_blocks import Down, Stage, Submanifold, Up
from pointzoo.encoders.voxelize import VoxelGeometry, keep_voxels, voxelize
from pointzoo.errors import CloudError, ConfigError
from pointzoo.ops.sparse import StrideMap, VoxelGrid, ascending, recycled, room_for

ColorRange = Literal["0..1", "-1..1"]
PointFeatures = Literal["nearest", "trilinear"]

STEM_KERNEL = 5
_NAMED = {0: (), 3: ("colors",), 6: ("colors", "normals")}


@dataclass(frozen=True)
class SparseUNetConfig(EncoderConfig):
    """Settings of :class:`SparseUNet`; the defaults are SpUNet-v1m1 (``sparseunet34``).

    Attributes:
        channels: What is read of each voxel, in this order; nothing: that it is there.
        normalize: As everywhere; ``center`` keeps metres.
        grid_size: Edge of a voxel, metres (of the normalised cloud).
        color_range: What the network takes colours as. Clouds and batches hold 0..1; the public
            Pointcept weights of 2023 and 2024 were trained on -1..1.
        in_channels: Values per voxel, where they are not those of ``channels``, which then has to
            be empty; such a network only runs on batches and voxels, not on clouds. Any number
            that ``channels`` give anyway becomes None.
        base_channels: Width of the stem, and of the finest level on the way down.
        stage_channels: S widths on the way down and S on the way up, in the order they run.
        layers: Residual blocks of these 2 S stages.
        point_features: A point gets the feature of its voxel (``nearest``), or a blend of the up to
            eight voxels whose centres surround it (``trilinear``).
    """

    channels: tuple[str, ...] = ("colors", "normals")
    normalize: Normalize = "center"
    grid_size: float = 0.02
    color_range: ColorRange = "0..1"
    in_channels: int | None = None
    base_channels: int = 32
    stage_channels: tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    layers: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2)
    point_features: PointFeatures = "nearest"

    def __post_init__(self) -> None:
        """Check the values, and drop an ``in_channels`` that says nothing new.

        Raises:
            ConfigError: A value is unknown or out of range, or two contradict each other.
        """
        super().__post_init__()
        self._check_sizes()
        self._check_choices()
        named = 3 * len(self.channels)
        if self.in_channels == named:
            object.__setattr__(self, "in_channels", None)
        elif self.in_channels is not None and (
            self.channels or not isinstance(self.in_channels, int) or self.in_channels < 0
        ):
            raise ConfigError(
                expected=f"in_channels {named}, three for each of the channels {self.channels}",
                got=str(self.in_channels),
                fix="Change one of the two; values without names need channels=().",
            )

    @property
    def feature_channels(self) -> int:
        """Values per point that the network reads."""
        return 3 * len(self.channels) if self.in_channels is None else self.in_channels

    @property
    def stages(self) -> int:
        """S, how often the network halves the resolution."""
        return len(self.layers) // 2

    @classmethod
    def completed(cls, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Let ``in_channels`` alone stand for colours (3), and colours and normals (6)."""
        values = dict(overrides)
        width = values.get("in_channels")
        if width is not None and "channels" not in values:
            values["channels"] = _NAMED.get(width, ())
        return values

    def _check_sizes(self) -> None:
        sizes = (self.base_channels, *self.stage_channels, *self.layers)
        fits = len(self.layers) == len(self.stage_channels) > 0 == len(self.layers) % 2
        if not fits or min(sizes) < 1:
            raise ConfigError(
                expected="2 S positive stage_channels and as many layers, S at least 1",
                got=f"base {self.base_channels}, {self.stage_channels}, layers {self.layers}",
                fix="Give each stage a width and blocks, those on the way down first.",
            )
        if not (math.isfinite(self.grid_size) and self.grid_size > 0):
            raise ConfigError(
                expected="a positive grid_size", got=str(self.grid_size), fix="Pass e.g. 0.02."
            )

    def _check_choices(self) -> None:
        for name, known in (
            ("color_range", ("0..1", "-1..1")),
            ("point_features", ("nearest", "trilinear")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    expected=f"{name} {' or '.join(map(repr, known))}",
                    got=repr(getattr(self, name)),
                    fix="Choose one of the two.",
                )


class SparseUNet(PointEncoder):
    """Sparse convolutional U-Net.

    Points become voxels of ``config.grid_size``, each with the mean of its points
    (:func:`pointzoo.encoders.voxelize.voxelize`). The levels of the output are those of the way up:
    the finest voxels first, S of them and the bottleneck. The scene feature is the mean and the
    maximum over the finest voxels, ``out_channels`` columns each.
    """

    config_class: ClassVar[type[EncoderConfig]] = SparseUNetConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=False,
        class_attention=False,
        tiles=True,
        levels=True,
        reads_coords=False,
        onnx=True,
    )
    config: SparseUNetConfig

    def __init__(self, config: SparseUNetConfig) -> None:
        """Build the network."""
        widths = config.stage_channels
        super().__init__(config, out_channels=widths[-1], scene_channels=2 * widths[-1])
        fine = [config.base_channels, *widths[: config.stages - 1]]  # on the way down, by level
        up = widths[: config.stages - 1 : -1]  # on the way up, by level
        below = [*up[1:], widths[config.stages - 1]]  # what comes up to each level
        layers = config.layers
        levels = range(config.stages)
        self.stem = Submanifold(config.feature_channels or 1, config.base_channels, STEM_KERNEL)
        self.down = nn.ModuleList(Down(fine[s], widths[s]) for s in levels)
        self.enc = nn.ModuleList(Stage(widths[s], widths[s], layers[s]) for s in levels)
        self.up = nn.ModuleList(Up(below[s], up[s]) for s in levels)
        self.dec = nn.ModuleList(Stage(up[s] + fine[s], up[s], layers[-1 - s]) for s in levels)

    @property
    def grid_size(self) -> float:
        """Edge of a voxel, metres."""
        return self.config.grid_size

    @property
    def stride(self) -> int:
        """Edge of a voxel of the coarsest level, in voxels."""
        return int(2**self.config.stages)

    @property
    def receptive_field(self) -> int:
        """How far, in voxels along any axis, an input can be from an output that it changes."""
        reach = STEM_KERNEL // 2
        for s, stride in enumerate(2**s for s in range(self.config.stages)):
            # two convolutions a block, down here and one level below; halving reaches one further
            blocks = self.config.layers[-1 - s] + 2 * self.config.layers[s]
            reach += 2 * stride * blocks + stride
        return reach

    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        """See :meth:`PointEncoder.preprocess`; no point changes its voxel by rounding to float32.

        Raises:
            CloudError: See there.
        """
        coords, features = super().preprocess(cloud)
        if self.config.normalize == "center":
            coords = keep_voxels(coords, cloud.coords, self.config.grid_size)
        return coords, features

    def point_channels(self, cloud: PointCloud) -> FloatArray:
        """Return what the network reads of each point, (N, C); a voxel gets their mean.

        Raises:
            CloudError: See :meth:`preprocess`.
        """
        channels = torch.from_numpy(self.read_channels(cloud.require_usable()))
        values: FloatArray = self.network_input(channels).numpy()
        return values

    def network_input(self, features: Tensor) -> Tensor:
        """Turn the channels of a batch (N, C), colours in 0..1, into what the stem reads."""
        if self.config.color_range == "0..1" or "colors" not in self.config.channels:
            return features
        start = 3 * self.config.channels.index("colors")
        scaled = [features[:, :start], features[:, start : start + 3] * 2.0 - 1.0]
        return torch.cat([*scaled, features[:, start + 3 :]], dim=1)

    def geometry(self, batch: PointBatch) -> VoxelGeometry:
        """Find the voxels; see :func:`pointzoo.encoders.voxelize.voxelize`."""
        trilinear = self.config.point_features == "trilinear"
        return voxelize(batch.coords, batch.offsets, self.config.grid_size, corners=trilinear)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: VoxelGeometry | None = None
    ) -> EncoderOutput:
        """Encode a batch; see :meth:`PointEncoder.forward`."""
        self.check_channels(batch)
        geometry = geometry or self.geometry(batch)
        x = geometry.mean(self.network_input(batch.features))
        found = self._network(x, geometry.grid)
        levels = tuple(
            Level(
                rows,
                geometry.centers(grid, 2**s).to(batch.coords.dtype),
                grid.coords,
                grid.offsets,
                2**s,
            )
            for s, (grid, rows) in enumerate(found)
        )
        finest = levels[0].features
        point = geometry.at_points(finest) if points else None
        return EncoderOutput(_pool(finest, geometry.grid.offsets), point, levels=levels)

    @recycled()
    def forward_voxels(self, grid_coords: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        """Encode voxels that are already there, as Pointcept's dictionaries hold them.

        Gradients flow to ``features`` and the weights. Voxels may occur more than once, as they do
        where views were mixed: each row sees itself, and its neighbours see the sum.

        Args:
            grid_coords: (M, 3) integers, voxels of ``config.grid_size``, from any origin.
            features: (M, C) what the stem reads (colours in ``config.color_range``), C being
                ``in_channels``; converted to the number type of the weights.
            offsets: (B,) cumulative row counts.

        Returns:
            (M, ``out_channels``), in the order of the input.

        Raises:
            CloudError: Shapes, types, devices or offsets do not fit, or a value is not finite.
        """
        levels, place = self.voxel_levels(grid_coords, features, offsets)
        finest = levels[0][1]
        if ascending(place):
            return finest
        return torch.index_select(finest, 0, place, out=room_for(finest, finest.shape[1]))

    def voxel_levels(
        self, grid_coords: Tensor, features: Tensor, offsets: Tensor
    ) -> tuple[list[tuple[VoxelGrid, Tensor]], Tensor]:
        """Encode voxels as :meth:`forward_voxels` does, and return every level.

        Args:
            grid_coords: See there, as for the others.
            features: See there.
            offsets: See there.

        Returns:
            The voxels of each level with their features, the finest first; and (M,) the row of the
            finest level that each voxel of the input is.

        Raises:
            CloudError: See there.
        """
        self._check_voxels(grid_coords, features, offsets)
        grid, order = VoxelGrid.build(grid_coords, offsets)
        x, place = features.to(self.stem.weight.dtype), order
        if not ascending(order):
            x, place = x[order], torch.empty_like(order)
            place[order] = torch.arange(len(order), device=order.device)
        return self._network(x, grid), place

    @recycled()
    def _network(self, x: Tensor, grid: VoxelGrid) -> list[tuple[VoxelGrid, Tensor]]:
        """Return the levels on the way up, the finest first; x (M, C) in the order of ``grid``."""
        if x.shape[1] == 0:
            x = x.new_ones(len(x), 1)
        x = self.stem(x, grid)
        way: list[tuple[VoxelGrid, StrideMap, Tensor]] = []
        for down, stage in zip(self.down, self.enc, strict=True):
            coarse, stride_map = grid.down()
            way.append((grid, stride_map, x))
            grid, x = coarse, stage(down(x, stride_map), coarse)
        levels = [(grid, x)]
        for up, stage in zip(reversed(self.up), reversed(self.dec), strict=True):
            grid, stride_map, skip = way.pop()
            x = _beside(up, x, stride_map, skip)
            del skip  # what else holds its memory is gone
            x = stage(x, grid)
            levels.insert(0, (grid, x))
        return levels

    def _check_voxels(self, grid_coords: Tensor, features: Tensor, offsets: Tensor) -> None:
        """Check what VoxelGrid.build does not.

        Raises:
            CloudError: See :meth:`forward_voxels`.
        """
        wanted = (len(grid_coords), self.feature_channels)
        if tuple(features.shape) != wanted or not features.is_floating_point() or not wanted[0]:
            raise CloudError(
                expected=f"at least one voxel, and floating-point features {wanted} for them",
                got=f"shape {tuple(features.shape)} of {features.dtype}",
                fix=f"This encoder reads {wanted[1]} values per voxel; coordinates are not among "
                "them.",
            )
        places = {str(t.device) for t in (grid_coords, features, offsets, self.stem.weight)}
        if len(places) > 1:
            raise CloudError(
                expected="voxels on the device of the encoder",
                got=" and ".join(sorted(places)),
                fix="Move them with .to(device).",
            )
        if not bool(features.isfinite().all()):
            raise CloudError(
                expected="finite features",
                got="NaN or infinite values",
                fix="Mend them, or leave those voxels out.",
            )


def _beside(up: nn.Module, x: Tensor, stride_map: StrideMap, skip: Tensor) -> Tensor:
    """Return what comes up from ``x``, (M, O), and behind it the channels of ``skip (M, C)``."""
    assert isinstance(up, Up)
    width = up.weight.shape[2]
    both = room_for(x, width + skip.shape[1], rows=len(skip))
    if both is None:
        return torch.cat([up(x, stride_map), skip.to(x.dtype)], dim=1)
    both[:, width:] = skip
    left = both[:, :width]
    fine = up(x, stride_map, out=left)
    if fine.data_ptr() != left.data_ptr():
        left.copy_(fine)
    return both


def _pool(x: Tensor, offsets: Tensor) -> Tensor:
    """Return mean and maximum over the voxels of each cloud; (M, C) -> (B, 2 C)."""
    sizes = torch.diff(offsets, prepend=offsets.new_zeros(1)).tolist()
    groups = x.split(sizes)
    return torch.stack([torch.cat([g.mean(dim=0), g.amax(dim=0)]) for g in groups])
