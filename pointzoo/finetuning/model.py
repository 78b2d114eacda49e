"""A trained model: predicts, is judged, is saved and loaded.

Shape legend: N points, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, overload

import torch

from pointzoo.data import open_dataset
from pointzoo.data.base import PointDataset
from pointzoo.data.readers import Split
from pointzoo.errors import ConfigError, WeightError
from pointzoo.features import Clouds, Source, as_cloud, evaluating
from pointzoo.finetuning.data import validation_part
from pointzoo.finetuning.lora import add_adapters, added_names, has_adapters
from pointzoo.finetuning.network import Network, Reads
from pointzoo.finetuning.part import Part
from pointzoo.finetuning.renamed import with_classes
from pointzoo.finetuning.source import EncoderSource
from pointzoo.finetuning.store import load_state, read_facts, read_tensors, write_model
from pointzoo.finetuning.table import get_task
from pointzoo.finetuning.task import Score, Task
from pointzoo.hub import HubName, fetch, is_hub_name
from pointzoo.weights import largest_file
from pointzoo.zoo import warn_of_license

_UNFIT = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError,
    MemoryError,
)  # fmt: skip
"""What building a network from a config raises that was tampered with."""

if TYPE_CHECKING:
    from pointzoo.sharing import Push


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder with a trained head; see :func:`pointzoo.finetune` and :func:`load_model`.

    Attributes:
        network: Encoder and head, in evaluation mode.
        method: How it was trained.
        source: Where its encoder comes from.
        rank: Of the encoder's low-rank additions; 0 for none.
        hidden: Width of the head's hidden layer; 0 for none.
        settings: Settings of the training, as JSON types.
        scores: What is known about how good it is, as JSON types: for instance ``validation``.
    """

    network: Network
    method: str
    source: EncoderSource
    rank: int = 0
    hidden: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task[Any]:
        """What it does."""
        return self.network.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that labels index, (K,)."""
        return self.task.class_names

    @overload
    def predict(
        self, source: Source, *, votes: int = ..., category: str | int | None = ...
    ) -> Any: ...

    @overload
    def predict(
        self, source: Clouds, *, votes: int = ..., category: str | int | None = ...
    ) -> list[Any]: ...

    def predict(
        self, source: Source | Clouds, *, votes: int = 1, category: str | int | None = None
    ) -> Any:
        """Say what one cloud is, or several.

        Every point of the input gets an answer, in the order of the input. A scan of more than
        500,000 points is computed in tiles where the encoder can (:mod:`pointzoo.tiling`). No
        random number is drawn.

        Args:
            source: A path, a cloud, an (N, 3+) array, or a list of these; see
                :func:`pointzoo.extract`.
            votes: Views of a cloud whose probabilities are averaged: the cloud itself, then turned
                about z by equal angles, every other one mirrored. For parts of a scan that lies as
                the training scans do 8 are usually enough.
            category: For parts: the category of the object, which leaves its parts alone to choose
                from.

        Returns:
            For segmentation and parts ``.labels`` (N,) and ``.probabilities`` (N, K); for
            classification ``.label`` and ``.probabilities`` (K,); for instances also ``.instances``
            (N,), -1 for none, ``.scores`` and ``.classes`` (Q,). For a list, one per entry.

        Raises:
            FormatError: A file cannot be read.
            CloudError: A cloud is empty or not finite.
            ConfigError: ``votes`` is out of range, or a category is given to another task.
            WeightError: The network gives NaN.
        """
        if isinstance(source, list | tuple):
            if not source:
                raise ConfigError(
                    expected="at least one cloud", got="an empty list", fix="Pass a path."
                )
            return [self.predict(one, votes=votes, category=category) for one in source]
        cloud = as_cloud(source).require_usable()
        with evaluating(self.network):
            if category is None:
                return self.task.predict(self.network, cloud, votes=votes)
            if isinstance(self.task, Part):
                return self.task.predict(self.network, cloud, votes=votes, category=category)
        raise ConfigError(
            expected=f"no category for {self.task.name}",
            got=repr(category),
            fix="Only models for parts know categories.",
        )

    def evaluate(
        self,
        data: str | os.PathLike[str] | PointDataset,
        *,
        split: str | None = None,
        votes: int = 1,
    ) -> Score:
        """Compare predictions with labels.

        Args:
            data: A data set, or a path that :func:`pointzoo.data.open_dataset` opens. Classes are
                matched by name.
            split: Part of a data set at a path; None: its validation part, where it has none its
                test part, and else everything.
            votes: See :meth:`predict`.

        Raises:
            ConfigError: There are no labels, they are out of range, or a class is unknown.
            FormatError: A file cannot be read.
        """
        part = data
        if not isinstance(part, PointDataset):
            part = _part(Path(part), split, objects=not self.task.crops)
        if not isinstance(self.task, Part):  # there the classes of a data set are categories
            part = with_classes(part, self.class_names)
        with evaluating(self.network):
            return self.task.evaluate(self.network, part, votes=votes)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model as a folder that :func:`load_model` reads; see the top of ``store``.

        An older model in that folder is replaced. The folder is whole at any moment.

        Args:
            folder: Where to write; its parent must exist.

        Returns:
            The folder.

        Raises:
            ConfigError: The folder holds something else, or the encoder's class is not registered.
            WeightError: A weight is not finite, or the disk refuses.
        """
        if not self.source.architecture:
            raise ConfigError(
                expected="an encoder of a registered architecture",
                got=type(self.network.encoder).__name__,
                fix="Add it to pointzoo.encoders.registry.",
            )
        return self.write(Path(folder), _readme(self))

    def write(self, folder: Path, readme: str, *, published: bool = False) -> Path:
        """Write the model with a README of one's own; see ``store.write_model``."""
        facts = {
            "task": self.task.to_dict(),
            "method": self.method,
            "network": {"reads": self.network.reads, "rank": self.rank, "hidden": self.hidden},
            "encoder": self.source.to_dict(),
            "settings": dict(self.settings),
            "scores": dict(self.scores),
        }
        names = stored_names(self.network, embedded=self.source.kind == "embedded")
        state = self.network.state_dict()
        tensors = {name: state[name] for name in state if name in names}
        return write_model(folder, facts, tensors, readme, published=published)

    def push_to_hub(self, repo_id: str, **options: Any) -> Push:
        """Put the model on the Hub; see :func:`pointzoo.finetuning.share.push_model`.

        Args:
            repo_id: ``owner/name``.
            options: ``card`` and the others of :func:`pointzoo.finetuning.share.push_model`.
        """
        from pointzoo.finetuning.share import push_model

        return push_model(self, repo_id, **options)


