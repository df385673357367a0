"""What a device says of itself: `status` of docs/formats.md. Reads only small files; needs no numpy and no key."""

from __future__ import annotations

from typing import Any

from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.outbox import Outbox
from pumpdeck_agent.pump_record import ProcessState, PumpFigures, read_record
from pumpdeck_agent.state import DeviceState, Phase
from pumpdeck_agent.veto import read_veto
from pumpdeck_fleet.core.clock import MINUTE_MS
from pumpdeck_fleet.core.ports import FileSystem

# Older rows say nothing about what the process does now.
_FRESH_MS = 30 * MINUTE_MS


def pump_figures(fs: FileSystem, layout: Layout, config: AgentConfig) -> dict[str, PumpFigures]:
    """Figures by tag of the pumps that were scored so far."""
    found = {pump.tag: read_record(fs, layout.pump_state(pump.tag)) for pump in config.pumps}
    return {tag: record[0].figures for tag, record in found.items() if record is not None}


def why_wait(fs: FileSystem, layout: Layout, config: AgentConfig, now_ms: int) -> str:
    """Why no trial may start now: a veto, or a pump whose process is changing. Empty when one may."""
    veto = read_veto(fs, layout, now_ms)
    if veto is not None:
        return f"local veto: {veto.reason}"
    for tag, figures in pump_figures(fs, layout, config).items():
        is_fresh = figures.last_row_ms is not None and now_ms - figures.last_row_ms <= _FRESH_MS
        if is_fresh and figures.process is ProcessState.CHANGING:
            return f"{tag} is changing speed: neither steady nor stopped"
    return ""


def device_status(
    fs: FileSystem, layout: Layout, config: AgentConfig, state: DeviceState | None, now_ms: int
) -> dict[str, Any]:
    """The status as plain values, ready for the wire and for `--json`."""
    veto = read_veto(fs, layout, now_ms)
    counts = Outbox(fs, layout, AgentLimits()).counts()
    return {
        "state": (state.phase if state else Phase.NO_MODEL).value,
        "active": state.active_sha256 if state else "",
        "previous": state.previous_sha256 if state else "",
        "seq": state.seq if state else config.min_seq,
        "counter": state.counter if state else 0,
        "staged": _staged(state),
        "veto": {"reason": veto.reason, "until_ms": veto.until_ms} if veto else None,
        "pumps": {tag: _pump(figures) for tag, figures in pump_figures(fs, layout, config).items()},
        "outbox": {"items": counts.items, "bytes": counts.bytes, "dropped": counts.dropped},
        "free_bytes": fs.free_bytes(layout.root),
    }


def _staged(state: DeviceState | None) -> dict[str, Any] | None:
    if state is None or state.candidate is None:
        return None
    candidate = state.candidate
    return {
        "package": candidate.package.sha256,
        "task": candidate.task,
        "tries": candidate.tries,
        "waits_for": candidate.waits_for,
    }


def _pump(figures: PumpFigures) -> dict[str, Any]:
    return {
        "scored_rows": figures.scored_rows,
        "late_rows": figures.late_rows,
        "last_row_ms": figures.last_row_ms,
        "score": figures.score,
        "alarmed": figures.alarmed,
        "drift_index": figures.drift_index,
        "process": figures.process.value,
        "package": figures.package_sha256,
    }
