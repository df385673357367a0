"""The reference of an imported file: rows as the file takes them, and the scores that its maker saw. CSV, UTF-8.

The first line names the channels, in any order, and `score`; every other line is one row of numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_trainer.foreign_scorer import ReferenceRows

REFERENCE_MAX_BYTES = 16 * 1024 * 1024
FEWEST, MOST = 20, 100_000
SCORE = "score"
CELL_MAX = 64


def parse_reference(data: bytes, channels: Sequence[str], what: str) -> ReferenceRows:
    """The rows in the order of `channels`, in the unit of the file.

    Raises:
        InputError: too large, not CSV, other columns, too few rows, a cell that is no number, or scores that are all the same.
    """
    if len(data) > REFERENCE_MAX_BYTES:
        raise InputError("is too large", what, expected=f"at most {REFERENCE_MAX_BYTES} bytes", found=len(data))
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        head = next(lines, [])
        places = _places(head, channels, what)
        rows = [_row(line, len(head), f"{what}: line {number}") for number, line in enumerate(lines, 2) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"is not CSV in UTF-8 ({error})", what) from error
    if not FEWEST <= len(rows) <= MOST:
        raise InputError("has another number of rows than proves anything", what, expected=f"{FEWEST} to {MOST}", found=len(rows))
    table = np.array(rows, np.float64)
    scores = table[:, head.index(SCORE)]
    if len(np.unique(scores)) < 2:
        raise InputError("holds the same score in every row, which proves nothing", what)
    return ReferenceRows(table[:, places].astype(np.float32), scores)


def write_reference(rows: np.ndarray, scores: np.ndarray, channels: Sequence[str]) -> bytes:
    """The CSV of rows float32 [n, c] and scores [n]; numbers in their shortest form that reads back the same."""
    lines = [",".join([*channels, SCORE])]
    for row, score in zip(rows.astype(np.float32), scores, strict=True):
        lines.append(",".join([*(repr(float(value)) for value in row), repr(float(score))]))
    return ("\n".join(lines) + "\n").encode("utf-8")


def _places(head: Sequence[str], channels: Sequence[str], what: str) -> list[int]:
    if len(set(head)) != len(head) or set(head) != {*channels, SCORE}:
        expected = ", ".join([*channels, SCORE])
        raise InputError("has other columns", f"{what}: line 1", expected=expected, found=", ".join(head)[:200])
    return [head.index(name) for name in channels]


def _row(line: Sequence[str], cells: int, what: str) -> list[float]:
    if len(line) != cells:
        raise InputError("has another number of cells than the first line", what, expected=cells, found=len(line))
    return [_number(cell, what) for cell in line]


def _number(cell: str, what: str) -> float:
    try:
        found = float(cell) if len(cell) <= CELL_MAX else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or abs(found) > 3e38:
        raise InputError("holds a cell that is no number", what, found=repr(cell[:40]))
    return found
