"""The fleet and one pump as columnar views for screens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.fleet import PumpRow, list_pumps, show_pump
from pumpdeck_console.operations.views import (
    NEVER,
    NO_HEALTH,
    SPARK_HOURS,
    ChannelLine,
    FleetView,
    PumpDetail,
    Words,
    spark_levels,
)
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, format_ms
from pumpdeck_fleet.core.health import Health
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.receipts import AlarmNotice

_SHOWN_MS = DAY_MS
_MOST_REQUESTS = 3
_MOST_ROWS = 4_000
_NAN = float("nan")


@operation("view.fleet", runs_in="reader")
def fleet_view(workspace: Workspace, *, query: str = "") -> FleetView:
    """All pumps that `query` selects. Raises: QueryError."""
    rows = list_pumps(workspace, query=query)
    now_ms = workspace.clock.now_ms()
    pumps = [row.pump for row in rows]
    facts = [row.facts for row in rows]
    limit = np.array([_number(known.limit if known else None) for known in facts], dtype=np.float32)
    sites = Words.of(pump.site for pump in pumps)
    site_by_id = workspace.fleet.site_by_id
    return FleetView(
        as_of_ms=now_ms,
        query=query,
        fleet_size=len(workspace.fleet.pumps),
        pump_ids=tuple(pump.id for pump in pumps),
        tags=tuple(pump.tag for pump in pumps),
        sites=sites,
        types=Words.of(pump.type for pump in pumps),
        makers=Words.of(pump.maker for pump in pumps),
        devices=Words.of(pump.device for pump in pumps),
        models=Words.of(known.model if known else None for known in facts),
        health=np.array([health_code(row.health) for row in rows], dtype=np.int8),
        reasons=tuple(row.reason for row in rows),
        score=np.array([_number(known.score if known else None) for known in facts], dtype=np.float32),
        limit=limit,
        model_version=np.array([(known.number or 0) if known else 0 for known in facts], dtype=np.int64),
        drift_psi=np.array([_number(known.drift_psi if known else None) for known in facts], dtype=np.float32),
        last_seen_ms=np.array([_seen(row) for row in rows], dtype=np.int64),
        spark=spark_levels(_hourly_scores(workspace, [pump.id for pump in pumps], now_ms), limit),
        site_kinds=tuple(site_by_id[site].kind for site in sites.words),
    )


@operation("view.pump", runs_in="reader")
def pump_detail(workspace: Workspace, *, pump: str) -> PumpDetail:
    """One pump with the last 24 h that are known of it. Raises: NotFoundError."""
    row = show_pump(workspace, pump=pump)
    identity = row.pump.id
    now_ms = workspace.clock.now_ms()
    store = workspace.store
    spans = [span for table in (store.telemetry, store.scores) if (span := table.span(identity)) is not None]
    end_ms = max((span[1] for span in spans), default=now_ms) + 1
    # A pump that fell silent still shows its last day: what it did before it fell silent is what people look for.
    rows = store.telemetry.frame(identity, end_ms - _SHOWN_MS, end_ms)
    scores = store.scores.frame(identity, end_ms - _SHOWN_MS, end_ms, channels=("score",))
    keep = slice(max(0, len(rows.at_ms) - _MOST_ROWS), None)
    limit = row.facts.limit if row.facts is not None else None
    return PumpDetail(
        as_of_ms=now_ms,
        pump_id=identity,
        tag=row.pump.tag,
        site=row.pump.site,
        health=health_code(row.health),
        reason=row.reason,
        channels=tuple(_channel_line(workspace, row, name) for name in rows.channels),
        at_ms=rows.at_ms[keep],
        values=rows.values[keep],
        score_at_ms=scores.at_ms,
        scores=scores.values[:, 0] if scores.values.shape[1] else np.zeros(0, dtype=np.float32),
        limit=_number(limit),
        facts=_facts(workspace, row),
        alarms=_alarm_intervals(store.alarms.of(identity), end_ms - _SHOWN_MS, now_ms),
    )


def health_code(health: Health | None) -> int:
    """The number of core's `Health`, `NO_HEALTH` where nothing is known."""
    return NO_HEALTH if health is None else int(health)


def _number(value: float | None) -> float:
    return _NAN if value is None else value


def _seen(row: PumpRow) -> int:
    seen = row.facts.last_seen_ms if row.facts is not None else None
    return NEVER if seen is None else seen


def _hourly_scores(
    workspace: Workspace, pumps: Sequence[str], now_ms: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    end_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
    return workspace.store.scores.hourly(pumps, end_ms - SPARK_HOURS * HOUR_MS, end_ms, "score")


def _channel_line(workspace: Workspace, row: PumpRow, name: str) -> ChannelLine:
    for channel in workspace.fleet.pump_types[row.pump.type].channels:
        if channel.name == name:
            return ChannelLine(name, channel.unit, channel.low, channel.high)
    return ChannelLine(name, "")


def _facts(workspace: Workspace, row: PumpRow) -> tuple[tuple[str, str], ...]:
    pump, known = row.pump, row.facts
    site = workspace.fleet.site(pump.site)
    pairs = [
        ("site", f"{site.name} ({site.kind})"),
        ("type", workspace.fleet.pump_types[pump.type].title),
        ("maker", f"{pump.maker} {pump.model}".strip()),
        ("device", pump.device),
        ("criticality", str(pump.criticality)),
        ("redundancy group", pump.redundancy_group),
        ("model version", f"{known.model} v{version_name(known.number or 0)}" if known and known.model else ""),
        ("package", known.package_sha256[:12] if known else ""),
        ("drift", f"{known.drift_psi:.3f} {known.drift_channel}" if known and known.drift_psi is not None else ""),
        ("rows", f"{known.rows:,}" if known else ""),
        ("last seen", format_ms(known.last_seen_ms) if known and known.last_seen_ms is not None else ""),
    ]
    for asked in workspace.store.retraining.open((pump.id,))[:_MOST_REQUESTS]:
        pairs.append(("asks for a model", f"{asked.trigger}, {format_ms(asked.at_ms)}: {asked.reason}"))
    if events := workspace.fleet.events_of(pump.id):
        pairs.append((f"last {events[-1].kind.value.replace('_', ' ')}", format_ms(events[-1].at_ms)))
    return tuple((word, value or "-") for word, value in pairs)


def _alarm_intervals(notices: Sequence[AlarmNotice], start_ms: int, now_ms: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    raised: int | None = None
    for notice in notices:
        if notice.raised and raised is None:
            raised = notice.at_ms
        elif not notice.raised and raised is not None:
            found.append((raised, notice.at_ms))
            raised = None
    if raised is not None:
        found.append((raised, now_ms))
    return tuple((begin, end) for begin, end in found if end > start_ms)
