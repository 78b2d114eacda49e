"""Builds the LDraw corpus: thousands of toy-brick parts, modelled by hand, at true scale.

Source: the LDraw parts library (www.ldraw.org, CC-BY 2.0; Debian package ``ldraw-parts``). The
file format is read as its specification describes it: https://www.ldraw.org/article/218.html,
back-face culling: https://www.ldraw.org/article/415.html.

Printed, stickered and merely recoloured variants of a part are left out: without texture they
have the same shape. LDraw's axes (x right, y down, z back; 1 unit = 0.4 mm) become metres, z up.

Shape legend: T triangles, N points.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from pointzoo.data.builders.ldraw_reader import Library, PartHeader
from pointzoo.data.builders.sampling import POINTS_PER_SHAPE, named_generator
from pointzoo.data.corpus import (
    CorpusHeader,
    Shape,
    ShapeRecord,
    Skipped,
    SourceFile,
    sha256_of,
    write_corpus,
)
from pointzoo.errors import CloudError, ConfigError, FormatError
from pointzoo.io.surface import sample_surface

LICENCE = "CC-BY-2.0"
METRES_PER_UNIT = 0.0004
TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Rotation from LDraw's axes (y down) to z up."""

MINIMUM_CLASS_SIZE = 20
INSTALL = (
    "Get it with `apt-get download ldraw-parts` (Debian, component non-free) and "
    "`dpkg -x ldraw-parts_*.deb DIR`; the folder is DIR/usr/share/ldraw."
)

# The first character of a title marks what is no part of its own: a sub-part or a moved name (~),
# a coloured shortcut (_), an alias (=), third-party (|).
_MARKS = "~_=|"
_DECORATED = re.compile(r"\b(pattern|sticker|print|printed)", re.IGNORECASE)
_VARIANT = re.compile(r"^(?P<base>[a-z]?\d+[a-z]?)[pd][0-9a-z]{2,4}(?P<rest>c\d\d)?\.dat$")


@dataclass(frozen=True)
class _Part:
    name: str
    header: PartHeader
    category: str


def build_ldraw(
    source: Path, out: Path, *, limit: int | None = None, progress: bool = True
) -> Path:
    """Write the LDraw corpus.

    Args:
        source: The library: a folder that holds ``parts`` and ``p``.
        out: The corpus folder to write.
        limit: Stop after this many shapes; all if None.
        progress: Show a progress bar on standard error.

    Returns:
        The corpus folder.

    Raises:
        ConfigError: ``source`` is not an LDraw library, or no part is left in it.
    """
    for needed in ("parts", "p"):
        if not (source / needed).is_dir():
            raise ConfigError(
                expected="an LDraw library (a folder with parts and p)",
                got=str(source),
                fix=INSTALL,
            )
    library = Library(source)
    parts = select_parts(library)
    drawn: list[tuple[_Part, Shape]] = []
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for part in track(parts, "parts", disable=not progress):
        result = _attempt(library, part, seen)
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            drawn.append((part, result))
        if len(drawn) == limit:
            break
    class_names = frequent(part.category for part, _ in drawn)
    shapes = [_labelled(shape, part.category, class_names) for part, shape in drawn]
    header = CorpusHeader(
        name="ldraw",
        description="Toy-brick parts of the LDraw library, without decorated variants.",
        command="pointzoo corpus ldraw" + (f" --limit {limit}" if limit is not None else ""),
        class_names=class_names,
        licence=f"{LICENCE}: the LDraw Parts Library, authors named per part and per sub-file",
        pretraining=True,
    )
    return write_corpus(out, header, shapes, files=_sub_files(library, shapes), skipped=skipped)


def select_parts(library: Library) -> list[_Part]:
    """Parts that have a shape of their own, in the order of their names."""
    names = library.part_names()
    known = set(names)
    chosen: list[_Part] = []
    for name in names:
        header = library.header(name)
        if not header.title or header.title[0] in _MARKS or _DECORATED.search(header.title):
            continue
        variant = _VARIANT.match(name)
        if variant and f"{variant['base']}{variant['rest'] or ''}.dat" in known:
            continue
        chosen.append(_Part(name, header, header.category))
    return chosen


def frequent(categories: Iterable[str]) -> tuple[str, ...]:
    """Categories with at least :data:`MINIMUM_CLASS_SIZE` members, sorted.

    A library so small that none has as many (as in tests) keeps all of them.
    """
    counts = Counter(categories)
    return tuple(sorted(c for c in counts if counts[c] >= MINIMUM_CLASS_SIZE) or sorted(counts))


def _attempt(library: Library, part: _Part, seen: dict[str, str]) -> Shape | Skipped:
    """Sample a part, or say why not; ``seen`` maps digests of triangles to names."""
    try:
        mesh = library.mesh(part.name)
        # Before the digest, so that an empty part is not called a duplicate of another empty one.
        sample = sample_surface(mesh.triangles, POINTS_PER_SHAPE, named_generator(part.name))
    except (CloudError, FormatError) as error:
        return Skipped(part.name, str(error))
    digest = sha256_of(np.round(mesh.triangles, 3).tobytes())
    if digest in seen:
        return Skipped(part.name, f"same triangles as {seen[digest]}")
    seen[digest] = part.name
    record = ShapeRecord(
        name=part.name.removesuffix(".dat"),
        label=-1,
        source=f"ldraw/parts/{part.name}: {part.header.title}",
        sha256=part.header.sha256,
        author=part.header.author,
        licence=LICENCE,
    )
    coords: NDArray[np.float64] = sample.coords @ TO_Z_UP.T * METRES_PER_UNIT
    colors = library.palette(mesh.colors[sample.triangle])
    return Shape(record, coords, sample.normals @ TO_Z_UP.T, colors)


def _labelled(shape: Shape, category: str, class_names: tuple[str, ...]) -> Shape:
    label = class_names.index(category) if category in class_names else -1
    return replace(shape, record=replace(shape.record, label=label))


def _sub_files(library: Library, shapes: list[Shape]) -> list[SourceFile]:
    """Every file read beside the parts themselves: other authors made many of them."""
    own = {f"{shape.record.name}.dat" for shape in shapes}
    return [
        SourceFile(f"ldraw/{path}", header.sha256, header.author, LICENCE)
        for path, header in library.read_files().items()
        if path.removeprefix("parts/") not in own
    ]
