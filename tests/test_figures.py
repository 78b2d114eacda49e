"""What the cards of the bundled weights claim is what the benchmarks wrote into docs/results."""

import json
from pathlib import Path

import figures
import pytest

from pointzoo.cards import read_card
from pointzoo.tasks.evaluation import ProbeResult
from pointzoo.zoo import WEIGHTS, bundled

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


def stored(name: str):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def probed() -> dict[str, str]:
    rows = [row for part in stored("sh3d21.json")["parts"].values() for row in part["results"]]
    rows += stored("sh3d_points.json")["results"]
    return dict(ProbeResult.from_dict(row).metric("SH3D-21") for row in rows)


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_every_figure_of_a_card_is_in_the_results(name: str):
    known = {
        **probed(),
        **figures.sh3d_finetune(stored("sh3d_finetune.json"), name),
        **figures.rooms_labels(stored("rooms.json"), name),
        **figures.rooms_methods(stored("rooms_methods.json")),
        **figures.rooms_instances(stored("rooms_instances.json")),
    }
    claimed = {metric.name: metric.value for metric in read_card(bundled(name)).results}
    assert claimed
    assert claimed.items() <= known.items()


def test_a_figure_is_mean_and_spread_of_the_seeds():
    cells = [
        {"weights": "a.b", "start": start, "accuracy": value}
        for start, value in (("scratch", 0.5), ("scratch", 0.6), ("pretrained", 0.7))
    ]
    found = figures.sh3d_finetune({"cells": cells}, "a.b")
    assert found == {
        "SH3D-21 accuracy, a trained with labels, pretrained": "70.0 % (1 seed)",
        "SH3D-21 accuracy, a trained with labels, scratch": "55.0 % ± 7.1 (2 seeds)",
    }
    assert figures.lines(found).splitlines()[0].endswith("pretrained: 70.0 % (1 seed)")
