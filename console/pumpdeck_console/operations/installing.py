"""Enrolment over SSH of a computer that has no agent yet: look, show, ask, install, and keep what it says of itself.

Every step can be repeated: a cut connection is put right by the same command, and a finished enrolment is left as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pumpdeck_console.operations.agent_releases import agent_desk, build_agent_release, wheel_sets
from pumpdeck_console.operations.base import no_progress
from pumpdeck_console.operations.device_rules import demanded
from pumpdeck_console.operations.devices import EnrolledRow, keep_identity
from pumpdeck_console.operations.install_steps import (
    AGENT_ROOT,
    LOOK,
    DeviceLook,
    InstallWish,
    Step,
    check_look,
    decide_steps,
    parse_look,
)
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, TrustError, UnreachableError, UsageError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.core.words import check_words, fingerprint_words
from pumpdeck_fleet.transports.ssh import (
    COMMAND,
    SshConnector,
    SshLogin,
    SshShell,
    host_key_fingerprint,
    offered_host_key,
)
from pumpdeck_packaging.agent_release import AGENT_FILE
from pumpdeck_packaging.agent_wheels import WheelSet, WheelTarget, collect_wheels, wheel_bytes
from pumpdeck_packaging.device_service import UNIT_NAME, ServicePlace, service_unit
from pumpdeck_packaging.device_settings import device_settings
from pumpdeck_packaging.signing import openssh_line
from pumpdeck_packaging.wheel_index import WHEELS_FILE

_CONFIG_FORMAT = 1


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """host_key: the device's SSH host key line, compared by a person ("" takes the inventory's).

    login: who installs there, who is root or has sudo ("" is the user of the inventory). root: the agent's folder on the device.
    """

    device: str
    host_key: str = ""
    login: str = ""
    root: str = AGENT_ROOT


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What would be done, what a person must compare, and what this login cannot do."""

    device: str
    host_key: str
    host_fingerprint: str
    root_words: str
    target: str
    login: str
    steps: tuple[Step, ...]
    send_bytes: int


@dataclass(frozen=True, slots=True)
class InstallReport:
    """What was done; `by_hand` is what somebody must still do there."""

    enrolled: EnrolledRow
    done: tuple[str, ...]
    by_hand: tuple[str, ...]


def first_contact(workspace: Workspace, *, device: str) -> tuple[str, str]:
    """The host key line of the inventory, else what the device offers now, and its fingerprint for a person to compare."""
    found = workspace.fleet.device(device)
    identity = workspace.store.devices.identity(found.id)
    line = found.host_key or (identity.host_key if identity else "") or offered_host_key(found)
    return line, host_key_fingerprint(replace(found, host_key=line))


def plan_install(workspace: Workspace, request: InstallRequest) -> InstallPlan:
    """Look at the device and decide; changes nothing there.

    Raises:
        TrustError: another host key. RefusedError: the agent cannot run there. NotFoundError: wheels, or trust, are missing here.
    """
    with _Visit(workspace, request) as visit:
        return visit.plan()


def install(
    workspace: Workspace, request: InstallRequest, *, root_words: str, on_progress: Progress = no_progress
) -> InstallReport:
    """Carry out the plan and enrol the device; `root_words` are what the person read who holds the site's root fingerprint.

    Raises:
        TrustError: the words are not those of the site's root, or another device answers.
        UnreachableError: the link broke; the same command goes on where it stopped.
    """
    with _Visit(workspace, request) as visit:
        check_words(visit.root_words, root_words, f"root of {visit.device.site}")
        visit.plan()
        done = visit.carry_out(on_progress)
        row = visit.enrol()
        return InstallReport(row, tuple(done), tuple(step.by_hand for step in visit.steps if step.by_hand))


