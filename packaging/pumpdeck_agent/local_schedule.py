"""The device's own scheduler: when does a pump need a new model, as far as the device can tell? Decides by rows' time alone.

The device asks, the console decides (`ReturnKind.RETRAIN_REQUEST`). A clock that jumps changes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pumpdeck_agent.config import Layout
from pumpdeck_agent.pump_record import PumpFigures
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS
from pumpdeck_fleet.core.errors import FormatError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

SCHEDULE_FORMAT = 1
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RetrainRules:
    """When the device asks. 0: never for that reason.

    drift_share: share of the pump's limit that the drift index stands at or above, for `drift_hours`. every_days: since the
    active package scored its first row. every_rows: rows scored since then. again_days: no second request for the same reason
    and package before.
    """

    drift_share: float = 0.5
    drift_hours: float = 24.0
    every_days: float = 0.0
    every_rows: int = 0
    again_days: float = 7.0

    def __post_init__(self) -> None:
        if min(self.drift_share, self.drift_hours, self.every_days, self.every_rows) < 0 or self.again_days <= 0:
            raise FormatError("must not be negative, and again_days not 0", "serve.json.retrain")


@dataclass(frozen=True, slots=True)
class PumpMemory:
    """What the decisions on one pump need of the past. `asked_ms`: by trigger, time of the row at which it was asked for."""

    package_sha256: str
    first_ms: int
    first_rows: int
    drift_since_ms: int | None = None
    asked_ms: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetrainReason:
    """One decision: this pump needs a new model."""

    pump: str
    trigger: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Kept:
    format: int
    pumps: Mapping[str, PumpMemory] = field(default_factory=dict)


def decide(
    figures: PumpFigures, limit: float, memory: PumpMemory | None, rules: RetrainRules
) -> tuple[PumpMemory, tuple[RetrainReason, ...]]:
    """What is remembered of this pump from now on, and what is asked for. `limit`: of its score."""
    now_ms = figures.last_row_ms or 0
    if memory is None or memory.package_sha256 != figures.package_sha256:
        memory = PumpMemory(figures.package_sha256, now_ms, figures.scored_rows)
    is_adrift = rules.drift_share > 0 and figures.drift_index >= rules.drift_share * limit
    since_ms = (memory.drift_since_ms if memory.drift_since_ms is not None else now_ms) if is_adrift else None
    memory = replace(memory, drift_since_ms=since_ms)
    found = []
    for trigger, reason in _reasons(figures, memory, rules, now_ms).items():
        asked_ms = memory.asked_ms.get(trigger)
        if asked_ms is None or now_ms - asked_ms >= rules.again_days * DAY_MS:
            found.append(RetrainReason(figures.tag, trigger, reason))
            memory = replace(memory, asked_ms={**memory.asked_ms, trigger: now_ms})
    return memory, tuple(found)


def _reasons(figures: PumpFigures, memory: PumpMemory, rules: RetrainRules, now_ms: int) -> dict[str, str]:
    reasons = {}
    if memory.drift_since_ms is not None and now_ms - memory.drift_since_ms >= rules.drift_hours * HOUR_MS:
        hours = (now_ms - memory.drift_since_ms) / HOUR_MS
        reasons["drift"] = f"the baseline, now {figures.drift_index:.1f} widths from its reference, was far for {hours:.0f} h"
    if rules.every_days > 0 and now_ms - memory.first_ms >= rules.every_days * DAY_MS:
        reasons["schedule"] = f"this model has scored for {rules.every_days:g} days"
    rows = figures.scored_rows - memory.first_rows
    if rules.every_rows > 0 and rows >= rules.every_rows:
        reasons["data_volume"] = f"{rows} rows were scored with this model"
    return reasons


def load_memories(fs: FileSystem, layout: Layout) -> dict[str, PumpMemory]:
    """By tag. A damaged file is worth as much as none: the counting begins anew."""
    try:
        kept = canonical.decode(_Kept, fs.read_bytes(layout.schedule, _MAX_BYTES), "schedule.json", max_bytes=_MAX_BYTES)
    except (OSError, PumpdeckError):
        return {}
    return dict(kept.pumps) if kept.format == SCHEDULE_FORMAT else {}


def save_memories(fs: FileSystem, layout: Layout, memories: Mapping[str, PumpMemory]) -> None:
    """Keep them over a restart."""
    replace_file(fs, layout.schedule, canonical.encode(_Kept(SCHEDULE_FORMAT, memories)))
