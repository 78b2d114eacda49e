"""Folds, intervals, classifiers and the probe itself."""

import json
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from shapes import shapes_dataset
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from pointzoo import zoo
from pointzoo.data.base import ArrayDataset
from pointzoo.errors import CloudError, ConfigError, MissingExtraError, UnknownNameError
from pointzoo.tasks.classifiers import CLASSIFIERS, get_classifier, standardize
from pointzoo.tasks.evaluation import ProbeResult, confidence_interval, difference, evaluate
from pointzoo.tasks.labelled import Labelled, Setting, stratified_folds
from pointzoo.tasks.probe import (
    Subject,
    probe,
    run_probe,
    scene_features,
    subject_by_name,
    write_json,
)


def blobs(per_class=12, classes=3, channels=6, seed=0, spread=0.6):
    """Features around one centre per class, their labels, and a data set to go with them."""
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), per_class)
    centres = generator.normal(size=(classes, channels))
    features = centres[labels] + spread * generator.normal(size=(len(labels), channels))
    dataset = ArrayDataset(
        "blobs",
        np.zeros((len(labels), 4, 3), np.float32),
        labels=labels,
        class_names=tuple("abcdefgh"[:classes]),
    )
    return features.astype(np.float32), labels, dataset


# folds


def test_folds_are_stratified_disjoint_and_equally_large():
    labels = np.repeat([0, 1, 2], [11, 7, 5])
    fold = stratified_folds(labels, 5, np.random.default_rng(0))
    assert sorted(np.bincount(fold).tolist()) == [4, 4, 5, 5, 5]
    for label, size in enumerate((11, 7, 5)):
        per_fold = np.bincount(fold[labels == label], minlength=5)
        assert per_fold.sum() == size
        assert per_fold.max() - per_fold.min() <= 1
    other = stratified_folds(labels, 5, np.random.default_rng(1))
    assert (fold != other).any()


@pytest.mark.parametrize("folds", [1, 6])
def test_folds_that_cannot_be_made_are_refused(folds):
    with pytest.raises(ConfigError, match="folds"):
        stratified_folds(np.repeat([0, 1], 5), folds, np.random.default_rng(0))


def test_clouds_without_a_label_are_left_out():
    data = shapes_dataset(per_class=4)
    labels = data.labels.copy()
    labels[[0, 5]] = -1
    partly = ArrayDataset("partly", data.coords, labels=labels, class_names=data.class_names)
    labelled = Labelled.of(partly, None, Setting(folds=3))
    assert len(labelled.labels) == 14
    np.testing.assert_array_equal(labelled.cloud(4).coords, data[6].coords)
    for train, test in labelled.splits(0):
        assert sorted([*train, *test]) == list(range(14))


def test_data_sets_without_labels_or_with_other_classes_are_refused():
    data = shapes_dataset(per_class=4)
    with pytest.raises(ConfigError, match="label"):
        Labelled.of(ArrayDataset("none", data.coords), None, Setting())
    other = ArrayDataset("other", data.coords, labels=data.labels, class_names=tuple("wxyz"))
    with pytest.raises(ConfigError, match="classes"):
        Labelled.of(data, other, Setting())


