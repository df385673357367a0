"""Enrolment over real SSH on a computer without an agent, then an upgrade of that agent over the same server."""

from __future__ import annotations

import dataclasses
import getpass
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_console.credentials import Source
from pumpdeck_console.operations import upgrading
from pumpdeck_console.operations.agent_releases import agent_desk, build_agent_release
from pumpdeck_console.operations.install_steps import DeviceLook, InstallWish, check_look, decide_steps
from pumpdeck_console.operations.installing import InstallRequest, _Visit, first_contact, install, plan_install
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import SystemClock
from pumpdeck_fleet.core.errors import RefusedError, TrustError, UnreachableError
from pumpdeck_fleet.core.inventory import Device, DeviceClass
from pumpdeck_fleet.core.words import fingerprint_words
from pumpdeck_packaging.agent_desk import AgentContent
from pumpdeck_packaging.agent_release import agent_version
from pumpdeck_packaging.device_service import ServicePlace, service_unit
from pumpdeck_packaging.device_settings import device_settings
from support.agent_upgrades import RAISES, other_agent
from support.small_fleet import small_fleet, small_workspace
from support.sshd import Sshd, why_no_sshd

no_sshd = pytest.mark.skipif(bool(why_no_sshd()), reason=why_no_sshd() or "-")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Workspace, Sshd, Path]]:
    """A founded workspace whose first device is a real server with nothing of ours on it; the folder for the agent."""
    root = tmp_path / "device"
    programs = tmp_path / "bin"
    programs.mkdir()
    # What authorized_keys would force: the console's usual word, on this server found in the path.
    program = programs / "pumpdeck-agent"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -s "{root}/agent/launch.py" "$@" --root "{root}"\n')
    program.chmod(0o755)
    # A link would lose the libraries of a virtual environment.
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    with Sshd(tmp_path / "sshd", extra=f'SetEnv PATH={path} HOME={tmp_path / "home"}') as server:
        (tmp_path / "home").mkdir()
        fleet = small_fleet(1, 1)
        device = dataclasses.replace(
            fleet.devices[0], address="127.0.0.1", port=server.port, user=getpass.getuser(), host_key=server.host_key
        )
        fleet = dataclasses.replace(fleet, devices=(device,))
        small_workspace(tmp_path / "workspace", SystemClock(), fleet).close()  # type: ignore[arg-type]
        workspace = open_workspace(tmp_path / "workspace")
        keys = tmp_path / "keys"
        init_trust(workspace, TrustRequest(keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True))
        line = workspace.credentials.find("ssh").signer.openssh_public  # type: ignore[attr-defined]
        (tmp_path / "sshd" / "authorized_keys").write_text(line + "\n")
        yield workspace, server, root
        workspace.close()


def words_of(workspace: Workspace, device: Device) -> str:
    return fingerprint_words(workspace.trust(device.site).root_bytes())


@no_sshd
def test_a_bare_computer_becomes_a_device_and_doing_it_again_changes_nothing(site: tuple[Workspace, Sshd, Path]) -> None:
    workspace, server, root = site
    device = workspace.fleet.devices[0]
    assert first_contact(workspace, device=device.id)[0] == server.host_key
    request = InstallRequest(device.id, root=str(root))
    plan = plan_install(workspace, request)
    assert [step.name for step in plan.steps] == ["user", "folder", "agent", "identity", "ssh key", "service"]
    assert not root.exists()
    with pytest.raises(TrustError, match="paper"):
        install(workspace, request, root_words="acid " * 12)
    assert not root.exists()
    report = install(workspace, request, root_words=plan.root_words)
    assert report.enrolled.is_new
    assert set(report.done) >= {"folder", "agent", "identity"}
    identity = workspace.store.devices.identity(device.id)
    assert identity is not None
    assert (identity.key_id, identity.host_key) == (report.enrolled.key_id, server.host_key)
    assert [entry.action for entry in workspace.store.audit.latest(1)] == ["device.enrol"]
    assert (root / "device.key").stat().st_mode & 0o777 == 0o600
    head = workspace.store.audit.head()
    again = install(workspace, request, root_words=plan.root_words)
    assert (again.done, again.enrolled.is_new) == ((), False)
    assert workspace.store.audit.head() == head


