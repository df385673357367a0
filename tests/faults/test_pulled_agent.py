"""A stick that is pulled while the agent is written onto it: whatever lies there, `start.py` starts the whole or nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_packaging.agent_release import AgentRelease
from pumpdeck_packaging.agent_wheels import WheelSet
from pumpdeck_packaging.bundle import claim
from pumpdeck_packaging.bundle_agent import AgentLoad, AgentOnStick, parse_agent_index, write_agent
from pumpdeck_packaging.bundle_stick import StickFailedError
from support.forgetful_disk import ForgetfulDisk, Loss
from support.sticks import WORKSPACE, PulledDisk, stick_on, wheel_folder, wheel_of

FOLDER = Path("/media/stick/pumpdeck")
AGENT = FOLDER / "agent"
TARGET = "x86_64-cp311"


def empty_disk() -> ForgetfulDisk:
    disk = ForgetfulDisk()
    disk.mkdir(FOLDER.parent)
    disk.sync_all()
    return disk


def release(folder: Path, version: str) -> tuple[AgentRelease, list[WheelSet]]:
    """A small stand-in for an agent: here only its bytes count."""
    folder.mkdir()
    data = f"agent {version}".encode() * 300
    path = folder / "agent.pyz"
    path.write_bytes(data)
    wheels = wheel_folder(folder / "wheels", TARGET, wheel_of({"heron/__init__.py": version}))
    return AgentRelease(version, canonical.digest(data), len(data), path), [wheels]


def load_of(what: tuple[AgentRelease, list[WheelSet]]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A word and the released agent that it names; only their places count here."""
    data = what[0].path.read_bytes()
    return {"gannet": canonical.digest(data).encode()}, {canonical.digest(data): data}


def put(disk: object, what: tuple[AgentRelease, list[WheelSet]]) -> AgentOnStick:
    stick = stick_on(disk, FOLDER)  # type: ignore[arg-type]
    claim(stick, WORKSPACE, "b-0123456789ab")
    return write_agent(stick, AgentLoad(*what, *load_of(what)), lambda *_: None)


def starts(disk: ForgetfulDisk) -> str:
    """The version that `start.py` would install by its own rules; empty when it would refuse or is not there."""
    if not disk.exists(AGENT / "start.py") or not disk.exists(AGENT / "agent.json"):
        return ""
    found = re.search(rb'^EXPECTED = "([0-9a-f]{64})"$', disk.read_bytes(AGENT / "start.py", 1 << 20), re.MULTILINE)
    data = disk.read_bytes(AGENT / "agent.json", 1 << 20)
    if found is None or canonical.digest(data) != found[1].decode():
        return ""
    index = parse_agent_index(data)
    for path, listed in index.files.items():
        place = AGENT.joinpath(*path.split("/"))
        if not disk.exists(place) or canonical.digest(disk.read_bytes(place, 1 << 20)) != listed.digest:
            return ""
    return index.version


@pytest.mark.parametrize("loss", list(Loss))
def test_pulled_at_any_step_of_writing_the_agent(tmp_path: Path, loss: Loss) -> None:
    old, new = release(tmp_path / "old", "1.0.0"), release(tmp_path / "new", "1.1.0")
    for before, wanted in ((None, old), (old, new)):
        base = empty_disk()
        if before is not None:
            put(base, before)
            base.sync_all()
        step = 0
        while True:
            disk = base.after_cut(Loss.NOTHING)
            try:
                told = put(PulledDisk(disk, step), wanted)
            except StickFailedError:
                found = disk.after_cut(loss, seed=step)
                assert starts(found) in ("", "1.0.0", wanted[0].version)
                put(found, wanted)
                assert starts(found.after_cut(Loss.ALL)) == wanted[0].version
                step += 1
                continue
            break
        done = disk.after_cut(loss)
        assert starts(done) == wanted[0].version == told.version
        assert canonical.digest(done.read_bytes(AGENT / "start.py", 1 << 20)) == told.start_digest
        print(f"agent onto a stick, {loss.name}: {step} pulls, 0 half-believed, stick used again each time")
        assert step > 30
