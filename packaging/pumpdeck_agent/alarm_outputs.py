"""How an alarm leaves the device with every link down: a file for a PLC or SCADA, a hook, syslog. Each in a thread of its own.

An output that hangs or fails holds up neither scoring nor the others; its failures are counted, and it is given the next
announcement, repeat or heartbeat as if nothing had been.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pumpdeck_agent.site_alarms import Announcement, SiteAlarm, Word
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.ports import FileSystem

HOOK_LIMIT_S = 10.0
_QUEUE_MAX = 256
_SEND_LIMIT_S = 2.0
# Facility local0; severities of RFC 5424.
_FACILITY = 16 << 3
_SEVERITY = {Word.RAISED: 1, Word.REPEATED: 1, Word.ACKNOWLEDGED: 5, Word.CLEARED: 5}
_INFORMATION = 6


@dataclass(frozen=True, slots=True)
class Standing:
    """A heartbeat: the device is alive at `at_ms`, and these alarms stand. `announcement`: what is new, if anything is."""

    device: str
    at_ms: int
    alarms: tuple[SiteAlarm, ...]
    announcement: Announcement | None = None


class Output(Protocol):
    """One way out. `say` may block and may raise OSError."""

    name: str

    def say(self, standing: Standing) -> None:
        """Pass this on."""
        ...


class FileOutput:
    """A JSON file, replaced whole: `{device, heartbeat_ms, alarms: [..]}`. Old `heartbeat_ms` means: nobody watches."""

    name = "file"

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._fs = fs
        self._path = path

    def say(self, standing: Standing) -> None:
        """Not synced: whoever reads it reads it now, and a heartbeat need not wear out a flash disk."""
        content = {"device": standing.device, "heartbeat_ms": standing.at_ms, "alarms": standing.alarms}
        beside = self._path.with_name(self._path.name + ".part")
        handle = self._fs.open_write(beside)
        try:
            handle.write(canonical.encode(content) + b"\n")
        finally:
            handle.close()
        self._fs.rename(beside, self._path)


class HookOutput:
    """A program of the site: arguments word and pump, the announcement as JSON on standard input. No heartbeats."""

    name = "hook"

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def say(self, standing: Standing) -> None:
        """Run it to its end, ten seconds at most."""
        if standing.announcement is None:
            return
        said = standing.announcement
        try:
            subprocess.run(
                [*self._command, said.word.value, said.alarm.pump],
                input=canonical.encode(plain(standing)) + b"\n",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=HOOK_LIMIT_S,
                check=True,
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            raise OSError(f"hook: {error}") from error


class SyslogOutput:
    """One line to the local syslog socket, or by UDP to `host:port` on the site."""

    name = "syslog"

    def __init__(self, target: str) -> None:
        self._target = target

    def say(self, standing: Standing) -> None:
        """Send one datagram."""
        said = standing.announcement
        severity = _INFORMATION if said is None else _SEVERITY[said.word]
        data = f"<{_FACILITY | severity}>pumpdeck-agent[{os.getpid()}]: {sentence(standing)}".encode()
        if self._target.startswith("/"):
            family, address = getattr(socket, "AF_UNIX", None), self._target
            if family is None:
                raise OSError("this computer has no local syslog socket")
            self._send(family, address, data)
        else:
            host, _, port = self._target.rpartition(":")
            self._send(socket.AF_INET, (host, int(port)), data)

    def _send(self, family: int, address: str | tuple[str, int], data: bytes) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_LIMIT_S)
            sender.sendto(data, address)


class Announcer:
    """Hands everything to every output, each in its own thread."""

    def __init__(self, outputs: Sequence[Output], report: Callable[[str], None]) -> None:
        self._report = report
        self.failed: Counter[str] = Counter()
        self._queues: list[queue.Queue[Standing | None]] = []
        self._threads = []
        for output in outputs:
            waiting: queue.Queue[Standing | None] = queue.Queue(_QUEUE_MAX)
            self._queues.append(waiting)
            self._threads.append(threading.Thread(target=self._work, args=(output, waiting), name=output.name, daemon=True))
        for thread in self._threads:
            thread.start()

    def say(self, standing: Standing) -> None:
        """Pass it on and return at once; an output that is far behind misses heartbeats first."""
        for waiting in self._queues:
            if standing.announcement is None and not waiting.empty():
                continue
            try:
                waiting.put_nowait(standing)
            except queue.Full:
                self.failed["full"] += 1

    def close(self, limit_s: float = 2.0) -> None:
        """Let them say what they have, for so long."""
        for waiting in self._queues:
            try:
                waiting.put_nowait(None)
            except queue.Full:
                continue
        for thread in self._threads:
            thread.join(limit_s)

    def _work(self, output: Output, waiting: queue.Queue[Standing | None]) -> None:
        said = ""
        while (standing := waiting.get()) is not None:
            try:
                output.say(standing)
            except (OSError, ValueError) as error:
                self.failed[output.name] += 1
                if str(error) != said:
                    self._report(f"alarm output {output.name}: {error}")
                said = str(error)


def plain(standing: Standing) -> Mapping[str, Any]:
    """An announcement as plain values: word, device, time, and the alarm's fields."""
    if standing.announcement is None:
        return {"word": "heartbeat", "device": standing.device, "at_ms": standing.at_ms, "standing": len(standing.alarms)}
    said = standing.announcement
    fields = canonical.to_plain(said.alarm)
    return {**fields, "word": said.word.value, "device": standing.device, "at_ms": standing.at_ms}


def sentence(standing: Standing) -> str:
    """The same in words."""
    if standing.announcement is None:
        return f"heartbeat of {standing.device}: {len(standing.alarms)} alarms stand"
    said = standing.announcement
    alarm = said.alarm
    figures = "" if alarm.score is None or alarm.limit is None else f", score {alarm.score:.2f}, limit {alarm.limit:.2f}"
    channel = f", channel {alarm.channel}" if alarm.channel else ""
    by = f" by {alarm.by}" if alarm.by else ""
    return f"alarm {said.word.value}{by}: pump {alarm.pump} of {standing.device}{figures}{channel}"
