"""What the workspace knows and a training run does not: the champion, the inventory, the device classes a model is meant for."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError
from pumpdeck_fleet.core.inventory import EventKind, Pump
from pumpdeck_fleet.core.registry import Alias, GateVerdict, ModelVersion, QualityGate
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.coverage import is_beyond
from pumpdeck_trainer.fleet_gates import (
    Coverage,
    History,
    PumpPlace,
    SliceRate,
    champion_gate,
    coverage_gate,
    coverage_of,
    slice_gate,
    slice_rates,
)
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec
from pumpdeck_trainer.trained import TrainedModel

MOST_HISTORIES = 200


def load_champion(workspace: Workspace, model: str) -> Champion | None:
    """The version that is champion now, with everything a replay needs.

    None where there is none, or where its files are not here: training must not wait for them, the gate says so.
    """
    version = workspace.store.registry.alias(model, Alias.CHAMPION)
    if version is None:
        return None
    get = workspace.artifacts.get
    try:
        return Champion(
            content_digest=version.content_digest,
            number=version.number,
            spec=load_spec(workspace, version),
            onnx=get(version.onnx_digest),
            blocks={one.pump: get(one.block_digest) for one in version.pumps},
            data_end_ms=version.data_end_ms,
            lineage=version.lineage,
        )
    except (NotFoundError, DamagedError):
        return None


def load_spec(workspace: Workspace, version: ModelVersion) -> PipelineSpec:
    """The pipeline a version was trained with.

    Raises:
        NotFoundError, DamagedError: it is not in the artifacts, or altered.
    """
    digest = version.lineage.pipeline_digest
    data = workspace.artifacts.get(digest)
    return canonical.decode(PipelineSpec, data, f"pipeline {digest[:12]}", max_bytes=SPEC_MAX_BYTES)


def places_of(workspace: Workspace, pump_type: str) -> dict[str, PumpPlace]:
    """Every pump of the type that is not retired, by identity."""
    now_ms = workspace.clock.now_ms()
    retired = {
        event.subject
        for event in workspace.fleet.events
        if event.kind is EventKind.RETIRED and event.at_ms <= now_ms
    }
    chosen = [pump for pump in workspace.fleet.pumps if pump.type == pump_type and pump.id not in retired]
    return {pump.id: _place(workspace, pump) for pump in chosen}


def _place(workspace: Workspace, pump: Pump) -> PumpPlace:
    position = workspace.fleet.site_by_id[pump.site].position
    return PumpPlace(pump.site, pump.maker, pump.model, pump.criticality, position[0] if position else None)


@dataclass(frozen=True, eq=False)
class FleetJudgement:
    """The gates of the fleet, and the slices and coverage they were judged by."""

    gates: tuple[QualityGate, ...]
    slices: tuple[SliceRate, ...]
    coverage: Coverage


def judge_in_fleet(workspace: Workspace, trained: TrainedModel, champion: Champion | None) -> FleetJudgement:
    """Champion, slices and coverage, for a version about to be registered."""
    thresholds = trained.spec.gates
    places = places_of(workspace, trained.spec.pump_type)
    has_champion = any(one.judged.contest is not None for one in trained.pumps)
    rates = slice_rates(trained.pumps, places)
    regimes = (trained.regimes, thresholds.coverage_regime_warn)
    span = (trained.data_start_ms, trained.data_end_ms)
    coverage = coverage_of(trained.pumps, places, span, regimes, history_of(workspace, trained))
    gates = (
        _champion(workspace, trained, champion),
        slice_gate(rates, has_champion=has_champion, thresholds=thresholds),
        coverage_gate(coverage, thresholds),
    )
    return FleetJudgement(gates, rates, coverage)


def history_of(workspace: Workspace, trained: TrainedModel) -> History:
    """How pumps were run in the year before the data, by their hourly means: at most 200 pumps, spread over the type."""
    start_ms = trained.data_start_ms
    step = max(len(trained.pumps) // MOST_HISTORIES, 1)
    channels = {one.name: one for one in trained.spec.channels}
    looked, beyond = 0, []
    for pump in trained.pumps[::step]:
        span = workspace.store.telemetry.span(pump.pump)
        if not pump.ranges or span is None or span[0] > start_ms - DAY_MS:
            continue
        rolled = workspace.store.telemetry.rollup(pump.pump, max(span[0], start_ms - 365 * DAY_MS), start_ms)
        shares = [
            float(is_beyond(rolled.mean[:, rolled.channels.index(name)], held, channels[name]).mean())
            for name, held in pump.ranges.items()
            if name in rolled.channels and len(rolled.hour_ms)
        ]
        looked += bool(shares)
        if max(shares, default=0.0) > trained.spec.gates.coverage_history_hours:
            beyond.append(pump.pump)
    return History(looked, tuple(beyond))


def _champion(workspace: Workspace, trained: TrainedModel, champion: Champion | None) -> QualityGate:
    named = workspace.store.registry.aliases(trained.model).get(Alias.CHAMPION, 0)
    if champion is None and named:
        reason = f"files of the champion v{named} are missing or altered: nothing was compared"
        return QualityGate("champion", GateVerdict.WARN, reason)
    if champion is None:
        return QualityGate("champion", GateVerdict.PASS, "there is no champion to compare with")
    if champion.content_digest == trained.content_digest:
        return QualityGate("champion", GateVerdict.PASS, f"the same content as the champion v{champion.number}")
    return champion_gate(trained.pumps, champion.number, trained.spec.gates)
