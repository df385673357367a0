"""Reading, checking and exporting the audit chain."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.audit import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_MAX_BYTES,
    CHECKPOINT_PAYLOAD_TYPE,
    AuditCheckpoint,
    AuditEntry,
    AuditHead,
    check_checkpoint,
)
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import FormatError, NotFoundError

_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry with the actor's name, where it was not erased."""

    entry: AuditEntry
    name: str


@operation("audit.list", runs_in="reader")
def list_audit(workspace: Workspace, *, words: str = "", limit: int = 200) -> tuple[AuditRow, ...]:
    """The newest `limit` entries that hold every one of `words`, oldest first."""
    wanted = words.lower().split()
    names = workspace.store.persons.names()
    if not wanted:
        newest = workspace.store.audit.latest(limit)
        return tuple(AuditRow(entry, names.get(entry.actor, "")) for entry in reversed(newest))
    found: deque[AuditRow] = deque(maxlen=limit)
    for entry in entries(workspace):
        row = AuditRow(entry, names.get(entry.actor, ""))
        text = f"{entry.actor} {row.name} {entry.action} {entry.subject} {entry.reason}".lower()
        if all(word in text for word in wanted):
            found.append(row)
    return tuple(found)


@operation("audit.verify", runs_in="reader")
def verify_audit(workspace: Workspace) -> AuditHead:
    """The head of the chain after every link was computed again.

    Raises:
        AuditBrokenError: names the first position that does not hold.
    """
    return workspace.store.audit.verify()


@operation("audit.checkpoint", runs_in="reader")
def sign_checkpoint(workspace: Workspace, *, site: str = "") -> bytes:
    """A signed word on where the chain stands now, to be kept elsewhere. Signed with this person's deploy key at `site`.

    Raises:
        AuditBrokenError: the chain does not hold.
        NotFoundError: no site has trust, or no deploy key is on this computer.
    """
    from pumpdeck_packaging.signing import sign_dsse  # deferred: cryptography; lists do without

    head = workspace.store.audit.verify()
    checkpoint = AuditCheckpoint(CHECKPOINT_FORMAT, head.chain, head.position, head.digest, workspace.clock.now_ms())
    signer = workspace.signing_key("deploy", site or _founded(workspace)[0]).signer
    return sign_dsse(canonical.encode(checkpoint), CHECKPOINT_PAYLOAD_TYPE, signer)


@operation("audit.compare", runs_in="reader")
def compare_checkpoint(workspace: Workspace, *, envelope: bytes) -> AuditCheckpoint:
    """The checkpoint, when the whole chain holds and still goes through it.

    Raises:
        AuditBrokenError: the chain was cut or rewritten since.
        TrustError: no deploy key of this workspace's sites signed it. DamagedError: it is not a checkpoint.
    """
    from pumpdeck_packaging.signing import verify_dsse  # deferred: cryptography; lists do without

    keys: dict[str, str] = {}
    for site in _founded(workspace):
        keys |= workspace.trust(site).deploy_keys()
    payload = verify_dsse(envelope, CHECKPOINT_PAYLOAD_TYPE, keys, CHECKPOINT_MAX_BYTES)
    checkpoint = canonical.decode(AuditCheckpoint, payload, "checkpoint", max_bytes=CHECKPOINT_MAX_BYTES)
    if checkpoint.format != CHECKPOINT_FORMAT:
        raise FormatError("has an unknown format", "checkpoint", expected=CHECKPOINT_FORMAT, found=checkpoint.format)
    with workspace.store.reading() as store:
        head = store.audit.verify()
        check_checkpoint(checkpoint, head, store.audit.digest_at(checkpoint.position))
    return checkpoint


def _founded(workspace: Workspace) -> list[str]:
    found = [site.id for site in workspace.fleet.sites if workspace.trust(site.id).exists]
    if not found:
        raise NotFoundError("no site has a trust repository", "checkpoint", hint="found it with: pumpdeck trust init")
    return found


def export_lines(workspace: Workspace) -> Iterator[str]:
    """The whole chain as JSON lines, each with the entry's digest; names of persons are left out."""
    for entry in entries(workspace):
        yield json.dumps(
            {
                "chain": entry.chain,
                "position": entry.position,
                "at": format_ms(entry.at_ms),
                "at_ms": entry.at_ms,
                "actor": entry.actor,
                "action": entry.action,
                "subject": entry.subject,
                "reason": entry.reason,
                "digests": dict(entry.digests),
                "previous": entry.previous,
                "digest": entry.digest,
            },
            sort_keys=True,
        )


def entries(workspace: Workspace) -> Iterator[AuditEntry]:
    """Every entry of every chain, a page at a time: this workspace's chain last, each oldest first."""
    for chain in reversed(workspace.store.audit.chains()):
        after = 0
        while page := workspace.store.audit.entries(after=after, limit=_PAGE, chain=chain):
            yield from page
            after = page[-1].position
