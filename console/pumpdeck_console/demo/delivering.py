"""Steps `rollout` and `receipts`: packages to the devices over SSH, and what each device signed about it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pumpdeck_console.demo.learning import candidates, packages_by_device
from pumpdeck_console.demo.steps import Found, Stage
from pumpdeck_console.operations.delivering import tick
from pumpdeck_console.operations.rollouts import approve, start
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.receipts import RECEIPT_MAX_BYTES, RECEIPT_PAYLOAD_TYPE, Outcome, Receipt
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.services.collect import read_status
from pumpdeck_packaging.signing import verify_dsse

ROLLOUT_LIMIT_S = 240.0
STALLED_S = 15.0
_PAUSE_S = 0.2


def start_rollout(stage: Stage) -> Rollout | None:
    """Plan and approve the rollout of the candidates, unless every device runs its newest package already."""
    if _is_everywhere(stage):
        return _last(stage.workspace)
    report = start(stage.workspace, models=candidates(stage))
    approve(stage.workspace, rollout_id=report.rollout, plan_digest=report.plan_digest)
    return stage.workspace.store.rollouts.load(report.rollout)


def rollout(stage: Stage) -> Found:
    """Bring the packages, wave by wave, then ask every device what it runs."""
    found = Found()
    started = _running(stage.workspace) or start_rollout(stage)
    silent = _carry_out(stage)
    if started is None:
        found.problems.append("no rollout was started")
        return found
    ended = stage.workspace.store.rollouts.load(started.id)
    found.expect(ended.state is RolloutState.COMPLETED, f"rollout {ended.id} is {ended.state}: {ended.reason}")
    stage.asked.update(ask_devices(stage))
    wanted = packages_by_device(stage)
    for device in stage.workspace.fleet.devices:
        said = stage.asked[device.id]
        if "problem" in said:
            found.problems.append(f"{device.id}: {said['problem']}")
        elif device.id in wanted:
            runs = said["active"]
            found.expect(
                runs == wanted[device.id].sha256, f"{device.id}: runs {runs[:12] or 'nothing'}, not its package"
            )
            found.expect(not said["problems"], f"{device.id}: {said['problems']}")
    found.evidence = {
        "rollout": ended.id,
        "plan_digest": ended.plan_digest,
        "state": ended.state.value,
        "waves": [wave.state.value for wave in ended.waves],
        "tasks": {task.device: task.state.value for task in ended.tasks.values()},
        "active": {device: said.get("active", "") for device, said in stage.asked.items()},
        "delivery_problems": silent,
        "agents_as_processes": list(stage.mark.processes),
        "agents_in_simulator": len(stage.workspace.fleet.devices) - len(stage.mark.processes),
        "champion": _champions(stage),
    }
    return found


def receipts(stage: Stage) -> Found:
    """Check every stored receipt again: its signature by the enrolled device key, its words, its place in the rollout."""
    found = Found()
    store = stage.workspace.store
    wanted = packages_by_device(stage)
    listed: list[dict[str, Any]] = []
    for device in stage.workspace.fleet.devices:
        identity = store.devices.identity(device.id)
        if identity is None:
            found.problems.append(f"{device.id}: is not enrolled")
            continue
        outcomes = set()
        for row in store.receipts.of(device.id):
            try:
                keys = {identity.key_id: identity.public_pem}
                payload = verify_dsse(row.envelope, RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
                receipt = canonical.decode(Receipt, payload, f"receipt of {device.id}", max_bytes=RECEIPT_MAX_BYTES)
            except PumpdeckError as error:
                found.problems.append(f"{device.id}: {error.sentence()}")
                continue
            found.expect(receipt == row.receipt, f"{device.id}: receipt {receipt.counter} was stored with other words")
            if receipt.outcome in (Outcome.COMMITTED, Outcome.ALREADY):
                outcomes.add(receipt.active_sha256)
            listed.append(
                {
                    "device": device.id,
                    "sha256": row.digest,
                    "key_id": row.key_id,
                    "counter": receipt.counter,
                    "outcome": receipt.outcome.value,
                    "package_sha256": receipt.package_sha256,
                }
            )
        if device.id in wanted:
            found.expect(wanted[device.id].sha256 in outcomes, f"{device.id}: no receipt says that it runs its package")
    _check_keys(stage, found)
    found.evidence = {"receipts": listed, "devices": len({one["device"] for one in listed})}
    return found


def _check_keys(stage: Stage, found: Found) -> None:
    """The key that a device shows must be the one it was enrolled with."""
    for device, said in (stage.asked or ask_devices(stage)).items():
        identity = stage.workspace.store.devices.identity(device)
        if "problem" in said or identity is None:
            continue
        same = said["key_id"] == identity.key_id and said["public_key"].strip() == identity.public_pem.strip()
        found.expect(same, f"{device}: shows another device key than the one it was enrolled with")


def ask_devices(stage: Stage) -> dict[str, dict[str, Any]]:
    """What each device says of itself now: `active`, `key_id`, `public_key`, or `problem` where it cannot be asked."""
    connect, workspace_id = stage.workspace.connect, stage.workspace.store.workspace
    said: dict[str, dict[str, Any]] = {}
    lock = threading.Lock()

    def ask(device: Device) -> None:
        try:
            channel = connect(device)
            try:
                hello = channel.call(Op.HELLO, {"console": "demo", "workspace": workspace_id})[0]
                status = read_status(channel, device.id)
            finally:
                channel.close()
            answer = {
                "active": status.active,
                "state": status.state,
                "key_id": str(hello.get("key_id", "")),
                "public_key": str(hello.get("public_key", "")),
                "problems": "",
            }
        except PumpdeckError as error:
            answer = {"problem": error.sentence()}
        with lock:
            said[device.id] = answer

    with ThreadPoolExecutor(stage.workspace.policies.transport.concurrency, thread_name_prefix="ask") as pool:
        list(pool.map(ask, stage.workspace.fleet.devices))
    return said


def _carry_out(stage: Stage) -> dict[str, str]:
    """Let time pass until no rollout runs; what went wrong by device.

    A device that stays silent while nothing else moves is not waited for: in a demo it will not come back.
    """
    problems: dict[str, str] = {}
    moved: object = None
    moved_s = end_s = time.monotonic()
    end_s += ROLLOUT_LIMIT_S
    is_stuck = False
    while True:
        report = tick(stage.workspace, on_progress=stage.on_progress)
        problems.update(report.problems)
        now_s, is_stuck = time.monotonic(), is_stuck or bool(report.problems)
        if not any(one.state == RolloutState.RUNNING.value for one in report.rollouts) or now_s >= end_s:
            return problems
        stand = [(one.rollout, one.committed, one.bad, one.waves_passed) for one in report.rollouts]
        if stand != moved or report.sent_bytes:
            moved, moved_s, is_stuck = stand, now_s, bool(report.problems)
        elif is_stuck and now_s - moved_s >= STALLED_S:
            return problems
        done, devices = sum(one.committed for one in report.rollouts), sum(one.devices for one in report.rollouts)
        stage.on_progress("rollouts run", done, devices)
        time.sleep(_PAUSE_S)


def _is_everywhere(stage: Stage) -> bool:
    active = stage.workspace.store.devices.active()
    return all(active.get(device) == row.sha256 for device, row in packages_by_device(stage).items())


def _running(workspace: Workspace) -> Rollout | None:
    live = (RolloutState.RUNNING, RolloutState.APPROVED)
    return next((one for one in workspace.store.rollouts.all() if one.state in live), None)


def _last(workspace: Workspace) -> Rollout | None:
    everyone = sorted(workspace.store.rollouts.all(), key=lambda one: one.plan.created_ms)
    return everyone[-1] if everyone else None


def _champions(stage: Stage) -> dict[str, int]:
    from pumpdeck_fleet.core.registry import Alias

    registry = stage.workspace.store.registry
    found = {model: registry.alias(model, Alias.CHAMPION) for model in registry.models()}
    return {model: version.number for model, version in found.items() if version is not None}
