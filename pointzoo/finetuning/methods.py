"""What learns under each method, in which mode, and at which rate.

========= ============================= ===================================================
method    learns                        batch normalisation of the encoder
========= ============================= ===================================================
linear    the head                      as the encoder has it
decoder   the head                      as the encoder has it
lora      the head, low-rank additions, running statistics as the encoder has them; scale and
          scale and shift of all norms  shift learn
full      everything                    statistics of the batch; measured anew before the
                                        network is judged or saved
========= ============================= ===================================================

Parts of an encoder are its modules one below the root, list entries counted one by one
(``blocks.3``), in the order in which they run on the bundled sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.features import evaluating, extract
from pointzoo.finetuning.config import FinetuneConfig
from pointzoo.finetuning.lora import add_adapters
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.task import Task
from pointzoo.weights import sample_cloud


def build_network(
    encoder: PointEncoder, task: Task[Any], config: FinetuneConfig, *, seed: int
) -> Network:
    """Put the head on an encoder, and say what learns.

    Args:
        encoder: Is changed where the method changes it.
        task: The task.
        config: Settings.
        seed: Of the head and the additions.

    Raises:
        ConfigError: More parts are to be frozen than there are.
    """
    decoder = config.method == "decoder"
    order = run_order(encoder)  # before adapters hide the parameters
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(
            encoder,
            task,
            reads="levels" if decoder else config.reads,
            hidden=config.hidden * decoder,
        )
        encoder.requires_grad_(config.method == "full")
        if config.method == "lora":
            add_adapters(encoder, config.rank)
    if config.freeze >= len(order) and config.freeze:
        raise ConfigError(
            expected=f"fewer than {len(order)} frozen parts: {', '.join(order)}",
            got=str(config.freeze),
            fix="To freeze the whole encoder use method='decoder' or 'linear'.",
        )
    for part in order[: config.freeze]:
        for name, parameter in encoder.named_parameters():
            if _part_of_parameter(name) == part:
                parameter.requires_grad_(False)
    return network


def set_modes(network: Network, config: FinetuneConfig) -> None:
    """Set every module to the mode it trains in; frozen parts stay in evaluation."""
    network.eval()
    network.head.train()
    if config.method == "full":
        network.encoder.train()
        frozen = run_order(network.encoder)[: config.freeze] if config.freeze else []
        for name, module in network.encoder.named_modules():
            if _part_of(name) in frozen:
                module.eval()


def parameter_groups(network: Network, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return what learns, grouped by rate and decay for an optimiser.

    A group has ``factor``, by which the schedule's rate is multiplied.
    """
    order = run_order(network.encoder)
    factors = {
        part: (config.encoder_rate or 0.0) * config.layer_decay ** (len(order) - place)
        for place, part in enumerate(order)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            kind, _, inner = name.partition(".")
            factor = 1.0 if kind == "head" else factors[_part_of_parameter(inner)]
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": found, "factor": factor, "weight_decay": decay}
        for (factor, decay), found in groups.items()
    ]


def run_order(encoder: PointEncoder) -> list[str]:
    """Return the parts of an encoder that have parameters, in the order in which they run.

    Parameters of the root itself (a class token) are the part ``""``, the first. Parts that do not
    run on the sample, or are no modules that are called, follow in the order of their definition.
    """
    ran: dict[str, None] = {"": None}

    def hook(part: str) -> Any:
        return lambda *_: ran.setdefault(part)

    hooks = [
        module.register_forward_pre_hook(hook(_part_of(name)))
        for name, module in encoder.named_modules()
        if name
    ]
    try:
        with evaluating(encoder):
            extract(encoder, sample_cloud())
    finally:
        for handle in hooks:
            handle.remove()
    own = list(dict.fromkeys(_part_of_parameter(name) for name, _ in encoder.named_parameters()))
    return [part for part in ran if part in own] + [part for part in own if part not in ran]


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Return how many numbers learn."""
    return sum(p.numel() for p in parameters if p.requires_grad)


def _part_of(module: str) -> str:
    """Return the part that a module belongs to, by its path."""
    path = module.split(".")
    return ".".join(path[:2]) if len(path) > 1 and path[1].isdigit() else path[0]


def _part_of_parameter(name: str) -> str:
    return _part_of(name.rpartition(".")[0])
