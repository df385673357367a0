"""What devices returned and signed: receipts and alarm notices."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import ReplayError
from pumpdeck_fleet.core.ids import split_pump_id
from pumpdeck_fleet.core.receipts import AlarmNotice, Receipt
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import from_text, to_text


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt as it came: its payload, the signed envelope, the device key's id, and when it was received."""

    receipt: Receipt
    envelope: bytes
    key_id: str
    received_ms: int

    @property
    def digest(self) -> str:
        """SHA-256 of the envelope."""
        return canonical.digest(self.envelope)


class ReceiptTable:
    """Receipts, one for each counter of a device key. Verify before adding."""

    def __init__(self, sql: Connection, clock: Clock) -> None:
        self._sql = sql
        self._clock = clock

    def add(self, receipt: Receipt, envelope: bytes, key_id: str) -> bool:
        """False when it is there already. The newest receipt of the key that counts says what the device runs.

        Raises:
            ReplayError: the key has signed something else under the same counter.
        """
        body = to_text(receipt)
        old = self._sql.row(_SAME, (receipt.device, key_id, receipt.counter))
        if old is not None:
            if old[0] != body:
                which = f"receipt {receipt.counter} of {receipt.device}"
                raise ReplayError("two receipts carry one counter", which, expected=canonical.digest(old[0].encode()))
            return False
        values = (receipt.device, receipt.counter, self._clock.now_ms(), key_id, body, envelope)
        self._sql.write(
            "INSERT INTO receipt (device, counter, received_ms, key_id, body, envelope) VALUES (?, ?, ?, ?, ?, ?)", values
        )
        self._sql.write(
            "INSERT INTO device (device, active, counter, key_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (device) DO UPDATE SET active = excluded.active, counter = excluded.counter"
            " WHERE counter < excluded.counter AND coalesce(device.key_id, excluded.key_id) = excluded.key_id",
            (receipt.device, receipt.active_sha256, receipt.counter, key_id),
        )
        return True

    def of(self, device: str) -> list[ReceiptRow]:
        """A device's receipts, key by key as they were enrolled, in order of counter."""
        sql = (
            f"SELECT {_RECEIPT} FROM receipt WHERE device = ? ORDER BY (SELECT enrolled_ms FROM device_key"
            " WHERE device_key.device = receipt.device AND device_key.key_id = receipt.key_id), key_id, counter"
        )
        return [_receipt(row) for row in self._sql.rows(sql, (device,))]

    def all(self, after_ms: int = -1) -> list[ReceiptRow]:
        """Receipts of all devices that came in after that time, in order of arrival."""
        sql = f"SELECT {_RECEIPT} FROM receipt WHERE received_ms > ? ORDER BY received_ms, device, counter"
        return [_receipt(row) for row in self._sql.rows(sql, (after_ms,))]

    def last_counter(self, device: str, key_id: str) -> int:
        """The highest counter received from a device under that key; 0 when there is none."""
        sql = "SELECT coalesce(max(counter), 0) FROM receipt WHERE device = ? AND key_id = ?"
        row = self._sql.row(sql, (device, key_id))
        return int(row[0]) if row else 0

    def put_apart(self, receipt: Receipt, envelope: bytes, key_id: str, reason: str) -> bool:
        """Keep a receipt that is evidence but is not believed; False when it is there already."""
        values = (canonical.digest(envelope), receipt.device, key_id, receipt.counter, self._clock.now_ms(), reason)
        sql = (
            "INSERT INTO receipt_apart (digest, device, key_id, counter, received_ms, reason, body, envelope)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        return bool(self._sql.write(sql, (*values, to_text(receipt), envelope)))

    def apart(self, device: str) -> list[tuple[ReceiptRow, str]]:
        """Receipts of a device that were kept apart, with the reason, in order of arrival."""
        sql = f"SELECT {_RECEIPT}, reason FROM receipt_apart WHERE device = ? ORDER BY received_ms, counter"
        return [(_receipt(row[:-1]), str(row[-1])) for row in self._sql.rows(sql, (device,))]

    def has(self, device: str, key_id: str, counter: int) -> bool:
        """Whether a receipt of that counter came in while the key counted."""
        return self._sql.row(_SAME, (device, key_id, counter)) is not None

    def return_counter(self, device: str, key_id: str) -> int:
        """The counter of the newest return index kept from that device and key; 0 when there is none."""
        row = self._sql.row("SELECT counter FROM return_counter WHERE device = ? AND key_id = ?", (device, key_id))
        return int(row[0]) if row else 0

    def put_return_counter(self, device: str, key_id: str, counter: int) -> None:
        """Remember a return index.

        Raises:
            ReplayError: its counter is not above that of the newest one kept.
        """
        last = self.return_counter(device, key_id)
        if counter <= last:
            raise ReplayError("is an old return played again", device, expected=f"a counter above {last}", found=counter)
        self._sql.write(
            "INSERT INTO return_counter (device, key_id, counter) VALUES (?, ?, ?)"
            " ON CONFLICT (device, key_id) DO UPDATE SET counter = excluded.counter",
            (device, key_id, counter),
        )


_SAME = "SELECT body FROM receipt WHERE device = ? AND key_id = ? AND counter = ?"
_RECEIPT = "body, envelope, key_id, received_ms"


def _receipt(row: Row) -> ReceiptRow:
    return ReceiptRow(from_text(Receipt, row[0], "receipt"), *row[1:])


class AlarmTable:
    """Changes of pumps' alarm states. `AlarmNotice.pump` is a pump's identity here, not its tag."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def add(self, notice: AlarmNotice) -> bool:
        """False when it is there already.

        Raises:
            FormatError: `notice.pump` is not a pump's identity.
        """
        split_pump_id(notice.pump)
        sql = "INSERT INTO alarm (pump, at_ms, raised, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        if not self._sql.write(sql, (notice.pump, notice.at_ms, int(notice.raised), to_text(notice))):
            return False
        self._sql.write(
            "INSERT INTO pump_now (pump, alarm_ms, alarmed) VALUES (?, ?, ?)"
            " ON CONFLICT (pump) DO UPDATE SET alarm_ms = excluded.alarm_ms, alarmed = excluded.alarmed"
            " WHERE alarm_ms IS NULL OR alarm_ms <= excluded.alarm_ms",
            (notice.pump, notice.at_ms, int(notice.raised)),
        )
        return True

    def open(self) -> list[AlarmNotice]:
        """The raising notice of every pump whose alarm has not been cleared, newest first."""
        rows = self._sql.rows(
            "SELECT alarm.body FROM pump_now JOIN alarm ON alarm.pump = pump_now.pump AND alarm.at_ms = pump_now.alarm_ms"
            " AND alarm.raised = 1 WHERE pump_now.alarmed = 1 ORDER BY alarm.at_ms DESC, alarm.pump"
        )
        return [from_text(AlarmNotice, row[0], "alarm") for row in rows]

    def of(self, pump: str) -> list[AlarmNotice]:
        """All notices of a pump, oldest first."""
        rows = self._sql.rows("SELECT body FROM alarm WHERE pump = ? ORDER BY at_ms, raised", (pump,))
        return [from_text(AlarmNotice, row[0], "alarm") for row in rows]

    def all(self) -> list[AlarmNotice]:
        """All notices, oldest first."""
        rows = self._sql.rows("SELECT body FROM alarm ORDER BY at_ms, pump, raised")
        return [from_text(AlarmNotice, row[0], "alarm") for row in rows]
