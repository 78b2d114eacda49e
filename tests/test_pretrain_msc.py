"""Masked Scene Contrast as a trainer: one step against other code, whole runs, its options."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training import Pointwise, PointwiseConfig

from pointzoo import load_encoder
from pointzoo.cloud import PointCloud
from pointzoo.data.base import ArrayDataset
from pointzoo.data.joined import JoinedDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import CloudError, CollapseError, ConfigError
from pointzoo.pretrain import loop, losses, msc, scene_objective
from pointzoo.pretrain.loop import train
from pointzoo.pretrain.msc import MSC, PRESETS, MSCConfig
from pointzoo.pretrain.objective import Clock, Runtime
from pointzoo.pretrain.scene_batch import SceneBatch, ViewBatch
from pointzoo.pretrain.scene_objective import SceneTrainingConfig, pair_health
from pointzoo.pretrain.scene_views import SceneAugmentation
from pointzoo.zoo import start_encoder

GOLDEN = Path(__file__).parent / "golden"
VIEWS = SceneAugmentation(grid_size=0.2)
CONFIG = MSCConfig(
    max_steps=6,
    batch_size=2,
    views=VIEWS,
    mask_size=0.5,
    match_radius=0.2,
    max_pairs=128,
    precision="fp32",
    checkpoint_minutes=0.0,
    log_steps=2,
)


def config(**changes: Any) -> MSCConfig:
    return dataclasses.replace(CONFIG, **changes)


def make_encoder(**changes: Any) -> PointEncoder:
    return start_encoder("sparseunet_test", grid_size=0.2, **changes)


def make_objective(**changes: Any) -> MSC:
    return MSC(make_encoder(), config(**changes))


def toy_rooms(rooms: int = 4, *, name: str = "rooms", colors: bool = True) -> ArrayDataset:
    random = np.random.default_rng(3)
    coords = random.random((rooms, 900, 3)) * (3.0, 2.0, 2.0)
    side = random.integers(3, size=(rooms, 900, 1)) == np.arange(3)
    coords = np.where(side, 0.0, coords)
    return ArrayDataset(
        name=name,
        coords=coords.astype(np.float32),
        normals=side.astype(np.float32),
        colors=(coords / 3.0).astype(np.float32) if colors else None,
    )


def batch_of(objective: MSC, data: Any = None, seed: int = 0) -> SceneBatch:
    data = data or toy_rooms()
    random = np.random.default_rng(seed)
    samples = [objective.prepare(data[row], random) for row in range(len(data))]
    return objective.collate(samples)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_of(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def assert_same_bits(run: Path, other: Path) -> None:
    left, right = (load_file(folder / loop.CHECKPOINT) for folder in (run, other))
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


# One step


class Tanh(Pointwise):
    """The stand-in of the stored step: tanh(features @ W)."""

    weight: Tensor

    def forward_voxels(self, cells: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        assert cells.shape == (len(features), 3)
        assert int(offsets[-1]) == len(features)
        return torch.tanh(features @ self.weight)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_a_step_has_the_stored_losses(mix, monkeypatch):
    with np.load(GOLDEN / "msc_step.npz") as file:
        stored = {key: torch.from_numpy(np.asarray(value)) for key, value in file.items()}
    encoder = Tanh(PointwiseConfig(channels=("colors", "normals")))
    encoder.weight, encoder.out_channels = stored["backbone_W"], 16
    objective = MSC(encoder, config(mix_query=mix, temperature=float(stored["tau"])))
    parameters = {
        "mask_token": "mask_token",
        "color_head.weight": "color_w",
        "color_head.bias": "color_b",
        "normal_head.weight": "normal_w",
        "normal_head.bias": "normal_b",
    }
    with torch.no_grad():
        for name, key in parameters.items():
            objective.network.get_parameter(name).copy_(stored[key])
    monkeypatch.setattr(objective, "_masks", lambda *_: (stored["mask1"], stored["mask2"]))
    monkeypatch.setattr(objective, "_pairs", lambda *_: stored["pairs"])
    sides = [
        ViewBatch(
            origin=torch.zeros(2700, 3),
            cells=torch.zeros(2700, 3, dtype=torch.long),
            features=stored[f"view{v}_feat"],
            colors=stored[f"view{v}_color"],
            normals=stored[f"view{v}_normal"],
            colored=torch.ones(2700, dtype=torch.bool),
            offsets=torch.tensor([900, 1800, 2700]),
        )
        for v in (1, 2)
    ]
    loss, logged = objective.loss(SceneBatch(*sides), generator())
    wanted = {
        "contrast_loss": "nce",
        "color_loss": "color",
        "normal_loss": "normal_one_minus_cos",
    }
    for name, key in wanted.items():
        assert logged[name] == pytest.approx(float(stored[key]), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(stored["total_recommended"]), rel=1e-5)


def test_both_views_are_encoded_and_every_parameter_learns():
    objective = make_objective().train()
    loss, logged = objective.loss(batch_of(objective), generator())
    loss.backward()
    assert [n for n, p in objective.network.named_parameters() if p.grad is None] == []
    assert float(objective.network.mask_token.grad.norm()) > 0.0
    assert logged["pairs"] == 128.0
    parts = logged["contrast_loss"], logged["color_loss"], logged["normal_loss"]
    assert float(loss.detach()) == pytest.approx(sum(parts), rel=1e-5)


def test_masked_points_are_shown_as_the_token():
    objective = make_objective()
    batch, seen = batch_of(objective), []
    encode = objective.exported.forward_voxels

    def record(cells: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        seen.append((features, offsets))
        return encode(cells, features, offsets)

    objective.exported.forward_voxels = record
    masks = objective._masks(batch, generator())
    objective.loss(batch, generator())
    assert len(seen) == 2
    for (features, _), mask, side in zip(seen, masks, (batch.query, batch.key), strict=True):
        assert 0.15 < float(mask.float().mean()) < 0.45
        assert torch.equal(features[~mask], side.features[~mask])
        token = objective.network.mask_token.expand(int(mask.sum()), -1)
        assert torch.equal(features[mask], token)


@pytest.mark.parametrize(("query", "key"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_views_are_mixed_for_the_encoder_alone(query, key):
    objective = make_objective(mix_query=query, mix_key=key)
    batch = batch_of(objective)
    offsets = objective._offsets(batch, generator())
    for mixed, side, probability in zip(
        offsets, (batch.query, batch.key), (query, key), strict=True
    ):
        wanted = side.offsets[1::2] if probability else side.offsets
        assert torch.equal(mixed, wanted)


def test_pairs_may_leave_masked_points_out():
    objective = make_objective(pair_masked=False, max_pairs=40)
    batch = batch_of(objective)
    masks = objective._masks(batch, generator())
    pairs = objective._pairs(batch, masks, generator(1))
    assert pairs.shape == (40, 2)
    assert not masks[0][pairs[:, 0]].any()
    assert not masks[1][pairs[:, 1]].any()
    near = batch.query.origin[pairs[:, 0]] - batch.key.origin[pairs[:, 1]]
    assert float(near.norm(dim=1).max()) < 0.2


def test_the_divisor_weakens_contrast_alone():
    losses_of = {}
    for divisor in (1, 8):
        objective = make_objective(contrast_divisor=divisor)
        loss, logged = objective.loss(batch_of(objective), generator())
        losses_of[divisor] = float(loss.detach()), logged["contrast_loss"]
    assert losses_of[1][1] == losses_of[8][1]
    expected = losses_of[1][0] - losses_of[1][1] * 7 / 8
    assert losses_of[8][0] == pytest.approx(expected, rel=1e-5)


def test_without_its_weight_there_is_no_normal_head():
    objective = make_objective(normal_weight=0.0)
    assert objective.network.normal_head is None
    _, logged = objective.loss(batch_of(objective), generator())
    assert logged["normal_loss"] == 0.0


@pytest.mark.parametrize("target", ["original", "augmented"])
def test_colours_to_reconstruct_are_those_asked_for(target):
    objective = make_objective(color_target=target)
    random = np.random.default_rng(0)
    view, _ = sample = objective.prepare(toy_rooms()[0], random)
    batch = objective.collate([sample])
    wanted = view.source_colors if target == "original" else view.colors
    np.testing.assert_array_equal(batch.query.colors, wanted)
    np.testing.assert_array_equal(batch.query.features[:, :3], view.colors)
    np.testing.assert_array_equal(batch.query.features[:, 3:], view.normals)


def test_what_a_view_hides_is_filled_and_not_asked_for():
    objective = make_objective()
    random = np.random.default_rng(0)
    shown = objective.prepare(toy_rooms()[0], random)
    bare = objective.prepare(toy_rooms(colors=False)[0], random)
    batch = objective.collate([shown, bare]).query
    first = int(batch.offsets[0])
    assert batch.colored.tolist() == [True] * first + [False] * (len(batch.colored) - first)
    assert (batch.features[first:, :3] == 0.5).all()
    nothing = objective.collate([bare, bare])
    loss, logged = objective.loss(nothing, generator())
    assert logged["color_loss"] == 0.0
    assert bool(loss.isfinite())


def test_colours_follow_the_range_of_the_encoder():
    objective = MSC(make_encoder(color_range="-1..1"), CONFIG)
    features = torch.tensor([[0.0, 0.5, 1.0, 0.0, 0.0, 1.0]])
    assert objective.network_input(features).tolist() == [[-1.0, 0.0, 1.0, 0.0, 0.0, 1.0]]
    assert objective._network_colors(features[:, :3]).tolist() == [[-1.0, 0.0, 1.0]]


def test_bfloat16_is_used_where_sparse_convolutions_gain_by_it(monkeypatch):
    objective = make_objective()
    for cuda, quick, wanted in ((False, True, True), (False, False, False), (True, True, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(scene_objective, "fast", lambda _, quick=quick: quick)
        assert objective.bfloat16_pays() is wanted
    objective.runtime = Runtime(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    loss, _ = objective.loss(batch_of(objective), generator())
    loss.backward()
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite())


def test_logged_losses_are_averaged_over_the_processes():
    objective = make_objective()
    objective.runtime = Runtime(reduce_mean=lambda tensor: tensor * 0.0 + 7.0)
    _, logged = objective.loss(batch_of(objective), generator())
    assert logged["contrast_loss"] == logged["color_loss"] == logged["normal_loss"] == 7.0


def test_token_and_heads_are_drawn_from_the_seed():
    torch.manual_seed(5)
    first, again, other = make_objective(), make_objective(), make_objective(seed=1)
    assert torch.equal(first.network.mask_token, again.network.mask_token)
    assert torch.equal(first.network.color_head.weight, again.network.color_head.weight)
    assert not torch.equal(first.network.mask_token, other.network.mask_token)
    assert float(first.network.mask_token.detach().abs().max()) < 0.1


# Optimizer and schedule


def test_the_optimizer_is_sgd_with_the_momentum_of_the_schedule():
    clock = Clock(10, 1000, 2)
    paper, code = (
        dataclasses.replace(PRESETS[name], views=VIEWS) for name in ("paper", "pointcept")
    )
    objective = MSC(make_encoder(), code)
    optimizer = objective.optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"]
    assert len(optimizer.param_groups[0]["params"]) == len(list(objective.network.parameters()))
    with np.load(GOLDEN / "msc_onecycle.npz") as stored:
        for step in (0, 5, 9, 10, 500, 999):
            values = objective.schedule(step, clock)
            assert values["lr"] == pytest.approx(stored["lr"][step], rel=1e-9)
            assert values["momentum"] == pytest.approx(stored["momentum"][step], rel=1e-9)
            assert values["weight_decay"] == 1e-4
    fixed = MSC(make_encoder(), dataclasses.replace(code, cycle_momentum=None))
    assert fixed.schedule(10, clock)["momentum"] == 0.8
    cosine = MSC(make_encoder(), paper)
    assert cosine.schedule(9, clock)["lr"] == pytest.approx(0.1)
    assert cosine.schedule(500, clock)["momentum"] == 0.8


def test_the_loop_hands_the_momentum_to_the_optimizer(tmp_path):
    objective = make_objective(schedule="one_cycle", cycle_momentum=(0.95, 0.85), max_steps=2)
    momenta = []
    make = objective.optimizer

    def watched() -> torch.optim.Optimizer:
        optimizer = make()
        step = optimizer.step
        optimizer.step = lambda: (momenta.append(optimizer.param_groups[0]["momentum"]), step())
        return optimizer

    objective.optimizer = watched
    train(objective, toy_rooms(), tmp_path / "run")
    assert momenta == [
        pytest.approx(objective.schedule(i, Clock(2, 2, 2))["momentum"]) for i in (0, 1)
    ]


def test_gradients_are_clipped_together_where_asked_for():
    for limit, wanted in ((0.5, 0.5), (None, 5.0)):
        objective = make_objective(clip_gradient=limit)
        for parameter in objective.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        objective.network.color_head.bias.grad[:2] = torch.tensor([3.0, 4.0])
        objective.after_backward(0, Clock(1, 1, 1))
        assert float(objective.network.color_head.bias.grad.norm()) == pytest.approx(
            wanted, rel=1e-4
        )


# Whole runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of six steps that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(make_objective(), toy_rooms(), run)
    return run


def test_a_run_leaves_checkpoint_log_and_weights(tmp_path):
    result = msc.run(CONFIG, toy_rooms(), tmp_path / "run", encoder=make_encoder())
    assert result.finished
    assert result.steps == 6
    loaded = load_encoder(str(result.weights))
    features = loaded.extract(toy_rooms()[0])
    assert features.point.shape == (900, loaded.out_channels)
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4, 6]
    wanted = {"loss", "contrast_loss", "color_loss", "normal_loss", "positive_cosine", "momentum"}
    wanted |= {"negative_cosine", "point_rank", "pairs", "views", "waiting", "clouds_per_second"}
    assert all(wanted <= set(line) for line in lines)
    assert set(result.health) == {"feature_std", "effective_rank"}


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(whole, tmp_path):
    train(make_objective(max_steps=3, schedule="cosine"), toy_rooms(), tmp_path / "short")
    first = load_file(tmp_path / "short" / loop.CHECKPOINT)
    assert any(name.endswith("momentum_buffer") for name in first)
    objective = make_objective()
    calls, step = [], objective.after_step

    def fail(number: int, clock: Clock) -> None:
        calls.append(number)
        if number == 3:
            raise OSError("the disk is gone")
        step(number, clock)

    objective.after_step = fail
    with pytest.raises(OSError, match="the disk is gone"):
        train(objective, toy_rooms(), tmp_path / "run")
    assert calls == [0, 1, 2, 3]
    train(make_objective(), toy_rooms(), tmp_path / "run", resume=True)
    assert_same_bits(tmp_path / "run", whole)


def test_worker_processes_change_nothing(whole, tmp_path):
    train(make_objective(workers=1), toy_rooms(), tmp_path / "run")
    assert_same_bits(tmp_path / "run", whole)


def test_training_teaches():
    objective = make_objective(learning_rate=0.05).train()
    optimizer = objective.optimizer()
    batch = batch_of(objective, toy_rooms(2))
    values = []
    for _ in range(15):
        for group in optimizer.param_groups:
            group["lr"] = 0.02
        loss, logged = objective.loss(batch, generator())
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(values[-3:]) < values[0] - 0.5
    assert logged["positive_cosine"] > logged["negative_cosine"]


def test_several_data_sets_are_drawn_by_their_shares(tmp_path):
    data = JoinedDataset((toy_rooms(6), toy_rooms(2, name="scans", colors=False)))
    result = train(make_objective(shares=(1.0, 1.0), max_steps=2), data, tmp_path / "run")
    assert result.finished


def test_a_collapse_stops_the_run(tmp_path):
    objective = make_objective()
    encoder = objective.exported
    encoder.forward_voxels = lambda cells, features, offsets: (
        features.sum() * 0.0 + torch.ones(len(cells), encoder.out_channels)
    )
    with pytest.raises(CollapseError, match="all features lie on a line"):
        train(objective, toy_rooms(), tmp_path / "run")


def test_what_counts_as_dead():
    objective = make_objective()
    alive = {"point_rank": 9.0, "effective_rank": 5.0, "negative_cosine": 0.2}
    assert objective.collapsed(alive) is None
    assert objective.collapsed({**alive, "effective_rank": 1.2}) == "all features lie on a line"
    assert objective.collapsed({**alive, "negative_cosine": 0.999}) is not None


def test_pairs_are_measured():
    features = torch.eye(4)
    found = pair_health(features, features)
    assert found["positive_cosine"] == 1.0
    assert found["negative_cosine"] == 0.0
    assert found["pairs"] == 4.0
    assert found["point_rank"] == pytest.approx(3.0, rel=1e-4)
    few = pair_health(features[:1], features[:1])
    assert few == {"positive_cosine": 0.0, "negative_cosine": 0.0, "point_rank": 4.0, "pairs": 1.0}


def test_a_health_check_looks_at_the_middle_of_a_large_scan():
    coords = np.random.default_rng(0).random((5000, 3)) * (40.0, 40.0, 3.0)
    part = make_objective().look_at(PointCloud(coords))
    assert 20 < len(part) < 400
    assert np.ptp(part.coords[:, :2], axis=0).max() <= 6.0
    ring = PointCloud(np.array([[9.0, 0, 0], [-9.0, 0, 0], [0, 9.0, 0], [0, -9.0, 0]]))
    assert len(make_objective().look_at(ring)) == 4


# What is refused


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_rate": 0.6},
        {"mask_size": 0.0},
        {"mix_query": 1.1},
        {"contrast_divisor": 0},
        {"color_target": "both"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"match_radius": 0.0},
        {"max_pairs": 0},
        {"temperature": 0.0},
        {"warmup": 1.5},
        {"schedule": "none"},
    ],
)
def test_shared_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        SceneTrainingConfig(**changes)


def test_encoders_that_cannot_be_trained_so_are_refused():
    with pytest.raises(ConfigError, match="encoder of voxels"):
        MSC(Pointwise(PointwiseConfig(channels=("colors",))), CONFIG)
    with pytest.raises(ConfigError, match="encoder of voxels"):
        MSC(make_encoder(channels=()), CONFIG)
    with pytest.raises(ConfigError, match=r"voxels of 0.05 m, as the views have, got 0.2 m"):
        MSC(make_encoder(), PRESETS["cpu"])


def test_the_presets_are_those_of_the_paper_and_of_the_code():
    paper, code, cpu = (PRESETS[name] for name in ("paper", "pointcept", "cpu"))
    assert (paper.mask_rate, paper.mask_size, paper.normal_weight) == (0.3, 0.15, 1.0)
    assert (code.mask_rate, code.mask_size, code.normal_weight) == (0.4, 0.1, 0.0)
    assert paper.views == code.views == SceneAugmentation()
    assert paper.match_radius == code.match_radius == 0.03
    assert cpu.match_radius > cpu.views.grid_size
    assert losses.info_nce(torch.eye(2), torch.eye(2), temperature=paper.temperature) > 0.0


@pytest.mark.parametrize("color_range", ["0..1", "-1..1"])
def test_hidden_voxels_are_reconstructed_and_the_others_kept(color_range: str):
    objective = MSC(make_encoder(color_range=color_range), config(mask_rate=0.5))
    head = objective.network.color_head
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, 0.5)
    cloud = toy_rooms()[0]
    objective.train()
    found = objective.reconstruct(cloud, torch.Generator().manual_seed(0))
    assert objective.network.training
    assert 0 < found.mask.sum() < len(found.mask)
    np.testing.assert_array_equal(found.predicted[~found.mask], found.colors[~found.mask])
    grey = 0.5 if color_range == "0..1" else 0.75
    np.testing.assert_allclose(found.predicted[found.mask], grey, atol=1e-6)
    assert np.ptp(found.coords, axis=0) == pytest.approx(np.ptp(cloud.coords, axis=0), abs=0.2)


def test_colours_that_are_not_there_cannot_be_hidden():
    with pytest.raises(CloudError, match="a scene with colours"):
        make_objective().reconstruct(PointCloud(np.zeros((9, 3))), torch.Generator())
