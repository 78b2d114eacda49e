"""Labelled scenes: preparation, training with labels, linear probe, and the score of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import build
from pointzoo.errors import ConfigError
from pointzoo.metrics import class_iou, confusion_matrix, mean_iou
from pointzoo.tasks.recipes import SceneChanges
from pointzoo.tasks.scene_probe import fit_probe, sample_points, scene_features, score_probe, stack
from pointzoo.tasks.scenes import (
    LabelledScene,
    change_scene,
    collate,
    crop,
    keep_labels,
    load_scene,
)
from pointzoo.tasks.segmentation import (
    SegmentationConfig,
    SegmentationScore,
    Segmenter,
    evaluate_segmenter,
    measure_statistics,
    train_segmenter,
)


def make_room(seed: int, points: int = 900) -> PointCloud:
    """Return a grey floor (0), a bluish wall (1) and a reddish box (2); some points unlabelled."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, points)
    u, v = rng.uniform(0, 3, points), rng.uniform(0, 2, points)
    floor = np.stack([u, 1.5 * v, 0 * u], 1)
    wall = np.stack([u, 0 * u, v], 1)
    box = np.stack([1 + u / 6, 1 + v / 4, 0.3 + 0.1 * rng.random(points)], 1)
    coords = np.stack([floor, wall, box])[labels, np.arange(points)]
    normals = np.array([[0, 0, 1], [0, 1, 0], [0.6, 0, 0.8]])[labels]
    base = np.array([[0.5, 0.5, 0.5], [0.3, 0.4, 0.7], [0.7, 0.3, 0.3]])[labels]
    colors = np.clip(base + rng.normal(0, 0.05, (points, 3)), 0, 1)
    labels[rng.random(points) < 0.1] = -1
    coords += np.array([4e5, 5e6, 0])
    return PointCloud(coords, colors=colors.astype(np.float32), normals=normals, labels=labels)


def make_encoder(seed: int = 0) -> PointEncoder:
    torch.manual_seed(seed)
    return build("sparseunet_test", grid_size=0.1)


@pytest.fixture(scope="module")
def rooms() -> list[PointCloud]:
    return [make_room(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def scenes(rooms: list[PointCloud]) -> list[LabelledScene]:
    encoder = make_encoder()
    return [load_scene(room, encoder, thin=0.05) for room in rooms]


QUICK = SegmentationConfig(steps=25, crop_points=600, statistics=3, learning_rate=5e-3, amp=False)


# metrics ------------------------------------------------------------------------------------------

labellings = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=60)


@given(labellings)
def test_iou_by_a_second_implementation(pairs: list[tuple[int, int]]):
    predicted, target = (torch.tensor(side) for side in zip(*pairs, strict=True))
    confusion = confusion_matrix(predicted, target, 4)
    found = class_iou(confusion)
    known = [(p, t) for p, t in pairs if t >= 0]
    expected = []
    for k in range(4):
        theirs, ours = ({i for i, pair in enumerate(known) if pair[s] == k} for s in (1, 0))
        expected.append(len(theirs & ours) / len(theirs | ours) if theirs else np.nan)
    np.testing.assert_allclose(found, expected)
    assert int(confusion.sum()) == len(known)
    if known:
        assert mean_iou(confusion) == pytest.approx(np.nanmean(expected))
        score = SegmentationScore.of(confusion)
        assert score.accuracy == pytest.approx(np.mean([p == t for p, t in known]))
        assert [v is None for v in score.iou] == np.isnan(expected).tolist()
    else:
        with pytest.raises(ConfigError, match="labelled items"):
            SegmentationScore.of(confusion)


def test_confusion_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="as many predictions"):
        confusion_matrix(torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 2)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        confusion_matrix(torch.tensor([2]), torch.tensor([0]), 2)
    assert confusion_matrix(torch.tensor([2]), torch.tensor([-1]), 2).sum() == 0


# scenes -------------------------------------------------------------------------------------------


