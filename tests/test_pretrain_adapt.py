"""``pz.adapt``: pretraining goes on from weights, on a folder or a data set, in one call."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import pointzoo as pz
from pointzoo.data import open_dataset
from pointzoo.errors import ConfigError, UnknownNameError
from pointzoo.pretrain.adapt import adapt
from pointzoo.pretrain.checkpoint import read_facts
from pointzoo.pretrain.loop import CHECKPOINT

MSC = {"log_steps": 1, "max_pairs": 64, "views.radius": 1.0}
DCGLR = {"log_steps": 1, "points": 48, "local_crops": 0, "projector_outputs": 8}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three coloured floors with a wall."""
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for index in range(3):
        coords = rng.uniform((0, 0, 0), (2, 2, 0.05), (800, 3))
        coords[400:, :] = coords[400:, [2, 0, 1]]
        colors = rng.random((800, 3)).astype(np.float32)
        pz.write(folder / f"{index}.ply", pz.PointCloud(coords=coords, colors=colors))
    return folder


def test_scenes_go_on_with_msc(scans: Path, tmp_path: Path) -> None:
    encoder = pz.create_encoder("sparseunet_test", grid_size=0.1)
    before = copy.deepcopy(encoder.state_dict())
    adapted = adapt(encoder, scans, tmp_path / "run", steps=2, **MSC)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    changed = adapted.state_dict()["stem.weight"]
    assert changed.isfinite().all()
    assert not torch.equal(changed, before["stem.weight"])
    stored = pz.load_encoder(tmp_path / "run" / "weights")
    assert torch.equal(stored.state_dict()["stem.weight"], changed)
    assert not adapted.training


def test_a_stopped_run_goes_on(scans: Path, tmp_path: Path) -> None:
    encoder = pz.create_encoder("sparseunet_test", grid_size=0.1)
    whole = adapt(encoder, [scans], tmp_path / "whole", steps=2, **MSC)
    again = adapt(encoder, [scans], tmp_path / "whole", steps=2, resume=True, **MSC)
    assert torch.equal(whole.state_dict()["stem.weight"], again.state_dict()["stem.weight"])
    with pytest.raises(ConfigError, match="resume"):
        adapt(encoder, scans, tmp_path / "whole", steps=2, **MSC)


@pytest.mark.parametrize(("name", "norm"), [("vit3d_test", False), ("dgcnn_test", True)])
def test_objects_go_on_with_dcglr(scans: Path, tmp_path: Path, name: str, norm: bool) -> None:
    folder = tmp_path / f"{name}.random"
    pz.save_encoder(pz.create_encoder(name), folder)
    adapted = adapt(folder, open_dataset(scans), tmp_path / "run", steps=1, **DCGLR)
    assert type(adapted) is type(pz.create_encoder(name))
    assert read_facts(tmp_path / "run" / CHECKPOINT)["config"]["projector_norm"] is norm


def test_what_does_not_fit_is_said_before_training(scans: Path, tmp_path: Path) -> None:
    encoder = pz.create_encoder("vit3d_test")
    with pytest.raises(ConfigError, match="'auto', 'msc' or 'dcglr'"):
        adapt(encoder, scans, tmp_path / "run", trainer="moco")
    with pytest.raises(ConfigError, match="voxels"):
        adapt(encoder, scans, tmp_path / "run", trainer="msc")
    with pytest.raises(UnknownNameError):
        adapt(encoder, scans, tmp_path / "run", learning_speed=1.0)

    class Own(type(encoder)):
        """An architecture that the zoo does not know."""

    own = Own(encoder.config)
    with pytest.raises(ConfigError, match="registered"):
        adapt(own, scans, tmp_path / "run")
    assert not (tmp_path / "run").exists()
