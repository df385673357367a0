"""Labels of pumps, and the files that were ingested."""

from __future__ import annotations

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.telemetry import IngestReport, Label
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import from_text, to_text


class LabelTable:
    """What crews found, by pump and interval."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def add(self, label: Label) -> bool:
        """False when the very same label is there already.

        Raises:
            UsageError: the interval is empty.
        """
        if label.end_ms <= label.start_ms:
            expected = f"after {label.start_ms}"
            raise UsageError("a label ends before it starts", label.pump, expected=expected, found=label.end_ms)
        values = (label.pump, label.start_ms, label.end_ms, to_text(label))
        sql = "INSERT INTO label (pump, start_ms, end_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT (body) DO NOTHING"
        return self._sql.write(sql, values) > 0

    def of(self, pump: str, start_ms: int, end_ms: int) -> list[Label]:
        """Labels of the pump that touch [start_ms, end_ms), in order of start."""
        sql = "SELECT body FROM label WHERE pump = ? AND start_ms < ? AND end_ms > ? ORDER BY start_ms, id"
        return [_label(row) for row in self._sql.rows(sql, (pump, end_ms, start_ms))]

    def all(self) -> list[Label]:
        """Every label, by pump and start."""
        return [_label(row) for row in self._sql.rows("SELECT body FROM label ORDER BY pump, start_ms, id")]


def _label(row: Row) -> Label:
    return from_text(Label, row[0], "label")


class SourceTable:
    """Files that were ingested, by digest of their bytes and of how they were read."""

    def __init__(self, sql: Connection, clock: Clock) -> None:
        self._sql = sql
        self._clock = clock

    def seen(self, digest: str) -> IngestReport | None:
        """The report of the ingest of that very file, if there was one."""
        row = self._sql.row("SELECT body FROM source WHERE digest = ?", (digest,))
        return from_text(IngestReport, row[0], "ingest report") if row else None

    def add(self, report: IngestReport) -> None:
        """Remember the report; a later one of the same digest replaces it."""
        sql = "INSERT OR REPLACE INTO source (digest, at_ms, body) VALUES (?, ?, ?)"
        self._sql.write(sql, (report.digest, self._clock.now_ms(), to_text(report)))

    def all(self) -> list[IngestReport]:
        """Every report, oldest first."""
        rows = self._sql.rows("SELECT body FROM source ORDER BY at_ms, rowid")
        return [from_text(IngestReport, row[0], "ingest report") for row in rows]
