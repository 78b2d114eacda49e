"""The encoder interface: configs, channels, preprocessing."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import (
    CHANNEL_FILL,
    Capabilities,
    Channel,
    EncoderConfig,
    EncoderOutput,
    PointEncoder,
    normalize_coords,
)
from pointzoo.errors import CloudError, ConfigError


@dataclass(frozen=True)
class TinyConfig(EncoderConfig):
    width: int = 4


class Tiny(PointEncoder):
    config_class = TinyConfig
    capabilities = Capabilities(tokens=False, class_attention=False)

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config, out_channels=config.width, scene_channels=config.width)
        self.layer = nn.Linear(self.in_channels, config.width)

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        self.check_channels(batch)
        rows = self.layer(torch.cat([batch.coords, batch.features], dim=1))
        return EncoderOutput(torch.stack([r.mean(dim=0) for r in batch.split(rows)]), rows)


class Weightless(Tiny):
    def __init__(self) -> None:
        super().__init__(TinyConfig())
        del self.layer


def random_cloud(count: int = 20) -> PointCloud:
    rng = np.random.default_rng(count)
    unit = rng.normal(size=(count, 3))
    return PointCloud(
        rng.normal(size=(count, 3)),
        colors=rng.uniform(size=(count, 3)),
        normals=unit / np.linalg.norm(unit, axis=1, keepdims=True),
    )


# Configs


def test_a_config_goes_through_json():
    config = TinyConfig(channels=("normals", "colors"), normalize="center", width=9)
    values = json.loads(json.dumps(config.to_dict()))
    assert values["channels"] == ["normals", "colors"]
    assert TinyConfig.from_dict(values) == config
    assert TinyConfig.from_dict({}) == TinyConfig()


@pytest.mark.parametrize(
    "values",
    [
        {"channels": ["coords"]},
        {"channels": ["colors", "colors"]},
        {"channels": "colors"},
        {"normalize": "unit_cube"},
        {"depth": 3},
    ],
)
def test_a_config_out_of_range_is_refused(values):
    with pytest.raises(ConfigError):
        TinyConfig.from_dict(values)


def test_an_unknown_key_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"channels, normalize, width.*unknown depth"):
        TinyConfig.from_dict({"depth": 3})


# Channels


def test_the_channel_contract_follows_the_config():
    encoder = Tiny(TinyConfig(channels=("normals", "colors")))
    assert encoder.in_channels == 9
    assert encoder.channel_contract == (
        Channel("coords", 3, required=True, fill=None),
        Channel("normals", 3, required=False, fill=0.0),
        Channel("colors", 3, required=False, fill=0.5),
    )
    assert Tiny(TinyConfig()).in_channels == 3


def test_channels_come_in_the_declared_order_and_are_filled():
    cloud = random_cloud()
    encoder = Tiny(TinyConfig(channels=("normals", "colors")))
    coords, channels = encoder.preprocess(cloud)
    assert coords.dtype == channels.dtype == torch.float32
    assert np.array_equal(channels.numpy(), np.hstack([cloud.normals, cloud.colors]))
    _, filled = encoder.preprocess(PointCloud(cloud.coords))
    assert (filled[:, :3] == CHANNEL_FILL["normals"]).all()
    assert (filled[:, 3:] == CHANNEL_FILL["colors"]).all()
    assert Tiny(TinyConfig()).preprocess(cloud)[1].shape == (20, 0)


@pytest.mark.parametrize("width", [0, 2, 6])
def test_other_channels_are_refused(width):
    encoder = Tiny(TinyConfig(channels=("colors",)))
    with pytest.raises(CloudError, match=f"3 channels.*got {width}"):
        encoder(PointBatch.stack(torch.zeros(1, 4, 3), torch.zeros(1, 4, width)))


def test_another_device_is_refused():
    batch = PointBatch.stack(torch.zeros(1, 4, 3))
    with pytest.raises(CloudError, match=r"meta.*got one on cpu"):
        Tiny(TinyConfig()).to("meta")(batch)
    Weightless().check_channels(batch)  # without a parameter there is no device to compare


# Preprocessing


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_unusable_values_are_refused(bad):
    cloud = random_cloud()
    encoder = Tiny(TinyConfig(channels=("normals",)))
    for name in ("coords", "normals"):
        values = getattr(cloud, name).copy()
        values[3, 1] = bad
        with pytest.raises(CloudError, match="expected finite"):
            encoder.preprocess(cloud.replace(**{name: values}))
    with pytest.raises(CloudError, match="empty"):
        encoder.preprocess(PointCloud(np.zeros((0, 3))))


def test_preprocess_returns_memory_of_its_own():
    cloud = random_cloud()
    coords, channels = Tiny(TinyConfig(channels=("colors",))).preprocess(cloud)
    before = cloud.colors.copy()
    coords.zero_()
    channels.zero_()
    assert np.array_equal(cloud.colors, before)


def test_geometry_is_nothing_by_default():
    assert Tiny(TinyConfig()).geometry(PointBatch.stack(torch.zeros(1, 4, 3))) is None


def test_an_output_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EncoderOutput(torch.zeros(1, 2)).scene = torch.zeros(1, 2)


def test_extract_goes_through_features():
    cloud = random_cloud()
    encoder = Tiny(TinyConfig()).eval()
    assert encoder.extract(cloud).point.shape == (20, 4)
    assert [f.scene.shape for f in encoder.extract([cloud, cloud])] == [(4,), (4,)]


# normalize_coords


def test_unit_sphere_centres_and_scales():
    coords = normalize_coords(random_cloud().coords * 7 + 3, "unit_sphere")
    assert coords.dtype == np.float32
    np.testing.assert_allclose(coords.mean(axis=0), 0, atol=1e-7)
    assert np.linalg.norm(coords, axis=1).max() == pytest.approx(1.0, abs=1e-6)


def test_center_keeps_the_size():
    coords = random_cloud().coords
    got = normalize_coords(coords + np.array([4e5, 5e6, 300.0]), "center")
    # 5e6 m in float64 is good to 1e-9 m
    np.testing.assert_allclose(got, coords - coords.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("normalize", ["unit_sphere", "center"])
def test_points_in_one_place_go_to_the_origin_exactly(count, normalize):
    place = np.random.default_rng(count).normal(size=(1, 3)) * 1e3
    assert not normalize_coords(np.repeat(place, count, axis=0), normalize).any()


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-30, 1.0, 1e7, 1e30, 1e200, 1.7e308])
def test_any_size_reaches_the_unit_sphere(scale):
    coords = np.array([[-1.0, 0, 0], [1.0, 0, 0], [0, 0, 0]]) * scale
    expected = [[-1.0, 0, 0], [1.0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(normalize_coords(coords, "unit_sphere"), expected, atol=1e-7)


@pytest.mark.parametrize("scale", [1e39, 1e200, 1.7e308])
def test_center_refuses_what_float32_cannot_hold(scale):
    with pytest.raises(CloudError, match="fits into float32"):
        normalize_coords(np.array([[-1.0, 0, 0], [1.0, 0, 0]]) * scale, "center")


def test_center_keeps_what_float32_can_hold():
    edge = np.array([[-3.4e38, 0, 0], [3.4e38, 0, 0]])
    np.testing.assert_allclose(normalize_coords(edge, "center"), edge, rtol=1e-6)


finite = st.floats(-1e300, 1e300, allow_subnormal=True)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=finite))
def test_normalized_coords_are_finite_bounded_and_follow_the_points(coords):
    got = normalize_coords(coords, "unit_sphere")
    assert np.isfinite(got).all()
    assert np.linalg.norm(got.astype(np.float64), axis=1).max() <= 1 + 1e-6
    order = np.arange(len(coords))[::-1]
    assert np.array_equal(normalize_coords(coords[order], "unit_sphere"), got[order])
    again = normalize_coords(coords.copy(), "unit_sphere")
    assert np.array_equal(again, got)
