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


def one_cycle_schedule(
    step: int, total: int, start: float, peak: float, end: float, *, warmup: float
) -> float:
    """Half a cosine from ``start`` to ``peak``, then half a cosine from ``peak`` to ``end``.

    The schedule of ``torch.optim.lr_scheduler.OneCycleLR``, for the learning rate and, with
    ``peak`` below ``start`` and ``end``, for the momentum that it cycles along.

    Args:
        step: 0 .. total - 1; later steps give ``end``.
        total: Steps of the run.
        start: Value of step 0.
        peak: Value after the warm-up.
        end: Value of the last step.
        warmup: Share of the run until the peak, 0 to 1.

    Raises:
        ConfigError: ``warmup`` is out of range or the run empty.
    """
    if not 0.0 <= warmup <= 1.0 or total < 1:
        raise ConfigError(
            expected="a warm-up from 0 to 1 of a run of at least one step",
            got=f"warmup {warmup}, total {total}",
            fix="Pointcept's MSC uses 0.01.",
        )
    top, last = warmup * total - 1.0, total - 1.0
    if step >= last:
        return end
    if step <= top:
        return _half_cosine(step / top if top > 0.0 else 1.0, start, peak)
    return _half_cosine((step - top) / (last - top), peak, end)


def _half_cosine(position: float, start: float, end: float) -> float:
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * position))
