"""Returns that came on a stick: through the same verification and into the same tables as those collected over SSH.

Sticks come in any order and more than once. A return older than one that was kept still brings what the later one had to leave
behind; a return that brings nothing new changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TooLargeError, TrustError
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex, ReturnItem
from pumpdeck_fleet.services.collect import FORMAT, INDEX_MAX_BYTES, Collector, CollectReport
from pumpdeck_fleet.transports.rpc_client import ReturnBatch

ITEM_MAX_BYTES = 4 * 1024 * 1024
RETURN_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TakenReturn:
    """What a return brought. `is_newest`: none from this device and key was made after it, as far as is known here."""

    report: CollectReport
    counter: int
    is_newest: bool


def intake_return(
    collector: Collector, device: str, envelope: bytes, read_item: Callable[[ReturnItem], bytes]
) -> TakenReturn:
    """Verify a return, then read what its signed index names and nothing else, then keep it.

    Raises:
        NotFoundError: the device is not known or not enrolled, or an item is gone.
        TrustError: another key signed it, or it speaks for another device.
        DamagedError: an item is not what the index says, or too much.
    """
    collector.fleet.device(device)
    identity = collector.identity(device)
    keys = {identity.key_id: identity.public_pem}
    payload = collector.verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, INDEX_MAX_BYTES)
    index = canonical.decode(ReturnIndex, payload, f"return of {device}", max_bytes=INDEX_MAX_BYTES)
    if index.device != device or index.format != FORMAT:
        raise TrustError("speaks for another device", "return", expected=device, found=index.device)
    _check_sizes(index, device)
    batch = ReturnBatch(envelope, tuple((item, read_item(item)) for item in index.items))
    verified = collector.verify(batch, identity)
    report = collector.keep(verified, may_be_late=True)
    last = collector.store.receipts.return_counter(device, identity.key_id)
    return TakenReturn(report, index.counter, index.counter == last)


def _check_sizes(index: ReturnIndex, device: str) -> None:
    for item in index.items:
        if not 0 <= item.bytes <= ITEM_MAX_BYTES:
            which = f"{item.kind} {item.digest[:12]} of {device}"
            raise TooLargeError("is too large", which, expected=f"at most {ITEM_MAX_BYTES} bytes", found=item.bytes)
    total = sum(item.bytes for item in index.items)
    if total > RETURN_MAX_BYTES:
        raise TooLargeError("is too large", f"return of {device}", expected=f"at most {RETURN_MAX_BYTES}", found=total)
