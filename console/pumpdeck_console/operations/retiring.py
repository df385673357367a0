"""Ending a device: its key is believed no more, its tasks end, its history stays; and the keys it had one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.vouching import Circle, seal_chains
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core import rollout_events as ev
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.statements import Kind
from pumpdeck_fleet.services.deploy_feed import feed
from pumpdeck_fleet.store.devices import DeviceKeyRow
from pumpdeck_fleet.store.receipts import ReceiptRow


@dataclass(frozen=True, slots=True)
class RetirePlan:
    """What retiring would do: the key that ends, receipts that stay as history, the open task and where it stands.

    `driven_by` is the workspace that drives the task's rollout, empty when this one does. `not_signed`: why the end counts in
    this workspace alone.
    """

    device: str
    site: str
    key_id: str
    receipts: int
    task: str
    rollout: str
    active: str
    is_retired: bool
    driven_by: str = ""
    not_signed: str = ""


@dataclass(frozen=True, slots=True)
class DeviceHistory:
    """Every key of a device, its receipts by key, and receipts that came in after their key had ended."""

    device: str
    keys: tuple[DeviceKeyRow, ...]
    receipts: tuple[ReceiptRow, ...]
    apart: tuple[tuple[ReceiptRow, str], ...]


@operation("devices.retire_plan", runs_in="reader")
def plan_retire(workspace: Workspace, *, device: str) -> RetirePlan:
    """What `retire` would do. Raises: NotFoundError: no such device, or it never was enrolled."""
    found = workspace.fleet.device(device)
    store = workspace.store
    keys = store.devices.keys(found.id)
    if not keys:
        raise NotFoundError("was never enrolled", found.id, hint="there is no key to revoke")
    task, rollout = store.rollouts.live_tasks().get(found.id, ("", ""))
    active = store.devices.active().get(found.id, "")
    receipts = len(store.receipts.of(found.id))
    is_retired = keys[-1].ended_ms is not None
    driven_by = store.rollouts.homes().get(rollout, "")
    return RetirePlan(found.id, found.site, keys[-1].key_id, receipts, task, rollout, active, is_retired, driven_by)


@operation("devices.retire", runs_in="worker")
def retire(workspace: Workspace, *, device: str, reason: str = "") -> RetirePlan:
    """Revoke the device's key and keep its history. Repeating changes nothing.

    Its open task is cancelled, or UNKNOWN where the assignment was handed over already: what runs there nobody can prove any
    more. A task that another workspace drives ends there, at its next sync.
    """
    circle = Circle(workspace)
    pen = circle.pen((workspace.fleet.device(device).site,))
    with workspace.store.atomic() as store:
        plan = plan_retire(workspace, device=device)
        words = " ".join(reason.split())[:200]
        if store.devices.retire(plan.device, workspace.clock.now_ms(), words):
            digests = {"device_key": canonical.digest(store.devices.keys(plan.device)[-1].public_pem.encode())}
            store.audit.append(workspace.actor, "device.retire", plan.device, words or "retired", digests)
            last = store.devices.keys(plan.device)[-1]
            about = {"key_id": last.key_id, "ended_ms": str(last.ended_ms), "ended": last.ended}
            pen.write(workspace, Kind.END, plan.device, about)
        if plan.task and not plan.driven_by:
            ended = store.devices.keys(plan.device)[-1].ended
            feed(store, plan.rollout, [ev.Retire(workspace.clock.now_ms(), workspace.actor, plan.device, ended)])
        seal_chains(workspace, pen)
    return replace(plan, not_signed=pen.why)


@operation("devices.history", runs_in="reader")
def device_history(workspace: Workspace, *, device: str) -> DeviceHistory:
    """The keys this device had and what each signed. Raises: NotFoundError: no such device."""
    found, store = workspace.fleet.device(device), workspace.store
    return DeviceHistory(
        found.id,
        tuple(store.devices.keys(found.id)),
        tuple(store.receipts.of(found.id)),
        tuple(store.receipts.apart(found.id)),
    )
