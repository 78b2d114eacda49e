"""PCT as a graph: both samplings, the neighbours and the interpolation inside.

Shape legend: N points, N' points kept, T tokens, D width of the transformer.
"""

from __future__ import annotations

import numpy as np

from pointzoo.encoders.edge_conv import EdgeConv
from pointzoo.encoders.pct import EPSILON, PCT, SLOPE, OffsetAttention
from pointzoo.onnx_export import layers, points
from pointzoo.onnx_export.graph import Graph, Value


def write(graph: Graph, encoder: PCT) -> None:
    """Write the network down, from coordinates to features."""
    config = encoder.config
    everywhere, channels = points.read_inputs(graph, encoder)
    kept = points.kept_points(graph, everywhere, config.max_points)
    coords, *channels = (graph.op("Gather", part, kept) for part in (everywhere, *channels))
    x = layers.perceptron(graph, encoder.embedding, layers.joined(graph, (coords, *channels)))
    size = graph.size(coords)
    for step, (group, most) in enumerate(zip(encoder.groups, config.samples, strict=True), start=1):
        assert isinstance(group, EdgeConv)
        count = graph.op("Clip", size / 2**step, 1, most)
        targets = points.farthest_points(graph, coords, count)
        centres = graph.op("Gather", coords, targets)
        members, _ = points.nearest(graph, centres, coords, config.neighbors)
        x = layers.edge_conv(graph, group, x, members, targets)
        coords = centres
    tokens = _transformed(graph, encoder, x)  # (T, fused)
    scene = layers.largest(graph, tokens, 0, keep=True)
    point = points.interpolated(graph, tokens, coords, everywhere)
    layers.write_outputs(graph, encoder, point, scene)


def _transformed(graph: Graph, encoder: PCT, embedded: Value) -> Value:
    x, found = layers.perceptron(graph, encoder.before, embedded), []
    for layer in encoder.attention:
        assert isinstance(layer, OffsetAttention)
        x = _attended(graph, layer, x)
        found.append(x)
    together = layers.joined(graph, (*found, embedded))
    fused = layers.normed(encoder.fuse, encoder.norm, together)
    return layers.activate(graph, fused, SLOPE)


def _attended(graph: Graph, layer: OffsetAttention, x: Value) -> Value:
    """Return offset attention (T, D); see :class:`pointzoo.encoders.pct.OffsetAttention`."""
    query = layers.linear(layer.query, x)
    scores = query @ graph.op("Transpose", query, perm=[1, 0])  # (T, T): query, key
    weights = graph.op("Softmax", scores, axis=1)
    weights = weights / (graph.op("ReduceSum", weights, np.array([0])) + EPSILON)
    turned = graph.op("Transpose", weights, perm=[1, 0])
    attended = turned @ layers.linear(layer.value, x)
    return x + layers.activate(graph, layers.normed(layer.out, layer.norm, x - attended))
