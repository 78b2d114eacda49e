"""The benchmarks of papers as declarations, and what runs any of them."""

from __future__ import annotations

from pointzoo.protocols.run import run_benchmark, summarise
from pointzoo.protocols.table import PROTOCOLS, Protocol, Published, get_protocol

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Published",
    "get_protocol",
    "run_benchmark",
    "summarise",
]
