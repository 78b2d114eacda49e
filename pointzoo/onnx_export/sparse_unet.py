"""SparseUNet as a graph: voxels, and who is whose neighbour, are inputs.

A missing neighbour is -1, which ONNX counts from the end: the last row, which is 0, stands there.

Inputs, for S halvings of the resolution and s from 0, the finest level, to S:

- ``voxels (M_0, C)``: mean of the channels over the points of each voxel; none if nothing is read;
- ``neighbors_0 (M_0, 125)`` and ``neighbors_s (M_s, 27)``: the rows of the voxels around each, x
  slowest, z fastest, -1 for none;
- ``up_s (M_s,)`` for s < S: eight times the row of the voxel of level s + 1 that holds it, plus
  which eighth of that it is (4, 2, 1 where x, y, z are odd);
- ``voxel (N,)`` the row of each point's voxel; for trilinear point features ``corners (N, 8)`` and
  ``shares (N, 8)`` instead.

Shape legend: N points, M_s voxels of level s, K kernel offsets, I and O channels in and out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.encoders.sparse_blocks import Block, Down, Norm, Stage, Submanifold, Up
from pointzoo.encoders.sparse_unet import STEM_KERNEL, SparseUNet
from pointzoo.encoders.voxelize import VoxelGeometry
from pointzoo.onnx_export import layers
from pointzoo.onnx_export.graph import Array, Graph, Value
from pointzoo.ops.sparse import StrideMap, VoxelGrid


def feeds(encoder: SparseUNet, batch: PointBatch, geometry: VoxelGeometry) -> dict[str, Array]:
    """Return the inputs of the graph for a batch of one cloud; see the top of the file."""
    found: dict[str, Tensor] = {}
    if encoder.feature_channels:
        found["voxels"] = geometry.mean(batch.features).float()
    grid = geometry.grid
    for level in range(encoder.config.stages + 1):
        found[f"neighbors_{level}"] = _table(grid, STEM_KERNEL if level == 0 else 3)
        if level < encoder.config.stages:
            grid, stride_map = grid.down()
            found[f"up_{level}"] = _eighths(stride_map)
    if geometry.corners is None or geometry.weights is None:
        found["voxel"] = geometry.voxel
    else:
        found["corners"], found["shares"] = geometry.corners, geometry.weights.float()
    return {name: value.numpy() for name, value in found.items()}


def write(graph: Graph, encoder: SparseUNet) -> None:
    """Write the network down, from voxels to features."""
    depth = encoder.config.stages
    wide = graph.input("neighbors_0", np.int64, "voxels_0", STEM_KERNEL**3)
    tables = [graph.op("Gather", wide, _middle(), axis=1)] + [
        graph.input(f"neighbors_{level}", np.int64, f"voxels_{level}", 27)
        for level in range(1, depth + 1)
    ]
    ups = [graph.input(f"up_{s}", np.int64, f"voxels_{s}") for s in range(depth)]
    x = _submanifold(graph, encoder.stem, _read(graph, encoder, wide), wide)
    way: list[Value] = []
    for level, (down, stage) in enumerate(zip(encoder.down, encoder.enc, strict=True)):
        assert isinstance(down, Down)
        way.append(x)
        children = _children(graph, ups[level], tables[level + 1])
        x = _finish(graph, down.norm, _convolve(graph, x, down.weight, children))
        x = _stage(graph, stage, x, tables[level + 1])
    for level in reversed(range(depth)):
        up = encoder.up[level]
        assert isinstance(up, Up)
        x = _finish(graph, up.norm, _inverse(graph, x, up.weight, ups[level]))
        x = layers.joined(graph, (x, way.pop()))
        x = _stage(graph, encoder.dec[level], x, tables[level])
    layers.write_outputs(
        graph,
        encoder,
        _at_points(graph, encoder, x),
        layers.joined(graph, layers.mean_and_largest(graph, x)),
    )


def _read(graph: Graph, encoder: SparseUNet, wide: Value) -> Value:
    """Return what the stem reads, (M, C); colours come in 0..1."""
    width = encoder.feature_channels
    if width == 0:
        count = graph.op("Concat", graph.size(wide), np.array([1]), axis=0)
        return graph.op("Expand", np.float32(1), count)
    values = graph.input("voxels", np.float32, "voxels_0", width)
    ends = encoder.network_input(torch.stack([torch.zeros(width), torch.ones(width)]))
    return values * (ends[1] - ends[0]) + ends[0]  # it is linear in each channel


def _at_points(graph: Graph, encoder: SparseUNet, x: Value) -> Value:
    """Return (N, C) what the finest voxels ``x`` say about the points."""
    if encoder.config.point_features == "nearest":
        return graph.op("Gather", x, graph.input("voxel", np.int64, "points"))
    corners = graph.input("corners", np.int64, "points", 8)
    shares = graph.input("shares", np.float32, "points", 8)
    weights = graph.op("Unsqueeze", shares, np.array([1]))  # (N, 1, 8)
    blended = weights @ graph.op("Gather", x, corners)  # (N, 1, C)
    return graph.op("Squeeze", blended, np.array([1]))


def _stage(graph: Graph, stage: torch.nn.Module, x: Value, table: Value) -> Value:
    assert isinstance(stage, Stage)
    for block in stage.blocks:
        assert isinstance(block, Block)
        project = block.project
        shortcut = x if project is None else _submanifold(graph, project, x, table, relu=False)
        x = _submanifold(graph, block.conv1, x, table)
        x = _submanifold(graph, block.conv2, x, table, residual=shortcut)
    return x


def _submanifold(
    graph: Graph,
    layer: Submanifold,
    x: Value,
    table: Value,
    *,
    residual: Value | None = None,
    relu: bool = True,
) -> Value:
    """Return (M, O); ``table (M, K)`` says who is around each voxel."""
    if layer.kernel_size == 1:
        out = x @ layer.weight.detach()[0]
    else:
        slabs = graph.several("Split", layer.kernel_size, table, axis=1,
                              num_outputs=layer.kernel_size)  # fmt: skip
        parts = layer.weight.detach().chunk(layer.kernel_size)  # one x at a time: less memory
        out = _convolve(graph, x, parts[0], slabs[0])
        for part, slab in zip(parts[1:], slabs[1:], strict=True):
            out = out + _convolve(graph, x, part, slab)
    return _finish(graph, layer.norm, out, residual=residual, relu=relu)


def _convolve(graph: Graph, x: Value, weight: Tensor, table: Value) -> Value:
    """Return (M', O) sums of ``x[table[:, k]] @ weight[k]``; weight (K, I, O), table (M', K)."""
    kernel, inputs, outputs = weight.shape
    padded = graph.op("Concat", x, np.zeros((1, inputs), np.float32), axis=0)
    rows = graph.op("Gather", padded, table)  # (M', K, I)
    flat = graph.op("Reshape", rows, np.array([-1, kernel * inputs]))
    return flat @ weight.detach().reshape(kernel * inputs, outputs)


def _inverse(graph: Graph, x: Value, weight: Tensor, up: Value) -> Value:
    """Return (M, O) for the voxels that lie ``up (M,)`` in the coarse ones, ``x (M', I)``."""
    _, inputs, outputs = weight.shape
    beside = weight.detach().transpose(0, 1).reshape(inputs, 8 * outputs)
    each = graph.op("Reshape", x @ beside, np.array([-1, outputs]))  # (8 M', O)
    return graph.op("Gather", each, up)


def _children(graph: Graph, up: Value, coarse: Value) -> Value:
    """Return (M', 8) the rows of the voxels in each of the coarser ones, -1 for none."""
    none = graph.op("Expand", -1, graph.size(coarse) * 8)
    rows = graph.op("ScatterElements", none, up, graph.range(graph.size(up)))
    return graph.op("Reshape", rows, np.array([-1, 8]))


def _finish(
    graph: Graph, norm: Norm, x: Value, *, residual: Value | None = None, relu: bool = True
) -> Value:
    """Normalise, add the residual, cut off below 0."""
    scale, shift = layers.scale_and_shift(norm)
    x = x * scale.float() + shift.float()
    x = x if residual is None else x + residual
    return layers.activate(graph, x) if relu else x


def _middle() -> Array:
    """Return (27,) which of the offsets of the stem are those of a 3 x 3 x 3 kernel."""
    cube: Array = np.arange(STEM_KERNEL**3).reshape([STEM_KERNEL] * 3)
    edge = (STEM_KERNEL - 3) // 2
    inner = slice(edge, edge + 3)
    return cube[inner, inner, inner].reshape(-1)


def _table(grid: VoxelGrid, kernel_size: int) -> Tensor:
    """Return (M, K) the rows of the voxels around each, -1 for none."""
    pairs = grid.submanifold(kernel_size).pairs.list
    table = torch.full((grid.num_voxels, kernel_size**3), -1)
    table[pairs.outputs, _offsets(pairs.counts)] = pairs.inputs
    return table


def _eighths(stride_map: StrideMap) -> Tensor:
    """Return (M,) eight times the row of each voxel's parent, plus which eighth it is."""
    pairs = stride_map.up.list
    places = torch.empty(stride_map.num_voxels, dtype=torch.int64)
    places[pairs.outputs] = 8 * pairs.inputs + _offsets(pairs.counts)
    return places


def _offsets(counts: Sequence[int]) -> Tensor:
    """Return (P,) the kernel offset that each pair is of."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
