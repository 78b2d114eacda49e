"""Looks through a data set before something is trained on it, and says what is wrong.

Every cloud is read once. What a training would stop at, or be misled by, is an error; what it would
get over is a warning. Shape legend: M clouds, N points, K classes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from pointzoo import io
from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.base import PointDataset
from pointzoo.data.cost import Cost, Meter
from pointzoo.data.labelled_folder import FolderDataset, open_folder
from pointzoo.data.open import open_dataset
from pointzoo.data.readers import Split
from pointzoo.data.splits import SPLITS, empty_parts
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, FormatError, PointzooError
from pointzoo.inspection.checks import QUICK_CHECKS, Facts
from pointzoo.io import RawCloud

Severity = Literal["error", "warning", "note"]

RARE = 0.01
"""A class with a smaller share than this of the largest one is pointed out."""
UNLIKE = 100.0
"""Clouds whose longest sides differ by more than this factor may be in different units."""
_SHOWN = 5
_EVERYTHING = "all"
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")
_SEVERITY: Mapping[str, Severity] = {"problem": "error", "warning": "warning"}


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        severity: ``"error"``, ``"warning"`` or ``"note"``.
        kind: What it is about, a word or two.
        text: A sentence.
        where: The clouds it was found in, ``split: name``; empty where it concerns all.
    """

    severity: Severity
    kind: str
    text: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """What one split holds.

    Attributes:
        name: ``"train"``, ``"val"``, ``"test"``, or ``"all"`` of a data set without splits.
        clouds: M, those that cannot be read among them.
        points: Of all clouds.
        labelled: Of the points, or of the clouds where these have labels.
        classes: How many points, or clouds, each class has.
    """

    name: str
    clouds: int
    points: int
    labelled: int
    classes: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """What :func:`check_data` found.

    Attributes:
        path: The data set.
        kind: ``"objects"`` (labels of clouds) or ``"scenes"`` (labels of points).
        parts: One for each split.
        issues: The most severe first.
        cost: What training would cost; None where nobody asked or nothing can be read.
    """

    path: str
    kind: str
    parts: tuple[Part, ...]
    issues: tuple[Issue, ...]
    cost: Cost | None

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(issue.severity != "error" for issue in self.issues)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {"ok": self.ok, **asdict(self)}


def check_data(
    path: str | os.PathLike[str],
    *,
    encoder: PointEncoder | None = None,
    after_cloud: Callable[[int, int], object] = lambda *_: None,
    **options: Any,
) -> Report:
    """Read every cloud of a data set and report what is wrong.

    Args:
        path: Anything :func:`pointzoo.data.open_dataset` opens.
        encoder: Whose voxels are counted and whose training is timed; None: neither.
        after_cloud: Called with the clouds read so far and the number of all.
        **options: Of :func:`pointzoo.data.open_folder`.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        FormatError: The layout is unknown, or ``classes.json`` or a list is damaged.
        ConfigError: An option is out of range.
    """
    parts = _open_parts(path, {k: v for k, v in options.items() if v is not None})
    total = sum(len(dataset) for _, dataset in parts)
    meter = None if encoder is None else Meter(encoder)
    seen = [_Seen(name, dataset) for name, dataset in parts]
    done = 0
    for part in seen:
        for index in range(len(part.dataset)):
            cloud = part.look_at(index)
            if cloud is not None and meter is not None:
                meter.count(cloud, trained=part.name in ("train", _EVERYTHING))
            done += 1
            after_cloud(done, total)
    empty = empty_parts(Path(path), [name for name, _ in parts])
    issues = [Issue("error", "empty split", f"There is no cloud in {name}.") for name in empty]
    issues += [*_grouped(seen), *_same_clouds(seen), *_class_issues(seen), *_unlike_sizes(seen)]
    return Report(
        path=str(path),
        kind="objects" if any(part.dataset.labels is not None for part in seen) else "scenes",
        parts=tuple(part.summary() for part in seen),
        issues=tuple(sorted(issues, key=lambda issue: _ORDER.index(issue.severity))),
        cost=None if meter is None else meter.cost(),
    )


def _open_parts(
    path: str | os.PathLike[str], options: Mapping[str, Any]
) -> list[tuple[str, PointDataset]]:
    def opened(split: str | None) -> PointDataset:
        if set(options) - {"objects"}:
            return open_folder(path, split, **options)
        return open_dataset(path, cast("Split | None", split), **options)

    whole = opened(None)
    parts: dict[tuple[str, ...], tuple[str, PointDataset]] = {}
    for split in SPLITS:
        try:
            dataset = opened(split)
        except ConfigError:  # no such part
            continue
        own = set(getattr(dataset, "splits", None) or ())
        name = own.pop() if len(own) == 1 else split  # test may stand in for val
        parts.setdefault(dataset.names, (name, dataset))
    return list(parts.values()) or [(_EVERYTHING, whole)]


