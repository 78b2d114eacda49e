"""What the object encoders do with points, as graphs: the same results as :mod:`pointzoo.ops`.

Distances are added in the same order as there, and of equal ones the lowest row comes first, which
ONNX promises for ``TopK`` and ``ArgMax``: the same points are picked, not only similar ones.

Shape legend: N points, T picked points, Q queries, P points searched, C channels, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointzoo.encoders.base import PointEncoder
from pointzoo.onnx_export.graph import Graph, Value

QUERIES = 512
"""Queries that are searched for at once; their distances to all points are in memory."""


def read_inputs(graph: Graph, encoder: PointEncoder) -> tuple[Value, list[Value]]:
    """Declare what a cloud has; return its normalised coordinates and its channels, (N, 3) each."""
    coords = graph.input("coords", np.float64, "points", 3)
    names = encoder.config.channels
    channels = [graph.input(name, np.float32, "points", 3) for name in names]
    return normalised(graph, coords, encoder.config.normalize), channels


def normalised(graph: Graph, coords: Value, normalize: str) -> Value:
    """Return (N, 3) float32; see :func:`pointzoo.encoders.base.normalize_coords`."""

    def not_zero(value: Value) -> Value:
        zero = graph.op("Equal", value, np.float64(0))
        return graph.op("Where", zero, np.float64(1), value)

    reach = not_zero(graph.op("ReduceMax", graph.op("Abs", coords), keepdims=0))
    scaled = coords / reach
    scaled = scaled - graph.op("ReduceMin", scaled, np.array([0]))
    centred = scaled - graph.op("ReduceMean", scaled, np.array([0]))
    if normalize == "center":
        return graph.cast(centred * reach, np.float32)
    centred = centred / not_zero(graph.op("ReduceMax", graph.op("Abs", centred), keepdims=0))
    squares = graph.op("ReduceSum", centred * centred, np.array([1]))
    radius = not_zero(graph.op("Sqrt", graph.op("ReduceMax", squares, keepdims=0)))
    return graph.cast(centred / radius, np.float32)


def farthest_points(graph: Graph, coords: Value, count: Value) -> Value:
    """Return (T,) rows of ``coords (N, 3)`` for ``count (1,)``; see ``ops.sampling``."""
    axes = graph.op("Transpose", coords, perm=[1, 0])  # (3, N)

    def distances(centre: Value) -> Value:
        return _squared(graph, axes, centre, axis=0)

    exact = graph.op("ReduceMean", graph.cast(axes, np.float64), np.array([1]))
    first = graph.op("ArgMax", distances(graph.cast(exact, np.float32)), axis=1)  # (1, 1)
    far = graph.op("Expand", np.float32(np.inf), graph.size(coords))

    def body(_: Value, nearest: Value, pick: Value) -> tuple[list[Value], list[Value]]:
        away = graph.op("Squeeze", distances(graph.op("Gather", axes, pick, axis=1)), np.array([0]))
        nearest = graph.op("Min", nearest, away)
        nearest = graph.op("ScatterElements", nearest, pick, np.array([-1.0], np.float32))
        return [nearest, graph.op("ArgMax", nearest, axis=0)], [pick]

    pick = graph.op("Reshape", first, np.array([1]))
    start: dict[Value, type[np.generic]] = {far: np.float32, pick: np.int64}
    (picks,) = graph.loop(count, start, body)
    return graph.op("Reshape", picks, np.array([-1]))


def kept_points(graph: Graph, coords: Value, most: int) -> Value:
    """Return (N',) rows: all of them, or ``most`` spread evenly; in the order of the cloud."""
    size = graph.size(coords)
    large = graph.cast(graph.op("Greater", size, most), np.int64)  # (1,) 0 or 1
    # a loop of no round would be warned of: a small cloud gets one pick, and does not use it
    count = large * most
    picks = farthest_points(graph, coords, graph.op("Max", count, np.array([1])))
    chosen, _ = graph.several("TopK", 2, picks, count, largest=0)
    every = graph.range(size * (graph.constant(1) - large))
    return graph.op("Concat", chosen, every, axis=0)


def nearest(
    graph: Graph, query: Value, points: Value, k: int, *, wide: bool = False
) -> tuple[Value, Value]:
    """Return rows (Q, K) of ``points`` and squared distances (Q, K), in order of distance.

    Args:
        graph: Where this goes.
        query: (Q, C).
        points: (P, C).
        k: K; where there are fewer points, they are repeated from the nearest on.
        wide: C is more than 3: distances are products of matrices, in float64.
    """
    asked = graph.size(query)
    step = graph.op("Min", asked, np.array([QUERIES]))
    rounds = (asked + step - 1) / step
    width = graph.size(query, 1)
    missing = graph.op("Concat", rounds * step - asked, width, axis=0)
    zeros = graph.op("Expand", np.float32(0), missing)
    rows = graph.op("Concat", query, zeros, axis=0)
    parts = graph.op("Reshape", rows, graph.op("Concat", rounds, step, width, axis=0))
    kept = graph.op("Min", graph.size(points), np.array([k]))
    measure = _products(graph, points) if wide else _differences(graph, points)

    def body(number: Value) -> tuple[list[Value], list[Value]]:
        distance = measure(graph.op("Gather", parts, number))  # (step, P)
        return [], graph.several("TopK", 2, distance, kept, largest=0)

    found = graph.loop(rounds, {}, body)  # values, rows: (rounds, step, kept)
    flat = graph.op("Concat", np.array([-1]), kept, axis=0)
    flattened = (graph.op("Reshape", part, flat) for part in found)
    cut = [graph.op("Slice", part, np.array([0]), asked) for part in flattened]
    wrap = graph.op("Mod", np.arange(k), kept)
    near, index = (graph.op("Gather", part, wrap, axis=1) for part in cut)
    return index, near


def interpolated(graph: Graph, values: Value, sources: Value, targets: Value) -> Value:
    """Carry values (T, C) from sources (T, 3) to targets (N, 3); see ``ops.interpolate``."""
    k = 3
    index, distance = nearest(graph, targets, sources, k)
    first = graph.op("Slice", distance, np.array([0]), np.array([1]), np.array([1]))
    zero = np.zeros((), np.float32)
    coincide = graph.cast(graph.op("Equal", distance, zero), np.float32)
    weight = graph.op("Where", graph.op("Equal", first, zero), coincide, first / distance)
    once = graph.op("Less", np.arange(k), graph.size(sources))  # not a repeated neighbour
    weight = graph.op("Where", once, weight, zero)
    weight = weight / graph.op("ReduceSum", weight, np.array([1]))
    total: Value | None = None
    rows, shares = graph.columns(index, k), graph.columns(weight, k)
    for row, share in zip(rows, shares, strict=True):
        at = graph.op("Squeeze", row, np.array([1]))
        part = graph.op("Gather", values, at) * share
        total = part if total is None else total + part
    assert total is not None
    return total


def _squared(graph: Graph, a: Value, b: Value, axis: int) -> Value:
    """Return the squared distance over ``axis``, of size 3; in order, one sum after the other."""
    away = a - b
    x, y, z = graph.several("Split", 3, away * away, axis=axis, num_outputs=3)
    return (x + y) + z


def _differences(graph: Graph, points: Value) -> Callable[[Value], Value]:
    """Return a function from queries (S, 3) to their squared distances (S, P)."""
    rows = graph.op("Transpose", points, perm=[1, 0])
    axes = graph.several("Split", 3, rows, axis=0, num_outputs=3)  # (1, P) each

    def measure(query: Value) -> Value:
        away = [q - p for q, p in zip(graph.columns(query, 3), axes, strict=True)]
        x, y, z = (a * a for a in away)
        return (x + y) + z

    return measure


def _products(graph: Graph, points: Value) -> Callable[[Value], Value]:
    """Do the same for any number of channels; float64 leaves enough digits to the difference."""
    exact = graph.cast(points, np.float64)
    turned = graph.op("Transpose", exact, perm=[1, 0])  # (C, P)
    norms = graph.op("ReduceSum", turned * turned, np.array([0]))  # (1, P)

    def measure(query: Value) -> Value:
        rows = graph.cast(query, np.float64)
        own = graph.op("ReduceSum", rows * rows, np.array([1]))  # (S, 1)
        return graph.cast((own - (rows @ turned) * np.float64(2)) + norms, np.float32)

    return measure
