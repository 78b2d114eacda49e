"""PointContrast: frames become points, overlapping frames become pairs, pairs train an encoder."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pointzoo import load_encoder
from pointzoo.cli import main
from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.data.rooms import Frames, Room, RoomRecord, RoomsHeader, write_rooms
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.pretrain import frame_pairs, pointcontrast
from pointzoo.pretrain.frame_pairs import match_frames, open_frame_pairs, unproject
from pointzoo.pretrain.pointcontrast import FRAMES, PointContrast, PointContrastConfig
from pointzoo.zoo import start_encoder

WIDTH, HEIGHT, FOCAL = 64, 48, 40.0
SIZE = np.array([4.0, 3.0, 2.4])
CONFIG = PointContrastConfig(
    max_steps=3,
    batch_size=2,
    views=dataclasses.replace(FRAMES, grid_size=0.2),
    match_radius=0.25,
    max_pairs=64,
    precision="fp32",
    checkpoint_minutes=0.0,
    log_steps=1,
)


def camera(angle: float) -> np.ndarray:
    """In the middle of the room, looking level into a direction."""
    forward = np.array([math.cos(angle), math.sin(angle), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
    pose[:3, 3] = SIZE / 2
    return pose


def frames_of(angles: list[float]) -> Frames:
    """Depth and colours of an empty room, by intersecting rays with its six sides."""
    intrinsics = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1.0]])
    rows, columns = np.indices((HEIGHT, WIDTH))
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    rays = pixels @ np.linalg.inv(intrinsics).T
    depth, color, poses = [], [], [camera(angle) for angle in angles]
    for pose in poses:
        way = rays @ pose[:3, :3].T
        with np.errstate(divide="ignore"):
            sides = np.where(way > 0, SIZE - pose[:3, 3], -pose[:3, 3]) / way
        reach = sides.min(axis=-1)
        depth.append(np.round(reach * 1000).astype(np.uint16))
        place = pose[:3, 3] + way * reach[..., None]
        color.append(np.round(place / SIZE * 255).clip(0, 255).astype(np.uint8))
    depth[0][0, 0] = 0  # a hole
    return Frames(np.stack(depth), np.stack(color), np.stack(poses), intrinsics)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rooms with four frames each, one of them for tests."""
    frames = {f"room{i}": frames_of([0.1 * i, 0.4 + 0.1 * i, 0.8, 3.6]) for i in range(3)}
    random = np.random.default_rng(0)

    def make(name: str, split: str) -> Room:
        points = random.random((50, 3)) * SIZE
        return Room(
            RoomRecord(name, split, "living", ()),
            coords=points.astype(np.float32),
            colors=np.zeros((50, 3), np.uint8),
            normals=np.tile([0.0, 0.0, 1.0], (50, 1)).astype(np.float16),
            labels=np.zeros(50, np.int16),
            instance=np.zeros(50, np.int32),
        )

    made = [make(f"room{i}", "test" if i == 2 else "train") for i in range(3)]
    header = RoomsHeader("toys", "Empty rooms.", "none", "CC0-1.0", pretraining=True)
    return write_rooms(tmp_path_factory.mktemp("data") / "rooms", header, made, [], frames=frames)


def make_objective(**changes: Any) -> PointContrast:
    encoder = start_encoder("sparseunet_test", grid_size=0.2)
    return PointContrast(encoder, dataclasses.replace(CONFIG, **changes))


def batch_of(objective: PointContrast, data: PointDataset) -> Any:
    random = np.random.default_rng(0)
    return objective.collate([objective.prepare(data[row], random) for row in range(2)])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Frames


def test_pixels_become_the_points_that_they_saw():
    frames = frames_of([0.3])
    cloud = unproject(frames, 0)
    assert len(cloud) == WIDTH * HEIGHT - 1  # without the hole
    on_a_side = np.minimum(np.abs(cloud.coords), np.abs(cloud.coords - SIZE)).min(axis=1)
    assert float(on_a_side.max()) < 2e-3  # depth is in whole millimetres
    np.testing.assert_allclose(cloud.colors, cloud.coords / SIZE, atol=4e-3)
    side = np.minimum(np.abs(cloud.coords), np.abs(cloud.coords - SIZE)).argmin(axis=1)
    inward = np.eye(3)[side] * np.where(cloud.coords < SIZE / 2, 1.0, -1.0)
    assert float(np.median((cloud.normals * inward).sum(axis=1))) > 0.999
    assert unproject(frames, 0, normals=False).normals is None


def test_frames_that_show_the_same_place_are_pairs():
    frames = frames_of([0.0, 0.3, math.pi, math.pi + 0.2])
    assert match_frames(frames) == [(0, 1), (2, 3)]
    assert match_frames(frames, overlap=0.999) == []


def test_a_data_set_of_pairs_holds_both_frames_of_each(rooms: Path):
    data = open_frame_pairs([rooms])
    assert isinstance(data, PointDataset)
    assert data.labels is None
    assert data.class_names == ()
    assert {name.split("/")[0] for name in data.names} == {"room0", "room1"}
    assert len(data.names) == len(data) > 3
    cloud = data[0]
    first, second = (cloud.select(cloud.fields["frame"] == side) for side in (0, 1))
    assert len(first) == WIDTH * HEIGHT - 1
    assert len(second) == WIDTH * HEIGHT
    everything = open_frame_pairs([rooms], "all")
    assert len(everything) > len(data)


