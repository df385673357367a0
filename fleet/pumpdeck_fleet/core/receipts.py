"""A device's signed word on what happened, and the signed index of what it returns.

Both travel as DSSE envelopes signed with the device key (docs/formats.md); the types here are their payloads.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import UsageError

RECEIPT_PAYLOAD_TYPE = "application/vnd.pumpdeck.receipt.v1+json"
RETURN_PAYLOAD_TYPE = "application/vnd.pumpdeck.return.v1+json"
DOWNGRADE_PAYLOAD_TYPE = "application/vnd.pumpdeck.downgrade.v1+json"
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
class ShadowSketch:
    """How the new model differed from the active one on the live rows of one pump.

    `watched_ms` is how long rows came, longer pauses left out. `rows` were scored by both; `both`, `only_active` and `only_new`
    are rows in alarm by both, by the active model alone, by the new one alone.
    `differences` are rows by score difference (new minus active) in shares of each one's own limit, see `SHADOW_EDGES`.
    """

    rows: int = 0
    both: int = 0
    only_active: int = 0
    only_new: int = 0
    watched_ms: int = 0
    largest: float = 0.0
    differences: tuple[int, ...] = ()


SHADOW_EDGES = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Right-closed edges of `ShadowSketch.differences`: one bin more than edges, the outer two are open."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one assignment. `counter` grows by one with every receipt of a device and never falls.

    `permit` is the permit or work-order number under which it was done, `token` the digest of the downgrade word that was used
    up, `shadow` what shadow scoring saw, by tag. What is None is left out of the bytes.
    """

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
    permit: str | None = None
    token: str | None = None
    shadow: Mapping[str, ShadowSketch] | None = None


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
    AGENT_RECEIPT = "agent_receipt"
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
class TakenTrust:
    """The versions of root and targets below which a device will never go again: older keys no longer count there."""

    root: int
    targets: int


@dataclass(frozen=True, slots=True)
class ReturnIndex:
    """The signed list that covers every byte a device hands over in one collect or on one stick.

    `trust` stands in returns on sticks: over SSH the device answers at once. None: an older agent, or nothing taken yet.
    """

    format: int
    device: str
    counter: int
    at_ms: int
    items: tuple[ReturnItem, ...]
    trust: TakenTrust | None = None


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


PERMIT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._/#-]{0,62}[A-Za-z0-9])?")
SHADOW_MAX_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a device shall take a package; None where nothing is said.

    `permit`: permit or work-order number. `retry`: try it although it failed on this device before. `shadow_s`: score beside the
    active model for so long before it is committed.
    """

    permit: str | None = None
    retry: bool | None = None
    shadow_s: int | None = None

    def __post_init__(self) -> None:
        if self.permit is not None and PERMIT.fullmatch(self.permit) is None:
            raise ValueError("a permit is 1-64 letters, digits, blanks or . _ / # -")
        if self.shadow_s is not None and not 0 < self.shadow_s <= SHADOW_MAX_S:
            raise ValueError(f"shadow scoring lasts 1-{SHADOW_MAX_S} seconds")
        if self.retry is False:
            raise ValueError("retry is true or left out")

    @property
    def are_ordinary(self) -> bool:
        """True when nothing is said."""
        return self == NO_TERMS

    @property
    def words(self) -> str:
        """For people and the audit chain; empty when nothing is said."""
        permit = f"permit {self.permit}" if self.permit else ""
        retry = "tried again where it failed before" if self.retry else ""
        shadow = f"{self.shadow_s / 3600:g} h of shadow scoring" if self.shadow_s else ""
        return ", ".join(word for word in (permit, retry, shadow) if word)


NO_TERMS = Terms()


def parse_terms(permit: str, retry: bool, shadow_h: float) -> Terms:
    """Terms as a person gives them; empty, false and 0 say nothing.

    Raises:
        UsageError: a permit of a form that no device takes, or impossible hours.
    """
    try:
        return Terms(permit.strip() or None, retry or None, round(shadow_h * 3600) if shadow_h else None)
    except ValueError as error:
        raise UsageError(str(error), "terms", found=permit or shadow_h) from error


@dataclass(frozen=True, slots=True)
class DowngradeWord:
    """What two people sign: this one device may, once, go back to this one package.

    It serves one assignment, whose `seq` is at most `until_seq`. `nonce` makes each word another one.
    """

    format: int
    site: str
    device: str
    package_sha256: str
    until_seq: int
    nonce: str
    made_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """The signed word which package a device shall run. `seq` grows with every assignment of a device.

    `token` is a downgrade word's envelope (DSSE, JSON text) where the package is older than what ran. What is None is left out of
    the bytes, so an assignment without terms is what it always was.
    """

    format: int
    device: str
    package_sha256: str
    seq: int
    issued_at_ms: int
    soft_until_ms: int
    task: str
    permit: str | None = None
    retry: bool | None = None
    shadow_s: int | None = None
    token: str | None = None

    @property
    def terms(self) -> Terms:
        """The terms in it. Raises: ValueError: they are not such as may be given."""
        return Terms(self.permit, self.retry, self.shadow_s)


ASSIGNMENT_MAX_BYTES = 4096
