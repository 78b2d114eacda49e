"""Features of any source: rows, order, batches, hostile input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import Capabilities, EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.encoders.registry import build
from pointzoo.errors import CloudError, ConfigError, FormatError, InputError, WeightError
from pointzoo.features import Features, as_cloud, cloud_from_array, extract


class Linear(PointEncoder):
    """The smallest encoder: one linear map per point; a token per point or none."""

    config_class = EncoderConfig
    capabilities = Capabilities(tokens=True, class_attention=False)

    def __init__(self, config: EncoderConfig = EncoderConfig(), *, tokens: bool = True) -> None:  # noqa: B008
        super().__init__(config, out_channels=4, scene_channels=4)
        self.has_tokens = tokens
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(self.in_channels, 4)
        self.batches: list[int] = []

    def forward(self, batch: PointBatch, *, points: bool = True, geometry: object = None):
        self.batches.append(batch.num_clouds)
        point = self.drop(self.linear(torch.cat([batch.coords, batch.features], 1)))
        scene = torch.stack([rows.mean(0) for rows in batch.split(point)])
        if not self.has_tokens:
            return EncoderOutput(scene, point)
        return EncoderOutput(scene, point, point, batch.coords, batch.offsets)


@pytest.fixture(scope="module")
def vit() -> PointEncoder:
    torch.manual_seed(0)
    return build("vit3d_test").eval()


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


def test_every_point_gets_a_row_in_input_order():
    encoder, xyz = Linear(), cloud(50)
    whole = extract(encoder, xyz)
    assert isinstance(whole, Features)
    assert whole.point.shape == (50, 4)
    assert whole.point.dtype == whole.scene.dtype == whole.tokens.dtype == np.float32
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_allclose(extract(encoder, xyz[order]).point, whole.point[order], atol=1e-6)


def test_list_in_list_out(vit: PointEncoder):
    clouds = [cloud(n, n) for n in (1, 7, 300, 64)]
    many = vit.extract(clouds)
    assert [len(f.point) for f in many] == [1, 7, 300, 64]
    assert isinstance(vit.extract(tuple(clouds[:1])), list)
    for one, source in zip(many, clouds, strict=True):
        alone = vit.extract(source)
        np.testing.assert_allclose(one.point, alone.point, atol=1e-5)
        np.testing.assert_allclose(one.scene, alone.scene, atol=1e-5)
        np.testing.assert_allclose(one.tokens, alone.tokens, atol=1e-5)
        np.testing.assert_array_equal(one.token_coords, alone.token_coords)


def test_clouds_are_grouped_up_to_batch_points():
    encoder = Linear()
    extract(encoder, [cloud(n) for n in (4, 6, 1, 25, 3)], batch_points=10)
    assert encoder.batches == [2, 1, 1, 1]


def test_tokens_come_back_in_the_frame_of_the_input():
    xyz = np.array([500_000.0, 5_400_000.0, 120.0]) + cloud(40) * [30.0, 5.0, 1.0]
    for normalize in ("unit_sphere", "center"):
        found = extract(Linear(EncoderConfig(normalize=normalize)), xyz)
        np.testing.assert_allclose(found.token_coords, xyz, atol=1e-4)
    same = extract(Linear(), np.full((3, 3), 7.5))
    np.testing.assert_allclose(same.token_coords, 7.5)


def test_an_encoder_may_have_no_tokens():
    found = extract(Linear(tokens=False), cloud(3))
    assert found.tokens is None
    assert found.token_coords is None


def test_mode_randomness_and_input_are_left_alone():
    encoder, xyz = Linear().train(), cloud(20)
    encoder.linear.eval()
    kept, state = xyz.copy(), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state is the subject)
    first, second = extract(encoder, xyz), extract(encoder, xyz)
    np.testing.assert_array_equal(first.point, second.point)
    assert encoder.training
    assert encoder.drop.training
    assert not encoder.linear.training
    np.testing.assert_array_equal(xyz, kept)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    with pytest.raises(CloudError):
        extract(encoder, np.full((2, 3), np.nan))
    assert encoder.training


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]):
    extract(Linear(), [cloud(3), cloud(4)], progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "features" in captured.err


DRAWN = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "source",
    [
        DRAWN,
        DRAWN.clone().requires_grad_(),
        DRAWN.half(),
        DRAWN.bfloat16(),
        (50 * DRAWN).long(),
        np.random.default_rng(0).random((9, 3)).astype(np.float16),
        np.asfortranarray(np.random.default_rng(0).random((9, 3))),
        np.random.default_rng(0).integers(0, 9, (9, 3), np.uint8),
        PointCloud(np.random.default_rng(0).random((9, 3))),
    ],
    ids=lambda source: f"{type(source).__name__}-{getattr(source, 'dtype', 'cloud')}",
)
def test_sources(source: object):
    found = extract(Linear(), source)
    assert found.point.shape == (9, 4)


def test_a_path_is_read(tmp_path):
    xyz = cloud(12).astype(np.float32)
    np.save(tmp_path / "scan.npy", xyz)
    encoder = Linear()
    expected = extract(encoder, xyz).point
    np.testing.assert_array_equal(extract(encoder, tmp_path / "scan.npy").point, expected)
    np.testing.assert_array_equal(extract(encoder, str(tmp_path / "scan.npy")).point, expected)
    with pytest.raises((FormatError, FileNotFoundError)):
        extract(encoder, tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ([], ConfigError),
        ([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], ConfigError),
        ([1.0, 2.0, 3.0], ConfigError),
        (3.5, ConfigError),
        (None, ConfigError),
        ({"coords": 1}, ConfigError),
        (np.zeros((0, 3)), CloudError),
        (np.zeros((0, 9)), CloudError),
        (np.zeros((5, 2)), CloudError),
        (np.zeros(3), CloudError),
        (np.zeros((2, 5, 3)), CloudError),
        (np.zeros((5, 3), complex), CloudError),
        (np.zeros((5, 3), object), CloudError),
        (np.array([["a", "b", "c"]]), CloudError),
        (np.array([[0.0, np.inf, 0.0]]), CloudError),
        (torch.full((2, 3), float("nan")), CloudError),
        (PointCloud(np.zeros((0, 3))), CloudError),
    ],
)
def test_unusable_sources_are_typed_errors(source: object, error: type[Exception]):
    with pytest.raises(error):
        extract(Linear(), source)


def test_batch_points_is_at_least_one():
    with pytest.raises(ConfigError, match="batch_points"):
        extract(Linear(), cloud(2), batch_points=0)


def test_features_that_are_not_finite_are_refused():
    encoder = Linear()
    with torch.no_grad():
        encoder.linear.weight.fill_(float("nan"))
    with pytest.raises(WeightError, match="finite features"):
        extract(encoder, cloud(4))


def test_double_encoders_get_double_input():
    found = extract(Linear().double(), cloud(8))
    assert found.point.dtype == np.float32


def test_an_encoder_without_parameters():
    class Height(Linear):
        def __init__(self) -> None:
            PointEncoder.__init__(self, EncoderConfig(), out_channels=3, scene_channels=3)

        def forward(self, batch: PointBatch, *, points: bool = True, geometry: object = None):
            return EncoderOutput(batch.coords[:1], batch.coords)

    assert extract(Height(), cloud(5)).point.shape == (5, 3)


# Columns of an array


def test_an_array_is_read_like_the_same_table_in_a_file(tmp_path):
    table = np.random.default_rng(0).random((30, 7))
    table[:, 6] = np.arange(30) % 4
    np.save(tmp_path / "table.npy", table)
    for found in (cloud_from_array(table), as_cloud(tmp_path / "table.npy")):
        np.testing.assert_array_equal(found.coords, table[:, :3])
        np.testing.assert_allclose(found.colors, table[:, 3:6], rtol=1e-6)
        np.testing.assert_array_equal(found.labels, table[:, 6])


def test_columns_that_fit_no_rule_are_kept():
    table = np.full((5, 6), np.nan)
    table[:, :3] = 1.0
    found = cloud_from_array(table)
    assert found.colors is None
    assert list(found.fields) == ["column_3", "column_4", "column_5"]


def test_colours_reach_the_encoder():
    encoder = Linear(EncoderConfig(channels=("colors",)))
    table = np.random.default_rng(0).random((10, 6))
    named = PointCloud(table[:, :3], colors=table[:, 3:])
    np.testing.assert_array_equal(extract(encoder, table).point, extract(encoder, named).point)
    assert not np.allclose(extract(encoder, table).point, extract(encoder, table[:, :3]).point)


# Hostile arrays: a typed error, or finite rows


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=10),
    )
)
def test_any_array_gives_rows_or_a_typed_error(array: np.ndarray):
    kept = array.copy()
    try:
        found = extract(Linear(), array)
    except InputError:
        return
    assert array.ndim == 2
    assert found.point.shape == (len(array), 4)
    assert np.isfinite(found.point).all()
    np.testing.assert_array_equal(array, kept)


FINITE = st.floats(-1e7, 1e7, width=32)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=FINITE))
def test_any_finite_cloud_gives_finite_rows(vit: PointEncoder, xyz: np.ndarray):
    found = vit.extract(xyz)
    assert found.point.shape == (len(xyz), vit.out_channels)
    assert np.isfinite(found.point).all()
    assert np.isfinite(found.scene).all()


@pytest.mark.parametrize("size", [1e-30, 1e7, 1e300])
def test_any_scale_gives_the_same(vit: PointEncoder, size: float):
    # rounding of the scaled coordinates is all that differs
    base = vit.extract(cloud(60))
    np.testing.assert_allclose(vit.extract(cloud(60) * size).point, base.point, atol=1e-4)


def test_far_from_the_origin(vit: PointEncoder):
    # 1e7 m away float64 resolves 2e-9 m
    base, moved = vit.extract(cloud(60)), vit.extract(cloud(60) + 1e7)
    np.testing.assert_allclose(moved.point, base.point, atol=1e-4)


def test_duplicates_share_a_feature(vit: PointEncoder):
    found = vit.extract(np.repeat(cloud(9), 5, axis=0))
    rows = found.point.reshape(9, 5, -1)
    np.testing.assert_allclose(rows, rows[:, :1].repeat(5, axis=1), atol=1e-6)


def test_as_cloud_passes_a_cloud_through():
    given_cloud = PointCloud(cloud(3))
    assert as_cloud(given_cloud) is given_cloud
