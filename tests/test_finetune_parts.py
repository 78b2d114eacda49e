"""What learns under each method, what a head reads, and the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_toys import make_room
from torch import nn

import pointzoo as pz
from pointzoo.batch import PointBatch
from pointzoo.errors import CloudError, ConfigError, MissingExtraError, TrainingError, WeightError
from pointzoo.finetuning.config import FinetuneConfig
from pointzoo.finetuning.lora import add_adapters, added_names, has_adapters, matrix_shape
from pointzoo.finetuning.methods import (
    build_network,
    count,
    parameter_groups,
    run_order,
    set_modes,
)
from pointzoo.finetuning.network import Network
from pointzoo.finetuning.report import write_score
from pointzoo.finetuning.segmentation import Segmentation
from pointzoo.finetuning.task import Score
from pointzoo.finetuning.votes import views
from pointzoo.viz import class_colors, classes_figure, confusion_figure

TASK = Segmentation(("floor", "wall", "box"))


def make_batch(encoder: pz.PointEncoder, *clouds: pz.PointCloud) -> PointBatch:
    coords, channels = zip(*map(encoder.preprocess, clouds), strict=True)
    return PointBatch.collate(coords, channels)


def test_parts_run_from_the_input_to_the_output():
    unet = run_order(pz.create_encoder("sparseunet_test"))
    assert unet == [
        "stem", "down.0", "enc.0", "down.1", "enc.1", "up.1", "dec.1", "up.0", "dec.0",
    ]  # fmt: skip
    vit = run_order(pz.create_encoder("vit3d_test"))
    assert vit[0] in ("class_token", "")
    assert vit.index("patch_embedding") < vit.index("blocks.0") < vit.index("norm")


@pytest.mark.parametrize("name", ["sparseunet_test", "vit3d_test"])
def test_rates_fall_towards_the_input_and_norms_do_not_decay(name: str):
    network = build_network(
        pz.create_encoder(name), TASK,
        FinetuneConfig(method="full", layer_decay=0.5, encoder_rate=0.4), seed=0,
    )  # fmt: skip
    groups = parameter_groups(network, FinetuneConfig(layer_decay=0.5, encoder_rate=0.4))
    rate = {id(p): group["factor"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(rate) == len(list(network.parameters()))
    first = run_order(network.encoder)
    for part, factor in ((first[0], 0.4 * 0.5 ** len(first)), (first[-1], 0.4 * 0.5)):
        named = [p for n, p in network.encoder.named_parameters() if n.startswith(part)]
        assert rate[id(named[0])] == pytest.approx(factor)
    assert {rate[id(p)] for p in network.head.parameters()} == {1.0}
    assert all((decay[id(p)] > 0) == (p.ndim > 1) for p in network.parameters())


def test_modes_of_the_methods():
    for method in ("linear", "decoder", "lora", "full"):
        config = FinetuneConfig(method=method, freeze=1 if method == "full" else 0)
        network = build_network(pz.create_encoder("sparseunet_test"), TASK, config, seed=0)
        set_modes(network, config)
        norms = [m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm1d)]
        assert network.head.training
        assert sum(norm.training for norm in norms) == (len(norms) - 1) * (method == "full")
        learns = count(network.encoder.parameters())
        assert (learns > 0) == (method in ("lora", "full"))


def test_adapters_start_from_the_encoder_and_are_few():
    encoder = pz.create_encoder("sparseunet_test")
    batch = make_batch(encoder, make_room(0))
    with torch.no_grad():
        before = encoder(batch).point
        total = sum(p.numel() for p in encoder.parameters())
        assert add_adapters(encoder, 2) > 5
        assert torch.equal(encoder(batch).point, before)
    assert has_adapters(encoder)
    learns = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert learns == added_names(encoder)
    assert count(encoder.parameters()) < total / 2
    encoder(batch).point.square().sum().backward()
    grads = [p.grad for n, p in encoder.named_parameters() if n.endswith("0.b")]
    assert all(g is not None and bool((g != 0).any()) for g in grads)


def test_weights_as_matrices():
    assert matrix_shape(torch.zeros(27, 8, 12)) == (216, 12)
    assert matrix_shape(nn.Linear(5, 7).weight) == (7, 5)
    assert matrix_shape(nn.Conv1d(5, 7, 1).weight) == (7, 5)
    tiny = nn.Linear(2, 2)
    assert add_adapters(tiny, 8) == 0
    assert not has_adapters(tiny)


def test_a_decoder_reads_the_voxels_of_all_levels():
    encoder = pz.create_encoder("sparseunet_test")
    network = Network(encoder, TASK, reads="levels", hidden=4)
    batch = make_batch(encoder, make_room(0), make_room(1, 60))
    rows = network.encode(batch).rows()
    with torch.no_grad():
        output = encoder(batch)
    geometry = encoder.geometry(batch)
    places = geometry.grid.coords[geometry.voxel]  # (N, 3) finest voxel of each point
    start = 0
    for level in output.levels:
        clouds = torch.repeat_interleave(
            torch.arange(2), torch.diff(level.offsets, prepend=torch.zeros(1, dtype=torch.int64))
        )
        table = {
            (int(b), *c): row
            for b, c, row in zip(clouds, level.grid_coords.tolist(), level.features, strict=True)
        }
        width = level.features.shape[1]
        for point in (0, 17, 249, 250, 309):
            key = (int(batch.batch_index[point]), *(places[point] // level.stride).tolist())
            assert torch.allclose(rows[point, start : start + width], table[key])
        start += width
    inputs = geometry.mean(batch.features)[geometry.voxel]  # and what the encoder read there
    assert torch.equal(rows[:, start:], inputs)
    assert rows.shape[1] == start + 6 == sum(network.widths)


def test_a_decoder_without_levels_reads_the_scene_too():
    encoder = pz.create_encoder("vit3d_test")
    network = Network(encoder, TASK, reads="levels", hidden=4)
    batch = make_batch(encoder, make_room(0, 50), make_room(1, 60))
    rows = network.encode(batch).rows()
    assert rows.shape == (110, sum(network.widths))


def test_a_network_gone_astray_is_said_so():
    network = Network(pz.create_encoder("sparseunet_test"), TASK)
    with torch.no_grad():
        network.head.layers.bias.fill_(torch.nan)
    with pytest.raises(WeightError, match="learning rate"):
        network.rows(make_room(0))


def test_a_diverging_training_is_stopped():
    from finetune_toys import Rooms

    with pytest.raises((TrainingError, WeightError)):
        pz.finetune(
            "sparseunet_test", Rooms(), method="full", learning_rate=1e11, clip=0.0,
            max_steps=4, validate_steps=4, optimizer="sgd", warmup=0.0, amp=False,
        )  # fmt: skip


def test_the_loss_of_unlabelled_points_is_zero():
    output = torch.randn(4, 3, requires_grad=True)
    loss, parts = TASK.loss(output, torch.full((4,), -1), None)
    loss.backward()
    assert (loss.item(), parts) == (0.0, {})


def test_views_turn_and_mirror():
    room = make_room(0).replace(normals=np.tile([1.0, 0.0, 0.0], (250, 1)))
    found = list(views(room, 4))
    assert found[0] is room
    np.testing.assert_allclose(found[2].coords[:, :2], -room.coords[:, :2], atol=1e-12)
    lengths = np.linalg.norm(found[1].coords, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(room.coords, axis=1))
    np.testing.assert_allclose(found[1].normals[0], [0.0, 1.0, 0.0], atol=1e-6)


# pictures -----------------------------------------------------------------------------------------


def test_class_colours_are_fixed_and_different():
    colors = class_colors(np.arange(20))
    assert len(np.unique(colors.round(3), axis=0)) == 20
    np.testing.assert_array_equal(class_colors([7, -1])[0], colors[7])
    assert class_colors([-1])[0].tolist() == [0.75] * 3
    assert class_colors([]).shape == (0, 3)


def test_figures(tmp_path: Path):
    room = make_room(0)
    names = ("floor", "wall", "box")
    path = classes_figure(room.coords, room.labels, names, tmp_path / "room.png", size=64)
    assert path.stat().st_size > 500
    with pytest.raises(CloudError, match="labels below 1"):
        classes_figure(room.coords, room.labels, names[:1], tmp_path / "no.png")
    with pytest.raises(ConfigError, match="counts"):
        confusion_figure(np.zeros((3, 3)), names, tmp_path / "no.png")
    with pytest.raises(ConfigError, match="counts"):
        confusion_figure(np.ones((2, 3)), names, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_scores_are_written_without_matplotlib_too(tmp_path: Path, monkeypatch):
    score = Score("miou", {"miou": 0.5}, {"iou": (0.5, None)}, ("a", "b"), ((3, 1), (0, 0)))

    def missing(*_):
        raise MissingExtraError("matplotlib", "viz")

    assert len(write_score(score, tmp_path, "all")) == 3
    monkeypatch.setattr("pointzoo.finetuning.report.confusion_figure", missing)
    assert len(write_score(score, tmp_path, "some")) == 2
    assert Score.from_dict(score.to_dict()) == score
