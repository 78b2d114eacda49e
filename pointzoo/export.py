"""Features of files, written to files: what ``pointzoo features`` does.

Shape legend: N points, C point channels, D scene channels, T tokens.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, FormatError
from pointzoo.features import Features
from pointzoo.io.files import replacing
from pointzoo.viz import pca_colors, render_cloud

FORMATS = (".npz", ".npy", ".ply")


def export_features(
    encoder: PointEncoder,
    files: Sequence[Path],
    out: Path,
    *,
    pca: bool = False,
) -> list[Path]:
    """Compute the features of files and write them.

    Args:
        encoder: Any encoder.
        files: Point cloud files; at least one.
        out: For one file the file to write, ending in one of :data:`FORMATS`. For several, or if it
            is a folder, the folder that gets ``<stem>.npz`` for each; it is made if missing.
        pca: Also write ``<stem>.pca.ply`` and ``<stem>.pca.png``, coloured by the first three
            principal components of the point features of that file.

    Returns:
        All files written.

    Raises:
        ConfigError: ``out`` does not fit, or two files would get the same name.
        PointzooError: A file cannot be read, or its points cannot be used.
    """
    targets = plan_targets(files, out)
    written = []
    for file, target in zip(files, targets, strict=True):
        cloud = io.read(file)
        features = encoder.extract(cloud)
        write_features(target, features, cloud)
        written.append(target)
        if pca:
            written += _write_pca(target, features, cloud)
    return written


def plan_targets(files: Sequence[Path], out: Path) -> list[Path]:
    """Say which file each input is written to, and make the folder they go to.

    Raises:
        ConfigError: See :func:`export_features`.
    """
    if not files:
        raise ConfigError(expected="at least one file", got="none", fix="Name a file.")
    if len(files) == 1 and not out.is_dir():
        if out.suffix.lower() not in FORMATS:
            raise ConfigError(
                expected=f"an output that ends in {', '.join(FORMATS)}, or a folder",
                got=str(out),
                fix="Choose one; .npz holds everything.",
            )
        return [out]
    if out.suffix.lower() in FORMATS or out.is_file():
        raise ConfigError(
            expected=f"a folder for the features of {len(files)} files",
            got=str(out),
            fix="Name a folder; it is made if missing.",
        )
    names = Counter(file.stem for file in files)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigError(
            expected="input files with different names",
            got=f"several called {', '.join(twice)}",
            fix="Compute them in separate calls.",
        )
    out.mkdir(parents=True, exist_ok=True)
    return [out / f"{file.stem}.npz" for file in files]


def write_features(path: Path, features: Features, cloud: PointCloud) -> None:
    """Write features; the same features give the same bytes.

    ``.npz`` holds ``point`` (N, C), ``scene`` (D,), ``coords`` (N, 3) of the points as read, and
    where the encoder has tokens ``tokens`` (T, C) and ``token_coords`` (T, 3). ``.npy`` holds the
    point matrix alone. ``.ply`` holds the cloud with all its fields and ``feature_0`` and so on.

    Args:
        path: The file, ending in one of :data:`FORMATS`; it appears at once.
        features: What to write.
        cloud: The cloud that they belong to.

    Raises:
        FormatError: The ending is unknown, or the cloud has fields with the names of features.
    """
    ending = path.suffix.lower()
    if ending == ".npz":
        arrays = {
            "point": features.point,
            "scene": features.scene,
            "coords": cloud.coords,
            "tokens": features.tokens,
            "token_coords": features.token_coords,
        }
        with replacing(path) as stream:
            _write_npz(stream, {k: v for k, v in arrays.items() if v is not None})
    elif ending == ".npy":
        with replacing(path) as stream:
            np.lib.format.write_array(stream, features.point, allow_pickle=False)
    elif ending == ".ply":
        io.write(path, _with_features(cloud, features))
    else:
        raise FormatError(
            expected=f"an output that ends in {', '.join(FORMATS)}",
            got=path.name,
            fix="Choose one; .npz holds everything.",
        )


def _write_npz(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: no clock enters the bytes
            with archive.open(entry, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.ascontiguousarray(values), allow_pickle=False)


def _with_features(cloud: PointCloud, features: Features) -> PointCloud:
    columns = {f"feature_{i}": column for i, column in enumerate(features.point.T)}
    taken = sorted(set(columns) & set(cloud.fields))
    if taken:
        raise FormatError(
            expected="a cloud without fields called feature_0 and so on",
            got=", ".join(taken[:3]),
            fix="Write .npz, or remove the fields from the input.",
        )
    return cloud.replace(fields={**cloud.fields, **columns})


def _write_pca(target: Path, features: Features, cloud: PointCloud) -> list[Path]:
    colors = pca_colors(features.point)
    ply, png = (target.with_name(f"{target.stem}.pca{ending}") for ending in (".ply", ".png"))
    # whole steps of 1/255 are stored as bytes, which every viewer understands
    levels = np.rint(colors * 255.0).astype(np.uint8)
    io.write(ply, cloud.replace(colors=levels))
    render_cloud(cloud.coords, colors, png)
    return [ply, png]
