"""Start the simulator as a child process and wait until its devices answer. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core.errors import UnreachableError

from .fleet import Endpoint

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 20.0
LOG_NAME = "simulator.log"


@dataclass(frozen=True)
class SimulatorOptions:
    """Which devices, how. `devices` empty means all of the plan; `processes` are those whose agent runs as processes of its own.

    `speed` is simulated seconds per second, 0 for no new rows. New rows begin after `since_ms`.
    """

    devices: Sequence[str] = ()
    processes: Sequence[str] = ()
    speed: float = 1.0
    since_ms: int | None = None
    name: str = "simulator"


class SimulatorProcess:
    """A running simulator. It ends when it is closed, and by itself when this process dies (its standard input ends)."""

    def __init__(self, root: Path, options: SimulatorOptions, environment: Mapping[str, str]) -> None:
        self._log_path = root / LOG_NAME
        self._log = self._log_path.open("ab")
        self._process = subprocess.Popen(
            simulator_command(root, options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
        )
        self.endpoints: dict[str, Endpoint] = {}
        self.agent_pids: dict[str, int] = {}

    @property
    def pid(self) -> int:
        """Process id of the simulator."""
        return self._process.pid

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Endpoint]:
        """Wait until all devices listen; returns their endpoints (without device keys).

        Raises:
            UnreachableError: it ended or said nothing in time; its log says why.
        """
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(self._read_line()), daemon=True)
        reader.start()
        reader.join(timeout_s)
        if not said or not said[0]:
            raise UnreachableError(
                "the simulator did not start",
                f"process {self.pid}",
                found=self._last_words(),
                hint=f"see {self._log_path}",
            )
        ready = json.loads(said[0])
        self.agent_pids = {device: int(pid) for device, pid in ready["agent_pids"].items()}
        self.endpoints = {
            device: Endpoint(int(one["port"]), str(one["host_key"])) for device, one in ready["devices"].items()
        }
        return self.endpoints

    def is_running(self) -> bool:
        """True until it ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the simulator and wait for it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_line(self) -> bytes:
        return self._process.stdout.readline() if self._process.stdout is not None else b""

    def _last_words(self) -> str:
        lines = self._log_path.read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "nothing in its log"


def simulator_command(root: Path, options: SimulatorOptions) -> list[str]:
    """The command line of the simulator."""
    command = [sys.executable, "-m", "pumpdeck_sample.simulator", "--root", str(root), "--name", options.name]
    command += ["--speed", repr(options.speed)]
    if options.devices:
        command += ["--devices", ",".join(options.devices)]
    if options.processes:
        command += ["--processes", ",".join(options.processes)]
    if options.since_ms is not None:
        command += ["--since-ms", str(options.since_ms)]
    return command
