"""What became of every row of an ingest, counted while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pumpdeck_fleet.core.telemetry import IngestProblem

MOST_PROBLEMS = 60


@dataclass(slots=True)
class _Problem:
    rows: int
    first_row: int


@dataclass(slots=True)
class Tally:
    """Counts of rows, and what was wrong with some of them: how often, and where first."""

    accepted: int = 0
    flagged: int = 0
    refused: int = 0
    already: int = 0
    pumps: set[str] = field(default_factory=set)
    start_ms: int | None = None
    end_ms: int | None = None
    _problems: dict[tuple[str, str], _Problem] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that were looked at."""
        return self.accepted + self.refused + self.already

    def note(self, what: str, subject: str, rows: int, first_row: int) -> None:
        """Something was wrong with `rows` rows; `first_row` is the first of them, -1 for the file as a whole."""
        known = self._problems.setdefault((what, subject), _Problem(0, first_row))
        known.rows += rows

    def refuse(self, what: str, subject: str, rows: int, first_row: int) -> None:
        """Rows were left out."""
        self.refused += rows
        self.note(what, subject, rows, first_row)

    def took(self, pump: str, start_ms: int, end_ms: int) -> None:
        """Rows of a pump in this interval were taken."""
        self.pumps.add(pump)
        self.start_ms = start_ms if self.start_ms is None else min(self.start_ms, start_ms)
        self.end_ms = end_ms if self.end_ms is None else max(self.end_ms, end_ms)

    def problems(self, places: Callable[[Iterable[int]], dict[int, str]]) -> tuple[IngestProblem, ...]:
        """The worst first, with the place of each; the tail is summed up."""
        ranked = sorted(self._problems.items(), key=lambda item: (-item[1].rows, item[0]))
        shown, rest = ranked[:MOST_PROBLEMS], ranked[MOST_PROBLEMS:]
        found = places({problem.first_row for _, problem in shown})
        told = []
        for (what, subject), problem in shown:
            place = found[problem.first_row]
            where = f"first at {place}" if problem.rows > 1 else place
            told.append(IngestProblem(what, f"{subject}, {where}" if subject else where, problem.rows))
        if rest:
            rows = sum(problem.rows for _, problem in rest)
            told.append(IngestProblem(f"and {len(rest)} more of these kinds", "", rows))
        return tuple(told)
