"""Training with labels: it learns, is reproducible, and augments as it says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from shapes import shapes_dataset

from pointzoo import zoo
from pointzoo.batch import PointBatch
from pointzoo.errors import ConfigError
from pointzoo.tasks import supervised as module
from pointzoo.tasks.supervised import (
    SupervisedConfig,
    augment,
    classify,
    supervised,
    train_classifier,
)

QUICK = SupervisedConfig(epochs=25, batch_size=8, learning_rate=3e-3, amp=False)


def make(seed):
    return zoo.create_encoder("vit3d_test", seed=seed)


def test_training_with_labels_learns_shapes_it_did_not_see():
    data = shapes_dataset(per_class=10, points=64)
    unseen = shapes_dataset(per_class=12, points=64, seed=1)
    result = supervised(make, data, name="net", config=QUICK, test=unseen)
    assert result.classifier == "supervised"
    assert result.subject == "net"
    assert result.mean > 0.7
    assert result.channels is None
    assert result.effective_rank is None
    assert result.settings["epochs"] == 25
    assert sum(map(sum, result.confusion)) == 48


def test_training_is_reproducible_and_depends_on_the_seed():
    data = shapes_dataset(per_class=3, points=64)
    clouds = [make(0).preprocess(data[i]) for i in range(12)]
    config = SupervisedConfig(epochs=2, batch_size=4, amp=False)

    def weights(seed):
        encoder = make(0)
        labels = torch.from_numpy(data.labels)
        model = train_classifier(encoder, clouds, labels, classes=4, config=config, seed=seed)
        assert not model.training
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_a_test_set_takes_the_place_of_folds():
    data = shapes_dataset(per_class=4, points=64)
    other = shapes_dataset(per_class=2, points=64, seed=9)
    config = SupervisedConfig(epochs=1, batch_size=8, amp=True)
    result = supervised(
        make, data, name="net", config=config, test=other, rotation="z", progress=True, seeds=(0, 1)
    )
    assert np.array(result.accuracy).shape == (2, 1)
    assert sum(map(sum, result.confusion)) == 16


def test_classify_does_not_depend_on_the_batch():
    data = shapes_dataset(per_class=2, points=64)
    clouds = [make(0).preprocess(data[i]) for i in range(8)]
    model = module.Classifier(make(0), 4).eval()
    together = classify(model, clouds, 8)
    np.testing.assert_array_equal(together, classify(model, clouds, 3))


def test_augmentation_scales_moves_and_jitters_within_bounds():
    coords = torch.zeros(2, 1000, 3)
    coords[0, :500], coords[0, 500:] = 1.0, -1.0
    channels = torch.rand(2, 1000, 3, generator=torch.Generator().manual_seed(0))
    batch = PointBatch.stack(coords, channels)
    found = augment(batch, torch.Generator().manual_seed(0))
    assert torch.equal(found.features, batch.features)
    assert torch.equal(found.offsets, batch.offsets)
    assert not batch.coords[1000:].any()  # the input stays as it was
    first, second = found.coords.view(2, 1000, 3)
    high, low = first[:500].mean(dim=0), first[500:].mean(dim=0)
    scale, shift = (high - low) / 2, (high + low) / 2
    assert bool(((scale > 0.66) & (scale < 1.51)).all())
    assert len(scale.unique()) == 3
    assert bool((shift.abs() < 0.21).all())
    assert float((second - second.mean(dim=0)).abs().max()) <= 0.06 * 1.5
    assert float(second.std(dim=0).mean()) > 0.004


def test_turning_is_about_z_and_differs_between_clouds():
    coords = torch.tensor([1.0, 0.0, 0.5]).expand(3, 400, 3)
    found = augment(PointBatch.stack(coords), torch.Generator().manual_seed(1), turn=True)
    plain = augment(PointBatch.stack(coords), torch.Generator().manual_seed(1))
    means = found.coords.view(3, 400, 3).mean(dim=1)
    assert bool((means[:, 2] > 0.1).all())  # heights stay heights
    assert bool((means[:, 1].abs() > 0.25).any())
    assert bool((plain.coords.view(3, 400, 3).mean(dim=1)[:, 1].abs() < 0.25).all())


def test_learning_rate_rises_and_falls():
    factor = module.warm_cosine(100)
    values = [factor(step) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == 1.0
    assert values[-1] < 0.01
    assert all(a >= b for a, b in pairwise(values[9:]))
    assert module.warm_cosine(1)(0) == 1.0


def test_mixed_precision_is_used_where_it_is_fast(monkeypatch):
    cpu = torch.device("cpu")
    assert module.use_amp(True, cpu)
    for fast in (True, False):
        monkeypatch.setattr(
            torch.cpu, "_is_amx_tile_supported", lambda fast=fast: fast, raising=False
        )
        assert module.use_amp(None, cpu) is fast
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not module.use_amp(None, cpu)
    assert module.use_amp(None, torch.device("cuda"))


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="epoch"):
        SupervisedConfig(**change)


def test_folds_and_several_seeds():
    data = shapes_dataset(per_class=3, points=48)
    config = SupervisedConfig(epochs=1, batch_size=8, amp=False)
    result = supervised(make, data, name="net", config=config, folds=3, seeds=(0, 1), points=32)
    assert np.array(result.accuracy).shape == (2, 3)
    assert result.seconds > 0
