"""The report on an installation: what is found, and why something is not used."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from packaging.requirements import Requirement

from pointzoo import doctor
from pointzoo.cli import main
from pointzoo.ops import backends
from pointzoo.ops.sparse import core, gpu


def rows(title: str) -> dict[str, str]:
    (section,) = [s for s in doctor.examine(benchmark=False) if s.title == title]
    return dict(section.rows)


def test_the_command_prints_every_section():
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    for word in ("versions", "devices", "compiled cores", "GPU backends", "extras", "benchmark"):
        assert word in result.output
    assert torch.__version__.split("+")[0] in result.output
    assert "GFLOP/s" in result.output
    assert "GFLOP/s" not in CliRunner().invoke(main, ["doctor", "--no-benchmark"]).output


def test_compiled_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for module in (backends, core):
        monkeypatch.setattr(module, "compiled", lambda: False)
    monkeypatch.setenv("POINTZOO_COMPILED", "0")
    assert all("POINTZOO_COMPILED=0" in found for found in rows("compiled cores").values())
    monkeypatch.delenv("POINTZOO_COMPILED")
    monkeypatch.setattr(core, "__file__", str(tmp_path / "core.py"))
    assert "no C compiler" in rows("compiled cores")["sparse convolution"]
    (tmp_path / "_sparse.abi3.so").write_text("")
    assert "another machine" in rows("compiled cores")["sparse convolution"]
    for module in (backends, core):
        monkeypatch.setattr(module, "compiled", lambda: True)
    monkeypatch.setattr(core, "instruction_set", lambda: 2)
    found = rows("compiled cores")
    assert found["points (neighbours, sampling)"] == "in use"
    assert found["sparse convolution"] == "in use, with AVX-512"


def test_backends_and_why(monkeypatch: pytest.MonkeyPatch):
    statuses = (
        gpu.Status("torchsparse", None, False, "not installed"),
        gpu.Status("spconv", "2.3.8", False, "threads race"),
        gpu.Status("other", "1.0", True, "equal to the reference"),
    )
    monkeypatch.setattr(gpu, "statuses", lambda _: statuses)
    assert rows("GPU backends of sparse convolution") == {
        "torchsparse": "not used: not installed",
        "spconv 2.3.8": "refused: threads race",
        "other 1.0": "found: equal to the reference",
    }


def test_extras_are_those_of_the_package(root: Path, monkeypatch: pytest.MonkeyPatch):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    declared = config["options.extras_require"]

    def packages(extra: str) -> set[str]:
        found: set[str] = set()
        for line in filter(None, declared[extra].splitlines()):
            requirement = Requirement(line)
            if requirement.name == "pointzoo":
                found |= {p for inner in requirement.extras for p in packages(inner)}
            else:
                found |= {requirement.name, *requirement.extras}
        return found

    names = set(declared) - {"all", "dev"}
    assert {e: set(p) for e, p in doctor.EXTRAS.items()} == {e: packages(e) for e in names}
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "h5py" else "1.2")
    assert rows("extras")["hdf5"] == "missing h5py: pip install 'pointzoo[hdf5]'"
    assert rows("extras")["las"] == "laspy 1.2, lazrs 1.2"
    assert doctor.version_of("h5py") is None


def test_what_is_not_installed_has_no_version():
    assert doctor.version_of("no-such-package-at-all") is None
    assert doctor.version_of("numpy")


class FakeProperties:
    total_memory = 80 * 2**30


def test_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert rows("devices")["CUDA"] == "none: torch is built for CUDA 12.4 but finds none"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert rows("devices")["CUDA"] == "none: torch is built without"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: FakeProperties)
    monkeypatch.setattr(gpu, "statuses", lambda _: ())
    assert rows("devices")["cuda:0"] == "a GPU, 80 GiB"


def test_the_processor_has_a_name_everywhere(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args: object, **_options: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert doctor._processor()
    monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: "vendor: x\nmodel name : Chip 9\n")
    assert doctor._processor() == "Chip 9"
    monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: "")
    assert doctor._processor()
