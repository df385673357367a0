"""Another workspace's history taken into this one, and what this workspace must do about it.

Its own rollouts hear of receipts and approvals, and give way where another workspace's task stands. All of it is one
transaction; the same again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.audit import AuditCheckpoint
from pumpdeck_fleet.core.errors import PumpdeckError, TrustError
from pumpdeck_fleet.core.merging import Key, MergeConflict, Row, beaten_claims
from pumpdeck_fleet.core.receipts import RECEIPT_MAX_BYTES, RECEIPT_PAYLOAD_TYPE, Receipt
from pumpdeck_fleet.core.rollout_records import Approval
from pumpdeck_fleet.core.statements import Believed
from pumpdeck_fleet.services.collect import VerifyDsse
from pumpdeck_fleet.services.deploy_feed import feed, feed_receipts
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.devices import DeviceKeyRow
from pumpdeck_fleet.store.json_rows import to_text
from pumpdeck_fleet.store.merge import StoreMerge, claims_of, derive, merge_store, note_conflicts
from pumpdeck_fleet.store.merge_signed import Beliefs, Doubt
from pumpdeck_fleet.store.merge_tables import ALL, Scope


@dataclass(frozen=True, slots=True)
class GaveWay:
    """A live task that another one beats. `driven_by` is empty when it was ended here, else who will end it at its next sync."""

    device: str
    rollout: str
    to: str
    driven_by: str = ""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one sync brought. `taken` counts rows by table; `conflicts` are new ones, `known` were listed before.

    `refused` names what is not believed and why; `receipts` counts those that rollouts driven here had waited for. `unsealed` is
    (audit chain, entries) of what nobody has signed there yet: it stays there until somebody does.
    """

    workspace: str
    taken: Mapping[str, int] = field(default_factory=dict)
    conflicts: tuple[MergeConflict, ...] = ()
    known: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    gave_way: tuple[GaveWay, ...] = ()
    receipts: int = 0
    approved: tuple[str, ...] = ()
    unsealed: tuple[tuple[str, int], ...] = ()

    @property
    def is_news(self) -> bool:
        """True when something is here that was not before."""
        return any(self.taken.values())


@dataclass(frozen=True, slots=True)
class Words:
    """How envelopes are proven: those of devices by their keys, those of people by the trust that stands here."""

    verify_dsse: VerifyDsse
    statement: Callable[[bytes], Believed]
    seal: Callable[[bytes], AuditCheckpoint]


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Who asks, which part is meant, and how words are proven; `conflicts` were found in files beside the stores."""

    actor: str
    words: Words
    scope: Scope = ALL
    conflicts: Sequence[MergeConflict] = ()


def sync_store(mine: Store, theirs: Store, request: SyncRequest) -> SyncReport:
    """Take in what another store knows. Nothing changes when this raises.

    Raises:
        ForkedError, ConflictError: the two cannot be merged. AuditBrokenError: a chain does not hold.
    """
    now_ms = mine.clock.now_ms()
    with mine.atomic():
        words = request.words
        beliefs = Beliefs(words.statement, words.seal, receipt_doubt(mine, words.verify_dsse))
        done = merge_store(mine, theirs, request.scope, beliefs)
        problems = [*request.conflicts, *done.conflicts]
        problems += _approve(mine, done, now_ms)
        heard = _feed(mine, done, now_ms)
        gave_way = _give_way(mine, now_ms)
        derive(mine)
        fresh = note_conflicts(mine, theirs.workspace, problems)
        report = SyncReport(
            workspace=theirs.workspace,
            taken={name: count for name, count in sorted(done.taken.items()) if count},
            conflicts=tuple(fresh),
            known=len(problems) - len(fresh),
            refused=tuple(done.refused),
            gave_way=tuple(gave_way),
            receipts=heard,
            approved=tuple(sorted(done.approvals)),
            unsealed=tuple(done.unsealed),
        )
        if report.is_news or fresh:
            head = theirs.audit.head()
            counts = ", ".join(f"{name} {count}" for name, count in report.taken.items())
            reason = f"{counts or 'nothing new'}; {len(fresh)} conflicts"
            mine.audit.append(request.actor, "sync.take", theirs.workspace, reason, {"head": head.digest})
    return report


def receipt_doubt(mine: Store, verify_dsse: VerifyDsse) -> Doubt:
    """Believe a receipt that a key signed which stands here for that device, and no other."""
    keys: dict[tuple[str, str], DeviceKeyRow] = {}

    def doubt(key: Key, row: Row) -> str:
        device, key_id, counter = key
        if not keys:
            # Asked when the merge has come to receipts: keys that came in with it stand here by then.
            keys.update({(row.device, row.key_id): row for row in mine.devices.all_keys()})
        known = keys.get((device, key_id))
        if known is None:
            return f"key {key_id[:12]} is not enrolled for {device}"
        if known.ended_ms is not None and row["received_ms"] > known.ended_ms:
            return f"key {key_id[:12]} was {known.ended} before it came in"
        try:
            payload = verify_dsse(row["envelope"], RECEIPT_PAYLOAD_TYPE, {key_id: known.public_pem}, RECEIPT_MAX_BYTES)
            receipt = canonical.decode(Receipt, payload, f"receipt of {device}", max_bytes=RECEIPT_MAX_BYTES)
            if (receipt.device, receipt.counter) != (device, counter) or to_text(receipt) != row["body"]:
                found = f"receipt {receipt.counter} of {receipt.device}"
                raise TrustError("is not what the device signed", f"receipt {counter} of {device}", found=found)
        except PumpdeckError as error:
            return error.sentence()
        return ""

    return doubt


def _approve(store: Store, done: StoreMerge, now_ms: int) -> list[MergeConflict]:
    problems = []
    for rollout, texts in done.approvals.items():
        for text in texts:
            approval = canonical.decode(Approval, text.encode("utf-8"), f"approval of {rollout}", max_bytes=16_384)
            try:
                feed(store, rollout, [ev.Approve(now_ms, approval.actor, approval.plan_digest, approval.person)])
            except PumpdeckError as error:
                problems.append(
                    MergeConflict("approval", rollout, "the rollout as it stands", approval.actor, error.sentence())
                )
    return problems


def _feed(store: Store, done: StoreMerge, now_ms: int) -> int:
    wanted = set(done.receipts)
    events = [
        ev.Receipted(now_ms, row.receipt, row.digest, row.key_id)
        for device in sorted({device for device, _, _ in wanted})
        for row in store.receipts.of(device)
        if (device, row.key_id, row.receipt.counter) in wanted
    ]
    before = {rollout.id: rollout for rollout in store.rollouts.all()}
    fed = feed_receipts(store, events)
    return sum(
        task.receipt_digest != before[rollout_id].tasks[device].receipt_digest
        for rollout_id, one in fed.items()
        for device, task in one.rollout.tasks.items()
    )


def _give_way(store: Store, now_ms: int) -> list[GaveWay]:
    """End live tasks of our own rollouts that another one beats, and name those that others will end."""
    elsewhere = store.rollouts.homes()
    found = []
    events: dict[str, list[ev.Event]] = {}
    for loser, winner in beaten_claims(claims_of(store.rollouts.all())):
        driven_by = elsewhere.get(loser.rollout, "")
        if not driven_by:
            events.setdefault(loser.rollout, []).append(ev.GiveWay(now_ms, loser.device, winner.rollout))
        found.append(GaveWay(loser.device, loser.rollout, winner.rollout, driven_by))
    for rollout, words in events.items():
        feed(store, rollout, words)
    return found
