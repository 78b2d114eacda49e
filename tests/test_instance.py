"""Instance segmentation: PointGroup's parts, and the task from training to saved predictions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import pointzoo as pz
from pointzoo.errors import ConfigError
from pointzoo.finetuning.api import finetune
from pointzoo.finetuning.instance import Instance, InstanceOptions
from pointzoo.finetuning.model import load_model
from pointzoo.finetuning.task import Item
from pointzoo.tasks import pointgroup
from pointzoo.tasks.pointgroup import Clusters, PointGroupHead

CLASSES = ("floor", "ball", "box")


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Floors with balls and boxes on them, which differ in colour."""

    count: int
    first: int = 0
    name: str = "scenes"
    class_names: tuple[str, ...] = CLASSES
    labels: None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"scene{self.first + i}" for i in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> pz.PointCloud:
        return scene(self.first + range(self.count)[index])


def scene(seed: int) -> pz.PointCloud:
    """Return a floor of 2 m with three objects of 150 points each, 0.5 m apart at least."""
    rng = np.random.default_rng(seed)
    floor = rng.uniform(-1, 1, (500, 3)) * (1, 1, 0)
    cells = rng.permutation([(x, y) for x in (-0.6, 0.0, 0.6) for y in (-0.6, 0.0, 0.6)])[:3]
    coords, labels, instances = [floor], [np.zeros(500, int)], [np.full(500, -1)]
    for number, cell in enumerate(cells):
        kind = 1 + int(rng.integers(2))
        shape = rng.normal(size=(150, 3))
        norm = np.linalg.norm(shape, axis=1) if kind == 1 else np.abs(shape).max(axis=1)
        coords.append(0.12 * shape / norm[:, None] + (*cell, 0.2))
        labels.append(np.full(150, kind))
        instances.append(np.full(150, number))
    label = np.concatenate(labels)
    colors = np.array([[0.5, 0.5, 0.5], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])[label]
    return pz.PointCloud(
        np.concatenate(coords),
        colors=np.clip(colors + rng.normal(0, 0.02, colors.shape), 0, 1),
        labels=label,
        fields={"instance": np.concatenate(instances)},
    )


SETTINGS = {"crop_points": 0, "thin": 0.0, "radius": 0.12, "min_points": 20, "augmentation": "none"}


@pytest.fixture(scope="module")
def encoder() -> pz.PointEncoder:
    torch.manual_seed(0)
    return pz.create_encoder("sparseunet_test", grid_size=0.08, channels=("colors",))


@pytest.fixture(scope="module")
def model(encoder):
    return finetune(
        encoder,
        (Scenes(6), Scenes(2, first=50)),
        task="instance",
        method="full",
        max_steps=50,
        validate_steps=50,
        learning_rate=1e-2,
        score="learned",
        **SETTINGS,
    )


def test_object_centers():
    coords = torch.tensor([[0.0, 0, 0], [2, 0, 0], [5, 5, 5], [7, 7, 7]])
    centers = pointgroup.object_centers(coords, torch.tensor([4, 4, -1, 0]))
    assert centers.tolist() == [[1, 0, 0], [1, 0, 0], [5, 5, 5], [7, 7, 7]]


def test_offset_losses():
    wanted = torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    assert [float(x) for x in pointgroup.offset_losses(wanted, wanted)] == [0.0, -1.0]
    half = torch.tensor([[0.5, 0, 0], [2, 0, 0]])
    distance, direction = pointgroup.offset_losses(half, wanted)
    assert float(distance) == pytest.approx((0.5 + 4.0) / 2)
    assert float(direction) == pytest.approx(-(1.0 + 0.0) / 2)


def test_score_targets():
    overlap = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert pointgroup.score_targets(overlap).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_points_are_grouped_where_they_are_and_where_they_move():
    """Two touching chairs are one cluster as they are, and two where offsets draw them apart."""
    line = torch.linspace(0, 1, 21)[:, None] * torch.tensor([1.0, 0, 0])
    centers = torch.where(line[:, :1] < 0.5, 0.0, 1.0) * torch.tensor([1.0, 0, 0])
    labels = torch.tensor([3] * 20 + [-1])
    clusters = pointgroup.group_points(
        line, torch.tensor([21]), centers - line, labels, radius=0.06, min_points=5
    )
    assert clusters.offsets.tolist() == [20, 30, 40]
    assert clusters.classes.tolist() == [3, 3, 3]
    assert clusters.rows.tolist() == [*range(20), *range(20)]
    assert clusters.mean(torch.arange(21.0)).tolist() == [9.5, 4.5, 14.5]
    kept, scores = pointgroup.best_clusters(clusters, torch.tensor([0.5, 0.9, 0.8]), 0.3)
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert kept.rows.tolist() == list(range(20))


def test_no_cluster():
    empty = pointgroup.group_points(
        torch.zeros(3, 3),
        torch.tensor([3]),
        torch.zeros(3, 3),
        torch.full((3,), -1),
        radius=1.0,
        min_points=1,
    )
    assert len(empty) == 0
    kept, scores = pointgroup.best_clusters(empty, torch.zeros(0), 0.3)
    assert len(kept) == len(scores) == 0


def test_stuff_has_no_clusters():
    labels = torch.tensor([-1, 0, 1, 2])
    assert pointgroup.without_stuff(labels, (False, True, True)).tolist() == [-1, -1, 1, 2]


@pytest.mark.parametrize("hidden", [0, 16])
def test_head(hidden):
    torch.manual_seed(0)
    head = PointGroupHead(8, 5, hidden=hidden, scored=True)
    rows = torch.randn(30, 8)
    assert head.train()(rows).shape == (30, 9)
    assert torch.isfinite(head(rows[:1])).all()  # a single row has no variance
    alone = head.eval()(rows[:1])
    torch.testing.assert_close(alone, head(rows)[:1], rtol=1e-5, atol=1e-6)
    assert PointGroupHead(8, 5, hidden=hidden, scored=False)(rows).shape == (30, 8)


def test_training_finds_the_objects(model):
    score = model.evaluate(Scenes(4, first=100))
    assert score.metric == "ap50"
    assert score.values["ap50"] > 0.8
    assert score.values["ap25"] >= score.values["ap50"] >= score.values["ap"]
    assert score.per_class["ap50"][0] is None  # the floor
    assert score.table().splitlines()[0].split() == ["class", "ap", "ap50", "ap25"]


def test_prediction(model):
    cloud = scene(200)
    found = model.predict(cloud)
    assert found.instances.shape == found.labels.shape == (950,)
    assert found.probabilities.shape == (950, 3)
    assert found.instances.max() < len(found.scores) == len(found.classes) == len(found.objects)
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.classes.tolist()) <= {1, 2}
    for number in range(3):  # every object is one of the predicted ones, for the most part
        ids = found.instances[cloud.fields["instance"] == number]
        assert (ids == np.bincount(ids + 1).argmax() - 1).mean() > 0.8
    fields = found.point_fields(950)
    assert sorted(fields) == ["confidence", "instance", "label"]
    again = model.predict(cloud)
    assert (again.instances == found.instances).all()
    with pytest.raises(ConfigError, match="one vote"):
        model.predict(cloud, votes=2)


def test_score_without_score_layer(model):
    options = dataclasses.replace(model.task.options, score="probability")
    task = Instance(CLASSES, options)
    plain, learned = (t.predict(model.network, scene(200)) for t in (task, model.task))
    best = plain.objects.rows[: plain.objects.offsets[0]]
    assert plain.scores[0] == pytest.approx(plain.probabilities[best].max(axis=1).mean())
    assert learned.scores.max() < plain.scores.max()


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.task.options == model.task.options
    ours, theirs = (m.predict(scene(300)) for m in (model, loaded))
    assert (ours.instances == theirs.instances).all()
    assert ours.scores.tolist() == theirs.scores.tolist()


def test_loss_is_least_for_the_truth():
    task = Instance(CLASSES, InstanceOptions(score="learned", radius=0.12, min_points=20))
    item = Item(scene(0), -1, "scene0")
    target = task.target([item, item])
    assert target.offsets.tolist() == [950, 1900]
    assert sorted(target.objects.unique().tolist()) == [-1, 0, 1, 2, 3, 4, 5]
    truth = torch.zeros(1900, 7)
    truth[:, :3] = 20.0 * torch.nn.functional.one_hot(target.labels, 3)
    truth[:, 3:6] = pointgroup.object_centers(target.coords, target.objects) - target.coords
    truth[:, 6] = 20.0
    loss, parts = task.loss(truth, target, None)
    assert float(loss) == pytest.approx(-1.0, abs=1e-4)  # the cosine's best
    assert parts["score"] == pytest.approx(0.0, abs=1e-4)
    doubtful = truth.clone()
    doubtful[:, 6] = -20.0
    assert task.loss(doubtful, target, None)[1]["score"] == pytest.approx(20.0, abs=1e-3)
    nothing = truth.clone()
    nothing[:, :3] = torch.tensor([9.0, 0.0, 0.0])  # all is floor: no cluster
    assert task.loss(nothing, target, None)[1]["score"] == 0.0


def test_points_without_objects_have_no_offsets():
    cloud = scene(0)
    task = Instance(CLASSES)
    item = Item(cloud.replace(fields={"instance": np.full(len(cloud), -1)}), -1, "empty")
    _, parts = task.loss(torch.zeros(950, 6), task.target([item]), None)
    assert parts == {"semantic": pytest.approx(math.log(3))}


@pytest.mark.parametrize("field", [{}, {"instance": np.zeros(950)}])
def test_clouds_without_objects(field, encoder):
    task = Instance(CLASSES)
    with pytest.raises(ConfigError, match="'bad' with fields"):
        task.require_labels(Item(scene(0).replace(fields=field), -1, "bad"))


def test_only_stuff():
    scenes = dataclasses.replace(Scenes(1), class_names=("floor", "wall", "ceiling"))
    with pytest.raises(ConfigError, match="at least one class with objects"):
        Instance.from_data(scenes)
    assert Instance.from_data(Scenes(1)).countable == (False, True, True)


@pytest.mark.parametrize(
    "wrong", [{"radius": 0.0}, {"min_points": 0}, {"min_region": 0}, {"overlap": 2}, {"score": "x"}]
)
def test_wrong_options(wrong):
    with pytest.raises(ConfigError):
        InstanceOptions(**wrong)


def test_clusters_select():
    clusters = Clusters(torch.tensor([5, 6, 7, 8]), torch.tensor([1, 4]), torch.tensor([2, 3]))
    swapped = clusters.select(torch.tensor([1, 0]))
    assert swapped.rows.tolist() == [6, 7, 8, 5]
    assert (swapped.offsets.tolist(), swapped.classes.tolist()) == ([3, 4], [3, 2])
