"""List tampered inputs, each with the error that the library answers it with.

    python benchmarks/tampered_inputs.py > tampered.md

The inputs are those of ``tests/tamper.py``, which ``tests/test_tamper.py`` runs with limits of time
and memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tamper import CASES, attempt, prepare

from pointzoo.errors import PointzooError


def main() -> None:
    """Print a table in Markdown, and fail if an input was taken or gave another error."""
    print("| kind | tampered with | error | seconds |\n|---|---|---|--:|")
    failed = []
    with tempfile.TemporaryDirectory() as top:
        whole = {kind: prepare(kind, Path(top, kind)) for kind in {case.kind for case in CASES}}
        for number, case in enumerate(CASES):
            place = Path(top, str(number))
            place.mkdir()
            started = time.perf_counter()
            got = "nothing"
            try:
                attempt(case, whole[case.kind], place)
            except Exception as error:  # noqa: BLE001  # it is what is listed
                known = isinstance(error, PointzooError)
                text = error.got if isinstance(error, PointzooError) else str(error)
                text = " ".join(text.replace(f"{place}/", "").replace(f"{top}/", "").split())
                got = f"{type(error).__name__}: {text[:100].replace('|', '/')}"
            else:
                known = False
            if not known:
                failed.append(case.what)
            seconds = time.perf_counter() - started
            print(f"| {case.kind} | {case.what} | {got} | {seconds:.2f} |")
    print(f"\n{len(CASES)} inputs, {len(CASES) - len(failed)} refused by a typed error.")
    if failed:
        sys.exit(f"not refused: {', '.join(failed)}")


if __name__ == "__main__":
    main()