def test_rooms_without_frames_or_pairs_are_refused(rooms: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="folder of rooms"):
        open_frame_pairs([tmp_path])
    with pytest.raises(ConfigError, match="frames that overlap"):
        open_frame_pairs([rooms], overlap=0.9999)
    bare = tmp_path / "bare"
    header = RoomsHeader("bare", "No frames.", "none", "CC0-1.0", pretraining=True)
    room = Room(
        RoomRecord("room0", "train", "living", ()),
        *(np.zeros((4, 3), kind) for kind in (np.float32, np.uint8, np.float16)),
        labels=np.zeros(4, np.int16),
        instance=np.zeros(4, np.int32),
    )
    write_rooms(bare, header, [room], [])
    with pytest.raises(FormatError, match="RGB-D frames"):
        open_frame_pairs([bare])


# Training


def test_views_are_the_two_frames_in_one_frame_of_reference(rooms: Path):
    objective = make_objective()
    cloud = open_frame_pairs([rooms])[0]
    query, key = objective.prepare(cloud, np.random.default_rng(0))
    for view in (query, key):
        assert np.ptp(view.origin, axis=0).max() <= 4.0
        assert len(np.unique(view.cells, axis=0)) == len(view.cells)
        np.testing.assert_array_equal(view.colors, view.source_colors)
    pairs = objective.pairs_of(objective.collate([(query, key)]), generator())
    near = query.colors[pairs[:, 0]] - key.colors[pairs[:, 1]]
    assert float(np.abs(near).max()) < 0.25 / 2.4 + 0.01  # colours are places
    with pytest.raises(CloudError, match="field 'frame'"):
        objective.prepare(PointCloud(np.zeros((3, 3))), np.random.default_rng(0))


@pytest.mark.parametrize("loss", ["nce", "hardest"])
def test_a_step_gives_every_parameter_a_gradient(loss, rooms: Path):
    objective = make_objective(loss=loss).train()
    batch = batch_of(objective, open_frame_pairs([rooms]))
    value, logged = objective.loss(batch, generator())
    value.backward()
    assert [n for n, p in objective.network.named_parameters() if p.grad is None] == []
    assert logged["pairs"] == 64.0
    assert logged["contrast_loss"] == pytest.approx(float(value.detach()))


def test_no_negative_lies_where_the_point_itself_does(rooms: Path):
    objective = make_objective()
    batch = batch_of(objective, open_frame_pairs([rooms]))
    pairs = objective.pairs_of(batch, generator())
    matching = objective._matching(batch, pairs)
    assert matching.diagonal().all()
    first = int((pairs[:, 0] < int(batch.query.offsets[0])).sum())
    assert 0 < first < len(pairs)
    assert not matching[:first, first:].any()
    # the hardest negative is the most alike of the others
    features = torch.randn(len(pairs), 8, generator=generator(), dtype=torch.float64)
    found = objective._hardest(features, features.flip(1), matching)
    unit = torch.nn.functional.normalize(features, dim=1)
    distance = torch.cdist(unit, unit.flip(1))
    push = [
        (1.4 - distance.masked_fill(matching, 9.0).amin(dim)).relu().square().mean()
        for dim in (0, 1)
    ]
    pull = (distance.diagonal().square() - 0.1).relu().mean()
    assert float(found) == pytest.approx(float(pull + sum(push) / 2), rel=1e-6)
    assert float(objective._hardest(features[:1], features[:1], matching)) == 0.0


def test_a_run_and_its_resumption(rooms: Path, tmp_path: Path):
    data = open_frame_pairs([rooms])
    encoder = start_encoder("sparseunet_test", grid_size=0.2)
    result = pointcontrast.run(CONFIG, data, tmp_path / "run", encoder=encoder)
    assert result.finished
    assert load_encoder(str(result.weights)).config == encoder.config
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"contrast_loss", "positive_cosine", "momentum"} <= set(lines[0])


def test_the_command(rooms: Path, tmp_path: Path):
    words = ["pretrain", "pointcontrast", "--data", rooms, "--encoder", "sparseunet_test"]
    words += ["--preset", "cpu", "--out", tmp_path / "run", "--max-steps", 1, "--batch-size", 2]
    words += ["--set", "views.grid_size=0.2", "--set", "match_radius=0.3"]
    said = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert "step 1, finished" in said.output


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "triplet"},
        {"positive_margin": -1.0},
        {"views": dataclasses.replace(FRAMES, radius=1.0)},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        dataclasses.replace(CONFIG, **changes)


def test_frames_are_read_once(rooms: Path, monkeypatch):
    reads = []
    read = frame_pairs.read_frames
    monkeypatch.setattr(frame_pairs, "read_frames", lambda *w: reads.append(w) or read(*w))
    frame_pairs._frames_of.cache_clear()
    data = open_frame_pairs([rooms])
    opened = len(reads)
    for row in (0, 1, 0):
        data[row]
    assert len(reads) - opened == 1
