"""Figures of a device as Prometheus reads them: text exposition format 0.0.4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pumpdeck_agent.outbox import OutboxCounts
from pumpdeck_agent.pump_record import PumpFigures

Number = int | float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What is shown. `answered`: requests so far by status; `package`: digest of the active one, empty: NO_MODEL.

    `mqtt`: figures of the connection to the broker, by the names in `_OF_MQTT`; empty without one.
    """

    figures: Mapping[str, PumpFigures]
    outbox: OutboxCounts
    package: str
    unsaved_dropped_rows: int
    answered: Mapping[int, int]
    mqtt: Mapping[str, int] = field(default_factory=dict)


_OF_PUMPS: tuple[tuple[str, str, str, Callable[[PumpFigures], Number]], ...] = (
    ("score", "gauge", "Score of the newest row.", lambda one: one.score),
    ("alarmed", "gauge", "1 while the pump is in alarm.", lambda one: int(one.alarmed)),
    ("drift_index", "gauge", "How far the baseline has moved from its reference, in widths.", lambda one: one.drift_index),
    ("scored_rows_total", "counter", "Rows scored.", lambda one: one.scored_rows),
    ("late_rows_total", "counter", "Rows that came too late to be scored.", lambda one: one.late_rows),
    (
        "last_row_timestamp_seconds",
        "gauge",
        "Time of the newest row.",
        lambda one: None if one.last_row_ms is None else one.last_row_ms / 1000,
    ),
)


_OF_MQTT = {
    "connected": ("gauge", "1 while there is a connection to the broker."),
    "rows": ("counter", "Rows that came by MQTT."),
    "repeated": ("counter", "Rows that came by MQTT and were here already."),
    "refused": ("counter", "MQTT messages that were no rows."),
    "acknowledgements": ("counter", "Alarms acknowledged by MQTT."),
}


def metrics_text(found: Metrics) -> str:
    """The whole page."""
    lines: list[str] = []
    for name, kind, meaning, of in _OF_PUMPS:
        values = {f'{{pump="{tag}"}}': of(figures) for tag, figures in sorted(found.figures.items())}
        lines += _family(name, kind, meaning, values.items())
    outbox = found.outbox
    lines += _family("outbox_items", "gauge", "Items that wait for the console.", [("", outbox.items)])
    lines += _family("outbox_bytes", "gauge", "Bytes that wait for the console.", [("", outbox.bytes)])
    lines += _family("outbox_dropped_total", "counter", "Items a full outbox gave up.", [("", outbox.dropped)])
    dropped = found.unsaved_dropped_rows
    lines += _family("unsaved_dropped_rows_total", "counter", "Scored rows that no disk took.", [("", dropped)])
    active = [(f'{{package="{found.package}"}}', 1)] if found.package else []
    lines += _family("active_package_info", "gauge", "The package that scores.", active)
    for name, (kind, meaning) in _OF_MQTT.items():
        figures = [("", found.mqtt[name])] if name in found.mqtt else []
        lines += _family(f"mqtt_{name}{'_total' if kind == 'counter' else ''}", kind, meaning, figures)
    codes = [(f'{{code="{status}"}}', count) for status, count in sorted(found.answered.items())]
    lines += _family("http_requests_total", "counter", "Requests answered, by status.", codes)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, meaning: str, values: Iterable[tuple[str, Number]]) -> list[str]:
    known = [f"pumpdeck_{name}{labels} {value}" for labels, value in values if value is not None]
    return [f"# HELP pumpdeck_{name} {meaning}", f"# TYPE pumpdeck_{name} {kind}", *known] if known else []
