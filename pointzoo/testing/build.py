"""Checks of how an encoder is built."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from pointzoo.encoders.base import EncoderConfig, PointEncoder
from pointzoo.errors import ConfigError
from pointzoo.testing.support import Make, conformance, encode, make_batch, require

OPTIONAL_PACKAGES = (
    "flash_attn",
    "h5py",
    "laspy",
    "matplotlib",
    "open3d",
    "sklearn",
    "spconv",
    "torch_cluster",
    "torchsparse",
    "trimesh",
)
"""Packages that an encoder must be able to do without."""


@conformance
def check_builds_quietly(make: Make) -> None:
    """Build and run offline, without a word, without an optional package."""
    attempts: list[str] = []
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(record=True) as warned,
        _without_packages(),
        _without_network(attempts),
    ):
        warnings.simplefilter("always")
        encoder = make()
        encode(encoder, make_batch(encoder))
    said = printed.getvalue() + "; ".join(str(warning.message) for warning in warned)
    require(
        not said, expected="silence", got=repr(said[:200]), fix="Drop the print or the warning."
    )
    require(
        not attempts,
        expected="no network access",
        got=f"a connection to {attempts}",
        fix="Leave downloads to load_encoder.",
    )


@conformance
def check_ready_to_use(make: Make) -> None:
    """Come in evaluation mode, on the CPU, in float32."""
    encoder = make()
    kind = type(encoder).__name__
    require(
        isinstance(encoder, PointEncoder),
        expected="a PointEncoder",
        got=f"a {kind}",
        fix="Derive it from pointzoo.encoders.base.PointEncoder.",
    )
    training = [name or kind for name, module in encoder.named_modules() if module.training]
    require(
        not training,
        expected="every module in evaluation mode",
        got=f"{training[:3]} in training mode",
        fix="Return encoder.eval().",
    )
    tensors = [*encoder.parameters(), *encoder.buffers()]
    places = {str(tensor.device) for tensor in tensors}
    types = {str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()}
    require(
        places <= {"cpu"} and types <= {"torch.float32"},
        expected="float32 on the CPU",
        got=f"{sorted(types)} on {sorted(places)}",
        fix="Leave the choice of device and type to the caller.",
    )


@conformance
def check_fresh_each_time(make: Make) -> None:
    """Build the same weights from the same seed, in memory of their own."""
    first, second = make(), make()
    require(
        first.config == second.config,
        expected="one config",
        got=f"{first.config} and {second.config}",
        fix="Let nothing but the arguments decide.",
    )
    left, right = first.state_dict(), second.state_dict()
    same = left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
    require(
        same,
        expected="equal weights from the same seed",
        got="different ones",
        fix="Draw initial weights from torch's global generator, which make seeds.",
    )
    shared = [k for k in left if left[k].data_ptr() == right[k].data_ptr() and left[k].numel()]
    require(
        not shared,
        expected="two encoders with memory of their own",
        got=f"shared {shared[:3]}",
        fix="Create the modules in the constructor, not in the class.",
    )


@conformance
def check_config_round_trip(make: Make) -> None:
    """Turn the config into JSON and back without loss, and refuse an unknown key."""
    config = make().config
    values = json.loads(json.dumps(config.to_dict()))
    back = type(config).from_dict(values)
    require(
        back == config,
        expected=f"{config} again after JSON",
        got=str(back),
        fix="Use ints, floats, strings, booleans and tuples of these in the config.",
    )
    first = dataclasses.fields(config)[0].name
    require(
        _refuses(lambda: setattr(config, first, getattr(config, first)), AttributeError),
        expected="a frozen config",
        got=f"one whose {first} can be set",
        fix="Declare it with @dataclass(frozen=True).",
    )
    require(
        _refuses_key(type(config), {**values, "no_such_setting": 1}),
        expected="ConfigError for an unknown key",
        got="none",
        fix="Leave from_dict as EncoderConfig has it.",
    )


def _refuses(act: Any, kind: type[Exception]) -> bool:
    try:
        act()
    except kind:
        return True
    return False


def _refuses_key(kind: type[EncoderConfig], values: dict[str, Any]) -> bool:
    return _refuses(lambda: kind.from_dict(values), ConfigError)


@contextlib.contextmanager
def _without_packages() -> Iterator[None]:
    """Make every optional package look as if it were not installed."""
    before = {name: sys.modules[name] for name in OPTIONAL_PACKAGES if name in sys.modules}
    absent: dict[str, Any] = dict.fromkeys(OPTIONAL_PACKAGES)  # None makes an import fail
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in OPTIONAL_PACKAGES:
            del sys.modules[name]
        sys.modules.update(before)


@contextlib.contextmanager
def _without_network(attempts: list[str]) -> Iterator[None]:
    """Refuse connections, and note each attempt (the encoder may swallow the refusal)."""

    def refuse(*where: object, **_: object) -> Any:
        attempts.append(repr(where))
        raise OSError("no network while an encoder is built")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
    ):
        yield
