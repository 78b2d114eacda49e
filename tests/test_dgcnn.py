"""DGCNN and its edge convolution against a plain second implementation, edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.encoders.dgcnn import DGCNN, DGCNNConfig
from pointzoo.encoders.edge_conv import EdgeConv, Graph
from pointzoo.encoders.registry import ARCHITECTURES, build
from pointzoo.errors import CloudError, ConfigError

SIZES = (70, 1, 33, 5)


def settle(module: nn.Module) -> None:
    """Give every tensor values that matter, gains of both signs among them."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) - 0.5
            wide = 3.0 / value.shape[1] ** 0.5 if value.ndim > 1 else 1.6
            value.copy_(noise * wide + float(name.endswith("running_var")))


def make(**changes: object) -> DGCNN:
    encoder = build("dgcnn_test", **changes).double()
    settle(encoder)
    return encoder


def make_batch(encoder: DGCNN, sizes: tuple[int, ...] = SIZES) -> PointBatch:
    generator = torch.Generator().manual_seed(1)
    width = encoder.in_channels
    rows = [torch.randn(n, width, generator=generator, dtype=torch.float64) for n in sizes]
    return PointBatch.collate([r[:, :3] for r in rows], [r[:, 3:] for r in rows])


def plain_neighbours(x: Tensor, k: int) -> Tensor:
    order = (x[:, None] - x).square().sum(dim=2).argsort(dim=1, stable=True)
    return order[:, torch.arange(k) % len(x)]


def plain_conv(conv: EdgeConv, edges: Tensor) -> Tensor:
    """Run the layers of a convolution on literal edges (T, K, 2C), with PyTorch's normalisation."""
    rows = edges.flatten(0, 1)
    for linear, norm in zip(conv.linears, conv.norms, strict=True):
        rows = nn.functional.leaky_relu(norm(rows @ linear.weight.T), conv.slope)
    return rows.unflatten(0, edges.shape[:2]).amax(dim=1)


def plain(encoder: DGCNN, coords: Tensor, extra: Tensor) -> dict[str, Tensor]:
    """Compute one cloud the long way, in evaluation."""
    k, x, found = encoder.config.neighbors, torch.cat([coords, extra], dim=1), []
    for conv in encoder.edge_convs:
        members = plain_neighbours(x if found else coords, k)
        own = x[:, None].expand(-1, k, -1)
        x = plain_conv(conv, torch.cat([x[members] - own, own], dim=2))
        found.append(x)
    local = torch.cat(found, dim=1)
    wide = nn.functional.leaky_relu(encoder.norm(encoder.embedding(local)), 0.2)
    largest = wide.amax(dim=0)
    context = largest.expand(len(local), -1) if encoder.config.context else local[:, :0]
    return {
        "scene": torch.cat([largest, wide.mean(dim=0)]),
        "point": torch.cat([context, local], dim=1),
    }


@pytest.mark.parametrize(
    "changes",
    [{}, {"channels": ("normals", "colors")}, {"context": False}, {"depths": (1, 1)},
     {"depths": (3, 1)}],
)  # fmt: skip
@torch.no_grad()
def test_it_computes_what_the_paper_says(changes):
    encoder = make(**changes)
    batch = make_batch(encoder)
    output = encoder(batch)
    clouds = zip(batch.split(batch.coords), batch.split(batch.features), strict=True)
    for b, (coords, extra) in enumerate(clouds):
        expected = plain(encoder, coords, extra)
        got = {"scene": output.scene[b], "point": batch.split(output.point)[b]}
        for name, value in got.items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-10, err_msg=name)


