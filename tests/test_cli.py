"""The command line: its words and flags are a frozen list; errors are one line and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_cards import CARD

from pointzoo import io, zoo
from pointzoo.cli import main
from pointzoo.cloud import PointCloud
from pointzoo.weights import save_encoder
from pointzoo.zoo import create_encoder, load_encoder

WORDS = {
    "": ["--help", "--version"],
    "benchmark": [
        "NAME", "--data", "--device", "--encoder", "--epochs", "--help", "--init", "--limit",
        "--method", "--out", "--seeds", "--set", "--steps", "--test", "--variant", "--views",
    ],
    "cache": ["--help"],
    "cache clear": ["[OWNER/REPO]", "--help", "--yes"],
    "cache export": ["NAME", "DIR", "--help"],
    "cache list": ["--help"],
    "cache verify": ["--help"],
    "card": ["--help"],
    "card build": ["DIR", "--help", "--yes"],
    "card check": ["[DIR]...", "--help"],
    "convert": ["--help"],
    "convert pointcept": [
        "CHECKPOINT", "--channels", "--color-range", "--grid-size", "--half", "--help", "--license",
        "--out", "--stem-layout",
    ],
    "corpus": ["--help"],
    "corpus infinigen": ["PYTHON", "--help", "--out", "--rounds", "--work", "--workers"],
    "corpus ldraw": ["SOURCE", "--help", "--limit", "--out"],
    "corpus merge": ["CORPUS...", "--help", "--name", "--out"],
    "corpus morse": ["PYTHON", "SOURCE", "--help", "--out"],
    "corpus rooms": [
        "SOURCE...", "--frames", "--help", "--out", "--seed", "--test", "--train",
    ],
    "corpus sh3d": ["SOURCE...", "--help", "--out"],
    "data": ["--help"],
    "data check": [
        "FOLDER", "--classes", "--encoder", "--field", "--help", "--ignore", "--instance", "--json",
        "--objects", "--ratio", "--remap", "--scenes",
    ],
    "doctor": ["--benchmark", "--help", "--no-benchmark"],
    "export": ["NAME", "--help", "--out"],
    "features": ["FILE...", "--device", "--encoder", "--half", "--help", "--out", "--pca"],
    "finetune": [
        "ENCODER", "DATA", "--batch-size", "--device", "--epochs", "--help", "--learning-rate",
        "--max-steps", "--method", "--out", "--preset", "--resume", "--seed", "--set", "--task",
    ],
    "info": ["NAME", "--help"],
    "inspect": ["FILE", "--help"],
    "list": ["[PATTERN]", "--commercial", "--help", "--pretrained", "--runs-here", "--untrained"],
    "predict": [
        "MODEL", "FILE...", "--device", "--encoder", "--help", "--out", "--picture", "--votes",
    ],
    "pretrain": ["--help"],
    "pretrain dcglr": [
        "--batch-size", "--data", "--encoder", "--epochs", "--help", "--max-steps", "--out",
        "--preset", "--resume", "--seed", "--set",
    ],
    "pretrain pointcontrast": [
        "--batch-size", "--data", "--encoder", "--epochs", "--help", "--max-steps", "--out",
        "--preset", "--resume", "--seed", "--set", "--split",
    ],
    "pretrain msc": [
        "--batch-size", "--data", "--encoder", "--epochs", "--help", "--max-steps", "--out",
        "--preset", "--resume", "--seed", "--set", "--split",
    ],
    "probe": [
        "SUBJECT...", "--classifier", "--data", "--folds", "--help", "--out", "--points",
        "--rotation", "--seeds", "--test",
    ],
    "push": [
        "DIR", "OWNER/REPO", "--card", "--dry-run", "--help", "--message", "--private",
        "--revision",
    ],
}  # fmt: skip


def call(*words: object, code: int = 0) -> Result:
    """Run a command; a traceback is never right."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def error(*words: object) -> str:
    """Run a command that fails, and return its one line."""
    result = call(*words, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def weight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "vit3d_test.mine"
    return save_encoder(create_encoder("vit3d_test"), folder, card=CARD)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.ply"
    io.write(path, PointCloud(np.random.default_rng(0).normal(size=(30, 3))))
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Two classes that any feature tells apart: balls and sticks."""
    rng = np.random.default_rng(0)
    for name, scale in (("ball", [1, 1, 1]), ("stick", [0.02, 0.02, 1])):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for i in range(8):
            np.save(tmp_path / "shapes" / name / f"{i}.npy", rng.normal(size=(80, 3)) * scale)
    return tmp_path / "shapes"


def words_of(name: str, command: click.Command) -> dict[str, list[str]]:
    context = click.Context(command)
    given = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    options = [o for p in command.get_params(context) if isinstance(p, click.Option)
               for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]  # fmt: skip
    found = {name: given + sorted(options)}
    for word, inner in getattr(command, "commands", {}).items():
        found |= words_of(f"{name} {word}".strip(), inner)
    return found


def test_words_and_flags_are_these():
    assert words_of("", main) == WORDS


@pytest.mark.parametrize("words", WORDS)
def test_help_says_something(words: str):
    assert "Usage:" in call(*words.split(), "--help").stdout


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from pointzoo.cli import main\n"
        "try: main(['features', '--help'])\n"
        "finally: print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False"


# features


def test_features(scan: Path, weight: Path, tmp_path: Path):
    out = tmp_path / "f.npz"
    assert call("features", scan, "-o", out, "--encoder", weight).stdout == f"{out}\n"
    first = out.read_bytes()
    with np.load(out) as stored:
        expected = load_encoder(weight).extract(scan)
        np.testing.assert_array_equal(stored["point"], expected.point)
        assert stored["point"].shape == (30, 32)
    call("features", scan, "--out", out, "--encoder", weight, "--device", "cpu")
    assert out.read_bytes() == first


def test_features_of_several_files_with_pictures(scan: Path, weight: Path, tmp_path: Path):
    out = tmp_path / "out"
    np.save(tmp_path / "b.npy", np.eye(3))
    lines = call("features", scan, tmp_path / "b.npy", "-o", out, "--encoder", weight, "--pca")
    names = ["scan.npz", "scan.pca.ply", "scan.pca.png", "b.npz", "b.pca.ply", "b.pca.png"]
    assert lines.stdout.splitlines() == [str(out / name) for name in names]
    assert {path.name for path in out.iterdir()} == set(names)


def test_features_that_fail(scan: Path, weight: Path, tmp_path: Path):
    chosen = ("--encoder", weight)
    assert "out.txt" in error("features", scan, "-o", tmp_path / "out.txt", *chosen)
    assert "none.ply" in error("features", tmp_path / "none.ply", "-o", tmp_path / "f.npz", *chosen)
    missing = tmp_path / "no" / "f.npz"
    assert "No such file" in error("features", scan, "-o", missing, *chosen)
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat")
    assert "PLY" in error("features", tmp_path / "bad.ply", "-o", tmp_path / "f.npz", *chosen)
    np.save(tmp_path / "hole.npy", np.full((3, 3), np.nan))
    assert "NaN" in error("features", tmp_path / "hole.npy", "-o", tmp_path / "f.npz", *chosen)
    nearest = error("features", scan, "-o", tmp_path / "f.npz", "--encoder", "vit3d_tinny")
    assert "vit3d_tiny" in nearest
    warp = error("features", scan, "-o", tmp_path / "f.npz", *chosen, "--device", "warp")
    assert "device" in warp
    assert not (tmp_path / "f.npz").exists()
    assert "Missing option" in call("features", scan, code=2).stderr


# inspect, list, info


def test_inspect(scan: Path, tmp_path: Path):
    said = call("inspect", scan).stdout
    assert "30 points" in said
    assert "none.las" in error("inspect", tmp_path / "none.las")


def test_list(weight: Path, monkeypatch):
    lines = call(
        "list", "vit3d_t*", "--untrained", "--commercial", "--runs-here"
    ).stdout.splitlines()
    assert lines[0].split()[:2] == ["name", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == ["vit3d_test", "vit3d_tiny"]
    assert len(call("list", "nothing").stdout.splitlines()) == 1
    entry = zoo.Weight(weight.name, "vit3d_test", "")
    monkeypatch.setattr(zoo, "WEIGHTS", {weight.name: entry})
    monkeypatch.setattr(zoo, "weights_folder", lambda: weight.parent)
    (line,) = call("list", "--pretrained").stdout.splitlines()[1:]
    assert line.split()[:1] == [weight.name]
    assert "apache-2.0" in line


def test_info(weight: Path):
    said = call("info", weight).stdout
    for fact in (CARD.command, CARD.commit, "70.1 %", "cc-by-2.0", "LDraw", "2 CPU cores"):
        assert fact in said
    plain = call("info", "vit3d_tiny").stdout
    assert "pretrained      no" in plain
    assert "licences" not in plain
    assert "vit3d_tiny" in error("info", "vit3d_tinny")


def test_info_says_what_an_optional_channel_becomes(tmp_path: Path):
    folder = save_encoder(create_encoder("vit3d_test", channels=("colors",)), tmp_path / "w")
    assert "colors (optional, else 0.5)" in call("info", folder).stdout


# pretrain, probe, corpus


def test_pretrain(shapes: Path, tmp_path: Path):
    out = tmp_path / "run"
    words = ["pretrain", "dcglr", "--data", shapes, "--out", out, "--encoder", "vit3d_test",
             "--preset", "cpu", "--batch-size", 4, "--seed", 3, "--set", "points=64",
             "--set", "projector_hidden=16", "--set", "augmentation.shift=0.1"]  # fmt: skip
    said = call(*words, "--max-steps", 2).stdout
    assert "step 2, finished" in said
    trained = load_encoder(out / "weights")
    assert trained.config == create_encoder("vit3d_test").config
    assert "--resume" in error(*words, "--max-steps", 2)
    assert "step 2, finished" in call(*words, "--max-steps", 2, "--resume").stdout


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four scans as files, three of them to train on."""
    random = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "scans" / ("train" if number else "test")
        folder.mkdir(parents=True, exist_ok=True)
        coords = random.random((400, 3)) * (2.0, 2.0, 1.0)
        cloud = PointCloud(coords, colors=random.random((400, 3), dtype=np.float32))
        io.write(folder / f"{number}.ply", cloud)
    return tmp_path / "scans"


def test_pretrain_msc(scans: Path, tmp_path: Path):
    words = ["pretrain", "msc", "--data", scans, "--encoder", "sparseunet_test", "--preset", "cpu",
             "--batch-size", 2, "--max-steps", 1, "--set", "views.grid_size=0.2",
             "--set", "match_radius=0.3", "--set", "precision=fp32"]  # fmt: skip
    assert "step 1, finished" in call(*words, "--out", tmp_path / "run").stdout
    assert load_encoder(tmp_path / "run" / "weights").config.grid_size == 0.2
    few = ("--batch-size", 4)
    assert "a data set of 3" in error(*words, *few, "--out", tmp_path / "few")
    all_of_them = ("--split", "all", "--set", "checkpoint_minutes=9")
    assert "finished" in call(*words, *few, *all_of_them, "--out", tmp_path / "all").stdout
    assert "nowhere" in error(*words, "--split", "nowhere", "--out", tmp_path / "none")


def test_pretrain_that_fails(shapes: Path, tmp_path: Path):
    words = ("pretrain", "dcglr", "--out", tmp_path / "run")
    assert "none" in error(*words, "--data", tmp_path / "none")
    assert "different names" in error(*words, "--data", shapes, "--data", shapes)
    assert "local_crops" in error(*words, "--data", shapes, "--set", "local_crop=3")
    assert "KEY=VALUE" in error(*words, "--data", shapes, "--set", "local_crops")
    assert "vit3d_tiny" in error(*words, "--data", shapes, "--encoder", "vit3d_tinny")


def test_probe(shapes: Path, tmp_path: Path):
    out = tmp_path / "results.json"
    words = ["probe", "random:vit3d_test", "--data", shapes, "--classifier", "knn1"]
    said = call(*words, "--folds", 2, "--seeds", 1, "--points", 64, "--out", out).stdout
    assert said.startswith("random:vit3d_test knn1 points=64")
    (result,) = json.loads(out.read_text())
    assert result["mean"] > 0.9
    assert "classifier" in error("probe", "random:vit3d_test", "--data", shapes,
                                 "--classifier", "oracle")  # fmt: skip


def test_corpus_words_call_their_builders(monkeypatch, tmp_path: Path):
    seen = []

    def record(name: str) -> object:
        def builder(*args: object, **options: object) -> Path:
            seen.append((name, args, options))
            return Path("done")

        return builder

    for name in ("build_ldraw", "build_infinigen", "build_sh3d", "build_rooms", "build_morse"):
        monkeypatch.setattr(f"pointzoo.data.builders.{name}", record(name))
    out = Path("o")
    assert call("corpus", "ldraw", "lib", "-o", out, "--limit", 3).stdout == "done\n"
    call("corpus", "infinigen", "py", "-o", out, "--rounds", 2, "--workers", 3, "--work", "w")
    call("corpus", "sh3d", "a.sh3f", "b.jar", "-o", out)
    call("corpus", "rooms", "a.sh3f", "-o", out, "--train", 2, "--frames", 3)
    call("corpus", "morse", "py", "environments", "-o", out)
    assert seen == [
        ("build_ldraw", (Path("lib"), out), {"limit": 3}),
        ("build_infinigen", (Path("py"), out), {"rounds": 2, "workers": 3, "work": Path("w")}),
        ("build_sh3d", ((Path("a.sh3f"), Path("b.jar")), out), {}),
        (
            "build_rooms",
            ((Path("a.sh3f"),), out),
            {"train": 2, "test": 60, "seed": 0, "frames": 3},
        ),
        ("build_morse", (Path("py"), Path("environments"), out), {}),
    ]


def test_corpus_words_that_fail(tmp_path: Path):
    assert "LDraw" in error("corpus", "ldraw", tmp_path, "-o", tmp_path / "o")
    assert error("corpus", "sh3d", tmp_path, "-o", tmp_path / "o")
    assert error("corpus", "merge", tmp_path, "-o", tmp_path / "o", "--name", "all")
