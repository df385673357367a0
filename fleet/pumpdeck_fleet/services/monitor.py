"""Drift of all pumps, from the sketches that their own devices made on the reference edges of their packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from pumpdeck_fleet.core.drift import DriftReport, DriftRules, DriftSummary
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.inventory import Fleet, Pump
from pumpdeck_fleet.core.rollout_events import SYSTEM
from pumpdeck_fleet.numeric.drift import psi_of_sketch
from pumpdeck_fleet.numeric.edges import ReferenceEdges, decode_edges
from pumpdeck_fleet.numeric.sketch import Sketch, decode_sketch, merge
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_fleet.store.drift_table import SketchRow

DEFAULT_RULES = DriftRules()
ChannelsOf = Callable[[Pump], Sequence[str]]
"""The channels a pump's model was trained on, in their order."""


def judge_drift(
    store: Store,
    artifacts: ArtifactStore,
    fleet: Fleet,
    rules: DriftRules = DEFAULT_RULES,
    channels_of: ChannelsOf | None = None,
) -> DriftSummary:
    """Drift of every pump with sketches: PSI of the current window against the reference counts in the edges.

    `channels_of` is asked where a model does not use all channels of its pump type. Reads only.
    """
    rows = store.sketches.newest(rules.window_ms)
    edges_digests = _edges_digests(store, {(row.pump, row.edges_digest) for row in rows})
    reports, skipped = [], {}
    for pump_id, group in groupby(rows, key=attrgetter("pump")):
        sketches = list(group)
        try:
            pump = fleet.pump(pump_id)
            channels = tuple(channels_of(pump)) if channels_of else _all_channels(fleet, pump)
            digest = edges_digests.get((pump_id, sketches[-1].edges_digest))
            if digest is None:
                raise NotFoundError("no model version has the reference edges of its sketch", pump_id)
            edges = decode_edges(artifacts.get(digest), channels, f"reference edges of {pump_id}")
            report = report_of(pump_id, sketches, edges)
        except PumpdeckError as error:
            skipped[pump_id] = error.sentence()
            continue
        if report.rows < rules.min_rows:
            skipped[pump_id] = f"only {report.rows} rows in the current window, {rules.min_rows} needed"
        else:
            reports.append(report)
    return DriftSummary(tuple(reports), skipped)


def report_of(pump: str, sketches: Sequence[SketchRow], edges: ReferenceEdges) -> DriftReport:
    """Drift over these sketches of one pump, oldest first; those on other edges belong to another reference and are left out.

    Raises:
        DamagedError: a sketch cannot be read.
    """
    window: Sketch | None = None
    for row in sketches:
        if row.edges_digest == edges.digest.hex():
            sketch = decode_sketch(row.data, edges, f"sketch of {pump}")
            window = sketch if window is None else merge(window, sketch)
    if window is None:
        raise DamagedError("no sketch stands on these edges", pump, expected=edges.digest.hex())
    found = zip(edges.channels, psi_of_sketch(window).tolist(), strict=True)
    return DriftReport(
        pump=pump,
        start_ms=window.first_ms,
        end_ms=window.last_ms,
        rows=window.rows,
        edges_digest=edges.digest.hex(),
        psi_by_channel={name: value for name, value in found if math.isfinite(value)},
    )


def store_drift(store: Store, summary: DriftSummary) -> int:
    """Keep the reports with one audit entry; how many pumps have a newer figure than before.

    A figure stands at the time of its last row, so judging the same sketches again changes nothing.
    """
    latest = store.drift.latest()
    fresh = [
        report
        for report in summary.reports
        if (row := latest.get(report.pump)) is None
        or (row.at_ms, dict(row.psi_by_channel)) != (report.end_ms, dict(report.psi_by_channel))
    ]
    if not fresh:
        return 0
    with store.atomic():
        for report in fresh:
            store.drift.put(report.pump, report.end_ms, report.psi_by_channel, report.worst)
        worst = max(fresh, key=lambda report: (report.worst, report.pump))
        reason = f"{len(fresh)} pumps, worst {worst.pump} {worst.worst_channel} {worst.worst:.3f}"
        store.audit.append(SYSTEM, "drift.judged", store.workspace, reason)
    return len(fresh)


def _all_channels(fleet: Fleet, pump: Pump) -> tuple[str, ...]:
    return tuple(channel.name for channel in fleet.pump_types[pump.type].channels)


def _edges_digests(store: Store, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Full digest of the edges' bytes by (pump, the first 8 bytes of it that a sketch carries)."""
    missing = set(wanted)
    found: dict[tuple[str, str], str] = {}
    for model in store.registry.models():
        # Newest first: devices run one of the last versions, so old ones are hardly ever read.
        for version in reversed(store.registry.versions(model) if missing else []):
            for pump in version.pumps:
                key = (pump.pump, pump.edges_digest[:16])
                if key in missing:
                    missing.discard(key)
                    found[key] = pump.edges_digest
    return found
