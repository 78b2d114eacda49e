"""What an installation contains: the wheel, the source distribution, and their metadata."""

from __future__ import annotations

import ast
import configparser
import email
import email.message
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

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


def test_installed_wheel_finds_its_weights(built: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "site"
    shutil.unpack_archive(built[0], target, "zip")
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import pointzoo as pz;"
        "names = pz.list_encoders(pretrained=True); print(pz.__file__); print(*names);"
        "[pz.load_encoder(name) for name in names]"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    where, names = result.stdout.splitlines()
    assert where.startswith(str(target))
    assert set(names.split()) == {p.parent.name for p in ROOT.glob("weights_cards/*/config.json")}


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
