"""The classes of attack that must each be tried, and where a test names one in its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ATTACKS = Path(__file__).parents[1] / "attack"
CLASSES = (
    "tampered", "truncated", "longer", "sparse", "zero-length", "deep-nested", "huge-integer", "rollback of root",
    "rollback of timestamp", "rollback of snapshot", "rollback of targets", "rollback of release", "rollback of deploy",
    "freeze", "fast-forward and recovery", "mix-and-match", "wrong key", "short threshold", "same key twice",
    "skipped root", "withheld root", "foreign site's path", "`..`", "absolute", "NUL", "backslash", "case-fold twins",
    "reserved names", "symlink", "FIFO", "device file", "zip bomb", "xz bomb",
    "package outside the device's own prefix signed by the deploy key", "replayed receipt", "forged receipt",
    "verification-to-use race on the stick",
)  # fmt: skip
"""Word by word the list that the product promises; a docstring names them so, whatever its capitals."""


def named_tests() -> Iterator[tuple[str, str]]:
    """Name and docstring of each attack test."""
    for path in sorted(ATTACKS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.stem}::{node.name}", " ".join((ast.get_docstring(node) or "").split())


def by_class() -> dict[str, list[str]]:
    """The tests of each class; none where nobody names it."""
    tests = list(named_tests())
    return {kind: [name for name, text in tests if _names(text, kind)] for kind in CLASSES}


def _names(text: str, kind: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(kind)}(?![\w-])", text, re.IGNORECASE) is not None
