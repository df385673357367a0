"""What goes into the outbox for a pump: segments, scores and sketches, made from encoded chunks. Needs no numpy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.outbox import Outbox, Outgoing
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.pump_record import PumpFigures, PumpRecord, read_record, write_record
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import BusyError
from pumpdeck_fleet.core.receipts import ReturnKind

ITEM_FORMAT = 1
_CLOSE_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class _ItemHead:
    """First line of a segment or scores item."""

    format: int
    pump: str
    package_sha256: str


def chunk_item(kind: ReturnKind, figures: PumpFigures, start_ms: int, chunk: bytes) -> Outgoing:
    """Rows or scores up to the newest row, as a column chunk, as an item for the outbox; rows near an alarm are pinned."""
    end_ms, from_ms, to_ms = figures.last_row_ms, figures.pin_from_ms, figures.pin_to_ms
    is_near = None not in (end_ms, from_ms, to_ms) and (end_ms or 0) >= (from_ms or 0) and start_ms <= (to_ms or 0)
    return Outgoing(kind, _head(figures) + chunk, figures.tag, start_ms, is_near and kind is ReturnKind.SEGMENT)


def sketch_item(figures: PumpFigures, sketch: bytes) -> Outgoing:
    """The sketch of the figures' day as an item for the outbox."""
    return Outgoing(ReturnKind.SKETCH, sketch, figures.tag, figures.sketch_day_ms or 0)


def close_record(record: PumpRecord) -> tuple[PumpRecord, list[Outgoing]]:
    """The record without its open rows and scores, and the items they become; the day's sketch goes out too, as far as it is."""
    figures, blobs = record.figures, dict(record.blobs)
    outgoing: list[Outgoing] = []
    for kind, name in ((ReturnKind.SEGMENT, "rows"), (ReturnKind.SCORES, "scores")):
        chunk = blobs.pop(name, b"")
        if chunk:
            outgoing.append(chunk_item(kind, figures, figures.open_start_ms or 0, chunk))
    if blobs.get("sketch") and not figures.is_sketch_sent:
        outgoing.append(sketch_item(figures, blobs["sketch"]))
    closed = replace(figures, open_start_ms=None, is_sketch_sent=figures.is_sketch_sent or bool(blobs.get("sketch")))
    return PumpRecord(closed, blobs), outgoing


def finish_close(record: PumpRecord, outbox: Outbox) -> tuple[PumpRecord, list[Outgoing]]:
    """After a cut between the two halves of a close: the record closed, and what still is to go out. Else the record as it is.

    Without this, rows that are in the outbox already would go out once more together with the rows that follow them.
    """
    closed, items = close_record(record)
    rows = [canonical.digest(item.data) for item in items if item.kind is not ReturnKind.SKETCH]
    return (closed, items) if outbox.has_any(rows) else (record, [])


def close_open_segments(
    platform: Platform, layout: Layout, config: AgentConfig, limits: AgentLimits, outbox: Outbox
) -> None:
    """Put what is open into the outbox, for a console that wants it now; not while somebody is scoring."""
    with contextlib.suppress(BusyError), platform.locks.hold(layout.score_lock, min(_CLOSE_WAIT_S, limits.lock_wait_s)):
        closed: list[tuple[str, PumpRecord]] = []
        outgoing: list[Outgoing] = []
        for pump in config.pumps:
            found = read_record(platform.fs, layout.pump_state(pump.tag))
            if found is None:
                continue
            record, items = close_record(found[0])
            if items:
                closed.append((pump.tag, record))
                outgoing += items
        # Outbox before records, as in scoring: a cut in between sends the same bytes again, never nothing.
        outbox.add(outgoing)
        for tag, record in closed:
            write_record(platform.fs, layout.pump_state(tag), record)


def _head(figures: PumpFigures) -> bytes:
    return canonical.encode(_ItemHead(ITEM_FORMAT, figures.tag, figures.package_sha256)) + b"\n"
