"""Values that change over a training run, as pure functions of the step."""

from __future__ import annotations

import math

from pointzoo.errors import ConfigError


def cosine_schedule(step: int, total: int, start: float, end: float, *, warmup: int = 0) -> float:
    """Linear warm-up from 0 to ``start``, then half a cosine from ``start`` towards ``end``.

    ``end`` itself would be reached at ``step == total`` (DINO's schedule, facebookresearch/dino @
    7c446df); DCGLR section 4.1 names the shape. Used for the learning rate (with warm-up), the
    weight decay and the teacher momentum (without).

    Args:
        step: 0 .. total - 1; later steps give ``end``.
        total: Steps of the run, warm-up included.
        start: Value after the warm-up.
        end: Value at the end.
        warmup: Steps of the linear warm-up; ``start`` is reached at its last step.

    Raises:
        ConfigError: The warm-up is longer than the run.
    """
    if not 0 <= warmup <= total or total < 1:
        raise ConfigError(
            expected="0 <= warmup <= total, total >= 1",
            got=f"warmup {warmup}, total {total}",
            fix="Train longer or warm up for fewer epochs.",
        )
    if step >= total:
        return end
    if step < warmup:
        return start * step / max(warmup - 1, 1) if warmup > 1 else start
    position = (step - warmup) / (total - warmup)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * position))
