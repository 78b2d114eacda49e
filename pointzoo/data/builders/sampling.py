"""What every corpus builder draws with: a fixed number of points, and randomness by name."""

from __future__ import annotations

import hashlib

import numpy as np

POINTS_PER_SHAPE = 2048
"""How many points every shape of a built corpus has (the count the DCGLR paper trains on)."""


def named_generator(name: str) -> np.random.Generator:
    """Return a random generator that depends on a name and on nothing else.

    Args:
        name: Any text, for instance the path of the model inside its archive.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
