"""Encoders that break one promise each: the check meant for it must catch it.

Each victim is a small class on a healthy encoder, and an entry of :data:`VICTIMS`.
"""

from __future__ import annotations

import dataclasses
import socket
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from reference_encoders import Extremes, Pointwise, PointwiseConfig
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import (
    Capabilities,
    EncoderConfig,
    EncoderOutput,
    Level,
    PointEncoder,
    normalize_coords,
)

DEFAULT = PointwiseConfig()

# How it is built


class Chatty(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        print("built")  # noqa: T201


class Grumbles(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        warnings.warn("slow path", stacklevel=2)
        return super().rows(batch)


class NeedsOptionalPackage(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        import trimesh  # noqa: F401


class PhonesHome(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=0.01)
        except OSError:
            self.online = False


def left_in_training() -> PointEncoder:
    return Pointwise(PointwiseConfig()).train()


def half_precision() -> PointEncoder:
    return Pointwise(PointwiseConfig()).half().eval()


def not_an_encoder() -> Any:
    return nn.Linear(3, 3).eval()


class SharedModule(Pointwise):
    shared: ClassVar[nn.Linear] = nn.Linear(16, 16)

    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.scene_head = SharedModule.shared


class OwnSeed(Pointwise):
    generator = np.random.default_rng(0)

    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            self.scene_head.bias += float(self.generator.normal())


class GrowingWidth(Pointwise):
    built: ClassVar[list[int]] = [8]

    def __init__(self, config: PointwiseConfig) -> None:
        self.built.append(self.built[-1] + 1)
        super().__init__(dataclasses.replace(config, max_points=self.built[-1]))


@dataclass(frozen=True)
class ForgetfulConfig(PointwiseConfig):
    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "width": 16}


@dataclass(frozen=True)
class LenientConfig(PointwiseConfig):
    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LenientConfig:
        known = {f.name for f in dataclasses.fields(cls)}
        return super().from_dict({k: v for k, v in values.items() if k in known})


class ThawedConfig(PointwiseConfig):
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class UnlimitedConfig(EncoderConfig):
    pass


# What it returns


class WrongChannels(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.out_channels += 1


class DropsSinglePoints(Pointwise):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        keep = batch.counts > 1
        point = None if output.point is None else output.point[keep[batch.batch_index]]
        return EncoderOutput(output.scene[keep], point)


class NoPoints(Pointwise):
    def forward(self, batch: PointBatch, **_: Any) -> EncoderOutput:
        return super().forward(batch, points=False)


class SingleOnly(Pointwise):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        return EncoderOutput(output.scene.float(), output.point)


class DividesBySpread(Pointwise):
    def pool(self, rows: Tensor, batch: PointBatch) -> Tensor:
        spread = [g.std(dim=0, correction=0).mean() for g in batch.split(rows)]
        return super().pool(rows, batch) / torch.stack(spread)[:, None]


class JittersDuplicates(Pointwise):
    """Breaks ties of equal points by their number."""

    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        tied = len(batch.coords.unique(dim=0)) < len(rows)
        return rows + torch.arange(len(rows))[:, None] * 0.01 * tied


class PointsAlways(Pointwise):
    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        return super().forward(batch)


class OtherScene(Pointwise):
    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        output = super().forward(batch, points=points)
        return output if points else EncoderOutput(output.scene * 1.01)


# What depends on what


class BatchStatistics(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.embed[1] = nn.BatchNorm1d(config.width, track_running_stats=False)


class PatchFromSmallest(Extremes):
    """K is the size of the smallest cloud, where that is below 4."""

    def geometry(self, batch: PointBatch) -> Tensor:
        return super().geometry(batch)[:, : int(batch.counts.min())]


class CentresOverBatch(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        moved = batch.coords - batch.coords.mean(dim=0)
        return super().rows(PointBatch(moved, batch.features, batch.offsets))


class PaddedMean(Pointwise):
    """Averages over padding: right only in batches of equal sizes."""

    def pool(self, rows: Tensor, batch: PointBatch) -> Tensor:
        padded = nn.utils.rnn.pad_sequence(list(batch.split(rows)), batch_first=True)
        return torch.cat([padded.mean(dim=1), padded.amax(dim=1)], dim=1)


class FirstPointIsCentre(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        first = torch.cat([batch.offsets.new_zeros(1), batch.offsets[:-1]])[batch.batch_index]
        moved = batch.coords - batch.coords[first]
        return super().rows(PointBatch(moved, batch.features, batch.offsets))


class RandomOrder(Extremes):
    def geometry(self, batch: PointBatch) -> Tensor:
        members = super().geometry(batch)
        members[:, 1:] = members[:, 1 + torch.randperm(members.shape[1] - 1)]
        return torch.where(torch.rand(members.shape) < 0.5, members, members[:, :1])


class OwnGenerator(Pointwise):
    """Is random without touching the global generator."""

    generator = torch.Generator().manual_seed(0)

    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        return rows + 0.01 * torch.randn(rows.shape, generator=self.generator).to(rows)


class DrawsForNothing(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().rows(batch)


class MutatesInput(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        batch.coords.mul_(0.5)
        return rows


class CountsCalls(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.register_buffer("calls", torch.zeros(1))

    def rows(self, batch: PointBatch) -> Tensor:
        self.calls += 1
        return super().rows(batch)


class GoesIntoTraining(Pointwise):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        self.train()
        return output


class OtherGeometryInside(Extremes):
    """Finds more neighbours in geometry() than forward does by itself."""

    def forward(self, batch: PointBatch, *, geometry: Any = None, **options: Any) -> EncoderOutput:
        inside = self.geometry(batch)[:, :3] if geometry is None else geometry
        return super().forward(batch, geometry=inside, **options)


class GeometryOfWeights(Pointwise):
    """Puts features into the geometry, where a twin with other weights finds them."""

    def geometry(self, batch: PointBatch) -> Tensor:
        return self.rows(batch).detach()

    def forward(
        self, batch: PointBatch, *, points: bool = True, geometry: Any = None
    ) -> EncoderOutput:
        rows = self.geometry(batch) if geometry is None else geometry
        scene = self.scene_head(self.pool(rows, batch))
        point = torch.cat([rows, scene[batch.batch_index]], dim=1)
        return EncoderOutput(scene, self.point_head(point) if points else None)


class Truncates(Pointwise):
    """Forgets the points beyond max_points."""

    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        limit = self.config.max_points
        coords = [c[:limit] for c in batch.split(batch.coords)]
        features = [f[:limit] for f in batch.split(batch.features)]
        return super().forward(PointBatch.collate(coords, features), **options)


class LimitsBatch(Pointwise):
    """Halves everything as soon as the whole batch exceeds max_points."""

    def rows(self, batch: PointBatch) -> Tensor:
        large = len(batch.coords) > self.config.max_points
        return super().rows(batch) * (0.5 if large else 1.0)


# What it reads and refuses


class KeepsPosition(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        _, features = super().preprocess(cloud)
        return torch.from_numpy(cloud.coords.astype(np.float32)), features


class AlwaysUnitSphere(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        _, features = super().preprocess(cloud)
        return torch.from_numpy(normalize_coords(cloud.coords, "unit_sphere")), features


class DeafToChannels(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        silent = PointBatch(batch.coords, batch.features * 0.0, batch.offsets)
        return super().rows(silent)


class FillsWithOne(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        if cloud.colors is None:
            cloud = cloud.replace(colors=np.ones((len(cloud), 3)))
        return super().preprocess(cloud)


class ReadsMore(Pointwise):
    """Looks at colours that are not declared."""

    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        coords, features = super().preprocess(cloud)
        return coords * (0.5 if cloud.colors is None else 1.0), features


class OtherContract(Pointwise):
    @property
    def in_channels(self) -> int:
        return super().in_channels + 1

    def rows(self, batch: PointBatch) -> Tensor:
        return self.embed(nn.functional.pad(torch.cat([batch.coords, batch.features], 1), (0, 1)))

    def check_channels(self, batch: PointBatch) -> None:
        """Accept whatever comes."""


class SortsPoints(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        return super().preprocess(cloud.select(np.argsort(cloud.coords[:, 0])))


class ForgetsItsMode(Pointwise):
    def extract(self, source: Any, **options: Any) -> Any:
        self.eval()
        return super().extract(source, **options)


class ModeOfItsOwn(Pointwise):
    """Keeps a flag beside the modules' own mode."""

    fitting = False

    def train(self, mode: bool = True) -> ModeOfItsOwn:
        self.fitting = mode
        return super().train(mode)

    def rows(self, batch: PointBatch) -> Tensor:
        return super().rows(batch) * (2.0 if self.fitting else 1.0)


class AcceptsAnything(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        coords = np.nan_to_num(cloud.coords, posinf=0.0, neginf=0.0)
        return super().preprocess(cloud.replace(coords=coords))


class AcceptsBadChannels(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        if cloud.normals is not None:
            cloud = cloud.replace(normals=np.nan_to_num(cloud.normals))
        return super().preprocess(cloud)


class RefusesWithoutWords(Pointwise):
    def preprocess(self, cloud: PointCloud) -> tuple[Tensor, Tensor]:
        if len(cloud) == 0 or not np.isfinite(cloud.coords).all():
            raise ValueError("bad cloud")
        return super().preprocess(cloud)


class AdaptsChannels(Pointwise):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        wanted = self.in_channels - 3
        features = nn.functional.pad(batch.features, (0, wanted))[:, :wanted]
        return super().forward(PointBatch(batch.coords, features, batch.offsets), **options)


class UntypedDevice(Pointwise):
    """Leaves the refusal to torch."""

    def check_channels(self, batch: PointBatch) -> None:
        if self.scene_head.weight.device == batch.coords.device:
            super().check_channels(batch)
        else:
            raise RuntimeError("tensors on different devices")


# What it declares


class UndeclaredTokens(Extremes):
    capabilities = Capabilities(tokens=False, class_attention=True)


class MissingTokens(Pointwise):
    capabilities = Capabilities(tokens=True, class_attention=False)


class TokensWithoutPlaces(Extremes):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        return dataclasses.replace(super().forward(batch, **options), token_coords=None)


class LeadingZero(Extremes):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        assert output.token_offsets is not None
        return dataclasses.replace(output, token_offsets=output.token_offsets - 2)


class TokensElsewhere(Extremes):
    """Mixes up the places of the clouds."""

    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        assert output.token_coords is not None
        return dataclasses.replace(output, token_coords=output.token_coords.flip(0))


class NarrowTokens(Extremes):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        assert output.tokens is not None
        return dataclasses.replace(output, tokens=output.tokens[:, :-1])


class TokensOfTheBatch(Extremes):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        assert output.tokens is not None
        return dataclasses.replace(output, tokens=output.tokens - output.tokens.mean(dim=0))


class UndeclaredLevels(Extremes):
    capabilities = dataclasses.replace(Extremes.capabilities, levels=False)


class MissingLevels(Pointwise):
    capabilities = dataclasses.replace(Pointwise.capabilities, levels=True)


class CoarsestFirst(Extremes):
    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        return dataclasses.replace(output, levels=output.levels[::-1])


class OtherLevel(Extremes):
    """Returns a level with something changed."""

    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        levels = [dataclasses.replace(x, **self.changes(x)) for x in output.levels]
        return dataclasses.replace(output, levels=tuple(levels))

    @abstractmethod
    def changes(self, level: Level) -> dict[str, Any]: ...


class NarrowLevels(OtherLevel):
    def changes(self, level: Level) -> dict[str, Any]:
        return {"features": level.features[:, 1:]}


class LevelsWithLeadingZero(OtherLevel):
    def changes(self, level: Level) -> dict[str, Any]:
        return {"offsets": level.offsets - level.offsets[0]}


class LevelsElsewhere(OtherLevel):
    def changes(self, level: Level) -> dict[str, Any]:
        return {"coords": level.coords + 0.2}


class RepeatedVoxels(OtherLevel):
    def changes(self, level: Level) -> dict[str, Any]:
        return {"grid_coords": level.grid_coords // 2}


class LevelsOfTheBatch(OtherLevel):
    def changes(self, level: Level) -> dict[str, Any]:
        return {"features": level.features - level.features.mean(dim=0)}


class HiddenLimit(Pointwise):
    """Has a setting max_points, and does not say so."""

    capabilities = dataclasses.replace(Pointwise.capabilities, subsamples=False)


class NoLimit(Pointwise):
    """Says that it subsamples, and has no setting for it."""

    def __init__(self, config: UnlimitedConfig) -> None:
        PointEncoder.__init__(self, config, out_channels=8, scene_channels=16)
        self.embed = nn.Linear(self.in_channels, 8)
        self.scene_head, self.point_head = nn.Linear(16, 16), nn.Linear(24, 8)


class DeclaresAttention(Pointwise):
    capabilities = Capabilities(tokens=False, class_attention=True)


class AttentionToNothing(Extremes):
    capabilities = Capabilities(tokens=False, class_attention=True)

    def forward(self, batch: PointBatch, **options: Any) -> EncoderOutput:
        output = super().forward(batch, **options)
        return EncoderOutput(output.scene, output.point)

    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        return tuple(torch.full((2, 2), 0.5) for _ in batch.counts)


class HidesAttention(Extremes):
    capabilities = Capabilities(tokens=True, class_attention=False)


class Logits(Extremes):
    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        return tuple(w.log() for w in super().class_attention(batch))


class KeepsClassToken(Extremes):
    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        weights = super().class_attention(batch)
        return tuple(torch.cat([1 - w.sum(1, keepdim=True), w], dim=1) for w in weights)


class AttentionOverBatch(Extremes):
    def class_attention(self, batch: PointBatch) -> tuple[Tensor, ...]:
        weights = super().class_attention(batch)
        return tuple(w / len(weights) for w in weights)


# How it learns


class DeadParameter(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.unused = nn.Parameter(torch.ones(3))


class ZeroGradient(Pointwise):
    """Multiplies a branch away."""

    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.branch = nn.Linear(config.width, config.width)

    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        return rows + 0.0 * self.branch(rows)


class ExplodingGradient(Pointwise):
    """Takes a norm that is 0, whose gradient is NaN."""

    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(1))

    def pool(self, rows: Tensor, batch: PointBatch) -> Tensor:
        nothing = ((rows - rows.detach()) * self.scale).square().sum().sqrt()
        return super().pool(rows, batch) + nothing


class SharesWithCopies(Pointwise):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharesWithCopies:
        other = SharesWithCopies(self.config)
        other.load_state_dict(self.state_dict())
        other.scene_head = self.scene_head
        return other


class FreshCopies(Pointwise):
    def __deepcopy__(self, memo: dict[int, Any]) -> FreshCopies:
        return FreshCopies(self.config)


class CachesRows(Pointwise):
    """Keeps a tensor of the graph, which deepcopy refuses."""

    cache: Tensor

    def rows(self, batch: PointBatch) -> Tensor:
        self.cache = super().rows(batch)
        return self.cache


class StopsGradient(Pointwise):
    """Detaches one of two paths, so that the rest still has a gradient."""

    def pool(self, rows: Tensor, batch: PointBatch) -> Tensor:
        return super().pool(rows.detach(), batch)


class _DoubledBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2.0 * gradient


class WrongBackward(Pointwise):
    def rows(self, batch: PointBatch) -> Tensor:
        return _DoubledBackward.apply(super().rows(batch))


class Cancels(Pointwise):
    """Loses the digits of bfloat16 behind a large number."""

    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        ones = rows.new_ones(1, rows.shape[1])
        shifted = nn.functional.linear(rows, torch.eye(rows.shape[1]).to(rows), 1e3 * ones[0])
        return shifted - 1e3


# What it saves


class HiddenState(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.shift = torch.randn(config.width)

    def rows(self, batch: PointBatch) -> Tensor:
        rows = super().rows(batch)
        return rows + self.shift.to(rows)


class HiddenStatistics(Pointwise):
    """Remembers something of training in a plain attribute."""

    seen = 0.0

    def rows(self, batch: PointBatch) -> Tensor:
        if self.training:
            self.seen += len(batch.coords)
        return super().rows(batch) + 0.001 * self.seen


class TiedNames(Pointwise):
    def __init__(self, config: PointwiseConfig) -> None:
        super().__init__(config)
        self.alias = self.point_head


class ExtraState(Pointwise):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take what comes."""


class LenientLoad(Pointwise):
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, **_: Any) -> Any:
        return super().load_state_dict(state, strict=False)


@dataclass(frozen=True)
class Victim:
    """A broken encoder and the check that is there for it."""

    check: str
    make: Callable[[], Any]

    @property
    def name(self) -> str:
        return self.make.__name__


def _of(check: str, *kinds: type[PointEncoder]) -> list[Victim]:
    return [Victim(check, _maker(kind)) for kind in kinds]


def _maker(kind: type[PointEncoder], config: EncoderConfig = DEFAULT) -> Callable[[], PointEncoder]:
    def make() -> PointEncoder:
        torch.manual_seed(0)
        return kind(config).eval()

    make.__name__ = f"{kind.__name__}_{type(config).__name__}".removesuffix("_PointwiseConfig")
    return make


VICTIMS: tuple[Victim, ...] = (
    *_of("builds_quietly", Chatty, Grumbles, NeedsOptionalPackage, PhonesHome),
    Victim("ready_to_use", left_in_training),
    Victim("ready_to_use", half_precision),
    Victim("ready_to_use", not_an_encoder),
    *_of("fresh_each_time", SharedModule, OwnSeed, GrowingWidth),
    Victim("config_round_trip", _maker(Pointwise, ForgetfulConfig())),
    Victim("config_round_trip", _maker(Pointwise, LenientConfig())),
    Victim("config_round_trip", _maker(Pointwise, ThawedConfig())),
    *_of("output_shapes", WrongChannels, DropsSinglePoints, NoPoints),
    *_of("dtype_kept", SingleOnly),
    *_of("degenerate_clouds", DividesBySpread, JittersDuplicates),
    *_of("scene_alone", PointsAlways, OtherScene),
    *_of("alone_equals_batch", BatchStatistics, PatchFromSmallest, CentresOverBatch, PaddedMean),
    *_of("order_of_points", FirstPointIsCentre),
    *_of("repeatable", RandomOrder, OwnGenerator, DrawsForNothing),
    *_of("inputs_untouched", MutatesInput, CountsCalls, GoesIntoTraining),
    *_of("geometry_shared", OtherGeometryInside, GeometryOfWeights),
    *_of("large_clouds", Truncates, LimitsBatch, HiddenLimit),
    Victim("large_clouds", _maker(NoLimit, UnlimitedConfig())),
    *_of("position_and_size", KeepsPosition, AlwaysUnitSphere),
    *_of("channels", DeafToChannels, FillsWithOne, ReadsMore, OtherContract),
    *_of("extract", SortsPoints, ForgetsItsMode, ModeOfItsOwn),
    *_of("tokens", UndeclaredTokens, MissingTokens, TokensWithoutPlaces, LeadingZero),
    *_of("tokens", TokensElsewhere, NarrowTokens, TokensOfTheBatch),
    *_of("levels", UndeclaredLevels, MissingLevels, CoarsestFirst, NarrowLevels, LevelsElsewhere),
    *_of("levels", LevelsWithLeadingZero, RepeatedVoxels, LevelsOfTheBatch),
    *_of("class_attention", DeclaresAttention, HidesAttention, Logits, KeepsClassToken),
    *_of("class_attention", AttentionToNothing, AttentionOverBatch),
    *_of("every_parameter_learns", DeadParameter, ZeroGradient, ExplodingGradient),
    *_of("teacher_is_independent", SharesWithCopies, FreshCopies, CachesRows),
    *_of("gradients", StopsGradient, WrongBackward),
    *_of("bfloat16", Cancels),
    *_of("state_is_complete", HiddenState, HiddenStatistics),
    *_of("state_is_plain", TiedNames, ExtraState),
    *_of("state_loads_strictly", LenientLoad),
    *_of("refuses_unusable_clouds", AcceptsAnything, AcceptsBadChannels, RefusesWithoutWords),
    *_of("refuses_other_channels", AdaptsChannels),
    *_of("refuses_other_device", UntypedDevice),
)
