"""What a device says of itself when asked (`status`, docs/formats.md). Unsigned: for screens and planning, never for trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEVICE_STATUS_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Veto:
    """A local word that no trial may start; it ends at `until_ms`, or when it is lifted (0)."""

    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class PumpStatus:
    """The scorer's state of one pump; `None` before the first row.

    `process`: unknown, steady, stopped, changing or tripped; `trip` says why, and until when at the latest.
    `package` made the score. `late_rows` came too late to be scored.
    """

    scored_rows: int
    last_row_ms: int | None = None
    score: float | None = None
    alarmed: bool = False
    drift_index: float | None = None
    late_rows: int = 0
    process: str = "unknown"
    package: str = ""
    trip: Veto | None = None


@dataclass(frozen=True, slots=True)
class StagedStatus:
    """A package that is on the device and not active yet, how often its trial began, and what it waits for."""

    package: str
    task: str
    tries: int = 0
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What waits on the device to be collected; `dropped` is what a full outbox had to give up so far."""

    items: int
    bytes: int
    dropped: int = 0


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
    staged: StagedStatus | None = None
    veto: Veto | None = None
