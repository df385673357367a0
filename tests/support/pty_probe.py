"""A program in a real pty, for POSIX: what it paints, when, and how many bytes that took.

Bytes are read with the time they came and parsed by pyte only afterwards, so the emulator's own cost never enters a
latency. The probe answers what a terminal answers (device attributes, cursor position, synchronised output). A link can
be imitated: ``bps`` and ``rtt_s`` delay what the program wrote, as deep SSH buffers do, and the answers after it.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

KEYS = {"up": "\x1b[A", "down": "\x1b[B", "pagedown": "\x1b[6~", "pageup": "\x1b[5~", "enter": "\r", "escape": "\x1b"}
_QUERY = re.compile(rb"\x1b\[(?P<da>0?)c|\x1b\[(?P<dsr>6)n|\x1b\[\?(?P<mode>\d+)\$p")
# Sequences pyte would print instead of skipping: private CSI, CSI with intermediates, DCS.
_SKIPPED = re.compile(r"\x1b\[[<=>][0-9;:]*[@-~]|\x1b\[\??[0-9;]*[ -/]+[@-~]|\x1b\[\?[0-9;]*u|\x1bP.*?\x1b\\", re.DOTALL)
_CUT = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|P[^\x1b]*)?$")


@dataclass
class Painted:
    """What one key did: seconds until the first and the last byte, and how many bytes came."""

    first_s: float
    last_s: float
    size: int


class PtyProbe:
    """Runs ``command`` on the slave side of a pty of the given size."""

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (120, 40),
        environ: Mapping[str, str] | None = None,
        link: tuple[float, float] | None = None,
        answers: bool = True,
    ) -> None:
        self.columns, self.rows = size
        self.answers = answers
        self._bps, self._rtt_s = link if link is not None else (0.0, 0.0)
        self._free_at = 0.0
        self._flight: deque[tuple[float, bytes]] = deque()
        self._unparsed: deque[bytes] = deque()
        self._tail = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.screen = pyte.Screen(self.columns, self.rows)
        self._stream = pyte.Stream(self.screen)
        self.size = 0
        self.raw = b""
        self.is_over = False
        # A test runner may say its own size; the size here is that of the pty.
        here = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        given = {**here, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(environ or {})}
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        self.started = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(slave, command, given)
        os.close(slave)
        os.set_blocking(master, False)
        self._fd = master

    @staticmethod
    def _become(slave: int, command: Sequence[str], environ: Mapping[str, str]) -> None:
        with contextlib.suppress(BaseException):
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.closerange(3, 256)
            os.execvpe(command[0], list(command), dict(environ))
        os._exit(127)

    def __enter__(self) -> PtyProbe:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # Reading and writing

    def pump(self, timeout_s: float) -> bool:
        """Take what comes within ``timeout_s``; true when bytes arrived at this end."""
        end = time.perf_counter() + timeout_s
        while True:
            arrived = self._land()
            left = end - time.perf_counter()
            if arrived or left <= 0 or (self.is_over and not self._flight):
                return arrived
            if self._flight:
                left = min(left, max(0.0, self._flight[0][0] - time.perf_counter()))
            self._read(left)

    def _read(self, timeout_s: float) -> None:
        if self.is_over:
            time.sleep(min(timeout_s, 0.005))
            return
        if not select.select([self._fd], [], [], max(0.0, timeout_s))[0]:
            return
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return
        now = time.perf_counter()
        if not self._bps:
            self._flight.append((now, data))
            return
        for i in range(0, len(data), 256):
            piece = data[i : i + 256]
            self._free_at = max(self._free_at, now) + len(piece) / self._bps
            self._flight.append((self._free_at + self._rtt_s, piece))

    def _land(self) -> bool:
        arrived = False
        while self._flight and self._flight[0][0] <= time.perf_counter():
            _, data = self._flight.popleft()
            self.size += len(data)
            self.raw += data
            self._unparsed.append(data)
            self._answer(data)
            arrived = True
        return arrived

    def _answer(self, data: bytes) -> None:
        if not self.answers:
            return
        for match in _QUERY.finditer(data):
            if match["da"] is not None:
                self._write(b"\x1b[?62;22c")
            elif match["dsr"] is not None:
                self._write(b"\x1b[1;1R")
            elif match["mode"] == b"2026":
                self._write(b"\x1b[?2026;2$y")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    select.select([], [self._fd], [], 1.0)

    # Looking

    def _parse(self) -> None:
        while self._unparsed:
            text = self._tail + self._decoder.decode(self._unparsed.popleft())
            cut = _CUT.search(text)
            self._tail = cut.group() if cut else ""
            self._stream.feed(_SKIPPED.sub("", text[: len(text) - len(self._tail)]))

    @property
    def text(self) -> str:
        """What stands on the screen."""
        self._parse()
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, condition: Callable[[str], bool], timeout_s: float = 30.0) -> float:
        """Seconds from the start of the program until the screen fulfils the condition."""
        end = time.perf_counter() + timeout_s
        while time.perf_counter() < end:
            if self.pump(0.05):
                came = time.perf_counter()
                if condition(self.text):
                    return came - self.started
            elif self.is_over and not self._flight:
                break
        raise AssertionError(f"the awaited screen did not come; it shows:\n{self.text}")

    def settle(self, quiet_s: float = 0.15, limit_s: float = 30.0) -> float:
        """Read until nothing came for ``quiet_s``; seconds from the call until the last byte."""
        begin = last = time.perf_counter()
        while time.perf_counter() - begin < limit_s and (not self.is_over or self._flight):
            if self.pump(0.01):
                last = time.perf_counter()
            elif time.perf_counter() - last >= quiet_s and not self._flight:
                break
        return last - begin

    # Acting

    def send(self, text: str) -> None:
        self._write(text.encode())

    def key(self, name: str, quiet_s: float = 0.04) -> Painted:
        """Press a key and measure what it paints until it is quiet."""
        begin, before = time.perf_counter(), self.size
        first = last = None
        self._write(KEYS.get(name, name).encode())
        while time.perf_counter() - begin < 5.0:
            if self.pump(0.002):
                last = time.perf_counter()
                first = last if first is None else first
            elif last is not None and time.perf_counter() - last >= quiet_s:
                break
        assert first is not None, f"{name} painted nothing"
        assert last is not None
        return Painted(first - begin, last - begin, self.size - before)

    def memory_bytes(self, with_children: bool = True) -> int:
        """Resident memory of the program, by default with its children (Linux); 0 where it cannot be read."""
        total, todo = 0, [self.pid]
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
                todo += [int(word) for word in children.split()] if with_children else []
        return total

    def close(self) -> None:
        """End the program this probe started, by its own process id."""
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, sign)
            end = time.perf_counter() + 1.0
            while time.perf_counter() < end:
                self.pump(0.01)
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                        continue
                with contextlib.suppress(OSError):
                    os.close(self._fd)
                return
