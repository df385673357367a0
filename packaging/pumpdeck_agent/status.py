"""What a device says of itself: `status` of docs/formats.md. Reads only small files; needs no numpy and no key."""

from __future__ import annotations

from dataclasses import replace

from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.outbox import Outbox
from pumpdeck_agent.pump_record import ProcessState, PumpFigures, read_record
from pumpdeck_agent.shadow_file import read_standing
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_agent.trips import read_trips, standing_trip
from pumpdeck_agent.veto import read_veto
from pumpdeck_fleet.core.clock import MINUTE_MS
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus, PumpStatus, StagedStatus
from pumpdeck_fleet.core.ports import FileSystem

# Older rows say nothing about what the process does now.
_FRESH_MS = 30 * MINUTE_MS


def pump_figures(fs: FileSystem, layout: Layout, config: AgentConfig) -> dict[str, PumpFigures]:
    """Figures by tag of the pumps that were scored so far."""
    found = {pump.tag: read_record(fs, layout.pump_state(pump.tag)) for pump in config.pumps}
    return {tag: record[0].figures for tag, record in found.items() if record is not None}


def why_wait(fs: FileSystem, layout: Layout, config: AgentConfig, now_ms: int) -> str:
    """Why no trial may start now: a veto, a tripped pump, or one that changes speed. Empty when one may."""
    veto = read_veto(fs, layout, now_ms)
    if veto is not None:
        return f"local veto: {veto.reason}"
    words = read_trips(fs, layout)
    seen = pump_figures(fs, layout, config)
    for pump in config.pumps:
        trip = standing_trip(seen.get(pump.tag), words.get(pump.tag.lower()), now_ms)
        if trip is not None:
            return f"{pump.tag} is tripped: {trip.reason}"
    for tag, figures in seen.items():
        is_fresh = figures.last_row_ms is not None and now_ms - figures.last_row_ms <= _FRESH_MS
        if is_fresh and figures.process is ProcessState.CHANGING:
            return f"{tag} is changing speed: neither steady nor stopped"
    return ""


def device_status(
    fs: FileSystem, layout: Layout, config: AgentConfig, state: DeviceState | None, now_ms: int
) -> DeviceStatus:
    """The whole status."""
    counts = Outbox(fs, layout, AgentLimits()).counts()
    return DeviceStatus(
        state=(state.phase if state else Phase.NO_MODEL).value,
        active=state.active_sha256 if state else "",
        previous=state.previous_sha256 if state else "",
        seq=state.seq if state else config.min_seq,
        counter=state.counter if state else 0,
        free_bytes=fs.free_bytes(layout.root),
        outbox=OutboxStatus(counts.items, counts.bytes, counts.dropped),
        pumps=_pumps(fs, layout, config, now_ms),
        staged=_staged(fs, layout, state),
        veto=read_veto(fs, layout, now_ms),
    )


def _staged(fs: FileSystem, layout: Layout, state: DeviceState | None) -> StagedStatus | None:
    if state is None or state.candidate is None:
        return None
    candidate, words = state.candidate, state.candidate.waits_for
    if state.phase is Phase.SHADOW:
        words = read_standing(fs, layout, candidate.package.sha256).words(candidate.shadow_s)
    return StagedStatus(candidate.package.sha256, candidate.task, candidate.tries, words)


def _pumps(fs: FileSystem, layout: Layout, config: AgentConfig, now_ms: int) -> dict[str, PumpStatus]:
    words, seen, found = read_trips(fs, layout), pump_figures(fs, layout, config), {}
    for pump in config.pumps:
        figures = seen.get(pump.tag)
        trip = standing_trip(figures, words.get(pump.tag.lower()), now_ms)
        if figures is not None:
            found[pump.tag] = _pump(figures)
        if trip is not None:
            known = found.get(pump.tag, PumpStatus(0))
            found[pump.tag] = replace(known, process=ProcessState.TRIPPED.value, trip=trip)
    return found


def _pump(figures: PumpFigures) -> PumpStatus:
    return PumpStatus(
        scored_rows=figures.scored_rows,
        last_row_ms=figures.last_row_ms,
        score=figures.score,
        alarmed=figures.alarmed,
        drift_index=figures.drift_index,
        late_rows=figures.late_rows,
        process=figures.process.value,
        package=figures.package_sha256,
    )
