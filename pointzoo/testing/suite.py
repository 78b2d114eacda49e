"""The table of checks, and the function that runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pointzoo.errors import CheckFailedError, UnknownNameError
from pointzoo.testing.build import (
    check_builds_quietly,
    check_config_round_trip,
    check_fresh_each_time,
    check_ready_to_use,
)
from pointzoo.testing.capabilities import check_class_attention, check_levels, check_tokens
from pointzoo.testing.forward import (
    check_alone_equals_batch,
    check_degenerate_clouds,
    check_dtype_kept,
    check_geometry_shared,
    check_inputs_untouched,
    check_large_clouds,
    check_order_of_points,
    check_output_shapes,
    check_repeatable,
    check_scene_alone,
)
from pointzoo.testing.inputs import (
    check_channels,
    check_extract,
    check_position_and_size,
    check_refuses_other_channels,
    check_refuses_other_device,
    check_refuses_unusable_clouds,
)
from pointzoo.testing.state import (
    check_state_is_complete,
    check_state_is_plain,
    check_state_loads_strictly,
)
from pointzoo.testing.support import Check, Make
from pointzoo.testing.train import (
    check_bfloat16,
    check_every_parameter_learns,
    check_gradients,
    check_teacher_is_independent,
)

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "builds_quietly": check_builds_quietly,
        "ready_to_use": check_ready_to_use,
        "fresh_each_time": check_fresh_each_time,
        "config_round_trip": check_config_round_trip,
        "output_shapes": check_output_shapes,
        "dtype_kept": check_dtype_kept,
        "degenerate_clouds": check_degenerate_clouds,
        "scene_alone": check_scene_alone,
        "alone_equals_batch": check_alone_equals_batch,
        "order_of_points": check_order_of_points,
        "repeatable": check_repeatable,
        "inputs_untouched": check_inputs_untouched,
        "geometry_shared": check_geometry_shared,
        "large_clouds": check_large_clouds,
        "position_and_size": check_position_and_size,
        "channels": check_channels,
        "extract": check_extract,
        "tokens": check_tokens,
        "levels": check_levels,
        "class_attention": check_class_attention,
        "every_parameter_learns": check_every_parameter_learns,
        "teacher_is_independent": check_teacher_is_independent,
        "gradients": check_gradients,
        "bfloat16": check_bfloat16,
        "state_is_complete": check_state_is_complete,
        "state_is_plain": check_state_is_plain,
        "state_loads_strictly": check_state_loads_strictly,
        "refuses_unusable_clouds": check_refuses_unusable_clouds,
        "refuses_other_channels": check_refuses_other_channels,
        "refuses_other_device": check_refuses_other_device,
    }
)
"""All checks by name, from how an encoder is built to what it refuses."""


def check_encoder(make: Make, *, checks: Iterable[str] | None = None) -> None:
    """Run the conformance checks on an encoder of yours.

    Every check builds its own encoders, on small clouds, so that a config under a million
    parameters takes seconds. ``type(encoder)(config)`` must build another encoder of that config.

    Args:
        make: Builds a fresh encoder from a fixed seed, in evaluation mode on the CPU.
        checks: Names out of :data:`CHECKS`; None for all.

    Raises:
        CheckFailedError: At least one check failed; the message names each, with what it expected.
        UnknownNameError: There is no check of that name.

    Example:
        >>> import torch
        >>> from pointzoo.encoders.registry import build
        >>> from pointzoo.testing import check_encoder
        >>> def make():
        ...     torch.manual_seed(0)
        ...     return build("vit3d_test")
        >>> check_encoder(make, checks=["output_shapes", "order_of_points"])
    """
    names = list(CHECKS) if checks is None else list(checks)
    for name in names:
        if name not in CHECKS:
            raise UnknownNameError.of("check", name, CHECKS)
    outcomes = ((name, _outcome(CHECKS[name], make)) for name in names)
    failed = {name: error for name, error in outcomes if error is not None}
    if failed:
        first = next(iter(failed.values()))
        raise CheckFailedError(
            expected=f"an encoder that passes {len(names)} checks",
            got="; ".join(
                f"{name}: expected {e.expected}, got {e.got}" for name, e in failed.items()
            ),
            fix=first.fix if len(failed) == 1 else f"Begin with the first. {first.fix}",
        ) from first


def _outcome(check: Check, make: Make) -> CheckFailedError | None:
    try:
        check(make)
    except CheckFailedError as error:
        return error
    return None
