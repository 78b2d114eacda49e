"""What every encoder is: a frozen config, declared channels, and one forward pass.

Shape legend: B clouds, N points of all clouds, C point channels, D scene channels, T tokens,
M voxels of a level.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from pointzoo import features
from pointzoo.batch import PointBatch
from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.errors import CloudError, ConfigError

if TYPE_CHECKING:
    from pointzoo.sharing import Push

ConfigT = TypeVar("ConfigT", bound="EncoderConfig")

CHANNEL_FILL: Mapping[str, float] = {"colors": 0.5, "normals": 0.0}
"""Optional per-point channels (three values each) and what a cloud without them gets."""

Normalize = Literal["unit_sphere", "center"]
MAX_LAYERS = 1000


@dataclass(frozen=True)
class Channel:
    """One entry of an encoder's channel contract.

    Attributes:
        name: ``coords``, ``colors`` or ``normals``.
        width: Values per point.
        required: Whether a cloud without it is refused.
        fill: What every value is when an optional channel is missing.
    """

    name: str
    width: int
    required: bool
    fill: float | None


@dataclass(frozen=True)
class Capabilities:
    """Differences between encoders that callers may rely on; each is tested both ways.

    Attributes:
        tokens: The output holds tokens with coordinates.
        class_attention: ``encoder.class_attention(batch)`` exists.
        tiles: A scan too large for one pass is computed in tiles; the encoder has what
            :class:`pointzoo.tiling.VoxelEncoder` asks for.
        levels: The output holds voxels of several sizes with their features.
        subsamples: ``config.max_points`` exists: a cloud with more points is subsampled inside,
            and its features are interpolated back to every point.
        reads_coords: x, y, z are among the values that the network reads; otherwise they only
            say where a point lies.
        onnx: :func:`pointzoo.export_onnx` writes it down.
        compiles: Given one cloud and its :meth:`PointEncoder.geometry`, the forward pass is a
            single graph for ``torch.compile(encoder, fullgraph=True)``. Without it
            ``torch.compile`` still gives the right result, from many small graphs.
        exports: So it is for ``torch.export``, for clouds of one size.
    """

    tokens: bool
    class_attention: bool
    tiles: bool = False
    levels: bool = False
    subsamples: bool = False
    reads_coords: bool = True
    onnx: bool = False
    compiles: bool = False
    exports: bool = False


@dataclass(frozen=True)
class EncoderConfig:
    """Settings shared by all encoders; each architecture extends it.

    Attributes:
        channels: Optional channels that the network reads, in this order.
        normalize: ``unit_sphere`` moves the centroid to 0 and scales the farthest point to 1;
            ``center`` only moves the centroid.
    """

    channels: tuple[str, ...] = ()
    normalize: Normalize = "unit_sphere"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A channel or a normalisation is unknown, or there are too many layers.
        """
        self._check_depth()
        unknown = set(self.channels) - set(CHANNEL_FILL)
        if unknown or len(set(self.channels)) != len(self.channels):
            raise ConfigError(
                expected=f"channels out of {sorted(CHANNEL_FILL)}, each once",
                got=repr(self.channels),
                fix="Coordinates are always there and are not listed.",
            )
        if self.normalize not in ("unit_sphere", "center"):
            raise ConfigError(
                expected="normalize 'unit_sphere' or 'center'",
                got=repr(self.normalize),
                fix="Choose one of the two.",
            )

    def _check_depth(self) -> None:
        """Refuse more layers than anybody builds: a config that was tampered with takes for ever.

        Layers are counted by the settings ``depth``, ``depths`` and ``layers``.
        """
        found = [getattr(self, key) for key in ("depth", "depths", "layers") if hasattr(self, key)]
        for value in found:
            counts = value if isinstance(value, tuple) else (value,)
            if sum(counts) > MAX_LAYERS or len(counts) > MAX_LAYERS:
                raise ConfigError(
                    expected=f"at most {MAX_LAYERS} layers", got=str(sum(counts)), fix="Take fewer."
                )

    @property
    def feature_channels(self) -> int:
        """Columns of ``PointBatch.features``: three for each of :attr:`channels`."""
        return 3 * len(self.channels)

    @classmethod
    def completed(cls, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return overrides of an architecture's settings with everything that they imply.

        For encoders that offer a short way to say several settings at once.
        """
        return dict(overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """Build a config from JSON types.

        Raises:
            ConfigError: A key is unknown, or a value is out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                expected=f"keys of {cls.__name__}: {', '.join(sorted(known))}",
                got=f"unknown {', '.join(unknown)}",
                fix="Remove or correct them.",
            )
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True, eq=False)
class Level:
    """The voxels of one size, sorted by cloud, x, y, z.

    Attributes:
        features: (M, C_level) what the encoder says about each voxel.
        coords: (M, 3) their centres, in the frame of the batch.
        grid_coords: (M, 3) int64, their coordinates in voxels of this size.
        offsets: (B,) cumulative voxel counts.
        stride: Edge of a voxel, in voxels of the finest level.
    """

    features: Tensor
    coords: Tensor
    grid_coords: Tensor
    offsets: Tensor
    stride: int


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """What an encoder computes for a batch.

    Attributes:
        scene: (B, D) one vector per cloud.
        point: (N, C) one row per input point in input order, or None where not asked for.
        tokens: (T, C) features of the encoder's own units (patches), or None.
        token_coords: (T, 3) where the tokens are, in the frame of the batch, or None.
        token_offsets: (B,) cumulative token counts, or None.
        levels: Voxels with their features, the finest first; empty where there are none.
    """

    scene: Tensor
    point: Tensor | None = None
    tokens: Tensor | None = None
    token_coords: Tensor | None = None
    token_offsets: Tensor | None = None
    levels: tuple[Level, ...] = ()


