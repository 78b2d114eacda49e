"""Layers that several networks have, as graphs.

Shape legend: T rows, K neighbours, C and D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.edge_conv import EdgeConv
from pointzoo.onnx_export.graph import Graph, Value


def linear(layer: nn.Module, x: Value) -> Value:
    """Apply a linear layer."""
    assert isinstance(layer, nn.Linear)
    product = x @ layer.weight.detach().T
    return product if layer.bias is None else product + layer.bias


def layer_norm(graph: Graph, norm: nn.Module, x: Value) -> Value:
    """Apply a layer normalisation to the last axis."""
    assert isinstance(norm, nn.LayerNorm)
    return graph.op("LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


def gelu(graph: Graph, x: Value) -> Value:
    """Return x Phi(x), with the error function as in PyTorch."""
    return x * (graph.op("Erf", x / float(np.sqrt(2.0))) + 1.0) * 0.5


def activate(graph: Graph, x: Value, slope: float = 0.0) -> Value:
    """Apply a ReLU, or a leaky one."""
    return graph.op("LeakyRelu", x, alpha=slope) if slope else graph.op("Relu", x)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a batch normalisation does in evaluation: two (C,), float64."""
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.detach().double() * (norm.running_var.double() + norm.eps).rsqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def normed(layer: nn.Module, norm: nn.Module, x: Value) -> Value:
    """Apply a linear layer without bias and a batch normalisation, folded into one."""
    assert isinstance(layer, nn.Linear)
    scale, shift = scale_and_shift(norm)
    weight = layer.weight.detach().double().T * scale  # (C, D)
    return x @ weight.float() + shift.float()


def perceptron(graph: Graph, layers: nn.Sequential, x: Value) -> Value:
    """Apply linear layers, each with a batch normalisation and a ReLU behind it."""
    steps = list(layers)
    for layer, norm in zip(steps[0::3], steps[1::3], strict=True):
        x = activate(graph, normed(layer, norm, x))
    return x


def edge_conv(
    graph: Graph, conv: EdgeConv, x: Value, members: Value, targets: Value | None = None
) -> Value:
    """Return (T, D) of an edge convolution; the first layer is taken apart as it does itself.

    Args:
        graph: Where this goes.
        conv: The layer.
        x: (N, C) points.
        members: (T, K) rows of the neighbours.
        targets: (T,) rows of the targets; None where every point is one.
    """
    first = conv.linears[0]
    assert isinstance(first, nn.Linear)
    scale, shift = scale_and_shift(conv.norms[0])
    to_near, to_own = first.weight.detach().double().chunk(2, dim=1)  # (D, C) each
    near = x @ (to_near.T * scale).float()
    own = x if targets is None else graph.op("Gather", x, targets)
    own = own @ ((to_own - to_near).T * scale).float() + shift.float()  # (T, D)
    edges = graph.op("Gather", near, members)  # (T, K, D)
    if len(conv.linears) == 1:  # the rest is monotonic
        return activate(graph, largest(graph, edges, 1) + own, conv.slope)
    edges = activate(graph, edges + graph.op("Unsqueeze", own, np.array([1])), conv.slope)
    for layer, norm in zip(conv.linears[1:], conv.norms[1:], strict=True):
        edges = activate(graph, normed(layer, norm, edges), conv.slope)
    return largest(graph, edges, 1)


def largest(graph: Graph, x: Value, axis: int, *, keep: bool = False) -> Value:
    """Return the maximum over an axis."""
    return graph.op("ReduceMax", x, np.array([axis]), keepdims=int(keep))


def joined(graph: Graph, parts: Sequence[Value], axis: int = 1) -> Value:
    """Put values side by side."""
    return graph.op("Concat", *parts, axis=axis)


def mean_and_largest(graph: Graph, x: Value) -> tuple[Value, Value]:
    """Return mean and maximum over the rows, (1, C) each."""
    return graph.op("ReduceMean", x, np.array([0])), largest(graph, x, 0, keep=True)


def write_outputs(graph: Graph, encoder: PointEncoder, point: Value, scene: Value) -> None:
    """Declare point features (N, C), and the scene feature as a vector (D,), from (1, D)."""
    graph.output("point", point, "points", encoder.out_channels)
    vector = graph.op("Reshape", scene, np.array([-1]))
    graph.output("scene", vector, encoder.scene_channels)
