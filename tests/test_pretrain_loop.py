"""The training loop: its files, its ends, and the same bits after a run was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training import ENCODERS, config, make_encoder, make_objective, toy_data

from pointzoo import load_encoder
from pointzoo.data.joined import JoinedDataset
from pointzoo.encoders.base import EncoderOutput
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import CollapseError, ConfigError, MissingExtraError, TrainingError
from pointzoo.pretrain import dcglr, health, loop
from pointzoo.pretrain.loop import train
from pointzoo.pretrain.objective import TrainingConfig
from pointzoo.pretrain.report import Report
from pointzoo.pretrain.samples import Plan, epoch_order, step_generator

SMALL = "extremes with normals"


def bits(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / loop.CHECKPOINT)


def steps_in(run: Path) -> int:
    with safe_open(run / loop.CHECKPOINT, framework="pt") as file:
        return json.loads(file.metadata()["facts"])["step"]


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_bits(run: Path, other: Path) -> None:
    left, right = bits(run), bits(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of eight steps that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(make_objective(), toy_data(), run)
    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The same with a smaller encoder."""
    run = tmp_path_factory.mktemp("small") / "run"
    train(make_objective(SMALL), toy_data(), run)
    return run


class Interrupts:
    """A data set in which something happens when a cloud is read for the n-th time."""

    def __init__(self, reads: int, act: Any) -> None:
        self.data, self.left, self.act = toy_data(), reads, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        self.left -= 1
        if self.left == 0:
            self.act()
        return self.data[index]


def ask_to_stop(number: int) -> Any:
    return lambda: os.kill(os.getpid(), number)


# A whole run


def test_a_run_leaves_checkpoint_log_and_weights(tmp_path):
    objective = make_objective()
    result = dcglr.run(config(), toy_data(labels=True), tmp_path / "run", encoder=make_encoder())
    assert result.finished
    assert result.steps == steps_in(result.weights.parent) == 8
    assert set(result.health) == {"feature_std", "effective_rank", "knn_accuracy"}
    loaded = load_encoder(str(result.weights))
    assert loaded.config == objective.exported.config
    assert not loaded.training
    lines = log_of(tmp_path / "run")
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    wanted = {"loss", "global_loss", "local_loss", "teacher_entropy", "center_norm", "lr"}
    wanted |= {"weight_decay", "clouds_per_second", "waiting", "views", "time"}
    assert all(wanted <= set(line) for line in steps)
    assert all(0.0 <= line["waiting"] <= 1.0 and 0.0 < line["views"] < 1.0 for line in steps)
    assert lines[-1]["kind"] == "health"
    assert not list((tmp_path / "run").glob("*.part"))


