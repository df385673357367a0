"""Returns that came on a stick: through the same verification and into the same tables as those collected over SSH.

Sticks come in any order and more than once. A return older than one that was kept still brings what the later one had to leave
behind; a return that brings nothing new changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex, ReturnItem
from pumpdeck_fleet.services.collect import FORMAT, INDEX_MAX_BYTES, Collector
from pumpdeck_fleet.services.late_receipts import TakenReturn, check_sizes, ended_key, take_apart
from pumpdeck_fleet.transports.rpc_client import ReturnBatch


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
    ended = ended_key(collector, device, envelope)
    if ended is not None:
        return take_apart(collector, ended, envelope, read_item)
    identity = collector.identity(device)
    keys = {identity.key_id: identity.public_pem}
    payload = collector.verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, INDEX_MAX_BYTES)
    index = canonical.decode(ReturnIndex, payload, f"return of {device}", max_bytes=INDEX_MAX_BYTES)
    if index.device != device or index.format != FORMAT:
        raise TrustError("speaks for another device", "return", expected=device, found=index.device)
    check_sizes(index, device)
    batch = ReturnBatch(envelope, tuple((item, read_item(item)) for item in index.items))
    verified = collector.verify(batch, identity)
    report = collector.keep(verified, may_be_late=True)
    last = collector.store.receipts.return_counter(device, identity.key_id)
    return TakenReturn(report, index.counter, index.counter == last)

