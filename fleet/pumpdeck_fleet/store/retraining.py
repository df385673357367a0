"""Requests of devices for new models; the row's body is the entry as canonical JSON."""

from __future__ import annotations

from collections.abc import Collection

from pumpdeck_fleet.core.ids import split_pump_id
from pumpdeck_fleet.core.retraining import RequestState, RetrainEntry
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import from_text, to_text

_NEWEST = "ORDER BY at_ms DESC, digest"


class RetrainTable:
    """Requests by the digest of what the device signed."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def add(self, entry: RetrainEntry) -> bool:
        """False when it is there already, open or closed: then nothing changes. Raises: FormatError: no pump's identity."""
        split_pump_id(entry.pump)
        sql = "INSERT INTO retrain_request (digest, pump, device, at_ms, state, closed_ms, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        return self._sql.write(f"{sql} ON CONFLICT (digest) DO NOTHING", _values(entry)) > 0

    def put(self, entry: RetrainEntry) -> None:
        """Keep the entry as it stands now."""
        sql = "UPDATE retrain_request SET pump = ?, device = ?, at_ms = ?, state = ?, closed_ms = ?, body = ? WHERE digest = ?"
        self._sql.write(sql, (*_values(entry)[1:], entry.digest))

    def all(self) -> list[RetrainEntry]:
        """Every request, the newest first."""
        return [_entry(row) for row in self._sql.rows(f"SELECT body FROM retrain_request {_NEWEST}")]

    def open(self, pumps: Collection[str] | None = None) -> list[RetrainEntry]:
        """Those that nobody has answered or dismissed, of all pumps or of these, the newest first."""
        sql = f"SELECT body FROM retrain_request WHERE state = ? {_NEWEST}"
        found = [_entry(row) for row in self._sql.rows(sql, (RequestState.OPEN.value,))]
        return [entry for entry in found if pumps is None or entry.pump in pumps]

    def of(self, pump: str) -> list[RetrainEntry]:
        """The requests for one pump, the newest first."""
        return [_entry(row) for row in self._sql.rows(f"SELECT body FROM retrain_request WHERE pump = ? {_NEWEST}", (pump,))]


def _values(entry: RetrainEntry) -> tuple[str | int, ...]:
    figures = entry.digest, entry.pump, entry.device, entry.at_ms, entry.state.value, entry.closed_ms
    return (*figures, to_text(entry))


def _entry(row: Row) -> RetrainEntry:
    return from_text(RetrainEntry, row[0], "retrain request")
