"""Starts the agent that a device shall run, and goes back to the one before when a new one does not confirm that it works.

Copied to `agent/launch.py` when a device is enrolled and never touched by an upgrade: so it uses the standard library only, knows
just the part of the slot record that it needs (docs/formats.md) and stays as it is for years.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

LIBRARIES_VARIABLE = "PUMPDECK_AGENT_LIBRARIES"
CONFIRM_S = float(os.environ.get("PUMPDECK_AGENT_CONFIRM_S", "45"))
MAX_TRIES = 3
POLL_S = 0.1
Record = dict[str, Any]
DAMAGED = 5
# These run as long as a device works; the others are for people, who see for themselves.
CONFIRMING = ("serve", "rpc", "install-from", "resume")


def main(home: Path, arguments: Sequence[str]) -> int:
    """Run the agent with these arguments; returns its exit code, or never when this process becomes the agent."""
    supervised = bool(arguments) and arguments[0] in CONFIRMING
    while True:
        record = choose(home, supervised)
        build = None if record is None else first_sound(home, record)
        if record is None or build is None:
            say("no agent is whole on this device: enrol it again")
            return DAMAGED
        command = [sys.executable, "-s", str(home / build["slot"] / "agent.pyz"), *arguments]
        environment = dict(os.environ)
        environment.pop(LIBRARIES_VARIABLE, None)
        if build.get("libraries"):
            environment[LIBRARIES_VARIABLE] = str(home / "libraries" / build["libraries"])
        if not supervised or record["phase"] != "PROBATION":
            os.execve(sys.executable, command, environment)
        code = supervise(home, build, command, environment)
        if code is not None:
            return code


def choose(home: Path, supervised: bool) -> Record | None:
    """The record to start by. On probation this start is counted first; one start too many and the old agent is back."""
    with (home / "slot.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = newest(home)
        if record is None or record["phase"] != "PROBATION" or not supervised:
            return record
        if record["tries"] >= MAX_TRIES or not is_sound(home, record["active"]):
            rolled = {**record, "phase": "ROLLED_BACK", "active": record["previous"], "candidate": record["active"]}
            rolled["reason"] = f"did not confirm within {MAX_TRIES} starts of {CONFIRM_S:g} s"
            del rolled["previous"]
            say("the new agent " + rolled["reason"] + "; the one before it runs again")
            return write(home, rolled)
        return write(home, {**record, "tries": record["tries"] + 1})


def supervise(home: Path, build: Record, command: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """The exit code of an agent that confirmed; None when it ended or hung before that."""
    stopped: list[int] = []
    child = subprocess.Popen(command, env=environment)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    deadline = time.monotonic() + CONFIRM_S
    while time.monotonic() < deadline and child.poll() is None:
        if is_confirmed(home, build):
            break
        time.sleep(POLL_S)
    if is_confirmed(home, build):
        return status_of(child.wait())
    if child.poll() is None:
        child.kill()
    code = status_of(child.wait())
    return code if stopped else None


def is_confirmed(home: Path, build: Record) -> bool:
    """True once the agent of that build wrote that it works."""
    record = newest(home)
    return record is not None and record["phase"] != "PROBATION" and record["active"]["sha256"] == build["sha256"]


def first_sound(home: Path, record: Record) -> Record | None:
    """The active agent, or the one before it when the disk damaged the active one."""
    builds = [build for build in (record["active"], record.get("previous")) if build]
    return next((build for build in builds if is_sound(home, build)), None)


def is_sound(home: Path, build: Record) -> bool:
    """True when every byte of that agent, and the folder of its libraries, are there."""
    try:
        data = (home / build["slot"] / "agent.pyz").read_bytes()
    except OSError:
        return False
    libraries = build.get("libraries")
    return hashlib.sha256(data).hexdigest() == build["sha256"] and (not libraries or (home / "libraries" / libraries).is_dir())


def newest(home: Path) -> Record | None:
    """The newest record that is whole; None when both copies are lost."""
    found = [record for record in (read(home / f"slot.{which}") for which in (0, 1)) if record is not None]
    return max(found, key=lambda record: record["record"], default=None)


def read(path: Path) -> Record | None:
    """The record in one copy; None when it is lost, cut or altered."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
        record: Record | None = json.loads(body) if hashlib.sha256(body).hexdigest().encode() == digest else None
    except (OSError, ValueError):
        return None
    return record


def write(home: Path, record: Record) -> Record:
    """The next record, on the medium when this returns; the other copy stays whole meanwhile."""
    record = {**record, "record": record["record"] + 1}
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with (home / f"slot.{record['record'] % 2}").open("wb") as stream:
        stream.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        stream.flush()
        os.fsync(stream.fileno())
    return record


def status_of(code: int) -> int:
    """An exit code as a shell tells it."""
    return 128 - code if code < 0 else code


def say(text: str) -> None:
    """Talk, on standard error."""
    sys.stderr.write(f"pumpdeck-agent launcher: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, sys.argv[1:]))
