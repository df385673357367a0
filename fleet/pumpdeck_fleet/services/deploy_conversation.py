"""One conversation with one device, run in a thread: hello, package, leave to assign, assignment, returns. Touches no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError, TrustError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import RpcChannel
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_fleet.core.rollout_states import TaskState
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.services.collect import CollectReport, VerifiedReceipt, VerifiedReturn
from pumpdeck_fleet.store.devices import DeviceIdentityRow
from pumpdeck_fleet.transports.rpc_client import ReturnBatch, acknowledge, collect_batch, push_blob

RECEIPTS_BYTES = 64 * 1024
"""How much one delivery takes along: receipts come first; the rest waits for an ordinary collect."""

_OUTCOMES = frozenset(outcome.value for outcome in Outcome)


@dataclass(frozen=True, slots=True)
class Mail:
    """What a conversation tells the side that owns the store."""

    command: ev.Deliver


@dataclass(frozen=True, slots=True)
class Staging(Mail):
    """The package lies whole on the device: may the assignment go? Answer: `Assign`, or nothing."""

    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Returned(Mail):
    """A verified return, to be stored before it is acknowledged. Answer: CollectReport."""

    verified: VerifiedReturn


@dataclass(frozen=True, slots=True)
class Said(Mail):
    """The verified receipt that came as the answer to the assignment. Answer: CollectReport."""

    receipt: VerifiedReceipt


@dataclass(frozen=True, slots=True)
class Waits(Mail):
    """The device holds the assignment and has not ended it. The conversation is over."""

    state: TaskState
    reason: str


@dataclass(frozen=True, slots=True)
class Declined(Mail):
    """The device answered its first assignment with a refusal: it took nothing on. The conversation is over."""

    error: PumpdeckError


@dataclass(frozen=True, slots=True)
class Failed(Mail):
    """The attempt ended with an error; `is_ours` when our own package is missing or damaged. The conversation is over."""

    error: PumpdeckError
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Ended(Mail):
    """The conversation came to its end, with a receipt or without leave to assign."""


Ask = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One attempt to bring one device its package."""

    command: ev.Deliver
    device: Device
    identity: DeviceIdentityRow
    load_package: Callable[[], bytes]
    files: Sequence[tuple[str, bytes]]
    connect: Callable[[Device], RpcChannel]
    verify: Callable[[ReturnBatch, DeviceIdentityRow], VerifiedReturn]
    verify_receipt: Callable[[bytes, DeviceIdentityRow], VerifiedReceipt]
    hello: Mapping[str, str]

    def run(self, ask: Ask) -> None:
        """Talk to the end. Errors of links and devices become mail; anything else is a defect and is raised."""
        try:
            package = self.load_package()
        except PumpdeckError as error:
            ask(Failed(self.command, error, is_ours=True))
            return
        try:
            channel = self.connect(self.device)
            try:
                last = self._talk(channel, package, ask)
            finally:
                channel.close()
        except PumpdeckError as error:
            last = Failed(self.command, error)
        ask(last)

    def _talk(self, channel: RpcChannel, package: bytes, ask: Ask) -> Mail:
        self._check_hello(channel.call(Op.HELLO, self.hello)[0])
        # What travels may be a ciphertext: its own digest is its name until the device has opened it.
        sent_bytes = push_blob(channel, canonical.digest(package), package)
        leave = ask(Staging(self.command, sent_bytes))
        if not isinstance(leave, ev.Assign):
            return Ended(self.command)
        try:
            header, envelope = self._assign(channel)
        except RefusedError as error:
            if not leave.is_first:
                raise
            return Declined(self.command, error)
        if header.get("outcome") not in _OUTCOMES:
            state = TaskState.TRIAL if header.get("state") == TaskState.TRIAL.value else TaskState.STAGED
            return Waits(self.command, state, str(header.get("reason") or f"the device is {header.get('state')}"))
        receipt = self.verify_receipt(envelope, self.identity)
        if not self._collect(channel, ask, receipt):
            ask(Said(self.command, receipt))
        return Ended(self.command)

    def _check_hello(self, header: Mapping[str, object]) -> None:
        said = (header.get("device"), header.get("site"), header.get("key_id"))
        known = (self.device.id, self.device.site, self.identity.key_id)
        if said != known:
            raise TrustError("another device answers", self.device.id, expected=" ".join(known), found=f"{said}")

    def _assign(self, channel: RpcChannel) -> tuple[Mapping[str, object], bytes]:
        listed = [{"name": name, "bytes": len(data)} for name, data in self.files]
        return channel.call(Op.ASSIGN, {"files": listed}, b"".join(data for _, data in self.files))

    def _collect(self, channel: RpcChannel, ask: Ask, wanted: VerifiedReceipt) -> bool:
        """Take the first of what waits, the receipt among it; whether it was."""
        batch, _ = collect_batch(channel, RECEIPTS_BYTES)
        if not batch.items:
            return False
        verified = self.verify(batch, self.identity)
        report = ask(Returned(self.command, verified))
        assert isinstance(report, CollectReport)
        if report.is_replay:
            return False
        acknowledge(channel, [item.digest for item, _ in batch.items])
        return wanted.digest in report.receipts
