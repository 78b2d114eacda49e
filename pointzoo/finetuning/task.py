"""What a task is: its head, its loss, its predictions and its score.

:class:`Task` is an interface. The trainer knows nothing else about a task, so that a new one is a
class here and a line in :mod:`pointzoo.finetuning.table`.

Shape legend: B clouds, N points of a batch or a cloud, C point channels, D scene channels,
R columns of a head's output, K classes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.data.base import PointDataset

if TYPE_CHECKING:
    from pointzoo.finetuning.network import Network


class Target(Protocol):
    """What a loss compares an output with; a tensor is one."""

    def to(self, device: torch.device, /) -> Any: ...  # noqa: D102


TargetT = TypeVar("TargetT", bound=Target)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a head reads.

    Attributes:
        batch: The clouds.
        point: (N, C) one row per point, or None where the head asks for none.
        scene: (B, D) one row per cloud.
    """

    batch: PointBatch
    point: Tensor | None
    scene: Tensor

    def rows(self) -> Tensor:
        """Return the point rows (N, C) of a head that asked for them."""
        assert self.point is not None, "a head with reads_points"
        return self.point


@dataclass(frozen=True, eq=False)
class Item:
    """One cloud of a data set, in the frame of an encoder.

    Attributes:
        cloud: As in the data set, every field with it, but moved and scaled as
            :meth:`pointzoo.PointEncoder.preprocess` does.
        label: Class of the whole cloud, -1 where unknown.
        name: Its name in the data set.
    """

    cloud: PointCloud
    label: int
    name: str

    def with_cloud(self, cloud: PointCloud) -> Item:
        """Return the item with another cloud (cut, augmented)."""
        return dataclasses.replace(self, cloud=cloud)


class Prediction(ABC):
    """What a model says about one cloud."""

    @abstractmethod
    def point_fields(self, points: int) -> Mapping[str, NDArray[Any]]:
        """Return what a file with the predictions holds for each of its N points, by field."""


