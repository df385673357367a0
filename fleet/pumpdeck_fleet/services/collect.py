"""What devices return: verified against the enrolled key, judged by its counters, stored once, and only then acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.device_status import DeviceStatus
from pumpdeck_fleet.core.errors import (
    DigestMismatchError,
    FormatError,
    NotFoundError,
    PumpdeckError,
    ReplayError,
    TrustError,
)
from pumpdeck_fleet.core.ids import pump_id
from pumpdeck_fleet.core.inventory import Device, Fleet
from pumpdeck_fleet.core.ports import RpcChannel
from pumpdeck_fleet.core.receipts import (
    AGENT_RECEIPT_PAYLOAD_TYPE,
    RECEIPT_MAX_BYTES,
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AgentReceipt,
    AlarmNotice,
    Receipt,
    RetrainRequest,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
)
from pumpdeck_fleet.core.retraining import RetrainEntry
from pumpdeck_fleet.core.rollout_events import SYSTEM, Receipted
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.services.deploy_feed import feed_receipts
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.devices import DeviceIdentityRow, DeviceTrustRow
from pumpdeck_fleet.transports.rpc_client import COLLECT_BYTES, ReturnBatch, collect_all

FORMAT = 1
INDEX_MAX_BYTES = 1024 * 1024
ITEM_LINE_MAX_BYTES = 1024
_AUDIT_LOOK = 10_000
ALARM_MAX_BYTES = 16 * 1024
REQUEST_MAX_BYTES = 16 * 1024
_SKETCH_MAGIC = b"PDS1"

VerifyDsse = Callable[[bytes, str, Mapping[str, str], int], bytes]
"""Payload of an envelope whose signatures all hold: (envelope, payload type, public keys by key id, limit in bytes)."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt that the enrolled device key signed."""

    receipt: Receipt
    envelope: bytes
    key_id: str

    @property
    def digest(self) -> str:
        """SHA-256 of the envelope: how audit entries and rollouts name the receipt."""
        return canonical.digest(self.envelope)


