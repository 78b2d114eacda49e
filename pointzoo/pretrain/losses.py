"""Loss functions of the trainers, as pure functions.

Shape legend: I global views, J local-side views, B clouds, K projector outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointzoo.errors import ConfigError


def distillation_loss(
    teacher: Tensor,
    student_global: Tensor,
    student_local: Tensor,
    center: Tensor,
    *,
    teacher_temperature: float = 0.04,
    student_temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the student against the centred and sharpened teacher (DCGLR Eq. 8, 10, 11).

    Eq. 10 prints ``j = q``, read as ``j = 1``; pairs of a view with itself are excluded. The paper
    has one temperature; the student's own is DINO's (facebookresearch/dino @ 7c446df). No gradient
    flows to the teacher.

    Args:
        teacher: (I, B, K) teacher outputs of the global views.
        student_global: (I, B, K) student outputs of the same views.
        student_local: (J, B, K) student outputs of the local crops and half-resolution clouds;
            J may be 0, the local loss is then 0.
        center: (K,) running centre, c of Eq. 8.
        teacher_temperature: tau of the teacher's softmax.
        student_temperature: tau of the student's softmax.

    Returns:
        The global loss, averaged over the I (I - 1) pairs and the batch (Eq. 10), and the local
        loss, averaged over the I J pairs and the batch (Eq. 11). The paper adds them (Eq. 12).

    Raises:
        ConfigError: Shapes do not fit, or there are fewer than two global views.
    """
    views, clouds, width = teacher.shape if teacher.ndim == 3 else (0, 0, 0)
    fits = student_global.shape == teacher.shape and student_local.shape[1:] == (clouds, width)
    if views < 2 or not fits or center.shape != (width,):
        raise ConfigError(
            expected="teacher, student_global (I >= 2, B, K), student_local (J, B, K), center (K,)",
            got=", ".join(
                str(tuple(t.shape)) for t in (teacher, student_global, student_local, center)
            ),
            fix="Stack the outputs view by view.",
        )
    target = ((teacher.detach() - center) / teacher_temperature).softmax(dim=-1)
    log_global = (student_global / student_temperature).log_softmax(dim=-1)
    log_local = (student_local / student_temperature).log_softmax(dim=-1)
    pairs = -torch.einsum("ibk,jbk->ij", target, log_global) / clouds
    global_loss = (pairs.sum() - pairs.trace()) / (views * (views - 1))
    if len(student_local) == 0:
        return global_loss, global_loss.new_zeros(())
    local_loss = -torch.einsum("ibk,jbk->", target, log_local) / (
        views * len(student_local) * clouds
    )
    return global_loss, local_loss


def update_center(center: Tensor, teacher: Tensor, *, momentum: float = 0.9) -> Tensor:
    """Move the centre towards the mean teacher output (DCGLR Eq. 9).

    The mean runs over the batch and over all teacher views (the paper prints the batch only).

    Args:
        center: (K,) the old centre.
        teacher: (I, B, K) teacher outputs.
        momentum: q of Eq. 9.

    Returns:
        (K,) the new centre.
    """
    return center * momentum + teacher.detach().mean(dim=(0, 1)) * (1.0 - momentum)


def teacher_entropy(teacher: Tensor, center: Tensor, *, temperature: float) -> tuple[float, float]:
    """Measure whether the teacher's targets are alive.

    Args:
        teacher: (I, B, K) teacher outputs.
        center: (K,) running centre.
        temperature: tau of the teacher's softmax.

    Returns:
        Mean entropy of a target in nats (log K when the outputs are uniform), and entropy of the
        mean target over views and batch (0 when every cloud gets the same one-hot target).
    """
    target = ((teacher.detach().float() - center.float()) / temperature).softmax(dim=-1)
    mean = target.mean(dim=(0, 1))
    single = -(target * target.clamp_min(1e-12).log()).sum(-1).mean()
    return float(single), float(-(mean * mean.clamp_min(1e-12).log()).sum())
