"""The process inside Blender that makes Infinigen meshes, seen from outside.

One process forks a child for every object (``infinigen_worker.py``). Here it is started in an
environment that never varies, asked for one mesh after the other, and killed with its children
when an answer does not come in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pointzoo.errors import ConfigError

START_LIMIT_S = 300.0
ATTEMPTS = 2
"""A fork of a program with threads hangs now and then; the second try tells that from slowness."""

TOO_SLOW = "took longer than the time limit"
INSTALL = (
    "Make a Python 3.11 environment with `pip install bpy==4.2.0 'numpy<2'` and Infinigen as "
    "docs/corpora.md says, and pass its interpreter."
)


class WorkerProcess:
    """A worker process that is started when needed and killed when it takes too long.

    Args:
        python: Interpreter of the Blender environment.
        script: What it runs.
        modules: Modules to import before the first fork.
        number: Which of several workers this is; it decides the processor.
        folder: Where the working directories of the process are made.
    """

    def __init__(
        self, python: Path, script: Path, modules: Sequence[str], number: int, folder: Path
    ) -> None:
        """Remember what to start; nothing is started yet."""
        self.versions = ""
        self._command = [str(python.absolute()), str(script.absolute()), *modules]
        self._environment = _environment(number)
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> WorkerProcess:
        """Return itself; leaving the block ends the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._stop()

    def make(self, request: dict[str, Any], limit_s: float) -> str:
        """Have one mesh made; the reason in words if there is none."""
        reason = ""
        for _ in range(ATTEMPTS):
            process = self._process or self._start()
            answer, late = _ask(process, json.dumps(request), limit_s)
            if answer is not None:
                return "" if answer["ok"] else str(answer["error"])
            self._stop()
            reason = TOO_SLOW if late else "the worker process died"
        return reason

    def _start(self) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(  # noqa: S603 - the interpreter the caller names
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=self._environment,
                cwd=tempfile.mkdtemp(dir=self._folder),
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                expected="the Python interpreter of a Blender environment",
                got=f"{self._command[0]}: {error}",
                fix=INSTALL,
            ) from error
        self._process = process
        ready, _ = _ask(process, None, START_LIMIT_S)
        if ready is None:
            self._stop()
            raise ConfigError(
                expected="an interpreter that can import bpy and infinigen",
                got=f"{self._command[0]}, where the worker did not start",
                fix=INSTALL,
            )
        self.versions = f"infinigen {ready['infinigen']}, bpy {ready['bpy']}"
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The whole group: the child that makes the object may be the one that hangs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _environment(number: int) -> dict[str, str]:
    """A small environment that is the same on every run: Blender's results depend on it.

    Its length and even the name of the home folder move the addresses by which Blender orders
    some of its work, and settings in that folder change what it allocates: so home is the working
    directory, always of the same name and always new.
    """
    fixed = {
        "HOME": ".",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "POINTZOO_WORKER": str(number),
        "PYTHONHASHSEED": "0",
        # Else the worker would import the module of this name beside it instead of the package.
        "PYTHONSAFEPATH": "1",
    }
    libraries = os.environ.get("LD_LIBRARY_PATH")
    return fixed | ({"LD_LIBRARY_PATH": libraries} if libraries else {})


def _ask(
    process: subprocess.Popen[str], request: str | None, limit_s: float
) -> tuple[dict[str, Any] | None, bool]:
    """Send a line, read a line; (None, whether it was too late) if no answer came."""
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_s, give_up)
    timer.start()
    try:
        if request is not None:
            process.stdin.write(request + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        return (json.loads(line) if line else None), late.is_set()
    except (BrokenPipeError, ValueError):
        return None, late.is_set()
    finally:
        timer.cancel()
