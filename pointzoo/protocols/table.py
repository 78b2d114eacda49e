"""The benchmarks of Masked Scene Contrast (MSC) and DCGLR, and the same on open data.

A protocol is a declaration: what is opened, which settings train, what is measured, and the figures
that the papers print. Settings follow the papers where they say them and the authors' code where
they do not (:data:`pointzoo.finetuning.config.PRESETS` names it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pointzoo.errors import UnknownNameError
from pointzoo.protocols import sets
from pointzoo.protocols.sets import Opener

PROBE = "probe"
"""Stands for a linear SVM on frozen scene features, where others name a task of fine-tuning."""

ALL_CLASSES = "miou over all"
"""Mean IoU where a class that does not occur counts as 0, as Pointcept and its tables have it."""


@dataclass(frozen=True)
class Published:
    """A figure of a paper.

    Attributes:
        value: Percent.
        init: What the network started from: ``"scratch"``, or the name of a pretraining.
        variant: Variant of the protocol.
        encoder: The paper's name of the network.
    """

    value: float
    init: str
    variant: str = ""
    encoder: str = "SparseUNet"


@dataclass(frozen=True)
class Protocol:
    """How something is measured.

    Attributes:
        name: For ``pointzoo benchmark``.
        about: What is measured, on what.
        source: Where the figures are printed; empty where no paper has it.
        task: A task of :mod:`pointzoo.finetuning.table`, or :data:`PROBE`.
        metric: Name of the figure.
        open: Gives training and test data.
        encoder: Default encoder, bundled where one suits.
        variants: What is measured one after the other.
        preset: Settings by name, see :data:`pointzoo.finetuning.config.PRESETS`.
        settings: Settings that differ from the preset's.
        views: Test-time views, see :data:`pointzoo.protocols.views.VIEWS`.
        selects: Whether the test part also chooses the best model while training, as Pointcept does
            with ScanNet's validation scenes; else the last step counts.
        paper: What the papers print.
        transfer: Whether the test data comes from another path.
    """

    name: str
    about: str
    source: str
    task: str
    metric: str
    open: Opener
    encoder: str
    variants: tuple[str, ...] = ("",)
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    views: str = "one"
    selects: bool = False
    paper: tuple[Published, ...] = ()
    transfer: bool = False


_SCENES = "sparseunet14.msc_rooms"
_SHAPES = "vit3d_tiny.dcglr_shapes"
_COMPARED = ("scratch", "PointContrast", "CSC", "MSC")
_EFFICIENT = ("scratch", "CSC", "VIBUS", "MSC")
_AREAS = tuple(f"Area {number}" for number in range(1, 6))
_FOLDS = tuple(f"fold {number}" for number in range(1, 6))
_MINUTES: Mapping[str, Any] = {"method": "full", "max_steps": 1000}
_WHOLE: Mapping[str, Any] = {"crop_points": 0}
"""Pointcept crops after it has sampled the grid: the recipe does, not what feeds it."""


def _row(names: tuple[str, ...], values: tuple[float, ...], variant: str = "") -> list[Published]:
    return [Published(v, n, variant) for n, v in zip(names, values, strict=True)]


def _shapes(init: str, variant: str = "", **values: float) -> list[Published]:
    names = {"vit3d": "3D-ViT", "dgcnn": "DGCNN", "pct": "PCT"}
    return [Published(value, init, variant, names[key]) for key, value in values.items()]


_TABLE = (
    Protocol(
        "scannet-semseg", "semantic segmentation, ScanNet val", "MSC, Table 2a",
        "segmentation", ALL_CLASSES, sets.scannet, _SCENES, preset="msc", settings=_WHOLE,
        views="scannet", selects=True, paper=(*_row(_COMPARED, (72.2, 74.1, 73.8, 75.5)),),
    ),
    Protocol(
        "scannet200", "semantic segmentation, ScanNet200 val", "MSC, Table 2a",
        "segmentation", ALL_CLASSES, sets.scannet200, _SCENES, preset="msc", settings=_WHOLE,
        views="scannet", selects=True, paper=(*_row(_COMPARED, (25.0, 26.2, 26.4, 28.8)),),
    ),
    Protocol(
        "scannet-instance", "instance segmentation, ScanNet val", "MSC, Table 2b",
        "instance", "ap50", sets.scannet, _SCENES, preset="pointgroup",
        selects=True, paper=(*_row(_COMPARED, (56.9, 58.0, 59.4, 59.6)),),
    ),
    Protocol(
        "scannet200-instance", "instance segmentation, ScanNet200 val", "MSC, Table 2b",
        "instance", "ap50", sets.scannet200, _SCENES, preset="pointgroup",
        selects=True, paper=(*_row(_COMPARED, (24.5, 24.9, 25.2, 26.8)),),
    ),
    Protocol(
        "scannet-limited-annotation", "few labelled points a scene, ScanNet val", "MSC, Table 2c",
        "segmentation", ALL_CLASSES, sets.scannet, _SCENES,
        variants=("20 points", "50 points", "100 points", "200 points"),
        preset="msc_efficient", settings={**_WHOLE, "augmentation": "few"},
        views="scannet", selects=True,
        paper=(
            *_row(_EFFICIENT, (41.9, 55.5, 61.0, 61.2), "20 points"),
            *_row(_EFFICIENT, (53.9, 60.5, 65.6, 66.8), "50 points"),
            *_row(_EFFICIENT, (62.2, 65.9, 68.9, 69.7), "100 points"),
            *_row(_EFFICIENT, (65.5, 68.2, 69.6, 70.7), "200 points"),
        ),
    ),
    Protocol(
        "scannet-limited-reconstruction", "few labelled scenes, ScanNet val", "MSC, Table 2c",
        "segmentation", ALL_CLASSES, sets.scannet, _SCENES,
        variants=("1 %", "5 %", "10 %", "20 %"),
        preset="msc_efficient", settings=_WHOLE, views="scannet", selects=True,
        paper=(
            *_row(_EFFICIENT, (26.0, 28.9, 28.6, 29.2), "1 %"),
            *_row(_EFFICIENT, (47.8, 49.8, 47.4, 50.7), "5 %"),
            *_row(_EFFICIENT, (56.7, 59.4, 60.5, 61.0), "10 %"),
            *_row(_EFFICIENT, (62.9, 64.6, 64.8, 64.9), "20 %"),
        ),
    ),
    Protocol(
        "s3dis", "segmentation of blocks of 1 m, xyz alone, S3DIS Area 6", "DCGLR, Table 3",
        "segmentation", "miou", sets.s3dis_blocks, "dgcnn_semseg", variants=_AREAS,
        preset="dgcnn",
        settings={"epochs": 100, "crop_points": 0, "augmentation": "none", "label_smoothing": 0.0},
        paper=tuple(
            Published(value, init, area, "DGCNN")
            for area, *values in zip(
                _AREAS, (57.85, 38.86, 49.49, 38.50, 48.63), (59.15, 39.21, 51.88, 39.28, 49.53),
                (60.61, 40.01, 51.98, 39.38, 50.22), strict=True,
            )
            for init, value in zip(("scratch", "STRL", "DCGLR"), values, strict=True)
        ),
    ),
    Protocol(
        "s3dis-area5", "semantic segmentation, S3DIS Area 5", "",
        "segmentation", ALL_CLASSES, sets.s3dis_area5, _SCENES, preset="pointcept_s3dis",
        settings=_WHOLE,
        views="s3dis", selects=True,
    ),
    Protocol(
        "modelnet40-svm", "linear SVM on frozen features, ModelNet40 CAD", "DCGLR, Tables 1 and 4",
        PROBE, "accuracy", sets.parts, _SHAPES, variants=("2048 points", "1024 points"),
        paper=(
            *_shapes("DCGLR", "2048 points", vit3d=91.3, dgcnn=91.0, pct=91.4),
            *_shapes("STRL", "2048 points", dgcnn=90.9, pct=85.3),
            *_shapes("DCGLR", "1024 points", dgcnn=89.9),
            *_shapes("STRL", "1024 points", dgcnn=89.9),
        ),
    ),
    Protocol(
        "modelnet40-finetune", "classification, ModelNet40 in HDF5", "DCGLR, Table 2",
        "classification", "accuracy", sets.parts, _SHAPES, preset="dgcnn",
        paper=(
            *_shapes("scratch", vit3d=91.6, dgcnn=92.2, pct=92.9),
            *_shapes("DCGLR", vit3d=92.2, dgcnn=93.2, pct=93.4),
            *_shapes("STRL", dgcnn=93.1),
        ),
    ),
    Protocol(
        "scanobjectnn-finetune", "classification, ScanObjectNN", "",
        "classification", "accuracy", sets.parts, _SHAPES, preset="dgcnn",
    ),
    Protocol(
        "shapenetpart", "part segmentation, ShapeNetPart", "",
        "part", "instance miou", sets.shapenet_part, _SHAPES, preset="dgcnn",
        settings={"crop_points": 2048, "epochs": 200, "label_smoothing": 0.0},
    ),
    Protocol(
        "rooms-semseg", "semantic segmentation, composed rooms", "",
        "segmentation", "miou", sets.share, _SCENES, variants=("100 %", "20 %", "5 %"),
        settings=_MINUTES,
    ),
    Protocol(
        "rooms-instance", "instance segmentation, composed rooms", "",
        "instance", "ap50", sets.parts, _SCENES, settings=_MINUTES,
    ),
    Protocol(
        "morse-transfer", "trained on composed rooms, tested on MORSE rooms", "",
        "segmentation", "miou", sets.parts, _SCENES, settings=_MINUTES, transfer=True,
    ),
    Protocol(
        "sh3d21-finetune", "classification, SH3D-21", "",
        "classification", "accuracy", sets.fold, _SHAPES, variants=_FOLDS,
        settings={"method": "full", "crop_points": 1024},
    ),
)  # fmt: skip

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({entry.name: entry for entry in _TABLE})


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError.of("benchmark", name, PROTOCOLS)
    return PROTOCOLS[name]
