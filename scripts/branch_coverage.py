"""Fail when fewer than 95 % of the branches were taken.

``fail_under`` of coverage.py counts lines and branches together, so many covered lines could hide
branches that no test takes; this looks at the branches alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FLOOR = 95.0


def main(report: str) -> str | None:
    """Return what is wrong, or None.

    Args:
        report: File written by ``pytest --cov-report json:FILE``.
    """
    totals = json.loads(Path(report).read_text(encoding="utf-8"))["totals"]
    percent = 100.0 * totals["covered_branches"] / totals["num_branches"]
    if percent < FLOOR:
        return f"branch coverage {percent:.2f} % is below the floor of {FLOOR:.0f} %"
    sys.stdout.write(f"branch coverage {percent:.2f} % (floor {FLOOR:.0f} %)\n")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