class _Seen:
    """What is known about one split after its clouds were read one by one."""

    def __init__(self, name: str, dataset: PointDataset) -> None:
        self.name = name
        self.dataset = dataset
        self.points = self.labelled = 0
        self.counts: dict[int, int] = {}
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, float] = {}
        self.found: list[tuple[Issue, str]] = []
        self.colored: list[tuple[str, bool, bool]] = []

    def look_at(self, index: int) -> PointCloud | None:
        """Read a cloud and note what is wrong with it; return it if it can be used."""
        where = f"{self.name}: {self.dataset.names[index]}"
        try:
            cloud, labels = self._read(index, where)
        except (PointzooError, OSError, MemoryError) as error:
            self._note("error", "unreadable", f"A cloud cannot be read: {error}", where)
            return None
        if not len(cloud):
            self._note("error", "empty", "There is no point in a cloud.", where)
            return None
        self.points += len(cloud)
        self._count(labels, index)
        self.colored.append((where, cloud.colors is not None, cloud.normals is not None))
        self.digests[where] = hashlib.sha256(cloud.coords.tobytes()).hexdigest()
        return self._check_values(cloud, index, where)

    def _read(self, index: int, where: str) -> tuple[PointCloud, IntArray | None]:
        dataset = self.dataset
        if not isinstance(dataset, FolderDataset):
            cloud = dataset[index]
            return cloud, None if dataset.labels is not None else cloud.labels
        cloud, values = dataset.values(index)  # classes may not be known yet
        if values is None:
            return cloud, np.full(len(cloud), -1)
        if len(values) != len(cloud):
            text = f"{len(values)} labels for {len(cloud)} points."
            self._note("error", "labels do not fit", text, where)
            return cloud, None
        labelling = dataset.labelling
        if not labelling.known:
            return cloud, labelling.remapped(values)
        try:
            return cloud, labelling.classes_of(values, Path(dataset.names[index]))
        except FormatError as error:
            text = f"Labels are none of the classes: expected {error.expected}, got {error.got}."
            self._note("error", "labels out of range", text, where)
            return cloud, None

    def _count(self, labels: IntArray | None, index: int) -> None:
        if self.dataset.labels is not None:
            labels = np.asarray(self.dataset.labels[index : index + 1])
        if labels is None:
            return
        values, counts = np.unique(labels[labels >= 0], return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + count
            self.labelled += count

    def _check_values(self, cloud: PointCloud, index: int, where: str) -> PointCloud | None:
        bad = int((~np.isfinite(cloud.coords).all(axis=1)).sum())
        if bad:
            text = "Some points have NaN or infinite coordinates; cloud.drop_nonfinite() helps."
            self._note("error", "not finite", text, where)
        raw = RawCloud(cloud.coords, cloud.colors, cloud.normals, unit=self._unit(index))
        with np.errstate(all="ignore"):
            facts = Facts(raw)
            for check in QUICK_CHECKS:
                for finding in check(facts):
                    severity = _SEVERITY.get(finding.severity, "note")
                    self._note(severity, "values", finding.text, where)
        if facts.longest > 0.0:
            self.sizes[where] = facts.longest
        return None if bad else cloud

    def _unit(self, index: int) -> str | None:
        path = getattr(self.dataset, "paths", {})
        if not path or path[index].suffix.lower() not in (".las", ".laz"):
            return None
        return io.read_raw(path[index]).unit

    def _note(self, severity: Severity, kind: str, text: str, where: str) -> None:
        self.found.append((Issue(severity, kind, text), where))

    @property
    def class_counts(self) -> dict[str, int]:
        """Points or clouds of each class by name, those that do not occur with 0."""
        known = self.dataset
        if isinstance(known, FolderDataset) and not known.labelling.known:
            return {str(value): count for value, count in sorted(self.counts.items())}
        return {name: self.counts.get(row, 0) for row, name in enumerate(known.class_names)}

    def summary(self) -> Part:
        """Return what the report says about the split."""
        return Part(self.name, len(self.dataset), self.points, self.labelled, self.class_counts)


def _grouped(seen: Iterable[_Seen]) -> Iterator[Issue]:
    """Put findings that differ in their numbers only together."""
    groups: dict[tuple[str, ...], tuple[Issue, list[str]]] = {}
    for part in seen:
        for issue, where in part.found:
            plain = (
                issue.text if issue.kind == "unreadable" else re.sub(r"[\d.,]+", "#", issue.text)
            )
            groups.setdefault((issue.kind, plain), (issue, []))[1].append(where)
    for issue, places in groups.values():
        yield Issue(issue.severity, issue.kind, issue.text, tuple(places))
    kinds = [entry for part in seen for entry in part.colored]
    for place, name in ((1, "colours"), (2, "normals")):
        without = [entry[0] for entry in kinds if not entry[place]]
        if 0 < len(without) < len(kinds):
            text = f"Some clouds have no {name}, others have."
            yield Issue("warning", f"{name} missing", text, tuple(without))


def _same_clouds(seen: Sequence[_Seen]) -> Iterator[Issue]:
    places: dict[str, list[tuple[str, str]]] = {}
    for part in seen:
        for where, digest in part.digests.items():
            places.setdefault(digest, []).append((part.name, where))
    for copies in places.values():
        names = tuple(where for _, where in copies)
        if len({split for split, _ in copies}) > 1:
            yield Issue("error", "in two splits", "The same cloud is in two splits.", names)
        elif len(copies) > 1:
            yield Issue("warning", "twice", "The same cloud is there more than once.", names)


def _class_issues(seen: Sequence[_Seen]) -> Iterator[Issue]:
    every: dict[str, int] = {}
    for part in seen:
        for name, count in part.class_counts.items():
            every[name] = every.get(name, 0) + count
    if not sum(every.values()):
        yield Issue("warning", "no labels", "Nothing has a label: only pretraining can use it.")
        return
    if sum(count > 0 for count in every.values()) == 1:
        yield Issue("error", "one class", "All labels are of one class.")
    for part in seen:
        own = part.class_counts
        if not part.labelled:
            yield Issue("warning", "no labels", f"Nothing in {part.name} has a label.")
            continue
        if missing := [name for name, count in every.items() if count and not own.get(name)]:
            text = f"Classes that {part.name} lacks: {', '.join(missing)}."
            yield Issue("warning", "classes missing", text)
        largest = max(own.values())
        rare = {name: count for name, count in own.items() if 0 < count < RARE * largest}
        if rare:
            words = ", ".join(
                f"{name} ({count / part.labelled:.2%})" for name, count in rare.items()
            )
            text = f"Rare in {part.name}: {words}; class weights may help."
            yield Issue("warning", "imbalance", text)


def _unlike_sizes(seen: Iterable[_Seen]) -> Iterator[Issue]:
    sizes = {where: size for part in seen for where, size in part.sizes.items()}
    if not sizes:
        return
    typical = float(np.median(list(sizes.values())))
    odd = tuple(
        where for where, size in sizes.items() if not typical / UNLIKE < size < typical * UNLIKE
    )
    if odd:
        text = f"The longest side is far from {typical:.3g}, that of most: another unit?"
        yield Issue("warning", "units", text, odd)


def render(report: Report) -> str:
    """Put a report in words: the splits, the classes, what is wrong, what training would cost."""
    unit = "clouds" if report.kind == "objects" else "points"
    lines = [f"{report.path}: {report.kind}"]
    for part in report.parts:
        share = part.labelled / max(1, part.clouds if report.kind == "objects" else part.points)
        lines.append(
            f"  {part.name:<6} {part.clouds:,} clouds, {part.points:,} points, {share:.0%} labelled"
        )
    names = list(dict.fromkeys(name for part in report.parts for name in part.classes))
    if all(map(str.isdecimal, names)):  # values that nobody named
        names.sort(key=int)
    if names:
        width = max(map(len, [*names, "class"]))
        head = "".join(f"{part.name:>16}" for part in report.parts)
        lines.append(f"  {'class':<{width}}{head}   ({unit})")
        for name in names:
            cells = "".join(f"{part.classes.get(name, 0):>16,}" for part in report.parts)
            lines.append(f"  {name:<{width}}{cells}")
    for issue in report.issues:
        lines.append(f"  {issue.severity}: {issue.text}")
        more = len(issue.where) - _SHOWN
        lines += [f"      {where}" for where in issue.where[:_SHOWN]]
        lines += [f"      and {more} more"] * (more > 0)
    if report.cost is not None:
        lines.append(f"  {report.cost}")
    lines.append("  " + ("No errors." if report.ok else "There are errors."))
    return "\n".join(lines)