def edge_case(depth: int, *, some: bool) -> tuple[EdgeConv, Tensor, Graph]:
    """Return a convolution in training, points far from the origin, and a graph of two clouds."""
    generator = torch.Generator().manual_seed(2)
    conv = EdgeConv(5, [7] * depth, 0.2).double()
    settle(conv)
    points = torch.randn(50, 5, generator=generator, dtype=torch.float64) + 20.0
    targets = torch.tensor([3, 11, 29, 30, 48]) if some else torch.arange(50)
    size, of_first = len(targets), int((targets < 30).sum())
    members = torch.randint(0, 30, (size, 4), generator=generator)
    members[of_first:] = torch.randint(30, 50, (size - of_first, 4), generator=generator)
    cut = torch.tensor([of_first, size])
    return conv.train(), points, Graph(members, cut, targets if some else None)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("some", [False, True])
def test_a_training_step_equals_the_literal_edges(depth, some, momentum):
    """Outputs, running statistics and all gradients, with statistics over all T K edges."""
    found = []
    for literal in (True, False):
        conv, points, graph = edge_case(depth, some=some)
        points.requires_grad_()
        for norm in conv.norms:
            norm.momentum = momentum
        if literal:
            own = (points[graph.targets] if some else points)[:, None].expand(-1, 4, -1)
            out = plain_conv(conv, torch.cat([points[graph.members] - own, own], dim=2))
        else:
            out = conv(points, graph)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        (out.square() * weights).sum().backward()
        gradients = [p.grad for p in conv.parameters()]
        found.append([out.detach(), points.grad, *gradients, *conv.buffers()])
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_statistics_do_not_cancel_far_from_the_origin():
    conv, points, graph = edge_case(1, some=False)
    exact = conv(points + 500.0, graph)
    single = conv.float()(points.float() + 500.0, graph)
    # coordinates of 520 in float32 have an error of 3e-5; squares would have one of 3e-2
    np.testing.assert_allclose(single.detach(), exact.detach(), atol=2e-3)


def test_a_large_cloud_is_thinned_and_its_features_come_back():
    encoder = make(max_points=20, context=False)
    batch = make_batch(encoder, (60, 15))
    geometry = encoder.geometry(batch)
    assert torch.diff(geometry.offsets, prepend=torch.zeros(1)).tolist() == [20, 15]
    output = encoder(batch, geometry=geometry)
    kept = PointBatch.collate([batch.coords[geometry.rows[:20]]])
    alone = encoder(kept)
    np.testing.assert_allclose(output.scene[0].detach(), alone.scene[0].detach(), atol=1e-12)
    at_kept = output.point[geometry.rows[:20]].detach()
    np.testing.assert_allclose(at_kept, alone.point.detach(), atol=1e-12)
    assert output.point.shape == (75, encoder.out_channels)


def test_the_graph_of_the_first_layer_knows_space_only():
    encoder = make(channels=("colors",))
    batch = make_batch(encoder, (40,))
    other = PointBatch(batch.coords, batch.features.flip(0), batch.offsets)
    assert torch.equal(encoder.geometry(batch).members, encoder.geometry(other).members)


def test_sizes_of_the_papers_networks():
    assert ARCHITECTURES["dgcnn"].config == DGCNNConfig()
    with torch.device("meta"):
        whole, blocks = build("dgcnn"), build("dgcnn_semseg")
    assert (whole.out_channels, whole.scene_channels) == (512, 2048)
    assert (blocks.out_channels, blocks.scene_channels) == (1216, 2048)
    shapes = [tuple(conv.linears[0].weight.shape) for conv in blocks.edge_convs]
    assert shapes == [(64, 6), (64, 128), (64, 128)]
    assert [len(conv.linears) for conv in blocks.edge_convs] == [2, 2, 1]


@pytest.mark.parametrize(
    "changes",
    [{"widths": (8, 0)}, {"widths": (8,)}, {"widths": (), "depths": ()}, {"neighbors": 0},
     {"embedding": 0}, {"max_points": 0}, {"depths": (1, 0)}],
)  # fmt: skip
def test_sizes_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        build("dgcnn_test", **changes)


def test_another_width_of_the_batch_is_refused():
    with pytest.raises(CloudError, match="3 channels"):
        build("dgcnn_test", channels=("colors",))(PointBatch.stack(torch.zeros(1, 9, 3)))
