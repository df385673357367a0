"""The scoring loop of a device. It loads numpy and onnxruntime and nothing that signs or verifies: that is done by children."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from pumpdeck_agent.config import AgentLimits, Layout, read_config
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.state import Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.status import why_wait
from pumpdeck_fleet.core.errors import DamagedError, PumpdeckError

# A child for a package that waits is started at most this often.
_RESUME_EVERY_S = 30.0
_RESUME_TIMEOUT_S = 300.0


def make_scorer(platform: Platform, layout: Layout, limits: AgentLimits | None = None) -> Scorer:
    """A scorer of the device with this root folder. Raises: NotFoundError: it is none."""
    return Scorer(platform, layout, read_config(platform.fs, layout), limits or AgentLimits(), ModelCache())


def serve_spool(root: Path, platform: Platform, *, every_s: float, is_once: bool) -> int:
    """Score what arrives until SIGTERM or SIGINT, or until the spool is empty when `is_once`."""
    layout = Layout(root)
    scorer = make_scorer(platform, layout)
    stopping = threading.Event()
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: stopping.set())
    # What a cut left behind is put right before the first row is scored.
    _resume(root)
    waited_s, said = 0.0, ""
    while not stopping.is_set():
        failure = _score(scorer)
        if failure is not None and str(failure) != said:
            sys.stderr.write(f"pumpdeck-agent: {failure}\n")
            sys.stderr.flush()
        said = str(failure) if failure is not None else ""
        if is_once:
            return failure.exit_code if isinstance(failure, PumpdeckError) else int(failure is not None)
        is_due = isinstance(failure, DamagedError) or _can_resume(platform, layout)
        if waited_s >= _RESUME_EVERY_S and is_due:
            _resume(root)
            waited_s = 0.0
        stopping.wait(every_s)
        waited_s += every_s
    return 0


def _score(scorer: Scorer) -> PumpdeckError | OSError | None:
    """One pass over the spool. One bad moment (a full disk, a busy lock, a damaged package) must not end scoring for good."""
    try:
        scorer.score_spool()
    except (PumpdeckError, OSError) as error:
        return error
    return None


def _can_resume(platform: Platform, layout: Layout) -> bool:
    state = StateFiles(platform.fs, layout).load()
    if state is None or state.phase is Phase.TRIAL:
        return state is None
    config = read_config(platform.fs, layout)
    return state.phase is Phase.STAGED and not why_wait(platform.fs, layout, config, platform.clock.now_ms())


def _resume(root: Path) -> None:
    command = [sys.executable, "-m", "pumpdeck_agent.main", "resume", "--root", str(root)]
    try:
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=_RESUME_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"pumpdeck-agent: resume: {error}\n")
