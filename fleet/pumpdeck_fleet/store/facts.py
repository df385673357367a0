"""What is known of every pump, in one query: the base of health and of the fleet list. No numpy here: lists must start fast."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from pumpdeck_fleet.core.health import HealthFacts
from pumpdeck_fleet.core.telemetry import QualityFlag
from pumpdeck_fleet.store.connection import Connection, Row

SENSOR_FAULT_FLAGS = int(QualityFlag.RANGE | QualityFlag.FLAT_LINE | QualityFlag.STUCK | QualityFlag.UNIT_SWAP)
SCORE_CHANNELS = ("score", "limit", "alarmed", "drift_index")


class PumpFacts(NamedTuple):
    """One pump as the store knows it; `None` is not known. A tuple, since ten thousand are made at once."""

    pump: str
    rows: int
    last_row_ms: int | None
    last_flags: int | None
    last_score_ms: int | None
    score: float | None
    limit: float | None
    is_alarmed: bool | None
    drift_index: float | None
    drift_psi: float | None
    drift_channel: str
    drift_ms: int | None
    device: str
    package_sha256: str
    model: str
    number: int | None

    @property
    def last_seen_ms(self) -> int | None:
        """When the pump was last heard of: its last telemetry row or score."""
        if self.last_row_ms is None or self.last_score_ms is None:
            return self.last_row_ms if self.last_score_ms is None else self.last_score_ms
        return max(self.last_row_ms, self.last_score_ms)

    @property
    def has_sensor_fault(self) -> bool | None:
        """True when the last row carries a flag that speaks against a sensor."""
        return None if self.last_flags is None else bool(self.last_flags & SENSOR_FAULT_FLAGS)

    def health_facts(self) -> HealthFacts:
        """What `core.health.health_of` asks for."""
        return HealthFacts(
            is_alarmed=self.is_alarmed,
            has_sensor_fault=self.has_sensor_fault,
            last_seen_ms=self.last_seen_ms,
            has_model=True if self.model else None,
            drift_psi=self.drift_psi,
        )


_QUERY = """
WITH running AS (
    SELECT package_pump.pump, device.device, package_pump.sha256, package_pump.model, package_pump.number,
        package_pump.score_limit
    FROM device JOIN package_pump ON package_pump.sha256 = device.active WHERE device.active != ''),
known AS (
    SELECT pump FROM series UNION SELECT pump FROM pump_now UNION SELECT pump FROM running)
SELECT known.pump, telemetry.rows, telemetry.last_ms, telemetry.last_flags, scores.last_ms, scores.last_values,
    pump_now.alarm_ms, pump_now.alarmed, pump_now.drift_worst, pump_now.drift_channel, pump_now.drift_ms,
    running.device, running.sha256, running.model, running.number, running.score_limit
FROM known
LEFT JOIN series AS telemetry ON telemetry.kind = 'telemetry' AND telemetry.pump = known.pump
LEFT JOIN series AS scores ON scores.kind = 'scores' AND scores.pump = known.pump
LEFT JOIN pump_now ON pump_now.pump = known.pump
LEFT JOIN running ON running.pump = known.pump
ORDER BY known.pump
"""


def read_facts(sql: Connection) -> dict[str, PumpFacts]:
    """Facts of every pump the store has heard of, by pump."""
    return {row[0]: _facts(row) for row in sql.rows(_QUERY)}


def _facts(row: Row) -> PumpFacts:
    score_ms, alarm_ms = row[4], row[6]
    score, limit, alarmed, drift_index = _score_values(row[5])
    if limit is None:
        limit = row[15]
    is_alarmed = None if alarmed is None else alarmed > 0.5
    if alarm_ms is not None and (score_ms is None or alarm_ms >= score_ms or is_alarmed is None):
        is_alarmed = bool(row[7])
    return PumpFacts(
        row[0], row[1] or 0, row[2], row[3], score_ms, score, limit, is_alarmed, drift_index,
        row[8], row[9] or "", row[10], row[11] or "", row[12] or "", row[13] or "", row[14],
    )  # fmt: skip


_SCORES = struct.Struct(f"<{len(SCORE_CHANNELS)}f")
_NO_SCORES: tuple[None, ...] = (None,) * len(SCORE_CHANNELS)


def _score_values(blob: bytes | None) -> tuple[float | None, ...]:
    if blob is None or len(blob) != _SCORES.size:
        return _NO_SCORES
    return tuple(None if math.isnan(value) else value for value in _SCORES.unpack(blob))
