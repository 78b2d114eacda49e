"""Checks of declared capabilities: what is declared is there, what is not declared is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.encoders.base import EncoderOutput, Level, PointEncoder
from pointzoo.testing.support import (
    Make,
    conformance,
    encode,
    encode_cloud,
    make_batch,
    make_clouds,
    require,
    require_close,
    tensors_of,
)

SLACK = 1e-4
"""How far a token may lie outside the bounding box of its cloud (clouds are about 1 across)."""


@conformance
def check_tokens(make: Make) -> None:
    """Return tokens with places and offsets that fit if declared, else none."""
    encoder = make()
    batch = make_batch(encoder)
    output = encode(encoder, batch)
    parts = (output.tokens, output.token_coords, output.token_offsets)
    there = [part is not None for part in parts]
    declared = encoder.capabilities.tokens
    require(
        there == [declared] * 3,
        expected=f"tokens, token_coords and token_offsets {'set' if declared else 'None'}",
        got=f"set: {there}",
        fix="Declare in capabilities.tokens what forward returns.",
    )
    if output.tokens is None or output.token_coords is None or output.token_offsets is None:
        return
    _require_token_shapes(encoder, batch, output.tokens, output.token_coords, output.token_offsets)
    counts = _token_counts(output)
    groups = zip(batch.split(batch.coords), output.token_coords.split(counts), strict=True)
    for coords, places in groups:
        low, high = coords.amin(dim=0) - SLACK, coords.amax(dim=0) + SLACK
        require(
            bool(((places >= low) & (places <= high)).all()),
            expected="tokens within the bounding box of their own cloud",
            got=f"one outside of {low.tolist()} to {high.tolist()}",
            fix="Return token_coords in the frame of the batch, cloud after cloud.",
        )
    _require_tokens_alone_as_in_batch(encoder, output)


@conformance
def check_class_attention(make: Make) -> None:
    """Say how the class token looks at each token of a cloud if declared, else not at all."""
    encoder = make()
    there = hasattr(encoder, "class_attention")
    require(
        there == encoder.capabilities.class_attention,
        expected=f"class_attention declared as it is ({there})",
        got=str(encoder.capabilities.class_attention),
        fix="Declare capabilities.class_attention if and only if there is such a method.",
    )
    if not there:
        return
    clouds = make_clouds()
    weights = _attention(encoder, make_batch(encoder, clouds))
    counts = _token_counts(encode(encoder, make_batch(encoder, clouds)))
    got = [tuple(w.shape) for w in weights]
    heads = got[0][0] if got and got[0] else 0
    require(
        got == [(heads, count) for count in counts] and heads > 0,
        expected=f"one (heads, tokens) matrix for each of {counts} tokens",
        got=str(got),
        fix="Drop the class token itself and the padding.",
    )
    for cloud, together in zip(clouds, weights, strict=True):
        sums = together.sum(dim=1)
        require(
            bool((together >= 0).all() and (sums > 0).all() and (sums <= 1 + SLACK).all()),
            expected="weights of at least 0 that sum to at most 1 in each head",
            got=f"from {float(together.min()):g}, sums up to {float(sums.max()):g}",
            fix="Return them behind the softmax, the padding masked before it.",
        )
        (alone,) = _attention(encoder, make_batch(encoder, [cloud]))
        require_close(
            together,
            alone,
            what=f"attention of a cloud of {len(cloud)} points, alone as in a batch",
            fix="Mask the padding before the softmax.",
        )


@conformance
def check_levels(make: Make) -> None:
    """Return voxels with places, coordinates and offsets that fit if declared, else none."""
    encoder = make()
    batch = make_batch(encoder)
    output = encode(encoder, batch)
    declared = encoder.capabilities.levels
    require(
        bool(output.levels) == declared,
        expected=f"{'at least one level' if declared else 'no level'}",
        got=f"{len(output.levels)}",
        fix="Declare in capabilities.levels what forward returns.",
    )
    if not declared:
        return
    strides = [level.stride for level in output.levels]
    require(
        strides == sorted(set(strides)) and strides[0] == 1,
        expected="levels from stride 1 upwards",
        got=str(strides),
        fix="Return the finest level first.",
    )
    for level in output.levels:
        _require_level_shapes(encoder, batch, level)
        _require_level_in_place(batch, level)
    _require_levels_alone_as_in_batch(encoder, output)


def _attention(encoder: Any, batch: PointBatch) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(encoder.class_attention(batch))


def _token_counts(output: EncoderOutput) -> list[int]:
    offsets = output.token_offsets
    if offsets is None:
        return []
    counts: list[int] = torch.diff(offsets, prepend=offsets.new_zeros(1)).tolist()
    return counts


def _require_token_shapes(
    encoder: PointEncoder, batch: PointBatch, tokens: Tensor, places: Tensor, offsets: Tensor
) -> None:
    count = len(tokens)
    require(
        tokens.shape == (count, encoder.out_channels) and places.shape == (count, 3),
        expected=f"tokens (T, {encoder.out_channels}) and token_coords (T, 3)",
        got=f"{tuple(tokens.shape)} and {tuple(places.shape)}",
        fix="Tokens are as wide as point features, and each has a place.",
    )
    steps = torch.diff(offsets, prepend=offsets.new_zeros(1))
    fits = offsets.dtype == torch.int64 and offsets.shape == batch.offsets.shape
    require(
        fits and bool((steps > 0).all()) and int(offsets[-1]) == count,
        expected=f"int64 offsets that cut {count} tokens into {batch.num_clouds} groups",
        got=f"{offsets.tolist()} of {offsets.dtype}",
        fix="Offsets are cumulative token counts without a leading zero.",
    )


def _require_tokens_alone_as_in_batch(encoder: PointEncoder, together: EncoderOutput) -> None:
    counts = _token_counts(together)
    for name in ("tokens", "token_coords"):
        pieces = tensors_of(together)[name].split(counts)
        for cloud, piece in zip(make_clouds(), pieces, strict=True):
            require_close(
                piece,
                tensors_of(encode_cloud(encoder, cloud))[name],
                what=f"{name} of a cloud of {len(cloud)} points, alone as in a batch",
                fix="Choose the tokens of a cloud from its own points.",
            )


def _require_level_shapes(encoder: PointEncoder, batch: PointBatch, level: Level) -> None:
    count, width = level.features.shape
    got = (tuple(level.coords.shape), tuple(level.grid_coords.shape), level.grid_coords.dtype)
    require(
        got == ((count, 3), (count, 3), torch.int64)
        and (level.stride > 1 or width == encoder.out_channels),
        expected=f"coords ({count}, 3), grid_coords ({count}, 3) int64 for each of {count} voxels, "
        f"the finest ones {encoder.out_channels} wide",
        got=f"{got}, {width} wide",
        fix="Each voxel has a place; the finest are as wide as point features.",
    )
    steps = torch.diff(level.offsets, prepend=level.offsets.new_zeros(1))
    fits = level.offsets.dtype == torch.int64 and level.offsets.shape == batch.offsets.shape
    require(
        fits and bool((steps > 0).all()) and int(level.offsets[-1]) == count,
        expected=f"int64 offsets that cut {count} voxels into {batch.num_clouds} groups",
        got=f"{level.offsets.tolist()} of {level.offsets.dtype}",
        fix="Offsets are cumulative voxel counts without a leading zero.",
    )


def _require_level_in_place(batch: PointBatch, level: Level) -> None:
    """Hold that every point has the centre of a voxel nearby, and voxels differ."""
    counts = torch.diff(level.offsets, prepend=level.offsets.new_zeros(1)).tolist()
    groups = zip(
        batch.split(batch.coords),
        level.coords.split(counts),
        level.grid_coords.split(counts),
        strict=True,
    )
    for coords, places, grid in groups:
        require(
            len(grid.unique(dim=0)) == len(grid),
            expected="voxels that differ",
            got=f"{len(grid)} with {len(grid.unique(dim=0))} different ones",
            fix="Return each voxel of a cloud once.",
        )
        edge = _voxel_edge(places, grid)
        far = float((coords[:, None] - places).abs().amax(dim=2).amin(dim=1).max())
        require(
            edge is None or far <= edge / 2 + SLACK,
            expected=f"a voxel around every point, {edge} across",
            got=f"a point {far:g} from the nearest centre",
            fix="Return the centres in the frame of the batch, cloud after cloud.",
        )


def _voxel_edge(places: Tensor, grid: Tensor) -> float | None:
    """Return how far apart the centres of voxels that follow each other are; None for one voxel."""
    spans = (grid.amax(dim=0) - grid.amin(dim=0)).tolist()
    axis = max(range(3), key=spans.__getitem__)
    if spans[axis] == 0:
        return None
    reach = float(places[:, axis].max() - places[:, axis].min())
    return reach / int(spans[axis])


def _require_levels_alone_as_in_batch(encoder: PointEncoder, together: EncoderOutput) -> None:
    split = [
        level.features.split(torch.diff(level.offsets, prepend=level.offsets.new_zeros(1)).tolist())
        for level in together.levels
    ]
    for number, cloud in enumerate(make_clouds()):
        for pieces, level in zip(split, encode_cloud(encoder, cloud).levels, strict=True):
            require_close(
                pieces[number],
                level.features,
                what=f"voxels of a cloud of {len(cloud)} points, alone as in a batch",
                fix="Choose and compute the voxels of a cloud from its own points.",
            )
