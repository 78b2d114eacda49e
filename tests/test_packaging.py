"""What an installation contains: the wheel, the source distribution, and their metadata."""

from __future__ import annotations

import ast
import configparser
import email
import email.message
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = ("tests", "docs", "examples", "benchmarks", "scripts", "changelog.d")
IMPORT_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}
BLENDER = {"bpy", "mathutils", "infinigen"}
"""Imported by the Infinigen worker alone, which runs in an environment of its own."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a source distribution of the tracked files, and the wheel that is built from it."""
    source = tmp_path_factory.mktemp("source")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="session")
def wheel_files(built: tuple[Path, Path]) -> set[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(built[0]) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="session")
def metadata(built: tuple[Path, Path]) -> email.message.Message:
    """Return the metadata of the wheel."""
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def _below(folder: str, *, suffixes: tuple[str, ...]) -> set[str]:
    files = (p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes)
    return {p.relative_to(ROOT).as_posix() for p in files}


def test_wheel_holds_every_module_and_the_type_marker(wheel_files: set[str]) -> None:
    assert _below("pointzoo", suffixes=(".py", ".typed")) <= wheel_files


def test_wheel_holds_the_assets(wheel_files: set[str]) -> None:
    assets = _below("pointzoo/assets", suffixes=(".npz", ".npy", ".ply", ".json", ".laz"))
    assert assets <= wheel_files


def test_wheel_holds_the_weights_and_their_cards(wheel_files: set[str]) -> None:
    cards = _below("weights_cards", suffixes=(".md", ".json", ".safetensors", ".png"))
    assert {f"pointzoo/{name}" for name in cards} <= wheel_files


def test_wheel_holds_the_compiled_core_where_there_is_a_compiler(wheel_files: set[str]) -> None:
    compiled = any(name.endswith((".so", ".pyd", ".dylib")) for name in wheel_files)
    assert compiled == any(map(shutil.which, ("cc", "gcc", "clang", "cl")))


def test_one_wheel_serves_every_python(built: tuple[Path, Path]) -> None:
    assert "-cp310-abi3-" in built[0].name


def test_wheel_holds_nothing_else(wheel_files: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_files}
    assert not tops & set(NOT_SHIPPED)
    assert all(top == "pointzoo" or top.endswith(".dist-info") for top in tops)


def test_source_distribution_can_be_built_and_checked_by_a_stranger(
    built: tuple[Path, Path],
) -> None:
    with tarfile.open(built[1]) as archive:
        files = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"LICENSE", "README.md", "constraints.txt", "Makefile", "pyproject.toml", "setup.cfg"}
    wanted |= _below("tests", suffixes=(".py",)) | _below("examples", suffixes=(".py",))
    wanted |= _below("pointzoo", suffixes=(".py", ".c", ".h", ".typed"))
    assert wanted <= files


def test_metadata_is_what_an_index_asks_for(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "pointzoo"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.10"
    assert str(metadata.get_payload()).startswith("# pointzoo")
    for requirement in metadata.get_all("Requires-Dist", []):
        assert Requirement(requirement).url is None


def test_the_same_sources_give_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Of the sdist in another folder; of the compiled cores, that they do not name the folder."""
    shutil.unpack_archive(built[1], tmp_path / "elsewhere", "gztar")
    (source,) = (tmp_path / "elsewhere").iterdir()
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", str(source)]
    subprocess.run(command, capture_output=True, check=True)
    (again,) = (source / "dist").iterdir()
    assert again.read_bytes() == built[1].read_bytes()
    with zipfile.ZipFile(built[0]) as wheel:
        assert {entry.date_time[0] for entry in wheel.infolist()} == {1980}
        for name in wheel.namelist():
            if name.endswith(".so"):
                assert b"/pointzoo/ops/" not in wheel.read(name)


def test_wheel_is_small(built: tuple[Path, Path]) -> None:
    assert built[0].stat().st_size < 40e6


def _site(built: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a folder with spaces in its name that holds what the wheel installs."""
    site = tmp_path / "the site packages"
    shutil.unpack_archive(built[0], site, "zip")
    return site


def _run(site: Path, code: str, **environment: str) -> str:
    """Run code with the wheel's package; return what it prints."""
    code = f"import sys; sys.path.insert(0, {str(site)!r}); {code}"
    command = [sys.executable, "-W", "error", "-B", "-c", code]
    result = subprocess.run(
        command, cwd=site.parent, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_installed_wheel_finds_its_weights(built: tuple[Path, Path], tmp_path: Path) -> None:
    site = _site(built, tmp_path)
    code = (
        "import pointzoo as pz;"
        "names = pz.list_encoders(pretrained=True); print(pz.__file__); print(*names);"
        "[pz.load_encoder(name) for name in names]"
    )
    where, names = _run(site, code).splitlines()
    assert where.startswith(str(site))
    assert set(names.split()) == {p.parent.name for p in ROOT.glob("weights_cards/*/config.json")}


def test_nothing_is_written_beside_the_package_or_at_home(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """A user without a home that can be written, on packages that somebody else installed."""
    site = _site(built, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}
    np.save(tmp_path / "my scan.npy", np.random.default_rng(0).normal(size=(500, 3)))
    nowhere = {
        "HOME": "/dev/null/home",
        "XDG_CACHE_HOME": "/dev/null/cache",
        "HF_HOME": "/dev/null/hf",
    }
    code = (
        "from pointzoo.cli import main;"
        "main('features|my scan.npy|-o|my features.npz|--pca'.split('|'), standalone_mode=False);"
        "main(['doctor', '--no-benchmark'], standalone_mode=False)"
    )
    assert "torch" in _run(site, code, **nowhere)
    assert (tmp_path / "my features.npz").stat().st_size > 0
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before


def test_package_list_matches_the_folders() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {p.parent for p in (ROOT / "pointzoo").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert listed == found | {"pointzoo.weights_cards"}


def test_every_requirement_is_used_and_every_import_is_required() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lines = config["options"]["install_requires"].split("\n")
    for key in set(extras) - {"all", "dev"}:
        lines += extras[key].split("\n")
    names = {re.split(r"[<>=\[]", line)[0] for line in lines if line}
    required = {IMPORT_NAMES.get(name, name) for name in names}
    imported, strings = _names_in_package()
    assert imported <= required
    assert required <= imported | strings


def _names_in_package() -> tuple[set[str], set[str]]:
    """Return third-party packages of import statements, and strings that may name a module."""
    imported: set[str] = set()
    strings: set[str] = set()
    for path in (ROOT / "pointzoo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.add(node.value.split(".")[0])
    return imported - set(sys.stdlib_module_names) - BLENDER - {"pointzoo"}, strings


def test_error_of_a_missing_package_names_an_extra_that_exists() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "pointzoo").rglob("*.py"))
    named = set(re.findall(r"MissingExtraError\([^)]*, \"(\w+)\"\)", source))
    assert {"las", "mesh"} <= named
    assert named <= set(config["options.extras_require"])
