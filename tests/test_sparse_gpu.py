"""Optional GPU backends: chosen, tested, remembered, refused. Fakes stand for the packages."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pointzoo.errors import ConfigError
from pointzoo.ops.sparse import VoxelGrid, core, gpu, layouts, reference, submanifold_conv
from pointzoo.ops.sparse.search import PairList

CPU = torch.device("cpu")
Factor = Callable[[int], float]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Take CPU tensors for CUDA ones, with a cache of the test's own and neither package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gpu, "_applies", lambda _: True)
    monkeypatch.setattr(core, "multiplies", lambda _: False)
    for name in ("torchsparse", "spconv"):
        monkeypatch.setitem(sys.modules, name, None)
    gpu.use_backend("auto")
    yield
    gpu.use_backend("auto")


def install(monkeypatch: pytest.MonkeyPatch, name: str, version: str, **parts: object) -> None:
    """Put a fake package and its submodules into place."""
    package = ModuleType(name)
    package.__version__ = version
    monkeypatch.setitem(sys.modules, name, package)
    for path, functions in parts.items():
        module = ModuleType(f"{name}.{path.replace('__', '.')}")
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def fake_torchsparse(monkeypatch: pytest.MonkeyPatch, version: str, factor: Factor) -> list[int]:
    """Install a torchsparse whose result is ``factor(call)`` times the right one."""
    calls: list[int] = []

    def sums(x, weight, maps, sizes, rows):
        assert maps.dtype == sizes.dtype == torch.int32
        calls.append(rows)
        pairs = PairList(maps[:, 1].long(), maps[:, 0].long(), tuple(sizes.tolist()))
        return reference.convolve(x, weight, pairs, rows) * factor(len(calls))

    def old(x, out, weight, maps, sizes, transposed):
        assert not transposed
        out.copy_(sums(x, weight, maps, sizes, len(out)))

    def new(x, weight, maps, sizes, masks_in, masks_out, rows, eps, thresh, mode, transposed, buf):
        assert (masks_in, masks_out, eps, thresh, mode, transposed) == ("i", "o", 0.0, 0, 0, False)
        return sums(x, weight, maps, sizes, rows)

    build = {"build_mask_from_kmap": lambda *_: ("i", "o")}
    functions = {
        "1.4.0": {"convolution_forward_cuda": old},
        "2.0.0b": {"convolution_forward_cuda": new, **build},
        "2.1.0": {"conv_forward_gather_scatter_cuda": new, **build},
    }
    install(monkeypatch, "torchsparse", version, backend=functions[version])
    return calls


def fake_spconv(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def indice_conv(x, filters, table, counts, rows, inverse, subm):
        assert (inverse, subm) == (False, False)
        calls.append(rows)
        assert [int((row >= 0).sum()) for row in table[0]] == counts.tolist()
        inputs, outputs = (
            torch.cat([row[:n] for row, n in zip(side, counts.tolist(), strict=True)]).long()
            for side in table
        )
        weight = layouts.from_spconv(filters)
        return reference.convolve(
            x, weight, PairList(outputs, inputs, tuple(counts.tolist())), rows
        )

    parts = {"pytorch": {}, "pytorch__ops": {"indice_conv": indice_conv}}
    install(monkeypatch, "spconv", "2.3.8", **parts)
    return calls


def convolution() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a convolution through the door, and what the reference says."""
    torch.manual_seed(0)
    grid, _ = VoxelGrid.build(torch.randint(0, 6, (90, 3)), torch.tensor([90]))
    x, weight = torch.randn(90, 4, requires_grad=True), torch.randn(27, 4, 5)
    found = submanifold_conv(x, weight, grid.submanifold(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_applies", lambda _: False)
        expected = submanifold_conv(x, weight, grid.submanifold(3))
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)
    return found, expected


@pytest.mark.parametrize("version", ["1.4.0", "2.0.0b", "2.1.0"])
def test_torchsparse_of_every_version_is_proven_once_and_used(monkeypatch, version: str):
    calls = fake_torchsparse(monkeypatch, version, lambda _: 1.0)
    torch.testing.assert_close(*convolution())
    tested = 4 * gpu._REPEATS
    assert len(calls) == tested + 3  # forward, and the gradient of the input twice
    (key,) = json.loads(gpu.verdict_file().read_text())
    assert key.startswith(f"torchsparse {version}, torch {torch.__version__}")
    gpu.use_backend("auto")  # as in a new process
    convolution()
    assert len(calls) == tested + 6


def test_spconv_is_taken_where_torchsparse_is_not(monkeypatch):
    calls = fake_spconv(monkeypatch)
    torch.testing.assert_close(*convolution())
    assert len(calls) > 4
    found = {status.name: status for status in gpu.statuses(CPU)}
    assert found["torchsparse"].version is None
    assert found["torchsparse"].reason.startswith("not installed (for CUDA tensors only")
    assert found["spconv"].usable
    assert found["spconv"].reason == "equal to the reference"


def test_a_backend_that_errs_is_refused_and_torch_goes_on(monkeypatch, caplog):
    factors = iter([1.0, 1.01])  # right at first: a race
    calls = fake_torchsparse(monkeypatch, "2.1.0", lambda _: next(factors))
    with caplog.at_level(logging.WARNING, logger="pointzoo"):
        torch.testing.assert_close(*convolution())
    assert "torchsparse 2.1.0 is not used: a 3 x 3 x 3 convolution differs" in caplog.text
    assert len(calls) == 2
    gpu.use_backend("torchsparse")
    with pytest.raises(ConfigError, match="differs from the reference"):
        convolution()
    assert len(calls) == 2  # the verdict is remembered


def test_a_backend_that_raises_is_refused(monkeypatch):
    install(monkeypatch, "torchsparse", "2.1.0", backend={})
    (status, _) = gpu.statuses(CPU)
    assert not status.usable
    assert "build_mask_from_kmap" in status.reason
    torch.testing.assert_close(*convolution())


def test_a_choice_by_name(monkeypatch):
    calls = fake_spconv(monkeypatch)
    fake_torchsparse(monkeypatch, "2.1.0", lambda _: 1.0)
    gpu.use_backend("torch")
    convolution()
    assert calls == []
    gpu.use_backend("spconv")
    convolution()
    assert calls
    with pytest.raises(ConfigError, match="auto, torch, torchsparse, spconv"):
        gpu.use_backend("minkowski")
    monkeypatch.setitem(gpu._state, "choice", "typo")  # from the environment
    gpu._chosen.cache_clear()
    with pytest.raises(ConfigError, match="typo"):
        convolution()


def test_only_float32_goes_there(monkeypatch):
    calls = fake_torchsparse(monkeypatch, "2.1.0", lambda _: 1.0)
    grid, _ = VoxelGrid.build(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([1]))
    weight = torch.ones(27, 1, 1, dtype=torch.float64)
    submanifold_conv(torch.ones(1, 1, dtype=torch.float64), weight, grid.submanifold(3))
    assert calls == []


def test_on_the_cpu_they_are_refused_with_the_reason(monkeypatch):
    fake_spconv(monkeypatch)
    fake_torchsparse(monkeypatch, "2.1.0", lambda _: 1.0)
    monkeypatch.undo()
    monkeypatch.setattr(core, "multiplies", lambda _: False)
    with pytest.MonkeyPatch.context() as patch:
        fake_spconv(patch)
        reasons = [s.reason for s in gpu.statuses(CPU) if s.name == "spconv"]
    assert "threads race" in reasons[0]
    torch.testing.assert_close(*convolution())


def test_packages_that_cannot_be_imported(monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, *_):
            if name == "torchsparse":
                raise OSError("undefined symbol")
            if name == "spconv":
                raise ImportError("no cumm", name="cumm")

    for name in ("torchsparse", "spconv"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    first, second = gpu.statuses(CPU)
    assert first.reason == "not importable: OSError: undefined symbol"
    assert second.reason == "not importable: no cumm"
    torch.testing.assert_close(*convolution())


def test_a_cache_that_cannot_be_kept_costs_a_test(monkeypatch, tmp_path: Path):
    calls = fake_spconv(monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert gpu.statuses(CPU)[1].usable
    once = len(calls)
    assert gpu.statuses(CPU)[1].usable
    assert len(calls) == 2 * once
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gpu.verdict_file().parent.mkdir()
    gpu.verdict_file().write_text("[1, 2")
    assert gpu.statuses(CPU)[1].usable
    assert json.loads(gpu.verdict_file().read_text())
