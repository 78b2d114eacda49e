"""DGCNN as a graph: neighbours in space and in feature space are found inside.

Shape legend: N points, N' points kept, K neighbours, L channels of all edge convolutions, E
embedding width.
"""

from __future__ import annotations

import numpy as np

from pointzoo.encoders.dgcnn import DGCNN, SLOPE
from pointzoo.encoders.edge_conv import EdgeConv
from pointzoo.onnx_export import layers, points
from pointzoo.onnx_export.graph import Graph, Value


def write(graph: Graph, encoder: DGCNN) -> None:
    """Write the network down, from coordinates to features."""
    config = encoder.config
    everywhere, channels = points.read_inputs(graph, encoder)
    kept = points.kept_points(graph, everywhere, config.max_points)
    coords, *channels = (graph.op("Gather", part, kept) for part in (everywhere, *channels))
    x = layers.joined(graph, (coords, *channels))
    found: list[Value] = []
    for conv in encoder.edge_convs:
        assert isinstance(conv, EdgeConv)
        where = x if found else coords
        members, _ = points.nearest(graph, where, where, config.neighbors, wide=bool(found))
        graph.note(members, np.int64)
        x = layers.edge_conv(graph, conv, x, members)
        found.append(x)
    local = layers.joined(graph, found)  # (N', L)
    wide = layers.normed(encoder.embedding, encoder.norm, local)
    mean, most = layers.mean_and_largest(graph, layers.activate(graph, wide, SLOPE))
    point = points.interpolated(graph, local, coords, everywhere)
    if config.context:
        rows = graph.op("Concat", graph.size(point), np.array([1]), axis=0)
        point = layers.joined(graph, (graph.op("Expand", most, rows), point))
    layers.write_outputs(graph, encoder, point, layers.joined(graph, (most, mean)))
