"""The one door to torchsparse and spconv, which may multiply for CUDA tensors.

They get our lists of pairs, not our voxels: whether a coordinate begins or ends with the batch, in
which order kernel offsets count (torchsparse 2.0 and 2.1 differ from each other and from spconv),
and what happens to voxels that occur twice never becomes their business. All that is left to get
wrong is the product, so each is held to the reference on the device at hand when it is first
wanted; the verdict is kept in the user's cache by version of the package, of torch, and device.
A backend that fails, or that raises, is not used; the reason is logged once and shown by
``pointzoo doctor``.

``POINTZOO_BACKEND`` in the environment, or :func:`use_backend`, chooses. On the CPU none of them is
used: the CPU build of spconv adds rows from several threads without a lock (1,277 of 2,000 calls
gave wrong sums with two threads, spconv 2.3.8), torchsparse 2.1 finds no neighbours there.

Never run on a GPU so far: signatures are read from torchsparse @ 385f5ce and v2.0.0 and from
spconv 2.3.8; the tests put fakes in their place. The self-test decides on a real one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pointzoo.errors import ConfigError
from pointzoo.ops.sparse import layouts, reference, search
from pointzoo.ops.sparse.search import PairList

CHOICES = ("auto", "torch", "torchsparse", "spconv")
TOLERANCE = 1e-4
"""Of the largest value: float32 sums in another order give about 1e-6, TF32 products 1e-3."""

_LOG = logging.getLogger("pointzoo")
_REPEATS = 3  # a race does not show every time
_state = {"choice": os.environ.get("POINTZOO_BACKEND", "auto")}

Multiply = Callable[[Tensor, Tensor, PairList, int], Tensor]
"""From features, weights (K, I, O), pairs and the number of output rows to the sums."""


@dataclass(frozen=True)
class Status:
    """What is known of a backend on a device.

    Attributes:
        name: Of the package.
        version: None where it cannot be imported.
        usable: Whether it is held equal to the reference.
        reason: Why, or why not.
    """

    name: str
    version: str | None
    usable: bool
    reason: str


def use_backend(name: str) -> None:
    """Choose what multiplies for CUDA tensors from now on.

    Args:
        name: ``auto`` (the first that is proven equal to the reference, else torch), ``torch``,
            ``torchsparse`` or ``spconv``.

    Raises:
        ConfigError: There is no such backend.
    """
    if name not in CHOICES:
        raise ConfigError(
            expected=f"a backend out of {', '.join(CHOICES)}", got=repr(name), fix="Choose one."
        )
    _state["choice"] = name
    _chosen.cache_clear()


def convolve(x: Tensor, weight: Tensor, pairs: PairList, rows: int) -> Tensor:
    """Return the (rows, O) sums over pairs, by the chosen backend where it applies.

    Raises:
        ConfigError: A backend was asked for by name and cannot be used.
    """
    fits = _applies(x) and x.dtype == torch.float32 and sum(pairs.counts) > 0
    multiply = _chosen(x.device) if fits else None
    if multiply is None:
        return reference.convolve(x, weight, pairs, rows)
    return multiply(x, weight, pairs, rows)


def statuses(device: torch.device) -> tuple[Status, ...]:
    """Return what is known of each backend on ``device``, testing those that were not yet."""
    return tuple(_status(name, device) for name in _BACKENDS)


def _applies(x: Tensor) -> bool:
    return x.device.type == "cuda"


@functools.cache
def _chosen(device: torch.device) -> Multiply | None:
    choice = _state["choice"]
    if choice not in CHOICES:
        use_backend(choice)  # raises: a wrong value in the environment
    if choice == "torch":
        return None
    if choice != "auto":
        status = _status(choice, device)
        if not status.usable:
            raise ConfigError(
                expected=f"{status.name} as the backend on {device}",
                got=status.reason,
                fix="Choose 'auto' or 'torch'.",
            )
        return _BACKENDS[choice](importlib.import_module(choice))
    for name, make in _BACKENDS.items():
        status = _status(name, device)
        if status.usable:
            return make(importlib.import_module(name))
        if status.version is not None:
            _LOG.warning("%s %s is not used: %s", name, status.version, status.reason)
    return None


def _status(name: str, device: torch.device) -> Status:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        found = getattr(error, "name", None) == name
        absent = f"not installed ({_NOT_ON_CPU[name]})"
        return Status(name, None, False, absent if found else f"not importable: {error}")
    except Exception as error:  # noqa: BLE001  # a build for another torch raises anything
        return Status(name, None, False, f"not importable: {type(error).__name__}: {error}")
    version = str(getattr(module, "__version__", "?"))
    if not _applies(torch.empty(0, device=device)):
        return Status(name, version, False, _NOT_ON_CPU[name])
    key = f"{name} {version}, torch {torch.__version__}, {_device_name(device)}"
    verdicts = _read_verdicts()
    if key not in verdicts:
        verdicts[key] = _self_test(_BACKENDS[name], module, device)
        _write_verdicts(verdicts)
    reason = verdicts[key]
    return Status(name, version, not reason, reason or "equal to the reference")


_NOT_ON_CPU: Mapping[str, str] = MappingProxyType(
    {
        "torchsparse": "for CUDA tensors only: 2.1 finds no neighbours on the CPU",
        "spconv": "for CUDA tensors only: on the CPU its threads race for the rows they add to, "
        "and its backward pass asks for CUDA",
    }
)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@torch.no_grad()
def _self_test(make: Callable[[Any], Multiply], module: Any, device: torch.device) -> str:
    """Return why a backend is refused, or nothing."""
    try:
        multiply = make(module)
        for name, pairs, rows, inputs in _cases(device):
            generator = torch.Generator().manual_seed(len(pairs.counts))
            x = torch.randn(inputs, 16, generator=generator).to(device)
            weight = torch.randn(len(pairs.counts), 16, 32, generator=generator).to(device)
            expected = reference.convolve(x.double(), weight.double(), pairs, rows)
            for _ in range(_REPEATS):
                away = (multiply(x, weight, pairs, rows) - expected).abs().max()
                share = float(away / expected.abs().max())
                if not share <= TOLERANCE:
                    return f"{name} differs from the reference by {share:.1e} of the largest value"
    except Exception as error:  # noqa: BLE001  # whatever it is, the backend is no use here
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _cases(device: torch.device) -> list[tuple[str, PairList, int, int]]:
    """Return name, pairs, output rows and input rows of one convolution of each kind."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 14, (2000, 4), generator=generator)
    places[:, 0] %= 2
    places = torch.unique(places, dim=0).to(device)
    batch, coords = places[:, 0].contiguous(), places[:, 1:].contiguous()
    _, coarse, parent = search.halve(batch, coords)
    up = search.parents(parent, coords)
    count = len(coords)
    found = [
        (f"a {k} x {k} x {k} convolution", search.neighbours(batch, coords, k), count, count)
        for k in (3, 5)
    ]
    found.append(("an inverse convolution", up, count, len(coarse)))
    found.append(("a strided convolution", up.exchanged(), len(coarse), count))
    return found


