"""Pictures: right colours, right place, right file."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread

from pointzoo import viz
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import Capabilities, PointEncoder
from pointzoo.errors import CloudError, ConfigError, FormatError, MissingExtraError
from pointzoo.features import extract
from pointzoo.viz import pca_colors, render_cloud, render_image
from pointzoo.viz.figures import point_attention, read_curves
from pointzoo.weights import sample_cloud
from pointzoo.zoo import create_encoder

RED, BLUE = (0.9, 0.0, 0.0), (0.0, 0.0, 0.9)


def matches(picture: np.ndarray, color: str) -> np.ndarray:
    """Return where a picture is mostly red (0) or blue (2)."""
    channel = {"red": 0, "blue": 2}[color]
    others = [c for c in (0, 1, 2) if c != channel]
    return (picture[..., channel] > 80) & (picture[..., others] < 60).all(axis=-1)


# Colours


def test_components_are_the_axes_of_largest_spread():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3)) * [1.0, 9.0, 3.0]
    colors = pca_colors(features)
    assert colors.dtype == np.float32
    assert colors.shape == (500, 3)
    for column, axis in enumerate((1, 2, 0)):
        assert np.corrcoef(colors[:, column], features[:, axis])[0, 1] > 0.97


def test_the_sign_is_fixed():
    features = np.random.default_rng(0).normal(size=(100, 8))
    colors = pca_colors(features)
    np.testing.assert_array_equal(pca_colors(features), colors)
    # rounding of float64, through a sum in another order
    np.testing.assert_allclose(pca_colors(features[::-1]), colors[::-1], atol=1e-6)


@pytest.mark.parametrize(
    "features", [np.ones((1, 8)), np.full((50, 8), 0.1), np.zeros((4, 2)), np.full((9, 4), 1e30)]
)
def test_what_does_not_vary_is_grey(features: np.ndarray):
    np.testing.assert_array_equal(pca_colors(features), 0.5)


def test_a_lone_exception_stands_out():
    features = np.zeros((500, 4))
    features[7] = 3.0
    colors = pca_colors(features)
    assert colors[7, 0] == 1.0
    assert np.delete(colors[:, 0], 7).max() == 0.0


def test_fewer_channels_than_colours():
    colors = pca_colors(np.arange(10.0)[:, None])
    assert np.all(np.diff(colors[1:-1, 0]) > 0)
    np.testing.assert_array_equal(colors[:, 1:], 0.5)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.full((2, 2), np.nan)])
def test_unusable_features(bad: np.ndarray):
    with pytest.raises(CloudError):
        pca_colors(bad)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_colours_are_always_colours(features: np.ndarray):
    colors = pca_colors(features)
    assert colors.shape == (len(features), 3)
    assert colors.min() >= 0
    assert colors.max() <= 1


# The renderer


def test_near_points_hide_far_ones_and_up_is_up():
    front = render_image([[0, -1, 0], [0, 1, 0]], [RED, BLUE], view=(-90, 0), size=64)
    assert matches(front, "red").any()
    assert not matches(front, "blue").any()
    back = render_image([[0, -1, 0], [0, 1, 0]], [RED, BLUE], view=(90, 0), size=64)
    assert matches(back, "blue").any()
    upright = render_image([[0, 0, 1], [0, 0, -1]], [RED, BLUE], view=(20, 10), size=64)
    red, blue = (np.argwhere(matches(upright, c))[:, 0].mean() for c in ("red", "blue"))
    assert red < 16
    assert blue > 48


def test_right_is_right_and_axes_are_equal():
    seen = render_image([[1, 0, 0], [-1, 0, 0]], [RED, BLUE], view=(-90, 0), size=64)
    assert np.argwhere(matches(seen, "red"))[:, 1].mean() > 48
    cross = np.array([[2, 0, 0], [-2, 0, 0], [0, 0, 1], [0, 0, -1]])
    rows, columns = np.nonzero(
        (render_image(cross, [RED] * 4, view=(-90, 0), size=200) < 250)[..., 1]
    )
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(2, abs=0.1)


def test_depth_is_shaded():
    wall = np.stack([*np.meshgrid(np.linspace(-1, 1, 160), [0.0], np.linspace(-1, 1, 160))], -1)
    wall = wall.reshape(-1, 3)
    post = wall[np.abs(wall[:, 0]) < 0.1] - [0.0, 0.5, 0.0]
    xyz = np.concatenate([wall, post])
    image = render_image(xyz, np.full_like(xyz, 0.7), view=(-90, 0), size=200)
    row = image[100, :, 0].astype(int)
    assert row[86:92].min() < row[60] - 20  # beside the post
    assert row[100] > row[60]  # nearer is brighter


@pytest.mark.parametrize("count", [1, 2, 700, 9000])
def test_any_number_of_points(count: int, monkeypatch):
    monkeypatch.setattr(viz.render, "_MAX_POINTS", 4000)
    xyz = np.random.default_rng(0).normal(size=(count, 3)) + 1e6
    image = render_image(xyz, np.full((count, 3), 0.2), size=48)
    assert image.shape == (48, 48, 3)
    assert image.dtype == np.uint8
    assert image.min() < 100
    assert image[0, 0].tolist() == [255, 255, 255]


def test_shapes_must_fit():
    for xyz, rgb in ((np.zeros((0, 3)),) * 2, (np.zeros((2, 3)), np.zeros((1, 3))), ([], [])):
        with pytest.raises(CloudError):
            render_image(xyz, rgb)


def test_a_cloud_becomes_a_png(tmp_path: Path):
    cloud = sample_cloud()
    path = render_cloud(cloud.coords, cloud.colors, tmp_path / "chair.png", size=96)
    picture = imread(path)
    assert picture.shape[1] == 192
    assert picture.shape[0] <= 96
    left = render_image(cloud.coords, cloud.colors, size=96)
    assert (left < 255).any()
    first = path.read_bytes()
    render_cloud(cloud.coords, cloud.colors, path, size=96)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["chair.png"]


def test_png_pixels_survive(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(
        np.rint(imread(viz.write_png(tmp_path / "a.png", image)) * 255), image
    )


def test_flat_pictures_are_trimmed_and_white_ones_are_not_lost(tmp_path: Path):
    flat = np.random.default_rng(0).random((400, 3)) * [4.0, 4.0, 0.01]
    path = render_cloud(flat, np.zeros((400, 3)), tmp_path / "flat.png", views=[(0, 0)], size=200)
    assert imread(path).shape[0] < 60
    blank = np.full((10, 4, 3), 255, np.uint8)
    assert viz.render._trim(blank, 2).shape == (10, 4, 3)


# Figures


@pytest.fixture(scope="module")
def encoder() -> PointEncoder:
    return create_encoder("vit3d_test")


def test_attention_comes_to_the_points(encoder: PointEncoder):
    cloud = sample_cloud()
    weights = point_attention(encoder, cloud)
    assert weights.shape == (4, 1024)
    assert (weights > 0).all()
    found = extract(encoder, cloud)
    # at the place of a token the weight is the token's own
    nearest = [np.abs(cloud.coords - place).sum(axis=1).argmin() for place in found.token_coords]
    assert len(set(nearest)) == len(found.tokens)
    assert weights[:, nearest].sum(axis=1) == pytest.approx(1.0, abs=0.05)


def test_attention_figure(encoder: PointEncoder, tmp_path: Path):
    clouds = {
        "chair": sample_cloud(),
        "ball": PointCloud(np.random.default_rng(0).normal(size=(99, 3))),
    }
    path = viz.attention_figure(encoder, clouds, tmp_path / "a.png", size=60)
    assert imread(path).shape[:2] == (120, 240)
    first = path.read_bytes()
    viz.attention_figure(encoder, clouds, path, size=60)
    assert path.read_bytes() == first


def test_attention_needs_an_encoder_that_has_it(encoder: PointEncoder, tmp_path: Path, monkeypatch):
    with pytest.raises(ConfigError, match="0 clouds"):
        viz.attention_figure(encoder, {}, tmp_path / "a.png")
    monkeypatch.setattr(
        type(encoder), "capabilities", Capabilities(tokens=True, class_attention=False)
    )
    with pytest.raises(ConfigError, match="class attention"):
        viz.attention_figure(encoder, {"chair": sample_cloud()}, tmp_path / "a.png")


def test_spectrum_figure(tmp_path: Path):
    spectra = {"rich": np.exp(-np.arange(50) / 20), "dead": np.array([3.0, 0.0, 0.0])}
    path = viz.spectrum_figure(spectra, tmp_path / "s.png")
    assert imread(path).std() > 0.05
    for bad in ({}, {"a": []}, {"a": [0.0, 0.0]}):
        with pytest.raises(ConfigError, match="eigenvalue"):
            viz.spectrum_figure(bad, path)


def write_log(path: Path, extra: str = "") -> Path:
    lines = [{"kind": "step", "step": s, "time": 1.0, "loss": 5.0 - s, "lr": 0.1} for s in range(4)]
    lines.insert(2, {"kind": "health", "step": 1, "time": 1.0, "rank": 7})
    path.write_text("\n".join(map(json.dumps, lines)) + "\n" + extra)
    return path


def test_training_figure(tmp_path: Path):
    log = write_log(tmp_path / "log.jsonl", extra='{"step": 4, "lo')  # killed while writing
    curves = read_curves(log)
    assert list(curves) == ["loss", "lr", "rank"]
    assert curves["loss"] == [(0, 5), (1, 4), (2, 3), (3, 2)]
    assert curves["rank"] == [(1, 7)]
    everything = imread(viz.training_figure(log, tmp_path / "t.png"))
    one = imread(viz.training_figure(log, tmp_path / "t.png", keys=["loss", "nothing"]))
    assert everything.shape[1] == pytest.approx(3 * one.shape[1], abs=2)
    lines = [{"step": 0, **{f"q{i}": i for i in range(5)}}]
    log.write_text("\n".join(map(json.dumps, lines)))
    assert imread(viz.training_figure(log, tmp_path / "t.png")).shape[0] > one.shape[0]


def test_a_log_that_is_none(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    for text in ("{\n" + '{"step": 1}\n', '{"loss": 1}\n{"step": 1}', "[]\n{}"):
        log.write_text(text)
        with pytest.raises(FormatError):
            read_curves(log)
    log.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError):
        read_curves(log)
    with pytest.raises(FormatError, match="FileNotFoundError"):
        read_curves(tmp_path / "none")
    write_log(log)
    with pytest.raises(FormatError, match="accuracy"):
        viz.training_figure(log, tmp_path / "t.png", keys=["accuracy"])


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path: Path):
    real = builtins.__import__

    def without(name: str, *args: object, **options: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pointzoo\[viz\]"):
        viz.spectrum_figure({"a": [1.0]}, tmp_path / "s.png")
    render_cloud([[0, 0, 0]], [RED], tmp_path / "point.png", size=32)


def test_clouds_stand_in_a_table(tmp_path: Path):
    coords = np.random.default_rng(0).random((400, 3))
    red, blue = np.tile(RED, (400, 1)), np.tile(BLUE, (400, 1))
    rows = {
        "one": {"left": (coords, red), "right": (coords, blue)},
        "two": {"left": (coords, blue), "right": (coords, red)},
    }
    path = viz.clouds_figure(rows, tmp_path / "table.png", size=120)
    picture = (imread(path)[..., :3] * 255).astype(np.uint8)
    middle = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = [
        picture[: middle[0], : middle[1]], picture[: middle[0], middle[1] :],
        picture[middle[0] :, : middle[1]], picture[middle[0] :, middle[1] :],
    ]  # fmt: skip
    for part, color in zip(quarters, ("red", "blue", "blue", "red"), strict=True):
        assert matches(part, color).mean() > 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["table.png"]


@pytest.mark.parametrize("rows", [{}, {"one": {}}, {"one": {"a": 0}, "two": {"b": 0}}])
def test_a_table_of_clouds_needs_the_same_columns(rows: dict, tmp_path: Path):
    with pytest.raises(ConfigError, match="same columns"):
        viz.clouds_figure(rows, tmp_path / "table.png")
