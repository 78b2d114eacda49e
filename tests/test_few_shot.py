"""A head from a handful of points: right, uncertain where it should be, saved like any head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finetune_toys import make_room
from hypothesis import given
from hypothesis import strategies as st

import pointzoo as pz
from pointzoo.errors import CloudError, ConfigError, UnknownNameError
from pointzoo.finetuning import closed_form as module

NAMES = ("floor", "wall", "box")


def some_rows(room: pz.PointCloud, each: int, seed: int = 0) -> np.ndarray:
    assert room.labels is not None
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(room.labels == k), each) for k in range(3)])


def accuracy(found: np.ndarray, room: pz.PointCloud) -> float:
    assert room.labels is not None
    known = room.labels >= 0
    return float((found[known] == room.labels[known]).mean())


@pytest.fixture(scope="module")
def encoder() -> pz.PointEncoder:
    return pz.create_encoder("sparseunet_test")


@pytest.mark.parametrize("method", ["ridge", "prototype"])
def test_a_handful_of_points_classifies_the_rest(
    encoder: pz.PointEncoder, method: str, tmp_path: Path
):
    room = make_room(3, 600)
    rows = np.unique(some_rows(room, 12))
    head = pz.few_shot(encoder, room, rows, room.labels[rows], classes=NAMES, method=method)
    assert accuracy(head.labels, room) > 0.6
    assert head.seconds < 1.0
    assert head.uncertainty.shape == (600,)
    assert 0.0 <= head.uncertainty.min() <= head.uncertainty.max() <= 1.0
    wrong = head.labels != room.labels
    assert head.uncertainty[wrong].mean() > head.uncertainty[~wrong].mean()
    other = make_room(4, 600)
    predicted = head.predict(other)
    assert accuracy(predicted.labels, other) > 0.45
    loaded = pz.load_model(head.save(tmp_path / "head"))
    assert loaded.method == method
    assert np.array_equal(loaded.predict(other).probabilities, predicted.probabilities)
    np.testing.assert_allclose(head.predict(room).probabilities, head.probabilities, atol=1e-4)


def test_ridge_is_ridge_and_leaves_out_in_closed_form():
    rng = np.random.default_rng(0)
    known, labels = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    counts = np.bincount(labels, minlength=3)
    solved = module.ridge(known, labels, counts)
    weights = 1.0 / counts[labels]
    weights = weights / weights.sum() * 30
    target = np.eye(3)[labels]

    def solve(keep: np.ndarray, penalty: float) -> np.ndarray:
        """Solve the normal equations with an intercept that is not penalised."""
        x = np.c_[known[keep], np.ones(keep.sum())]
        scaled = x * weights[keep, None]
        shrink = penalty * np.diag([1.0] * 5 + [0.0])
        found: np.ndarray = np.linalg.solve(x.T @ scaled + shrink, scaled.T @ target[keep])
        return found

    def error(penalty: float) -> float:
        total = 0.0
        for i in range(30):
            keep = np.arange(30) != i
            fitted = np.append(known[i], 1.0) @ solve(keep, penalty)
            total += weights[i] * ((fitted - target[i]) ** 2).sum()
        return total

    penalty = min(module.PENALTIES.tolist(), key=error)
    brute = solve(np.ones(30, bool), penalty)
    ratio = solved.weight / brute[:5]  # the temperature is the only difference
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    np.testing.assert_allclose(solved.bias, brute[5] * ratio[0, 0], rtol=1e-6)


def test_prototype_takes_the_nearest_mean():
    rng = np.random.default_rng(1)
    known = rng.normal(size=(12, 4))
    labels = np.arange(12) % 3
    solved = module.prototype(known, labels, np.bincount(labels, minlength=4))
    means = np.stack([known[labels == k].mean(axis=0) for k in range(3)])
    fresh = rng.normal(size=(50, 4))
    nearest = ((fresh[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal((fresh @ solved.weight + solved.bias).argmax(axis=1), nearest)


def test_one_point_of_each_class_is_enough(encoder: pz.PointEncoder):
    room = make_room(3)
    rows = [int(np.flatnonzero(room.labels == k)[0]) for k in range(3)]
    for method in ("ridge", "prototype"):
        head = pz.few_shot(encoder, room, rows, ["floor", "wall", "box"], method=method)
        assert set(head.class_names) == set(NAMES)
        assert np.isfinite(head.probabilities).all()


def test_points_may_be_coordinates_and_labels_numbers(encoder: pz.PointEncoder):
    room = make_room(3)
    rows = np.unique(some_rows(room, 4))
    labels = room.labels[rows]
    one = pz.few_shot(encoder, room, rows, labels)
    two = pz.few_shot(encoder, room, room.coords[rows] + 1e-6, labels, classes=("0", "1", "2"))
    assert np.array_equal(one.labels, two.labels)
    assert one.class_names == two.class_names


def test_next_points_are_new_and_spread_and_help(encoder: pz.PointEncoder):
    room = make_room(3, 300)
    rows = np.unique(some_rows(room, 2))
    head = pz.few_shot(encoder, room, rows, room.labels[rows], classes=NAMES)
    chosen = head.next_points(12)
    assert len(set(chosen.tolist())) == 12
    assert not set(chosen.tolist()) & set(rows.tolist())
    known = chosen[room.labels[chosen] >= 0]
    more = head.add(known, room.labels[known])
    assert len(more.points) == len(rows) + len(known)
    assert more.uncertainty.mean() < head.uncertainty.mean()
    corrected = more.add(known[:1], ["box"])
    assert len(corrected.points) == len(more.points)
    assert corrected.point_labels[-1] == 2
    assert len(head.next_points(10_000)) == 300 - len(rows)
    with pytest.raises(ConfigError, match="count"):
        head.next_points(0)


@given(st.integers(2, 5), st.integers(0, 3), st.sampled_from(["ridge", "prototype"]))
def test_any_handful_gives_finite_answers(each: int, seed: int, method: str):
    rng = np.random.default_rng(seed)
    space = module.Space.of(np.c_[rng.normal(size=(40, 3)), np.ones(40)].astype(np.float32), (3, 1))
    labels = np.arange(3 * each) % 3
    solver = module.ridge if method == "ridge" else module.prototype
    solved = solver(space.features[: 3 * each].astype(np.float64), labels, np.bincount(labels))
    assert np.isfinite(solved.weight).all()
    assert np.isfinite(solved.bias).all()
    apart = space.features[: 3 * each] - solved.center
    inverse = (
        np.linalg.inv(
            solved.axes.T @ np.diag(solved.shrunk / (1 - solved.shrunk)) @ solved.axes + np.eye(4)
        )
        / solved.penalty
    )
    brute = apart @ inverse @ apart.T
    np.testing.assert_allclose(solved.shared(space.features[: 3 * each]), brute, atol=1e-3)
    leverage = solved.leverage(space.features[: 3 * each])
    np.testing.assert_allclose(leverage, np.diagonal(brute), atol=1e-3)


@pytest.mark.parametrize(
    ("points", "labels", "match"),
    [
        ([0, 1], [0, 0], "two classes"),
        ([0, 9999], [0, 1], "rows from 0"),
        ([-1, 3], [0, 1], "rows from 0"),
        ([0.5, 1.5], [0, 1], "rows from 0"),
        ([], [], "rows from 0"),
        ([0, 0], [0, 1], "each point once"),
        ([0, 1], [0], "a label for each"),
        ([0, 1], 1, "a label for each"),
        ([0, 1], [0, 7], "labels from 0 to 2"),
        ([0, 1], [0, -1], "labels from 0 to 2"),
        ([0, 1], [0.5, 1.0], "labels from 0 to 2"),
        ([0, 1], ["floor", "flor"], "'floor'"),
    ],
)
def test_what_does_not_fit_is_refused(encoder: pz.PointEncoder, points, labels, match: str):
    with pytest.raises((ConfigError, UnknownNameError), match=match):
        pz.few_shot(encoder, make_room(3), points, labels, classes=NAMES)


def test_other_refusals(encoder: pz.PointEncoder):
    with pytest.raises(UnknownNameError, match="ridge"):
        pz.few_shot(encoder, make_room(3), [0, 1], [0, 1], method="ridg")
    with pytest.raises(CloudError):
        pz.few_shot(encoder, np.full((4, 3), np.nan), [0, 1], [0, 1])
