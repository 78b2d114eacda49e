"""3D-ViT as a graph: sampling, grouping and interpolation inside.

Shape legend: N points, N' points kept, T tokens, S = 1 + T with the class token, K points per
patch, D model width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointzoo.encoders.vit3d import Attention, Block, PatchEmbedding, ViT3D
from pointzoo.onnx_export import layers, points
from pointzoo.onnx_export.graph import Graph, Value


def write(graph: Graph, encoder: ViT3D) -> None:
    """Write the network down, from coordinates to features."""
    config = encoder.config
    everywhere, channels = points.read_inputs(graph, encoder)
    kept = points.kept_points(graph, everywhere, config.max_points)
    coords, *channels = (graph.op("Gather", part, kept) for part in (everywhere, *channels))
    count = graph.op("Max", graph.size(coords) / config.patch_points, np.array([1]))
    centres = graph.op("Gather", coords, points.farthest_points(graph, coords, count))  # (T, 3)
    members, _ = points.nearest(graph, centres, coords, config.patch_points)  # (T, K)
    grouped = [graph.op("Gather", part, members) for part in (coords, *channels)]  # (T, K, 3)
    x = _embedded(graph, encoder.patch_embedding, centres, grouped)
    x = graph.op("Concat", encoder.class_token.detach()[0], x, axis=0)  # (S, D)
    for block in encoder.blocks:
        assert isinstance(block, Block)
        x = x + _attended(graph, block.attention, layers.layer_norm(graph, block.norm1, x))
        hidden = layers.linear(block.mlp[0], layers.layer_norm(graph, block.norm2, x))
        x = x + layers.linear(block.mlp[2], layers.gelu(graph, hidden))
    x = layers.layer_norm(graph, encoder.norm, x)
    head = graph.op("Gather", x, np.array([0]))  # (1, D)
    tokens = graph.op("Slice", x, np.array([1]), graph.size(x))
    scene = layers.linear(encoder.output, head)
    pooled = layers.mean_and_largest(graph, tokens)
    layers.write_outputs(
        graph,
        encoder,
        points.interpolated(graph, tokens, centres, everywhere),
        layers.joined(graph, (scene, *pooled)),
    )


def _embedded(
    graph: Graph, embedding: PatchEmbedding, centres: Value, grouped: Sequence[Value]
) -> Value:
    """Return the tokens (T, D) of patches ``grouped`` (T, K, 3) of coordinates and channels."""
    members, *channels = grouped
    centre = graph.op("Unsqueeze", centres, np.array([1]))  # (T, 1, 3)
    relative = (members - centre) / embedding.radius
    beside = graph.op("Expand", centre, graph.op("Shape", members))
    rows = graph.op("Concat", relative, beside, *channels, axis=2)
    rows = layers.perceptron(graph, embedding.mlp, rows)
    best = layers.largest(graph, layers.linear(embedding.last, rows), 1)  # (T, D)
    scale, shift = layers.scale_and_shift(embedding.norm)
    return layers.activate(graph, best * scale.float() + shift.float())


def _attended(graph: Graph, attention: Attention, x: Value) -> Value:
    """Return self-attention (S, D) among the rows of ``x (S, D)``."""
    width = attention.proj.in_features
    each = width // attention.heads
    parts = graph.several("Split", 3, layers.linear(attention.qkv, x), axis=1, num_outputs=3)
    shape = np.array([-1, attention.heads, each])
    query, key, value = (graph.op("Reshape", part, shape) for part in parts)  # (S, H, d)
    query = graph.op("Transpose", query * float(each**-0.5), perm=[1, 0, 2])
    key = graph.op("Transpose", key, perm=[1, 2, 0])  # (H, d, S)
    weights = graph.op("Softmax", query @ key, axis=2)
    out = weights @ graph.op("Transpose", value, perm=[1, 0, 2])  # (H, S, d)
    flat = graph.op("Reshape", graph.op("Transpose", out, perm=[1, 0, 2]), np.array([-1, width]))
    return layers.linear(attention.proj, flat)
