"""Does a new agent work on this very device? Asked of it in a process of its own before it may become the agent.

It must start, know who the device is, answer `hello` over the RPC frames, read the state, and score the golden rows of the
package that is active now, as in a trial. It changes nothing.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pumpdeck_agent import AGENT_VERSION
from pumpdeck_agent.archive_main import LIBRARIES_VARIABLE
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.status import device_status
from pumpdeck_agent.trial import TrialRequest, TrialRunner, child_environment, ended_by
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.rpc import FrameDecoder, Op, request

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

CHECK_S = 90.0
_REPORT_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class CheckReport:
    """How it went; `reason` is empty when it passed."""

    version: str
    device: str
    key_id: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Which agent to check: its archive, the folder of its libraries ("" for this Python's own), the device's root folder."""

    archive: Path
    libraries: str
    root: Path


class CheckRunner(Protocol):
    """Checks an agent. Never raises for what it does: that is a report with a reason."""

    def run(self, wanted: CheckRequest) -> CheckReport: ...


def check_agent(agent: Agent, runner: TrialRunner) -> CheckReport:
    """What the new agent says of itself, in its own process. Raises: PumpdeckError: it does not work here."""
    hello = _ask_hello(agent)
    platform, layout = agent.platform, agent.layout
    state = StateFiles(platform.fs, layout).load()
    if state is None:
        raise PumpdeckError("cannot read the device state", agent.config.device)
    told = device_status(platform.fs, layout, agent.config, state, platform.clock.now_ms())
    reason = ""
    if state.active is not None:
        folder = layout.package(state.active.sha256)
        report = runner.run(TrialRequest(str(folder), state.active.manifest, agent.limits.trial_wall_s))
        reason = "" if report.passed else f"the active package: {report.reason}"
    return CheckReport(AGENT_VERSION, str(hello["device"]), str(hello["key_id"]), told.state, reason)


def _ask_hello(agent: Agent) -> dict[str, Any]:
    from pumpdeck_agent.rpc_server import serve_rpc  # deferred: the runner's side needs none of it

    asked = io.BytesIO(request(1, Op.HELLO, {"console": "self check", "workspace": ""}))
    answered = io.BytesIO()
    serve_rpc(agent, asked, answered)
    (frame,) = FrameDecoder().feed(answered.getvalue())
    if frame.header.get("ok") is not True:
        raise PumpdeckError("does not answer hello", agent.config.device, found=str(frame.header.get("error"))[:200])
    return dict(frame.header)


class ChildCheckRunner:
    """A new process of the other agent: what devices use."""

    def __init__(self, wall_s: float = CHECK_S) -> None:
        self._wall_s = wall_s

    def run(self, wanted: CheckRequest) -> CheckReport:
        """Its report; one with a reason when it gives none."""
        command = [sys.executable, "-s", str(wanted.archive), "check", "--root", str(wanted.root)]
        environment = {**child_environment(), LIBRARIES_VARIABLE: wanted.libraries}
        if not wanted.libraries:
            environment[LIBRARIES_VARIABLE] = os.environ.get(LIBRARIES_VARIABLE, "")
        try:
            done = subprocess.run(command, capture_output=True, timeout=self._wall_s, env=environment, check=False)
        except subprocess.TimeoutExpired:
            return failed(f"did not answer within {self._wall_s:g} s")
        except OSError as error:
            return failed(f"could not be started ({error})")
        if done.returncode != 0:
            tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            return failed(" ".join([ended_by(done.returncode), *tail]))
        try:
            return canonical.decode(CheckReport, done.stdout[-_REPORT_MAX_BYTES:].strip(), "check", max_bytes=_REPORT_MAX_BYTES)
        except PumpdeckError as error:
            return failed(f"gave no report ({error.what})")


def failed(reason: str) -> CheckReport:
    """A check that did not pass."""
    return CheckReport("", "", "", "", reason[:400])
