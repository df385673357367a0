"""Age keys of devices: to whom confidential packages and words for one device are encrypted."""

from __future__ import annotations

from pumpdeck_fleet.store.connection import Connection


class AgeKeyTable:
    """Device -> its age public key, as its own device key has vouched for or a person has seen."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def put(self, device: str, age_key: str, at_ms: int) -> bool:
        """Set a device's key; false when that one is known."""
        if self.get(device) == age_key:
            return False
        self._sql.write(
            "INSERT INTO device_age_key (device, age_key, at_ms) VALUES (?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET age_key = excluded.age_key, at_ms = excluded.at_ms",
            (device, age_key, at_ms),
        )
        return True

    def all(self) -> list[tuple[str, str, int]]:
        """(device, age key, since when) of every device whose key is known."""
        rows = self._sql.rows("SELECT device, age_key, at_ms FROM device_age_key ORDER BY device")
        return [(str(row[0]), str(row[1]), int(row[2])) for row in rows]

    def get(self, device: str) -> str:
        """The device's key; empty when none is known."""
        row = self._sql.row("SELECT age_key FROM device_age_key WHERE device = ?", (device,))
        return str(row[0]) if row else ""