def test_drawing_depends_on_seed_and_row_alone():
    data = shapes_dataset(per_class=2, points=64)
    labelled = Labelled.of(data, None, Setting(points=32, rotation="z", folds=2))
    first, again, other = ([c.coords for c, _ in labelled.drawn(seed)] for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        assert a.shape == (32, 3)
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    # a turn about z keeps heights, and only the drawn points' heights occur
    assert set(np.round(first[3][:, 2], 9)) <= set(np.round(data[3].coords[:, 2], 9))
    whole = Labelled.of(data, None, Setting(points=64, folds=2))
    assert not any(changed for _, changed in whole.drawn(0))


@pytest.mark.parametrize("change", [{"points": 0}, {"rotation": "so3"}, {"seeds": ()}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="points"):
        Setting(**change)


# intervals


def test_interval_of_cross_validation_is_nadeau_and_bengios():
    table = np.array([[0.7, 0.8, 0.75, 0.65, 0.7], [0.72, 0.78, 0.7, 0.66, 0.74]])
    low, high = confidence_interval(table, items=100)
    spread = table.var(ddof=1) * (1 / 10 + 20 / 80)
    half = stats.t.ppf(0.975, 9) * spread**0.5
    assert low == pytest.approx(table.mean() - half)
    assert high == pytest.approx(table.mean() + half)


def test_interval_of_a_given_split_is_binomial_and_stays_in_range():
    low, high = confidence_interval(np.full((3, 1), 0.8), items=400)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.02)
    assert confidence_interval(np.ones((1, 1)), items=10) == (1.0, 1.0)
    assert confidence_interval(np.full((1, 1), 0.99), items=10)[1] == 1.0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    # a fixed rule that is right with probability 0.7: folds are independent, the interval is wide
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        table = generator.binomial(40, 0.7, size=(1, 5)) / 40
        low, high = confidence_interval(table, items=200)
        hits += low <= 0.7 <= high
    assert hits >= 190


def test_evaluate_counts_every_item_once_per_seed():
    _, labels, dataset = blobs()
    data = Labelled.of(dataset, None, Setting(seeds=(3, 4), folds=4))
    steps = []
    result = evaluate(
        lambda _seed, _train, test: np.where(labels[test] == 2, 0, labels[test]),
        data,
        subject="s",
        classifier="c",
        advance=lambda: steps.append(1),
    )
    assert len(steps) == 8
    assert result.confusion == ((24, 0, 0), (0, 24, 0), (24, 0, 0))
    assert result.mean == pytest.approx(2 / 3)
    assert result.class_accuracy == pytest.approx(2 / 3)
    assert np.array(result.accuracy).shape == (2, 4)
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored["subject"] == "s"
    assert ProbeResult.from_dict(stored) == result
    with pytest.raises(ConfigError, match="extra"):
        ProbeResult.from_dict({**stored, "extra": 1})
    assert "66.7 %" in result.summary()
    name, value = result.metric("blobs")
    assert name == f"blobs accuracy, s, c, {result.points} points"
    assert value.startswith("66.7 % (")


def test_difference_is_paired():
    features, _, dataset = blobs(spread=2.0)
    noisy = features + 2.0 * np.random.default_rng(5).normal(size=features.shape)
    better, worse = (
        probe(x.astype(np.float32), dataset, classifier="knn1", folds=4)[0]
        for x in (features, noisy)
    )
    mean, (low, high) = difference(better, worse)
    assert mean == pytest.approx(better.mean - worse.mean)
    assert low < mean < high
    assert difference(better, better) == (0.0, (0.0, 0.0))
    for other in (
        probe(features, dataset, classifier="knn1", folds=3)[0],
        probe(features, dataset, classifier="knn1", folds=4, seeds=(7, 8, 9))[0],
    ):
        with pytest.raises(ConfigError, match="same settings"):
            difference(better, other)
    split = probe(np.concatenate([features] * 2), dataset, classifier="knn1", test=dataset)[0]
    with pytest.raises(ConfigError, match="cross-validated"):
        difference(split, split)


# classifiers


def test_protocols_are_those_of_the_papers():
    features, labels, _ = blobs(per_class=20, spread=1.5)
    train, test = features[:40].astype(np.float64), features[40:].astype(np.float64)
    strl = SVC(kernel="linear", C=1.0).fit(train, labels[:40]).predict(test)
    np.testing.assert_array_equal(get_classifier("svm")(train, labels[:40], test), strl)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    posbert = LinearSVC(random_state=0).fit(unit(train), labels[:40]).predict(unit(test))
    np.testing.assert_array_equal(get_classifier("svm_l2")(train, labels[:40], test), posbert)
    scaled, scaled_test = standardize(train, test)
    fits = [
        LogisticRegression(C=c, max_iter=500).fit(scaled, labels[:40]).predict(scaled_test).tolist()
        for c in (0.1, 1.0, 10.0, 100.0)
    ]
    assert get_classifier("logistic")(train, labels[:40], test).tolist() in fits


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_classifier_finds_clear_classes_and_not_noise(name):
    features, labels, _ = blobs(per_class=20, spread=0.1)
    classify = get_classifier(name)
    assert (classify(features[:30], labels[:30], features[30:]) == labels[30:]).all()
    noise = np.random.default_rng(3).normal(size=features.shape).astype(np.float32)
    assert (classify(noise[:30], labels[:30], noise[30:]) == labels[30:]).mean() < 0.7


@pytest.mark.parametrize("name", ["svm_tuned", "logistic", "knn", "knn1"])
def test_standardised_classifiers_do_not_see_scale_and_offset(name):
    features, labels, _ = blobs(per_class=20, spread=1.0)
    moved = 1e-3 * features.astype(np.float64) + 5.0
    classify = get_classifier(name)
    np.testing.assert_array_equal(
        classify(features[:30], labels[:30], features[30:]),
        classify(moved[:30], labels[:30], moved[30:]),
    )


def test_standardize():
    train = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 4.0]])
    scaled, test = standardize(train, np.array([[2.0, 6.0, 8.0]]))
    np.testing.assert_allclose(scaled, np.array([[-1, 0, -1], [1, 0, 1]]) / 3**0.5)
    np.testing.assert_allclose(test, np.array([[0, 0, 3]]) / 3**0.5)


