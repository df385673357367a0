"""What comes back signed by a device key that has ended: a retired device, or the one that stood here before a replacement.

Its signature proves who wrote it, but not that it was written before the key ended. So its receipts are kept apart as evidence
and named; they move no rollout, and its rows, sketches and alarms are not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import PumpdeckError, TooLargeError, TrustError
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex, ReturnItem, ReturnKind
from pumpdeck_fleet.core.rollout_events import SYSTEM
from pumpdeck_fleet.services.collect import FORMAT, INDEX_MAX_BYTES, Collector, CollectReport
from pumpdeck_fleet.store.devices import DeviceIdentityRow, DeviceKeyRow

ITEM_MAX_BYTES = 4 * 1024 * 1024
RETURN_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TakenReturn:
    """What a return brought. `is_newest`: none from this device and key was made after it, as far as is known here."""

    report: CollectReport
    counter: int
    is_newest: bool


def ended_key(collector: Collector, device: str, envelope: bytes) -> DeviceKeyRow | None:
    """The ended key of this device that the envelope says it is signed by; None for any other key."""
    try:
        plain = canonical.parse_json(envelope, "signed envelope", max_bytes=2 * INDEX_MAX_BYTES)
        named = {one["keyid"] for one in plain["signatures"]}
    except (PumpdeckError, KeyError, TypeError):
        # Whatever it is, the ordinary way says what is wrong with it.
        return None
    ended = [row for row in collector.store.devices.keys(device) if row.ended_ms is not None]
    return next((row for row in ended if named == {row.key_id}), None)


def take_apart(
    collector: Collector, key: DeviceKeyRow, envelope: bytes, read_item: Callable[[ReturnItem], bytes]
) -> TakenReturn:
    """Keep the receipts of a return that an ended key signed, apart from those that count.

    Raises:
        TrustError: not even that key signed it, or it speaks for another device.
        DamagedError: an item is not what the index says, or too much.
    """
    identity = DeviceIdentityRow(key.device, key.public_pem, key.key_id, key.host_key, key.enrolled_ms)
    payload = collector.verify_dsse(envelope, RETURN_PAYLOAD_TYPE, {key.key_id: key.public_pem}, INDEX_MAX_BYTES)
    index = canonical.decode(ReturnIndex, payload, f"return of {key.device}", max_bytes=INDEX_MAX_BYTES)
    if index.device != key.device or index.format != FORMAT:
        raise TrustError("speaks for another device", "return", expected=key.device, found=index.device)
    check_sizes(index, key.device)
    receipts = []
    for item in index.items:
        if item.kind is ReturnKind.RECEIPT:
            data = read_item(item)
            if canonical.digest(data) != item.digest:
                raise TrustError("is not what the signed index says", f"receipt {item.digest[:12]} of {key.device}")
            receipts.append(collector.verify_receipt(data, identity))
    when = format_ms(key.ended_ms or 0)
    reason = f"signed by key {key.key_id[:12]}, which was {key.ended} on {when}"
    with collector.store.atomic() as store:
        late = [one for one in receipts if not store.receipts.has(key.device, key.key_id, one.receipt.counter)]
        fresh = [one for one in late if store.receipts.put_apart(one.receipt, one.envelope, key.key_id, reason)]
        for one in fresh:
            store.audit.append(SYSTEM, "receipt.apart", key.device, reason, {"receipt": one.digest})
    left = len(index.items) - len(receipts)
    words = f"{reason}: {len(late)} receipts kept apart, {left} other items not taken"
    return TakenReturn(CollectReport(key.device, problems=(words,), is_replay=not fresh), index.counter, False)


def check_sizes(index: ReturnIndex, device: str) -> None:
    """Raises TooLargeError when a return names more than one stick should bring."""
    for item in index.items:
        if not 0 <= item.bytes <= ITEM_MAX_BYTES:
            which = f"{item.kind} {item.digest[:12]} of {device}"
            raise TooLargeError("is too large", which, expected=f"at most {ITEM_MAX_BYTES} bytes", found=item.bytes)
    total = sum(item.bytes for item in index.items)
    if total > RETURN_MAX_BYTES:
        raise TooLargeError("is too large", f"return of {device}", expected=f"at most {RETURN_MAX_BYTES}", found=total)
