"""D13: a device changes its agent. It is killed (SIGKILL) at its steps, the new agent is killed while it must show that it works,
and new agents are broken in every way we know. After each, whoever connects must be answered, and a good agent still taken.
The same again with a stick: killed at the steps of `install-from`, and broken agents that come on a stick.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_agent.install_from import install_from
from pumpdeck_agent.platform_here import kill_group, run_in_fork
from pumpdeck_agent.settle import SettleRequest, settle
from pumpdeck_agent.trial import TrialRunner
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.rpc import CHUNK_BYTES, Op
from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from pumpdeck_packaging.agent_release import AgentRelease, agent_bytes, agent_version
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME
from pumpdeck_packaging.bundle import claim, write_bundle
from pumpdeck_packaging.bundle_agent import AgentLoad, write_agent
from pumpdeck_packaging.bundle_index import metadata_file
from pumpdeck_packaging.bundle_part import bytes_part
from pumpdeck_packaging.bundle_stick import Stick, real_stick
from pumpdeck_sample.drills.agents import DIES, ENDS, HANGS, RAISES, breaks_in, other_agent
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, UnsyncedFileSystem, enrol, install
from pumpdeck_sample.drills.d2 import KillingFileSystem
from pumpdeck_sample.drills.packages import SITE, package

LIFE_S = 120.0
PATIENT_S = 60.0
"""A good agent confirms as soon as it has started, however busy this computer is; only one that hangs is waited for."""
HANGING_S = 4.0
# The longest that a start of a good agent takes; kills of one on probation fall within it.
_START_S = 1.5
NEWER = "0.9.0"


@dataclass(frozen=True)
class _Case:
    """A device that runs the first agent in the folder `start`, and the agent it is asked to run."""

    maker: DeviceMaker
    start: Path
    site: DrillSite
    newer: bytes
    files: dict[str, bytes]

    @property
    def root(self) -> Path:
        return self.maker.root

    def begin(self) -> None:
        """As it was before the upgrade."""
        shutil.rmtree(self.root)
        shutil.copytree(self.start, self.root)


def drill_agent_upgrades(folder: Path, pool: TrialRunner, kills: int, seed: int = 1) -> dict[str, Any]:
    """At least `kills` kills, half of them at storage steps, half of the new agent on probation; then each broken agent."""
    chance = random.Random(seed)
    case = _prepare(folder, pool)
    figures: dict[str, Any] = {"tried": 0, "bricked": 0, "wrong_agent": 0, "cannot_retry": 0, "broken_kept": 0, "evidence": []}
    figures["steps"] = steps = _upgrade_in_fork(case, None)
    every = max(1, steps // max(1, kills // 2))
    # The first step of all and the last ones are where records change: they are always among them.
    moments = sorted({*range(0, steps, every), *range(max(0, steps - min(8, kills)), steps)})
    for at in moments:
        case.begin()
        _upgrade_in_fork(case, at)
        _count(case, figures, f"step {at}")
    for _ in range(max(2, kills // 2)):
        case.begin()
        _upgrade_in_fork(case, None)
        for _ in range(chance.randrange(1, 4)):
            _start_and_kill(case, chance.uniform(0, _START_S))
        _count(case, figures, "probation")
    _broken(case, figures)
    _by_stick(case, figures, max(1, kills // 4))
    return figures


def _prepare(folder: Path, pool: TrialRunner) -> _Case:
    site, fs, root = DrillSite(folder), UnsyncedFileSystem(), folder / "device"
    maker = enrol(fs, site, root)
    first = agent_bytes()
    (folder / "sent.pyz").write_bytes(first)
    settle(maker.agent(fs, pool).platform, root, SettleRequest(folder / "sent.pyz", canonical.digest(first)))
    built = package()
    install(maker.agent(fs, pool), built, site.assign(built, "task-first"))
    shutil.copytree(root, folder / "start")
    newer = other_agent(NEWER)
    return _Case(maker, folder / "start", site, newer, site.release_agent(newer))


def _upgrade_in_fork(case: _Case, kill_at: int | None) -> int:
    """Push and upgrade in a fork of this process that is killed before a step; the steps it counted, 0 when killed."""

    def upgrade() -> bytes:
        fs = KillingFileSystem(kill_at)
        agent = case.maker.agent(fs, _NoTrials())
        digest, data = canonical.digest(case.newer), case.newer
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        agent.have(digest, len(data), b"".join(bytes.fromhex(canonical.digest(piece)) for piece in pieces))
        for index, piece in enumerate(pieces):
            agent.chunk(digest, index, piece)
        agent.seal(digest, len(data))
        agent.upgrade(case.files)
        return str(fs.steps).encode()

    data, _ = run_in_fork(upgrade, LIFE_S, 32)
    return int(data or 0)


class _NoTrials:
    """Nothing is installed in this drill: a package on trial would be a defect."""

    def run(self, request: object) -> Any:
        raise AssertionError(f"no trial was asked for: {request}")


def _launch(case: _Case, confirm_s: float = PATIENT_S) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-s", str(case.root / "agent" / "launch.py"), "rpc", "--root", str(case.root)]
    environment = {**os.environ, "PUMPDECK_AGENT_CONFIRM_S": str(confirm_s)}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        bufsize=0,
        start_new_session=True,
    )


def _start_and_kill(case: _Case, after_s: float) -> None:
    """Start the agent as a console would, and kill everything of it at that moment."""
    process = _launch(case)
    time.sleep(after_s)
    kill_group(process.pid)
    process.communicate()


@contextlib.contextmanager
def _talk(case: _Case, confirm_s: float = PATIENT_S) -> Iterator[RpcClient]:
    process = _launch(case, confirm_s)
    sink, source = process.stdin, process.stdout
    if sink is None or source is None:
        raise PumpdeckError("has no pipes", "launcher")

    def send(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[sink.write(view) or 0 :]

    try:
        yield RpcClient(send, source.read, name="device")
    finally:
        sink.close()
        source.close()
        kill_group(process.pid)
        process.wait()


def _hello(case: _Case) -> str:
    with _talk(case) as channel:
        return str(channel.call(Op.HELLO, {"console": "drill", "workspace": "drill"})[0]["agent"])


def _ask(case: _Case, data: bytes, files: dict[str, bytes], confirm_s: float = PATIENT_S) -> str:
    """Bring this agent to its end, as a console does; the outcome of its receipt."""
    with _talk(case) as channel:
        push_blob(channel, canonical.digest(data), data)
        listed = [{"name": name, "bytes": len(content)} for name, content in files.items()]
        header = channel.call(Op.UPGRADE, {"files": listed}, b"".join(files.values()))[0]
    if header["phase"] != "PROBATION":
        return str(header["outcome"])
    with _talk(case, confirm_s) as channel:
        return str(channel.call(Op.AGENT, {})[0]["outcome"])


def _count(case: _Case, figures: dict[str, Any], where: str) -> None:
    figures["tried"] += 1
    first = agent_version(agent_bytes())
    try:
        answered = _hello(case)
        if answered not in (first, NEWER):
            _note(figures, "wrong_agent", f"{where}: {answered}")
    except (PumpdeckError, OSError) as error:
        _note(figures, "bricked", f"{where}: {error}")
        return
    try:
        outcome = _ask(case, case.newer, case.site.release_agent(case.newer))
        if outcome == "rolled_back":
            # Killed too often on probation: the release failed there. Released anew it must be taken.
            outcome = _ask(case, case.newer, case.site.release_agent(case.newer, anew=True))
        if outcome not in ("committed", "already") or _hello(case) != NEWER:
            _note(figures, "cannot_retry", f"{where}: {outcome}")
    except (PumpdeckError, OSError) as error:
        _note(figures, "cannot_retry", f"{where}: {error}")


def _broken(case: _Case, figures: dict[str, Any]) -> None:
    first = agent_version(agent_bytes())
    broken = [other_agent(NEWER, {member: code}) for member, code in ((_MAIN, RAISES), ("__main__.py", ENDS), (_MAIN, DIES))]
    broken += [breaks_in("rpc", code) for code in (RAISES, ENDS, DIES, HANGS)]
    for number, data in enumerate(broken):
        confirm_s = HANGING_S if data is broken[-1] else PATIENT_S
        case.begin()
        figures["tried"] += 1
        try:
            outcome = _ask(case, data, case.site.release_agent(data), confirm_s)
            if outcome != "rolled_back" or _hello(case) != first:
                _note(figures, "broken_kept", f"broken {number}: {outcome}")
        except (PumpdeckError, OSError) as error:
            _note(figures, "bricked", f"broken {number}: {error}")


def _by_stick(case: _Case, figures: dict[str, Any], kills: int) -> None:
    """The agent comes on a stick: killed at storage steps of the device, then finished over SSH; broken ones are taken back."""
    folder = case.root.parent / "stick"
    stick = _stick(case, folder, case.newer)
    case.begin()
    figures["stick_steps"] = steps = _visit_in_fork(case, stick, None)
    for at in sorted({(steps - 1) * (number + 1) // kills for number in range(kills)}):
        case.begin()
        _visit_in_fork(case, stick, at)
        _count(case, figures, f"stick step {at}")
    case.begin()
    figures["tried"] += 1
    if _install_from(case, stick) != "committed" or _hello(case) != NEWER:
        _note(figures, "cannot_retry", "stick")
    broken = (breaks_in("install-from", DIES), other_agent(NEWER, {_MAIN: RAISES}))[: 1 if kills < 4 else 2]
    for number, data in enumerate(broken):
        case.begin()
        figures["tried"] += 1
        outcome = _install_from(case, _stick(case, folder.with_name(f"stick-{number}"), data))
        if outcome != "rolled_back" or _hello(case) != agent_version(agent_bytes()):
            _note(figures, "broken_kept", f"stick broken {number}: {outcome}")


def _stick(case: _Case, folder: Path, data: bytes) -> Stick:
    """A stick as `bundle export --agent` writes it."""
    files, stick = case.site.release_agent(data, anew=True), real_stick(folder)
    parts = [bytes_part(metadata_file(SITE, name), one) for name, one in files.items() if name != AGENT_WORD_NAME]
    name = claim(stick, "ws-drill", "b-0123456789ab")
    write_bundle(stick, name, parts, before_index=lambda: None, on_progress=lambda *_: None)
    archive = folder.with_name(f"{folder.name}.pyz")
    archive.write_bytes(data)
    release = AgentRelease(agent_version(data), canonical.digest(data), len(data), archive)
    load = AgentLoad(release, [], {SITE: files[AGENT_WORD_NAME]}, {release.sha256: data})
    write_agent(stick, load, lambda *_: None)
    return stick


def _visit_in_fork(case: _Case, stick: Stick, kill_at: int | None) -> int:
    """`install-from` by the old agent in a fork that is killed before a step of the device; the steps, 0 when killed."""

    def visit() -> bytes:
        fs = KillingFileSystem(kill_at)
        install_from(case.maker.agent(fs, _NoTrials()), stick)
        return str(fs.steps).encode()

    data, _ = run_in_fork(visit, LIFE_S, 32)
    return int(data or 0)


def _install_from(case: _Case, stick: Stick) -> str:
    """As the stick's unit calls it, through the launcher; what became of the agent."""
    launcher = str(case.root / "agent" / "launch.py")
    words = [sys.executable, "-s", launcher, "install-from", "--root", str(case.root), str(stick.folder)]
    environment = {**os.environ, "PUMPDECK_AGENT_CONFIRM_S": str(PATIENT_S)}
    done = subprocess.run(words, capture_output=True, timeout=4 * LIFE_S, env=environment, check=False)
    try:
        return str(json.loads(done.stdout)["agent"]["outcome"])
    except ValueError:
        return f"no answer: {done.stderr[-200:]!r}"


_MAIN = "pumpdeck_agent/main.py"


def _note(figures: dict[str, Any], what: str, words: str) -> None:
    figures[what] += 1
    figures["evidence"].append(f"{what}: {words}"[:300])