def load_model(
    folder: str | os.PathLike[str],
    *,
    encoder: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """Load a model: verified, in evaluation mode, with the predictions it had when it was saved.

    Args:
        folder: A folder that :meth:`Model.save` or :func:`pointzoo.finetune` wrote, or
            ``hf-hub:owner/repo@revision``.
        encoder: Where the encoder's weight folder lies now, if the model names a folder that was
            moved.
        device: Where the model shall live.

    Raises:
        WeightError: A file is missing, damaged, changed, of another schema; or the encoder is not
            there or not the one that the model was trained on.
        HubError: The repository is not there, not allowed, or the Hub cannot be reached.
        ConfigError: There is no such device.
    """
    root = fetch(HubName.parse(folder)) if is_hub_name(folder) else Path(folder)
    config, size = read_facts(root)
    try:
        source = EncoderSource(**config["encoder"])
        task = get_task(config["task"]["name"]).from_dict(config["task"])
        parts = config["network"]
        reads, rank, hidden = parts["reads"], int(parts["rank"]), int(parts["hidden"])
        if reads not in get_args(Reads):
            raise ValueError(f"a head that reads {reads!r}")  # is caught with its like
        network = _empty(source, encoder, task, reads=reads, rank=rank, hidden=hidden, size=size)
        scores = config.get("scores", {})
        for score in scores.values():
            Score.from_dict(score)
    except WeightError:
        raise
    except _UNFIT as error:
        raise WeightError(
            expected=f"a model of this release in {folder}",
            got=f"{type(error).__name__}: {error}",
            fix="Install the release of pointzoo that wrote it.",
        ) from error
    names = stored_names(network, embedded=source.kind == "embedded")
    state = network.state_dict()
    tensors = read_tensors(root, config, largest_file({name: state[name] for name in names}))
    load_state(network, tensors, names)
    warn_of_license(root)
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            expected="a device of this machine", got=f"{device!s}", fix=str(error).splitlines()[0]
        ) from error
    return Model(
        network.eval().requires_grad_(False),
        config["method"],
        source,
        rank=rank,
        hidden=hidden,
        settings=config["settings"],
        scores=scores,
    )


def stored_names(network: Network, *, embedded: bool) -> set[str]:
    """Return the names of what a model folder holds: everything, or what is not the encoder's."""
    if embedded:
        return set(network.state_dict())
    heads = {f"head.{name}" for name in network.head.state_dict()}
    adapters = {f"encoder.{name}" for name in added_names(network.encoder)}
    return heads | adapters if has_adapters(network.encoder) else heads


def _empty(
    source: EncoderSource,
    place: str | os.PathLike[str] | None,
    task: Task[Any],
    *,
    reads: Any,
    rank: int,
    hidden: int,
    size: int,
) -> Network:
    """Build the network of a model without its head's values, and no larger than its file is."""
    base = source.build(place, most=size)
    with torch.random.fork_rng(devices=[]):
        network = Network(base, task, reads=reads, hidden=hidden, empty=True)
        if rank and not add_adapters(base, rank):
            raise ValueError(f"additions of rank {rank} that nothing is large enough for")
    return network


def _part(path: Path, split: str | None, *, objects: bool) -> PointDataset:
    if split is not None:
        return open_dataset(path, cast(Split, split), objects=objects)  # others are refused there
    found = validation_part(path, objects=objects)
    if found is not None:
        return found
    try:
        return open_dataset(path, "test", objects=objects)
    except ConfigError:
        return open_dataset(path, objects=objects)


def _readme(model: Model) -> str:
    lines = [
        f"# A model for {model.task.name}",
        "",
        f"Method: {model.method}. Encoder: {model.source.kind} `{Path(model.source.name).name}`"
        + (f", sha256 `{model.source.sha256}`" if model.source.sha256 else "")
        + (f", commit `{model.source.commit}`" if model.source.commit else "")
        + ".",
        "",
        f"Classes: {', '.join(model.class_names)}.",
        "",
    ]
    for name, score in model.scores.items():
        values = ", ".join(f"{key} {100 * value:.1f}" for key, value in score["values"].items())
        lines += [f"On {name}: {values}.", ""]
    lines += ["Load it with `pointzoo.load_model(FOLDER)`.", ""]
    return "\n".join(lines)
