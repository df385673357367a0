"""A simulated device whose agent runs as real processes: `serve` all the time, `rpc` for each conversation."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, BinaryIO

from pumpdeck_fleet.core.errors import EXIT_UNREACHABLE

COPY_BYTES = 64 * 1024
END_TIMEOUT_S = 10.0
RPC_COMMAND = (sys.executable, "-m", "pumpdeck_agent.main")
SERVE_COMMAND = (sys.executable, "-m", "pumpdeck_sample.tethered")


class AgentProcess:
    """The agent of one device root, run as an operator would run it; `environment` is all of theirs.

    `command` is another agent to run, for tests of what happens around it.
    """

    def __init__(self, root: Path, environment: Mapping[str, str], command: Sequence[str] = ()) -> None:
        self._root = root
        self._serve_command, self._rpc_command = command or SERVE_COMMAND, command or RPC_COMMAND
        self._environment = dict(environment)
        self._log = (root / "agent.log").open("ab")
        self._serve: subprocess.Popen[bytes] | None = None

    def start_scoring(self) -> int:
        """Start `pumpdeck-agent serve`; returns its process id."""
        self._serve = subprocess.Popen(
            [*self._serve_command, "serve", "--root", str(self._root)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
        )
        return self._serve.pid

    def rpc(self, read: BinaryIO, write: BinaryIO) -> int:
        """Carry one conversation through a new `pumpdeck-agent rpc`; returns its exit status."""
        if self._serve is not None and self._serve.poll() is not None:
            # Somebody killed it: such a device is dead to the console, whatever the server around it could still start.
            return EXIT_UNREACHABLE
        process = subprocess.Popen(
            [*self._rpc_command, "rpc", "--root", str(self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = threading.Thread(target=_feed, args=(read, process.stdin), name=f"feed-{self._root.name}", daemon=True)
        feeder.start()
        try:
            while data := process.stdout.read(COPY_BYTES):
                write.write(data)
                write.flush()
            return process.wait(END_TIMEOUT_S)
        finally:
            # When the client went away in mid-answer nobody reads any more: the process must not wait for ever.
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()

    def score(self) -> int:
        """Nothing to do here: `serve` watches the spool by itself."""
        return 0

    def close(self) -> None:
        """End `serve`; conversations end with their connections."""
        if self._serve is not None:
            with contextlib.suppress(OSError):
                if self._serve.stdin is not None:
                    self._serve.stdin.close()
            self._serve.terminate()
            try:
                self._serve.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._serve.kill()
                self._serve.wait()
        self._log.close()


def _feed(read: BinaryIO, stdin: IO[bytes]) -> None:
    assert isinstance(read, BufferedReader)
    # An error on either side means that the conversation is over; closing our end tells the process so.
    with contextlib.suppress(OSError):
        while data := read.read1(COPY_BYTES):
            stdin.write(data)
    with contextlib.suppress(OSError):
        stdin.close()
