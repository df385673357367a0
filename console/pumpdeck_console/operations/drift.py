"""Drift: judged from the sketches that devices returned, and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.drift import DriftSummary
from pumpdeck_fleet.core.inventory import Pump
from pumpdeck_fleet.core.ports import Progress


@dataclass(frozen=True, slots=True)
class DriftListRow:
    """The newest drift figure of one pump: the worst channel's PSI, and all of them."""

    pump: str
    site: str
    type: str
    at_ms: int
    worst: float
    worst_channel: str
    psi_by_channel: Mapping[str, float]
    is_drifting: bool


@dataclass(frozen=True, slots=True)
class DriftJudged:
    """How many pumps have a newer figure, and why others have none."""

    fresh: int
    judged: int
    skipped: Mapping[str, str]


@operation("drift.list", runs_in="reader")
def list_drift(workspace: Workspace, *, query: str = "") -> tuple[DriftListRow, ...]:
    """Pumps that `query` selects and that have a drift figure, the worst first."""
    latest = workspace.store.drift.latest()
    threshold = workspace.policies.health.drift_psi
    rows = []
    for pump in (row.pump for row in list_pumps(workspace, query=query)):
        found = latest.get(pump.id)
        if found is not None:
            channel = max(found.psi_by_channel, key=lambda name: found.psi_by_channel[name], default="")
            is_drifting = found.worst > threshold
            rows.append(
                DriftListRow(
                    pump.id, pump.site, pump.type, found.at_ms, found.worst, channel, found.psi_by_channel, is_drifting
                )
            )
    return tuple(sorted(rows, key=lambda row: (-row.worst, row.pump)))


@operation("drift.judge", runs_in="worker")
def judge(workspace: Workspace, *, on_progress: Progress = no_progress) -> DriftJudged:
    """Judge every pump with sketches anew and keep what is newer. Judging the same sketches again changes nothing."""
    from pumpdeck_fleet.services.monitor import store_drift  # deferred: numpy

    on_progress("judge drift", 0, 1)
    summary = fresh_drift(workspace)
    fresh = store_drift(workspace.store, summary)
    on_progress("judge drift", 1, 1)
    return DriftJudged(fresh, len(summary.reports), summary.skipped)


def fresh_drift(workspace: Workspace) -> DriftSummary:
    """What the stored sketches give now; nothing is kept."""
    from pumpdeck_fleet.services.monitor import judge_drift  # deferred: numpy

    return judge_drift(workspace.store, workspace.artifacts, workspace.fleet, channels_of=_ChannelsOf(workspace))


class _ChannelsOf:
    """The channels of the model version that a pump's device runs, in model order; those of its type when that is not known."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._facts = workspace.store.facts()
        self._by_version: dict[tuple[str, int], Sequence[str]] = {}

    def __call__(self, pump: Pump) -> Sequence[str]:
        known = self._facts.get(pump.id)
        if known is None or not known.model or known.number is None:
            return tuple(channel.name for channel in self._workspace.fleet.pump_types[pump.type].channels)
        key = (known.model, known.number)
        if key not in self._by_version:
            self._by_version[key] = self._channels_of(*key)
        return self._by_version[key]

    def _channels_of(self, model: str, number: int) -> Sequence[str]:
        from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec  # deferred: numpy

        digest = self._workspace.store.registry.version(model, number).lineage.pipeline_digest
        data = self._workspace.artifacts.get(digest)
        spec = canonical.decode(PipelineSpec, data, f"pipeline {digest[:12]}", max_bytes=SPEC_MAX_BYTES)
        return tuple(channel.name for channel in spec.channels)
