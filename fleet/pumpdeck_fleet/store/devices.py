"""Devices as they are known: identities and the last status."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core.device_status import DeviceStatus
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import from_text, to_text


@dataclass(frozen=True, slots=True)
class DeviceIdentityRow:
    """Who a device is: set at enrolment, by a person who saw it."""

    device: str
    public_pem: str
    key_id: str
    host_key: str
    enrolled_ms: int


@dataclass(frozen=True, slots=True)
class DeviceStatusRow:
    """A device's last answer to `status`, and when it was asked."""

    device: str
    status: DeviceStatus
    at_ms: int


class DeviceTable:
    """Identities and last status by device."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def put_identity(self, device: str, public_pem: str, key_id: str, host_key: str, at_ms: int) -> None:
        """Set a device's identity; a replaced device gets its new one."""
        self._sql.write(
            "INSERT INTO device (device, public_pem, key_id, host_key, enrolled_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET public_pem = excluded.public_pem, key_id = excluded.key_id,"
            " host_key = excluded.host_key, enrolled_ms = excluded.enrolled_ms",
            (device, public_pem, key_id, host_key, at_ms),
        )

    def identity(self, device: str) -> DeviceIdentityRow | None:
        """The device's identity; `None` when it was never enrolled."""
        sql = f"SELECT {_IDENTITY} FROM device WHERE device = ? AND public_pem IS NOT NULL"
        row = self._sql.row(sql, (device,))
        return DeviceIdentityRow(*row) if row else None

    def identities(self) -> dict[str, DeviceIdentityRow]:
        """All enrolled devices."""
        rows = self._sql.rows(f"SELECT {_IDENTITY} FROM device WHERE public_pem IS NOT NULL ORDER BY device")
        return {row[0]: DeviceIdentityRow(*row) for row in rows}

    def put_status(self, device: str, status: DeviceStatus, at_ms: int) -> None:
        """Keep a device's answer unless a later one is there."""
        self._sql.write(
            "INSERT INTO device (device, status, status_ms) VALUES (?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET status = excluded.status, status_ms = excluded.status_ms"
            " WHERE status_ms IS NULL OR status_ms <= excluded.status_ms",
            (device, to_text(status), at_ms),
        )

    def status(self, device: str) -> DeviceStatusRow | None:
        """The device's last answer; `None` when it never gave one."""
        row = self._sql.row("SELECT device, status, status_ms FROM device WHERE device = ?", (device,))
        return _status(row) if row and row[1] is not None else None

    def statuses(self) -> dict[str, DeviceStatusRow]:
        """Last answers of all devices that gave one."""
        rows = self._sql.rows("SELECT device, status, status_ms FROM device WHERE status IS NOT NULL ORDER BY device")
        return {row[0]: _status(row) for row in rows}

    def active(self) -> dict[str, str]:
        """Digest of the package that each device runs by its latest receipt; devices without one are left out."""
        return dict(self._sql.rows("SELECT device, active FROM device WHERE coalesce(active, '') != '' ORDER BY device"))


_IDENTITY = "device, public_pem, key_id, host_key, enrolled_ms"


def _status(row: Row) -> DeviceStatusRow:
    return DeviceStatusRow(row[0], from_text(DeviceStatus, row[1], f"status of {row[0]}"), row[2])
