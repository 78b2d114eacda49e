"""LAS and LAZ through laspy (extra ``las``).

Reading keeps every dimension: x, y and z as integer * scale + offset in float64; red, green and
blue (16 bits, or 8 bits stored in 16: then none is above 255); the classification as labels, unless
all of it is 0, which the standard calls "never classified"; extra dimensions NormalX, NormalY,
NormalZ as normals; all others, standard and extra, as fields.

Writing puts them back: into the smallest point format that has the standard dimensions among the
fields, the others as extra bytes. What is not per point (coordinate system, waveforms, other
records) is left out.

Facts of the format: ASPRS LAS 1.4 R15, https://github.com/ASPRSorg/LAS.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import FloatArray, PointCloud
from pointzoo.errors import FormatError, MissingExtraError
from pointzoo.io import columns
from pointzoo.io.files import malformed, parsing, quiet
from pointzoo.io.raw import RawCloud

if TYPE_CHECKING:
    import laspy

_CHUNK = 1_000_000  # points decompressed at a time, so that memory follows the data, not the header
_SHORTEST_HEADER = 227
_LONGEST_HEADER = 375
_FORMATS = (0, 1, 2, 3, 6, 7, 8)  # those without waveforms, smallest first
_COORDS = ("X", "Y", "Z")
_COLORS = ("red", "green", "blue")
_NORMALS = ("NormalX", "NormalY", "NormalZ")
_EXTRA_TYPES = "i4 u4 f4 f8 i8 u8 i1 u1 i2 u2"
_LINEAR_UNIT_KEY = 3076  # GeoTIFF ProjLinearUnitsGeoKey
_UNITS = {9001: "metre", 9002: "foot", 9003: "foot"}


def read_las(path: Path) -> RawCloud:
    """Read a LAS or LAZ file.

    Raises:
        FormatError: The file is damaged, cut off or no LAS file.
        MissingExtraError: laspy is not installed.
    """
    laspy = _import_laspy()
    with parsing(path, "LAS"), np.errstate(all="ignore"):
        data = path.read_bytes()
        _check_header(path, data[:_LONGEST_HEADER], len(data))
        _check_chunks(path, io.BytesIO(data), len(data))
        with laspy.open(io.BytesIO(data), read_evlrs=False) as reader:
            header = reader.header
            chunks = [chunk.array for chunk in reader.chunk_iterator(_CHUNK)]
            unit = _unit(header)
        rows = np.concatenate(chunks) if chunks else np.empty(0, header.point_format.dtype())
        if len(rows) != header.point_count:
            raise malformed(path, "LAS", f"{len(rows)} of {header.point_count} points are there")
        points = laspy.ScaleAwarePointRecord(
            rows, header.point_format, header.scales, header.offsets
        )
        raw = columns.from_columns(_to_columns(points, header))
        scale = None if raw.colors is None else _full_scale(int(raw.colors.max(initial=0)))
        notes = () if unit else ("The file names no unit of length; it may be feet.",)
        return dataclasses.replace(raw, full_scale=scale, unit=unit, notes=notes)


def _full_scale(largest: int) -> float:
    """Return the colour that means 1: LAS has 16 bits, but many files fill only 8."""
    return 255.0 if largest <= 255 else 65_535.0


class LasChunks:
    """The points of a LAS or LAZ file a part at a time, each time it is iterated.

    A part has coordinates, colours and normals as the whole file has them (see :func:`read_las`),
    no labels and no fields.
    """

    def __init__(self, path: Path, rows: int) -> None:
        """Open the file; where it has colours, read it once for their scale.

        Args:
            path: The file.
            rows: Points of a part.

        Raises:
            FormatError: The file is damaged, cut off or no LAS file.
            MissingExtraError: laspy is not installed.
        """
        self._path, self._rows = path, rows
        self._scale: float | None = None
        with parsing(path, "LAS"):
            with path.open("rb") as stream:
                head = stream.read(_LONGEST_HEADER)
                size = path.stat().st_size
                _check_header(path, head, size)
                _check_chunks(path, stream, size)
            with _import_laspy().open(path, read_evlrs=False) as reader:
                self._count = int(reader.header.point_count)
        largest = [raw.colors.max() for raw in self._raw() if raw.colors is not None]
        if largest:
            self._scale = _full_scale(max(map(int, largest)))

    def __len__(self) -> int:
        """Return the number of points."""
        return self._count

    def __iter__(self) -> Iterator[PointCloud]:
        """Yield the points in order."""
        for raw in self._raw():
            yield dataclasses.replace(raw, full_scale=self._scale).to_cloud()

    def _raw(self) -> Iterator[RawCloud]:
        seen = 0
        with parsing(self._path, "LAS"):
            with _import_laspy().open(self._path, read_evlrs=False) as reader:
                names = set(reader.header.point_format.dimension_names)
                kept = [n for n in (*_COLORS, *_NORMALS) if n in names]
                for points in reader.chunk_iterator(self._rows):
                    with np.errstate(all="ignore"):
                        table = _coordinates(points, reader.header)
                    table |= {name: np.array(points[name]) for name in kept}
                    seen += len(points)
                    yield columns.from_columns(table)
            if seen != self._count:
                raise malformed(self._path, "LAS", f"{seen} of {self._count} points are there")


def _import_laspy() -> Any:
    try:
        import laspy
    except ImportError as error:
        raise MissingExtraError("laspy", "las") from error
    quiet("laspy")
    return laspy


def _check_header(path: Path, head: bytes, size: int) -> None:
    """Refuse what would let laspy loop or allocate by a number that the file cannot hold."""
    if len(head) < _SHORTEST_HEADER or head[:4] != b"LASF":
        raise malformed(path, "LAS", "it does not start with a LAS header")
    header_size, start, records = struct.unpack_from("<HII", head, 94)
    format_id, row_size, rows = struct.unpack_from("<BHI", head, 104)
    if head[25] >= 4 and len(head) >= 255:
        rows = struct.unpack_from("<Q", head, 247)[0]
    if start > size or records * 54 > max(0, start - header_size):
        raise malformed(path, "LAS", f"{records} records do not fit before the points")
    is_compressed = format_id & 0x80
    if not is_compressed and rows * row_size > size - start:
        raise malformed(path, "LAS", f"the header promises {rows} points, there are fewer")


def _check_chunks(path: Path, stream: BinaryIO, size: int) -> None:
    """Refuse a LAZ file whose table promises more chunks than there are bytes.

    The decompressor allocates by that number, and ends the process where there is no such memory.
    The table is where the first eight bytes of the points say, or where the last eight do.
    """
    stream.seek(96)
    (start,) = struct.unpack("<I", stream.read(4))
    stream.seek(104)
    if not stream.read(1)[0] & 0x80 or not start + 8 <= size:
        return  # not compressed; or cut off, which laspy says
    stream.seek(start)
    (place,) = struct.unpack("<q", stream.read(8))
    if place < 0:
        stream.seek(size - 8)
        (place,) = struct.unpack("<q", stream.read(8))
    if not start <= place <= size - 8:
        raise malformed(path, "LAS", f"the table of chunks is at {place} of {size} bytes")
    stream.seek(place)
    _, count = struct.unpack("<II", stream.read(8))
    if count > size:
        raise malformed(path, "LAS", f"{count} chunks in {size} bytes")
    import lazrs  # laspy needs it for such a file

    stream.seek(0)
    header = _import_laspy().LasHeader.read_from(stream)
    stream.seek(start)
    record = lazrs.LazVlr(header.vlrs.get("LasZipVlr")[0].record_data)
    total = sum(taken for _, taken in lazrs.read_chunk_table(stream, record))
    if total > size:
        raise malformed(path, "LAS", f"chunks of {total} bytes in {size}")


def _to_columns(points: Any, header: laspy.LasHeader) -> dict[str, NDArray[Any]]:
    table = _coordinates(points, header)
    for name in points.point_format.dimension_names:
        if name not in table and name not in _COORDS:
            table[name] = np.array(points[name])
    if not table["classification"].any():
        del table["classification"]
    return table


def _coordinates(points: Any, header: laspy.LasHeader) -> dict[str, NDArray[Any]]:
    parts = zip("xyz", _COORDS, header.scales, header.offsets, strict=True)
    return {name: np.asarray(points[key]) * scale + offset for name, key, scale, offset in parts}


def _unit(header: laspy.LasHeader) -> str | None:
    """The unit of length that the coordinate system names."""
    for record in header.vlrs:
        for key in getattr(record, "geo_keys", ()):
            if key.id == _LINEAR_UNIT_KEY and key.tiff_tag_location == 0:
                return _UNITS.get(key.value_offset)
        names = re.findall(r'UNIT\s*\[\s*"([^"]*)', getattr(record, "string", ""), re.IGNORECASE)
        for name in names:
            if "foot" in name.lower() or "feet" in name.lower():
                return "foot"
            if "met" in name.lower():
                return "metre"
    return None


def write_las(stream: BinaryIO, cloud: PointCloud, *, compress: bool) -> None:
    """Write a LAS or LAZ file.

    Coordinates become integers of the coarsest decimal scale from 0.01 down that gives every one
    back; where none does, of the finest that the extent allows in 32 bits (an extent of 1 km: a
    millionth of a metre), which rounds them. Colours are rounded to 16 bits. Labels that are no
    classification (negative, above 255, or all 0) become the extra dimension ``label``.

    Raises:
        FormatError: A coordinate is NaN or infinite, or a field has values that its dimension
            cannot hold.
        MissingExtraError: laspy is not installed.
    """
    laspy = _import_laspy()
    dimensions = _to_dimensions(cloud)
    header = laspy.LasHeader(point_format=_choose_format(dimensions))
    header.generating_software = "pointzoo"
    header.creation_date = datetime.date(2000, 1, 1)  # no clock in the bytes
    standard = set(header.point_format.standard_dimension_names)
    for name, values in dimensions.items():
        if name not in standard:
            width = f"{values.shape[1]}" if values.ndim == 2 else ""
            extra = laspy.ExtraBytesParams(name=name, type=f"{width}{values.dtype.str[1:]}")
            header.add_extra_dim(extra)
    parts = [_quantize(cloud.coords[:, axis]) for axis in range(3)]
    header.scales = np.array([scale for _, scale, _ in parts])
    header.offsets = np.array([offset for _, _, offset in parts])
    las = laspy.LasData(header)
    las.points = laspy.ScaleAwarePointRecord.zeros(len(cloud), header=header)
    for name, (integers, _, _) in zip(_COORDS, parts, strict=True):
        las[name] = integers
    for name, values in dimensions.items():
        las[name] = values
    las.write(stream, do_compress=compress)


def _to_dimensions(cloud: PointCloud) -> dict[str, NDArray[Any]]:
    """Everything but the coordinates by the name of its dimension."""
    table: dict[str, NDArray[Any]] = {}
    if cloud.colors is not None:
        levels = np.rint(cloud.colors.astype(np.float64) * 65_535).astype(np.uint16)
        if 0 < levels.max(initial=0) <= 255:
            raise FormatError(
                expected="a colour above 255 / 65535, or all black",
                got=f"{float(cloud.colors.max()):g} at most, which LAS readers take for 8 bits",
                fix="Brighten the colours, drop them, or write .ply.",
            )
        table |= zip(_COLORS, levels.T, strict=True)
    if cloud.normals is not None:
        table |= zip(_NORMALS, cloud.normals.T, strict=True)
    labels = cloud.labels
    if labels is not None:
        plain = labels.any() and labels.min() >= 0 and labels.max() <= 255
        name = columns.label_column(cloud.fields, "classification" if plain else "label")
        table[name] = columns.fit_type("labels", labels, "i4 i8", "LAS")
    fields = columns.with_plain_names(cloud.fields, {*"xyz", *_COORDS, *_COLORS, *table}, "LAS")
    for name, values in fields.items():
        table[name] = columns.fit_type(name, values, _EXTRA_TYPES, "LAS")
        is_short = values.ndim == 1 or values.shape[1] in (2, 3) or values.dtype == np.uint8
        if len(name) > 32 or not is_short:
            raise FormatError(
                expected="fields of 1 to 3 numbers per point under a name of at most 32 characters",
                got=f"{name!r} of shape {values.shape}",
                fix="Split or rename the field, or write .ply or .npz.",
            )
    return table


def _choose_format(dimensions: columns.Columns) -> int:
    """Pick the smallest point format that holds the standard dimensions."""
    laspy = _import_laspy()
    known = {n for i in _FORMATS for n in laspy.PointFormat(i).standard_dimension_names}
    wanted = known & set(dimensions)
    for format_id in _FORMATS:
        available = {d.name: d for d in laspy.PointFormat(format_id).standard_dimensions}
        if all(n in available and _holds(available[n], dimensions[n]) for n in wanted):
            return format_id
    best = 7 if "red" in wanted else 6
    for dimension in laspy.PointFormat(best).standard_dimensions:
        values = dimensions.get(dimension.name)
        if values is not None and not _holds(dimension, values):
            raise FormatError(
                expected=f"{dimension.name!r} of {dimension.num_bits} bits, as LAS has it",
                got=f"{values.dtype} from {values.min()} to {values.max()}",
                fix="Rename the field to keep it as an extra dimension: cloud.replace(fields=...).",
            )
    return best


def _holds(dimension: Any, values: NDArray[Any]) -> bool:
    """Whether a standard dimension can hold the values."""
    if dimension.dtype is not None and dimension.dtype.kind == "f":
        return values.ndim == 1 and values.dtype.kind in "fiu"
    if not columns.is_whole(values):
        return False
    signed = dimension.dtype is not None and dimension.dtype.kind == "i"
    low = -(2 ** (dimension.num_bits - 1)) if signed else 0
    high = 2 ** (dimension.num_bits - signed) - 1
    return bool(values.min(initial=0) >= low and values.max(initial=0) <= high)


def _remainder(value: float, scale: float) -> float:
    """How far a value lies beside the multiples of a scale, 0 if that is but rounding."""
    rest = value - round(value / scale) * scale
    return rest if abs(rest) > 1e-3 * scale else 0.0


def _quantize(values: FloatArray) -> tuple[NDArray[np.int32], float, float]:
    """Return integers, scale and offset of one axis."""
    low, high = float(values.min(initial=math.inf)), float(values.max(initial=-math.inf))
    if len(values) == 0:
        return np.empty(0, np.int32), 0.01, 0.0
    if not math.isfinite(high - low):
        raise FormatError(
            expected="finite coordinates for LAS",
            got=f"values from {low} to {high}",
            fix="Remove the others with cloud.drop_nonfinite(), or write .ply.",
        )
    limit = 2.0**31 - 1
    for exponent in range(2, 10):
        scale = 10.0**-exponent
        offset = 0.0 if max(-low, high) / scale < limit else float(math.floor((low + high) / 2))
        if (high - low) / scale >= limit:
            break
        offset += _remainder(float(values[0]) - offset, scale)
        steps = np.rint((values - offset) / scale)
        if np.abs(steps * scale + offset - values).max() <= 1e-3 * scale:
            return steps.astype(np.int32), scale, offset
    offset = float(math.floor((low + high) / 2))
    scale = 10.0 ** max(-9, math.ceil(math.log10((high - low + 1e-9) / limit)))
    return np.rint((values - offset) / scale).astype(np.int32), scale, offset
