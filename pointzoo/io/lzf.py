"""LZF decompression, for PCD files of the kind ``binary_compressed``.

Facts of the format: https://oldhome.schmorp.de/marc/liblzf.html (Marc Lehmann's liblzf 3.6).
A control byte below 32 announces 1 to 32 literal bytes. Any other is a reference: its upper three
bits are the length less two (7: a byte with the rest follows), its lower five the upper bits of the
distance back less one, whose lower byte comes last.
"""

from __future__ import annotations

from pointzoo.errors import FormatError

LARGEST_RATIO = 89
"""Three bytes give 264 at most."""


def decompress(data: bytes, size: int) -> bytes:
    """Decompress a block.

    Args:
        data: The compressed bytes.
        size: Bytes to expect.

    Raises:
        FormatError: The block is damaged or gives another number of bytes.
    """
    out = bytearray()
    position, end = 0, len(data)
    while position < end:
        control = data[position]
        position += 1
        if control < 32:
            out += data[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7 and position < end:
            length += data[position]
            position += 1
        if position >= end:
            raise _damaged(len(out), size)
        start = len(out) - ((control & 31) << 8) - data[position] - 1
        position += 1
        length += 2
        if start < 0 or len(out) + length > size:
            raise _damaged(len(out), size)
        piece = out[start : start + length]
        repeats = -(-length // len(piece))  # above 1 where the reference overlaps what it writes
        out += (piece * repeats)[:length]
    if len(out) != size or position > end:
        raise _damaged(len(out), size)
    return bytes(out)


def _damaged(got: int, size: int) -> FormatError:
    return FormatError(
        expected=f"{size} bytes after LZF decompression",
        got=f"a block that breaks after {got}",
        fix="The file is damaged or cut off; get or export it again.",
    )
