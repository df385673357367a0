"""Run record: one JSON object with everything a training run depended on and everything it found. No wall clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pumpdeck_fleet.core.canonical import digest, encode
from pumpdeck_fleet.core.registry import Lineage, QualityGate
from pumpdeck_trainer.judging import Judged
from pumpdeck_trainer.search import SearchOutcome, outcome_plain
from pumpdeck_trainer.source import Snapshot, TrainingRequest
from pumpdeck_trainer.spec import PipelineSpec
from pumpdeck_trainer.supervised import HeldOut
from pumpdeck_trainer.trained import TrainedPump

FORMAT = 1
IMPORTED = "imported"
"""`kind` of a record whose model was learned elsewhere; a record without a kind is of a training."""


@dataclass(frozen=True)
class Findings:
    """What a run found, before it is written down."""

    pumps: Sequence[TrainedPump]
    judged: Sequence[Judged]
    left_out: Mapping[str, str]
    metrics: Mapping[str, float]
    gates: Sequence[QualityGate]
    search: SearchOutcome | None = None
    held_out: HeldOut | None = None


def write_record(
    spec: PipelineSpec, request: TrainingRequest, snapshot: Snapshot, lineage: Lineage, findings: Findings
) -> bytes:
    """The record as canonical JSON."""
    return encode(
        {
            "format": FORMAT,
            **({"kind": IMPORTED} if spec.foreign else {}),
            "model": spec.model,
            "spec": spec,
            "request": {"start_ms": request.start_ms, "end_ms": request.end_ms, "pumps": len(request.pumps)},
            "lineage": lineage,
            "metrics": findings.metrics,
            "gates": list(findings.gates),
            **({"search": outcome_plain(findings.search)} if findings.search else {}),
            **({"held_out": findings.held_out} if findings.held_out else {}),
            "left_out": findings.left_out,
            "pumps": {
                pump.pump: _pump(pump, judged, snapshot)
                for pump, judged in zip(findings.pumps, findings.judged, strict=True)
            },
        }
    )


def _pump(pump: TrainedPump, judged: Judged, snapshot: Snapshot) -> dict[str, Any]:
    limit = {name: value for name, value in asdict(pump.limit).items() if name != "branch"}
    return {
        "snapshot": snapshot.pumps[pump.pump],
        "block": digest(pump.block),
        "edges": digest(pump.edges),
        "limit": {**limit, "branch": pump.limit.branch.value},
        "rows": pump.rows,
        "used": pump.used,
        "excluded": pump.excluded,
        "flags": pump.flags,
        # Who was champion at the time is no part of what the run depended on.
        "replay": replace(judged, contest=None),
    }