@no_sshd
def test_a_link_cut_at_any_step_is_put_right_by_the_same_command(
    site: tuple[Workspace, Sshd, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _, root = site
    device = workspace.fleet.devices[0]
    request = InstallRequest(device.id, root=str(root))
    words, real, count = words_of(workspace, device), _Visit._run, 0
    cut_at = 0

    def run(self: _Visit, command: str, data: bytes, *more: object) -> str:
        nonlocal count
        count += 1
        if count == cut_at:
            real(self, command, data[: len(data) // 2], *more) if command.startswith("cat >>") else None  # type: ignore[arg-type]
            raise UnreachableError("the link broke during a command", device.id)
        return real(self, command, data, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(_Visit, "_run", run)
    cuts = 0
    for cut_at in range(1, 40):  # noqa: B007 - read by `run`
        count = 0
        try:
            report = install(workspace, request, root_words=words)
            break
        except UnreachableError:
            cuts += 1
    assert cuts >= 8
    assert report.enrolled.key_id
    assert workspace.store.devices.identity(device.id) is not None


@no_sshd
def test_an_upgrade_over_ssh_and_one_that_goes_back(site: tuple[Workspace, Sshd, Path]) -> None:
    workspace, _, root = site
    device = workspace.fleet.devices[0]
    install(workspace, InstallRequest(device.id, root=str(root)), root_words=words_of(workspace, device))
    assert upgrading.plan_upgrade(workspace)[0].note.startswith(device.site)
    assert build_agent_release(workspace, release=True).released == (device.site,)
    (same,) = upgrading.upgrade_devices(workspace)
    assert (same.outcome, same.sent_bytes) == ("already", 0)
    for agent, outcome in ((other_agent("0.2.0"), "committed"), (other_agent("0.3.0", {"__main__.py": RAISES}), "rolled_back")):
        workspace.artifacts.put(agent)
        content = AgentContent(agent_version(agent), canonical.digest(agent), len(agent))
        agent_desk(workspace, device.site).release(content, [workspace.signing_key("release", device.site).signer])
        (plan,) = upgrading.plan_upgrade(workspace)
        assert (plan.version, plan.note) == (agent_version(agent), "")
        (result,) = upgrading.upgrade_devices(workspace)
        assert (result.outcome, result.is_good) == (outcome, outcome == "committed"), result.reason
        assert workspace.store.audit.latest(1)[0].action == "device.upgrade"
        (again,) = upgrading.upgrade_devices(workspace)
        assert (again.outcome, again.sent_bytes <= len(agent)) == (outcome, True)
    channel = workspace.connect(device)
    assert channel.call("hello", {"console": "t", "workspace": "t"})[0]["agent"] == "0.2.0" != AGENT_VERSION
    channel.close()


LOOK = DeviceLook("ada", "sudo", False, True, "aarch64", "/usr/bin/python3", "3.11", False, 10**6, False, False, "")
PLACE = ServicePlace("/var/lib/pumpdeck-agent", "pumpdeck", "/usr/bin/python3")
UNIT = service_unit(PLACE, device_settings(DeviceClass("edge", "aarch64", "linux", "1.18", 13, 512, 50)).unit_lines())
KEY = ("ssh-ed25519 AAAA", "pumpdeck")
WISH = InstallWish(PLACE, UNIT, canonical.digest(UNIT.encode()), *KEY, ("--sha256", "0"), {}, '"$HOME"/x')


def test_with_sudo_everything_is_done_as_its_own_user_and_sudo_is_not_left_behind() -> None:
    steps = {step.name: step for step in decide_steps(LOOK, WISH)}
    assert not any(step.skip or step.by_hand for step in steps.values())
    assert "useradd --system" in steps["user"].command
    assert "sudo -n -u pumpdeck /usr/bin/python3 -s" in steps["agent"].command
    assert steps["ssh key"].data.startswith(b'restrict,command="/usr/bin/python3 -s /var/lib/pumpdeck-agent/agent/launch.py rpc ')
    assert not any("sudoers" in step.command for step in steps.values())


def test_what_cannot_be_done_is_said_with_the_command_to_run_by_hand() -> None:
    plain = dataclasses.replace(LOOK, login="pumpdeck", rights="", user=True, systemd=False)
    steps = {step.name: step for step in decide_steps(plain, WISH)}
    assert steps["service"].skip == "there is no systemd"
    assert "launch.py serve" in steps["service"].by_hand
    assert "authorized_keys" in steps["ssh key"].by_hand
    assert not any("sudo" in step.command for step in steps.values())


@pytest.mark.parametrize(
    ("change", "says"),
    [({"cpython": "3.9"}, "no Python"), ({"python": ""}, "no Python"), ({"free_kb": 9}, "no room"), ({"rights": ""}, "neither")],
)
def test_a_device_that_cannot_run_the_agent_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        check_look(dataclasses.replace(LOOK, **change), WISH, "gannet-d1")  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_the_service_unit_is_one_that_systemd_takes_and_calls_safe(tmp_path: Path) -> None:
    unit = tmp_path / "pumpdeck-agent.service"
    unit.write_text(UNIT.replace("/usr/bin/python3", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "MemoryMax=", "CPUQuota=50%"):
        assert line in UNIT
    assert "ReadWritePaths=/var/lib/pumpdeck-agent\n" in UNIT
