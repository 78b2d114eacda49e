"""SECURITY.md names only checks that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

NAMED = r"`((?:\w+/)*\w+\.py):(\w+)`"


def test_every_check_that_is_named_exists(root: Path):
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    found = re.findall(NAMED, text)
    assert len(found) > 25
    for file, name in found:
        tree = ast.parse((root / "pointzoo" / file).read_text(encoding="utf-8"))
        names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert name in names, f"{file}:{name}"
    for path in re.findall(r"`((?:tests|benchmarks|pointzoo)/[\w./]+)`", text):
        assert (root / path).exists(), path
