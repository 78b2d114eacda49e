"""Predictions for files, written to files: what ``pointzoo predict`` does.

Shape legend: N points, K classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.errors import ConfigError, FormatError
from pointzoo.finetuning.model import Model
from pointzoo.io.files import replacing
from pointzoo.tasks.progress import progress_bar
from pointzoo.viz import classes_figure

CLASSES_FILE = "classes.json"


def predict_files(
    model: Model,
    files: Sequence[Path],
    out: Path,
    *,
    votes: int = 1,
    picture: Path | None = None,
    progress: bool = False,
) -> list[Path]:
    """Predict for files and write copies of them with what was predicted.

    A copy holds everything that was read from the file. Labels become the predicted ones
    (``classification`` in LAS where it can hold them), and there are new fields, ``confidence``
    among them; where the file had labels or a field of the same name, the old ones are kept under
    the name with ``input_`` before it.

    Args:
        model: A trained model.
        files: Point cloud files; at least one.
        out: For one file the file to write. For several, or if it is a folder, the folder that gets
            a file of the same name for each, and ``classes.json`` with the class names; it is made
            if missing. A format that cannot be written becomes ``.ply``.
        votes: See :meth:`Model.predict`.
        picture: For one file, a PNG with the points in the colours of their classes. For several a
            folder that gets ``<stem>.png`` for each.
        progress: Show a progress bar on stderr.

    Returns:
        All files written.

    Raises:
        ConfigError: ``out`` does not fit, or two files would get the same name.
        PointzooError: A file cannot be read, or its points cannot be used.
        OSError: A file cannot be written.
    """
    targets = plan_outputs(files, out)
    pictures = _plan_pictures(files, picture)
    written = []
    with progress_bar("predict", shown=progress) as bar:
        bar.start("files", len(files))
        for file, target, image in zip(files, targets, pictures, strict=True):
            cloud = io.read(file)
            prediction = model.predict(cloud, votes=votes)
            fields = prediction.point_fields(len(cloud))
            io.write(target, with_prediction(cloud, fields))
            written.append(target)
            if image is not None:
                written.append(
                    classes_figure(cloud.coords, fields["label"], model.class_names, image)
                )
            bar.advance()
    if out.is_dir():
        with replacing(out / CLASSES_FILE) as stream:
            stream.write((json.dumps(list(model.class_names), indent=1) + "\n").encode())
        written.append(out / CLASSES_FILE)
    return written


def with_prediction(cloud: PointCloud, fields: Any) -> PointCloud:
    """Return a cloud with predicted fields; see :func:`predict_files`.

    Args:
        cloud: N points.
        fields: What a prediction's ``point_fields`` returned.
    """
    kept: dict[str, NDArray[Any]] = dict(cloud.fields)
    if cloud.labels is not None:
        kept = _renamed(kept, "input_label", cloud.labels)
    for name, values in fields.items():
        if name != "label":
            if name in kept:
                kept = _renamed(kept, f"input_{name}", kept.pop(name))
            kept[name] = values
    return cloud.replace(labels=np.asarray(fields["label"], np.int64), fields=kept)


def plan_outputs(files: Sequence[Path], out: Path) -> list[Path]:
    """Say which file each input is written to, and make the folder they go to.

    Raises:
        ConfigError: See :func:`predict_files`.
    """
    if not files:
        raise ConfigError(expected="at least one file", got="none", fix="Name a file.")
    if len(files) == 1 and not out.is_dir():
        if out.suffix.lower() not in io.WRITABLE:
            raise ConfigError(
                expected=f"an output that ends in {', '.join(io.WRITABLE)}, or a folder",
                got=str(out),
                fix="Choose one; .ply, .las and .npz hold every field.",
            )
        if out.suffix.lower() == ".npy":
            raise FormatError(
                expected="a format that holds labels", got=".npy", fix="Write .npz or .ply."
            )
        return [out]
    if out.suffix.lower() in io.WRITABLE or out.is_file():
        raise ConfigError(
            expected=f"a folder for the predictions of {len(files)} files",
            got=str(out),
            fix="Name a folder; it is made if missing.",
        )
    names = [_output_name(file) for file in files]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or any(file.parent.resolve() == out.resolve() for file in files):
        raise ConfigError(
            expected="inputs with different names, outside the output folder",
            got=", ".join(twice) or str(out),
            fix="Predict for them in separate calls, or name another folder.",
        )
    out.mkdir(parents=True, exist_ok=True)
    return [out / name for name in names]


def _plan_pictures(files: Sequence[Path], picture: Path | None) -> list[Path | None]:
    if picture is None:
        return [None] * len(files)
    if len(files) == 1 and picture.suffix.lower() == ".png":
        return [picture]
    if picture.suffix:
        raise ConfigError(
            expected="a .png for one file, a folder for several",
            got=str(picture),
            fix="Name a folder; it is made if missing.",
        )
    picture.mkdir(parents=True, exist_ok=True)
    return [picture / f"{file.stem}.png" for file in files]


def _output_name(file: Path) -> str:
    ending = file.suffix.lower()
    fits = ending in io.WRITABLE and ending != ".npy"
    return file.name if fits else f"{file.stem}.ply"


def _renamed(
    fields: dict[str, NDArray[Any]], name: str, values: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return fields with another one, under a name that is free."""
    while name in fields:
        name = f"input_{name}"
    return {**fields, name: values}
