"""Conformance suite for encoders: what every encoder of pointzoo promises, as checks that can fail.

:func:`check_encoder` runs all of :data:`CHECKS` on any encoder, also one of yours (derive it from
:class:`pointzoo.encoders.base.PointEncoder`). A difference between encoders is a declared
capability, never an exception to a check. A check is a function of ``make``, which builds a fresh
encoder from a fixed seed; it returns nothing, or raises
:class:`~pointzoo.errors.CheckFailedError`.
"""

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
from pointzoo.testing.suite import CHECKS, check_encoder
from pointzoo.testing.support import Check, Make
from pointzoo.testing.train import (
    check_bfloat16,
    check_every_parameter_learns,
    check_gradients,
    check_teacher_is_independent,
)

__all__ = [
    "CHECKS",
    "Check",
    "Make",
    "check_alone_equals_batch",
    "check_bfloat16",
    "check_builds_quietly",
    "check_channels",
    "check_class_attention",
    "check_config_round_trip",
    "check_degenerate_clouds",
    "check_dtype_kept",
    "check_encoder",
    "check_every_parameter_learns",
    "check_extract",
    "check_fresh_each_time",
    "check_geometry_shared",
    "check_gradients",
    "check_inputs_untouched",
    "check_large_clouds",
    "check_levels",
    "check_order_of_points",
    "check_output_shapes",
    "check_position_and_size",
    "check_ready_to_use",
    "check_refuses_other_channels",
    "check_refuses_other_device",
    "check_refuses_unusable_clouds",
    "check_repeatable",
    "check_scene_alone",
    "check_state_is_complete",
    "check_state_is_plain",
    "check_state_loads_strictly",
    "check_teacher_is_independent",
    "check_tokens",
]
