"""Models, immutable numbered versions, aliases and quality gates."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

FOREIGN = "foreign"
"""The model type of everything that was not learned here."""


class Alias(enum.StrEnum):
    """A movable name in front of a version."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    PREVIOUS = "previous"


class GateVerdict(enum.StrEnum):
    """What a quality gate said."""

    PASS = "pass"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class QualityGate:
    """One stored verdict: what was asked, what was found, in words and as a number where there is one.

    thresholds: all that it was judged by, by their names in the spec; `threshold` is the one that `figure` is held against.
    """

    name: str
    verdict: GateVerdict
    reason: str
    figure: float | None = None
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything a version was made from, by digest."""

    snapshot_digest: str
    pipeline_digest: str
    code_digest: str
    lock_digest: str
    seed: int
    git_commit: str = ""
    git_dirty: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Of a version that was imported: the file it came as, who made it and under which licence, and how its score is read.

    A device's score is (raw - zero) / unit, or (zero - raw) / unit where lower is worse. reference: digest of the rows with known
    scores that came with it; empty: none.
    """

    file: str
    source_digest: str
    made_by: str
    licence: str
    says: str
    meaning: str
    is_lower_worse: bool
    zero: float
    unit: float
    reference: str = ""

    def raw(self, score: float) -> float:
        """A device's score in the unit of whoever made the file."""
        return self.zero + (-score if self.is_lower_worse else score) * self.unit


@dataclass(frozen=True, slots=True)
class PumpParameters:
    """What one pump adds to the shared graph: its block and reference edges (bytes by digest in the artifacts)."""

    pump: str
    block_digest: str
    edges_digest: str
    limit: float
    limit_branch: str
    provisional: bool
    replay_alarms: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One immutable result. `content_digest` is its identity; `number` is how people call it in this workspace.

    judged_against: the champion's number when it was registered; 0: there was none. full_card_digest: the long model card;
    empty in versions from before there was one. origin: of imported versions; None: it was learned here.
    """

    model: str
    number: int
    content_digest: str
    pump_type: str
    model_type: str
    onnx_digest: str
    card_digest: str
    golden_digest: str
    run_record_digest: str
    created_ms: int
    data_end_ms: int
    metrics: Mapping[str, float]
    gates: tuple[QualityGate, ...]
    lineage: Lineage
    pumps: tuple[PumpParameters, ...]
    note: str = ""
    judged_against: int = 0
    full_card_digest: str = ""
    origin: Origin | None = None

    @property
    def refusals(self) -> tuple[QualityGate, ...]:
        """Gates that said no."""
        return tuple(gate for gate in self.gates if gate.verdict is GateVerdict.REFUSE)
