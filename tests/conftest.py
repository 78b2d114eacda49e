"""Fixtures and rules for the whole suite: no network, reproducible hypothesis, one torch thread."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
_connect = socket.socket.connect


def _connect_locally(self: socket.socket, address: object) -> None:
    """Refuse every connection that would leave this machine."""
    local = self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "::1", "localhost")
    assert local, f"a test tried to connect to {address}"
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> object:
    """Fail a test that reaches for the network."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _connect_locally)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT
