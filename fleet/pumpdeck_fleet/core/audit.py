"""The hash chain of who did what. Pure: entries in, entries and verdicts out; the store keeps them.

Each entry's digest covers its canonical JSON, which holds the digest of the entry before it. Actors are pseudonyms
(`actor-<12 hex>`); names stand in a separate table that may be erased without breaking the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError

GENESIS = "0" * 64
CHECKPOINT_PAYLOAD_TYPE = "application/vnd.pumpdeck.checkpoint.v1+json"
CHECKPOINT_FORMAT = 1
CHECKPOINT_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link. `position` counts from 1 in one chain (one workspace)."""

    chain: str
    position: int
    previous: str
    at_ms: int
    actor: str
    action: str
    subject: str
    reason: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON."""
        return canonical.digest(canonical.encode(self))


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of a chain."""

    chain: str
    position: int
    digest: str


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """What a person signs and keeps elsewhere: up to `position` the chain was this. Who rewrites it all cannot match it."""

    format: int
    chain: str
    position: int
    digest: str
    at_ms: int


class AuditBrokenError(DamagedError):
    """The chain does not hold; `which` names the first bad position."""


def verify_chain(
    rows: Iterable[tuple[AuditEntry, str]], chain: str, start: AuditHead | None = None
) -> AuditHead:
    """The head of a chain given as (entry, stored digest) in order of position: a whole one, or what comes behind `start`.

    Raises:
        AuditBrokenError: names the first position whose number, link or digest is wrong.
    """
    position, previous = (start.position, start.digest) if start else (0, GENESIS)
    for entry, stored in rows:
        position += 1
        where = f"audit entry {position} of {chain}"
        if entry.position != position or entry.chain != chain:
            raise AuditBrokenError(
                "an entry is missing or out of order", where, expected=position, found=entry.position
            )
        if entry.previous != previous:
            raise AuditBrokenError(
                "does not follow the entry before it", where, expected=previous, found=entry.previous
            )
        if entry.digest != stored:
            raise AuditBrokenError("was altered", where, expected=stored, found=entry.digest)
        previous = stored
    return AuditHead(chain, position, previous)


def check_checkpoint(checkpoint: AuditCheckpoint, head: AuditHead, found: str | None) -> None:
    """Compare a verified chain with a checkpoint; `found` is the digest of the chain's entry at that position.

    Raises:
        AuditBrokenError: the chain was cut or rewritten since, or it is another workspace's.
    """
    where = f"audit entry {checkpoint.position} of {head.chain}"
    if checkpoint.chain != head.chain:
        raise AuditBrokenError("the checkpoint is of another chain", where, expected=head.chain, found=checkpoint.chain)
    if checkpoint.position > head.position:
        raise AuditBrokenError(
            "the chain is shorter than it was", where, expected=f"{checkpoint.position} entries", found=head.position
        )
    if found != checkpoint.digest:
        raise AuditBrokenError("the chain was rewritten", where, expected=checkpoint.digest, found=found)