def _torchsparse(module: Any) -> Multiply:
    backend = importlib.import_module("torchsparse.backend")
    named = getattr(backend, "conv_forward_gather_scatter_cuda", None)  # 2.1
    old = str(module.__version__).startswith("1.")

    def multiply(x: Tensor, weight: Tensor, pairs: PairList, rows: int) -> Tensor:
        maps = torch.stack([pairs.inputs, pairs.outputs], dim=1).int().contiguous()  # (P, 2)
        sizes = torch.tensor(pairs.counts, dtype=torch.int32)
        x, weight = x.contiguous(), weight.contiguous()
        if old:
            out = x.new_zeros(rows, weight.shape[2])
            backend.convolution_forward_cuda(x, out, weight, maps, sizes, False)
            return out
        masks = backend.build_mask_from_kmap(len(x), rows, maps, sizes.to(x.device))
        forward = named or backend.convolution_forward_cuda
        sums: Tensor = forward(
            x,
            weight,
            maps,
            sizes,
            *masks,
            rows,
            0.0,
            0,
            0,
            False,
            torch.empty(0),
        )
        return sums

    return multiply


def _spconv(module: Any) -> Multiply:  # noqa: ARG001  # the door opens all backends alike
    ops = importlib.import_module("spconv.pytorch.ops")

    def multiply(x: Tensor, weight: Tensor, pairs: PairList, rows: int) -> Tensor:
        counts = torch.tensor(pairs.counts, dtype=torch.int32)
        table = torch.full((2, len(counts), max(pairs.counts)), -1, dtype=torch.int32)
        table = table.to(x.device)  # (2, K, P)
        offset = torch.repeat_interleave(torch.arange(len(counts)), counts)
        place = torch.arange(len(offset)) - (counts.cumsum(0) - counts)[offset]
        where = offset.to(x.device), place.to(x.device)
        table[0][where], table[1][where] = pairs.inputs.int(), pairs.outputs.int()
        filters = layouts.to_spconv(weight)
        sums: Tensor = ops.indice_conv(
            x.contiguous(), filters, table, counts.to(x.device), rows, inverse=False, subm=False
        )
        return sums

    return multiply


_BACKENDS: Mapping[str, Callable[[Any], Multiply]] = MappingProxyType(
    {"torchsparse": _torchsparse, "spconv": _spconv}
)


def verdict_file() -> Path:
    """Return where verdicts are kept: ``pointzoo/backends.json`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pointzoo" / "backends.json"


def _read_verdicts() -> dict[str, str]:
    try:
        content = json.loads(verdict_file().read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in content.items()}
    except (OSError, ValueError, AttributeError):  # not there yet, or damaged: test again
        return {}


def _write_verdicts(verdicts: Mapping[str, str]) -> None:
    path = verdict_file()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(verdicts, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError:  # a read-only home: test again next time
        with contextlib.suppress(OSError):
            temporary.unlink()
