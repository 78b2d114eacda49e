"""The architectures there are, as a literal table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pointzoo.encoders.base import EncoderConfig, PointEncoder
from pointzoo.encoders.dgcnn import DGCNN, DGCNNConfig
from pointzoo.encoders.pct import PCT, PCTConfig
from pointzoo.encoders.sparse_unet import SparseUNet, SparseUNetConfig
from pointzoo.encoders.vit3d import ViT3D, ViT3DConfig
from pointzoo.errors import UnknownNameError


@dataclass(frozen=True)
class Architecture:
    """One architecture that :func:`build` knows.

    Attributes:
        name: What callers pass.
        encoder_class: The encoder, called with the config.
        config: The settings of this size.
        description: One line.
    """

    name: str
    encoder_class: Callable[[Any], PointEncoder]
    config: EncoderConfig
    description: str


_TABLE = (
    Architecture(
        "vit3d_test",
        ViT3D,
        ViT3DConfig(
            dim=32, depth=2, heads=4, patch_points=8, patch_widths=(16, 32), max_points=256
        ),
        "3D-ViT for tests",
    ),
    Architecture(
        "vit3d_tiny",
        ViT3D,
        ViT3DConfig(dim=192, depth=6, heads=6, patch_widths=(64, 128)),
        "3D-ViT, 6 blocks of width 192",
    ),
    Architecture(
        "vit3d_small", ViT3D, ViT3DConfig(), "3D-ViT, 8 blocks of width 512 (the paper's)"
    ),
    Architecture(
        "vit3d_base",
        ViT3D,
        ViT3DConfig(dim=768, depth=12, heads=12, mlp_ratio=4.0, patch_widths=(64, 128, 512)),
        "3D-ViT, 12 blocks of width 768",
    ),
    Architecture(
        "dgcnn_test",
        DGCNN,
        DGCNNConfig(
            widths=(8, 12), depths=(1, 2), neighbors=6, embedding=24, context=True, max_points=256
        ),
        "DGCNN for tests",
    ),
    Architecture(
        "dgcnn_small",
        DGCNN,
        DGCNNConfig(widths=(32, 32, 64, 128), embedding=512),
        "DGCNN, half as wide",
    ),
    Architecture("dgcnn", DGCNN, DGCNNConfig(), "DGCNN for classification (the paper's)"),
    Architecture(
        "dgcnn_semseg",
        DGCNN,
        DGCNNConfig(normalize="center", widths=(64, 64, 64), depths=(2, 2, 1), context=True),
        "DGCNN for segmentation of blocks of 1 m (the paper's)",
    ),
    Architecture(
        "pct_test",
        PCT,
        PCTConfig(
            embedding=12,
            group_widths=(12, 16),
            samples=(24, 12),
            neighbors=6,
            depth=2,
            fused=24,
            max_points=256,
        ),
        "PCT for tests",
    ),
    Architecture(
        "pct_small",
        PCT,
        PCTConfig(
            embedding=32, group_widths=(64, 128), samples=(256, 128), neighbors=16, fused=512
        ),
        "PCT, half as wide, with half as many samples and neighbours",
    ),
    Architecture("pct", PCT, PCTConfig(), "PCT for classification (the paper's)"),
    Architecture(
        "sparseunet_test",
        SparseUNet,
        SparseUNetConfig(
            grid_size=0.2, base_channels=8, stage_channels=(8, 12, 12, 8), layers=(1, 1, 1, 1)
        ),
        "SparseUNet for tests",
    ),
    Architecture(
        "sparseunet14",
        SparseUNet,
        SparseUNetConfig(
            stage_channels=(32, 64, 128, 256, 128, 128, 96, 96), layers=(1, 1, 1, 1, 1, 1, 1, 1)
        ),
        "SparseUNet, one block a stage",
    ),
    Architecture(
        "sparseunet18",
        SparseUNet,
        SparseUNetConfig(
            stage_channels=(32, 64, 128, 256, 128, 128, 96, 96), layers=(2, 2, 2, 2, 2, 2, 2, 2)
        ),
        "SparseUNet, two blocks a stage",
    ),
    Architecture(
        "sparseunet34",
        SparseUNet,
        SparseUNetConfig(),
        "SparseUNet, 23 blocks (Pointcept's SpUNet-v1m1)",
    ),
)


def _unique(table: tuple[Architecture, ...]) -> Mapping[str, Architecture]:
    names = [entry.name for entry in table]
    assert len(set(names)) == len(names), f"duplicate architecture in {names}"
    return MappingProxyType({entry.name: entry for entry in table})


ARCHITECTURES: Mapping[str, Architecture] = _unique(_TABLE)


def build(name: str, **overrides: Any) -> PointEncoder:
    """Build an encoder in evaluation mode, with weights from torch's global generator.

    Args:
        name: A key of :data:`ARCHITECTURES`.
        overrides: Config fields that differ from the architecture's own.

    Raises:
        UnknownNameError: There is no such architecture.
        ConfigError: A field is unknown or its value out of range.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError.of("architecture", name, ARCHITECTURES)
    entry = ARCHITECTURES[name]
    kind = type(entry.config)
    config = kind.from_dict({**entry.config.to_dict(), **kind.completed(overrides)})
    return entry.encoder_class(config).eval()
