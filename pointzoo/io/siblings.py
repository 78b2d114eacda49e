"""What a mesh refers to: files beside it, and pictures, neither of which is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pointzoo.errors import FormatError
from pointzoo.intake import read_limited

_LARGEST_IMAGE, _LARGEST_FILE = 1 << 26, 1 << 30


class Siblings(Mapping[str, bytes]):
    """The material, texture and buffer files beside a mesh, read when trimesh asks for them.

    No name leads out of the folder of the mesh, and nothing but regular files is opened.
    """

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        """Take the folder of the mesh, and the one below it that names are relative to."""
        self._root, self._folder = root.resolve(), folder or root

    def __getitem__(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            KeyError: It is not there, elsewhere, or not a regular file of at most 1 GiB; trimesh
                goes on without a texture then.
        """
        try:
            wanted = (self._folder / name.strip().replace("\\", "/")).resolve()
            if not wanted.is_relative_to(self._root):
                raise KeyError(name)
            return read_limited(wanted, _LARGEST_FILE)
        except (OSError, ValueError, RuntimeError) as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        """Give the names of the files."""
        return (path.name for path in self._folder.iterdir() if path.is_file())

    def __len__(self) -> int:
        """Return the number of the files."""
        return sum(1 for _ in self)

    def namespaced(self, folder: str) -> Siblings:
        """Return the files as seen from a folder below, as trimesh's resolvers do."""
        return Siblings(self._root, self._folder / folder)


def require_small(image: Any) -> None:
    """Refuse a picture that a few bytes can blow up to gigabytes, before it is unpacked.

    Args:
        image: Of Pillow, not loaded yet.

    Raises:
        FormatError: It has more than 2**26 pixels, as many as 8192 x 8192.
    """
    width, height = image.size
    if width * height > _LARGEST_IMAGE:
        raise FormatError(
            expected=f"a texture of at most {_LARGEST_IMAGE:,} pixels",
            got=f"{width} x {height}",
            fix="Make it smaller.",
        )
