"""Reading rows back: telemetry as it came, or scores as the device computed them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, format_ms
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.telemetry import QualityFlag

if TYPE_CHECKING:
    from pumpdeck_fleet.numeric.frame import TelemetryFrame


@operation("telemetry", runs_in="reader")
def read_rows(
    workspace: Workspace,
    *,
    pump: str,
    start_ms: int | None = None,
    end_ms: int | None = None,
    channels: tuple[str, ...] = (),
    scores: bool = False,
) -> TelemetryFrame:
    """Rows of one pump in [start_ms, end_ms); without a start the last 24 h that are known.

    Raises:
        NotFoundError: no such pump or channel. UsageError: an empty interval.
    """
    found = workspace.fleet.pump(pump)
    for name in channels if not scores else ():
        workspace.fleet.pump_types[found.type].channel(name)
    table = workspace.store.scores if scores else workspace.store.telemetry
    span = table.span(found.id)
    end = end_ms if end_ms is not None else (span[1] + 1 if span is not None else workspace.clock.now_ms())
    start = start_ms if start_ms is not None else end - DAY_MS
    if end <= start:
        raise UsageError("ends before it starts", f"rows of {found.id}", expected="a start before the end")
    return table.frame(found.id, start, end, channels=channels or None)


def row_objects(pump: str, frame: TelemetryFrame) -> Iterator[dict[str, object]]:
    """One flat object a row: pump, time, one key a channel (None where missing), flags as words."""
    for at_ms, values, flags in zip(frame.at_ms.tolist(), frame.values.tolist(), frame.flags.tolist(), strict=True):
        cells = {name: (value if value == value else None) for name, value in zip(frame.channels, values, strict=True)}
        yield {"pump": pump, "time": format_ms(at_ms), **cells, "flags": flag_words(flags)}


def flag_words(flags: int) -> str:
    """`stuck,gap` for those bits; empty for none."""
    return ",".join(flag.name.lower() for flag in QualityFlag if flags & flag and flag.name)
