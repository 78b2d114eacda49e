"""DGCNN: edge convolutions over neighbours in feature space, found anew in every layer.

Paper: Y. Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", arXiv 1801.07829, section 3
and Fig. 3. What the paper leaves open follows antao97/dgcnn.pytorch (the widely used
re-implementation; MIT). Code of this file: Apache-2.0.

Differences: clouds may have any size, and a cloud of fewer than K points repeats neighbours; the
first graph is built on x, y, z whatever else is read; point features of the classification network
are what its edge convolutions say, side by side; no spatial transformer (neither has the
re-implementation in classification). How an edge convolution avoids the edges: edge_conv.py.

Shape legend: B clouds, N points, N' points kept, K neighbours, L channels of all edge convolutions
side by side, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.encoders.edge_conv import EdgeConv, Graph
from pointzoo.encoders.thinning import kept_rows, take, to_all_points
from pointzoo.errors import ConfigError
from pointzoo.ops.pooling import largest_and_mean

SLOPE = 0.2


@dataclass(frozen=True)
class DGCNNConfig(EncoderConfig):
    """Settings of :class:`DGCNN`; the defaults are the paper's classification network.

    Attributes:
        widths: Width of each edge convolution.
        depths: Layers of each edge convolution.
        neighbors: K; 20 for clouds of about 1,024 points, 40 for 2,048.
        embedding: E, width of the layer that is pooled into the scene feature.
        context: Whether a point feature begins with the largest values over its cloud, (E,), as the
            segmentation network has it.
        max_points: A cloud with more points is subsampled, and its features are interpolated back
            to every point.
    """

    widths: tuple[int, ...] = (64, 64, 128, 256)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    neighbors: int = 20
    embedding: int = 1024
    context: bool = False
    max_points: int = 4096

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: A size is below 1, or widths and depths differ in number.
        """
        super().__post_init__()
        sizes = (*self.widths, *self.depths, self.neighbors, self.embedding, self.max_points)
        if min(sizes) < 1 or len(self.widths) != len(self.depths) or not self.widths:
            raise ConfigError(
                expected="positive sizes, and one depth for every width",
                got=f"widths {self.widths}, depths {self.depths}, neighbors {self.neighbors}, "
                f"embedding {self.embedding}, max_points {self.max_points}",
                fix="Choose for example widths=(64, 64, 128, 256), depths=(1, 1, 1, 1).",
            )


@dataclass(frozen=True, eq=False)
class FirstGraph:
    """What depends on the points alone.

    Attributes:
        rows: (N',) rows of the batch that take part; None for all.
        offsets: (B,) cumulative numbers of those.
        members: (N', K) neighbours of each in space, counted in the kept points.
        later: The same in feature space, for each edge convolution after the first; empty where
            they are to be found anew, as ever but in comparisons.
    """

    rows: Tensor | None
    offsets: Tensor
    members: Tensor
    later: tuple[Tensor, ...] = ()


class DGCNN(PointEncoder):
    """Dynamic graph CNN.

    The scene feature is the maximum of the embedding over the cloud, followed by its mean, E
    columns each. A point feature holds the outputs of all edge convolutions side by side, L
    columns.
    """

    config_class: ClassVar[type[EncoderConfig]] = DGCNNConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=False, class_attention=False, subsamples=True, onnx=True
    )
    config: DGCNNConfig

    def __init__(self, config: DGCNNConfig) -> None:
        """Build the network."""
        local = sum(config.widths)
        out = local + (config.embedding if config.context else 0)
        super().__init__(config, out_channels=out, scene_channels=2 * config.embedding)
        inputs = (self.in_channels, *config.widths[:-1])
        self.edge_convs = nn.ModuleList(
            EdgeConv(width_in, [width] * depth, SLOPE)
            for width_in, width, depth in zip(inputs, config.widths, config.depths, strict=True)
        )
        self.embedding = nn.Linear(local, config.embedding, bias=False)
        self.norm = nn.BatchNorm1d(config.embedding)

    def geometry(self, batch: PointBatch) -> FirstGraph:
        """Choose the points that take part, and find their neighbours in space."""
        rows, offsets = kept_rows(batch, self.config.max_points)
        coords = take(batch.coords, rows)
        members, _ = ops.knn(coords, offsets, coords, offsets, self.config.neighbors)
        return FirstGraph(rows, offsets, members)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: FirstGraph | None = None
    ) -> EncoderOutput:
        """Encode a batch; see :meth:`PointEncoder.forward`."""
        self.check_channels(batch)
        geometry = geometry or self.geometry(batch)
        rows, offsets = geometry.rows, geometry.offsets
        local = self._local(take(torch.cat([batch.coords, batch.features], dim=1), rows), geometry)
        wide = nn.functional.leaky_relu(self.norm(self.embedding(local)), SLOPE)  # (N', E)
        largest, mean = largest_and_mean(wide, offsets)
        point = None
        if points:
            point = to_all_points(local, rows, offsets, batch)
            if self.config.context:
                point = torch.cat([largest.to(point.dtype)[batch.batch_index], point], dim=1)
        return EncoderOutput(torch.cat([largest, mean], dim=1), point)

    def _local(self, x: Tensor, geometry: FirstGraph) -> Tensor:
        """Return what the edge convolutions say about the kept points, (N', L)."""
        offsets, members = geometry.offsets, geometry.members
        found: list[Tensor] = []
        for conv in self.edge_convs:
            if found and geometry.later:
                members = geometry.later[len(found) - 1]
            elif found:
                members, _ = ops.knn(x, offsets, x, offsets, self.config.neighbors)
            x = conv(x, Graph(members, offsets))
            found.append(x)
        return torch.cat(found, dim=1)
