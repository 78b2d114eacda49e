"""How the labels of points are found in and beside files, and what their numbers mean.

Numbers in files are called values here; they become classes from 0 on, -1 where unlabelled. Shape
legend: N points, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.errors import ConfigError, FormatError
from pointzoo.intake import parse_json, read_limited
from pointzoo.io.arrays import load_arrays, map_npy
from pointzoo.io.columns import LABEL_NAMES, is_whole
from pointzoo.io.files import malformed, parsing

CLASSES_FILE = "classes.json"

LABEL_FIELDS = (
    *("segment", "segmentation", "semantic", "semantics", "semantic_label", "semantic_class"),
    *("sem_label", "sem_class", "sem", "segment20", "segment200", "category", "ground_truth"),
    *("gt", "target", "scalar_segment", "scalar_semantic", "scalar_gt"),
)
"""Fields that hold labels where the reader did not recognise any, the likeliest first."""
INSTANCE_FIELDS = (
    *("instance", "instances", "instance_id", "instance_label", "inst", "object_id", "objectid"),
    *("treeid", "scalar_instance"),
)
"""Fields that tell objects apart, the likeliest first."""


@dataclass(frozen=True)
class Labelling:
    """Where labels are and what they mean.

    Attributes:
        field: Name of the field that holds them, or of the array in an NPZ file beside the cloud;
            None: the likeliest.
        instance: The same for the objects.
        names: (K,) names of the classes; empty: they come from the data.
        values: (K,) the value of each class; empty: 0 to K - 1.
        remap: New values for old ones, before anything else; -1 is no label.
        ignore: Values that are no label, after that.
    """

    field: str | None = None
    instance: str | None = None
    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    remap: Mapping[int, int] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    ignore: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the values.

        Raises:
            ConfigError: Names or values repeat, or there are not as many.
        """
        object.__setattr__(self, "remap", dict(self.remap))
        if not self.values:
            object.__setattr__(self, "values", tuple(range(len(self.names))))
        sizes = {len(self.names), len(set(self.names)), len(self.values), len(set(self.values))}
        if len(sizes) > 1:
            raise ConfigError(
                expected="as many values as names of classes, all different",
                got=f"{self.names} and {self.values}",
                fix="Name every class once.",
            )

    @property
    def known(self) -> bool:
        """Whether the classes are known without looking at the data."""
        return bool(self.names)

    def values_of(self, raw: IntArray) -> list[int]:
        """Return the different values, remapped, of those labels (N,) that are labels."""
        return [value for value in np.unique(self.remapped(raw)).tolist() if value >= 0]

    def remapped(self, raw: IntArray) -> IntArray:
        """Return the values (N,) remapped, -1 where they are no label."""
        old, inverse = np.unique(raw, return_inverse=True)
        new = [self.remap.get(value, value) for value in old.tolist()]
        new = [-1 if value < 0 or value in self.ignore else value for value in new]
        values: IntArray = np.array(new, dtype=np.int64)[inverse.reshape(-1)]
        return values

    def classes_of(self, raw: IntArray, place: Path) -> IntArray:
        """Turn the values of N points into classes.

        Args:
            raw: (N,) values as the file has them.
            place: The file, for the message.

        Raises:
            FormatError: A value is none of the classes.
        """
        values, inverse = np.unique(self.remapped(raw), return_inverse=True)
        index = {-1: -1} | {value: row for row, value in enumerate(self.values)}
        if wrong := [str(value) for value in values.tolist() if value not in index]:
            raise FormatError(
                expected=f"labels out of {_brief(self.values)}",
                got=f"{', '.join(wrong[:10])} in {place}",
                fix="Add the classes, remap the values, or ignore them.",
            )
        rows = [index[value] for value in values.tolist()]
        classes: IntArray = np.array(rows, dtype=np.int64)[inverse.reshape(-1)]
        return classes

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        classes: Sequence[str] | Mapping[int, str] | str | Path | None = None,
        **given: Any,
    ) -> Labelling:
        """Put together what the caller says and what the file ``classes.json`` of a folder says.

        The file holds a list of names, an object from values to names, or an object with any of the
        keys ``classes`` (one of the former), ``field``, ``instance``, ``remap`` and ``ignore``.

        Args:
            folder: The folder.
            classes: Names, names by value, or the path of such a file.
            **given: Other attributes; None means not given.

        Raises:
            ConfigError: There is an unknown key, or a value of the wrong type.
            FormatError: The file is no JSON.
            FileNotFoundError: A file that is named is not there.
        """
        stored: dict[str, Any] = {}
        if classes is None and (folder / CLASSES_FILE).is_file():
            classes = folder / CLASSES_FILE
        if isinstance(classes, str | Path):
            stored = _read_classes(Path(classes))
            classes = stored.pop("classes", None)
        known = {f.name for f in dataclasses.fields(cls)} - {"names", "values"}
        if unknown := sorted(set(stored) - known):
            raise ConfigError(
                expected=f"the keys classes, {', '.join(sorted(known))}",
                got=", ".join(unknown),
                fix=f"Correct {CLASSES_FILE}.",
            )
        merged = stored | {key: value for key, value in given.items() if value is not None}
        try:
            return cls(**_typed(merged), **_named(classes))
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                expected="names of classes, and whole numbers to remap and ignore",
                got=str(error),
                fix='For example {"classes": ["floor", "wall"], "remap": {"7": 1}, "ignore": [9]}.',
            ) from error


