"""Devices as they are known: identities and the last status."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.device_status import DeviceStatus
from pumpdeck_fleet.core.errors import TrustError
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
class DeviceKeyRow:
    """One key in a device's life. `ended` is empty while it counts, else `replaced` or `retired`, and why."""

    device: str
    key_id: str
    public_pem: str
    host_key: str
    enrolled_ms: int
    ended_ms: int | None
    ended: str


@dataclass(frozen=True, slots=True)
class DeviceTrustRow:
    """The newest metadata a device is known to have taken: targets version, root version, when, and how that is known."""

    device: str
    site: str
    version: int
    root: int
    at_ms: int
    how: str


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
        """Set a device's identity. A replaced device gets its new one, counts its receipts from 1 and runs nothing yet.

        Raises:
            TrustError: this key has ended before; a key that was given up never counts again.
        """
        for row in self.keys(device):
            if row.key_id == key_id and row.ended_ms is not None:
                raise TrustError(
                    f"this device key was {row.ended.split(':')[0]}",
                    device,
                    expected="a new key",
                    found=f"key {key_id[:12]}, ended {format_ms(row.ended_ms)}",
                    hint="make the device anew: pumpdeck-agent enrol",
                )
        self._sql.write(
            "UPDATE device_key SET ended_ms = ?, ended = 'replaced' WHERE device = ? AND key_id != ? AND ended_ms IS NULL",
            (at_ms, device, key_id),
        )
        self._sql.write(
            # Written down, not erased: a merge must not bring back what the computer before it had taken.
            "UPDATE device_trust SET version = 0, root = 0, at_ms = ?, how = 'replaced' WHERE device IN"
            " (SELECT device FROM device WHERE device = ? AND key_id != ?)",
            (at_ms, device, key_id),
        )
        self._sql.write(
            # The last status stays: its number says which assignments were used up.
            "UPDATE device SET active = NULL, counter = 0 WHERE device = ? AND key_id != ?",
            (device, key_id),
        )
        self._sql.write(
            "INSERT INTO device (device, public_pem, key_id, host_key, enrolled_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET public_pem = excluded.public_pem, key_id = excluded.key_id,"
            " host_key = excluded.host_key, enrolled_ms = excluded.enrolled_ms",
            (device, public_pem, key_id, host_key, at_ms),
        )
        self._sql.write(
            "INSERT INTO device_key (device, key_id, public_pem, host_key, enrolled_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (device, key_id) DO UPDATE SET host_key = excluded.host_key",
            (device, key_id, public_pem, host_key, at_ms),
        )

    def retire(self, device: str, at_ms: int, reason: str) -> bool:
        """End the device's key: from now on it is not enrolled and nothing it signs is believed. False when it had none."""
        sql = "UPDATE device_key SET ended_ms = ?, ended = ? WHERE device = ? AND ended_ms IS NULL"
        ended = self._sql.write(sql, (at_ms, f"retired: {reason}" if reason else "retired", device))
        # The key id stays: what the device ran last is still said by its own receipts.
        self._sql.write("UPDATE device SET public_pem = NULL WHERE device = ?", (device,))
        return bool(ended)

    def keys(self, device: str) -> list[DeviceKeyRow]:
        """Every key this device ever had, the oldest first."""
        sql = (
            "SELECT device, key_id, public_pem, host_key, enrolled_ms, ended_ms, ended FROM device_key WHERE device = ?"
            " ORDER BY enrolled_ms, ended_ms IS NULL, key_id"
        )
        return [DeviceKeyRow(*row) for row in self._sql.rows(sql, (device,))]

    def all_keys(self) -> list[DeviceKeyRow]:
        """Every key of every device."""
        columns = "device, key_id, public_pem, host_key, enrolled_ms, ended_ms, ended"
        sql = f"SELECT {columns} FROM device_key ORDER BY device, enrolled_ms, key_id"
        return [DeviceKeyRow(*row) for row in self._sql.rows(sql)]

    def retired(self) -> dict[str, DeviceKeyRow]:
        """Devices whose last key has ended, by name: retired ones, since a replaced one has another key."""
        found = {}
        sql = (
            "SELECT device, key_id, public_pem, host_key, enrolled_ms, ended_ms, ended FROM device_key WHERE device NOT IN"
            " (SELECT device FROM device_key WHERE ended_ms IS NULL) ORDER BY ended_ms"
        )
        for row in self._sql.rows(sql):
            found[str(row[0])] = DeviceKeyRow(*row)
        return found

    def put_trust(self, row: DeviceTrustRow) -> None:
        """Remember which metadata a device has taken, unless newer is known."""
        self._sql.write(
            "INSERT INTO device_trust (device, site, version, root, at_ms, how) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET site = excluded.site, version = excluded.version, root = excluded.root,"
            " at_ms = excluded.at_ms, how = excluded.how WHERE device_trust.at_ms <= excluded.at_ms",
            (row.device, row.site, row.version, row.root, row.at_ms, row.how),
        )

    def trusts(self) -> dict[str, DeviceTrustRow]:
        """What each device is known to have taken."""
        rows = self._sql.rows("SELECT device, site, version, root, at_ms, how FROM device_trust ORDER BY device")
        return {str(row[0]): DeviceTrustRow(*row) for row in rows}

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
