"""The DCGLR objective: views, branches, losses, and what happens around an optimizer step."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import CONFIG, ENCODERS, config, make_objective, toy_data

from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError
from pointzoo.pretrain import losses
from pointzoo.pretrain.dcglr import DCGLR, PRESETS, Projector
from pointzoo.pretrain.loop import train
from pointzoo.pretrain.objective import Clock
from pointzoo.pretrain.views import Augmentation, ObjectClouds

GOLDEN = Path(__file__).parent / "golden"
CLOCK = Clock(steps_per_epoch=5, total_steps=100, batch_size=256)
STILL = Augmentation(jitter_sigma=0.0, scale=(1.0, 1.0), shift=0.0, half_shift=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distances(points: Tensor, others: Tensor) -> Tensor:
    """Return how far each point is from the nearest of the others, exactly 0 if it is one."""
    return (points[:, None] - others).norm(dim=2).amin(dim=1)


def toy_batch(objective: DCGLR, clouds: int = 4) -> ObjectClouds:
    data = toy_data()
    rng = np.random.default_rng
    return objective.collate([objective.prepare(data[i], rng(i)) for i in range(clouds)])


# Settings


@pytest.mark.parametrize(
    "changes",
    [
        {"global_crops": 1},
        {"local_crops": -1},
        {"half_clouds": -1},
        {"points": 1},
        {"global_ratio": (0.0, 1.0)},
        {"local_ratio": (0.2, 1.1)},
        {"local_ratio": (0.5, 0.2)},
        {"teacher_temperature": 0.0},
        {"student_temperature": -0.1},
        {"average": "median"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        config(**changes)


def test_the_paper_preset_is_section_4_1():
    paper = PRESETS["paper"]
    assert (paper.global_crops, paper.global_ratio) == (2, (0.7, 1.0))
    assert (paper.local_crops, paper.local_ratio, paper.half_clouds) == (8, (0.2, 0.5), 2)
    assert (paper.teacher_temperature, paper.projector_outputs) == (0.04, 512)
    assert (paper.teacher_momentum, paper.warmup_epochs, paper.points) == (0.996, 10, 2048)
    assert (paper.global_weight, paper.local_weight, paper.average) == (1.0, 1.0, "paper")
    assert set(PRESETS) == {"paper", "cpu"}


# Samples and views


def test_samples_are_preprocessed_draws():
    objective = make_objective()
    cloud = toy_data()[0]
    coords, features = objective.prepare(cloud, np.random.default_rng(0))
    assert coords.shape == (64, 3)
    assert features.shape == (64, 0)
    assert float(coords.norm(dim=1).max()) == pytest.approx(1.0, abs=1e-6)
    few, _ = objective.prepare(PointCloud(cloud.coords[:5]), np.random.default_rng(0))
    assert few.shape == (64, 3)
    assert len(few.unique(dim=0)) == 5


def test_health_checks_look_at_as_many_points_as_training():
    objective, cloud = make_objective(), toy_data()[0]
    first, second = objective.look_at(cloud), objective.look_at(cloud)
    assert len(first) == objective.config.points
    np.testing.assert_array_equal(first.coords, second.coords)


@pytest.mark.parametrize("rotation", ["none", "shared", "independent"])
@pytest.mark.parametrize("name", ["vit3d_test", "extremes with normals"])
def test_views_have_the_sizes_of_the_paper(name, rotation):
    objective = make_objective(name, augmentation=Augmentation(rotation=rotation), half_clouds=2)
    batch = toy_batch(objective)
    made = objective.make_views(batch, seeded())
    width = batch.features.shape[2]
    assert made.globals_.counts.tolist() == [64] * 8  # 2 views of 4 clouds
    (merged,) = made.locals_  # crops of up to half the points beside clouds of half the points
    assert merged.counts.tolist() == [32] * 16
    assert merged.features.shape == (16 * 32, width)
    if width:
        norms = merged.features.norm(dim=1)
        assert float(norms.max()) == pytest.approx(1.0, abs=1e-5)


def test_views_of_other_sizes_stay_apart():
    objective = make_objective(local_ratio=(0.1, 0.3))
    made = objective.make_views(toy_batch(objective), seeded())
    assert [view.counts.tolist() for view in made.locals_] == [[20] * 8, [32] * 4]


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"local_crops": 0}, [[32] * 4]),
        ({"half_clouds": 0}, [[32] * 8]),
        ({"local_crops": 0, "half_clouds": 0}, []),
    ],
)
def test_either_local_side_can_be_left_out(changes, sizes):
    for average in ("paper", "dino"):
        objective = make_objective(average=average, **changes).train()
        batch = toy_batch(objective)
        made = objective.make_views(batch, seeded())
        assert [view.counts.tolist() for view in made.locals_] == sizes
        loss, logged = objective.loss(batch, seeded())
        loss.backward()
        assert (logged["local_loss"] == 0.0) == (not sizes)


def test_without_augmentation_a_view_holds_points_of_its_cloud():
    objective = make_objective(augmentation=STILL, global_ratio=(0.9, 0.9))
    batch = toy_batch(objective)
    made = objective.make_views(batch, seeded())
    for view, rows in enumerate(made.globals_.split(made.globals_.coords)):
        cloud = batch.coords[view % 4]
        assert not distances(rows, cloud).any()


def test_shared_rotation_turns_all_views_of_a_cloud_alike():
    change = dataclasses.replace(STILL, rotation="shared")
    objective = make_objective(augmentation=change, global_ratio=(1.0, 1.0))
    batch = toy_batch(objective)
    made = objective.make_views(batch, seeded())
    first, second = made.globals_.coords.view(2, 4, 64, 3).unbind(0)
    for cloud in range(4):
        assert not distances(first[cloud], second[cloud]).any()
        heights = [c[cloud, :, 2].sort().values for c in (first, batch.coords)]
        np.testing.assert_allclose(*heights, atol=1e-6)
        assert float(distances(first[cloud], batch.coords[cloud]).max()) > 0.01


# Branches


def test_the_teacher_starts_as_a_copy_that_does_not_learn():
    objective = make_objective()
    for teacher, student in zip(
        objective.teacher.parameters(), objective.student.parameters(), strict=True
    ):
        assert torch.equal(teacher, student)
        assert teacher.data_ptr() != student.data_ptr()
        assert not teacher.requires_grad
        assert student.requires_grad
    assert objective.exported is objective.teacher.encoder
    assert objective.trainable is objective.student


@torch.no_grad()
def test_the_projector_gives_cosines():
    projector = Projector(16, CONFIG)
    scenes = torch.randn(50, 16, generator=seeded())
    rows = projector(scenes)
    assert rows.shape == (50, CONFIG.projector_outputs)
    assert float(rows.abs().max()) <= 1 + 1e-6
    projector.last *= 3.0  # the gain is fixed at 1
    np.testing.assert_allclose(projector(scenes), rows, atol=1e-6)


@torch.no_grad()
def test_the_projector_may_take_out_what_all_scenes_share():
    """Scenes with a large common part look alike to the projector unless it normalises."""
    alike = 10.0 + torch.randn(50, 16, generator=seeded())
    spread = {}
    for norm in (False, True):
        torch.manual_seed(0)
        rows = Projector(16, dataclasses.replace(CONFIG, projector_norm=norm))(alike)
        spread[norm] = float(rows.std(dim=0).mean())
    assert spread[True] > 3.0 * spread[False]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_loss_is_that_of_the_views(name):
    """One step by the objective equals one spelt out, view by view."""
    objective = make_objective(name).train()
    objective.center.uniform_(-0.1, 0.1, generator=seeded(9))
    twin, center = copy.deepcopy(objective), objective.center.clone()
    batch = toy_batch(objective)
    loss, logged = objective.loss(batch, seeded(4))
    made = twin.make_views(batch, seeded(4))
    encoder, projector = twin.student.encoder, twin.student.projector
    teacher = twin.teacher.projector(twin.teacher.encoder(made.globals_).scene)
    teacher = teacher.detach().view(2, 4, -1)
    on_globals = projector(encoder(made.globals_).scene).view(2, 4, -1)
    on_locals = projector(torch.cat([encoder(v).scene for v in made.locals_])).view(3, 4, -1)
    parts = losses.distillation_loss(
        teacher, on_globals, on_locals, center, teacher_temperature=0.1, student_temperature=0.1
    )
    assert float(loss.detach()) == pytest.approx(float(sum(parts).detach()), rel=1e-5)
    assert logged["global_loss"] == pytest.approx(float(parts[0].detach()), rel=1e-5)
    assert logged["local_loss"] == pytest.approx(float(parts[1].detach()), rel=1e-5)
    expected = losses.update_center(center, teacher, momentum=0.9)  # moved after the loss
    np.testing.assert_allclose(objective.center, expected, atol=1e-6)
    assert logged["center_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)


def test_the_parts_are_added_as_in_eq_12_or_averaged_as_in_dino():
    with np.load(GOLDEN / "dcglr_loss.npz") as stored:
        parts = [torch.tensor(float(stored[name])) for name in ("loss_g", "loss_l")]
        total, uniform = float(stored["total"]), float(stored["total_dino_uniform_average"])
    assert float(make_objective()._combine(*parts, 10)) == pytest.approx(total, rel=1e-6)
    dino = make_objective(average="dino")
    assert float(dino._combine(*parts, 10)) == pytest.approx(uniform, rel=1e-6)
    weighted = make_objective(global_weight=2.0, local_weight=0.5)
    expected = 2.0 * float(parts[0]) + 0.5 * float(parts[1])
    assert float(weighted._combine(*parts, 10)) == pytest.approx(expected, rel=1e-6)


# Around the optimizer step


def test_the_teacher_follows_eq_13():
    class Vector(nn.Module):
        def __init__(self, start: np.ndarray) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.from_numpy(start.astype(np.float64)))
            self.register_buffer("statistics", torch.ones(1))

    with np.load(GOLDEN / "dcglr_ema.npz") as stored:
        start, steps = stored["theta_teacher0"], stored["theta_student_per_step"]
        momentum, after = stored["momentum"], stored["theta_teacher_after"]
    objective = make_objective(teacher_momentum=float(momentum[0]))
    objective.teacher, objective.student = Vector(start), Vector(start)
    objective.student.statistics *= 5
    for step, (theta, expected) in enumerate(zip(steps, after, strict=True)):
        with torch.no_grad():
            objective.student.theta.copy_(torch.from_numpy(theta.astype(np.float64)))
        objective.after_step(step, CLOCK)
        np.testing.assert_allclose(objective.teacher.theta.detach(), expected, rtol=0, atol=1e-13)
    assert float(objective.teacher.statistics) == 1.0  # buffers are the teacher's own


def test_rates_follow_the_schedule_and_the_batch_size():
    with np.load(GOLDEN / "dcglr_schedules.npz") as stored:
        rates, decay = stored["lr_warm10_of_20x5"], stored["wd_20x5"]
    objective = make_objective(learning_rate=5e-4, warmup_epochs=10)
    found = [objective.schedule(step, CLOCK) for step in range(100)]
    np.testing.assert_allclose([f["lr"] for f in found], rates, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose([f["weight_decay"] for f in found], decay, rtol=1e-12)
    half = dataclasses.replace(CLOCK, batch_size=128)
    assert objective.schedule(49, half)["lr"] == pytest.approx(2.5e-4)


def test_only_matrices_decay():
    objective = make_objective()
    decaying, others = objective.parameter_groups()
    assert decaying["decays"]
    assert not others["decays"]
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in others["params"])
    count = len(decaying["params"]) + len(others["params"])
    assert count == len(list(objective.student.parameters()))


def test_each_gradient_is_clipped_alone_and_the_last_layer_waits():
    objective = make_objective(freeze_last_epochs=1, clip_gradient=3.0)
    parameters = dict(objective.student.named_parameters())
    last = objective.student.projector.last

    def fill() -> dict[str, Tensor]:
        for number, parameter in enumerate(parameters.values()):
            parameter.grad = torch.full_like(parameter, 10.0 if number % 2 else 1e-6)
        return {name: p.grad.clone() for name, p in parameters.items()}

    before = fill()
    next(iter(parameters.values())).grad = None
    objective.after_backward(4, CLOCK)
    assert last.grad is None
    for name, parameter in list(parameters.items())[1:]:
        if parameter is not last:
            norm = min(3.0, float(before[name].norm()))
            assert float(parameter.grad.norm()) == pytest.approx(norm, rel=1e-3)
    fill()
    objective.after_backward(5, CLOCK)
    assert last.grad is not None


def test_a_collapse_is_told_from_health():
    objective = make_objective()
    healthy = {"effective_rank": 9.0, "mean_target_entropy": 2.0, "teacher_entropy": 1.0}
    uniform = math.log(CONFIG.projector_outputs)
    assert objective.collapsed(healthy) is None
    assert "effective rank 1.10" in objective.collapsed({**healthy, "effective_rank": 1.1})
    assert "same target" in objective.collapsed({**healthy, "mean_target_entropy": 0.01})
    assert "uniform" in objective.collapsed({**healthy, "teacher_entropy": uniform})


# Learning


@pytest.mark.parametrize("name", ENCODERS)
def test_twenty_steps_on_one_batch_lower_the_loss(name, tmp_path):
    """With the centre where it settles; it starts at 0, where the loss is deceptively low."""
    changes = {"center_momentum": 1.0, "freeze_last_epochs": 0, "warmup_epochs": 0}
    objective = make_objective(name, max_steps=20, **changes).train()
    batch = toy_batch(objective)
    with torch.no_grad():
        views = objective.make_views(batch, seeded())
        teacher = objective.teacher([(views.globals_, None)])
        objective.center.copy_(teacher.mean(dim=0))

    def loss_on_fixed_views() -> float:
        twin = copy.deepcopy(objective).train()
        return float(twin.loss(batch, seeded())[0].detach())

    before = loss_on_fixed_views()
    result = train(objective, toy_data(4), tmp_path / "run")
    assert result.finished
    assert loss_on_fixed_views() < 0.95 * before
