"""A whole trip: prepared at home, worked apart with a real SSH push and a stick, brought home, merged and explained."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console import main
from pumpdeck_console.operations.rollouts import approve
from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.services import deploy
from support.courier_fleet import MODEL, POLICY, CourierFleet, courier_fleet
from support.sshd import Sshd, agent_command, why_no_sshd

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(why_no_sshd()), reason=why_no_sshd() or "there is an sshd")]


@dataclass
class Yard:
    """Two devices: the first is reached by SSH, the second by sticks alone."""

    fleet: CourierFleet
    folder: Path

    def device(self, number: int) -> str:
        return self.fleet.devices[number].id

    def pump(self, number: int) -> str:
        return self.fleet.workspace.fleet.pumps_by_device[self.device(number)][0].id


class Console:
    """Commands as a person types them; `expect` is the exit code that must come."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, workspace: Path, *words: str, expect: int = 0) -> Any:
        code = main.main(["-w", str(workspace), *words, "--json"])
        out, err = self._capsys.readouterr()
        assert code == expect, f"{words}: {code}\n{out}\n{err}"
        return json.loads(out) if out else None


def approved_rollout(fleet: CourierFleet) -> str:
    """A running rollout for every device, approved under a person's signature, as `approve` does it."""
    workspace, now_ms = fleet.workspace, fleet.clock.now_ms()
    number = workspace.store.registry.versions(MODEL)[0].number
    request = deploy.PlanRequest({MODEL: number}, tuple(device.id for device in fleet.devices), POLICY)
    rollout = deploy.plan(workspace.store, workspace.fleet, request, actor="actor-author", now_ms=now_ms)
    approve(workspace, rollout_id=rollout.id)
    return rollout.id


def install_from(stick: Path, root: Path) -> dict[str, Any]:
    """The courier is at the device."""
    command = [sys.executable, "-m", "pumpdeck_agent.main", "install-from", "--root", str(root), str(stick)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    fleet = courier_fleet(tmp_path, now_ms=time.time_ns() // 1_000_000, links=(Link.SSH, Link.COURIER))
    first = fleet.devices[0].id
    with Sshd(tmp_path / "sshd", agent_command(tmp_path / "devices" / first)) as server:
        login = fleet.workspace.credentials.find("ssh").openssh_public
        (tmp_path / "sshd" / "authorized_keys").write_text(f"{login}\n", encoding="utf-8")
        file = tmp_path / "workspace" / "fleet.toml"
        near = server.device(first)
        changed = add_to_device(file.read_text(encoding="utf-8"), first, port=near.port, user=near.user, host_key=near.host_key)
        file.write_text(changed, encoding="utf-8")
        fleet.workspace.forget_fleet()
        yield Yard(fleet, tmp_path)


def add_to_device(text: str, device: str, **fields: object) -> str:
    """The inventory with these fields for a device, as somebody would write them with an editor."""
    lines, is_ours = [], False
    for line in text.splitlines():
        is_ours = is_ours if line.split("=")[0].strip() != "id" else f'"{device}"' in line
        if not (is_ours and line.split("=")[0].strip() in fields):
            lines.append(line)
        if is_ours and line.split("=")[0].strip() == "id":
            lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(600)
def test_a_trip_goes_out_works_apart_and_comes_home(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    pumpdeck = Console(capsys)
    home, trip, stick = yard.folder / "workspace", yard.folder / "trip", yard.folder / "drive" / "pumpdeck"
    stick.parent.mkdir()
    near, far = yard.device(0), yard.device(1)
    packages = {device: yard.fleet.packages[device].sha256 for device in (near, far)}
    pump, far_pump = yard.pump(0), yard.pump(1)
    rollout = approved_rollout(yard.fleet)
    yard.fleet.workspace.close()

    prepared = pumpdeck(home, "trip", "prepare", "--to", str(trip), "--stick", str(stick), "--days", "14", "--yes")
    assert prepared["is_ready"], prepared["findings"]
    assert prepared["lent"] == [rollout] and len(prepared["sticks"]) == 1
    assert {one["device"] for one in prepared["devices"]} == {near, far}
    work = json.loads((trip / "work.json").read_bytes())
    assert all(any(packages[one["device"]][:12] in what for what in one["todo"]) for one in work["devices"])
    assert (trip / "docs" / "bundles.txt").is_file() and (trip / "agent" / "agent.pyz").is_file()
    pumpdeck(home, "rollout", "halt", rollout, "--reason", "the trip has it", expect=3)

    told = pumpdeck(trip, "tick", "--until-idle", "--limit", "120")
    assert told["committed"] == 1, told
    exported = pumpdeck(trip, "bundle", "export", "--for", f"device:{far}", "--to", str(stick), "--yes")
    assert exported["packages"] == 1
    assert install_from(stick, yard.folder / "devices" / far)["active"] == packages[far]
    back = pumpdeck(trip, "bundle", "intake", str(stick))
    assert [row["receipt"] for row in back["devices"]] == [1] and back["awaited"] == []
    pumpdeck(trip, "label", "add", pump, "fault:bearing", "--from", "3h", "--to", "1h")

    came = pumpdeck(home, "trip", "return", str(trip))
    assert came["taken_back"] == [rollout] and not came["refused"] and not came["conflicts"]
    by_device = {one["device"]: one for one in came["devices"]}
    assert by_device[near]["labels"] == 1
    assert all(one["receipts"][0].startswith(f"committed {packages[device][:12]}") for device, one in by_device.items())
    assert not any("bring package" in what for one in came["devices"] for what in one["todo"])
    for one, device in ((pump, near), (far_pump, far)):
        told = pumpdeck(home, "explain", one)
        assert told["package"] == packages[device] and told["receipt_signed"] is True
    shown = pumpdeck(home, "rollout", "show", rollout)
    assert {task["device"]: task["state"] for task in shown["tasks"]} == dict.fromkeys((near, far), "COMMITTED")
    again = pumpdeck(home, "trip", "return", str(trip))
    assert again["taken_back"] == []
    with open_workspace(home) as workspace:
        assert workspace.store.audit.verify() and workspace.store.rollouts.homes() == {}
    assert [path.name for path in stick.parent.iterdir()] == ["pumpdeck"]
