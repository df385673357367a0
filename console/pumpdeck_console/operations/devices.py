"""Enrolling devices: from then on their receipts are believed and their SSH host key is pinned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pumpdeck_console.operations.base import no_progress, operation
from pumpdeck_console.operations.confidential_packages import note_age_key
from pumpdeck_console.operations.fleet import list_pumps
from pumpdeck_console.operations.vouching import Circle, seal_chains, write_device_words
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ConflictError, PumpdeckError, TrustError, UsageError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_packaging.signing import key_id_of


@dataclass(frozen=True, slots=True)
class EnrolledRow:
    """One device: its key, and whether it is new here. `not_signed`: why the enrolment counts in this workspace alone."""

    device: str
    key_id: str
    is_new: bool
    not_signed: str = ""


@dataclass(frozen=True, slots=True)
class EnrolReport:
    """Devices enrolled, and why others are not."""

    devices: tuple[EnrolledRow, ...]
    problems: tuple[tuple[str, str], ...]


@operation("devices.enrol", runs_in="worker")
def enrol(workspace: Workspace, *, device: str, host_key: str = "", replace_identity: bool = False) -> EnrolledRow:
    """Enrol one device over SSH under its pinned host key, or from the keys in the inventory when they stand there.

    Raises:
        UsageError: no host key is known. TrustError: another device answers, or its key is not the one in the inventory.
        ConflictError: it was enrolled with another key before and `replace_identity` is off.
    """
    found = workspace.fleet.device(device)
    pinned = host_key or found.host_key
    if not pinned:
        raise UsageError(
            "no host key is known",
            found.id,
            expected="its line of ssh-keyscan, compared with the device itself",
            hint="give it with --host-key, or write it into fleet.toml",
        )
    public_pem, age_key = found.device_key, ""
    if not public_pem:
        public_pem, age_key = _ask_keys(workspace, replace(found, host_key=pinned))
    row = keep_identity(workspace, found.id, public_pem, pinned, replace_identity)
    note_age_key(workspace, found.id, age_key, "told at enrolment")
    return row


@operation("devices.enrol_all", runs_in="worker")
def enrol_known(workspace: Workspace, *, query: str = "", on_progress: Progress = no_progress) -> EnrolReport:
    """Enrol every device with a pump that `query` selects, under the host keys in the inventory."""
    chosen = {row.pump.device for row in list_pumps(workspace, query=query)}
    devices = [one for one in workspace.fleet.devices if one.id in chosen]
    rows, problems = [], []
    for number, one in enumerate(devices):
        on_progress("enrol", number, len(devices))
        try:
            rows.append(enrol(workspace, device=one.id))
        except PumpdeckError as error:
            problems.append((one.id, error.sentence()))
    on_progress("enrol", len(devices), len(devices))
    return EnrolReport(tuple(rows), tuple(problems))


def _ask_keys(workspace: Workspace, device: Device) -> tuple[str, str]:
    """Device key (PEM) and age key; an older agent has no age key."""
    channel = workspace.connect(device)
    try:
        header, _ = channel.call(Op.HELLO, {"console": "pumpdeck", "workspace": workspace.store.workspace})
    finally:
        channel.close()
    if (header.get("device"), header.get("site")) != (device.id, device.site):
        said = f"{header.get('device')} at {header.get('site')}"
        raise TrustError("another device answers", device.id, expected=f"{device.id} at {device.site}", found=said)
    return str(header.get("public_key", "")), str(header.get("age_key", ""))


def keep_identity(
    workspace: Workspace, device: str, public_pem: str, host_key: str, may_replace: bool = False
) -> EnrolledRow:
    """Record who a device is, audited: the one place where a device becomes one whose word counts, however it was met.

    Raises:
        ConflictError: it is enrolled with other keys and `may_replace` is off.
        TrustError: this key was retired or replaced before. FormatError: it is no key.
    """
    key_id = key_id_of(public_pem, f"device key of {device}")
    circle = Circle(workspace)
    pen = circle.pen((workspace.fleet.device(device).site,))
    with workspace.store.atomic() as store:
        old = store.devices.identity(device)
        if old is not None and (old.key_id, old.host_key) == (key_id, host_key):
            return EnrolledRow(device, key_id, is_new=False)
        if old is not None and not may_replace:
            raise ConflictError(
                "is enrolled with other keys",
                device,
                expected=old.key_id[:12],
                found=key_id[:12],
                hint="if the device was replaced, enrol it with --replace",
            )
        store.devices.put_identity(device, public_pem, key_id, host_key, workspace.clock.now_ms())
        digests = {"device_key": canonical.digest(public_pem.encode()), "host_key": canonical.digest(host_key.encode())}
        action = "device.enrol" if old is None else "device.replace"
        store.audit.append(workspace.actor, action, device, reason=f"key {key_id[:12]}", digests=digests)
        write_device_words(workspace, pen, device)
        seal_chains(workspace, pen)
    return EnrolledRow(device, key_id, is_new=True, not_signed=pen.why)
