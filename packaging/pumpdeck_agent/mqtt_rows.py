"""From an MQTT message to telemetry rows, or to a sentence that says why not. No network and no disk in here."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pumpdeck_agent.mqtt_settings import RowTopic, matches
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import FormatError

PAYLOAD_MAX_BYTES = 256 * 1024
ROWS_MAX = 1000
# So many rows are remembered by their time, so that a message that comes twice is a row once.
_REMEMBERED_ROWS = 4096
_LATEST_MS = 1 << 53
_LARGEST = 3.4e38


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. `is_retained`: the broker kept it, nobody has just sent it."""

    topic: str
    payload: bytes
    arrived_ms: int
    is_retained: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message and what is needed to acknowledge it. `connection` counts connections."""

    topic: str
    payload: bytes
    is_retained: bool
    number: int
    qos: int
    connection: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pump; None where the message holds null."""

    pump: str
    at_ms: int
    values: tuple[tuple[str, float | None], ...]

    def line(self) -> bytes:
        """As a line of a JSON spool file."""
        return json.dumps({"time": self.at_ms, "pump": self.pump, **dict(self.values)}, separators=(",", ":")).encode() + b"\n"


class BadMessageError(FormatError):
    """A message that is no row of a pump of this device."""


class RowReader:
    """Reads messages of the topics that are set up. `know`: the tag of a pump of this device as enrolled, None: not ours."""

    def __init__(self, topics: Sequence[RowTopic], know: Callable[[str], str | None]) -> None:
        self._topics = tuple(topics)
        self._know = know

    def read(self, message: Message) -> list[Row]:
        """Its rows. None from a retained message without a time of its own: nobody knows when that was true.

        Raises:
            BadMessageError: not JSON, no such pump, no time, a value that is no number: nothing of it is taken.
        """
        topic = next((one for one in self._topics if matches(one.topic, message.topic)), None)
        if topic is None:
            raise BadMessageError("is on a topic that nobody set up", message.topic[:80])
        if message.is_retained and not topic.time:
            return []
        value = _parse(message)
        entries = value if isinstance(value, list) else [value]
        if len(entries) > ROWS_MAX:
            raise BadMessageError("holds too many rows", message.topic[:80], expected=ROWS_MAX, found=len(entries))
        return [self._row(topic, entry, message) for entry in entries]

    def _row(self, topic: RowTopic, entry: Any, message: Message) -> Row:
        what = message.topic[:80]
        if not isinstance(entry, dict):
            raise BadMessageError("is not a JSON object", what)
        fields = dict(entry)
        said = topic.pump or fields.pop("pump", None)
        pump = self._know(said) if isinstance(said, str) else None
        if pump is None:
            raise BadMessageError("names no pump of this device", what, found=str(said)[:40])
        at_ms = _time(fields.pop(topic.time, None), topic.time_unit, what) if topic.time else message.arrived_ms
        if topic.channels:
            fields = {channel: fields[name] for name, channel in topic.channels.items() if name in fields}
        if not fields:
            raise BadMessageError("holds no channel", what, expected=", ".join(topic.channels) or "a field for each channel")
        return Row(pump, at_ms, tuple((name, _number(name, value, what)) for name, value in fields.items()))


class Repeats:
    """Which rows were here lately: QoS 1 delivers at least once, and a broker repeats what it keeps."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int], tuple[tuple[str, float | None], ...]] = OrderedDict()

    def is_new(self, row: Row) -> bool:
        """True for the first of equal rows; it is remembered from now on. Another row of the same time is new."""
        key = (row.pump, row.at_ms)
        if self._seen.get(key) == row.values:
            return False
        self._seen[key] = row.values
        if len(self._seen) > _REMEMBERED_ROWS:
            self._seen.popitem(last=False)
        return True

    def forget(self, rows: Sequence[Row]) -> None:
        """These were not kept after all."""
        for row in rows:
            self._seen.pop((row.pump, row.at_ms), None)


def _parse(message: Message) -> Any:
    if len(message.payload) > PAYLOAD_MAX_BYTES:
        raise BadMessageError(
            "is too large", message.topic[:80], expected=f"at most {PAYLOAD_MAX_BYTES} bytes", found=len(message.payload)
        )
    try:
        return json.loads(message.payload, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessageError("is not JSON", message.topic[:80]) from error


def _time(value: Any, unit: str, what: str) -> int:
    try:
        if isinstance(value, str):
            return parse_ms(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            at_ms = round(value * 1000) if unit == "s" else int(value)
            if 0 <= at_ms < _LATEST_MS:
                return at_ms
    except (FormatError, OverflowError, ValueError):
        pass
    raise BadMessageError("has no time", what, expected=f"RFC 3339 with offset, or {unit} since 1970", found=str(value)[:40])


def _number(name: str, value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST or math.isnan(value):
        raise BadMessageError(f"holds a {name[:40]} that is no number", what, found=str(value)[:40])
    return float(value)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number here")
