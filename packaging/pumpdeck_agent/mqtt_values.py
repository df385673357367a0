"""Rows from topics that bring one plain value each, as PLCs and gateways publish them: the last of each channel, at even times.

Such a message has no time and no row. A row is what stood at each whole `row_every_s` of the device's clock; a value that is
older than `hold_s` is missing in it, for a sensor that went silent must not look steady. No network and no disk in here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pumpdeck_agent.mqtt_rows import BadMessageError, Message, Row
from pumpdeck_agent.mqtt_settings import MqttSettings, ValueTopic, matches

VALUE_MAX_BYTES = 4096
_LARGEST = 3.4e38
_MISSING = frozenset({"", "null", "nan", "none"})


@dataclass(frozen=True, slots=True)
class _Held:
    value: float | None
    at_ms: int


class ValueRows:
    """What stands now, pump by pump. `know`: the tag of a pump of this device as enrolled, None: not ours."""

    def __init__(self, settings: MqttSettings, know: Callable[[str], str | None]) -> None:
        self._topics = settings.values
        self._know = know
        self._every_ms = max(1, round(settings.row_every_s * 1000))
        self._hold_ms = round((settings.hold_s or 3 * settings.row_every_s) * 1000)
        self._held: dict[str, dict[str, _Held]] = {}
        self._slot: int | None = None

    def take(self, message: Message) -> bool:
        """Keep the value of a message; False when no topic of values is meant by it.

        What the broker had retained is passed over: nobody knows when that was true.

        Raises:
            BadMessageError: no such pump, or no number.
        """
        topic = next((one for one in self._topics if matches(one.filter, message.topic)), None)
        if topic is None:
            return False
        if not message.is_retained:
            pump, channel = self._named(topic, message.topic)
            value = _value(topic, message)
            self._held.setdefault(pump, {})[channel] = _Held(value, message.arrived_ms)
        return True

    def due(self, now_ms: int) -> list[Row]:
        """The rows of the last even time, once it is over; nothing for a pump of which nothing was heard lately."""
        slot = now_ms // self._every_ms
        if self._slot is None or slot < self._slot:
            # The beginning, or a clock that was set back: this time is not over yet.
            self._slot = slot
        if slot == self._slot:
            return []
        self._slot = slot
        at_ms = slot * self._every_ms
        rows = []
        for pump, held in self._held.items():
            # Of a clock that was set back, values of the future count as new.
            values = {name: one.value if at_ms - one.at_ms < self._hold_ms else None for name, one in held.items()}
            if any(value is not None for value in values.values()):
                rows.append(Row(pump, at_ms, tuple(sorted(values.items()))))
        return rows

    def _named(self, topic: ValueTopic, name: str) -> tuple[str, str]:
        said = topic.parts_of(name)
        pump = self._know(topic.pump or said.get("pump", ""))
        if pump is None:
            raise BadMessageError("names no pump of this device", name[:80], found=(topic.pump or said.get("pump", ""))[:40])
        channel = topic.channel or said.get("channel", "")
        if topic.channels and channel not in topic.channels:
            raise BadMessageError("names a channel that is not set up", name[:80], found=channel[:40])
        return pump, topic.channels.get(channel, channel)


def _value(topic: ValueTopic, message: Message) -> float | None:
    what = message.topic[:80]
    if len(message.payload) > VALUE_MAX_BYTES:
        raise BadMessageError("is too large", what, expected=f"at most {VALUE_MAX_BYTES} bytes", found=len(message.payload))
    try:
        text = message.payload.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadMessageError("is no text", what) from error
    found: Any = _field(text, topic.value, what) if topic.value else text
    if found is None or (isinstance(found, str) and found.strip().lower() in _MISSING):
        return None
    try:
        number = math.nan if isinstance(found, bool) else float(found)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _LARGEST:
        raise BadMessageError("is no number", what, found=str(found)[:40])
    return number


def _field(text: str, name: str, what: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessageError("is not JSON", what) from error
    if not isinstance(found, Mapping) or name not in found:
        raise BadMessageError("lacks a field", what, expected=name)
    return found[name]
