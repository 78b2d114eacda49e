"""Features of any cloud from any encoder: one row per input point, in input order.

Shape legend: B clouds, N points, C channels of points and tokens, D scene channels, T tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.errors import CloudError, ConfigError, WeightError
from pointzoo.io import from_object, read
from pointzoo.io.chunks import CloudChunks
from pointzoo.io.table import from_table
from pointzoo.tiling import VoxelEncoder, compute_tiles, whole_points

Source: TypeAlias = (
    "str | os.PathLike[str] | PointCloud | NDArray[Any] | Tensor | Mapping[str, Any]"
)
"""One cloud: a file, a :class:`PointCloud`, an array (see :func:`cloud_from_array`), or what
another library holds (see :mod:`pointzoo.io.objects`)."""

Clouds: TypeAlias = "list[Any] | tuple[Any, ...]"
"""Several sources; any other sequence (a string is one) stands for a single cloud."""


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder says about one cloud of N points.

    Attributes:
        point: (N, C) float32, one row per input point in input order.
        scene: (D,) float32, one vector for the whole cloud.
        tokens: (T, C) float32 of the encoder's own units (patches), or None if it has none.
        token_coords: (T, 3) float64, where the tokens are in the frame of the input cloud, metres;
            None if the encoder has no tokens.
    """

    point: FloatArray
    scene: FloatArray
    tokens: FloatArray | None = None
    token_coords: FloatArray | None = None


class Output(Protocol):
    """What an encoder returns; :class:`pointzoo.encoders.base.EncoderOutput` is one."""

    @property
    def scene(self) -> Tensor: ...  # noqa: D102
    @property
    def point(self) -> Tensor | None: ...  # noqa: D102
    @property
    def tokens(self) -> Tensor | None: ...  # noqa: D102
    @property
    def token_coords(self) -> Tensor | None: ...  # noqa: D102
    @property
    def token_offsets(self) -> Tensor | None: ...  # noqa: D102


class Encoder(Protocol):
    """As much of an encoder as :func:`extract` needs.

    ``preprocess`` may move a cloud and scale it by one factor, but not rotate or reorder it.
    """

    training: bool

    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def __call__(self, batch: PointBatch, *, points: bool = True) -> Output: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def modules(self) -> Iterator[nn.Module]: ...  # noqa: D102


@overload
def extract(
    encoder: Encoder, source: Source, *, batch_points: int = ..., progress: bool = ...
) -> Features: ...


@overload
def extract(
    encoder: Encoder, source: Clouds, *, batch_points: int = ..., progress: bool = ...
) -> list[Features]: ...


def extract(
    encoder: Encoder,
    source: Source | Clouds,
    *,
    batch_points: int = 65_536,
    progress: bool = False,
) -> Features | list[Features]:
    """Compute the features of one cloud or of several.

    Runs in evaluation mode without gradients on the device that the encoder is on, and leaves the
    encoder as it was. No random number is drawn. Files are read when their turn comes. An encoder
    with the capability ``tiles`` computes a cloud of more than 500,000 points in tiles
    (:mod:`pointzoo.tiling`); the result is in memory all the same, ``pointzoo features`` streams
    it to a file.

    Args:
        encoder: Any encoder of the zoo, or a module with the same interface.
        source: A path, a :class:`PointCloud`, an (N, 3+) array or tensor (see
            :func:`cloud_from_array`), a cloud or mesh of Open3D, PyVista, trimesh, PyTorch
            Geometric or Pointcept (see :mod:`pointzoo.io.objects`), or a list of these.
        batch_points: Clouds are computed together up to this many points; a larger one alone.
        progress: Show a progress bar on stderr.

    Returns:
        One :class:`Features`, or for a list one per entry, in order.

    Raises:
        CloudError: A cloud is empty, has the wrong shape, or holds NaN or infinite values.
        FormatError: A file cannot be read as a point cloud.
        ConfigError: The list is empty, an entry is no source, or ``batch_points`` is below 1.
        WeightError: The encoder gives NaN or infinite features.
    """
    if batch_points < 1:
        raise ConfigError(
            expected="batch_points of at least 1", got=str(batch_points), fix="Raise it."
        )
    single = not isinstance(source, list | tuple)
    sources = [cast(Source, source)] if single else list(cast(Clouds, source))
    if not sources:
        raise ConfigError(
            expected="at least one cloud",
            got="an empty list",
            fix="Pass a path, a cloud or an array.",
        )
    found: list[Features] = []
    with evaluating(encoder), torch.inference_mode():
        for clouds in _grouped(_track(sources, shown=progress), batch_points):
            if _needs_tiles(encoder, clouds):
                found.append(_extract_tiles(encoder, clouds[0]))
            else:
                found += _extract_batch(encoder, clouds)
    return found[0] if single else found


def as_cloud(source: Source) -> PointCloud:
    """Return the point cloud that a path, a cloud, an array or another library's object stands for.

    Raises:
        CloudError: An array has the wrong shape or values, or an object holds no single cloud.
        ConfigError: ``source`` is something else.
        FormatError: The file cannot be read as a point cloud.
    """
    if isinstance(source, PointCloud):
        return source
    if isinstance(source, str | os.PathLike):
        return read(source)
    if isinstance(source, np.ndarray | Tensor):
        return cloud_from_array(source)
    raw = from_object(source)
    if raw is not None:
        return raw.to_cloud()
    raise ConfigError(
        expected="a path, a PointCloud, an (N, 3+) array, a cloud of another library, or a list",
        got=f"{type(source).__name__}",
        fix="Turn nested lists of numbers into one numpy array per cloud.",
    )


