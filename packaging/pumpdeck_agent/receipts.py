"""The device's pen: signs receipts and return indexes with the device key. Never loaded by the scoring process."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_agent.config import Layout
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import (
    AGENT_RECEIPT_PAYLOAD_TYPE,
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AgentReceipt,
    Receipt,
    ReturnIndex,
    ReturnItem,
    TakenTrust,
)
from pumpdeck_packaging.signing import Ed25519Signer, load_key, sign_dsse

RETURN_FORMAT = 1
_KEY_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Returned:
    """The counter of the last return index."""

    counter: int


class Pen:
    """Holds the device key once it was needed. The same payload always gives the same envelope."""

    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        self._fs = fs
        self._layout = layout
        self._signer: Ed25519Signer | None = None

    @property
    def signer(self) -> Ed25519Signer:
        """The device key.

        Raises:
            NotFoundError: this device was never enrolled, or its key is gone.
        """
        if self._signer is None:
            try:
                data = self._fs.read_bytes(self._layout.device_key, _KEY_MAX_BYTES)
            except FileNotFoundError as error:
                raise NotFoundError("the device key is not there", "device.key", hint="enrol the device again") from error
            self._signer = load_key(data, what="device.key")
        return self._signer

    def sign_receipt(self, receipt: Receipt) -> bytes:
        """The receipt's envelope (DSSE)."""
        return sign_dsse(canonical.encode(receipt), RECEIPT_PAYLOAD_TYPE, self.signer)

    def sign_agent_receipt(self, receipt: AgentReceipt) -> bytes:
        """The envelope of a receipt on the agent itself (DSSE)."""
        return sign_dsse(canonical.encode(receipt), AGENT_RECEIPT_PAYLOAD_TYPE, self.signer)

    def sign_index(self, device: str, at_ms: int, items: tuple[ReturnItem, ...]) -> bytes:
        """The envelope of an index over these items; its counter is above that of every index before."""
        return self.next_index(device, at_ms, items)[1]

    def next_index(
        self, device: str, at_ms: int, items: tuple[ReturnItem, ...], trust: TakenTrust | None = None
    ) -> tuple[ReturnIndex, bytes]:
        """As `sign_index`, with the index itself; `trust` is said in it."""
        index = ReturnIndex(RETURN_FORMAT, device, self._next_counter(at_ms), at_ms, items, trust)
        return index, self.sign(canonical.encode(index), RETURN_PAYLOAD_TYPE)

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        """The envelope (DSSE) of any word of this device."""
        return sign_dsse(payload, payload_type, self.signer)

    def _next_counter(self, at_ms: int) -> int:
        try:
            data = self._fs.read_bytes(self._layout.returned, 1024)
            counter = canonical.decode(Returned, data, "returned.json", max_bytes=1024).counter + 1
        except (OSError, PumpdeckError):
            # Enrolment wrote one, so it was lost: a time is above every count, and the counter must never fall.
            counter = at_ms
        replace_file(self._fs, self._layout.returned, canonical.encode(Returned(counter)))
        return counter