@dataclass(frozen=True)
class Score:
    """How well a model did on a data set.

    Attributes:
        metric: Name of the figure that counts; larger is better.
        values: Figures by name, among them the metric; 0..1.
        per_class: Figures of each class by name, in the order of ``class_names``; None for a class
            that does not occur.
        class_names: Names of the classes.
        confusion: (K, K) counts, true class by predicted class; empty where the task has none.
    """

    metric: str
    values: Mapping[str, float]
    per_class: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def value(self) -> float:
        """The figure that counts."""
        return self.values[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """Build a score from what :meth:`to_dict` returned, or from its JSON.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type.
        """
        figures = dict(values["values"])
        if not all(isinstance(value, int | float) for value in figures.values()):
            raise TypeError(f"figures that are no numbers: {figures!r}")
        return cls(
            metric=values["metric"],
            values=figures,
            per_class={key: tuple(row) for key, row in values["per_class"].items()},
            class_names=tuple(values["class_names"]),
            confusion=tuple(map(tuple, values["confusion"])),
        )

    def table(self) -> str:
        """Return the figures of every class, and those of all, as text in columns."""
        names = list(self.per_class)
        rows = [["class", *names]]
        for place, name in enumerate(self.class_names if names else ()):
            rows.append([name, *(_shown(self.per_class[key][place]) for key in names)])
        rows += [[key, _shown(value)] for key, value in self.values.items()]
        first = max(len(row[0]) for row in rows)
        lines = [row[0].ljust(first) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows]
        return "\n".join(lines if names else lines[1:])


@dataclass(frozen=True)
class TaskOptions:
    """Settings of a task; a task with settings of its own extends it.

    Attributes:
        label_smoothing: Share of a target that is spread over all classes.
    """

    label_smoothing: float = 0.0


def names_of(values: Mapping[str, Any], key: str = "class_names") -> tuple[str, ...]:
    """Return names out of a config.

    Raises:
        KeyError: There are none.
        TypeError: They are no list of text.
    """
    names = values[key]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{key} is {str(names)[:100]}")
    return tuple(names)


class Task(ABC, Generic[TargetT]):
    """A task: what it learns from a data set, and how it is judged.

    Class attributes say what the trainer may do with it.

    Attributes:
        name: As in ``pz.finetune(task=...)``.
        metric: The figure of :attr:`Score.values` that early stopping watches; larger is better.
        reads_points: Whether the head reads point rows.
        per_point: Whether the head's output is one tensor (N, R) that a point gets whatever other
            points there are beyond the receptive field; then large scans are computed in tiles.
        crops: Whether training sees a cloud in crops of ``crop_points``; else that many random
            points of the whole.
        mixes: Whether two clouds may be laid over each other (Mix3D).
        options_class: Settings of the task.
        defaults: Settings of :class:`pointzoo.finetuning.config.FinetuneConfig` and of the options
            that suit the task better than theirs.
        class_names: Names of the K classes.
        options: Settings of the task.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    reads_points: ClassVar[bool] = True
    per_point: ClassVar[bool] = True
    crops: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    options_class: ClassVar[type[TaskOptions]] = TaskOptions
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, class_names: Sequence[str], options: TaskOptions | None = None) -> None:
        """Keep the names and the settings."""
        self.class_names = tuple(class_names)
        self.options = self.options_class() if options is None else options

    @classmethod
    @abstractmethod
    def from_data(cls, train: PointDataset, options: TaskOptions | None = None) -> Task[Any]:
        """Build the task that a training set describes; looks at labels where it has to.

        Raises:
            ConfigError: The data set has no labels for this task.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`from_dict` needs, as JSON types."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "options": dataclasses.asdict(self.options),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task[Any]:
        """Build a task again.

        Raises:
            KeyError: Something is missing.
            TypeError: An option is unknown, or something is of another type.
        """
        return cls(names_of(values), cls.options_of(values))

    @classmethod
    def options_of(cls, values: Mapping[str, Any]) -> TaskOptions:
        """Build the settings again; raises as :meth:`from_dict`."""
        given: dict[str, Any] = values["options"]
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
        build: Any = cls.options_class  # each task's own has fields of its own
        known: TaskOptions = build(**options)
        for field_ in dataclasses.fields(known):
            value, like = getattr(known, field_.name), field_.default
            if isinstance(value, str) != isinstance(like, str):
                raise TypeError(f"the option {field_.name} is {value!r}")
        return known

    @abstractmethod
    def build_head(self, point_channels: int, scene_channels: int, *, hidden: int) -> nn.Module:
        """Build the head: a module from :class:`Encoded` to what :meth:`loss` takes.

        Random weights come from torch's global generator, which the caller has seeded.

        Args:
            point_channels: C of :attr:`Encoded.point`.
            scene_channels: D of :attr:`Encoded.scene`.
            hidden: Width of a hidden layer of the head; 0 for a linear one.
        """

    @abstractmethod
    def require_labels(self, item: Item) -> None:
        """Refuse an item whose labels cannot be trained on.

        Raises:
            ConfigError: Labels are missing or out of range; the message names the cloud.
        """

    @abstractmethod
    def class_counts(self, items: Iterable[Item]) -> Tensor:
        """Return (K,) int64, how often each class occurs: what class weights are made of."""

    @abstractmethod
    def target(self, items: Sequence[Item]) -> TargetT:
        """Return what the loss of these B items needs, in the order of their points."""

    @abstractmethod
    def loss(
        self, output: Any, target: TargetT, class_weights: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss in float32, and its parts for the log.

        Args:
            output: Of the head.
            target: Of :meth:`target`, on the device of the output.
            class_weights: (K,) or None.
        """

    @abstractmethod
    def predict(self, network: Network, cloud: PointCloud, *, votes: int = 1) -> Prediction:
        """Say what the network makes of a cloud.

        Args:
            network: In evaluation mode.
            cloud: As read; at least one point, finite.
            votes: How many views of the cloud are averaged, see
                :func:`pointzoo.finetuning.votes.views`; 1 is the cloud itself.

        Raises:
            CloudError: The cloud cannot be used.
            ConfigError: The task cannot average so many views.
        """

    @abstractmethod
    def evaluate(self, network: Network, data: PointDataset, *, votes: int = 1) -> Score:
        """Compare predictions for every cloud of a data set with its labels.

        Args:
            network: In evaluation mode.
            data: With the classes of the task.
            votes: See :meth:`predict`.

        Raises:
            ConfigError: There are no labels, or they are out of range.
        """


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
