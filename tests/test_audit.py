"""Cards that are true: whatever a card states wrongly is found, and figures are measured again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from click.testing import CliRunner
from test_cards import CARD

import pointzoo as pz
from pointzoo import audit, zoo
from pointzoo.audit import build_card, bundled_folders, check_weight, run_command, state_facts
from pointzoo.cards import Facts, Metric, make_card, read_card, render_card
from pointzoo.cli import main
from pointzoo.errors import (
    ConfigError,
    FormatError,
    LicenseWarning,
    UnknownNameError,
    WeightError,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = pz.create_encoder("vit3d_test")
    return pz.save_encoder(encoder, tmp_path_factory.mktemp("audit") / "toy", card=CARD)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "toy"))


def rewrite(folder: Path, **changes: Any) -> None:
    """Write the card with other facts."""
    card = read_card(folder)
    assert card.facts is not None
    other = dataclasses.replace(card, facts=dataclasses.replace(card.facts, **changes))
    (folder / "README.md").write_text(render_card(other), encoding="utf-8")


def test_every_bundled_card_is_true():
    found = CliRunner().invoke(main, ["card", "check"])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [f"{path.name}: true" for path in bundled_folders()]
    assert set(zoo.WEIGHTS) == {path.name for path in bundled_folders()}


def test_a_true_card(folder: Path):
    assert check_weight(folder) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("parameters", 7), ("channels", ("coords", "normals")), ("size", 1), ("sha256", "0" * 64)],
)
def test_a_fact_that_is_none(folder: Path, name: str, value: Any):
    rewrite(folder, **{name: value})
    (problem,) = check_weight(folder)
    assert f"the card states {name} {value!r}, it is " in problem
    assert state_facts(folder).facts != Facts(7, (), 1, "")
    assert check_weight(folder) == []


def test_a_card_without_facts(folder: Path):
    (folder / "README.md").write_text(render_card(CARD), encoding="utf-8")
    (problem,) = check_weight(folder)
    assert "does not state its facts" in problem


def test_facts_of_a_wrong_kind(folder: Path):
    text = (folder / "README.md").read_text()
    for old, new, told in (
        ("    parameters: ", "    parameter: ", "does not hold parameters, channels"),
        ("    size: ", "    size: a", "pointzoo.facts.size is not of type int"),
    ):
        (folder / "README.md").write_text(text.replace(old, new))
        assert any(told in problem for problem in check_weight(folder))


def test_other_files_than_the_card_speaks_of(folder: Path):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    (problem,) = check_weight(folder)
    assert "sha256" in problem
    text = (folder / "config.json").read_text()
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    changed = {**json.loads(text), "parameters": 1, "sha256": sha256}
    (folder / "config.json").write_text(json.dumps(changed))
    (problem,) = check_weight(folder)
    assert "another parameters" in problem
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").unlink()
    assert "FileNotFoundError" in check_weight(folder)[0]
    with pytest.raises(WeightError, match="No such file"):
        state_facts(folder)
    (folder / "README.md").unlink()
    assert any("a card at" in problem for problem in check_weight(folder))
    found = CliRunner().invoke(main, ["card", "check", str(folder)])
    assert found.exit_code == 2
    assert "1 of the cards or weights" in found.stderr


def test_the_registry_is_compared(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zoo, "weights_folder", lambda: folder.parent)
    monkeypatch.setattr(audit, "weights_folder", lambda: folder.parent)
    entry = zoo.Weight("toy", "pct", "0" * 64)
    monkeypatch.setattr(zoo, "WEIGHTS", {"toy": entry})
    monkeypatch.setattr(audit, "WEIGHTS", {"toy": entry})
    assert bundled_folders() == [folder]
    first, second = check_weight(folder)
    assert "of the registry" in first
    assert "the registry says 'pct'" in second


def test_figures_are_measured_again(folder: Path):
    results = (Metric("one", "?", "python a"), Metric("two", "?", "python a"),
               Metric("three (z)", "?", "python b"))  # fmt: skip
    card = dataclasses.replace(read_card(folder), results=results)
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")
    asked = []

    def run(command: str) -> str:
        asked.append(command)
        return {"python a": "one: 1.0 %\n  two:  2 (of 3) \n", "python b": "three (z): 3\n"}[
            command
        ]

    found = build_card(folder, run=run)
    assert asked == ["python a", "python b"]
    assert [result.value for result in found.results] == ["1.0 %", "2 (of 3)", "3"]
    assert read_card(folder) == found
    assert check_weight(folder) == []
    with pytest.raises(ConfigError, match=r"a line 'one: VALUE' from 'python a', got two: 2"):
        build_card(folder, run=lambda _: "two: 2")


def test_commands_of_a_card_are_run(folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("measure.py").write_text("print('accuracy: 12.5 %')")
    card = dataclasses.replace(
        read_card(folder), results=(Metric("accuracy", "?", "python measure.py"),)
    )
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")
    refused = CliRunner().invoke(main, ["card", "build", str(folder)], input="n\n")
    assert refused.exit_code == 1
    assert "python measure.py" in refused.stdout
    assert read_card(folder).results[0].value == "?"
    found = CliRunner().invoke(main, ["card", "build", str(folder), "--yes"])
    assert found.exit_code == 0, found.output
    assert "accuracy  12.5 %" in found.stdout
    assert read_card(folder).results[0].value == "12.5 %"


def test_commands_that_cannot_be_run():
    assert "version" in run_command("pointzoo --version")
    for command in ("rm -rf x", ""):
        with pytest.raises(ConfigError, match="begins with 'python' or 'pointzoo'"):
            run_command(command)
    with pytest.raises(ConfigError, match="exit code 3: no"):
        run_command("python -c \"import sys; print('no', file=sys.stderr); sys.exit(3)\"")


def test_a_licence_that_forbids_commercial_use_is_said_once(tmp_path: Path):
    name = "vit3d_test.not_for_sale"
    card = dataclasses.replace(CARD, name=name, license="cc-by-nc-4.0")
    folder = pz.save_encoder(pz.create_encoder("vit3d_test"), tmp_path / name, card=card)
    with pytest.warns(LicenseWarning, match="not for commercial use: .*weights cc-by-nc-4.0"):
        pz.load_encoder(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pz.load_encoder(folder)
    assert caught == []
    assert pz.encoder_info(folder).commercial is False


def test_a_card_from_its_fields():
    fields = {**dataclasses.asdict(CARD), "facts": None}
    assert make_card({**fields, "sources": [dict(s) for s in fields["sources"]]}) == CARD
    with pytest.raises(UnknownNameError, match="limitations"):
        make_card({"limitation": ""})
    for wrong in ({"sources": [1]}, {"sources": [{"who": "me"}]}, {"hours": "long"}, {"notes": 1}):
        with pytest.raises(FormatError, match="the fields of a card"):
            make_card({**fields, **wrong})
    with pytest.raises(FormatError, match=r"license is missing or not of type str"):
        make_card({**fields, "license": 3})
