"""Edge convolution: a shared MLP on [x_j - x_i, x_i] for every neighbour j, then the maximum.

Y. Wang et al., arXiv 1801.07829, section 3.1; M.-H. Guo et al., arXiv 2012.09688, section 3.4, use
the same under the name of neighbour embedding. Without making the (T, K, 2C) edges:

- the first layer is linear, W [x_j - x_i, x_i] = A x_j + (B - A) x_i for W = [A, B]: two products
  per point instead of one per edge;
- mean and variance over all T K edges follow from those two and from the sum over the neighbours of
  each point;
- normalisation and activation are monotonic, so that they may follow the maximum (the minimum
  where a channel's gain is negative).

Shape legend: N points, T targets (some or all of the points), K neighbours, C and D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pointzoo import ops


@dataclass(frozen=True, eq=False)
class Graph:
    """Whose neighbours are looked at.

    Attributes:
        members: (T, K) rows of the points that are the neighbours of each target.
        offsets: (B,) cumulative numbers of targets.
        targets: (T,) rows of the targets among the points; None where every point is one.
    """

    members: Tensor
    offsets: Tensor
    targets: Tensor | None = None


class EdgeConv(nn.Module):
    """See the top of the file; every layer is a linear one, a batch normalisation, a (leaky) ReLU.

    It computes in the precision of the weights, also under autocast: what the first layer takes
    apart and adds again is much larger than the differences that it is about, and converting the
    edges of the others costs more than it saves.
    """

    def __init__(self, inputs: int, widths: Sequence[int], slope: float) -> None:
        """Build the layers.

        Args:
            inputs: C.
            widths: Widths of the layers; the last is D.
            slope: Of the activation below 0.
        """
        super().__init__()
        self.slope = slope
        self.linears = nn.ModuleList(
            nn.Linear(a, b, bias=False) for a, b in pairwise([2 * inputs, *widths])
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)

    def forward(self, points: Tensor, graph: Graph) -> Tensor:
        """Return (T, D) from (N, C)."""
        with torch.autocast(points.device.type, enabled=False):
            near, own = self._apart(points)  # (N, D) each: A x and (B - A) x
            own = own if graph.targets is None else own[graph.targets]
            if len(self.linears) == 1:
                return self._pooled(near, own, graph)
            return self._deeper(near, own, graph)

    def _pooled(self, near: Tensor, own: Tensor, graph: Graph) -> Tensor:
        """Normalise, activate and take the maximum over near[members] + own, (T, D)."""
        norm = _batch_norm(self.norms[0])
        sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(near.dtype)
        best, total = ops.neighbor_pool(
            near, graph.members, graph.offsets, sign, total=norm.training
        )
        scale, shift = edge_norm(norm, near, own, total, graph.members)
        return nn.functional.leaky_relu((best + own) * scale + shift, self.slope, inplace=True)

    def _deeper(self, near: Tensor, own: Tensor, graph: Graph) -> Tensor:
        """Go through all layers edge by edge, then take the maximum, (T, D)."""
        norm, targets = _batch_norm(self.norms[0]), graph.members.shape
        total = None
        if norm.training:
            _, total = ops.neighbor_pool(near, graph.members, graph.offsets, total=True)
        scale, shift = edge_norm(norm, near, own, total, graph.members)
        edges = nn.functional.embedding(graph.members, near * scale)  # (T, K, D)
        edges = edges.add_((own * scale + shift)[:, None])
        rows = self._activate(edges.flatten(0, 1))  # (T K, D)
        for linear, following in zip(self.linears[1:], self.norms[1:], strict=True):
            rows = self._activate(following(linear(rows)))
        own_edges = torch.arange(len(rows), device=rows.device).view(targets)
        best, _ = ops.neighbor_pool(rows, own_edges, graph.offsets)
        return best

    def _apart(self, points: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.linears[0].weight
        assert isinstance(weight, Tensor)
        to_near, to_own = weight.chunk(2, dim=1)  # (D, C) each: A and B
        points = points.to(weight.dtype)
        own = nn.functional.linear(points, to_own - to_near)
        return nn.functional.linear(points, to_near), own

    def _activate(self, values: Tensor) -> Tensor:
        return nn.functional.leaky_relu(values, self.slope, inplace=True)


def edge_norm(
    norm: nn.BatchNorm1d, near: Tensor, own: Tensor, total: Tensor | None, members: Tensor
) -> tuple[Tensor, Tensor]:
    """Return scale and shift (D,) by which ``norm`` normalises ``near[members] + own[:, None]``.

    In training with the statistics of all T K edges, which also move the running ones.

    Args:
        norm: The batch normalisation.
        near: (N, D) what each point gives as a neighbour.
        own: (T, D) what each target adds to all of its edges.
        total: (T, D) sum of ``near`` over the neighbours; only training needs it.
        members: (T, K).
    """
    if norm.training:
        assert total is not None
        mean, variance = _edge_statistics(near, own, total, members)
        _follow(norm, mean.detach(), variance.detach(), members.numel())
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean, norm.running_var
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


def _edge_statistics(
    near: Tensor, own: Tensor, total: Tensor, members: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean and variance (D,) over the edges, from deviations so that nothing cancels."""
    edges = members.numel()
    mean_near, mean_own = total.sum(dim=0) / edges, own.mean(dim=0)
    uses = torch.bincount(members.flatten(), minlength=len(near)).to(near.dtype)
    near, own = near - mean_near, own - mean_own
    total = total - members.shape[1] * mean_near
    among_near = uses @ near.square() / edges
    mixed = (own * total).sum(dim=0) * (2.0 / edges)
    variance = among_near + own.square().mean(dim=0) + mixed
    return mean_near + mean_own, variance.clamp_min(0.0)


@torch.no_grad()
def _follow(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, edges: int) -> None:
    """Move the running statistics as :class:`torch.nn.BatchNorm1d` does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    # None: the average over all passes
    share = 1.0 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (edges / max(edges - 1, 1)), share)


def _batch_norm(module: nn.Module) -> nn.BatchNorm1d:
    assert isinstance(module, nn.BatchNorm1d)
    return module
