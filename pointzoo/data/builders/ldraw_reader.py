"""Reads LDraw part files into triangles with outward winding.

Line types 1 (sub-file), 3 (triangle) and 4 (quadrilateral) make the surface; 2 and 5 are edges
drawn on it. Specification: https://www.ldraw.org/article/218.html; winding ("back-face culling"):
https://www.ldraw.org/article/415.html.

Shape legend: T triangles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointzoo.data.corpus import sha256_of
from pointzoo.errors import FormatError

MAIN_COLOR = 16
"""The colour code of "whatever colour the part is made in"."""

GREY = (160, 160, 160)
"""Stands for the main colour: a part has none of its own."""

MAX_DEPTH = 30
_FORMAT_FIX = "Check the library; the official one is at https://library.ldraw.org."


@dataclass(frozen=True)
class PartHeader:
    """What the first lines of a file say.

    Attributes:
        title: The first line.
        author: The ``Author:`` line.
        category: The ``!CATEGORY`` line, else the first word of the title.
        sha256: Of the file.
    """

    title: str
    author: str
    category: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle soup.

    Attributes:
        triangles: (T, 3, 3) float64, LDraw units, counter-clockwise seen from outside.
        colors: (T,) int64 LDraw colour codes; :data:`MAIN_COLOR` where the including file decides.
    """

    triangles: NDArray[np.float64]
    colors: NDArray[np.int64]

    def placed(self, matrix: NDArray[np.float64], color: int, flip: bool) -> Mesh:
        """Return the mesh as a type 1 line places it.

        Args:
            matrix: (3, 4) linear part and translation.
            color: Takes the place of the main colour.
            flip: Turn the surface inside out.
        """
        triangles = self.triangles @ matrix[:, :3].T + matrix[:, 3]
        if flip:
            triangles = triangles[:, ::-1]
        return Mesh(triangles, np.where(self.colors == MAIN_COLOR, color, self.colors))


@dataclass
class _Reading:
    """What has been read of a file so far, and its state of back-face culling."""

    meshes: list[Mesh] = field(default_factory=list)
    corners: list[list[float]] = field(default_factory=list)
    colors: list[int] = field(default_factory=list)
    clockwise: bool = False
    invert_next: bool = False

    def winding(self, words: list[str]) -> None:
        """Take in the words after ``0 BFC``."""
        if "INVERTNEXT" in words:
            self.invert_next = True
        if "CW" in words:
            self.clockwise = True
        elif "CCW" in words or words == ["CERTIFY"]:
            self.clockwise = False

    def polygon(self, words: list[str]) -> None:
        """Take in a triangle or, as two triangles, a quadrilateral."""
        count = int(words[0])
        values = [float(word) for word in words[2 : 2 + 3 * count]]
        if len(values) != 3 * count:
            raise ValueError("too few numbers")
        points = [values[i : i + 3] for i in range(0, 3 * count, 3)]
        if self.clockwise:
            points.reverse()
        for i in range(1, count - 1):
            self.corners.append(points[0] + points[i] + points[i + 1])
            self.colors.append(int(words[1], 0))

    def mesh(self) -> Mesh:
        """Everything read, as one mesh."""
        triangles = np.array(self.corners, dtype=np.float64).reshape(-1, 3, 3)
        own = Mesh(triangles, np.array(self.colors, dtype=np.int64))
        meshes = [*self.meshes, own]
        return Mesh(
            np.concatenate([mesh.triangles for mesh in meshes]),
            np.concatenate([mesh.colors for mesh in meshes]),
        )


