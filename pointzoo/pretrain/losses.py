"""Loss functions of the trainers, as pure functions.

Shape legend: I global views, J local-side views, B clouds, K projector outputs, P pairs or points,
C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def info_nce(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """Contrast each query with its own key against the keys of all other pairs (MSC Eq. 1, 2).

    Eq. 2 prints a sum over the pairs; Pointcept @ d74c646 and PointContrast average, as here.

    Args:
        query: (P, C) features of one view, of any length.
        key: (P, C) features of the matched points of the other view.
        temperature: tau of Eq. 2.

    Returns:
        The mean over the pairs; 0 without pairs.

    Raises:
        ConfigError: Shapes do not fit or the temperature is not positive.
    """
    _require_pairs(query, key)
    if not temperature > 0.0:
        raise ConfigError(
            expected="a positive temperature", got=f"{temperature}", fix="The paper uses 0.4."
        )
    if len(query) == 0:
        return (query.sum() + key.sum()) * 0.0
    own = torch.arange(len(query), device=query.device)
    similarity = (_unit(query) / temperature) @ _unit(key).T  # (P, P)
    return nn.functional.cross_entropy(similarity, own)


def hardest_contrastive(
    query: Tensor,
    key: Tensor,
    other_query: Tensor,
    other_key: Tensor,
    *,
    positive_margin: float = 0.1,
    negative_margin: float = 1.4,
) -> Tensor:
    """Pull pairs together and push each point's hardest negative away (PointContrast Eq. 1).

    Features are L2-normalised. Margins and the average of the two directions are those of
    facebookresearch/PointContrast @ 47e8682, where the positive margin is on the squared distance.

    Args:
        query: (P, C) features of one view.
        key: (P, C) features of the matched points of the other view.
        other_query: (P, C) the query that is nearest to each key among those that do not match it.
        other_key: (P, C) the key that is nearest to each query among those that do not match it.
        positive_margin: Squared distance that a pair may keep.
        negative_margin: Distance that a negative must keep.

    Returns:
        The mean over the pairs; 0 without pairs.

    Raises:
        ConfigError: Shapes do not fit.
    """
    for partner in (key, other_query, other_key):
        _require_pairs(query, partner)
    if len(query) == 0:
        return (query.sum() + key.sum()) * 0.0
    query, key = _unit(query), _unit(key)
    pull = ((query - key).square().sum(1) - positive_margin).relu().mean()
    push = [
        (negative_margin - (own - _unit(other)).square().sum(1).clamp_min(1e-7).sqrt()).relu()
        for own, other in ((query, other_key), (key, other_query))
    ]
    return pull + 0.5 * (push[0].square().mean() + push[1].square().mean())


def masked_color_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of the colours of masked points (MSC Eq. 4).

    Args:
        prediction: (P, 3) predictions at the masked points of both views.
        target: (P, 3) their colours.

    Returns:
        The sum over the channels, averaged over the points; 0 without points.

    Raises:
        ConfigError: Shapes do not fit.
    """
    _require_pairs(prediction, target)
    return (prediction - target).square().sum() / max(len(prediction), 1)


def masked_normal_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Angle between predicted and true surfel normals of masked points (MSC Eq. 5).

    Eq. 5 adds the mean cosine to a loss that is minimised, which teaches the opposite normal; this
    is 1 minus the cosine. The gradient for the encoder is the same but for the sign of the head.

    Args:
        prediction: (P, 3) predictions at the masked points of both views, of any length.
        target: (P, 3) their unit normals in the frame of the view.

    Returns:
        The mean over the points; 0 without points.

    Raises:
        ConfigError: Shapes do not fit.
    """
    _require_pairs(prediction, target)
    if len(prediction) == 0:
        return prediction.sum() * 0.0
    direction = nn.functional.normalize(prediction, dim=1, eps=1e-10)
    return (1.0 - (direction * target).sum(1)).mean()


def pair_cosines(query: Tensor, key: Tensor) -> tuple[float, float]:
    """Measure how alike matched and unmatched points are.

    Args:
        query: (P, C) features of one view; at least two pairs.
        key: (P, C) features of the matched points of the other view.

    Returns:
        Mean cosine over the pairs, and mean cosine over all P (P - 1) other combinations.
    """
    query, key = _unit(query.detach().float()), _unit(key.detach().float())
    own = (query * key).sum()
    other = (query.sum(0) * key.sum(0)).sum() - own
    count = len(query)
    return float(own / count), float(other / (count * (count - 1)))


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features, dim=1, eps=1e-7)


def _require_pairs(left: Tensor, right: Tensor) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise ConfigError(
            expected="two matrices of the same shape, one row per pair or point",
            got=f"{tuple(left.shape)} and {tuple(right.shape)}",
            fix="Pick the rows of both sides with the same index.",
        )