def test_tuning_copes_with_classes_too_small_for_inner_folds():
    features, labels, _ = blobs(per_class=2, spread=0.05)
    found = get_classifier("svm_tuned")(features, labels, features)
    np.testing.assert_array_equal(found, labels)


def test_zero_features_do_not_break_a_classifier():
    _, labels, _ = blobs()
    zeros = np.zeros((36, 4), np.float32)
    for name in CLASSIFIERS:
        assert set(get_classifier(name)(zeros, labels, zeros)) <= {0, 1, 2}


def test_unknown_classifier_names_the_nearest():
    with pytest.raises(UnknownNameError, match="svm_l2"):
        get_classifier("svml2")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    features, labels, _ = blobs()
    with pytest.raises(MissingExtraError, match=r"pointzoo\[eval\]"):
        get_classifier("svm")(features, labels, features)


# the probe


def test_probe_of_an_encoder_on_shapes_beats_chance():
    data = shapes_dataset(per_class=9, points=128)
    encoder = zoo.create_encoder("vit3d_test", seed=0)
    results = probe(encoder, data, classifier=("svm_tuned", "knn"), folds=3, seeds=(0, 1))
    assert [r.classifier for r in results] == ["svm_tuned", "knn"]
    assert all(r.subject == "ViT3D" and r.channels == encoder.scene_channels for r in results)
    assert results[0].mean > 0.4  # chance is 0.25
    assert results[0].interval[0] <= results[0].mean <= results[0].interval[1]
    assert 1.0 < results[0].effective_rank < 32
    again = probe(encoder, data, classifier="svm_tuned", folds=3, seeds=(0, 1))[0]
    assert again.accuracy == results[0].accuracy


def test_features_are_computed_once_where_the_seed_makes_no_difference():
    data = shapes_dataset(per_class=4, points=64)
    calls = []

    def describe(clouds, seed):
        calls.append(seed)
        return np.stack([np.ptp(cloud.coords, axis=0) for cloud in clouds])

    probe(Subject("s", describe), data, classifier="knn1", folds=2, seeds=(0, 1), points=64)
    assert calls == [0]
    for change in ({"points": 32}, {"rotation": "z"}):
        calls.clear()
        probe(Subject("s", describe), data, classifier="knn1", folds=2, seeds=(5, 6), **change)
        assert calls == [5, 6]
    calls.clear()
    probe(Subject("s", describe, True), data, classifier="knn1", folds=2, seeds=(0, 1))
    assert calls == [0, 1]


