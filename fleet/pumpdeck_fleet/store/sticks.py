"""The inventory of sticks, one row each; the row's body is the entry as canonical JSON."""

from __future__ import annotations

from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.sticks import OUT, StickEntry
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.json_rows import from_text, to_text


class StickTable:
    """Sticks by id."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def put(self, entry: StickEntry) -> None:
        """Keep the entry as it stands now."""
        self._sql.write(
            "INSERT INTO stick (id, state, changed_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " state = excluded.state, changed_ms = excluded.changed_ms, body = excluded.body",
            (entry.id, str(entry.state), entry.changed_ms, to_text(entry)),
        )

    def get(self, stick: str) -> StickEntry | None:
        """The entry; `None` when no such stick is known."""
        row = self._sql.row("SELECT body FROM stick WHERE id = ?", (stick,))
        return from_text(StickEntry, row[0], f"stick {stick}") if row else None

    def find(self, stick: str) -> StickEntry:
        """The stick of that name, or the only one whose name begins so, with or without its `b-`.

        Raises:
            NotFoundError: none, or several.
        """
        matches = [entry for entry in self.all() if entry.id.startswith((stick, f"b-{stick}"))] if stick else []
        exact = [entry for entry in matches if entry.id == stick]
        if len(exact or matches) != 1:
            found = ", ".join(entry.id for entry in matches[:5]) or "none"
            raise NotFoundError("no such stick", stick, found=found, hint="list them with: pumpdeck bundle sticks")
        return (exact or matches)[0]

    def all(self) -> list[StickEntry]:
        """Every stick, the one that moved last first."""
        rows = self._sql.rows("SELECT id, body FROM stick ORDER BY changed_ms DESC, id")
        return [from_text(StickEntry, body, f"stick {name}") for name, body in rows]

    def out(self) -> list[StickEntry]:
        """Those through which an answer may still come, the one that left last first."""
        return sorted((entry for entry in self.all() if entry.state in OUT), key=lambda one: -one.exported_ms)