def cloud_from_array(array: NDArray[Any] | Tensor) -> PointCloud:
    """Read the columns of an (N, 3+) array as the same table in a file is read.

    The first three columns are x, y, z in metres. What the others are is told by their number and
    their values, see :mod:`pointzoo.io.table`: colours (0..1 or 0..255), normals, intensity, label;
    columns that fit no rule become the fields ``column_3`` and so on, which no encoder reads.

    Args:
        array: (N, 3+) real numbers of any type, on any device.

    Raises:
        CloudError: The shape or the type is wrong.
    """
    if isinstance(array, Tensor):
        values = array.detach().cpu()
        array = values.double().numpy() if values.is_floating_point() else values.numpy()
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise CloudError(
            expected="an (N, 3+) array of real numbers",
            got=f"shape {tuple(array.shape)} of {array.dtype}",
            fix="Pass one row per point: x, y, z; for several clouds pass a list.",
        )
    return from_table(array).to_cloud()


@contextmanager
def evaluating(encoder: Encoder | nn.Module) -> Iterator[None]:
    """Switch every module to evaluation, and back to what each one was."""
    before = [(module, module.training) for module in encoder.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


def _track(sources: Sequence[Source], *, shown: bool) -> Iterable[Source]:
    if not shown:
        return sources
    from rich.console import Console
    from rich.progress import track

    return track(sources, description="features", console=Console(stderr=True))


def _grouped(sources: Iterable[Source], batch_points: int) -> Iterator[list[PointCloud]]:
    clouds: list[PointCloud] = []
    total = 0
    for source in sources:
        cloud = as_cloud(source).require_usable()
        if clouds and total + len(cloud) > batch_points:
            yield clouds
            clouds, total = [], 0
        clouds.append(cloud)
        total += len(cloud)
    yield clouds


def _needs_tiles(encoder: Encoder, clouds: Sequence[PointCloud]) -> bool:
    limit = whole_points(encoder)
    return limit is not None and len(clouds) == 1 and len(clouds[0]) > limit


def _extract_tiles(encoder: Encoder, cloud: PointCloud) -> Features:
    chunks = CloudChunks(cloud)
    scan = compute_tiles(cast(VoxelEncoder, encoder), chunks)
    point = np.empty((len(cloud), scan.channels), np.float32)
    start = 0
    for chunk in chunks:
        point[start : start + len(chunk)] = scan.rows(chunk.coords)
        start += len(chunk)
    return Features(point, scan.scene)


def _extract_batch(encoder: Encoder, clouds: Sequence[PointCloud]) -> list[Features]:
    coords, channels = zip(*map(encoder.preprocess, clouds), strict=True)
    parameter = next(encoder.parameters(), None)
    batch = PointBatch.collate(coords, channels)
    if parameter is not None:
        batch = batch.to(parameter.device, parameter.dtype)
    output = encoder(batch, points=True)
    assert output.point is not None, "asked for with points=True"
    points = [_array(rows) for rows in batch.split(output.point)]
    tokens, places = _split_tokens(output, len(clouds))
    return [
        Features(
            point=points[b],
            scene=_array(output.scene[b]),
            tokens=tokens[b],
            token_coords=_restore_frame(places[b], clouds[b].coords, _numpy(coords[b])),
        )
        for b in range(len(clouds))
    ]


def _split_tokens(
    output: Output, clouds: int
) -> tuple[list[FloatArray | None], list[FloatArray | None]]:
    if output.tokens is None or output.token_coords is None or output.token_offsets is None:
        return [None] * clouds, [None] * clouds
    counts = torch.diff(output.token_offsets, prepend=output.token_offsets.new_zeros(1)).tolist()
    tokens = [_array(rows) for rows in torch.split(output.tokens, counts)]
    places = [_numpy(rows).astype(np.float64) for rows in torch.split(output.token_coords, counts)]
    return list(tokens), list(places)


def _restore_frame(
    places: FloatArray | None, raw: FloatArray, seen: FloatArray
) -> FloatArray | None:
    """Undo the shift and the scale of preprocessing, both read off the widest axis."""
    if places is None:
        return None
    low, high = seen.min(axis=0).astype(np.float64), seen.max(axis=0).astype(np.float64)
    axis = int(np.argmax(high - low))
    extent = high[axis] - low[axis]
    raw_low, raw_high = raw.min(axis=0), raw.max(axis=0)
    half = raw_high[axis] / 2 - raw_low[axis] / 2  # halves: a sum of huge values could overflow
    scale = half / (extent / 2) if extent > 0 else 1.0
    restored: FloatArray = (raw_low / 2 + raw_high / 2) + (places - (low + high) / 2) * scale
    return restored


def _numpy(values: Tensor) -> FloatArray:
    return values.detach().cpu().float().numpy()


def _array(values: Tensor) -> FloatArray:
    """Copy to float32 memory of its own, so that one cloud does not keep its batch alive."""
    array = _numpy(values).copy()
    if not np.isfinite(array).all():
        raise WeightError(
            expected="finite features",
            got="NaN or infinite values",
            fix="The encoder's weights or its number type cannot deal with this cloud.",
        )
    return array