class PointEncoder(nn.Module, ABC):
    """Base of every encoder.

    A subclass sets ``config_class``, ``capabilities``, the two channel counts, and implements
    :meth:`forward`. It never looks at another cloud of the batch in evaluation, so that a cloud
    alone gives what it gives in a batch.

    Attributes:
        config: The frozen settings the encoder was built from.
        out_channels: C, width of point features and tokens.
        scene_channels: D, width of the scene feature.
    """

    config_class: ClassVar[type[EncoderConfig]]
    capabilities: ClassVar[Capabilities]

    def __init__(self, config: EncoderConfig, *, out_channels: int, scene_channels: int) -> None:
        """Keep the config and the widths."""
        super().__init__()
        self.config = config
        self.out_channels = out_channels
        self.scene_channels = scene_channels

    @property
    def feature_channels(self) -> int:
        """Columns of ``PointBatch.features`` that the encoder takes."""
        return self.config.feature_channels

    @property
    def in_channels(self) -> int:
        """Values per point that the network reads; x, y, z count where it reads them."""
        return self.feature_channels + (3 if self.capabilities.reads_coords else 0)

    @property
    def channel_contract(self) -> tuple[Channel, ...]:
        """What the encoder reads from a cloud, in order."""
        optional = (Channel(c, 3, False, CHANNEL_FILL[c]) for c in self.config.channels)
        return (Channel("coords", 3, True, None), *optional)

    def geometry(self, batch: PointBatch) -> Any:  # noqa: ARG002  # encoders that share use it
        """Compute what depends on the points but not on the weights (neighbours, samples).

        Two encoders of the same config (a teacher and its student) can share the result by passing
        it to :meth:`forward`. The default is None: nothing worth sharing.
        """
        return None

    @abstractmethod
    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            batch: Preprocessed clouds (see :meth:`preprocess`).
            points: Whether to compute per-point features; training on scene features skips them.
            geometry: The result of :meth:`geometry` for this very batch, if already known.

        Raises:
            CloudError: The batch has another number of channels than the encoder reads.
        """

    def check_channels(self, batch: PointBatch) -> None:
        """Refuse a batch whose channels are not the declared ones, or that is on another device.

        Raises:
            CloudError: The number of channels or the device differs.
        """
        got = batch.features.shape[1]
        if got != self.feature_channels:
            raise CloudError(
                expected=f"{self.feature_channels} channels after x, y, z {self.config.channels}",
                got=str(got),
                fix="Build the batch with encoder.preprocess, or create the encoder with them.",
            )
        parameter = next(self.parameters(), None)
        if parameter is not None and parameter.device != batch.coords.device:
            raise CloudError(
                expected=f"a batch on {parameter.device}, where the encoder is",
                got=f"one on {batch.coords.device}",
                fix="Move one of them with .to(device).",
            )

    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        """Turn a cloud into what the network reads.

        Args:
            cloud: At least one point, finite coordinates.

        Returns:
            Coordinates (N, 3) and channels (N, :attr:`feature_channels`), float32.

        Raises:
            CloudError: The cloud is empty or holds NaN or infinite values in what is read, or the
                encoder reads values that no channel of a cloud stands for.
        """
        cloud.require_usable()
        channels = self.read_channels(cloud)
        coords = normalize_coords(cloud.coords, self.config.normalize)
        return torch.from_numpy(coords), torch.from_numpy(channels)

    def read_channels(self, cloud: PointCloud) -> FloatArray:
        """Return the channels of a cloud, (N, :attr:`feature_channels`) float32; none is missing.

        Raises:
            CloudError: A value is not finite, or the encoder reads values that no channel of a
                cloud stands for.
        """
        self._require_named_channels()
        columns = []
        for name in self.config.channels:
            value: FloatArray | None = getattr(cloud, name)
            if value is None:
                value = np.full((len(cloud), 3), CHANNEL_FILL[name], np.float32)
            columns.append(_require_finite(name, value))
        none = np.zeros((len(cloud), 0), np.float32)
        channels: FloatArray = np.concatenate([none, *columns], axis=1)
        return channels

    def _require_named_channels(self) -> None:
        named = 3 * len(self.config.channels)
        if self.feature_channels != named:
            raise CloudError(
                expected="an encoder whose inputs are channels that a cloud has",
                got=f"one that reads {self.feature_channels} values per point without names",
                fix="Put them into PointBatch.features, or call encoder.forward_voxels.",
            )

    @overload
    def extract(self, source: features.Source, **options: Any) -> features.Features: ...

    @overload
    def extract(
        self, source: Sequence[features.Source], **options: Any
    ) -> list[features.Features]: ...

    def extract(self, source: Any, **options: Any) -> Any:
        """Compute features of one cloud or several; see :func:`pointzoo.features.extract`."""
        return features.extract(self, source, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> Push:
        """Put the encoder on the Hub; see :func:`pointzoo.sharing.push_encoder`.

        Args:
            repo_id: ``owner/name``.
            options: ``card`` and the others of :func:`pointzoo.sharing.push_encoder`.
        """
        from pointzoo.sharing import push_encoder

        return push_encoder(self, repo_id, **options)


def normalize_coords(coords: FloatArray, normalize: Normalize) -> FloatArray:
    """Centre (and scale) coordinates in float64, then convert to float32.

    The centroid is summed exactly (``math.fsum``), so that the result does not depend on the order
    of the points.

    Args:
        coords: (N, 3) finite values of any size.
        normalize: See :class:`EncoderConfig`.

    Returns:
        (N, 3) float32.

    Raises:
        CloudError: The centred coordinates are too large for float32.
    """
    reach = float(np.abs(coords).max()) or 1.0
    scaled = coords / reach  # sums and squares cannot overflow from here on
    scaled = scaled - scaled.min(axis=0)  # exactly 0 where all points agree: no rounding to blow up
    centroid = np.array([math.fsum(column) / len(coords) for column in scaled.T])
    centred = scaled - centroid
    largest = float(np.abs(centred).max())
    if normalize == "center":
        if largest > float(np.finfo(np.float32).max) / reach:
            raise CloudError(
                expected="a cloud that fits into float32 once it is centred",
                got=f"coordinates up to {reach:g}",
                fix="Remove the outliers, or use an encoder that scales to the unit sphere.",
            )
        moved: FloatArray = (centred * reach).astype(np.float32)
        return moved
    if largest == 0.0:
        return np.zeros_like(centred, dtype=np.float32)
    centred = centred / largest
    unit: FloatArray = (centred / np.linalg.norm(centred, axis=1).max()).astype(np.float32)
    return unit


def _require_finite(name: str, value: FloatArray) -> FloatArray:
    if not np.isfinite(value).all():
        raise CloudError(
            expected=f"finite {name}",
            got=f"{int((~np.isfinite(value)).any(axis=1).sum())} points without them",
            fix=f"Mend them, or drop the channel with cloud.replace({name}=None).",
        )
    return value
