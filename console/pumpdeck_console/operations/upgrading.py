"""Bringing another agent to devices over SSH, one after the other; the first that goes back to its old agent stops the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pumpdeck_console.operations.agent_releases import agent_desk, wheel_sets
from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError, RefusedError, TrustError, UnreachableError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.ports import Progress, RpcChannel
from pumpdeck_fleet.core.receipts import AGENT_RECEIPT_PAYLOAD_TYPE, RECEIPT_MAX_BYTES, AgentReceipt, Outcome
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.store.devices import DeviceIdentityRow
from pumpdeck_fleet.transports.rpc_client import push_blob
from pumpdeck_packaging.agent_trust import AgentWord
from pumpdeck_packaging.agent_wheels import WheelSet, wheel_bytes
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.wheel_index import WHEELS_FILE

_GOOD = (Outcome.COMMITTED, Outcome.ALREADY)
_ATTEMPTS = 3
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class UpgradeRow:
    """One device in the plan: the agent it shall run, the most bytes over its link; `note` says why it is left out."""

    device: str
    site: str
    version: str
    sha256: str
    bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """What came of one device. `outcome` is that of its receipt, or `held back`, `refused`, `unreachable`."""

    device: str
    version: str
    outcome: str
    reason: str
    sent_bytes: int

    @property
    def is_good(self) -> bool:
        """True when the device runs the wanted agent now."""
        return self.outcome in {one.value for one in _GOOD}


@operation("devices.plan_upgrade", runs_in="reader")
def plan_upgrade(workspace: Workspace, *, query: str = "") -> tuple[UpgradeRow, ...]:
    """The devices with a pump that `query` selects, and the agent released for their site.

    Raises:
        RefusedError: the query selects no device.
    """
    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = [device for device in workspace.fleet.devices if device.id in chosen]
    if not devices:
        raise RefusedError("the query selects no device", "upgrade", found=repr(query))
    known = workspace.store.devices.identities()
    words: dict[str, AgentWord | PumpdeckError] = {}
    return tuple(_row(workspace, device, known, words) for device in devices)


def _row(
    workspace: Workspace, device: Device, known: Mapping[str, DeviceIdentityRow], words: dict[str, AgentWord | PumpdeckError]
) -> UpgradeRow:
    if device.site not in words:
        try:
            words[device.site] = agent_desk(workspace, device.site).word()
        except PumpdeckError as error:
            words[device.site] = error
    word = words[device.site]
    if isinstance(word, PumpdeckError):
        return UpgradeRow(device.id, device.site, "", "", 0, word.sentence())
    note = ""
    if device.id not in known:
        note = "not enrolled"
    elif workspace.fleet.site(device.site).link is Link.COURIER:
        note = "reached by courier only: pumpdeck bundle export --agent brings it"
    return UpgradeRow(device.id, device.site, word.version, word.sha256, word.bytes, note)


@operation("devices.upgrade", runs_in="worker")
def upgrade_devices(
    workspace: Workspace, *, query: str = "", on_progress: Progress = no_progress, sleep: Callable[[float], None] = time.sleep
) -> tuple[UpgradeResult, ...]:
    """Carry out `plan_upgrade`, device by device. Repeating it goes on where it stopped and changes nothing that is done.

    Raises:
        RefusedError: the query selects no device that can be upgraded.
    """
    rows = plan_upgrade(workspace, query=query)
    wanted = [row for row in rows if not row.note]
    if not wanted:
        raise RefusedError("no device can be upgraded", "upgrade", found=rows[0].note)
    results: list[UpgradeResult] = []
    for number, row in enumerate(wanted):
        on_progress("upgrade", number, len(wanted))
        if any(result.outcome == Outcome.ROLLED_BACK.value for result in results):
            results.append(UpgradeResult(row.device, row.version, "held back", "another device went back to its old agent", 0))
        else:
            results.append(_upgrade(workspace, row, on_progress, sleep))
    on_progress("upgrade", len(wanted), len(wanted))
    return tuple(results)


def _upgrade(workspace: Workspace, row: UpgradeRow, on_progress: Progress, sleep: Callable[[float], None]) -> UpgradeResult:
    try:
        visit = _Visit(workspace, row, on_progress, sleep)
        receipt, sent = visit.bring(), visit.sent_bytes
    except PumpdeckError as error:
        outcome = "unreachable" if isinstance(error, UnreachableError) else "refused"
        return UpgradeResult(row.device, row.version, outcome, error.sentence(), 0)
    with workspace.store.atomic() as store:
        reason = f"{receipt.version} {receipt.outcome.value} {receipt.reason}".strip()
        digests = {"agent": receipt.sha256, "receipt": visit.receipt_digest}
        store.audit.append(workspace.actor, "device.upgrade", row.device, reason=reason, digests=digests)
    return UpgradeResult(row.device, row.version, receipt.outcome.value, receipt.reason, sent)


class _Visit:
    """One device: push what it lacks, ask, let the new agent answer, take its signed word."""

    def __init__(self, workspace: Workspace, row: UpgradeRow, on_progress: Progress, sleep: Callable[[float], None]) -> None:
        self._workspace = workspace
        self._device = workspace.fleet.device(row.device)
        self._row = row
        self._on_progress = on_progress
        self._sleep = sleep
        self.sent_bytes = 0
        self.receipt_digest = ""

    def bring(self) -> AgentReceipt:
        """The verified receipt of this release. Raises: PumpdeckError: the device refused, or cannot be reached."""
        desk = agent_desk(self._workspace, self._device.site)
        files, word = desk.files(), desk.word()
        stand = self._with_channel(lambda channel: self._ask(channel, files, word))
        if stand is None:
            # On probation: whichever agent the launcher starts now says how it ended.
            for left in reversed(range(_ATTEMPTS)):
                try:
                    stand = self._with_channel(lambda channel: self._receipt(channel.call(Op.AGENT, {}), word))
                    break
                except UnreachableError:
                    if not left:
                        raise
                    self._sleep(_PAUSE_S)
        if stand is None:
            raise RefusedError("gave no receipt for this release", self._row.device, hint="ask again with the same command")
        return stand

    def _with_channel(self, work: Callable[[RpcChannel], AgentReceipt | None]) -> AgentReceipt | None:
        channel = self._workspace.connect(self._device)
        try:
            return work(channel)
        finally:
            channel.close()

    def _ask(self, channel: RpcChannel, files: list[tuple[str, bytes]], word: AgentWord) -> AgentReceipt | None:
        header, _ = channel.call(Op.AGENT, {})
        if header.get("active") != word.sha256:
            self._push(channel, dict(header), word)
        listed = [{"name": name, "bytes": len(data)} for name, data in files]
        return self._receipt(channel.call(Op.UPGRADE, {"files": listed}, b"".join(data for _, data in files)), word)

    def _push(self, channel: RpcChannel, header: Mapping[str, object], word: AgentWord) -> None:
        target = str(header.get("target", ""))
        wanted = word.wheels.get(target, "")
        if header.get("libraries") and wanted not in ("", header["libraries"]):
            self._push_wheels(channel, target, wanted)
        agent = self._workspace.artifacts.get(word.sha256)
        self.sent_bytes += push_blob(channel, word.sha256, agent, self._on_progress)

    def _push_wheels(self, channel: RpcChannel, target: str, wanted: str) -> None:
        found: WheelSet | None = next((one for one in wheel_sets(self._workspace) if one.sha256 == wanted), None)
        if found is None:
            hint = f"fetch them with: pumpdeck package agent --wheels {target}"
            raise RefusedError("the wheels of this release are not in this workspace", target, hint=hint)
        for wheel in found.wheels:
            self.sent_bytes += push_blob(channel, wheel.digest, wheel_bytes(found.folder, wheel), self._on_progress)
        index = (found.folder / WHEELS_FILE).read_bytes()
        self.sent_bytes += push_blob(channel, wanted, index, self._on_progress)

    def _receipt(self, answer: tuple[Mapping[str, object], bytes], word: AgentWord) -> AgentReceipt | None:
        """The receipt when it is about this release; None while it is on probation."""
        header, envelope = answer
        if header.get("phase") == "PROBATION" or not envelope:
            return None
        identity = self._workspace.store.devices.identity(self._row.device)
        if identity is None:
            raise TrustError("is not enrolled", self._row.device)
        keys = {identity.key_id: identity.public_pem}
        payload = verify_dsse(envelope, AGENT_RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
        receipt = canonical.decode(AgentReceipt, payload, "agent receipt", max_bytes=RECEIPT_MAX_BYTES)
        if receipt.device != self._row.device:
            raise TrustError("is of another device", "agent receipt", expected=self._row.device, found=receipt.device)
        self.receipt_digest = canonical.digest(envelope)
        return receipt if (receipt.sha256, receipt.serial) == (word.sha256, word.serial) else None
