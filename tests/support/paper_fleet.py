"""A device behind a real SSH server or served by sticks, the real agent in processes of its own: for journeys of papers.

Papers are what people must bring with an assignment: permits, and downgrade words that two of them signed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_agent.config import Layout
from pumpdeck_agent.state import DeviceState
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_console import main
from pumpdeck_console.operations.assigning import SiteAssigner
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.core.inventory import Device, Fleet, Link
from pumpdeck_fleet.core.receipts import Receipt, Terms
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.ssh import SshConnector, SshLogin
from pumpdeck_packaging.signing import Ed25519Signer
from pumpdeck_packaging.trust_repository import AssignmentRequest
from pumpdeck_sample.fleet_files import fleet_toml
from support.courier_fleet import courier_fleet
from support.sshd import Sshd, agent_command

MODEL = "esp-health"


@dataclass
class PaperFleet:
    """`device` is the one that is served, `other` a stranger; `packages` holds the digests of version 1 and 2 by device."""

    folder: Path
    fleet: Fleet
    packages: dict[str, tuple[str, str]]

    @property
    def other(self) -> Device:
        return self.fleet.devices[0]

    @property
    def device(self) -> Device:
        return self.fleet.devices[1]

    @property
    def root_key(self) -> Path:
        """The key of the second person."""
        return self.folder / "keys" / "root" / "root-2.key"

    def open(self) -> Workspace:
        return open_workspace(self.folder / "workspace")

    def call(self, *words: str, expect: int = 0) -> Any:
        """One command of the console; what it printed."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.main(["-w", str(self.folder / "workspace"), *words, "--json"])
        said, talk = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))  # type: ignore[attr-defined]
        assert code == expect, f"{words}: {code}\n{said}\n{talk}"
        return json.loads(said or talk.strip().splitlines()[-1])

    def plan(self, device: Device, version: int, *terms: str) -> str:
        """An approved rollout of one version to one device."""
        query = f"device:{device.id}"
        rollout = str(self.call("rollout", "start", query, "--model", f"{MODEL}={version}", *terms)["rollout"])
        self.call("approve", rollout)
        return rollout

    def deliver(self, device: Device, rollout: str) -> str:
        """Bring it there and hear of it, by SSH or on a stick; the state its task comes to."""
        if self.fleet.site_by_id[device.site].link is Link.SSH:
            self.call("tick", "--until-idle", "--limit", "120")
        else:
            self.carry(device)
        return self.task(rollout)

    def task(self, rollout: str) -> str:
        (task,) = self.call("rollout", "show", rollout)["tasks"]
        return str(task["state"])

    def roll_out(self, device: Device, version: int, *terms: str) -> str:
        """Plan and deliver."""
        return self.deliver(device, self.plan(device, version, *terms))

    def carry(self, device: Device) -> dict[str, Any]:
        """Export, walk there, let the agent install, walk back, intake. What the agent printed."""
        stick = self.folder / "stick" / "pumpdeck"
        self.call("bundle", "export", "--for", f"device:{device.id}", "--to", str(stick))
        told = self.visit(device, stick)
        self.call("bundle", "intake", str(stick))
        return told

    def visit(self, device: Device, stick: Path, expect: tuple[int, ...] = (0, 3)) -> dict[str, Any]:
        """The stick at the device: what the agent printed."""
        words = ["install-from", "--root", str(self.root(device)), str(stick)]
        done = subprocess.run([sys.executable, "-m", "pumpdeck_agent.main", *words], capture_output=True, text=True, timeout=240)
        assert done.returncode in expect, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {}

    def demand(self, site: str, **rules: bool) -> None:
        """Write rules into the inventory and sign them."""
        sites = tuple(dataclasses.replace(one, **rules) if one.id == site else one for one in self.fleet.sites)
        self.fleet = dataclasses.replace(self.fleet, sites=sites)
        self.write()
        (row,) = self.call("trust", "rules", "sign", site, "--insecure-storage")
        assert row["is_signed"] is False, "it was not signed before"

    def write(self) -> None:
        path = self.folder / "workspace" / "fleet.toml"
        replace_file(RealFileSystem(), path, fleet_toml(self.fleet).encode("utf-8"))

    def word(self, device: Device, version: int, *more: str, people: int = 2) -> Path:
        """A downgrade word in a file, signed by so many people."""
        file = self.folder / f"word-{time.monotonic_ns()}.json"
        package = self.packages[device.id][version - 1]
        words = ("--package", package, "--reason", "alarms at night", "--to", str(file), *more)
        self.call("trust", "downgrade", "ask", device.id, *words, "--insecure-storage")
        if people > 1:
            signed = ("trust", "downgrade", "sign", str(file), "--root-key", str(self.root_key))
            self.call(*signed, "--insecure-storage", "--yes")
        return file

    def root(self, device: Device) -> Path:
        return self.folder / "devices" / device.id

    def state(self, device: Device) -> DeviceState:
        """What the device itself has written down."""
        found = StateFiles(RealFileSystem(), Layout(self.root(device))).load()
        assert found is not None
        return found

    def active(self, device: Device) -> int:
        """The version that runs there; 0 for none."""
        return (*("", *self.packages[device.id]),).index(self.state(device).active_sha256)

    def last_receipt(self, device: Device) -> Receipt:
        return self.state(device).receipts[-1]

    def sign_again(self, device: Device, version: int, task: str, token: str | None = None) -> None:
        """An assignment that no rollout asked for, signed with this laptop's key, as a thief would."""
        package = self.packages[device.id][version - 1]
        request = AssignmentRequest(device.id, package, task, terms=Terms(permit="WO-9"), token=token)
        with self.open() as workspace:
            workspace.trust(device.site).assign([request], workspace.signing_key("deploy", device.site).signer)

    def send_signed(self, device: Device) -> dict[str, Any]:
        """Bring what is signed for that device now to it over SSH; its answer.

        Raises:
            PumpdeckError: what the device says against it.
        """
        with self.open() as workspace:
            files = dict(SiteAssigner(workspace).files_for(device.site, device.id))
            login = workspace.credentials.login()
        channel = SshConnector(SshLogin(key_text=login.key_text, use_agent=login.use_agent))(device)
        try:
            listed = [{"name": name, "bytes": len(data)} for name, data in files.items()]
            header, _ = channel.call(Op.ASSIGN, {"files": listed}, b"".join(files.values()))
            return dict(header)
        finally:
            channel.close()


@contextmanager
def paper_fleet(folder: Path, link: Link) -> Iterator[PaperFleet]:
    """Two versions are released for each device, nothing is installed yet; `link` leads to the one that is served."""
    yard = courier_fleet(folder, now_ms=time.time_ns() // 1_000_000, links=(Link.COURIER, link))
    first = {device.id: yard.packages[device.id].sha256 for device in yard.devices}
    yard.release(2, shift=0.5)
    packages = {device.id: (first[device.id], yard.packages[device.id].sha256) for device in yard.devices}
    login = yard.workspace.credentials.find("ssh").signer
    assert isinstance(login, Ed25519Signer)
    found = PaperFleet(folder, yard.workspace.fleet, packages)
    yard.workspace.close()
    with Sshd(folder / "sshd", agent_command(found.root(found.device))) as server:
        (server.folder / "authorized_keys").write_text(login.openssh_public + "\n", encoding="ascii")
        here = {"address": "127.0.0.1", "port": server.port, "user": getpass.getuser(), "host_key": server.host_key}
        devices = (found.other, dataclasses.replace(found.device, **here))
        found.fleet = dataclasses.replace(found.fleet, devices=devices)
        found.write()
        yield found
