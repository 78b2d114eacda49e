"""Average precision of instances: by hand, and against a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo.errors import ConfigError
from pointzoo.tasks.average_precision import (
    THRESHOLDS,
    Instances,
    average_precision,
    count_overlaps,
)

Mask = set[int]


def packed(objects: list[tuple[Mask, int, float]]) -> Instances:
    """Predictions from masks, classes and scores."""
    return Instances(
        rows=np.array([row for mask, _, _ in objects for row in sorted(mask)], dtype=np.int64),
        offsets=np.cumsum([len(mask) for mask, _, _ in objects], dtype=np.int64),
        classes=np.array([kind for _, kind, _ in objects], dtype=np.int64),
        scores=np.array([score for *_, score in objects], dtype=np.float64),
    )


class Second:
    """The same metric in sets and plain loops, one object and one prediction at a time."""

    def __init__(self, scenes, countable, min_points):
        self.scenes = []
        self.countable, self.min_points = countable, min_points
        for labels, instances, predictions in scenes:
            objects: dict[tuple[int, int], Mask] = {}
            for row, (label, instance) in enumerate(zip(labels, instances, strict=True)):
                if label >= 0 and instance >= 0 and countable[label]:
                    objects.setdefault((label, instance), set()).add(row)
            anything = set().union(*objects.values())
            self.scenes.append((dict(sorted(objects.items())), anything, predictions))

    def ap(self, kind: int, threshold: float) -> float:
        examples: list[tuple[float, bool]] = []
        missed = present = 0
        for objects, anything, predictions in self.scenes:
            mine = [mask for name, mask in objects.items() if name[0] == kind]
            asked = [p for p in predictions if p[1] == kind and len(p[0]) >= self.min_points]
            taken: set[int] = set()
            for mask in mine:
                if len(mask) >= self.min_points:
                    found = self.look_for(mask, asked, taken, threshold)
                    examples += found
                    present += 1
                    missed += not found
            for guess, _, confidence in asked:
                if self.is_false(guess, mine, anything, threshold):
                    examples.append((confidence, False))
        return self.area(examples, missed) if present else math.nan

    def look_for(self, mask, asked, taken, threshold):
        score, examples = None, []
        for number, (guess, _, confidence) in enumerate(asked):
            if number in taken or self.iou(guess, mask) <= threshold:
                continue
            if score is None:
                score = confidence
                taken.add(number)
            else:
                examples.append((min(score, confidence), False))
                score = max(score, confidence)
        return examples if score is None else [*examples, (score, True)]

    def is_false(self, guess, mine, anything, threshold):
        if any(self.iou(guess, mask) > threshold for mask in mine):
            return False
        small = [len(guess & mask) for mask in mine if len(mask) < self.min_points]
        return (len(guess - anything) + sum(small)) / len(guess) <= threshold

    @staticmethod
    def iou(a: Mask, b: Mask) -> float:
        return len(a & b) / len(a | b)

    @staticmethod
    def area(examples: list[tuple[float, bool]], missed: int) -> float:
        total = sum(right for _, right in examples) + missed
        curve = [(0.0, 1.0)]  # recall and precision, from the strictest score down
        for level in sorted({score for score, _ in examples}, reverse=True):
            kept = [right for score, right in examples if score >= level]
            curve.append((sum(kept) / total, sum(kept) / len(kept)))
        found = 0.0
        for i, (recall, precision) in enumerate(curve):
            before = curve[i - 1][0] if i else 0.0
            after = curve[i + 1][0] if i + 1 < len(curve) else recall
            found += precision * (after - before) / 2
        return found

    def table(self) -> np.ndarray:
        classes = range(len(self.countable))
        rows = [
            [self.ap(k, t) if self.countable[k] else math.nan for t in (*THRESHOLDS, 0.25)]
            for k in classes
        ]
        return np.array(rows)


def both(scenes, countable, min_points):
    counted = [
        count_overlaps(packed(predictions), np.array(labels), np.array(instances), countable)
        for labels, instances, predictions in scenes
    ]
    table = Second(scenes, countable, min_points).table()
    if np.isnan(table).all():
        with pytest.raises(ConfigError, match="none"):
            average_precision(counted, countable, min_points=min_points)
        return None
    score = average_precision(counted, countable, min_points=min_points)
    expected = np.nanmean(table[:, :-1]), np.nanmean(table[:, 0]), np.nanmean(table[:, -1])
    assert (score.ap, score.ap50, score.ap25) == pytest.approx(expected, abs=1e-12)
    columns = table[:, :-1].mean(axis=1), table[:, 0], table[:, -1]
    for ours, second in zip(
        (score.class_ap, score.class_ap50, score.class_ap25), columns, strict=True
    ):
        assert [math.nan if v is None else v for v in ours] == pytest.approx(
            second.tolist(), abs=1e-12, nan_ok=True
        )
    return score


@st.composite
def scene(draw):
    """Labels and instances of points in stretches; predictions are changed objects or noise."""
    size, seed = draw(st.integers(1, 60)), draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    instances = np.sort(rng.integers(-1, 6, size))
    labels = np.where(rng.random(size) < 0.9, rng.integers(-1, 4, 8)[instances], 1)
    predictions = []
    for _ in range(draw(st.integers(0, 8))):
        rows = set(np.flatnonzero(instances == rng.integers(-1, 6)).tolist())
        wrong = set(rng.integers(0, size, rng.integers(0, 8)).tolist())
        mask = (rows - wrong) if rng.random() < 0.7 else (rows | wrong)
        if mask:
            predictions.append((mask, int(rng.integers(0, 4)), float(rng.choice([0.2, 0.5, 0.9]))))
    return labels.tolist(), instances.tolist(), predictions


@settings(deadline=None, max_examples=80)
@given(st.lists(scene(), min_size=1, max_size=3), st.integers(1, 4))
def test_equal_to_the_second_implementation(scenes, min_points):
    both(scenes, [True, False, True, True], min_points)


def strip(*lengths: int) -> list[Mask]:
    ends = np.cumsum(lengths)
    return [set(range(e - n, e)) for e, n in zip(ends.tolist(), lengths, strict=True)]


def flat(masks: list[Mask], values: list[int]) -> list[int]:
    return [value for mask, value in zip(masks, values, strict=True) for _ in mask]


def test_perfect_and_nothing():
    masks = strip(10, 10, 20)
    labels, instances = flat(masks, [0, 0, 1]), flat(masks, [0, 1, 2])
    perfect = [(mask, kind, 0.9) for mask, kind in zip(masks, [0, 0, 1], strict=True)]
    score = both([(labels, instances, perfect)], [True, True, True], 5)
    assert (score.ap, score.ap50, score.ap25) == (1.0, 1.0, 1.0)
    assert score.class_ap == (1.0, 1.0, None)
    assert both([(labels, instances, [])], [True, True, True], 5).ap == 0.0


def test_one_of_two_found_beside_a_false_one():
    """Scores .9 (right) and .6 (wrong), one object missed: by hand."""
    masks = strip(10, 10, 10)
    labels, instances = flat(masks, [0, 0, 1]), flat(masks, [0, 1, 2])
    guesses = [(masks[0], 0, 0.9), (masks[2], 0, 0.6)]
    score = both([(labels, instances, guesses)], [True, True], 5)
    # curve: (recall 0, precision 1), (1/2, 1), (1/2, 1/2); half steps 1/4, 1/4, 0
    assert score.class_ap50[0] == pytest.approx(0.5)
    assert score.class_ap50[1] == 0.0


def test_overlap_at_each_threshold():
    """An object of 100 points of which 62 are found counts at 0.5, 0.55 and 0.6."""
    labels, instances = [0] * 100, [0] * 100
    score = both([(labels, instances, [(set(range(62)), 0, 1.0)])], [True], 10)
    assert score.ap == pytest.approx(3 / 9)
    assert score.ap50 == score.ap25 == 1.0
    half = both([(labels, instances, [(set(range(50)), 0, 1.0)])], [True], 10)
    assert (half.ap50, half.ap25) == (0.0, 1.0)  # 0.5 is not above 0.5


def test_found_twice():
    masks = strip(10, 10)
    labels, instances = flat(masks, [0, 0]), flat(masks, [0, 1])
    twice = [(masks[0], 0, 0.5), (masks[0], 0, 0.9), (masks[1], 0, 0.3)]
    score = both([(labels, instances, twice)], [True], 5)
    # right at .9, wrong at .5, right at .3: precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1
    steps = 1 * 0.25 + 1 * 0.25 + 0.5 * 0.25 + (2 / 3) * 0.25
    assert score.ap50 == pytest.approx(steps)


def test_predictions_outside_objects_are_ignored():
    masks = strip(10, 10, 4, 10)
    labels, instances = flat(masks, [0, -1, 0, 1]), flat(masks, [0, 1, 2, 3])
    right = (masks[0], 0, 0.5)
    # unlabelled points, and mostly a small object: ignored; an object of another class: wrong, so
    # that precision is 1/2 at recall 1 and 0 at recall 0, each half a step
    for mask, ap50 in ((masks[1], 1.0), (masks[2] | {10}, 1.0), (masks[3], 0.25)):
        score = both([(labels, instances, [right, (mask, 0, 0.9)])], [True, True], 5)
        assert score.class_ap50[0] == pytest.approx(ap50)


def test_stuff_has_no_objects():
    labels, instances = [0] * 10 + [1] * 10, [0] * 10 + [1] * 10
    guesses = [(set(range(10)), 0, 0.9), (set(range(10, 20)), 1, 0.8)]
    score = both([(labels, instances, guesses)], [False, True], 5)
    assert score.class_ap == (None, 1.0)


def test_instances_as_ids():
    masks = [({0, 1, 2}, 0, 0.2), ({2, 3}, 0, 0.8), ({3, 4}, 0, 0.8)]
    assert packed(masks).ids(6).tolist() == [0, 0, 1, 1, 2, -1]
    assert packed([]).ids(2).tolist() == [-1, -1]


def test_wrong_input():
    some = packed([({0}, 0, 1.0)])
    for labels, instances in (([0, 1], [0, 0]), ([0, 0], [0])):
        with pytest.raises(ConfigError, match="below 1"):
            count_overlaps(some, np.array(labels), np.array(instances), [True])