def find_labels(cloud: PointCloud, name: str | None, place: Path) -> NDArray[np.int64] | None:
    """Return the values (N,) of a cloud as it was read, None where it has none.

    Args:
        cloud: The cloud.
        name: The field; None: what the reader took for labels, or else the likeliest field.
        place: The file, for the message.

    Raises:
        FormatError: The field is not there or holds other than whole numbers.
    """
    own = cloud.labels
    if name is None:
        values = _likeliest(cloud, LABEL_FIELDS) if own is None else own
        return None if values is None else values.astype(np.int64)
    if name in cloud.fields:
        return _whole(cloud.fields[name], name, place)
    if own is not None and name.lower() in LABEL_NAMES:  # the reader took it
        return own.astype(np.int64)
    raise FormatError(
        expected=f"a field {name!r} in {place}",
        got=", ".join(cloud.fields) or "no fields",
        fix="Name the field that holds the labels.",
    )


def find_instances(cloud: PointCloud, name: str | None, place: Path) -> NDArray[np.int64] | None:
    """Return the objects (N,) of a cloud as it was read, None where they are not known.

    Raises:
        FormatError: The field is not there or holds other than whole numbers.
    """
    if name is None:
        values = _likeliest(cloud, INSTANCE_FIELDS)
        return None if values is None else values.astype(np.int64)
    if name not in cloud.fields:
        raise FormatError(
            expected=f"a field {name!r} in {place}",
            got=", ".join(cloud.fields) or "no fields",
            fix="Name the field that holds the objects.",
        )
    return _whole(cloud.fields[name], name, place)


def read_beside(file: Path, kind: str, name: str | None) -> NDArray[np.int64] | None:
    """Read what lies beside a cloud: ``scan.labels.npy`` for ``scan.ply``; also .npz and .txt.

    Args:
        file: The file of the cloud.
        kind: ``"label"`` or ``"instance"``.
        name: The array in an NPZ file; None: the only one, or the likeliest.

    Returns:
        (N,) values, None where there is no such file.

    Raises:
        FormatError: The file is damaged or holds other than whole numbers.
    """
    for ending in (f"{kind}s", kind):
        for suffix in (".npy", ".npz", ".txt"):
            path = file.with_name(f"{file.stem}.{ending}{suffix}")
            if path.is_file():
                return _whole(_read_values(path, kind, name), ending, path)
    return None


def _read_values(path: Path, kind: str, name: str | None) -> NDArray[Any]:
    with parsing(path, "labels"):
        if path.suffix == ".txt":
            return np.array([float(word) for word in path.read_text(encoding="utf-8").split()])
        if path.suffix == ".npy":
            return np.array(map_npy(path))
    arrays = load_arrays(path)
    likely = (*LABEL_NAMES, *LABEL_FIELDS) if kind == "label" else INSTANCE_FIELDS
    wanted = [name] if name in arrays else [key for key in likely if key in arrays]
    if not wanted and len(arrays) == 1:
        wanted = list(arrays)
    if not wanted:
        raise malformed(path, "NPZ", f"there is no array {name or kind!r}")
    return arrays[str(wanted[0])]


def _whole(values: NDArray[Any], name: str, place: Path) -> NDArray[np.int64]:
    flat = values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values
    if not is_whole(flat):
        raise FormatError(
            expected="one whole number per point",
            got=f"{name!r} of shape {values.shape} of {values.dtype} in {place}",
            fix="Name another field, or round the labels.",
        )
    return flat.astype(np.int64)


def _likeliest(cloud: PointCloud, names: Sequence[str]) -> NDArray[Any] | None:
    known = {name.lower(): values for name, values in cloud.fields.items()}
    return next((known[name] for name in names if name in known and is_whole(known[name])), None)


def _read_classes(path: Path) -> dict[str, Any]:
    with parsing(path, "JSON"):
        content = parse_json(read_limited(path), path)
    keyed = isinstance(content, dict) and not all(_is_number(key) for key in content)
    return dict(content) if keyed else {"classes": content}


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _named(classes: Any) -> dict[str, Any]:
    if not classes:
        return {}
    if isinstance(classes, Mapping):
        pairs = sorted((int(value), str(name)) for value, name in classes.items())
        return {"names": tuple(n for _, n in pairs), "values": tuple(v for v, _ in pairs)}
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"the classes are {classes!r}")
    return {"names": tuple(classes)}


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(values)
    for key in ("field", "instance"):
        if not isinstance(typed.get(key, ""), str):
            raise TypeError(f"the {key} is {typed[key]!r}")
    if "remap" in typed:
        typed["remap"] = {int(old): int(new) for old, new in typed["remap"].items()}
    if "ignore" in typed:
        given = typed["ignore"]
        typed["ignore"] = tuple(map(int, [given] if isinstance(given, int) else given))
    return typed


def _brief(values: Sequence[int]) -> str:
    if list(values) == list(range(len(values))):
        return f"0 to {len(values) - 1}"
    return ", ".join(map(str, values[:20]))