def test_a_scene_is_thinned_and_labelled_points_stay(rooms, scenes):
    encoder = make_encoder()
    whole = load_scene(rooms[0], encoder)
    assert len(whole) == len(rooms[0])
    np.testing.assert_array_equal(whole.labels, rooms[0].labels)
    assert len(scenes[0]) < len(whole)
    cells = np.floor((rooms[0].coords - rooms[0].coords.min(axis=0)) / 0.05)
    occupied = {tuple(c) for c in cells}
    labelled = {tuple(c) for c, label in zip(cells, rooms[0].labels, strict=True) if label >= 0}
    assert len(scenes[0]) == len(occupied)
    assert int((scenes[0].labels >= 0).sum()) == len(labelled)
    with pytest.raises(ConfigError, match="label per point"):
        load_scene(rooms[0].replace(labels=None), encoder)


def test_few_labels_are_kept(scenes):
    few = keep_labels(scenes[0], 20, np.random.default_rng(0))
    known = few.labels >= 0
    assert int(known.sum()) == 20
    assert torch.equal(few.labels[known], scenes[0].labels[known])
    again = keep_labels(scenes[0], 20, np.random.default_rng(0))
    assert torch.equal(few.labels, again.labels)
    every = keep_labels(scenes[0], 10**6, np.random.default_rng(0))
    assert torch.equal(every.labels, scenes[0].labels)


def test_a_crop_is_what_lies_around_a_labelled_point(scenes):
    few = keep_labels(scenes[0], 1, np.random.default_rng(0))
    part = crop(few, 100, np.random.default_rng(1))
    assert len(part) == 100
    assert int((part.labels >= 0).sum()) == 1
    middle = few.coords[few.labels >= 0]
    away = (few.coords - middle).norm(dim=1).sort().values
    assert float((part.coords - middle).norm(dim=1).max()) == pytest.approx(float(away[99]))
    assert crop(few, 10**6, np.random.default_rng(1)) is few
    bare = LabelledScene(few.coords, few.channels, torch.full_like(few.labels, -1))
    assert len(crop(bare, 10, np.random.default_rng(1))) == 10


def test_changes_keep_shape_and_turn_normals(scenes):
    still = SceneChanges(
        jitter=0.0, brightness=0.0, contrast=0.0, color_noise=0.0, scale=(2.0, 2.0)
    )
    scene = scenes[0]
    changed = change_scene(scene, still, ("colors", "normals"), np.random.default_rng(0))
    torch.testing.assert_close(
        torch.pdist(changed.coords[:50]), 2 * torch.pdist(scene.coords[:50]), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(changed.coords[:, 2], 2 * scene.coords[:, 2])
    torch.testing.assert_close(changed.channels[:, :3], scene.channels[:, :3])
    offset, moved = scene.coords[1] - scene.coords[0], changed.coords[1] - changed.coords[0]
    before = scene.channels[:, 3:] @ offset
    torch.testing.assert_close(changed.channels[:, 3:] @ moved / 2, before, rtol=1e-3, atol=1e-4)
    assert torch.equal(changed.labels, scene.labels)


def test_changes_move_colours_within_their_range(scenes):
    generator = np.random.default_rng(0)
    strong = SceneChanges(brightness=0.8, contrast=0.9)
    changed = change_scene(scenes[0], strong, ("colors", "normals"), generator)
    colors = changed.channels[:, :3]
    assert 0.0 <= float(colors.min()) <= float(colors.max()) <= 1.0
    assert (colors != scenes[0].channels[:, :3]).any()
    bare = LabelledScene(scenes[0].coords, scenes[0].channels[:, :0], scenes[0].labels)
    assert change_scene(bare, strong, (), generator).channels.shape == (len(bare), 0)
    batch, labels = collate([scenes[0], scenes[1]])
    assert batch.num_clouds == 2
    assert len(labels) == len(batch.coords)


# training -----------------------------------------------------------------------------------------


def test_training_learns_and_repeats(rooms, scenes):
    losses: list[float] = []
    model = train_segmenter(
        make_encoder(), scenes[:3], classes=3, config=QUICK, seed=1, after_step=losses.append
    )
    assert not model.training
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    test = [load_scene(rooms[3], model.encoder)]
    score = evaluate_segmenter(model, test, 3)
    assert score.miou > 0.7
    encoder, state = make_encoder(), torch.get_rng_state()
    again = train_segmenter(encoder, scenes[:3], classes=3, config=QUICK, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_training_in_bfloat16(scenes):
    config = SegmentationConfig(steps=2, crop_points=100, statistics=1, amp=True)
    losses: list[float] = []
    model = train_segmenter(
        make_encoder(), scenes[:1], classes=3, config=config, seed=0, after_step=losses.append
    )
    assert np.isfinite(losses).all()
    assert model.head.weight.dtype == torch.float32


def test_scenes_without_labels_are_left_out(scenes):
    bare = LabelledScene(
        scenes[0].coords, scenes[0].channels, torch.full_like(scenes[0].labels, -1)
    )
    config = SegmentationConfig(steps=1, crop_points=50, statistics=1)
    train_segmenter(make_encoder(), [bare, scenes[1]], classes=3, config=config, seed=0)
    with pytest.raises(ConfigError, match="labelled points"):
        train_segmenter(make_encoder(), [bare], classes=3, config=config, seed=0)
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"clip": 0.0}):
        with pytest.raises(ConfigError, match="at least 1 step"):
            SegmentationConfig(**wrong)


