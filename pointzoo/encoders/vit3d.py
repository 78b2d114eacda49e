"""3D-ViT: a plain vision transformer over patches of a point cloud.

Paper: K. Fu et al., "Distillation with Contrast is All You Need for Self-Supervised Point Cloud
Representation Learning", arXiv 2202.04241, section 3.3, Eq. 14-16 and Fig. 3. The authors released
no code; what the paper leaves open follows POS-BERT (same first author, fukexue/POS-BERT @
d922651). Code and weights of this file: Apache-2.0.

Differences: the patch MLP reads raw coordinates as Eq. 14 says (POS-BERT runs a pointwise MLP
before it groups), but relative to the centroid and with the centroid beside them, as POS-BERT
groups its features; tokens are int(N / k) as in the paper (POS-BERT rounds up); sampling starts
at the point farthest from the centroid of the cloud, so that the order of the points does not
matter; clouds of a batch may differ in size.

Shape legend: B clouds, N points, N' points kept, T tokens of all clouds, S tokens of the largest
cloud, K points per patch, C channels after the coordinates, D model width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from pointzoo import ops
from pointzoo.batch import PointBatch
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.encoders.thinning import kept_rows, take
from pointzoo.errors import ConfigError
from pointzoo.ops import ragged
from pointzoo.ops.pooling import linear_max


@dataclass(frozen=True)
class ViT3DConfig(EncoderConfig):
    """Settings of :class:`ViT3D`; the defaults are the paper's size (``vit3d_small``).

    Attributes:
        dim: D, width of the transformer.
        depth: Number of transformer blocks (L of Eq. 16).
        heads: H, attention heads; divides ``dim``.
        mlp_ratio: Hidden width of a block's MLP over ``dim``.
        patch_points: K, points per patch; a cloud of N points gets int(N / K) tokens, at least 1.
        patch_widths: Hidden widths of the patch MLP.
        patch_radius: Length by which coordinates relative to the centroid are divided, so that the
            shape of a patch weighs as much as its position; about the radius of a patch of a
            cloud in the unit sphere.
        max_points: A cloud with more points is subsampled, and its features are interpolated back
            to every point.
    """

    dim: int = 512
    depth: int = 8
    heads: int = 8
    mlp_ratio: float = 2.0
    patch_points: int = 32
    patch_widths: tuple[int, ...] = (64, 128, 512)
    patch_radius: float = 0.2
    max_points: int = 8192

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: A size is below 1, or the heads do not divide the width.
        """
        super().__post_init__()
        sizes = (self.dim, self.depth, self.heads, self.patch_points, *self.patch_widths)
        sizes += (self.max_points,)
        if min(sizes) < 1 or min(self.mlp_ratio, self.patch_radius) <= 0 or self.dim % self.heads:
            raise ConfigError(
                expected="positive sizes, and dim divisible by heads",
                got=f"sizes {sizes}, ratio {self.mlp_ratio}, radius {self.patch_radius}",
                fix="Choose for example dim=192, heads=6.",
            )


@dataclass(frozen=True, eq=False)
class PatchGeometry:
    """Which points form which patch; depends on the points alone.

    Attributes:
        rows: (N',) rows of the batch that take part (all, unless a cloud exceeds ``max_points``).
        centroids: (T,) rows of the patch centres, counted in the kept points.
        members: (T, K) rows of the patch members, counted in the kept points.
        token_offsets: (B,) cumulative token counts.
    """

    rows: Tensor | None
    centroids: Tensor
    members: Tensor
    token_offsets: Tensor


