"""The trial of a staged package: in a process of its own, with limits, so that a bad model takes only that process with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pumpdeck_agent.own_command import own_command
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.receipts import SelfTest

REPORT_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """Which staged copy to try: its folder, and the digest of the manifest that covers its files. `wall_s` bounds the whole."""

    folder: str
    manifest_digest: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class TrialReport:
    """How a trial ended. `reason` is empty when it passed; figures are there when the trial came far enough to have them."""

    passed: bool
    reason: str
    self_test: SelfTest | None = None


class TrialRunner(Protocol):
    """Runs trials. Never raises for what a model does: that is a report that did not pass."""

    def run(self, request: TrialRequest) -> TrialReport: ...


def failed(reason: str) -> TrialReport:
    """A trial that did not pass, without figures."""
    return TrialReport(False, reason[:500])


def parse_report(data: bytes) -> TrialReport:
    """What the trial process wrote; anything else than a report is a trial that did not pass."""
    try:
        return canonical.decode(TrialReport, data.strip(), "trial report", max_bytes=REPORT_MAX_BYTES)
    except PumpdeckError as error:
        return failed(f"the trial process gave no report ({error.what})")


def ended_by(status: int) -> str:
    """Words for how a child ended: a negative status is a signal, as subprocess gives it."""
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


class FreshChildRunner:
    """A new Python process for each trial: what devices use."""

    name = "fresh child"

    def __init__(self, python: Path | None = None) -> None:
        self._python = str(python or sys.executable)

    def run(self, request: TrialRequest) -> TrialReport:
        command = own_command("pumpdeck_agent.trial_child", self._python)
        try:
            done = subprocess.run(
                command,
                input=canonical.encode(request),
                capture_output=True,
                timeout=request.wall_s,
                env=child_environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return failed(f"the trial did not end within {request.wall_s:g} s")
        except OSError as error:
            return failed(f"the trial process could not be started ({error})")
        if done.returncode != 0:
            tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            return failed(" ".join([f"the trial process {ended_by(done.returncode)}", *tail]))
        return parse_report(done.stdout[-REPORT_MAX_BYTES:])


class WarmPoolRunner:
    """One process that has everything imported and forks for each trial: for simulators with many devices in one process.

    Each trial still loads the package's bytes, runs its golden inputs and stays within the limits, in a child of its own.
    """

    name = "warm pool"

    def __init__(self, python: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            own_command("pumpdeck_agent.trial_pool", str(python or sys.executable)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )

    def run(self, request: TrialRequest) -> TrialReport:
        with self._lock:
            source, sink = self._process.stdout, self._process.stdin
            if source is None or sink is None:
                return failed("the trial pool has no pipes")
            try:
                sink.write(canonical.encode(request) + b"\n")
                sink.flush()
                line = source.readline(REPORT_MAX_BYTES)
            except (OSError, ValueError) as error:
                return failed(f"the trial pool is gone ({error})")
        return parse_report(line) if line else failed("the trial pool is gone")

    def close(self) -> None:
        """End the pool."""
        with self._lock:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(timeout=10)
            if self._process.stdout is not None:
                self._process.stdout.close()


def child_environment() -> dict[str, str]:
    """The environment of a trial process: one thread, no telemetry."""
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
