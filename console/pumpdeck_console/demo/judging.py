"""Steps `scores`, `drift` and `audit`: what the devices found by themselves, how far the rows have moved, and who did what."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from pumpdeck_console.demo.steps import Found, Stage
from pumpdeck_console.operations.delivering import collect
from pumpdeck_console.operations.drift import fresh_drift
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.receipts import AlarmNotice

SCORES_LIMIT_S = 120.0
SETTLE_MS = DAY_MS // 24


def scores(stage: Stage) -> Found:
    """Collect until every device has scored the last day, and hold its alarms against the faults that were injected."""
    found = Found()
    problems = _collect_all(stage)
    found.problems += [f"{device}: {problem}" for device, problem in sorted(problems.items())]
    spooled = stage.mark.spooled or {}
    rows = scored_rows(stage)
    for device, expected in spooled.items():
        found.expect(rows.get(device, 0) == expected, f"{device}: scored {rows.get(device, 0)} of {expected} rows")
    found.evidence = {"rows_by_device": rows, "rows": sum(rows.values()), **_faults(stage, found)}
    return found


def scored_rows(stage: Stage) -> dict[str, int]:
    """Rows of the last day of history that each device has scored, as far as they were collected."""
    start_ms, end_ms = stage.mark.end_ms - DAY_MS + 1, stage.mark.end_ms + 1
    table = stage.workspace.store.scores
    return {
        device: sum(len(table.frame(pump.id, start_ms, end_ms).at_ms) for pump in pumps)
        for device, pumps in stage.workspace.fleet.pumps_by_device.items()
    }


def _collect_all(stage: Stage) -> dict[str, str]:
    deadline = time.monotonic() + SCORES_LIMIT_S
    expected = stage.mark.spooled or {}
    refused: dict[str, str] = {}
    while True:
        summary = collect(stage.workspace, on_progress=stage.on_progress)
        rows = scored_rows(stage)
        stage.on_progress("devices score", sum(rows.values()), sum(expected.values()))
        unreachable = dict(summary.problems)
        refused.update({report.device: "; ".join(report.problems) for report in summary.devices if report.problems})
        running = stage.workspace.store.devices.active()
        # One that cannot be reached, or runs nothing, will not score either; the others get the time they need.
        waiting = [one for one in expected if one not in unreachable and running.get(one) and rows.get(one, 0) < expected[one]]
        if not waiting or time.monotonic() > deadline:
            return {**refused, **unreachable}
        time.sleep(0.3)


def _faults(stage: Stage, found: Found) -> dict[str, Any]:
    """Faults injected into the last day, which of them a device alarmed, and alarms on pumps without any."""
    truth = json.loads((stage.home.history / "truth.json").read_text(encoding="utf-8"))
    start_ms, end_ms = stage.mark.end_ms - DAY_MS, stage.mark.end_ms
    raised = [
        notice for notice in stage.workspace.store.alarms.all() if notice.raised and start_ms < notice.at_ms <= end_ms
    ]
    injected = [fault for fault in truth["faults"] if fault["alarm_expected_last_day"]]
    listed = []
    for fault in injected:
        first = _first_alarm(raised, fault["pump"], max(fault["onset_ms"], start_ms))
        listed.append(
            {
                "pump": fault["pump"],
                "kind": fault["kind"],
                "onset_ms": fault["onset_ms"],
                "alarmed_ms": first.at_ms if first else None,
                "channel": first.channel if first else "",
            }
        )
    faulty = {fault["pump"]: fault["onset_ms"] for fault in truth["faults"]}
    false = [notice for notice in raised if notice.at_ms < faulty.get(notice.pump, math.inf)]
    alarmed = sum(one["alarmed_ms"] is not None for one in listed)
    found.expect(alarmed > 0 or not injected, "no injected fault was alarmed by a device")
    return {
        "faults_injected": len(injected),
        "faults_alarmed": alarmed,
        "false_alarms": len(false),
        "pumps_with_false_alarms": sorted({notice.pump for notice in false}),
        "faults": listed,
    }


def _first_alarm(raised: list[AlarmNotice], pump: str, onset_ms: int) -> AlarmNotice | None:
    after = [notice for notice in raised if notice.pump == pump and notice.at_ms >= onset_ms]
    return min(after, key=lambda notice: notice.at_ms) if after else None


def drift(stage: Stage) -> Found:
    """PSI of every pump from its device's own sketches, computed anew and held against what is stored."""
    found = Found()
    fresh = {report.pump: report for report in fresh_drift(stage.workspace).reports}
    stored = stage.workspace.store.drift.latest()
    for pump in stage.workspace.fleet.pumps:
        report, row = fresh.get(pump.id), stored.get(pump.id)
        if report is None or row is None:
            found.problems.append(f"{pump.id}: no drift figure")
            continue
        same = all(math.isclose(row.psi_by_channel[name], value) for name, value in report.psi_by_channel.items())
        found.expect(same, f"{pump.id}: the stored figure is not the one its sketches give")
    worst = sorted(fresh.values(), key=lambda report: -report.worst)
    limit = stage.workspace.policies.health.drift_psi
    found.evidence = {
        "pumps": len(fresh),
        "psi": {report.pump: round(report.worst, 6) for report in sorted(fresh.values(), key=lambda one: one.pump)},
        "drifted": sum(report.worst > limit for report in worst),
        "limit": limit,
        "worst": [
            {"pump": one.pump, "channel": one.worst_channel, "psi": round(one.worst, 6), "rows": one.rows}
            for one in worst[:5]
        ],
    }
    return found


def audit(stage: Stage) -> Found:
    """Verify the whole chain."""
    head = stage.workspace.store.audit.verify()
    return Found({"chain": head.chain, "head": head.digest, "entries": head.position})
