"""Features of files, written to files: what ``pointzoo features`` does.

Shape legend: N points, C point channels, D scene channels, T tokens.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pointzoo import io
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import PointEncoder
from pointzoo.errors import ConfigError, FormatError
from pointzoo.features import Features, evaluating
from pointzoo.io.chunks import CHUNK_POINTS, Chunks, CloudChunks
from pointzoo.io.files import check_is_file, replacing
from pointzoo.io.las import LasChunks
from pointzoo.tasks.progress import Bar, progress_bar
from pointzoo.tiling import VoxelEncoder, compute_tiles, to_half, whole_points
from pointzoo.tiling.files import STREAMED, write_scan
from pointzoo.tiling.store import FolderStore
from pointzoo.viz import pca_colors, render_cloud

FORMATS = (".npz", ".npy", ".ply")

LARGEST_IN_MEMORY = 2 * 10**9
"""Bytes of features that are held at once where a format or a picture needs all of them."""


def export_features(
    encoder: PointEncoder,
    files: Sequence[Path],
    out: Path,
    *,
    pca: bool = False,
    half: bool = False,
    progress: bool = False,
    report: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Compute the features of files and write them.

    A scan that the encoder computes in tiles goes to ``.npz`` or ``.npy`` a part at a time, so that
    memory does not grow with it. Finished tiles wait in ``.<name>.tiles`` beside the target: after
    a run that was killed the same call goes on where it stopped.

    Args:
        encoder: Any encoder.
        files: Point cloud files; at least one.
        out: For one file the file to write, ending in one of :data:`FORMATS`. For several, or if it
            is a folder, the folder that gets ``<stem>.npz`` for each; it is made if missing.
        pca: Also write ``<stem>.pca.ply`` and ``<stem>.pca.png``, coloured by the first three
            principal components of the point features of that file.
        half: Write features in float16.
        progress: Show progress on stderr.
        report: Called with a line on every scan that was cut into tiles.

    Returns:
        All files written.

    Raises:
        ConfigError: ``out`` does not fit, or two files would get the same name.
        PointzooError: A file cannot be read, or its points cannot be used.
    """
    targets = plan_targets(files, out)
    if half and any(target.suffix.lower() == ".ply" for target in targets):
        raise ConfigError(
            expected="an output that holds float16, .npz or .npy",
            got=".ply",
            fix="Leave half out, or write another format.",
        )
    written = []
    for file, target in zip(files, targets, strict=True):
        scan = _open(encoder, file)
        if isinstance(scan, PointCloud):
            written += _export_cloud(encoder, scan, target, pca=pca, half=half)
            continue
        if pca or target.suffix.lower() not in STREAMED:
            _require_fits(scan, encoder.out_channels)
            written += _export_cloud(encoder, io.read(file), target, pca=pca, half=half)
            continue
        with progress_bar(file.name, shown=progress) as bar:
            report(_export_scan(encoder, scan, target, half=half, bar=bar))
        written.append(target)
    return written


def _open(encoder: PointEncoder, file: Path) -> PointCloud | Chunks:
    """Read a file, or open it for reading in parts if the encoder needs tiles for it."""
    limit = whole_points(encoder)
    if limit is None:
        return io.read(file)
    if file.suffix.lower() in (".las", ".laz"):
        check_is_file(file)
        chunks = LasChunks(file, CHUNK_POINTS)
        return chunks if len(chunks) > limit else io.read(file)
    cloud = io.read(file)
    if len(cloud) <= limit:
        return cloud
    return CloudChunks(cloud.replace(labels=None, fields={}))  # what no encoder reads is let go


def _require_fits(scan: Chunks, channels: int) -> None:
    size = len(scan) * channels * 4
    if size > LARGEST_IN_MEMORY:
        raise ConfigError(
            expected=f"features of at most {LARGEST_IN_MEMORY / 1e9:.1f} GB for .ply and pictures",
            got=f"{len(scan):,} points with {channels} features, {size / 1e9:.1f} GB",
            fix="Write .npy or .npz, without pictures; these are written a part at a time.",
        )


def _export_cloud(
    encoder: PointEncoder, cloud: PointCloud, target: Path, *, pca: bool, half: bool
) -> list[Path]:
    features = encoder.extract(cloud)
    kept = dataclasses.replace(features, point=to_half(features.point)) if half else features
    write_features(target, kept, cloud)
    return [target, *(_write_pca(target, features, cloud) if pca else ())]


def _export_scan(
    encoder: PointEncoder, chunks: Chunks, target: Path, *, half: bool, bar: Bar
) -> str:
    """Compute a scan in tiles, write it, and return a line on how it was cut."""
    stores: list[FolderStore] = []

    def make_store(*what: Any) -> FolderStore:
        bar.start("features", what[1])
        stores.append(FolderStore(target.with_name(f".{target.name}.tiles"), *what))
        return stores[0]

    bar.start("reading", 2 * len(chunks))
    with evaluating(encoder):
        scan = compute_tiles(
            cast(VoxelEncoder, encoder),
            chunks,
            half=half,
            make_store=make_store,
            after_points=bar.advance,
            after_tile=bar.advance,
        )
    passes = 1 if target.suffix.lower() == ".npy" else 2
    bar.start("writing", passes * len(chunks))
    dtype = np.float16 if half else np.float32
    write_scan(target, scan, chunks, dtype=dtype, after_points=bar.advance)
    stores[0].remove()
    again = f", {stores[0].resumed} of them from a run before" * bool(stores[0].resumed)
    return scan.summary() + again


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
