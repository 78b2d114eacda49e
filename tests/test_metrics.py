"""Feature metrics against plain second implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo.errors import ConfigError
from pointzoo.metrics import (
    effective_rank,
    feature_spectrum,
    feature_std,
    knn_accuracy,
    knn_predict,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_effective_rank_of_isotropic_features_is_the_number_of_directions():
    # +e_i and -e_i for every axis: centred already, equal singular values
    features = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_rank(features) == pytest.approx(6.0)
    assert effective_rank(features + 100.0) == pytest.approx(6.0)  # a common offset does not count


def test_effective_rank_of_a_line_and_of_a_point_is_one():
    line = torch.linspace(-1, 1, 20)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(torch.ones(5, 4)) == 1.0


def test_effective_rank_equals_numpy():
    features = random(40, 12) * torch.linspace(0.1, 3, 12)
    x = features.double().numpy()
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    for covariance, values in ((False, s), (True, np.linalg.eigvalsh(np.cov(x.T)))):
        p = values / values.sum()
        expected = np.exp(-(p * np.log(p)).sum())
        assert effective_rank(features, covariance=covariance) == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 12), st.integers(1, 8), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_effective_rank_is_bounded_and_scale_free(rows, channels, scale):
    features = random(rows, channels, seed=rows * 31 + channels).double()
    rank = effective_rank(features)
    assert 1.0 - 1e-9 <= rank <= max(1, min(rows - 1, channels)) + 1e-9
    assert effective_rank(features * scale) == pytest.approx(rank, rel=1e-6)


def test_spectrum_equals_the_eigenvalues_of_the_covariance():
    features = random(30, 5) @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.1]))
    expected = np.linalg.eigvalsh(np.cov(features.double().numpy().T))[::-1]
    np.testing.assert_allclose(
        feature_spectrum(features).numpy(), expected / expected[0], atol=1e-12
    )


def test_spectrum_has_one_value_per_channel_even_with_few_rows():
    spectrum = feature_spectrum(random(3, 8))
    assert spectrum.shape == (8,)
    assert float(spectrum[0]) == 1.0
    assert bool((spectrum[3:] < 1e-20).all())
    assert feature_spectrum(torch.ones(3, 8)).tolist() == [0.0] * 8


def test_feature_std_tells_spread_from_collapse():
    assert feature_std(random(5000, 64)) == pytest.approx(1.0, abs=0.02)
    assert feature_std(torch.ones(50, 64) + 1e-4 * random(50, 64)) < 1e-3


def plain_knn(features, bank, labels, k, temperature, leave_self_out):
    predicted = []
    for row, x in enumerate(features.double().numpy()):
        scored = []
        for other, y in enumerate(bank.double().numpy()):
            if leave_self_out and other == row:
                continue
            scored.append((x @ y / np.linalg.norm(x) / np.linalg.norm(y), other))
        votes = {}
        for similarity, other in sorted(scored, reverse=True)[:k]:
            label = int(labels[other])
            votes[label] = votes.get(label, 0.0) + np.exp(similarity / temperature)
        predicted.append(min(votes, key=lambda label: (-votes[label], label)))
    return predicted


@pytest.mark.parametrize("leave_self_out", [False, True])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_knn_equals_plain_loops(k, leave_self_out):
    features = random(25, 4, seed=1)
    bank = features if leave_self_out else random(33, 4, seed=2)
    labels = torch.randint(0, 4, (len(bank),), generator=torch.Generator().manual_seed(3))
    predicted = knn_predict(
        features, bank, labels, k=k, temperature=0.1, leave_self_out=leave_self_out
    )
    assert predicted.tolist() == plain_knn(features, bank, labels, k, 0.1, leave_self_out)


def test_knn_accuracy_leaves_the_item_itself_out():
    # two tight pairs of one class each: right; each pair split over the classes: always wrong
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert knn_accuracy(features, torch.tensor([0, 0, 1, 1]), k=1) == 1.0
    assert knn_accuracy(features, torch.tensor([0, 1, 0, 1]), k=1) == 0.0


def test_knn_accuracy_against_a_bank():
    bank = torch.eye(3), torch.tensor([2, 0, 1])
    queries = torch.eye(3) + 0.1
    assert knn_accuracy(queries, torch.tensor([2, 0, 0]), k=1, bank=bank) == pytest.approx(2 / 3)


def test_unusable_input_is_refused():
    features = random(4, 3)
    for broken in (torch.empty(0, 3), torch.ones(3), features.log()):
        with pytest.raises(ConfigError, match="finite features"):
            effective_rank(broken)
    for labels, k in (
        (torch.tensor([0, 1, -1, 0]), 1),
        (torch.zeros(3).long(), 1),
        (torch.zeros(4).long(), 0),
    ):
        with pytest.raises(ConfigError, match="label"):
            knn_predict(features, features, labels, k=k)
    with pytest.raises(ConfigError, match="label"):
        knn_accuracy(features[:1], torch.zeros(1).long())
