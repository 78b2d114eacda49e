"""Does an exported graph do what the encoder does? Ten clouds, through ONNX Runtime.

A network that looks for neighbours among features of its own (DGCNN) has points whose neighbours
are as good as equally far, so that the last bit of a sum decides; they differ between any two
computers. There the encoder is given the neighbours that the graph found, and has to agree
everywhere; and on its own it has to agree on nearly all points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import CHANNEL_FILL, EncoderOutput, PointEncoder
from pointzoo.encoders.dgcnn import DGCNN, FirstGraph
from pointzoo.encoders.sparse_unet import SparseUNet
from pointzoo.errors import ExportError
from pointzoo.onnx_export import sparse_unet
from pointzoo.onnx_export.graph import Array, packages

TOLERANCE = 1e-4
"""Largest difference, in the unit of the features, or of the largest feature if that is below 1."""

LARGEST_TIED = 0.1
"""Share of the points that may differ because neighbours are equally far."""

SIZES = (1, 2, 3, 17, 64, 150, 333, 700, 1100)
"""Points of the clouds; the tenth has more points than the encoder takes without thinning."""

_SPACING = 0.02  # metres between points, for an encoder without a grid


@dataclass(frozen=True)
class Agreement:
    """How far an exported graph is from its encoder.

    Attributes:
        sizes: Points of the clouds.
        difference: The largest, over all point and scene features.
        largest: The largest absolute feature.
        tied: Share of the points that differ because neighbours are equally far.
    """

    sizes: tuple[int, ...]
    difference: float
    largest: float
    tied: float


def onnx_inputs(encoder: PointEncoder, cloud: PointCloud) -> dict[str, Array]:
    """Return what the exported graph of ``encoder`` takes for a cloud.

    Raises:
        CloudError: The cloud is empty or holds NaN or infinite values.
    """
    cloud = cloud.require_usable()
    if isinstance(encoder, SparseUNet):
        batch = PointBatch.collate(*([part] for part in encoder.preprocess(cloud)))
        return sparse_unet.feeds(encoder, batch, encoder.geometry(batch))
    found: dict[str, Array] = {"coords": np.asarray(cloud.coords, np.float64)}
    for name in encoder.config.channels:
        value = getattr(cloud, name)
        fill = np.full((len(cloud), 3), CHANNEL_FILL[name])
        found[name] = np.asarray(fill if value is None else value, np.float32)
    return found


def session(model: bytes, threads: int | None = None) -> Any:
    """Open a model in ONNX Runtime, on the CPU, with as many threads as PyTorch has."""
    _, onnxruntime = packages()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def clouds_for(encoder: PointEncoder) -> list[PointCloud]:
    """Return ten clouds: wavy sheets far from 0, about two points in each voxel."""
    most = getattr(encoder.config, "max_points", None)
    spacing = getattr(encoder.config, "grid_size", _SPACING)
    return [sheet(points, spacing) for points in (*SIZES, 4000 if most is None else most + 100)]


def check(encoder: PointEncoder, model: bytes) -> Agreement:
    """Compare a model with the encoder that it was written from, in evaluation on the CPU.

    Args:
        encoder: In evaluation mode, float32, on the CPU.
        model: The file; outputs beside ``point`` and ``scene`` are neighbours, layer by layer.

    Raises:
        ExportError: A feature differs by more than :data:`TOLERANCE`, or too many points do.
    """
    runner = session(model)
    names = [output.name for output in runner.get_outputs()]
    clouds, difference, largest = clouds_for(encoder), 0.0, 0.0
    apart, tied = [], 0
    for cloud in clouds:
        point, scene, *neighbours = runner.run(names, onnx_inputs(encoder, cloud))
        batch = PointBatch.collate(*([part] for part in encoder.preprocess(cloud)))
        same = _outputs(encoder, batch, neighbours)
        apart += [float(np.abs(a - b).max()) for a, b in zip((point, scene), same, strict=True)]
        largest = max(largest, *(float(np.abs(part).max()) for part in same))
        if neighbours:
            alone, _ = _outputs(encoder, batch, [])
            tied += int((np.abs(alone - point).max(axis=1) > TOLERANCE).sum())
    difference = float(np.max(apart))  # NaN stays NaN
    found = Agreement(tuple(map(len, clouds)), difference, largest, tied / sum(map(len, clouds)))
    if not (difference <= TOLERANCE * min(1.0, largest) and found.tied <= LARGEST_TIED):
        raise ExportError(
            expected=f"features within {TOLERANCE:g} of those of the encoder",
            got=f"up to {difference:.3g} where the largest is {largest:.3g}, "
            f"{100 * found.tied:.1f} % of the points with other neighbours",
            fix="Nothing was written. Report it with the name of the encoder and this message.",
        )
    return found


def _outputs(
    encoder: PointEncoder, batch: PointBatch, neighbours: list[Array]
) -> tuple[Array, Array]:
    """Return point (N, C) and scene (D,) features; neighbours (N', K) of every layer, or none."""
    geometry = encoder.geometry(batch)
    if neighbours and isinstance(encoder, DGCNN):
        first, *later = map(torch.from_numpy, neighbours)
        geometry = FirstGraph(geometry.rows, geometry.offsets, first, tuple(later))
    with torch.inference_mode():
        output: EncoderOutput = encoder(batch, geometry=geometry)
    assert output.point is not None
    return output.point.numpy(), output.scene[0].numpy()


def sheet(points: int, spacing: float) -> PointCloud:
    """Return a wavy sheet far from 0, two points in each square of ``spacing`` metres."""
    rng = np.random.default_rng(points)
    u, v = rng.uniform(0.0, 0.7 * np.sqrt(points), size=(2, points))
    height = 4.0 * np.sin(u / 5.0) + 3.0 * np.cos(v / 4.0) + rng.normal(scale=0.1, size=points)
    normals = rng.normal(size=(points, 3))
    return PointCloud(
        coords=np.stack([u, v, height], axis=1) * spacing + [1000.0, -2000.0, 30.0],
        colors=rng.uniform(size=(points, 3)),
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
    )