def test_the_same_run_has_the_same_bits_whatever_the_global_state(whole, tmp_path):
    torch.manual_seed(1234)
    objective = make_objective()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    train(objective, toy_data(), tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_bits(tmp_path / "again", whole)


def test_another_seed_gives_other_bits(whole, tmp_path):
    train(make_objective(seed=1), toy_data(), tmp_path / "other")
    left, right = bits(tmp_path / "other"), bits(whole)
    assert not torch.equal(left["module.center"], right["module.center"])


def test_worker_processes_change_nothing(small, tmp_path):
    train(make_objective(SMALL, workers=2), toy_data(), tmp_path / "workers")
    assert_same_bits(tmp_path / "workers", small)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_can_be_trained(name, tmp_path):
    result = train(make_objective(name, max_steps=2), toy_data(), tmp_path / "run")
    assert result.finished
    assert (result.weights is None) == (name not in ARCHITECTURES)
    assert steps_in(tmp_path / "run") == 2


def test_epochs_count_whole_batches(tmp_path):
    objective = make_objective("pointwise", max_steps=None, epochs=2, batch_size=5)
    assert train(objective, toy_data(12), tmp_path / "run").steps == 4


def test_bfloat16_and_a_measured_precision(tmp_path, monkeypatch):
    train(make_objective(precision="bf16", max_steps=2), toy_data(), tmp_path / "bf16")
    assert bits(tmp_path / "bf16")["module.center"].dtype == torch.float32
    for pays in (True, False):
        monkeypatch.setattr(loop, "bfloat16_pays", lambda pays=pays: pays)
        run = tmp_path / str(pays)
        train(make_objective("pointwise", precision="auto", max_steps=1), toy_data(), run)
        facts = json.loads(safe_open(run / loop.CHECKPOINT, "pt").metadata()["facts"])
        assert facts["precision"] == ("bf16" if pays else "fp32")
    # what was measured at the beginning holds, whatever is measured now
    monkeypatch.setattr(loop, "bfloat16_pays", lambda: False)
    auto = make_objective("pointwise", precision="auto", max_steps=1)
    train(auto, toy_data(), tmp_path / "True", resume=True)
    facts = json.loads(safe_open(tmp_path / "True" / loop.CHECKPOINT, "pt").metadata()["facts"])
    assert facts["precision"] == "bf16"


def test_measuring_bfloat16_gives_an_answer():
    assert health.bfloat16_pays(size=32, repeats=2) in (True, False)


# Stopped and killed runs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reads", [1, 14])
def test_a_signal_ends_the_run_after_the_step_and_it_goes_on_to_the_same_bits(
    number, reads, small, tmp_path
):
    run = tmp_path / "run"
    before = signal.getsignal(number)
    result = train(make_objective(SMALL), Interrupts(reads, ask_to_stop(number)), run)
    assert signal.getsignal(number) is before
    assert not result.finished
    assert result.steps == steps_in(run) == -(-reads // 4)
    assert log_of(run)[-1]["kind"] == "health"
    rest = train(make_objective(SMALL), toy_data(), run, resume=True)
    assert rest.finished
    assert_same_bits(run, small)
    steps = [line["step"] for line in log_of(run) if line["kind"] == "step"]
    assert steps == sorted(set(steps))


def start(work: Any, *inputs: Any) -> multiprocessing.Process:
    """Run something in a process of its own; a fork, because importing torch takes seconds."""
    child = multiprocessing.get_context("fork").Process(target=work, args=inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forks with threads
        child.start()
    return child


def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path):
    """SIGKILL from outside, at a step and a moment that are different every time."""
    run = tmp_path / "run"
    child = start(lambda: train(make_objective(), toy_data(), run))
    rng = np.random.default_rng(time.time_ns())
    wanted, deadline = int(rng.integers(1, 6)), time.monotonic() + 120
    while not (run / loop.CHECKPOINT).exists() or steps_in(run) < wanted:
        assert child.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0, 0.05)))
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert wanted <= steps_in(run) < 8
    rest = train(make_objective(), toy_data(), run, resume=True)
    assert rest.finished
    assert_same_bits(run, whole)


def test_two_processes_keep_the_same_networks(tmp_path):
    """The encoder has a head for points, which this objective never uses."""
    _run_as_two(tmp_path, toy_data())
    assert steps_in(tmp_path / "run") == 8


def test_two_processes_stop_together_when_one_is_asked(tmp_path):
    _run_as_two(tmp_path, Interrupts(7, ask_to_stop(signal.SIGTERM)), undisturbed="1")
    assert steps_in(tmp_path / "run") == 4  # the seventh of two reads per step and process


def _run_as_two(folder: Path, data: Any, undisturbed: str = "") -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {rank: toy_data() if rank == undisturbed else data for rank in "01"}
    children = [start(_one_of_two, rank, port, folder, given[rank]) for rank in "01"]
    for child in children:
        child.join(timeout=120)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    assert codes == [0, 0]
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in "01")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert torch.equal(bits(folder / "run")["module.center"], first["center"])