def test_probe_with_a_test_set_and_ready_features():
    features, labels, dataset = blobs(spread=0.2)
    result = probe(
        np.concatenate([features, features]), dataset, test=dataset, classifier="knn1", seeds=(0,)
    )[0]
    assert result.accuracy == ((1.0,),)
    assert np.array(result.confusion).sum() == len(labels)
    with pytest.raises(ConfigError, match="one row for each of the 36 clouds"):
        probe(features[:5], dataset)


def test_scene_features_equal_extract_and_random_weights_leave_the_seed_alone():
    data = shapes_dataset(per_class=1, points=64)
    torch.manual_seed(11)
    expected = torch.random.get_rng_state()
    encoder = zoo.create_encoder("vit3d_test", seed=3)
    assert torch.equal(torch.random.get_rng_state(), expected)
    same = zoo.create_encoder("vit3d_test", seed=3)
    clouds = [data[i] for i in range(4)]
    rows = scene_features(encoder, clouds)
    np.testing.assert_array_equal(rows, scene_features(same, clouds))
    np.testing.assert_allclose(rows[2], encoder.extract(clouds[2]).scene, atol=1e-6)
    assert scene_features(encoder, []).shape == (0, encoder.scene_channels)


def test_subjects_by_name(monkeypatch):
    data = shapes_dataset(per_class=2, points=64)
    clouds = [data[i] for i in range(8)]
    assert subject_by_name("descriptor:extents").describe(clouds, 0).shape[0] == 8
    random = subject_by_name("random:vit3d_test")
    assert random.seeded
    assert (random.describe(clouds, 0) != random.describe(clouds, 1)).any()
    encoder = zoo.create_encoder("vit3d_test", seed=0)
    monkeypatch.setattr(zoo, "load_encoder", {"a/folder": encoder}.__getitem__)
    found = subject_by_name("a/folder").describe(clouds, 5)
    np.testing.assert_array_equal(found, scene_features(encoder, clouds))
    for name in ("descriptor:fphf", "random:vit3d_tinny"):
        with pytest.raises(UnknownNameError, match="Did you mean"):
            subject_by_name(name)


def test_run_probe_covers_every_combination_and_writes_json(tmp_path, capfd):
    data = shapes_dataset(per_class=3, points=48)
    for index, name in enumerate(data.names):
        folder = tmp_path / "data" / data.class_names[data.labels[index]]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", data.coords[index])
    results = run_probe(
        ["descriptor:extents", "descriptor:profiles"],
        tmp_path / "data",
        classifiers=("knn1", "svm"),
        folds=3,
        seeds=(0,),
        points=(32, 48),
        rotations=("none", "z"),
        output=tmp_path / "out.json",
    )
    assert len(results) == 16
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored == [result.to_dict() for result in results]
    assert {(r["points"], r["rotation"]) for r in stored} == {
        (32, "none"), (32, "z"), (48, "none"), (48, "z"),
    }  # fmt: skip
    assert capfd.readouterr().out == ""
    split = run_probe(
        ["descriptor:extents"], tmp_path / "data", test=tmp_path / "data",
        classifiers=("knn1",), seeds=(0,), progress=False,
    )  # fmt: skip
    assert split[0].mean == 1.0


def test_json_is_replaced_at_once(tmp_path):
    write_json(tmp_path / "a.json", [1])
    write_json(tmp_path / "a.json", {"b": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_probe_refuses_a_cloud_it_cannot_use():
    coords = np.zeros((8, 4, 3), np.float32)
    coords[3, 0, 0] = np.nan
    labels = np.repeat([0, 1], 4)
    broken = ArrayDataset("broken", coords, labels=labels, class_names=("a", "b"))
    with pytest.raises(CloudError, match="finite"):
        probe(subject_by_name("descriptor:extents"), broken, folds=2)
