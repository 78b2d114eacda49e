"""What the tests of trainers share: a toy data set and configs for runs of a second or two."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from reference_encoders import Extremes, Pointwise, PointwiseConfig

from pointzoo.data.base import ArrayDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import build
from pointzoo.pretrain.dcglr import DCGLR, DCGLRConfig

CONFIG = DCGLRConfig(
    max_steps=8,
    batch_size=4,
    points=64,
    local_crops=2,
    half_clouds=1,
    projector_outputs=32,
    projector_hidden=32,
    projector_bottleneck=64,
    teacher_temperature=0.1,
    warmup_epochs=1,
    learning_rate=0.05,
    precision="fp32",
    checkpoint_minutes=0.0,
    log_steps=2,
)

ENCODERS = {
    "vit3d_test": lambda: build("vit3d_test"),
    "dgcnn_test": lambda: build("dgcnn_test"),
    "pct_test": lambda: build("pct_test"),
    "sparseunet_test": lambda: build("sparseunet_test", channels=(), normalize="unit_sphere"),
    "pointwise": lambda: Pointwise(PointwiseConfig()).eval(),
    "extremes with normals": lambda: Extremes(PointwiseConfig(channels=("normals",))).eval(),
}


def config(**changes: Any) -> DCGLRConfig:
    """Return the toy config with other values."""
    return dataclasses.replace(CONFIG, **changes)


def make_encoder(name: str = "vit3d_test") -> PointEncoder:
    """Build an encoder from a fixed seed."""
    torch.manual_seed(0)
    return ENCODERS[name]()


def make_objective(name: str = "vit3d_test", **changes: Any) -> DCGLR:
    """Build student and teacher from a fixed seed."""
    encoder = make_encoder(name)
    return DCGLR(encoder, config(**changes))


def toy_data(clouds: int = 12, labels: bool = False) -> ArrayDataset:
    """Return boxes, balls and sticks of many sizes."""
    rng = np.random.default_rng(5)
    shape = (clouds, 80, 3)
    coords = rng.normal(size=shape) * rng.uniform(0.1, 1.0, size=(clouds, 1, 3))
    normals = rng.normal(size=shape)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    return ArrayDataset(
        name="toys",
        coords=coords.astype(np.float32),
        normals=normals.astype(np.float32),
        labels=np.arange(clouds) % 2 if labels else None,
        class_names=("even", "odd") if labels else (),
    )
