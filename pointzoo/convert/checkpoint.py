"""State dicts out of files, without running code from them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pointzoo.errors import FormatError
from pointzoo.io.files import check_is_file


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state dict of a ``.pth`` or ``.safetensors`` file without running code from it.

    Of a ``.pth`` with other entries (epoch, optimizer) the entry ``state_dict`` is taken.

    Raises:
        FormatError: The file is missing, damaged, holds more than tensors and plain values, or no
            state dict.
    """
    try:
        check_is_file(path)
        if path.suffix.lower() == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        _require_intact(path)
        with _harmless_globals():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            expected=f"tensors and plain values alone in {path}",
            got=str(error).splitlines()[0],
            fix="The file is damaged, or holds objects that could run code; ask for a state dict.",
        ) from error
    except Exception as error:  # whatever torch and safetensors raise for a damaged file
        raise FormatError(
            expected=f"a checkpoint in {path}",
            got=f"a damaged or another file ({type(error).__name__}: {error})".splitlines()[0],
            fix="Get the file again; .pth and .safetensors are understood.",
        ) from error
    while isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not (isinstance(loaded, Mapping) and all(isinstance(key, str) for key in loaded)):
        raise FormatError(
            expected=f"a state dict in {path}, at the top or under 'state_dict'",
            got=f"a {type(loaded).__name__}",
            fix="Save model.state_dict().",
        )
    return dict(loaded)


def _require_intact(path: Path) -> None:
    """Compare the checksums inside an archive, which torch does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not have its checksum")


class _Ignored:
    """Takes the place of a harmless object that is not needed, whatever it is made from."""

    def __new__(cls, *_: object, **__: object) -> _Ignored:
        """Drop the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


_NUMPY_NAMES = (
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.dtypes.Float32DType", "numpy.dtypes.Float64DType", "numpy.dtypes.Int64DType",
)  # fmt: skip
"""What figures beside the state dict are pickled as (``best_metric_value``)."""


@contextmanager
def _harmless_globals() -> Iterator[None]:
    """Let torch read numpy values as nothing; their own constructors are never called."""
    before = torch.serialization.get_safe_globals()
    stand_ins: list[Any] = []
    for full in _NUMPY_NAMES:
        module, _, name = full.rpartition(".")
        stand_ins.append(type(name, (_Ignored,), {"__module__": module}))
    torch.serialization.add_safe_globals(stand_ins)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
