"""From an encoder to a file that ONNX Runtime runs."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.dgcnn import DGCNN
from pointzoo.encoders.pct import PCT
from pointzoo.encoders.sparse_unet import SparseUNet
from pointzoo.encoders.vit3d import ViT3D
from pointzoo.errors import ConfigError
from pointzoo.io.files import replacing
from pointzoo.onnx_export import dgcnn, pct, sparse_unet, vit3d
from pointzoo.onnx_export.check import Agreement, check
from pointzoo.onnx_export.graph import OPSET, Graph
from pointzoo.weights import architecture_of
from pointzoo.zoo import encoder_info, start_encoder

Exportable: TypeAlias = "str | os.PathLike[str] | PointEncoder"

SUFFIX = ".onnx"

WRITERS: Mapping[type[PointEncoder], Callable[[Graph, Any], None]] = MappingProxyType(
    {
        DGCNN: dgcnn.write,
        PCT: pct.write,
        SparseUNet: sparse_unet.write,
        ViT3D: vit3d.write,
    }
)
"""What can be exported, and what writes it down."""


@dataclass(frozen=True)
class OnnxFile:
    """An exported encoder.

    Attributes:
        path: Where it is.
        size: Bytes.
        metadata: What the file says about itself, by key.
        agreement: How far it is from the encoder.
    """

    path: Path
    size: int
    metadata: Mapping[str, str]
    agreement: Agreement


def export_onnx(source: Exportable, path: str | os.PathLike[str]) -> OnnxFile:
    """Write an encoder as an ONNX file that needs neither pointzoo nor PyTorch.

    The file takes one cloud of any size and gives ``point (N, C)``, one row per input point, and
    ``scene (D,)``. It was compared with the encoder on ten clouds before it appears under its name
    (:data:`pointzoo.onnx_export.check.TOLERANCE`). For 3D-ViT, DGCNN and PCT everything is
    inside: the inputs are ``coords (N, 3)`` in float64, metres, as in the scan, and ``colors``
    (0..1) and ``normals (N, 3)`` in float32 if the encoder reads them. SparseUNet takes voxels and
    kernel maps, see :mod:`pointzoo.onnx_export.sparse_unet`. ``examples/run_onnx.py`` runs both.

    Args:
        source: What :func:`pointzoo.load_encoder` takes; an architecture, which gets random weights
            (seed 0); or an encoder.
        path: Where to; ends in ``.onnx``. An older file of that name is replaced.

    Returns:
        What was written.

    Raises:
        ConfigError: The encoder cannot be exported, or ``path`` not be written.
        UnknownNameError: There is no such encoder.
        MissingExtraError: ``onnx`` or ``onnxruntime`` is not installed.
        ExportError: The file does not do what the encoder does; it was not written.
    """
    target = _writable(Path(path))
    encoder = source if isinstance(source, PointEncoder) else start_encoder(source)
    write = _writer(encoder)
    plain = copy.deepcopy(encoder).cpu().float().eval()
    graph = Graph()
    write(graph, plain)
    metadata = _metadata(source, plain)
    model = graph.model(metadata, _describe(plain), version("pointzoo"))
    agreement = check(plain, graph.with_notes(model).SerializeToString())
    data = model.SerializeToString()
    try:
        with replacing(target) as stream:
            stream.write(data)
    except OSError as error:
        raise _unwritable(target, str(error)) from error
    return OnnxFile(target, len(data), MappingProxyType(metadata), agreement)


def _writable(path: Path) -> Path:
    """Refuse, before anything is computed, a path that cannot be written."""
    if path.suffix != SUFFIX:
        raise ConfigError(
            expected=f"a file name that ends in {SUFFIX}",
            got=str(path),
            fix="Call it for example encoder.onnx.",
        )
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise _unwritable(path, "a folder" if path.is_dir() else "no such folder, or no permission")
    return path


def _unwritable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        expected=f"a folder in which {path} can be written",
        got=reason,
        fix="Make the folder, or choose another.",
    )


def _writer(encoder: PointEncoder) -> Callable[[Graph, Any], None]:
    if type(encoder) not in WRITERS:
        raise ConfigError(
            expected=f"an encoder of {', '.join(sorted(kind.__name__ for kind in WRITERS))}",
            got=type(encoder).__name__,
            fix="No other architecture can be exported.",
        )
    return WRITERS[type(encoder)]


def _metadata(source: Exportable, encoder: PointEncoder) -> dict[str, str]:
    """Return what the file says about itself; what is not known is left out."""
    told: dict[str, str | None] = {"architecture": architecture_of(encoder)}
    if not isinstance(source, PointEncoder):
        info = encoder_info(source)
        told |= {"name": info.name, "sha256": info.sha256}
        if (card := info.card) is not None:
            told["license"] = card.license
            told["code_license"] = card.code_license
            told["data_licenses"] = ", ".join(card.data_licenses)
    contract = [dataclasses.asdict(channel) for channel in encoder.channel_contract]
    told |= {
        "config": json.dumps(encoder.config.to_dict()),
        "channels": json.dumps(contract),
        "preprocessing": "outside" if isinstance(encoder, SparseUNet) else "inside",
        "opset": str(OPSET),
    }
    return {key: value for key, value in told.items() if value}


def _describe(encoder: PointEncoder) -> str:
    if isinstance(encoder, SparseUNet):
        return f"One cloud. Preprocessing is outside. {sparse_unet.__doc__}"
    return (
        "One cloud. Preprocessing is inside: coords (N, 3) are float64, metres, as in the scan; "
        "colors (0..1) and normals, where there are such inputs, are float32 (N, 3). A cloud "
        "without them gets the fill value of the channel contract."
    )
