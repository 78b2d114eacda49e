"""The corpus folder: what is written is what is read, and only a whole folder is ever seen."""

import dataclasses
import json

import numpy as np
import pytest

from pointzoo.data.corpus import (
    CorpusHeader,
    Shape,
    ShapeRecord,
    Skipped,
    SourceFile,
    merge_corpora,
    read_corpus,
    read_manifest,
    write_corpus,
)
from pointzoo.errors import ConfigError, FormatError


def header(name="toys", **changes):
    base = CorpusHeader(
        name=name,
        description=f"Some {name}.",
        command=f"pointzoo corpus {name}",
        class_names=("ball", "cube"),
        licence="CC0-1.0",
        pretraining=True,
        versions={"maker": "1.0"},
    )
    return dataclasses.replace(base, **changes)


def shape(name, label=0, points=16):
    rng = np.random.default_rng(len(name) + label)
    coords = rng.uniform(1.0, 3.0, (points, 3))
    normals = coords / np.linalg.norm(coords, axis=1, keepdims=True)
    record = ShapeRecord(name, label, f"toys/{name}.obj", "0" * 64, "Ann", "CC0-1.0")
    return Shape(record, coords, normals, rng.integers(0, 256, (points, 3), dtype=np.uint8))


def folder_bytes(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(
        tmp_path / "toys",
        header(),
        [shape("b", 1), shape("a", 0), shape("c", -1)],
        files=[SourceFile("z.zip", "2" * 64, "Zoe", "CC0-1.0"), SourceFile("a", "1", "A", "MIT")],
        skipped=[Skipped("e", "empty"), Skipped("d", "broken")],
    )


def test_round_trip_is_sorted_by_name_and_centred(corpus):
    data = read_corpus(corpus)
    assert data.name == "toys"
    assert data.names == ("a", "b", "c")
    assert data.class_names == ("ball", "cube")
    assert np.asarray(data.labels).tolist() == [0, 1, -1]
    original = shape("b", 1)
    middle = (original.coords.min(axis=0) + original.coords.max(axis=0)) / 2
    np.testing.assert_allclose(data[1].coords, original.coords - middle, atol=1e-6)
    np.testing.assert_allclose(data[1].normals, original.normals, atol=1e-3)  # float16 on disk
    np.testing.assert_allclose(data[1].colors, original.colors / 255, atol=1e-6)
    assert isinstance(data.coords, np.memmap)


def test_manifest_tells_every_source(corpus):
    manifest = read_manifest(corpus)
    assert manifest.header == header()
    assert manifest.records[0] == shape("a").record
    assert [file.path for file in manifest.files] == ["a", "z.zip"]
    assert [skip.name for skip in manifest.skipped] == ["d", "e"]
    assert manifest.count_by_class() == {"ball": 1, "cube": 1}


def test_same_input_in_another_order_gives_the_same_bytes(corpus, tmp_path):
    again = write_corpus(
        tmp_path / "again",
        header(),
        [shape("c", -1), shape("a", 0), shape("b", 1)],
        files=[SourceFile("a", "1", "A", "MIT"), SourceFile("z.zip", "2" * 64, "Zoe", "CC0-1.0")],
        skipped=[Skipped("d", "broken"), Skipped("e", "empty")],
    )
    assert folder_bytes(again) == folder_bytes(corpus)


def test_a_corpus_is_replaced_and_nothing_is_left_over(corpus, tmp_path):
    write_corpus(corpus, header(), [shape("new")])
    assert read_corpus(corpus).names == ("new",)
    assert [path.name for path in tmp_path.iterdir()] == ["toys"]


def test_a_folder_that_is_no_corpus_is_not_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("do not lose")
    with pytest.raises(ConfigError, match="neither"):
        write_corpus(tmp_path, header(), [shape("a")])
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize("shapes", [[], [shape("a"), shape("a")]])
def test_no_shape_or_a_repeated_name_is_refused(shapes, tmp_path):
    with pytest.raises(ConfigError, match="each of them once"):
        write_corpus(tmp_path / "x", header(), shapes)
    assert not (tmp_path / "x").exists()


def edit_manifest(corpus, **changes):
    file = corpus / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_unusable_manifests_are_typed_errors(corpus, tmp_path):
    with pytest.raises(FormatError, match="FileNotFoundError"):
        read_manifest(tmp_path)
    edit_manifest(corpus, schema=99)
    with pytest.raises(FormatError, match="schema 99"):
        read_corpus(corpus)
    edit_manifest(corpus, schema=1, shapes=[{"name": "a"}])
    with pytest.raises(FormatError, match="TypeError"):
        read_corpus(corpus)
    (corpus / "manifest.json").write_text("{")
    with pytest.raises(FormatError, match="plain JSON"):
        read_corpus(corpus)
    (corpus / "manifest.json").write_text("[]")
    with pytest.raises(FormatError, match="TypeError"):
        read_corpus(corpus)


def test_unusable_arrays_are_typed_errors(corpus):
    np.save(corpus / "coords.npy", np.zeros((2, 16, 3), dtype=np.float32))
    with pytest.raises(FormatError, match="with 3 shapes"):
        read_corpus(corpus)
    np.save(corpus / "coords.npy", np.zeros((3, 16, 3)))
    with pytest.raises(FormatError, match="float64"):
        read_corpus(corpus)
    data = (corpus / "normals.npy").read_bytes()
    (corpus / "coords.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"coords\.npy"):
        read_corpus(corpus)
    (corpus / "coords.npy").unlink()
    with pytest.raises(FormatError, match="FileNotFoundError"):
        read_corpus(corpus)


def test_no_array_is_unpickled(corpus):
    np.save(corpus / "labels.npy", np.array([{}, {}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"labels\.npy"):
        read_corpus(corpus)


def test_merging_keeps_every_shape_with_its_class_and_source(corpus, tmp_path):
    other = write_corpus(
        tmp_path / "tools",
        header("tools", pretraining=False, class_names=("saw",), versions={"forge": "2"}),
        [shape("a", 0)],
        files=[SourceFile("a", "1", "A", "MIT")],
        skipped=[Skipped("x", "odd")],
    )
    merged = merge_corpora([corpus, other], tmp_path / "all", "shapes")
    data, manifest = read_corpus(merged), read_manifest(merged)
    assert data.names == ("toys/a", "toys/b", "toys/c", "tools/a")
    assert data.class_names == ("toys/ball", "toys/cube", "tools/saw")
    assert np.asarray(data.labels).tolist() == [0, 1, -1, 2]
    np.testing.assert_array_equal(data.coords[3], read_corpus(other).coords[0])
    assert [record.label for record in manifest.records] == [0, 1, -1, 2]
    assert not manifest.header.pretraining
    assert manifest.header.versions == {"maker": "1.0", "forge": "2"}
    assert [file.path for file in manifest.files] == ["a", "z.zip"]
    assert [skip.name for skip in manifest.skipped] == ["toys/d", "toys/e", "tools/x"]


def test_corpora_that_do_not_fit_are_not_merged(corpus, tmp_path):
    with pytest.raises(ConfigError, match="more than once"):
        merge_corpora([corpus, corpus], tmp_path / "all", "shapes")
    with pytest.raises(ConfigError, match="none"):
        merge_corpora([], tmp_path / "all", "shapes")
    small = write_corpus(tmp_path / "small", header("small"), [shape("a", points=8)])
    with pytest.raises(ConfigError, match="number of points"):
        merge_corpora([corpus, small], tmp_path / "all", "shapes")
