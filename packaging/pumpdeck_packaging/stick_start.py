"""Start a device from a stick: prove the agent and its libraries, and put them into a folder. Needs Python 3.11 and nothing else.

    sha256sum agent/start.py                         compare with what the office told you on paper
    python3 -I agent/start.py --to /opt/pumpdeck     then this

The digest of this very file stands for everything: it holds the digest of `agent.json`, which names every other file. Each file
is read once; what was proven is what is written. Run again it changes nothing; cut off at any moment it leaves what was before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import stat
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

EXPECTED = ""
INDEX = "agent.json"
AGENT = "agent.pyz"
WHEELS = "wheels"
LAUNCHER = "pumpdeck-agent"
FILE_MAX_BYTES = 64 * 1024 * 1024
UNPACKED_MAX_BYTES = 512 * 1024 * 1024
REFUSED, DAMAGED, NOT_FOUND = 3, 5, 6
_PATH = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(/[a-z0-9][a-z0-9._-]{0,63}){0,3}")


class StartError(Exception):
    """What went wrong, as a sentence, and the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def main(arguments: list[str] | None = None) -> int:
    """Install; the exit code."""
    parser = argparse.ArgumentParser(description="Put the Pumpdeck agent of this stick onto this device.")
    parser.add_argument("--to", type=Path, required=True, help="the folder for the agent, such as /opt/pumpdeck")
    parser.add_argument("--target", default="", help="the kind of computer, such as aarch64-cp311 (default: this one)")
    options = parser.parse_args(arguments)
    try:
        installed = install(Path(__file__).resolve().parent, options.to.absolute(), options.target or this_target())
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    except OSError as error:
        sys.stderr.write(f"{error.filename or options.to}: {error.strerror}. Check the stick and the folder, and try again\n")
        return 4
    sys.stdout.write(json.dumps(installed, sort_keys=True) + "\n")
    return 0


def this_target() -> str:
    """The name of this kind of computer: `x86_64-cp311`."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{machine}-cp{sys.version_info[0]}{sys.version_info[1]}"


def install(stick: Path, to: Path, target: str) -> dict[str, str]:
    """Prove what the stick holds for this target and put it into `to`; what was installed, as plain values."""
    index = read_index(stick)
    wanted = sorted(path for path in index["files"] if path == AGENT or path.startswith(f"{WHEELS}/{target}/"))
    if len(wanted) < 2:
        there = sorted({path.split("/")[1] for path in index["files"] if path.startswith(f"{WHEELS}/")})
        raise StartError(
            f"The stick holds no libraries for {target}; found {', '.join(there) or 'none'}. "
            f"At the office: pumpdeck package agent --wheels {target}, then export again",
            NOT_FOUND,
        )
    name = f"{index['version']}-{EXPECTED[:12]}-{target}"
    folder = to / name
    to.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        fresh = to / f".{name}.part"
        remove(fresh)
        fresh.mkdir()
        for path in wanted:
            data = read_proven(stick, path, index["files"][path])
            if path == AGENT:
                write(fresh / AGENT, data)
            elif path.endswith(".whl"):
                unpack(data, fresh / "libraries", path)
        sync_tree(fresh)
        fresh.rename(folder)
        sync(to)
    launcher = to / LAUNCHER
    write_launcher(launcher, folder)
    said = subprocess.run([str(launcher), "--version"], capture_output=True, text=True, timeout=60, check=False)
    if said.returncode:
        raise StartError(f"{launcher}: the agent does not start: {said.stderr.strip()[-300:]}", DAMAGED)
    return {"agent": str(launcher), "folder": str(folder), "says": said.stdout.strip(), "target": target}


def read_index(stick: Path) -> dict[str, Any]:
    """`agent.json`, when it is the one that this file was written with."""
    data = read_plain(stick / INDEX, 4 * 1024 * 1024)
    found = hashlib.sha256(data).hexdigest()
    if found != EXPECTED:
        raise StartError(f"{INDEX}: is not the list that this stick was written with; expected {EXPECTED}; found {found}. "
                         "Do not use this stick", DAMAGED)
    index: dict[str, Any] = json.loads(data)
    for path in index["files"]:
        if not _PATH.fullmatch(path) or ".." in path:
            raise StartError(f"{INDEX}: names a path that is none of an agent: {path!r}", DAMAGED)
    return index


def read_proven(stick: Path, path: str, listed: dict[str, Any]) -> bytes:
    """The bytes of a listed file, proven."""
    data = read_plain(stick.joinpath(*path.split("/")), min(listed["bytes"], FILE_MAX_BYTES))
    if len(data) != listed["bytes"] or hashlib.sha256(data).hexdigest() != listed["digest"]:
        raise StartError(f"{path}: was damaged on the stick, or altered. Write the stick again at the office", DAMAGED)
    return data


def read_plain(path: Path, max_bytes: int) -> bytes:
    """A plain file of at most so many bytes; a link, a pipe or a device is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        sentence = f"{path}: is not there. The stick was pulled too early: write it again at the office"
        raise StartError(sentence, NOT_FOUND) from None
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StartError(f"{path}: is not a plain file", DAMAGED)
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise StartError(f"{path}: is larger than the list says", DAMAGED)
    return data


def unpack(data: bytes, folder: Path, what: str) -> None:
    """The files of a wheel, below the folder and nowhere else."""
    with zipfile.ZipFile(BytesIO(data)) as wheel:
        entries = [entry for entry in wheel.infolist() if not entry.is_dir()]
        if sum(entry.file_size for entry in entries) > UNPACKED_MAX_BYTES:
            raise StartError(f"{what}: unpacks to too much", DAMAGED)
        for entry in entries:
            parts = entry.filename.split("/")
            if "" in parts or ".." in parts or "\\" in entry.filename or ":" in entry.filename:
                raise StartError(f"{what}: holds a strange name: {entry.filename!r}", DAMAGED)
            if parts[0].endswith(".data"):
                # Scripts and headers: the agent starts none and compiles nothing.
                continue
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target, wheel.read(entry))


def write_launcher(path: Path, folder: Path) -> None:
    """A script that starts this agent, replaced whole."""
    text = (
        "#!/bin/sh\n"
        f"PUMPDECK_AGENT_LIBRARIES='{folder}/libraries'\n"
        "export PUMPDECK_AGENT_LIBRARIES\n"
        f"exec '{sys.executable}' -I '{folder}/{AGENT}' \"$@\"\n"
    )
    if "'" in f"{folder}{sys.executable}":
        raise StartError(f"{folder}: holds a quote; choose another folder", REFUSED)
    beside = path.with_name(f".{path.name}.part")
    write(beside, text.encode("utf-8"))
    beside.chmod(0o755)
    beside.replace(path)
    sync(path.parent)


def write(path: Path, data: bytes) -> None:
    """Write and sync one file."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_tree(folder: Path) -> None:
    """Sync every folder below, the deepest first."""
    for here in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        sync(here)
    sync(folder)


def sync(folder: Path) -> None:
    """Sync a folder where the system can."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(folder: Path) -> None:
    """Remove what an earlier, cut attempt left."""
    if folder.is_dir():
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        folder.rmdir()


if __name__ == "__main__":
    if sys.hexversion < 0x030B0000:
        sys.exit(f"The agent needs Python 3.11 or newer; this is {platform.python_version()}")
    sys.exit(main())