def test_statistics_are_those_of_the_scenes(scenes, monkeypatch: pytest.MonkeyPatch):
    model = Segmenter(make_encoder(), 3).train()
    weights = [p.clone() for p in model.parameters()]
    measure_statistics(model, [collate([scene])[0] for scene in scenes[:2]])
    norm = model.encoder.stem.norm
    assert (norm.momentum, int(norm.num_batches_tracked)) == (0.01, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    means: list[torch.Tensor] = []
    activate = norm.activate

    def watched(x: torch.Tensor, *rest, **options):
        means.append(x.detach().mean(dim=0))
        return activate(x, *rest, **options)

    monkeypatch.setattr(norm, "activate", watched)
    measured = norm.running_mean.clone()
    for scene in scenes[:2]:
        model(collate([scene])[0])
    torch.testing.assert_close(measured, (means[0] + means[1]) / 2)


# linear probe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sparseunet_test", "vit3d_test"])
def test_a_probe_reads_frozen_features(rooms, name: str):
    torch.manual_seed(0)
    channels = ("colors", "normals")
    encoder = build(name, channels=channels)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    found = [scene_features(encoder, room) for room in rooms]
    generator = np.random.default_rng(0)
    training = stack([sample_points(scene, 300, generator) for scene in found[:3]])
    assert training[0].shape == (900, encoder.out_channels)
    probe = fit_probe(*training, 3)
    assert score_probe(probe, found[3:], 3).accuracy > 0.6
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    few = sample_points(found[0], 10, np.random.default_rng(3))
    more = sample_points(found[0], 20, np.random.default_rng(3))
    assert torch.equal(few[1], more[1][:10])
    with pytest.raises(ConfigError, match="label per point"):
        scene_features(encoder, rooms[0].replace(labels=None))


def test_the_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    features = rng.normal(size=(400, 6)) * [1, 5, 1, 1, 0.1, 0] + labels[:, None]
    features[:, 5] = 7.0  # says nothing
    probe = fit_probe(torch.from_numpy(features), torch.from_numpy(labels), 3, penalty=0.01)
    standard = (features - features.mean(axis=0)) / np.where(
        features.std(axis=0), features.std(axis=0), 1
    )
    oracle = LogisticRegression(C=1 / (0.01 * 400), tol=1e-8, max_iter=1000)
    oracle.fit(standard, labels)
    np.testing.assert_allclose(probe.weight, oracle.coef_.T, atol=2e-3)
    predicted = probe.predict(torch.from_numpy(features))
    assert (predicted.numpy() == oracle.predict(standard)).mean() > 0.99
    with pytest.raises(ConfigError, match="labelled points"):
        fit_probe(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3)
