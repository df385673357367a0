"""A device's signed word on what happened, and the signed index of what it returns.

Both travel as DSSE envelopes signed with the device key (docs/formats.md); the types here are their payloads.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

RECEIPT_PAYLOAD_TYPE = "application/vnd.pumpdeck.receipt.v1+json"
RETURN_PAYLOAD_TYPE = "application/vnd.pumpdeck.return.v1+json"
KEPT_PAYLOAD_TYPE = "application/vnd.pumpdeck.kept.v1+json"
AGENT_RECEIPT_PAYLOAD_TYPE = "application/vnd.pumpdeck.agent-receipt.v1+json"
RECEIPT_MAX_BYTES = 64 * 1024


class Outcome(enum.StrEnum):
    """How a device task ended on the device."""

    COMMITTED = "committed"
    ALREADY = "already"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    FAILED_INCONSISTENT = "failed_inconsistent"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Figures of the trial on this very device. Latency is one golden row, in microseconds."""

    golden_rows: int
    largest_difference: float
    flags_equal: bool
    p50_us: float
    p99_us: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one assignment. `counter` grows by one with every receipt of a device and never falls."""

    format: int
    device: str
    task: str
    package_sha256: str
    seq: int
    outcome: Outcome
    reason: str
    active_sha256: str
    previous_sha256: str
    counter: int
    at_ms: int
    clock_synced: bool
    agent_version: str
    runtime_version: str
    self_test: SelfTest | None = None


@dataclass(frozen=True, slots=True)
class AgentReceipt:
    """What became of one release of the agent itself on a device. `counter` never falls."""

    format: int
    device: str
    sha256: str
    version: str
    serial: int
    outcome: Outcome
    reason: str
    active_sha256: str
    previous_sha256: str
    counter: int
    at_ms: int
    clock_synced: bool


class ReturnKind(enum.StrEnum):
    """What a device sends back; the order is the order in which a full outbox keeps them."""

    RECEIPT = "receipt"
    ALARM = "alarm"
    RETRAIN_REQUEST = "retrain_request"
    SKETCH = "sketch"
    SCORES = "scores"
    SEGMENT = "segment"


@dataclass(frozen=True, slots=True)
class ReturnItem:
    """One thing in a device's outbox, named by its digest. `pump` is a tag, empty where it does not apply."""

    kind: ReturnKind
    digest: str
    bytes: int
    pump: str = ""
    start_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReturnIndex:
    """The signed list that covers every byte a device hands over in one collect or on one stick."""

    format: int
    device: str
    counter: int
    at_ms: int
    items: tuple[ReturnItem, ...]


@dataclass(frozen=True, slots=True)
class KeptWord:
    """A deploy key's word that a device's return is safe: what `ack` is over SSH. `index` is the digest of its envelope."""

    format: int
    site: str
    device: str
    index: str


@dataclass(frozen=True, slots=True)
class AlarmNotice:
    """One change of a pump's alarm state on the device (payload of `ReturnKind.ALARM`)."""

    format: int
    device: str
    pump: str
    at_ms: int
    raised: bool
    score: float
    limit: float
    channel: str
    package_sha256: str


@dataclass(frozen=True, slots=True)
class RetrainRequest:
    """A device asks for a new model of one pump (payload of `ReturnKind.RETRAIN_REQUEST`).

    `trigger`: request (a person or a system on site), drift, schedule or data_volume.
    """

    format: int
    device: str
    pump: str
    at_ms: int
    trigger: str
    reason: str
    package_sha256: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """The signed word which package a device shall run. `seq` grows with every assignment of a device."""

    format: int
    device: str
    package_sha256: str
    seq: int
    issued_at_ms: int
    soft_until_ms: int
    task: str


ASSIGNMENT_MAX_BYTES = 4096
