"""Logs of training runs: written while a run works, read by whoever wants to know how far it is, kept when it has ended.

A run that works has a folder `run-logs/<name>/` with `log.jsonl`, to which lines are appended, and holds its lock: so another
process can follow it, and can tell a run that was killed. The newest fifty stay. What is kept for good, without progress, is an
artifact that the audit entry of the run names (`log`); the run record itself holds no time of day and is the same for the same
run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pumpdeck_console.operations.audit import entries
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.runs import find_run, read_run
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import EXIT_INTERRUPTED, BusyError, NotFoundError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.ports import OpenFile
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_trainer.run_log import Listener, LogLine, RunLog, hearing_warnings

FOLDER = "run-logs"
FILE = "log.jsonl"
KEEP_LOGS = 50
LOG_MAX_BYTES = 16 * 1024 * 1024
_FIELDS = {one.name for one in fields(LogLine)}


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run as its log tells. state: running, cut (killed in the middle), or how it ended.

    done, total, rate_per_s, left_s: of the step it is at.
    """

    name: str
    state: str
    began_ms: int
    text: str
    step: str = ""
    done: int = 0
    total: int = 0
    rate_per_s: float | None = None
    left_s: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunLogView:
    """Lines of a log from some byte on, and where the next ones will begin. run: digest of the record, if it has ended."""

    name: str
    state: str
    lines: tuple[LogLine, ...]
    next_bytes: int


class RunRecorder:
    """The log of the run that is under way, and the end it comes to."""

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.outcome = ("done", "")

    def ends(self, outcome: str, text: str) -> None:
        """How the run ends, should nothing go wrong after this."""
        self.outcome = (outcome, text)

    def encode(self) -> bytes:
        """What is kept of the log, with the last step ended."""
        self.log.end_step()
        return self.log.encode()


@contextmanager
def recording(workspace: Workspace, name: str, text: str, listen: Listener) -> Iterator[RunRecorder]:
    """Write the log of a run while it works, under `name` and the time; its end is told however it comes."""
    folder = _new_folder(workspace, name)
    with hold_folder(folder, 0):
        out = workspace.fs.open_write(folder / FILE)
        try:
            log = RunLog(workspace.clock.now_ms, time.monotonic, (_writer(out), listen))
            recorder = RunRecorder(log)
            log.begin(text)
            try:
                with hearing_warnings(log):
                    yield recorder
            except BaseException as error:
                log.end(*_outcome_of(error))
                raise
            log.end(*recorder.outcome)
        finally:
            out.close()


def _writer(out: OpenFile) -> Listener:
    def write(line: LogLine) -> None:
        # Nobody's run ends because a disk is full of logs.
        with suppress(OSError):
            out.write(canonical.encode(line.plain()) + b"\n")

    return write


def _outcome_of(error: BaseException) -> tuple[str, str]:
    if isinstance(error, KeyboardInterrupt) or getattr(error, "exit_code", 0) == EXIT_INTERRUPTED:
        return "cancelled", ""
    if isinstance(error, RefusedError):
        return "refused", error.sentence()
    return "failed", error.sentence() if isinstance(error, PumpdeckError) else f"{type(error).__name__}: {error}"