class Library:
    """An LDraw library on disk.

    Args:
        root: The folder that holds ``parts`` and ``p``.
    """

    def __init__(self, root: Path) -> None:
        """Index the file names (the format ignores their case)."""
        self._paths: dict[str, Path] = {}
        self._root = root
        for folder in ("p", "parts"):  # a part goes before a primitive of the same name
            for path in sorted((root / folder).rglob("*.dat")):
                self._paths[path.relative_to(root / folder).as_posix().lower()] = path
        self._headers: dict[str, PartHeader] = {}
        self._used: set[str] = set()
        self._colors = _read_colors(root / "LDConfig.ldr")
        # Primitives are few and used everywhere; sub-parts are many and used by their neighbours.
        self._primitive = lru_cache(maxsize=None)(self._read)
        self._part = lru_cache(maxsize=64)(self._read)

    def part_names(self) -> list[str]:
        """Names of the files directly in ``parts``, sorted."""
        folder = self._root / "parts"
        return sorted(name for name, path in self._paths.items() if path.parent == folder)

    def header(self, name: str) -> PartHeader:
        """Header of a file.

        Raises:
            FormatError: There is no such file.
        """
        if name not in self._headers:
            data = self._bytes(name)
            self._headers[name] = _header(data, sha256_of(data))
        return self._headers[name]

    def mesh(self, name: str) -> Mesh:
        """The surface of a part with all its sub-files.

        Raises:
            FormatError: A file is missing or malformed, or files refer to each other in circles.
        """
        return self._part(name, 0)

    def read_files(self) -> dict[str, PartHeader]:
        """Headers of all files that meshes were read from so far, by path below the library."""
        return {
            self._paths[name].relative_to(self._root).as_posix(): self.header(name)
            for name in sorted(self._used)
        }

    def palette(self, codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return sRGB (len(codes), 3) of colour codes; ``0x2RRGGBB`` is a direct colour."""
        unique, inverse = np.unique(codes, return_inverse=True)
        table = [self._rgb(int(code)) for code in unique]
        return np.array(table, dtype=np.uint8).reshape(-1, 3)[inverse]

    def _rgb(self, code: int) -> tuple[int, int, int]:
        if code >= 0x2000000:
            return (code >> 16) & 255, (code >> 8) & 255, code & 255
        return self._colors.get(code, GREY)

    def _bytes(self, name: str) -> bytes:
        path = self._paths.get(name)
        if path is None:
            raise FormatError(
                expected=f"the LDraw file {name!r}", got="no such file", fix=_FORMAT_FIX
            )
        return path.read_bytes()

    def _read(self, name: str, depth: int) -> Mesh:
        if depth > MAX_DEPTH:
            raise FormatError(
                expected="files that do not refer to each other in circles",
                got=name,
                fix=_FORMAT_FIX,
            )
        reading, lines = _Reading(), _text(self._bytes(name))
        self._used.add(name)
        for line in lines:
            self._take(line.split(), reading, name, depth)
        return reading.mesh()

    def _take(self, words: list[str], reading: _Reading, name: str, depth: int) -> None:
        """Take in one line of a file."""
        try:
            if words[:2] == ["0", "BFC"]:
                reading.winding(words[2:])
            elif words[:1] == ["1"]:
                reading.meshes.append(self._placed(words, reading.invert_next, depth))
                reading.invert_next = False
            elif words[:1] in (["3"], ["4"]):
                reading.polygon(words)
        except FormatError:
            raise
        except (ValueError, IndexError) as error:
            raise FormatError(
                expected=f"a line of type {words[0]} in {name}",
                got=repr(" ".join(words)),
                fix=_FORMAT_FIX,
            ) from error

    def _placed(self, words: list[str], invert: bool, depth: int) -> Mesh:
        values = np.array([float(word) for word in words[2:14]])
        matrix = np.concatenate([values[3:].reshape(3, 3), values[:3, None]], axis=1)  # (3, 4)
        name = " ".join(words[14:]).replace("\\", "/").lower()
        path = self._paths.get(name)
        primitive = path is not None and path.is_relative_to(self._root / "p")
        mesh = self._primitive(name, depth + 1) if primitive else self._part(name, depth + 1)
        mirrored = bool(np.linalg.det(matrix[:, :3]) < 0)
        return mesh.placed(matrix, int(words[1], 0), mirrored != invert)


def _text(data: bytes) -> list[str]:
    return data.decode("utf-8", errors="replace").splitlines()


def _header(data: bytes, sha256: str) -> PartHeader:
    title, author, category = "", "unknown", ""
    for number, line in enumerate(_text(data)):
        words = line.split()
        if words and words[0] != "0":
            break
        if number == 0:
            title = " ".join(words[1:])
        elif words[1:2] == ["Author:"]:
            author = " ".join(words[2:]) or author
        elif words[1:2] == ["!CATEGORY"]:
            category = " ".join(words[2:])
    first = title.split()[0] if title else ""
    return PartHeader(title, author, category or re.sub(r"[^A-Za-z]", "", first), sha256)


def _read_colors(path: Path) -> dict[int, tuple[int, int, int]]:
    """Colour codes of ``LDConfig.ldr``; none where the file is missing."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"!COLOUR\s+\S+\s+CODE\s+(\d+)\s+VALUE\s+#([0-9A-Fa-f]{6})", text)
    colors = {int(c): (int(v[:2], 16), int(v[2:4], 16), int(v[4:], 16)) for c, v in found}
    colors.pop(MAIN_COLOR, None)
    return colors