@dataclass(frozen=True, slots=True)
class VerifiedReturn:
    """One return whose index is signed by the enrolled device key and covers exactly these items."""

    device: str
    key_id: str
    index: ReturnIndex
    index_digest: str
    items: tuple[tuple[ReturnItem, bytes], ...]
    receipts: tuple[VerifiedReceipt, ...]


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What one collect brought. `stored` and `already` count items by kind, `rows` telemetry and score rows.

    `receipts` are digests of envelopes; `problems` say what was refused or ignored and why.
    """

    device: str
    stored: Mapping[str, int] = field(default_factory=dict)
    already: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    receipts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_replay: bool = False

    def plus(self, other: CollectReport) -> CollectReport:
        """Both together."""
        return CollectReport(
            self.device,
            Counter(self.stored) + Counter(other.stored),
            Counter(self.already) + Counter(other.already),
            self.rows + other.rows,
            self.receipts + other.receipts,
            self.problems + other.problems,
            self.is_replay or other.is_replay,
        )


@dataclass(frozen=True, slots=True)
class ItemHead:
    """The JSON line in front of a returned segment, scores chunk or sketch. `pump` is a tag."""

    format: int
    pump: str
    package_sha256: str


@dataclass(frozen=True, slots=True)
class Collector:
    """What collecting needs. `store` belongs to the thread that calls `keep`; `verify` may be called from any."""

    store: Store
    fleet: Fleet
    verify_dsse: VerifyDsse
    clock: Clock

    def identity(self, device: str) -> DeviceIdentityRow:
        """Raises: NotFoundError: the device was never enrolled, so nothing it says can be believed."""
        found = self.store.devices.identity(device)
        if found is None:
            if device in self.store.devices.retired():
                raise NotFoundError("is retired", device, hint="a device in its place is enrolled as a new one")
            raise NotFoundError("is not enrolled", device, hint=f"enrol it first: pumpdeck devices enrol {device}")
        return found

    def verify(self, batch: ReturnBatch, identity: DeviceIdentityRow) -> VerifiedReturn:
        """The return, once its signatures, its digests and its device hold. No I/O.

        Raises:
            TrustError: another key, another device, or items that the index does not list.
            DamagedError: an item is not what its digest says, or a payload does not follow its format.
        """
        keys = {identity.key_id: identity.public_pem}
        payload = self.verify_dsse(batch.envelope, RETURN_PAYLOAD_TYPE, keys, INDEX_MAX_BYTES)
        index = canonical.decode(ReturnIndex, payload, f"return of {identity.device}", max_bytes=INDEX_MAX_BYTES)
        _check_index(index, batch, identity.device)
        receipts = [
            self.verify_receipt(data, identity) for item, data in batch.items if item.kind is ReturnKind.RECEIPT
        ]
        digest = canonical.digest(batch.envelope)
        return VerifiedReturn(identity.device, identity.key_id, index, digest, batch.items, tuple(receipts))

    def verify_receipt(self, envelope: bytes, identity: DeviceIdentityRow) -> VerifiedReceipt:
        """A receipt from its envelope. No I/O.

        Raises:
            TrustError: another key signed it, or it speaks for another device.
            FormatError: it is not a receipt.
        """
        keys = {identity.key_id: identity.public_pem}
        payload = self.verify_dsse(envelope, RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
        receipt = canonical.decode(Receipt, payload, f"receipt of {identity.device}", max_bytes=RECEIPT_MAX_BYTES)
        if receipt.device != identity.device or receipt.format != FORMAT:
            raise TrustError("speaks for another device", "receipt", expected=identity.device, found=receipt.device)
        return VerifiedReceipt(receipt, envelope, identity.key_id)

    def keep(self, verified: VerifiedReturn, *, may_be_late: bool = False) -> CollectReport:
        """Store a verified return: items, counters, receipts into their rollouts, and the audit entry, in one transaction.

        A return that was kept before, or is older than one that was, changes nothing but says so. With `may_be_late`, as sticks
        are, it still brings what nobody has seen.
        """
        with self.store.atomic():
            try:
                self.store.receipts.put_return_counter(verified.device, verified.key_id, verified.index.counter)
            except ReplayError as error:
                if may_be_late:
                    return self._keep_late(verified)
                self._audit("return.ignored", verified, error.sentence())
                return CollectReport(verified.device, problems=(error.sentence(),), is_replay=True)
            self._note_trust(verified)
            report = replace(self.keep_receipts(verified.receipts), device=verified.device)
            for item, data in verified.items:
                if item.kind is not ReturnKind.RECEIPT:
                    report = report.plus(self._keep_item(verified, item, data))
            if verified.items:
                self._audit("return.collect", verified, _summary(report))
            return report

    def _note_trust(self, verified: VerifiedReturn) -> None:
        """What the device has signed to have taken, unless more is known: a stick may be weeks on its way."""
        device, said = verified.device, verified.index.trust
        if said is None:
            return
        site, known = self.fleet.device(device).site, self.store.devices.trusts().get(device)
        if known is None or known.site != site or (known.root, known.version) < (said.root, said.targets):
            row = DeviceTrustRow(device, site, said.targets, said.root, self.clock.now_ms(), "return")
            self.store.devices.put_trust(row)

    def _keep_late(self, verified: VerifiedReturn) -> CollectReport:
        """What an older return has that the store lacks. Its sketches never take the place of others: later ones are fuller."""
        report = replace(self.keep_receipts(verified.receipts), device=verified.device, is_replay=True)
        for item, data in verified.items:
            if item.kind is ReturnKind.SKETCH and self._has_sketch(verified.device, item):
                report = report.plus(CollectReport(verified.device, already={item.kind.value: 1}))
            elif item.kind is not ReturnKind.RECEIPT:
                report = report.plus(self._keep_item(verified, item, data))
        if report.stored:
            self._audit("return.late", verified, _summary(report))
        return report

    def _has_sketch(self, device: str, item: ReturnItem) -> bool:
        pumps = {pump.tag: pump.id for pump in self.fleet.pumps_by_device.get(device, ())}
        return item.pump in pumps and self.store.sketches.get(pumps[item.pump], item.start_ms) is not None

    def keep_receipts(self, receipts: Sequence[VerifiedReceipt]) -> CollectReport:
        """Store verified receipts of one device and give them to their rollouts, in one transaction."""
        report = CollectReport(receipts[0].receipt.device if receipts else "")
        fresh = []
        with self.store.atomic():
            for one in receipts:
                try:
                    is_new = self._add_receipt(one)
                except ReplayError as error:
                    digests = {"receipt": one.digest}
                    self.store.audit.append(SYSTEM, "receipt.ignored", report.device, error.sentence(), digests)
                    report = report.plus(CollectReport(report.device, problems=(error.sentence(),)))
                    continue
                # One that is there already goes to its rollout again: harmless there, and a cut in between is healed.
                fresh.append(Receipted(self.clock.now_ms(), one.receipt, one.digest, one.key_id))
                kind = {ReturnKind.RECEIPT.value: 1}
                counts = (
                    CollectReport(report.device, stored=kind) if is_new else CollectReport(report.device, already=kind)
                )
                report = report.plus(replace(counts, receipts=(one.digest,)))
            feed_receipts(self.store, fresh)
        return report

    def _add_receipt(self, one: VerifiedReceipt) -> bool:
        last = self.store.receipts.last_counter(one.receipt.device, one.key_id)
        with self.store.atomic():
            is_new = self.store.receipts.add(one.receipt, one.envelope, one.key_id)
            if is_new and one.receipt.counter < last:
                which = f"receipt of {one.receipt.device}"
                raise ReplayError("its counter has fallen", which, expected=f"above {last}", found=one.receipt.counter)
        return is_new

    def _keep_item(self, verified: VerifiedReturn, item: ReturnItem, data: bytes) -> CollectReport:
        try:
            with self.store.atomic():
                is_new, rows = self._store_item(verified.device, item, data)
        except PumpdeckError as error:
            # Signed, so it is the device's own fault; keeping it there for ever would block what comes behind it.
            self._audit("return.refused", verified, error.sentence(), item=item.digest)
            return CollectReport(verified.device, problems=(f"{item.kind}: {error.sentence()}",))
        kind = {item.kind.value: 1}
        if not is_new:
            return CollectReport(verified.device, already=kind)
        return CollectReport(verified.device, stored=kind, rows=rows)

    def _store_item(self, device: str, item: ReturnItem, data: bytes) -> tuple[bool, int]:
        if item.kind is ReturnKind.ALARM:
            notice = canonical.decode(AlarmNotice, data, "alarm notice", max_bytes=ALARM_MAX_BYTES)
            if notice.device != device:
                raise TrustError("speaks for another device", "alarm notice", expected=device, found=notice.device)
            return self.store.alarms.add(_with_pump(notice, self._pump(device, notice.pump))), 0
        if item.kind is ReturnKind.SKETCH:
            pump = self._pump(device, item.pump)
            if data[:4] != _SKETCH_MAGIC or len(data) < 12:
                raise FormatError("is not a sketch", f"sketch of {pump}", found=data[:4].hex())
            return self.store.sketches.put(pump, item.start_ms, data[4:12].hex(), data), 0
        if item.kind is ReturnKind.AGENT_RECEIPT:
            return self._note_agent(device, item, data), 0
        if item.kind in (ReturnKind.SCORES, ReturnKind.SEGMENT):
            return self._store_rows(device, item.kind, data)
        return self._store_request(device, item, data), 0

    def _note_agent(self, device: str, item: ReturnItem, data: bytes) -> bool:
        """A stick renewed the agent: in the audit chain, once, as an upgrade over SSH is."""
        identity = self.identity(device)
        keys = {identity.key_id: identity.public_pem}
        payload = self.verify_dsse(data, AGENT_RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
        receipt = canonical.decode(AgentReceipt, payload, "agent receipt", max_bytes=RECEIPT_MAX_BYTES)
        if receipt.device != device:
            raise TrustError("speaks for another device", "agent receipt", expected=device, found=receipt.device)
        known = self.store.audit.latest(_AUDIT_LOOK)
        if any(entry.subject == device and entry.digests.get("receipt") == item.digest for entry in known):
            return False
        reason = f"{receipt.version} {receipt.outcome.value} {receipt.reason}".strip()
        digests = {"agent": receipt.sha256, "receipt": item.digest}
        self.store.audit.append(SYSTEM, "device.upgrade", device, reason, digests)
        return True

    def _store_request(self, device: str, item: ReturnItem, data: bytes) -> bool:
        asked = canonical.decode(RetrainRequest, data, "retrain request", max_bytes=REQUEST_MAX_BYTES)
        if asked.device != device or asked.pump != item.pump:
            found = f"{asked.device} {asked.pump}"
            raise TrustError("speaks for another", "retrain request", expected=f"{device} {item.pump}", found=found)
        pump = self._pump(device, asked.pump)
        told = asked.at_ms, asked.trigger, asked.reason, asked.package_sha256
        is_new = self.store.retraining.add(RetrainEntry(item.digest, pump, device, *told))
        if is_new:
            self.store.audit.append(SYSTEM, "retrain.requested", pump, asked.reason, {"item": item.digest})
        return is_new

    def _store_rows(self, device: str, kind: ReturnKind, data: bytes) -> tuple[bool, int]:
        from pumpdeck_fleet.numeric.columns import decode_chunk  # deferred: numpy; a collect of receipts does without

        head, chunk = _split(kind, data)
        pump = self._pump(device, head.pump)
        table = self.store.scores if kind is ReturnKind.SCORES else self.store.telemetry
        counts = table.append(pump, decode_chunk(chunk, f"{kind} of {pump}"))
        return counts.new + counts.changed > 0, counts.new + counts.changed

    def _pump(self, device: str, tag: str) -> str:
        site = self.fleet.device(device).site
        for pump in self.fleet.pumps_by_device.get(device, ()):
            if pump.tag == tag:
                return pump.id
        raise NotFoundError("this device has no such pump", pump_id(site, tag), expected=f"a pump of {device}")

    def _audit(self, action: str, verified: VerifiedReturn, reason: str, **digests: str) -> None:
        self.store.audit.append(SYSTEM, action, verified.device, reason, {"index": verified.index_digest, **digests})


def collect_device(
    collector: Collector, channel: RpcChannel, device: Device, *, max_bytes: int = COLLECT_BYTES
) -> CollectReport:
    """Everything that waits on one device, verified, stored and acknowledged batch by batch, and the device's status.

    Raises:
        NotFoundError: the device is not enrolled.
        TrustError, DamagedError: a return does not hold; nothing of that batch was stored or acknowledged.
        UnreachableError: the link broke; what was stored stays stored.
    """
    identity = collector.identity(device.id)
    reports = [CollectReport(device.id)]

    def keep(batch: ReturnBatch) -> None:
        report = collector.keep(collector.verify(batch, identity))
        check_not_replayed(report)
        reports.append(report)

    collect_all(channel, keep, max_bytes=max_bytes)
    status = read_status(channel, device.id)
    with collector.store.atomic():
        collector.store.devices.put_status(device.id, status, collector.clock.now_ms())
    total = reports[0]
    for report in reports[1:]:
        total = total.plus(report)
    return total


def check_not_replayed(report: CollectReport) -> None:
    """A return that was ignored must not be acknowledged: the device would throw away what nobody has.

    Raises:
        ReplayError: the return was older than one that was kept.
    """
    if report.is_replay:
        hint = "if its disk was replaced, enrol the device again"
        raise ReplayError(
            "returned something older than what was kept", report.device, found=report.problems[0], hint=hint
        )


def read_status(channel: RpcChannel, device: str) -> DeviceStatus:
    """What the device says of itself now; unsigned.

    Raises:
        FormatError: the answer does not follow docs/formats.md.
    """
    header: Mapping[str, Any] = channel.call(Op.STATUS, {})[0]
    return canonical.from_plain(DeviceStatus, header.get("state"), f"status of {device}")


def _check_index(index: ReturnIndex, batch: ReturnBatch, device: str) -> None:
    if index.device != device or index.format != FORMAT:
        raise TrustError("speaks for another device", "return", expected=device, found=index.device)
    if index.items != tuple(item for item, _ in batch.items):
        raise TrustError("lists other things than it brings", f"return {index.counter} of {device}")
    for item, data in batch.items:
        if len(data) != item.bytes or canonical.digest(data) != item.digest:
            raise DigestMismatchError(
                "is not what the signed index says", f"{item.kind} {item.digest[:12]} of {device}"
            )


def _split(kind: ReturnKind, data: bytes) -> tuple[ItemHead, bytes]:
    line, _, rest = data.partition(b"\n")
    return canonical.decode(ItemHead, line, f"returned {kind}", max_bytes=ITEM_LINE_MAX_BYTES), rest


def _with_pump(notice: AlarmNotice, pump: str) -> AlarmNotice:
    return replace(notice, pump=pump)


def _summary(report: CollectReport) -> str:
    counts = [f"{count} {kind}" for kind, count in report.stored.items()]
    counts += [f"{count} {kind} known before" for kind, count in report.already.items()]
    counts += [f"{len(report.problems)} refused"] if report.problems else []
    return ", ".join(counts)