class PatchEmbedding(nn.Module):
    """Patches to tokens: an MLP on every member, then the maximum (Eq. 14).

    A member is described by where it lies from the centroid, where the centroid is, and its
    optional channels; without the centroid a network with no positional embedding could not tell
    where a patch is. Only raw inputs are gathered, so no gradient flows through the grouping.
    The last normalisation follows the maximum, which lets the widest layer and the maximum run as
    one operation (:func:`pointzoo.ops.pooling.linear_max`).
    """

    def __init__(self, channels: int, config: ViT3DConfig) -> None:
        """Build the MLP."""
        super().__init__()
        self.radius = config.patch_radius
        widths = (6 + channels, *config.patch_widths)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
            layers += [nn.ReLU(inplace=True)]
        self.mlp = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], config.dim, bias=False)
        self.norm = nn.BatchNorm1d(config.dim)

    def forward(self, coords: Tensor, features: Tensor, geometry: PatchGeometry) -> Tensor:
        """Embed every patch.

        Args:
            coords: (N', 3) of the kept points.
            features: (N', C) of the kept points.
            geometry: The patches.

        Returns:
            (T, D) tokens.
        """
        tokens, size = geometry.members.shape
        centre = coords[geometry.centroids][:, None].expand(-1, size, -1)  # (T, K, 3)
        relative = (coords[geometry.members] - centre) / self.radius
        parts = [relative, centre, features[geometry.members]]
        rows = self.mlp(torch.cat(parts, dim=-1).flatten(0, 1))  # (T K, H)
        members = rows.unflatten(0, (tokens, size))  # (T, K, H)
        return torch.relu(self.norm(linear_max(members, self.last.weight.to(members.dtype))))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build the projections."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = rearrange(self.qkv(x), "b s (t h d) -> t b h s d", t=3, h=self.heads)
        return query, key, value

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend; x (B, S, D), mask (B, 1, 1, S) true where a token is real."""
        query, key, value = self._heads(x)
        if query.dtype == torch.bfloat16 and query.device.type == "cpu" and query.requires_grad:
            # the fused bfloat16 backward of PyTorch 2.13 takes 20 times as long on a CPU
            out = self._weights(query, key, mask) @ value
        else:
            out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.proj(rearrange(out, "b h s d -> b s (h d)"))
        return projected

    def class_weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attention of the class token to all tokens, (B, H, S)."""
        query, key, _ = self._heads(x)
        return self._weights(query[:, :, :1], key, mask).squeeze(2)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attention (B, H, Q, S) of queries (B, H, Q, d) to keys (B, H, S, d)."""
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights: Tensor = scores.softmax(dim=-1)
        return weights


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ViT3DConfig) -> None:
        """Build attention and MLP."""
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attention = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, hidden), nn.GELU(), nn.Linear(hidden, config.dim)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Transform tokens (B, S, D)."""
        x = x + self.attention(self.norm1(x), mask)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT3D(PointEncoder):
    """3D vision transformer (section 3.3).

    The tokens are the patches. The scene feature is y of Eq. 16, the mapped class token, followed
    by the mean and the maximum over the cloud's tokens, D columns each.
    """

    config_class: ClassVar[type[EncoderConfig]] = ViT3DConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        tokens=True,
        class_attention=True,
        subsamples=True,
        onnx=True,
        compiles=True,
        exports=True,
    )
    config: ViT3DConfig

    def __init__(self, config: ViT3DConfig) -> None:
        """Build the network; transformer weights are truncated normal (std 0.02) as in DINO."""
        super().__init__(config, out_channels=config.dim, scene_channels=3 * config.dim)
        self.patch_embedding = PatchEmbedding(self.feature_channels, config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.output = nn.Linear(config.dim, config.dim)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        self.blocks.apply(_initialise)
        self.output.apply(_initialise)

    def geometry(self, batch: PointBatch) -> PatchGeometry:
        """Sample the centroids and find the patch members; see :class:`PatchGeometry`."""
        rows, offsets = kept_rows(batch, self.config.max_points)
        coords = take(batch.coords.detach(), rows)
        token_counts = (ragged.sizes_of(offsets) // self.config.patch_points).clamp(min=1)
        centroids = ops.farthest_point_sampling(coords, offsets, token_counts)
        token_offsets = token_counts.cumsum(0)
        members, _ = ops.knn(
            coords[centroids], token_offsets, coords, offsets, self.config.patch_points
        )
        return PatchGeometry(rows, centroids, members, token_offsets)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: PatchGeometry | None = None
    ) -> EncoderOutput:
        """Encode a batch; see :meth:`PointEncoder.forward`."""
        geometry = geometry or self.geometry(batch)
        x, mask, sizes = self._embed(batch, geometry)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        tokens = _unpad(x[:, 1:], sizes)  # (T, D)
        centres = take(batch.coords, geometry.rows)[geometry.centroids]  # (T, 3)
        point = None
        if points:
            offsets = geometry.token_offsets
            point = ops.interpolate(tokens, centres, offsets, batch.coords, batch.offsets)
        parts = [self.output(x[:, 0]), *_pool(x[:, 1:], sizes)]
        scene = torch.cat([part.to(tokens.dtype) for part in parts], dim=1)  # (B, 3 D)
        return EncoderOutput(scene, point, tokens, centres, geometry.token_offsets)

    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        """Return how the class token of the last block looks at the patches (Fig. 6).

        Returns:
            One (H, S_b) tensor per cloud: weight of each patch token per head. A row sums to
            1 less the weight that the class token gives itself.
        """
        x, mask, sizes = self._embed(batch, self.geometry(batch))
        for block in self.blocks[:-1]:
            x = block(x, mask)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        weights = last.attention.class_weights(last.norm1(x), mask)  # (B, H, 1 + S)
        return tuple(w[:, 1 : 1 + size] for w, size in zip(weights, sizes, strict=True))

    def _embed(
        self, batch: PointBatch, geometry: PatchGeometry
    ) -> tuple[Tensor, Tensor | None, list[int]]:
        """Return tokens behind a class token (B, 1 + S, D), their mask, and the sizes (Eq. 15)."""
        self.check_channels(batch)
        coords, features = (take(part, geometry.rows) for part in (batch.coords, batch.features))
        tokens = self.patch_embedding(coords, features, geometry)  # (T, D)
        offsets = geometry.token_offsets
        sizes: list[int] = [len(tokens)]
        if len(offsets) > 1:
            sizes = torch.diff(offsets, prepend=offsets.new_zeros(1)).tolist()
        padded, mask = _pad(tokens, sizes)
        first = self.class_token.to(padded.dtype).expand(len(sizes), -1, -1)
        return torch.cat([first, padded], dim=1), mask, sizes


def _pad(tokens: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Put flat tokens (T, D) into (B, S, D); the mask has the class token, and is None if full."""
    longest = max(sizes)
    if min(sizes) == longest:
        return tokens.view(len(sizes), longest, -1), None
    padded = nn.utils.rnn.pad_sequence(list(tokens.split(sizes)), batch_first=True)
    real = (
        torch.arange(longest + 1, device=tokens.device)
        <= torch.tensor(sizes, device=tokens.device)[:, None]
    )
    return padded, real[:, None, None]


def _pool(padded: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Return mean and maximum over the real tokens of each cloud; padded (B, S, D) -> (B, D)."""
    if min(sizes) == padded.shape[1]:
        return padded.mean(dim=1), padded.amax(dim=1)
    real = [row[:size] for row, size in zip(padded, sizes, strict=True)]
    return torch.stack([r.mean(dim=0) for r in real]), torch.stack([r.amax(dim=0) for r in real])


def _unpad(padded: Tensor, sizes: list[int]) -> Tensor:
    if min(sizes) == padded.shape[1]:
        return padded.flatten(0, 1)
    return torch.cat([row[:size] for row, size in zip(padded, sizes, strict=True)])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
