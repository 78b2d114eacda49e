"""The papers' benchmarks on tiny files in the real layouts, which the tests write."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pointzoo import zoo
from pointzoo.cli import main
from pointzoo.cloud import PointCloud
from pointzoo.data import open_dataset
from pointzoo.data.rooms import Room, RoomRecord, RoomsHeader, write_rooms
from pointzoo.errors import ConfigError, FormatError, MissingExtraError, UnknownNameError
from pointzoo.protocols import PROTOCOLS, get_protocol, run_benchmark, sets, summarise, tables
from pointzoo.protocols.views import VIEWS, View, evaluate_views, fragments, sum_probabilities

FEW = {
    "max_steps": 1, "batch_size": 2, "statistics": 1, "checkpoint_minutes": 100, "crop_points": 64,
}  # fmt: skip


OBJECTS = {"min_points": 3, "min_region": 5, "radius": 0.8}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def points(count: int = 150, seed: int = 0, side: float = 2.0) -> dict[str, np.ndarray]:
    """Points in a box, labelled by their octant, each of which is one object."""
    random = rng(seed)
    coords = random.uniform(0.0, side, (count, 3))
    octant = (coords > side / 2) @ np.array([4, 2, 1])
    normals = random.normal(size=(count, 3)).astype(np.float32)
    return {
        "coord": coords.astype(np.float32),
        "color": random.integers(0, 256, (count, 3)).astype(np.uint8),
        "normal": normals / np.linalg.norm(normals, axis=1, keepdims=True),
        "labels": octant,
    }


def put_scene(folder: Path, seed: int, **names: str) -> None:
    """Write a scene as Pointcept does; ``names`` maps files to arrays of :func:`points`."""
    folder.mkdir(parents=True)
    arrays = points(seed=seed)
    labels = arrays.pop("labels")
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    for name in names:
        np.save(folder / f"{name}.npy", labels.astype(np.int16))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing a confusion matrix takes longer than all the rest of a tiny run."""

    def missing(*_: object) -> None:
        raise MissingExtraError("matplotlib", "viz")

    monkeypatch.setattr("pointzoo.finetuning.report.confusion_figure", missing)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Small encoders saved as weight folders: what ``--encoder`` names."""
    root = tmp_path_factory.mktemp("weights")
    found = {}
    for name in ("sparseunet_test", "vit3d_test"):
        zoo.save_encoder(zoo.create_encoder(name), root / name)
        found[name] = str(root / name)
    return found


@pytest.fixture
def scannet(tmp_path) -> Path:
    root = tmp_path / "scannet"
    labels = dict.fromkeys(("segment20", "segment200", "instance"), "labels")
    for i, name in enumerate(("train/scene0000_00", "train/scene0001_00", "val/scene0011_00")):
        put_scene(root / name, i, **labels)
    lists = root / "tasks"
    (lists / "points").mkdir(parents=True)
    (lists / "scenes").mkdir()
    chosen = {f"scene000{i}_00": np.arange(20) * 3 for i in range(2)}
    torch.save(chosen, lists / "points" / "points20")
    np.savez(lists / "points" / "points50.npz", **chosen)
    plain = {name: rows.tolist() for name, rows in chosen.items()}
    (lists / "points" / "points100.json").write_text(json.dumps(plain))
    tensors = {name: torch.from_numpy(rows) for name, rows in chosen.items()}
    torch.save(tensors, lists / "points" / "points200")
    for share in (1, 5, 10, 20):
        (lists / "scenes" / f"{share}.txt").write_text("scene0001_00\n")
    return root


def run(name, data, encoder, **options):
    settings = {**FEW, **(OBJECTS if name.endswith("instance") else {})}
    return run_benchmark(name, data, encoder=encoder, settings=settings, **options)


def figures(result) -> list[float]:
    return [cell["score"]["values"][result["metric"]] for cell in result["cells"]]


# each protocol ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("scannet-semseg", "scannet200", "scannet-instance", "scannet200-instance"),
        *("scannet-limited-annotation", "scannet-limited-reconstruction"),
    ],
)
def test_scannet(scannet, weights, name):
    variants = get_protocol(name).variants[:1]
    inits = None if name == "scannet-semseg" else ["pretrained"]
    result = run(name, scannet, weights["sparseunet_test"], variants=variants, inits=inits)
    found = [cell["init"] for cell in result["cells"]]
    assert found == (inits or ["scratch", "pretrained"])
    assert all(0.0 <= figure <= 1.0 for figure in figures(result))
    assert len(result["cells"][0]["score"]["class_names"]) in (20, 200)
    assert result["cells"][0]["encoder"] == "sparseunet_test"
    values = result["cells"][0]["score"]["values"]
    if "miou" in values:  # 8 of the classes occur
        classes = len(result["cells"][0]["score"]["class_names"])
        assert values["miou over all"] == pytest.approx(values["miou"] * 8 / classes)


def put_s3dis(root: Path) -> Path:
    for area in range(1, 7):
        put_scene(root / f"Area_{area}" / "office_1", area, segment="labels")
    return root


def test_s3dis_area5(tmp_path, weights):
    result = run("s3dis-area5", put_s3dis(tmp_path), weights["sparseunet_test"], inits=["scratch"])
    assert len(figures(result)) == 1


def test_s3dis_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "_FEWEST", 10)
    monkeypatch.setattr(sets.cut_blocks, "__kwdefaults__", {"edge": 1.0, "points": 64})
    root = put_s3dis(tmp_path)
    result = run("s3dis", root, "dgcnn_test", variants=["Area 2", "Area 5"])
    assert [cell["init"] for cell in result["cells"]] == ["scratch"] * 2
    train, test = sets.s3dis_blocks(root, "Area 2", 0)
    assert len(train) == 4  # 2 m by 2 m
    assert train.names[0].startswith("Area_2/office_1/")
    block = train[0]
    assert block.coords.shape == (64, 3)
    assert np.abs(block.coords[:, :2]).max() <= 0.5 + 1e-6
    assert block.colors is None
    assert (test.labels, test.name) == (None, root.name)
    monkeypatch.setattr(sets, "_FEWEST", 1000)
    with pytest.raises(ConfigError, match="blocks"):
        sets.s3dis_blocks(root, "Area 2", 0)
    with pytest.raises(ConfigError, match="Area_7"):
        sets.s3dis_blocks(root, "Area 7", 0)


def put_modelnet_text(root: Path) -> Path:
    root.mkdir()
    classes = ("airplane", "chair")
    (root / "modelnet40_shape_names.txt").write_text("\n".join(classes))
    for part, count in (("train", 6), ("test", 2)):
        names = [f"{cls}_{part[0]}{i:03d}" for cls in classes for i in range(count)]
        (root / f"modelnet40_{part}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            folder = root / name.rpartition("_")[0]
            folder.mkdir(exist_ok=True)
            found = points(64, i, side=1.0)
            rows = np.hstack([found["coord"], found["normal"]])
            np.savetxt(folder / f"{name}.txt", rows, delimiter=",")
    return root


def test_modelnet40_svm(tmp_path, weights):
    root = put_modelnet_text(tmp_path / "modelnet40_normal_resampled")
    options = {"seeds": (0, 1), "variants": ["1024 points"]}
    result = run("modelnet40-svm", root, weights["vit3d_test"], **options)
    assert len(result["cells"]) == 2 * 2
    assert {cell["method"] for cell in result["cells"]} == {"svm"}
    assert "accuracy of all features" in result["cells"][0]["score"]["values"]
    assert [row["seeds"] for row in summarise(result)] == [2] * 2
    other = run("modelnet40-svm", root, "dgcnn_test", variants=["1024 points"])
    assert list(other["cells"][0]["score"]["values"]) == ["accuracy", "class accuracy"]


def put_hdf5(path: Path, count: int) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.stack([points(64, i, 1.0)["coord"] for i in range(count)])
        file["label"] = np.arange(count)[:, None] % 2


def test_modelnet40_finetune(tmp_path, weights):
    (tmp_path / "shape_names.txt").write_text("airplane\nchair\n")
    for part, count in (("train", 6), ("test", 4)):
        (tmp_path / f"{part}_files.txt").write_text(f"data/modelnet/{part}0.h5\n")
        put_hdf5(tmp_path / f"{part}0.h5", count)
    result = run("modelnet40-finetune", tmp_path, weights["vit3d_test"])
    assert len(figures(result)) == 2
    assert result["cells"][0]["settings"]["validation_share"] == 0.0


def test_scanobjectnn(tmp_path, weights):
    for stem in ("training", "test"):
        put_hdf5(tmp_path / f"{stem}_objectdataset.h5", 4)
    result = run("scanobjectnn-finetune", tmp_path, weights["vit3d_test"], inits=["pretrained"])
    assert figures(result)[0] <= 1.0


def put_shapenet_part(root: Path) -> Path:
    (root / "train_test_split").mkdir(parents=True)
    (root / "synsetoffset2category.txt").write_text("Airplane\t02691156\nBag\t02773838\n")
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        names = [f"{s}/{part}{i}" for s in ("02691156", "02773838") for i in range(count)]
        listed = root / "train_test_split" / f"shuffled_{part}_file_list.json"
        listed.write_text(json.dumps([f"shape_data/{name}" for name in names]))
        for i, name in enumerate(names):
            (root / name).parent.mkdir(exist_ok=True)
            found = points(64, i, side=1.0)
            labels = found["labels"][:, None] % 2 + 2 * ("02773838" in name)
            rows = np.hstack([found["coord"], found["normal"], labels])
            np.savetxt(root / f"{name}.txt", rows, fmt="%.6f")
    return root


def test_shapenetpart(tmp_path, weights):
    root = put_shapenet_part(tmp_path / "parts")
    result = run("shapenetpart", root, weights["vit3d_test"], inits=["pretrained"])
    assert len(figures(result)) == 1
    train, test = sets.shapenet_part(root, "", 0)
    assert (len(train), len(test)) == (8, 4)
    assert train.class_names == ("Airplane", "Bag")
    assert set(train[len(train) - 1].labels.tolist()) == {2, 3}
    (root / "train_test_split" / "shuffled_test_file_list.json").write_text('["shape_data/x/y"]')
    with pytest.raises(FormatError, match="synset"):
        sets.shapenet_part(root, "", 0)


def put_rooms(out: Path, train: int = 3, test: int = 1) -> Path:
    rooms = []
    for i, split in enumerate(["train"] * train + ["test"] * test):
        found = points(seed=i)
        rooms.append(
            Room(
                RoomRecord(f"{split}_{i}", split, "kitchen", ()),
                *(found[key] for key in ("coord", "color", "normal", "labels", "labels")),
            )
        )
    return write_rooms(out, RoomsHeader("toy", "Toys.", "none", "CC0-1.0", True), rooms, ())


def test_rooms(tmp_path, weights):
    root, other = put_rooms(tmp_path / "rooms"), put_rooms(tmp_path / "morse", 0, 2)
    encoder = weights["sparseunet_test"]
    result = run("rooms-semseg", root, encoder, inits=["scratch"], variants=["5 %"])
    assert len(result["cells"]) == 1
    result = run("rooms-instance", root, encoder, inits=["scratch"])
    assert result["metric"] == "ap50"
    result = run("morse-transfer", root, encoder, test=other, inits=["pretrained"], limit=1)
    assert result["cells"][0]["settings"]["test clouds"] == 1
    assert 0.0 <= figures(result)[0] <= 1.0
    with pytest.raises(ConfigError, match="test data"):
        run("morse-transfer", root, encoder)
    small, _ = sets.share(root, "20 %", 0)
    large, _ = sets.share(root, "100 %", 0)
    assert (len(small), len(large)) == (1, 3)
    assert set(small.names) <= set(large.names)


def test_sh3d21(tmp_path, weights):
    root = tmp_path / "sh3d21"
    for label in ("chair", "table"):
        (root / label).mkdir(parents=True)
        for i in range(5):
            np.save(root / label / f"{i}.npy", points(64, i)["coord"])
    options = {"inits": ["scratch"], "seeds": (0, 1), "variants": ["fold 1", "fold 4"]}
    result = run("sh3d21-finetune", root, weights["vit3d_test"], **options)
    assert len(result["cells"]) == 4
    rows = summarise(result)
    assert [(row["variant"], row["seeds"]) for row in rows] == [("5 folds", 2)]
    assert rows[0]["spread"] is not None
    tested = [sets.fold(root, f"fold {i}", 0)[1].names for i in range(1, 6)]
    assert sorted(sum(tested, ())) == sorted(open_dataset(root).names)


# lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [20, 50, 100, 200])
def test_lists_of_points_of_any_kind(scannet, count):
    train, _ = sets.scannet(scannet, f"{count} points", 0)
    labels = train[1].labels
    assert (len(train), train.name, train.labels) == (2, "scannet", None)
    assert np.flatnonzero(labels >= 0).tolist() == (np.arange(20) * 3).tolist()


def test_lists_that_do_not_fit_are_refused(scannet):
    lists = scannet / "tasks" / "points"
    with pytest.raises(FileNotFoundError, match="points7"):
        sets.scannet(scannet, "7 points", 0)
    for rows in ({"scene0000_00": [1]}, {f"scene000{i}_00": [999] for i in range(2)}):
        (lists / "points7.json").write_text(json.dumps(rows))
        with pytest.raises(FormatError, match="scene0001_00"):
            sets.scannet(scannet, "7 points", 0)[0][1]
    (lists / "points7.json").write_text('{"a": ["b"]}')
    with pytest.raises(FormatError, match="points7"):
        sets.scannet(scannet, "7 points", 0)
    (scannet / "tasks" / "scenes" / "5.txt").write_text("scene9999_00")
    with pytest.raises(FormatError, match="scene9999_00"):
        sets.scannet(scannet, "5 %", 0)


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_nothing_in_a_list_is_run(scannet, capsys):
    torch.save({"scene0000_00": Bomb()}, scannet / "tasks" / "points" / "points9")
    with pytest.raises(FormatError, match="points9"):
        sets.scannet(scannet, "9 points", 0)
    assert "boom" not in capsys.readouterr().out


# views --------------------------------------------------------------------------------------------


def test_fragments_show_every_point_and_one_per_voxel():
    coords = rng().uniform(-3.0, 3.0, (500, 3))
    parts = list(fragments(coords, 0.7))
    cells = np.floor((coords - coords.min(axis=0)) / 0.7).astype(int)
    occupied = len(np.unique(cells, axis=0))
    assert len(parts) == np.unique(cells, axis=0, return_counts=True)[1].max()
    for rows in parts:
        assert len(np.unique(cells[rows], axis=0)) == len(rows) == occupied
    assert set(np.concatenate(parts).tolist()) == set(range(500))
    assert [len(rows) for rows in fragments(coords, None)] == [500]


def test_views_are_pointcepts():
    assert len(VIEWS["scannet"]) == 13
    assert len(VIEWS["s3dis"]) == 10
    normals = np.tile(np.float32([1, 0, 0]), (2, 1))
    cloud = PointCloud(coords=[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], normals=normals)
    both = View(mirror=True).of(cloud)
    np.testing.assert_allclose(both.coords[0], [-1, -2, 3])
    np.testing.assert_allclose(both.normals[0], [-1, 0, 0], atol=1e-6)
    quarter = View(turn=math.pi / 2, scale=0.95).of(cloud)
    np.testing.assert_allclose(quarter.coords[0], [-1.9, 0.95, 2.85])
    assert View().of(cloud).coords.tolist() == cloud.coords.tolist()


def test_many_views_are_summed_over_all_points(scannet):
    from pointzoo.finetuning.api import finetune

    train, test = sets.scannet(scannet, "", 0)
    encoder = zoo.create_encoder("sparseunet_test")
    model = finetune(encoder, train, method="full", validation_share=0.0, **FEW)
    total = sum_probabilities(model, test[0], VIEWS["s3dis"])
    times = total.sum(axis=1)
    np.testing.assert_allclose(times, np.round(times), atol=1e-3)
    assert times.min() >= 10
    score = evaluate_views(model, test, "s3dis")
    assert sum(map(sum, score.confusion)) == len(test[0])
    assert evaluate_views(model, test, "one").values.keys() == score.values.keys()
    with pytest.raises(UnknownNameError, match="scannet"):
        evaluate_views(model, test, "scanet")


# the runner ---------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on(scannet, weights, tmp_path):
    out = tmp_path / "out.json"
    options = {"views": "one", "inits": ["scratch"], "out": out}
    first = run("scannet-semseg", scannet, weights["sparseunet_test"], seeds=(0,), **options)
    cells = []
    second = run(
        "scannet-semseg", scannet, weights["sparseunet_test"], seeds=(0, 1),
        after_cell=cells.append, **options,
    )  # fmt: skip
    assert [cell["seed"] for cell in cells] == [1]
    assert second["cells"][0] == first["cells"][0]
    assert json.loads(out.read_text())["cells"] == second["cells"]
    linear = run("scannet-semseg", scannet, weights["sparseunet_test"], method="linear", **options)
    assert [cell["method"] for cell in linear["cells"]] == ["full", "full", "linear"]
    commands = linear["commands"]
    assert len(commands) == 3
    assert str(tmp_path) not in "".join(commands)
    assert commands[0].startswith("pointzoo benchmark scannet-semseg --data scannet --encoder")
    assert "--method linear --set max_steps=1" in commands[2]
    for text in ('{"protocol": "s3dis"}', "[]", "{"):
        out.write_text(text)
        with pytest.raises(FormatError, match=r"out\.json"):
            run("scannet-semseg", scannet, "sparseunet_test", out=out)


def test_what_does_not_exist_is_refused(scannet):
    with pytest.raises(UnknownNameError, match="scannet-semseg"):
        run_benchmark("scannet-segsem", scannet)
    wrong = ({"variants": ["2 %"]}, {"inits": ["msc"]}, {"seeds": ()}, {"inits": ["pretrained"]})
    for options in wrong:
        with pytest.raises(ConfigError):
            run("scannet-semseg", scannet, "sparseunet_test", **options)


def test_every_protocol_is_declared_soundly():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.encoder in zoo.list_encoders()
        assert {p.variant for p in protocol.paper} <= set(protocol.variants)
        assert (protocol.paper == ()) == (protocol.source == "")
    semseg = {p.init: p.value for p in get_protocol("scannet-semseg").paper}
    assert semseg == {"scratch": 72.2, "PointContrast": 74.1, "CSC": 73.8, "MSC": 75.5}
    few = [p.value for p in get_protocol("scannet-limited-annotation").paper if p.init == "MSC"]
    assert few == [61.2, 66.8, 69.7, 70.7]


# the command --------------------------------------------------------------------------------------


def test_the_command(scannet, weights, tmp_path):
    out = tmp_path / "out.json"
    words = [
        *("benchmark", "scannet-semseg", "--data", str(scannet), "--views", "one"),
        *("--encoder", weights["sparseunet_test"], "--steps", "1", "--seeds", "0", "-o", str(out)),
        *("--set", "statistics=1", "--set", "batch_size=2", "--set", "crop_points=64"),
    ]
    result = CliRunner().invoke(main, [*words, "--init", "scratch", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "scannet-semseg scratch full seed 0: miou over all" in result.stderr
    assert "scratch 72.2, PointContrast 74.1, CSC 73.8, MSC 75.5" in result.stdout
    assert json.loads(out.read_text())["protocol"] == "scannet-semseg"
    assert CliRunner().invoke(main, words[:2]).exit_code == 2
    assert CliRunner().invoke(main, [*words, "--seeds", "a"]).exit_code == 2


def test_the_list():
    result = CliRunner().invoke(main, ["benchmark", "list"])
    assert result.exit_code == 0, result.output
    for name in PROTOCOLS:
        assert name in result.stdout
    assert "MSC 75.5" in result.stdout
    assert "DCGLR 3D-ViT 91.3" in result.stdout
    assert tables.mean_and_spread({"mean": 1.0, "spread": 0.25}) == "1.0 ± 0.2"
