"""Fuzz the readers and parsers: executions per target, crashes, hangs, memory.

    PYTHONPATH=. python benchmarks/fuzz.py --seconds 5             # of CPU for every target
    PYTHONPATH=. python benchmarks/fuzz.py "weight config" --seconds 60

Every target runs in a process of its own with a limit of memory, so that one that dies or hangs is
counted too. An input that crashes is kept in ``tests/fuzz/TARGET/``, where ``tests/test_fuzz.py``
finds it. The property: an input is taken, or refused by a typed error.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from fuzz_targets import TARGETS, execute, mutate  # noqa: E402  # needs the path

HANG = 10  # seconds of CPU for one input
GROWTH = 512 << 10  # kB of resident memory for one input


class HangError(BaseException):
    """Raised by the alarm."""


def work(name: str, seconds: float, seed: int, results: Any) -> None:
    """Fuzz one target and report each finding, and at the end the number of executions."""
    signal.signal(signal.SIGPROF, ring)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
    target, rng = TARGETS[name], Random(f"{name} {seed}")  # noqa: S311
    with tempfile.TemporaryDirectory() as top:
        seeds = target.seeds(Path(top))
        started, count = time.process_time(), 0
        while time.process_time() - started < seconds:
            data = mutate(target, seeds, rng)
            (Path(top) / "last").write_bytes(data)
            results.put(("last", data if count % 50 == 0 else b""))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.setitimer(signal.ITIMER_PROF, HANG)
            found = execute(target, data, Path(top) / "work")
            signal.setitimer(signal.ITIMER_PROF, 0)
            count += 1
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            if grown > GROWTH:
                results.put(("memory", data, f"{grown >> 10} MB"))
            if found is not None:
                kind = "hang" if isinstance(found, HangError) else "crash"
                results.put((kind, data, "".join(traceback.format_exception(found)[-3:])))
    results.put(("done", count, time.process_time() - started))


def ring(_signal: int, _frame: object) -> None:
    """Interrupt the input that takes too long."""
    raise HangError


def fuzz(name: str, seconds: float, seed: int) -> dict[str, int]:
    """Fuzz a target in a process, and keep what it finds."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    process = context.Process(target=work, args=(name, seconds, seed, results))
    process.start()
    found = {"executions": 0, "crash": 0, "hang": 0, "memory": 0}
    seen: set[str] = set()
    while True:
        try:
            kind, *more = results.get(timeout=60)
        except Exception:  # noqa: BLE001  # the queue is empty: the process died or hangs
            process.kill()
            found["hang" if process.exitcode is None else "crash"] += 1
            print(f"{name}: died or hung, exit code {process.exitcode}")
            break
        if kind == "done":
            found["executions"] = more[0]
            break
        if kind != "last":
            where = more[1].strip().splitlines()
            place = " | ".join(where[-4:])
            found[kind] += place not in seen
            if place not in seen:
                seen.add(place)
                keep(name, more[0])
                print(f"{name}: {kind}: {place[:600]}", flush=True)
    process.join(5)
    return found


def keep(name: str, data: bytes) -> None:
    """Store an input for the suite."""
    folder = TESTS / "fuzz" / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def main() -> None:
    """Fuzz some or all targets and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="all of them if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU for each")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = {name: fuzz(name, given.seconds, given.seed) for name in given.targets or TARGETS}
    print("\n| target | executions | crashes | hangs | memory |\n|---|--:|--:|--:|--:|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(map(str, row.values()))} |")
    print(f"| all | {' | '.join(str(sum(r[k] for r in rows.values())) for k in row)} |")


if __name__ == "__main__":
    main()
