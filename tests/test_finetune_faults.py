"""A hundred broken inputs to finetune and predict: a typed error, never a half-written model.

Every case draws a fault and its details from a seed. Whatever happens, a folder that holds a
``config.json`` afterwards is a model that loads.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_toys import Rooms, make_room

import pointzoo as pz
from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import PointzooError, TrainingError, WeightError
from pointzoo.finetuning.files import predict_files

ENCODER = "sparseunet_test"
QUICK: dict[str, Any] = {
    "method": "decoder", "max_steps": 2, "validate_steps": 1, "amp": False, "hidden": 4,
    "checkpoint_minutes": 0.0, "augmentation": "none",
}  # fmt: skip


class Small(Rooms):
    """Rooms of few points; ``change`` spoils some of them."""

    def __init__(
        self,
        seeds: tuple[int, ...] = (0, 1),
        change: Callable[[PointCloud], PointCloud] | None = None,
    ) -> None:
        super().__init__(seeds)
        self.change = change

    def __getitem__(self, index: int) -> PointCloud:
        room = make_room(self.seeds[index], 40)
        return room if self.change is None or index else self.change(room)


def run(out: Path, data: Any = None, **changes: Any) -> Any:
    data = (Small(), Small((9,))) if data is None else data
    return pz.finetune(ENCODER, data, out=out, **{**QUICK, **changes})


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# broken labels and clouds: name -> what it makes of a room ----------------------------------------


def _labels(room: PointCloud, value: int, share: float, rng: np.random.Generator) -> PointCloud:
    labels = np.array(room.labels)
    labels[rng.random(len(labels)) < share] = value
    labels[0] = value
    return room.replace(labels=labels)


def _bad_coords(room: PointCloud, rng: np.random.Generator) -> PointCloud:
    coords = np.array(room.coords)
    coords[rng.integers(len(coords)), rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf])
    return room.replace(coords=coords)


def _bad_colors(room: PointCloud, rng: np.random.Generator) -> PointCloud:
    normals = np.full((len(room), 3), np.nan)
    return room.replace(normals=normals) if rng.random() < 0.5 else _bad_coords(room, rng)


CLOUDS: dict[str, Callable[[PointCloud, np.random.Generator], PointCloud]] = {
    "too high": lambda room, rng: _labels(room, int(rng.integers(3, 300)), rng.random(), rng),
    "too low": lambda room, rng: _labels(room, -int(rng.integers(2, 300)), rng.random(), rng),
    "no labels": lambda room, _: room.replace(labels=None),
    "not finite": _bad_coords,
    "channels": _bad_colors,
    "empty": lambda room, _: room.select(np.zeros(len(room), bool)),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fault", CLOUDS)
def test_broken_clouds(tmp_path: Path, fault: str, seed: int):
    rng = np.random.default_rng([seed, len(fault)])
    spoil = lambda room: CLOUDS[fault](room, rng)  # noqa: E731
    broken, whole = Small((0, 1), spoil), Small((2, 3))
    method = ("linear", "decoder", "full")[seed % 3]
    data = (broken, whole) if seed < 4 else (whole, broken)
    with pytest.raises(PointzooError):
        run(tmp_path / "model", data, method=method)
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize("seed", range(8))
def test_too_little_to_learn_from(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    only = int(rng.integers(-1, 3))  # one class, or none

    class One(Small):
        def __getitem__(self, index: int) -> PointCloud:
            room = super().__getitem__(index)
            return room.replace(labels=np.where(np.asarray(room.labels) == only, only, -1))

    data: Any = [One(), Small(()), (Small(), Small(())), (One(), Small())][seed % 4]
    with pytest.raises(PointzooError):
        run(tmp_path / "model", data, method=("linear", "lora")[seed // 4])
    assert not (tmp_path / "model" / "config.json").exists()


# files that vanish or are damaged while training --------------------------------------------------


class Files(Rooms):
    """Rooms in files, one of which is spoilt when so many have been read."""

    def __init__(self, folder: Path, after: int, spoil: Callable[[Path], object]) -> None:
        super().__init__((0, 1, 2))
        self.after, self.spoil = after, spoil
        self.files = [folder / f"{name}.ply" for name in self.names]
        for file, seed in zip(self.files, self.seeds, strict=True):
            io.write(file, make_room(seed, 40))

    def __getitem__(self, index: int) -> PointCloud:
        self.after -= 1
        if self.after == 0:
            for file in self.files:
                self.spoil(file)
        return io.read(self.files[index])


SPOILS: tuple[Callable[[Path], object], ...] = (
    lambda path: path.unlink(missing_ok=True),
    lambda path: path.write_bytes(path.read_bytes()[:50]),
    lambda path: path.write_bytes(b"\x00" * 200),
    lambda path: path.write_text("ply\nformat ascii 1.0\nelement vertex 9\nend_header\n1 2\n"),
)


@pytest.mark.parametrize("seed", range(8))
def test_a_file_that_vanishes_while_training(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pointzoo.finetuning.data.CACHED_POINTS", 0)
    after = int(np.random.default_rng(seed).integers(1, 8))
    data = Files(tmp_path, after, SPOILS[seed % 4])
    with pytest.raises(PointzooError):
        run(tmp_path / "model", (data, Small((9,))), max_steps=6)
    # with the files back the run goes on from where it was
    again = Files(tmp_path, 10**9, SPOILS[0])
    model = run(tmp_path / "model", (again, Small((9,))), max_steps=6, resume=True)
    assert model.predict(make_room(5, 40)).labels.shape == (40,)


# a disk that is full ------------------------------------------------------------------------------

WRITES = (
    "pointzoo.pretrain.checkpoint.save_file",
    "pointzoo.pretrain.checkpoint.os.fsync",
    "pathlib.Path.replace",
    "pathlib.Path.rename",
    "pointzoo.finetuning.store.os.fsync",
)


@pytest.mark.parametrize("seed", range(15))
def test_a_disk_that_is_full(tmp_path: Path, seed: int):
    """Some write fails at a random call; afterwards there is a whole model or none."""
    rng = np.random.default_rng(seed)
    place, left = WRITES[seed % len(WRITES)], int(rng.integers(0, 4))
    out = tmp_path / "model"
    if seed % 2:  # an older model is there
        run(out, method="linear")
        before = pz.load_model(out).predict(make_room(5, 40)).probabilities
    with pytest.MonkeyPatch.context() as patch:
        target, _, name = place.rpartition(".")
        original = _resolve(target).__dict__[name]
        calls = iter(range(10**6))

        def failing(*args: Any, **options: Any) -> Any:
            return full_disk() if next(calls) >= left else original(*args, **options)

        patch.setattr(place, failing)
        try:
            run(out)
        except PointzooError as error:
            assert isinstance(error, TrainingError | WeightError)  # noqa: PT017
    if (out / "config.json").exists():
        found = pz.load_model(out).predict(make_room(5, 40)).probabilities
        assert seed % 2 == 0 or found.shape == before.shape
    assert not list(tmp_path.glob(".*"))  # nothing half-written beside it
    model = run(out, resume=True)  # the disk has room again
    assert model.scores["validation"]["values"]["miou"] >= 0.0
    assert not list(out.glob("*.part"))


def _resolve(path: str) -> Any:
    from importlib import import_module

    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(path)


# damaged checkpoints and models -------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "model"
    run(out)
    return out


def copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("seed", range(16))
def test_damaged_folders(tmp_path: Path, finished: Path, seed: int):
    """A damaged checkpoint or model is refused; a damaged log does not matter."""
    rng = np.random.default_rng(seed)
    out = copy(finished, tmp_path / "model")
    tensors = next(out.glob("model.*.safetensors"))
    which = (out / "checkpoint.safetensors", tensors, out / "config.json", out / "log.jsonl")
    path = which[seed % 4]
    data = bytearray(path.read_bytes())
    if seed % 3 == 0:
        data = data[: int(rng.integers(len(data)))]
    else:
        place = int(rng.integers(min(len(data), 2000)))
        data[place] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(data))
    if path.name == "log.jsonl":
        run(out, resume=True)
    elif path.name == "checkpoint.safetensors":
        try:
            run(out, resume=True)  # a flipped bit in a weight cannot be seen, a broken header can
        except PointzooError as error:
            assert "checkpoint" in str(error) or "began with" in str(error)  # noqa: PT017
    else:
        with pytest.raises(WeightError):
            pz.load_model(out)


@pytest.mark.parametrize("seed", range(12))
def test_broken_inputs_to_predict(tmp_path: Path, finished: Path, seed: int):
    rng = np.random.default_rng(seed)
    model = pz.load_model(finished)
    room = make_room(seed, 40)
    source = tmp_path / "room.ply"
    io.write(source, room)
    bad: tuple[Any, ...] = (
        _bad_coords(room, rng),
        room.select(np.zeros(40, bool)),
        np.zeros((5, 2)),
        "no such file.ply",
        object(),
        tmp_path,
    )
    SPOILS[seed % 4](source)
    with pytest.raises((PointzooError, FileNotFoundError)):
        model.predict(bad[seed % len(bad)])
    with pytest.raises((PointzooError, FileNotFoundError)):
        predict_files(model, [source], tmp_path / "out.ply")
    assert not (tmp_path / "out.ply").exists()


def test_a_prediction_that_does_not_fit_on_the_disk(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    model = pz.load_model(finished)
    io.write(tmp_path / "room.ply", make_room(0, 40))
    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        predict_files(model, [tmp_path / "room.ply"], tmp_path / "out.ply")
    assert [path.name for path in tmp_path.iterdir()] == ["room.ply"]


# killed -------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_finetune_faults import run
run(Path(sys.argv[2]), max_steps=24, validate_steps=3)
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_a_random_moment_goes_on(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given: dict[str, Any] = {"max_steps": 24, "validate_steps": 3}
    run(whole, **given)
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(parts)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (parts / "config.json").exists():
        time.sleep(0.01)
    time.sleep(float(rng.uniform(0.0, 0.3)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    pz.load_model(parts)  # whole at any moment
    run(parts, resume=True, **given)
    for name in ("config.json", next(whole.glob("model.*")).name):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
