"""What a device says of itself when asked (`status`, docs/formats.md). Unsigned: for screens and planning, never for trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEVICE_STATUS_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Veto:
    """A local word that no trial may start; it ends at `until_ms`."""

    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class PumpStatus:
    """The scorer's state of one pump; `None` before the first row."""

    scored_rows: int
    last_row_ms: int | None = None
    score: float | None = None
    alarmed: bool = False
    drift_index: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What waits on the device to be collected."""

    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One answer to `status`. `active` and `previous` are package digests, empty where there is none; `pumps` by tag."""

    state: str
    active: str
    previous: str
    seq: int
    counter: int
    free_bytes: int
    outbox: OutboxStatus
    pumps: Mapping[str, PumpStatus] = field(default_factory=dict)
    veto: Veto | None = None
