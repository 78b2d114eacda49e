"""State of a training run in one safetensors file: no pickle, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pointzoo.errors import TrainingError
from pointzoo.intake import parse_json

SCHEMA = 1
_STATES = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"})
"""What the optimisers keep of a parameter: AdamW, and SGD with momentum."""


def save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write the state of a module and its optimizer, and some JSON facts, in one atomic step.

    Args:
        path: The file; an older one is replaced only when the new one is whole and on disk.
        module: Parameters and buffers are stored.
        optimizer: State tensors are stored; options are not, the schedule sets them every step.
        facts: JSON values, for example the step and the config.
    """
    tensors = {f"module.{key}": value.contiguous() for key, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata={"facts": json.dumps({"schema": SCHEMA, **facts})})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the JSON facts of a checkpoint.

    Raises:
        TrainingError: The file is damaged or of another schema.
    """
    try:
        _require_file(path)
        with safe_open(path, framework="pt") as file:
            facts = parse_json((file.metadata() or {})["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise _damaged(path, "another schema")
    return facts


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the stored state into a module and its optimizer.

    Raises:
        TrainingError: The file is damaged or belongs to another network.
    """
    stored: dict[str, Tensor] = {}
    states: dict[int, dict[str, Tensor]] = {}
    try:
        _require_file(path)
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                kind, _, key = name.partition(".")
                if kind == "module":
                    stored[key] = file.get_tensor(name)
                else:
                    index, _, entry = key.partition(".")
                    states.setdefault(int(index), {})[entry] = file.get_tensor(name)
        groups = optimizer.state_dict()["param_groups"]
        _require_states(optimizer, states)
        for name, tensor in stored.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"NaN or infinite values in {name}")  # is caught with its like
        module.load_state_dict(stored)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _require_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise ValueError("a folder, pipe or device")  # a pipe would be waited on


def _require_states(
    optimizer: torch.optim.Optimizer, states: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Refuse a state of a parameter that there is not, or of another shape than the parameter's."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in states.items():
        if set(state) not in _STATES or not 0 <= index < len(parameters):
            raise ValueError(f"a state {', '.join(sorted(state))} of parameter {index}")
        for key, value in state.items():
            shape = torch.Size() if key == "step" else parameters[index].shape
            if value.shape != shape or not bool(value.isfinite().all()):
                raise ValueError(f"a state {key!r} of another shape, or not finite")


def _damaged(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        expected=f"a checkpoint of this run in {path}",
        got=reason,
        fix="Start anew in another folder, or restore the file.",
    )