def _one_of_two(rank: str, port: str, folder: Path, data: Any) -> None:
    """Train as one of two processes, and write what both must agree on."""
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the tests before
    os.environ.update(WORLD_SIZE="2", RANK=rank, LOCAL_RANK=rank, ACCELERATE_USE_CPU="true")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    objective = make_objective(SMALL)
    train(objective, data, folder / "run")
    shared = {f"{k}.{n}": p.detach() for k in "st" for n, p in _branch(objective, k)}
    save_file({**shared, "center": objective.center}, folder / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


def _branch(objective: Any, letter: str) -> Any:
    return {"s": objective.student, "t": objective.teacher}[letter].named_parameters()


def test_steps_after_the_checkpoint_are_made_again(small, tmp_path):
    """Fail where no checkpoint was taken for a while, with lines in the log already."""
    run = tmp_path / "run"

    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        train(make_objective(SMALL, checkpoint_minutes=60.0), Interrupts(22, fail), run)
    assert steps_in(run) == 0
    assert [line["step"] for line in log_of(run)] == [2, 4]
    train(make_objective(SMALL), toy_data(), run, resume=True)
    assert_same_bits(run, small)
    assert [line["step"] for line in log_of(run)][:2] == [2, 4]
    assert [line["step"] for line in log_of(run) if line["kind"] == "step"] == [2, 4, 6, 8]


def test_a_finished_run_can_be_resumed_and_stays(small, tmp_path):
    run = tmp_path / "run"
    train(make_objective(SMALL), toy_data(), run)
    result = train(make_objective(SMALL), toy_data(), run, resume=True)
    assert result.finished
    assert result.steps == 8
    assert_same_bits(run, small)


def test_resuming_nothing_starts_from_the_beginning(small, tmp_path):
    train(make_objective(SMALL), toy_data(), tmp_path / "run", resume=True)
    assert_same_bits(tmp_path / "run", small)


def test_what_may_change_between_parts_of_a_run(small, tmp_path):
    run = tmp_path / "run"
    train(make_objective(SMALL), Interrupts(9, ask_to_stop(signal.SIGTERM)), run)
    changed = make_objective(
        SMALL, workers=1, log_steps=3, checkpoint_minutes=9.0, health_minutes=0.0
    )
    train(changed, toy_data(), run, resume=True)
    assert_same_bits(run, small)
    assert sum(line["kind"] == "health" for line in log_of(run)) > 3


def test_outside_the_main_thread_signals_are_left_alone(tmp_path):
    found = []
    before = signal.getsignal(signal.SIGTERM)
    objective = make_objective("pointwise", max_steps=1)
    work = threading.Thread(
        target=lambda: found.append(train(objective, toy_data(), tmp_path / "run"))
    )
    work.start()
    work.join()
    assert found[0].finished
    assert signal.getsignal(signal.SIGTERM) is before


# Runs that are refused or that fail


def test_a_folder_with_a_run_is_not_overwritten(small):
    before = (small / loop.CHECKPOINT).read_bytes()
    with pytest.raises(ConfigError, match="--resume"):
        train(make_objective(SMALL), toy_data(), small)
    assert (small / loop.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("objective", "data", "what"),
    [
        (lambda: make_objective(seed=3), toy_data, "config"),
        (lambda: make_objective("pointwise"), toy_data, "encoder"),
        (make_objective, lambda: toy_data(13), "data"),
    ],
)
def test_a_run_goes_on_only_as_it_began(objective, data, what, whole):
    with pytest.raises(ConfigError, match=what):
        train(objective(), data(), whole, resume=True)


def test_a_finished_run_can_be_made_longer(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    result = train(make_objective(max_steps=9), toy_data(), run, resume=True)
    assert result.finished
    assert result.steps == 9


def test_too_little_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one batch of 4"):
        train(make_objective(), toy_data(3), tmp_path / "run")


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "schema", "another network"])
def test_a_damaged_checkpoint_is_refused(damage, whole, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    path, data = run / loop.CHECKPOINT, (whole / loop.CHECKPOINT).read_bytes()
    facts = json.loads(safe_open(whole / loop.CHECKPOINT, "pt").metadata()["facts"])
    tensors = bits(whole)
    if damage == "truncated":
        path.write_bytes(data[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        save_file(tensors, path)
    elif damage == "schema":
        save_file(tensors, path, metadata={"facts": json.dumps({**facts, "schema": 99})})
    else:
        del tensors["module.center"]
        save_file(tensors, path, metadata={"facts": json.dumps(facts)})
    with pytest.raises(TrainingError, match="checkpoint of this run"):
        train(make_objective(), toy_data(), run, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    objective = make_objective()
    good, calls = objective.loss, []

    def loss(*inputs: Any) -> Any:
        calls.append(1)
        value, logged = good(*inputs)
        return (value * float("nan") if len(calls) == 3 else value), logged

    objective.loss = loss
    with pytest.raises(TrainingError, match="finite loss, got nan at step 2"):
        train(objective, toy_data(), tmp_path / "run")
    assert steps_in(tmp_path / "run") == 2
    assert all(t.isfinite().all() for t in bits(tmp_path / "run").values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path):
    objective = make_objective()
    objective.student.projector.last.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"finite gradient, got .* at step 0"):
        train(objective, toy_data(), tmp_path / "run")
    assert steps_in(tmp_path / "run") == 0
    assert all(p.isfinite().all() for p in objective.student.parameters())


def test_a_collapse_stops_the_run_and_says_so(tmp_path):
    objective = make_objective("pointwise", health_minutes=0.0)
    encoder = objective.teacher.encoder
    encoder.forward = types.MethodType(_constant, encoder)
    with pytest.raises(CollapseError, match="a collapse at step 1: effective rank"):
        train(objective, toy_data(), tmp_path / "run")
    (line,) = [line for line in log_of(tmp_path / "run") if line["kind"] == "health"]
    assert line["effective_rank"] < 1.5
    assert steps_in(tmp_path / "run") == 0


def _constant(self: Any, batch: Any, *, points: bool = True, geometry: Any = None) -> EncoderOutput:
    output = type(self).forward(self, batch, points=points)
    return EncoderOutput(output.scene * 0.0 + 1.0, output.point)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"log_steps": 0},
        {"max_steps": 0},
        {"workers": -1},
        {"precision": "fp8"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        TrainingConfig(**changes)


# Samples


def test_every_epoch_is_another_permutation():
    first, second = (epoch_order((10,), (), 0, epoch).tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == epoch_order((10,), (), 0, 0).tolist()


def test_shares_decide_how_much_each_part_supplies():
    rows = epoch_order((90, 10), (1.0, 1.0), 0, 0)
    assert len(rows) == 100
    assert (rows < 90).sum() == 50
    assert len(set(rows[rows < 90].tolist())) == 50
    small, counts = np.unique(rows[rows >= 90], return_counts=True)
    assert small.tolist() == list(range(90, 100))
    assert set(counts.tolist()) == {5}
    assert (epoch_order((5, 5), (1e-9, 1.0), 0, 0) >= 5).all()


def test_a_plan_continues_where_it_was_cut():
    def batches(steps: range, **more: Any) -> list[Any]:
        return list(Plan((11,), (), batch_size=4, steps=steps, seed=7, **more))

    everything = batches(range(9))
    assert len(Plan((11,), (), 4, range(9), 7)) == 9
    assert batches(range(5, 9)) == everything[5:]
    assert [batch[0][0] for batch in everything] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    for epoch in range(4):
        rows = [row for batch in everything for e, row in batch if e == epoch]
        assert len(set(rows)) == len(rows) == 8
    shared = [batches(range(9), rank=rank, processes=2) for rank in (0, 1)]
    for step, batch in enumerate(everything):
        assert sorted(shared[0][step] + shared[1][step]) == sorted(batch)


def test_steps_and_processes_have_generators_of_their_own():
    draws = {float(torch.rand(1, generator=step_generator(*k))) for k in np.ndindex(3, 3, 3)}
    assert len(draws) == 27
    assert step_generator(1, 2, 3).initial_seed() == step_generator(1, 2, 3).initial_seed()


def test_joined_data_is_drawn_by_shares(tmp_path):
    data = JoinedDataset((toy_data(12), _renamed(toy_data(6), "more")))
    result = train(make_objective("pointwise", shares=(1.0, 2.0)), data, tmp_path / "run")
    assert result.finished
    for shares in ((1.0,), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="share for each of the 2"):
            train(make_objective("pointwise", shares=shares), data, tmp_path / "refused")


def _renamed(data: Any, name: str) -> Any:
    import dataclasses

    return dataclasses.replace(data, name=name)


# Report


def test_a_log_keeps_what_the_checkpoint_knows(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"kind": 1}\n{"step": 3}\n{"step": 2, "lo')
    Report(tmp_path, 2, 10, enabled=True, tensorboard=False)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_other_processes_report_nothing(tmp_path):
    with Report(tmp_path, 0, 10, enabled=False, tensorboard=True) as report:
        report.step(1, {"loss": 1.0}, 0.1, clouds=4, every=1)
        report.health(1, {"effective_rank": 2.0})
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_line(tmp_path, monkeypatch):
    events = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            events.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            events.append((name, value, step))

        def close(self) -> None:
            events.append("closed")

    fake = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    train(make_objective("pointwise", tensorboard=True), toy_data(), tmp_path / "run")
    assert events[0] == str(tmp_path / "run" / "events")
    assert events[-1] == "closed"
    assert {"step/loss", "health/effective_rank"} <= {e[0] for e in events[1:-1]}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="tensorboard"):
        Report(tmp_path, 0, 1, enabled=True, tensorboard=True)


def test_health_without_known_labels_has_no_knn(tmp_path):
    import dataclasses

    data = toy_data(6, labels=True)
    unknown = dataclasses.replace(data, labels=np.full(6, -1))
    found = health.measure_health(make_encoder("pointwise"), unknown)
    assert set(found) == {"feature_std", "effective_rank"}
    assert "knn_accuracy" in health.measure_health(make_encoder("pointwise"), data)


def test_samples_can_go_to_worker_processes_that_are_not_forked(tmp_path):
    objective = make_objective("pointwise", max_steps=1)
    train(objective, toy_data(), tmp_path / "run")
    prepare = pickle.loads(pickle.dumps(objective.prepare))  # noqa: S301
    draws = [f(toy_data()[0], np.random.default_rng(0))[0] for f in (prepare, objective.prepare)]
    assert torch.equal(*draws)
