"""A linear head fitted on features that are computed once, which takes seconds.

Shape legend: R rows, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo.cloud import PointCloud
from pointzoo.features import evaluating, extract
from pointzoo.finetuning.classification import Classification
from pointzoo.finetuning.config import FinetuneConfig
from pointzoo.finetuning.data import Items, class_weights
from pointzoo.finetuning.heads import Head
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.segmentation import Segmentation, point_labels
from pointzoo.finetuning.task import Item
from pointzoo.tasks.scene_probe import LinearProbe, fit_probe


def is_closed_form(network: Network, config: FinetuneConfig) -> bool:
    """Say whether a head can be fitted without steps of gradient descent over the clouds."""
    return config.method == "linear" and _has_linear_head(network)


def fits_first(network: Network, config: FinetuneConfig) -> bool:
    """Say whether a training by steps starts from the head that :func:`fit_linear` finds."""
    by_steps = config.method in ("lora", "full")
    return bool(config.probe_first) and by_steps and _has_linear_head(network)


def _has_linear_head(network: Network) -> bool:
    return type(network.task) in (Segmentation, Classification)


def fit_linear(
    network: Network,
    items: Items,
    rows: Tensor,
    config: FinetuneConfig,
    *,
    seed: int,
    after_cloud: Callable[[], object] = lambda: None,
) -> None:
    """Fit the head of a network by multinomial logistic regression on frozen features.

    Every training cloud is seen once, as it is: the features of up to ``sample_points`` random
    labelled points, or its scene feature.

    Args:
        network: Its head is changed.
        items: The training clouds.
        rows: Those with labels.
        config: Settings.
        seed: Of the choice of the points.
        after_cloud: Called after every cloud.

    Raises:
        CloudError: A cloud cannot be used.
        WeightError: The encoder gives NaN.
    """
    features, labels = [], []
    with evaluating(network):
        for row in rows.tolist():
            generator = np.random.default_rng([seed, 4, row])
            found = _features(network, items[row], config.sample_points, generator)
            features.append(found[0])
            labels.append(found[1])
            after_cloud()
    weights = class_weights(items, rows.numpy(), config)
    probe = fit_probe(
        torch.cat(features),
        torch.cat(labels),
        len(network.task.class_names),
        penalty=config.penalty,
        class_weights=weights,
    )
    set_head(network, probe)


def set_head(network: Network, probe: LinearProbe) -> None:
    """Put a fitted classifier into a linear head: the standardisation goes into its weights."""
    head = network.head
    assert isinstance(head, Head), "a task with a linear head"
    layer = head.layers
    assert isinstance(layer, nn.Linear), "method linear"
    weight = probe.weight / probe.scale[:, None]  # (C, K)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(probe.bias - probe.mean @ weight)


def _features(
    network: Network, item: Item, points: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return features (R, C) and labels (R,) of a cloud."""
    cloud: PointCloud = item.cloud
    if not network.task.reads_points:
        scene = extract(network.encoder, cloud).scene
        return torch.from_numpy(scene)[None], torch.tensor([item.label])
    features = torch.from_numpy(network.features(cloud))
    labels = point_labels(item, len(network.task.class_names))
    known = np.flatnonzero(labels.numpy() >= 0)
    chosen = torch.from_numpy(generator.permutation(known)[:points])
    return features[chosen], labels[chosen]
