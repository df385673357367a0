"""What a telemetry row may carry besides its values: quality flags, labels and the report of an ingest."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class QualityFlag(enum.IntFlag):
    """Per-row quality bits (uint16 in every column format). A flagged row is kept; training leaves it out."""

    NONE = 0
    RANGE = 1
    FLAT_LINE = 2
    STUCK = 4
    UNIT_SWAP = 8
    CLOCK_JUMP = 16
    GAP = 32
    DUPLICATE = 64
    MISSING = 128


class Verdict(enum.StrEnum):
    """What the crew found; a fault's kind stands beside it (`Label.kind`)."""

    FAULT = "fault"
    FALSE_ALARM = "false_alarm"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Label:
    """The outcome of a work order on one pump: half-open interval [start_ms, end_ms)."""

    pump: str
    start_ms: int
    end_ms: int
    verdict: Verdict
    kind: str
    actor: str
    at_ms: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class IngestProblem:
    """One thing that was flagged or refused, with where it stands and how often."""

    what: str
    where: str
    rows: int


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of one file. Counts are rows; `already` rows were there before with the same values."""

    path: str
    digest: str
    accepted: int
    flagged: int
    refused: int
    already: int
    pumps: tuple[str, ...]
    start_ms: int | None
    end_ms: int | None
    problems: tuple[IngestProblem, ...]
