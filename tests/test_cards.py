"""Cards: what is written is read again, and whatever is missing is named."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pointzoo.cards import Card, DataSource, Metric, check_card, read_card, render_card
from pointzoo.errors import FormatError

CARD = Card(
    name="vit3d_test.dcglr_nothing",
    architecture="vit3d_test",
    summary="A weight for tests.",
    license="apache-2.0",
    code_license="apache-2.0",
    sources=(
        DataSource("LDraw parts 2024-01", "the LDraw authors", "cc-by-2.0", "https://ldraw.org"),
        DataSource("Infinigen 1.15.5", "Princeton Vision & Learning Lab", "bsd-3-clause"),
    ),
    command="pointzoo pretrain dcglr --data corpus --preset cpu --out run",
    seed=0,
    commit="1234567",
    hardware="2 CPU cores",
    hours=1.5,
    results=(Metric("SH3D-21 linear SVM", "70.1 % ± 0.5", "pointzoo probe corpus"),),
    intended_use="Tests.",
    limitations="Everything else.",
    datasets=("ldraw",),
    notes="## Pictures\n\nNone yet.",
)


def write(folder: Path, text: str, architecture: str = "vit3d_test") -> Path:
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture}))
    return folder


def edited(**changes: object) -> str:
    """Return the card with changed header entries; None removes one, a dot reaches inside."""
    _, header, body = render_card(CARD).split("---\n", 2)
    values = yaml.safe_load(header)
    for key, value in changes.items():
        inside, name = (values["pointzoo"], key[4:]) if key.startswith("own_") else (values, key)
        if value is None:
            inside.pop(name)
        else:
            inside[name] = value
    return f"---\n{yaml.safe_dump(values)}---\n{body}"


def test_a_card_is_read_as_it_was_written(tmp_path: Path):
    folder = write(tmp_path, render_card(CARD))
    assert read_card(folder) == CARD
    assert read_card(folder / "README.md") == CARD
    assert check_card(folder) == []


@settings(max_examples=40)
@given(
    st.builds(
        dataclasses.replace,
        st.just(CARD),
        seed=st.integers(0, 2**63),
        hours=st.floats(0.01, 1e6),
        commit=st.from_regex(r"[0-9a-f]{7,40}", fullmatch=True),
        hardware=st.text(st.characters(categories=["L", "N", "P"]), min_size=1),
        tags=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1)).map(tuple),
    )
)
def test_any_card_is_read_as_it_was_written(tmp_path_factory, card: Card):
    file = tmp_path_factory.mktemp("card") / "README.md"
    file.write_text(render_card(card), encoding="utf-8")
    assert read_card(file) == card


def test_the_text_says_what_the_header_says():
    text = render_card(CARD).split("---\n", 2)[2]
    for said in (CARD.command, CARD.commit, "2 CPU cores", "1.5 hours", "70.1 %", "cc-by-2.0"):
        assert said in text


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"license": None}, "license is missing"),
        ({"license": ""}, "license is empty"),
        ({"library_name": "timm"}, "library_name is not 'pointzoo'"),
        ({"pipeline_tag": None}, "pipeline_tag"),
        ({"tags": "3d"}, "tags is missing or not of type list"),
        ({"metrics": []}, "metrics is empty"),
        ({"datasets": None}, "datasets is missing"),
        ({"pointzoo": "yes"}, "pointzoo.command is missing"),
        ({"own_schema": 2}, "pointzoo.schema is not 1"),
        ({"own_seed": None}, "pointzoo.seed is missing or not of type int"),
        ({"own_seed": True}, "pointzoo.seed"),
        ({"own_commit": "main"}, "pointzoo.commit is not 7 to 40"),
        ({"own_hours": "two"}, "pointzoo.hours is missing or not of type int or float"),
        ({"own_hours": 0}, "pointzoo.hours is empty"),
        ({"own_sources": []}, "pointzoo.sources is empty"),
        ({"own_sources": [{"name": "x"}]}, "pointzoo.sources[0] lacks author, license"),
        ({"own_sources": ["x"]}, "pointzoo.sources[0] lacks name"),
        (
            {"own_results": [{"name": "x", "value": 3, "command": "y", "z": "z"}]},
            "pointzoo.results[0] has unknown or non-text value, z",
        ),
    ],
)
def test_whatever_is_wrong_is_named(tmp_path: Path, changes: dict, complaint: str):
    folder = write(tmp_path, edited(**changes))
    assert any(complaint in problem for problem in check_card(folder))
    with pytest.raises(FormatError, match="complete card"):
        read_card(folder)


@pytest.mark.parametrize("heading", ["Trained on", "Metrics", "Licences", "What it cannot do"])
def test_sections_are_required(tmp_path: Path, heading: str):
    text = render_card(CARD).replace(f"## {heading}\n", "## Other\n")
    assert f"section {heading!r} is missing or empty" in check_card(write(tmp_path, text))


def test_a_title_with_a_summary_is_required(tmp_path: Path):
    text = render_card(CARD).replace("# vit3d_test.dcglr_nothing\n", "")
    assert any("title" in problem for problem in check_card(write(tmp_path, text)))


def test_text_and_header_must_agree(tmp_path: Path):
    text = render_card(CARD).replace("Seed 0", "Seed 1")
    assert any("disagree" in problem for problem in check_card(write(tmp_path, text)))


def test_pictures_must_be_there(tmp_path: Path):
    notes = "## Pictures\n\n![a](a.png) ![b](b.png) ![c](https://example.org/c.png)"
    folder = write(tmp_path, render_card(dataclasses.replace(CARD, notes=notes)))
    (folder / "a.png").write_bytes(b"")
    assert check_card(folder) == ["the picture b.png is not in the folder"]


@pytest.mark.parametrize("config", ["{", "[]", '{"architecture": "other"}', None])
def test_the_config_beside_it_must_agree(tmp_path: Path, config: str | None):
    folder = write(tmp_path, render_card(CARD))
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    (problem,) = check_card(folder)
    assert "config.json" in problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no header\n",
        "---\n: [\n---\n",
        "---\n- a list\n---\n",
        "---\na: 2022-99-99\n---\n",
        "---\n!!python/object/apply:os.getcwd []\n---\n",
        "---\n" + "[" * 50_000 + "\n---\n",
        "---\n" + "- " * 50_000 + "\n---\n",
    ],
)
def test_what_cannot_be_parsed_is_a_typed_error(tmp_path: Path, text: str):
    folder = write(tmp_path, text)
    for reader in (read_card, check_card):
        with pytest.raises(FormatError):
            reader(folder)


def test_a_missing_or_binary_card_is_a_typed_error(tmp_path: Path):
    with pytest.raises(FormatError):
        read_card(tmp_path)
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError):
        check_card(tmp_path)


def test_commercial_needs_all_three_licences():
    assert CARD.commercial
    assert CARD.data_licenses == ("bsd-3-clause", "cc-by-2.0")
    assert "allow commercial" in render_card(CARD)
    for change in (
        {"license": "cc-by-nc-4.0"},
        {"code_license": "unknown"},
        {"sources": (DataSource("scans", "me", "cc-by-nc-sa-4.0"),)},
    ):
        bound = dataclasses.replace(CARD, **change)
        assert not bound.commercial
        assert "do not all allow" in render_card(bound)
