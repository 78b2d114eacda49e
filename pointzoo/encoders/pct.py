"""PCT, the point cloud transformer: neighbour embedding, then offset attention.

Paper: M.-H. Guo et al., "PCT: Point Cloud Transformer", arXiv 2012.09688, section 3 and Fig. 2.
The sizes are those of the authors' code (MenghaoGuo/PCT, classification). Code of this file:
Apache-2.0.

Differences: the two samplings take a half and a quarter of the points of a cloud, at most 512 and
256 (the authors always take 512 and 256, which fails for small clouds and crops), starting at the
point farthest from the centroid; neighbours are the 32 nearest of any distance, as in the code;
biases that a batch normalisation takes away again are left out; clouds of a batch may differ in
size.

Shape legend: B clouds, N points, N' points kept, T tokens of all clouds, S tokens of the largest
cloud, K neighbours, D width of the transformer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.encoders.edge_conv import EdgeConv, Graph
from pointzoo.encoders.thinning import kept_rows, take
from pointzoo.errors import ConfigError
from pointzoo.ops import ragged
from pointzoo.ops.pooling import largest_and_mean

SLOPE = 0.2
EPSILON = 1e-9
"""Added to the sums by which attention is divided, as in the authors' code."""


@dataclass(frozen=True)
class PCTConfig(EncoderConfig):
    """Settings of :class:`PCT`; the defaults are the authors' classification network.

    Attributes:
        embedding: Width of the two layers that every point goes through.
        group_widths: Widths of the two neighbour embeddings; the last is D, divisible by 4.
        samples: Most points that the first and the second sampling take from a cloud; they take
            no more than a half and a quarter of its points, and at least one.
        neighbors: K of the neighbour embeddings.
        depth: Layers of offset attention.
        fused: Width of the layer that joins all of them; of tokens and of the scene feature.
        max_points: A cloud with more points is subsampled first.
    """

    embedding: int = 64
    group_widths: tuple[int, ...] = (128, 256)
    samples: tuple[int, ...] = (512, 256)
    neighbors: int = 32
    depth: int = 4
    fused: int = 1024
    max_points: int = 8192

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: A size is below 1, there are not two groups, or D is not divisible by 4.
        """
        super().__post_init__()
        sizes = (self.embedding, *self.group_widths, *self.samples, self.neighbors, self.depth)
        sizes += (self.fused, self.max_points)
        pairs = len(self.group_widths) == len(self.samples) == 2
        if min(sizes) < 1 or not pairs or self.group_widths[-1] % 4:
            raise ConfigError(
                expected="positive sizes, two group_widths, the last divisible by 4, two samples",
                got=f"sizes {sizes}",
                fix="Choose for example group_widths=(64, 128), samples=(512, 256).",
            )


@dataclass(frozen=True, eq=False)
class Samples:
    """What depends on the points alone.

    Attributes:
        rows: (N',) rows of the batch that take part; None for all.
        graphs: Of the two neighbour embeddings; the points of the second are the targets of the
            first.
        centres: (T, 3) where the tokens are.
    """

    rows: Tensor | None
    graphs: tuple[Graph, Graph]
    centres: Tensor


class OffsetAttention(nn.Module):
    """Self-attention that passes on the difference from what it attends to (section 3.3).

    Keys are the queries, there is no scaling, and after the softmax over the keys every key's
    weights are divided by their sum over the queries.
    """

    def __init__(self, dim: int) -> None:
        """Build the layers."""
        super().__init__()
        self.query = nn.Linear(dim, dim // 4, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Transform tokens (T, D) of clouds that ``offsets (B,)`` cut apart."""
        attended = self._attend(self.query(x), self.value(x), ragged.sizes_of(offsets))
        out: Tensor = x + torch.relu(self.norm(self.out(x - attended)))
        return out

    def _attend(self, query: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            # unscaled scores are large: bfloat16 would round them by whole units
            wide = torch.promote_types(query.dtype, torch.float32)
            padded, real = ragged.pad(query.to(wide), sizes)  # (B, S, D / 4), (B, S)
            values, _ = ragged.pad(value.to(wide), sizes)
            scores = padded @ padded.transpose(1, 2)  # (B, S, S): query, key
            if real is not None:
                scores = scores.masked_fill(~real[:, None], float("-inf"))
            weights = scores.softmax(dim=2)
            if real is not None:
                weights = weights.masked_fill(~real[:, :, None], 0.0)
            weights = weights / (EPSILON + weights.sum(dim=1, keepdim=True))
            attended = weights.transpose(1, 2) @ values  # (B, S, D): what every key collects
            flat = attended.flatten(0, 1) if real is None else attended[real]
        return flat.to(value.dtype)


class PCT(PointEncoder):
    """Point cloud transformer.

    The tokens are the points of the second sampling. The scene feature is the maximum over the
    tokens; point features are interpolated from them.
    """

    config_class: ClassVar[type[EncoderConfig]] = PCTConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=True, class_attention=False, subsamples=True, onnx=True
    )
    config: PCTConfig

    def __init__(self, config: PCTConfig) -> None:
        """Build the network."""
        super().__init__(config, out_channels=config.fused, scene_channels=config.fused)
        first, dim = config.group_widths
        self.embedding = _layers(self.in_channels, config.embedding, config.embedding)
        # a point at the centroid, 0 in every channel, shall not lie at the kink of every ReLU
        for name, value in self.embedding[1].named_parameters():
            if name == "bias":
                nn.init.uniform_(value, -0.1, 0.1)
        self.groups = nn.ModuleList(
            [
                EdgeConv(config.embedding, [first] * 2, slope=0.0),
                EdgeConv(first, [dim] * 2, slope=0.0),
            ]
        )
        self.before = _layers(dim, dim, dim)
        self.attention = nn.ModuleList(OffsetAttention(dim) for _ in range(config.depth))
        self.fuse = nn.Linear((config.depth + 1) * dim, config.fused, bias=False)
        self.norm = nn.BatchNorm1d(config.fused)

    def geometry(self, batch: PointBatch) -> Samples:
        """Sample the points twice, and find the neighbours of each sample."""
        rows, offsets = kept_rows(batch, self.config.max_points)
        coords = take(batch.coords.detach(), rows)
        sizes, graphs = ragged.sizes_of(offsets), []
        for step, most in enumerate(self.config.samples, start=1):
            counts = (sizes // 2**step).clamp(1, most)
            targets = ops.farthest_point_sampling(coords, offsets, counts)
            cut = counts.cumsum(0)
            members, _ = ops.knn(coords[targets], cut, coords, offsets, self.config.neighbors)
            graphs.append(Graph(members, cut, targets))
            coords, offsets = coords[targets], cut
        return Samples(rows, (graphs[0], graphs[1]), coords)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Samples | None = None
    ) -> EncoderOutput:
        """Encode a batch; see :meth:`PointEncoder.forward`."""
        self.check_channels(batch)
        geometry = geometry or self.geometry(batch)
        inputs = take(torch.cat([batch.coords, batch.features], dim=1), geometry.rows)
        with torch.autocast(inputs.device.type, enabled=False):  # positions need their digits
            x = self.embedding(inputs)  # (N', embedding)
        for group, graph in zip(self.groups, geometry.graphs, strict=True):
            x = group(x, graph)
        offsets = geometry.graphs[-1].offsets
        tokens = self._transform(x, offsets)  # (T, fused)
        scene, _ = largest_and_mean(tokens, offsets)
        point = None
        if points:
            point = ops.interpolate(tokens, geometry.centres, offsets, batch.coords, batch.offsets)
        return EncoderOutput(scene, point, tokens, geometry.centres, offsets)

    def _transform(self, embedded: Tensor, offsets: Tensor) -> Tensor:
        x, found = self.before(embedded), []
        for layer in self.attention:
            x = layer(x, offsets)
            found.append(x)
        joined = torch.cat([part.to(embedded.dtype) for part in (*found, embedded)], dim=1)
        return nn.functional.leaky_relu(self.norm(self.fuse(joined)), SLOPE)


def _layers(*widths: int) -> nn.Sequential:
    """Return linear layers, each with a normalisation and a ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
