"""The one door through which the compiled core comes in."""

from __future__ import annotations


def compiled() -> bool:
    """Say whether the compiled core is in use; without it every operation runs in PyTorch."""
    return False
