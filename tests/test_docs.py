"""The documents stay true: their snippets run, their tables are generated, their links resolve."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sybil import Example, Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

import pointzoo as pz
from pointzoo import cli

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("README.md", "docs/architecture.md", "docs/cli.md", "docs/running_elsewhere.md")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "weights_cards/**/*.md")
    for path in ROOT.glob(pattern)
)
SNIPPETS = [path for path in DOCUMENTS if re.search(r"```(python|bash)\n", path.read_text("utf-8"))]
DOCSTRINGS = [
    path for path in sorted((ROOT / "pointzoo").rglob("*.py")) if ">>> " in path.read_text("utf-8")
]
PARSED_ONLY = ("pretrain", "probe", "corpus", "push", "finetune")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_shell(example: Example) -> None:
    """Run the ``pointzoo`` lines of a shell block; of long commands, check the words only."""
    for line in str(example.parsed).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["pointzoo"]:
            continue
        if words[1] in PARSED_ONLY:
            _check_words(cli.main, words[1:])
            continue
        result = CliRunner().invoke(cli.main, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"


def _check_words(group: click.Group, words: list[str]) -> None:
    command: click.Command = group
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(str(command.name), words)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder that holds what the snippets read: scans, labelled objects and rooms."""
    rng = np.random.default_rng(0)
    ground = rng.uniform(0.0, 20.0, (500, 3)) * (1.0, 1.0, 0.05)
    cloud = pz.PointCloud(coords=ground, colors=rng.uniform(0.0, 1.0, (500, 3)))
    for name in ("scan.laz", "scan.ply", "new_scan.laz", "new_scan.ply"):
        pz.write(tmp_path / name, cloud)
    for part, count in (("train", 3), ("val", 2)):
        (tmp_path / "my_rooms" / part).mkdir(parents=True)
        for index in range(count):
            coords = rng.uniform(0.0, 3.0, (500, 3))
            room = cloud.replace(coords=coords, labels=(coords[:, 2] > 1.0).astype(int))
            pz.write(tmp_path / "my_rooms" / part / f"{index}.ply", room)
    for label in ("chair", "table"):
        (tmp_path / "my_objects" / label).mkdir(parents=True)
        for index in range(3):
            piece = pz.PointCloud(coords=rng.normal(size=(128, 3)))
            pz.write(tmp_path / "my_objects" / label / f"{index}.ply", piece)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", SNIPPETS, ids=_name)
def test_snippets_of_documents_run(path: Path, workshop: Path) -> None:
    parsers = [PythonCodeBlockParser(), CodeBlockParser("bash", run_shell)]
    document = Sybil(parsers, path=str(ROOT), filenames=[path.name]).parse(path)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("path", DOCSTRINGS, ids=_name)
def test_snippets_of_docstrings_run(path: Path, workshop: Path) -> None:
    sybil = Sybil(
        [DocTestParser()],
        path=str(ROOT),
        pattern="*.py",
        document_types={".py": PythonDocStringDocument},
    )
    examples = list(sybil.parse(path).examples())
    assert examples
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("name", GENERATED)
def test_generated_parts_are_current(name: str) -> None:
    command = [sys.executable, "-m", "cogapp", "--check", "-I", "scripts", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"run `make docs`\n{result.stdout}\n{result.stderr}"
    assert "[[[cog" in (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_between_documents_resolve(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert not missing


def test_readme_and_ci_name_the_same_test_command() -> None:
    command = 'pip install -c constraints.txt -e ".[all,dev]" && make check'
    assert command in (ROOT / "README.md").read_text("utf-8")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert command.replace("install", "install -q") in ci


def test_changelog_fragments_render() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "## 9.9.9" in result.stdout