def _new_folder(workspace: Workspace, name: str) -> Path:
    root = workspace.root / FOLDER
    held = _folders(workspace)
    for old in held[: max(len(held) - KEEP_LOGS + 1, 0)]:
        _drop(workspace, old)
    stamp = format_ms(workspace.clock.now_ms() // 1000 * 1000).replace("-", "").replace(":", "").lower()
    number = 1
    while (root / f"{name}-{stamp}-{number}").exists():
        number += 1
    folder = root / f"{name}-{stamp}-{number}"
    workspace.fs.mkdir(folder)
    return folder


def _drop(workspace: Workspace, folder: Path) -> None:
    """Unless the run still works, or something holds the files."""
    with suppress(BusyError, OSError):
        with hold_folder(folder, 0):
            workspace.fs.unlink(folder / FILE)
        workspace.fs.remove_tree(folder)


def _folders(workspace: Workspace) -> list[Path]:
    """By the time they were begun, oldest first."""
    root = workspace.root / FOLDER
    found = [path for path in root.iterdir() if (path / FILE).is_file()] if root.is_dir() else []
    return sorted(found, key=lambda path: (_stamp(path.name), path.name))


def _stamp(name: str) -> tuple[str, int]:
    _, stamp, number = name.rsplit("-", 2) if name.count("-") >= 2 else ("", "", "0")
    return stamp, int(number) if number.isdecimal() else 0


@operation("runs.live", runs_in="reader")
def list_live(workspace: Workspace, *, limit: int = KEEP_LOGS) -> tuple[LiveRun, ...]:
    """The newest `limit` runs of this workspace folder with their state and progress, newest first."""
    return tuple(_live(path) for path in reversed(_folders(workspace)[-limit:]))


def _live(folder: Path) -> LiveRun:
    lines, _ = _read(folder / FILE, 0)
    state = _state(folder, lines)
    began = lines[0] if lines else LogLine(0, "begin")
    at = next((one for one in reversed(lines) if one.step and one.event != "pump"), LogLine(0, ""))
    is_running = state == "running"
    return LiveRun(
        name=folder.name,
        state=state,
        began_ms=began.at_ms,
        text=lines[-1].text if lines and lines[-1].event == "end" else began.text,
        step=at.step or "",
        done=at.done or 0,
        total=at.total or 0,
        rate_per_s=at.rate_per_s if is_running else None,
        left_s=at.left_s if is_running else None,
        seconds=lines[-1].seconds if lines else None,
    )


def _state(folder: Path, lines: tuple[LogLine, ...]) -> str:
    if lines and lines[-1].event == "end":
        return lines[-1].text.partition(":")[0]
    try:
        with hold_folder(folder, 0):
            pass
    except BusyError:
        return "running"
    # It may have ended between the two looks.
    again, _ = _read(folder / FILE, 0)
    return again[-1].text.partition(":")[0] if again and again[-1].event == "end" else "cut"


@operation("runs.log", runs_in="reader")
def read_log(workspace: Workspace, *, run: str = "", after_bytes: int = 0) -> RunLogView:
    """The log of a run: named as `runs.live` names it, by the digest of its record, or nothing for the newest.

    `after_bytes`: as the view before gave it, to follow a run that works; kept logs are read whole.

    Raises:
        NotFoundError: no such run, or it was made before logs were kept.
    """
    folders = {path.name: path for path in _folders(workspace)}
    if not run and folders:
        run = list(folders)[-1]
    if run in folders:
        lines, end = _read(folders[run] / FILE, after_bytes)
        whole = lines if not after_bytes else _read(folders[run] / FILE, 0)[0]
        return RunLogView(run, _state(folders[run], whole), lines, end)
    digest = log_digest(workspace, find_run(workspace, run).run) if run else ""
    if not digest:
        hint = "start one with: pumpdeck train" if not run else "list them with: pumpdeck runs"
        raise NotFoundError("no log was kept", f"run {run[:12]}" if run else "training run", hint=hint)
    return RunLogView(run, "registered", kept_lines(workspace, digest), 0)


@operation("runs.show", runs_in="reader")
def show_run(workspace: Workspace, *, run: str) -> Mapping[str, Any]:
    """The whole record of a run and, as `log`, the lines of its newest log; none where none was kept.

    Raises:
        NotFoundError: no run, or several, begin so.
    """
    record, found = read_run(workspace, run=run), find_run(workspace, run)
    digest = log_digest(workspace, found.run)
    return {**record, "log": [one.plain() for one in kept_lines(workspace, digest)] if digest else []}


def log_digest(workspace: Workspace, run: str) -> str:
    """The artifact with the newest log of the run with this record; empty where none was kept."""
    found = [one.digests["log"] for one in entries(workspace) if one.digests.get("run") == run and "log" in one.digests]
    return found[-1] if found else ""


def kept_lines(workspace: Workspace, digest: str) -> tuple[LogLine, ...]:
    """The lines of a kept log.

    Raises:
        NotFoundError, DamagedError: it is not here, or altered.
    """
    data = workspace.artifacts.get(digest)
    held = canonical.parse_json(data, f"run log {digest[:12]}", max_bytes=LOG_MAX_BYTES)
    return tuple(_line(one) for one in held["lines"])


def _read(path: Path, after_bytes: int) -> tuple[tuple[LogLine, ...], int]:
    """Whole lines from there on; the last one may still be on its way."""
    try:
        with path.open("rb") as stream:
            stream.seek(after_bytes)
            data = stream.read(LOG_MAX_BYTES)
    except FileNotFoundError:
        return (), after_bytes
    whole, _, _ = data.rpartition(b"\n")
    lines = []
    for raw in whole.splitlines():
        # A log is talk: what a cut garbled is passed over.
        with suppress(ValueError, TypeError):
            lines.append(_line(json.loads(raw)))
    return tuple(lines), after_bytes + len(whole) + (1 if whole else 0)


def _line(plain: Any) -> LogLine:
    return LogLine(**{name: value for name, value in plain.items() if name in _FIELDS})


def follow(read: Callable[[int], RunLogView], pause: Callable[[], None]) -> Iterator[tuple[LogLine, ...]]:
    """Lines as they come, until the run has ended."""
    after = 0
    while True:
        view = read(after)
        after = view.next_bytes
        yield view.lines
        if view.state != "running":
            return
        pause()