class _Visit:
    """One login on one device."""

    def __init__(self, workspace: Workspace, request: InstallRequest) -> None:
        self._workspace = workspace
        self._request = request
        found = workspace.fleet.device(request.device)
        pinned = request.host_key or found.host_key
        if not pinned:
            raise UsageError("no host key is known", found.id, hint="compare the one it offers, then give it with --host-key")
        self.device = replace(found, host_key=pinned)
        self._root = workspace.trust(found.site).root_bytes()
        self.root_words = fingerprint_words(self._root)
        self.steps: tuple[Step, ...] = ()
        self._files: dict[str, bytes] = {}
        self._place = ServicePlace(request.root, found.user, "python3")
        self._shell: SshShell | None = None

    def __enter__(self) -> _Visit:
        self._shell = self._connector().shell(replace(self.device, user=self._request.login or self.device.user))
        return self

    def __exit__(self, *_: object) -> None:
        if self._shell is not None:
            self._shell.close()

    def plan(self) -> InstallPlan:
        """Look, and decide."""
        look = self._look()
        self._place = replace(self._place, python=look.python or "python3")
        wish = self._wish(look)
        check_look(look, wish, self.device.id)
        self.steps = decide_steps(look, wish)
        fingerprint = host_key_fingerprint(self.device)
        sent = 0 if look.settled and look.enrolled else sum(map(len, self._files.values()))
        words = (self.root_words, look.target, look.login)
        return InstallPlan(self.device.id, self.device.host_key, fingerprint, *words, self.steps, sent)

    def carry_out(self, on_progress: Progress) -> list[str]:
        """Every step that is to be done, in order; their names."""
        waiting = [step for step in self.steps if step.command and not step.skip]
        if any(step.name in ("agent", "identity") for step in waiting):
            self._send(on_progress)
        for number, step in enumerate(waiting):
            on_progress(step.title, number, len(waiting))
            self._run(step.command, step.data, step.title)
        self._run(f"rm -rf {self._staging}", b"", "tidy up")
        on_progress("install", len(waiting), len(waiting))
        return [step.name for step in waiting]

    def enrol(self) -> EnrolledRow:
        """Ask the agent that answers now who it is, and keep that: identity, host key and audit entry in one transaction."""
        # Who logs in as the agent's own user has a shell and no forced command: the agent is named.
        command = self._place.command("rpc") if self._request.login in ("", self.device.user) else COMMAND
        channel = self._connector(command)(self.device)
        try:
            header, _ = channel.call(Op.HELLO, {"console": "pumpdeck", "workspace": self._workspace.store.workspace})
        finally:
            channel.close()
        if (header.get("device"), header.get("site")) != (self.device.id, self.device.site):
            said = f"{header.get('device')} at {header.get('site')}"
            raise TrustError(
                "another device answers", self.device.id, expected=f"{self.device.id} at {self.device.site}", found=said
            )
        return keep_identity(self._workspace, self.device.id, str(header.get("public_key", "")), self.device.host_key)

    @property
    def _staging(self) -> str:
        return f'"$HOME"/.pumpdeck-enrol/{self.device.id}'

    def _connector(self, command: str = COMMAND) -> SshConnector:
        login = self._workspace.credentials.login()
        return SshConnector(SshLogin(key_text=login.key_text, use_agent=login.use_agent), command=command)

    def _look(self) -> DeviceLook:
        words = shlex.join(["sh", "-s", "--", self._request.root, self.device.user, UNIT_NAME])
        return parse_look(self._run(words, LOOK.encode(), "look at the device"), self.device.id)

    def _wish(self, look: DeviceLook) -> InstallWish:
        agent, serial = self._agent()
        settle = ["--sha256", canonical.digest(agent), "--serial", str(serial)]
        files = {AGENT_FILE: agent, "agent.json": self._config(), "root.json": self._root}
        if not look.libraries and not look.settled:
            wheels = self._wheels(look)
            sent = f"{self._request.root}/sent/wheels"
            settle += ["--wheels", sent, "--wheels-sha256", wheels.sha256]
            files |= {f"wheels/{one.file}": wheel_bytes(wheels.folder, one) for one in wheels.wheels}
            files[f"wheels/{WHEELS_FILE}"] = (wheels.folder / WHEELS_FILE).read_bytes()
        self._files = files
        device_class = self._workspace.fleet.device_classes[self.device.device_class]
        unit = service_unit(self._place, device_settings(device_class).unit_lines())
        return InstallWish(
            place=self._place,
            unit=unit,
            unit_digest=canonical.digest(unit.encode()),
            public_key=openssh_line(self._workspace.credentials.find("ssh").public_pem),
            comment=f"pumpdeck-{self._workspace.store.workspace[:12]}",
            settle=tuple(settle),
            files=files,
            staging=self._staging,
        )

    def _agent(self) -> tuple[bytes, int]:
        """The agent released for this site, else the one of this very program."""
        try:
            word = agent_desk(self._workspace, self.device.site).word()
            return self._workspace.artifacts.get(word.sha256), word.serial
        except NotFoundError:
            return Path(build_agent_release(self._workspace).path).read_bytes(), 0

    def _wheels(self, look: DeviceLook) -> WheelSet:
        found = next((one for one in wheel_sets(self._workspace) if one.target.name == look.target), None)
        return found or collect_wheels(self._workspace.root / "agent" / "wheels", WheelTarget.parse(look.target))

    def _config(self) -> bytes:
        fleet = self._workspace.fleet
        pumps = [
            {"tag": one.tag, "type": one.type, "criticality": one.criticality, "redundancy_group": one.redundancy_group}
            for one in fleet.pumps_by_device.get(self.device.id, ())
        ]
        rules = demanded(fleet, self.device)
        return canonical.encode(
            {
                "format": _CONFIG_FORMAT,
                "device": self.device.id,
                "site": self.device.site,
                "device_class": self.device.device_class,
                "pumps": pumps,
                "min_seq": self._workspace.trust(self.device.site).next_seq(),
                **canonical.to_plain(rules),
            }
        )

    def _send(self, on_progress: Progress) -> None:
        """Put the files into the login's own folder; what a cut left there is gone on with, proven whole at the end."""
        total, done = sum(map(len, self._files.values())), 0
        for name, data in self._files.items():
            self._send_file(name, data, partial(_report, on_progress, done, total))
            done += len(data)

    def _send_file(self, name: str, data: bytes, on_sent: Callable[[int], None]) -> None:
        path = f"{self._staging}/{name}"
        ready = f"umask 077; mkdir -p $(dirname {path}); touch {path}; "
        for attempt in range(2):
            there = int(self._run(f"{ready} wc -c < {path}", b"", f"look at {name}").strip() or 0)
            if there < len(data) and attempt == 0:
                self._run(f"cat >> {path}", data[there:], f"send {name}", on_sent)
            elif there != len(data):
                self._run(f"cat > {path}", data, f"send {name}", on_sent)
            if self._run(f"sha256sum < {path}", b"", f"prove {name}").split(" ")[0] == canonical.digest(data):
                return
            self._run(f"rm -f {path}", b"", f"remove {name}")
        raise UnreachableError("did not arrive whole", name, hint="try again")

    def _run(self, command: str, data: bytes, what: str, on_sent: Callable[[int], None] = lambda _sent: None) -> str:
        if self._shell is None:
            raise RuntimeError("not logged in")
        answer = self._shell.run(command, data, on_sent=on_sent)
        if answer.status != 0:
            said = answer.err.decode("utf-8", "replace").strip()[-400:]
            raise PumpdeckError(f"could not {what}", self.device.id, found=said or f"exit status {answer.status}")
        return answer.out.decode("utf-8", "replace")


def _report(on_progress: Progress, before: int, total: int, sent: int) -> None:
    on_progress("send", before + sent, total)


def steps_as_rows(steps: Sequence[Step]) -> list[dict[str, str]]:
    """For people: what is done, what is not and why, what remains to be done by hand."""
    return [{"step": one.name, "does": one.title, "note": one.skip or "will be done", "by_hand": one.by_hand} for one in steps]
