"""What a training run gives: everything a package and a registry entry need, as bytes and figures. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pumpdeck_fleet.core.canonical import digest, encode
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.core.registry import GateVerdict, Lineage, ModelVersion, Origin, PumpParameters, QualityGate
from pumpdeck_trainer.coverage import Regime
from pumpdeck_trainer.judging import Judged
from pumpdeck_trainer.limits import FittedLimit
from pumpdeck_trainer.spec import PipelineSpec

if TYPE_CHECKING:
    from pumpdeck_trainer.search import SearchOutcome
    from pumpdeck_trainer.supervised import HeldOut


@dataclass(frozen=True)
class TrainedPump:
    """One pump's share: parameter block and reference edges (bytes), how its limit came about, and the replay.

    flags: rows by quality flag. last_ms: the newest row learned from. ranges: of each operating channel, what the data holds.
    """

    pump: str
    block: bytes
    edges: bytes
    limit: FittedLimit
    rows: int
    used: int
    excluded: Mapping[str, int]
    replay_alarms: int
    judged: Judged
    last_ms: int
    flags: Mapping[str, int]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel:
    """The result of one training run for one pump type. Nothing in it depends on when or where it ran."""

    spec: PipelineSpec
    onnx: bytes
    golden: bytes
    card: bytes
    run_record: bytes
    pumps: tuple[TrainedPump, ...]
    left_out: Mapping[str, str]
    metrics: Mapping[str, float]
    gates: tuple[QualityGate, ...]
    lineage: Lineage
    data_start_ms: int
    data_end_ms: int
    regimes: tuple[Regime, ...] = ()
    search: SearchOutcome | None = None
    held_out: HeldOut | None = None

    @property
    def model(self) -> str:
        """The model line: `<pump type>-health`."""
        return self.spec.model

    @cached_property
    def content_digest(self) -> str:
        """The version's identity: over everything that reaches a device, and nothing else."""
        told = {
            "model": self.model,
            "features": [[channel.name, channel.unit, channel.votes] for channel in self.spec.channels],
            "window_s": self.spec.window_s,
            "alarm": self.spec.alarm,
            "onnx": digest(self.onnx),
            "golden": digest(self.golden),
            "card": digest(self.card),
            "pumps": [[pump.pump, digest(pump.block), digest(pump.edges)] for pump in self.pumps],
        }
        return digest(encode(told))

    @property
    def refusals(self) -> tuple[QualityGate, ...]:
        """Gates that said no."""
        return tuple(gate for gate in self.gates if gate.verdict is GateVerdict.REFUSE)

    def require_gates(self) -> None:
        """Raises: GateRefusedError - a gate said no; nothing may be packaged from this."""
        for gate in self.refusals:
            raise GateRefusedError(f"gate {gate.name} refused: {gate.reason}", self.model)

    def artifacts(self) -> tuple[bytes, ...]:
        """Every file of this result, for a content-addressed store; `version` names them by digest."""
        shared = (self.onnx, self.golden, self.card, self.run_record)
        return (*shared, *(data for pump in self.pumps for data in (pump.block, pump.edges)))

    def version(self, number: int, created_ms: int, note: str = "") -> ModelVersion:
        """The registry entry."""
        return ModelVersion(
            model=self.model,
            number=number,
            content_digest=self.content_digest,
            pump_type=self.spec.pump_type,
            model_type=self.spec.model_type,
            onnx_digest=digest(self.onnx),
            card_digest=digest(self.card),
            golden_digest=digest(self.golden),
            run_record_digest=digest(self.run_record),
            created_ms=created_ms,
            data_end_ms=self.data_end_ms,
            metrics=self.metrics,
            gates=self.gates,
            lineage=self.lineage,
            pumps=tuple(_parameters(pump) for pump in self.pumps),
            note=note,
            origin=self.origin,
        )

    @property
    def origin(self) -> Origin | None:
        """Where an imported model comes from; None where it was learned here."""
        said = self.spec.foreign
        if said is None:
            return None
        return Origin(
            file=said.file,
            source_digest=said.source,
            made_by=said.made_by,
            licence=said.licence,
            says=said.says,
            meaning=said.meaning,
            is_lower_worse=said.is_lower_worse,
            zero=self.metrics["foreign_zero"],
            unit=self.metrics["foreign_unit"],
            reference=said.reference,
        )


def _parameters(pump: TrainedPump) -> PumpParameters:
    return PumpParameters(
        pump=pump.pump,
        block_digest=digest(pump.block),
        edges_digest=digest(pump.edges),
        limit=pump.limit.limit,
        limit_branch=pump.limit.branch.value,
        provisional=pump.limit.provisional,
        replay_alarms=pump.replay_alarms,
    )
