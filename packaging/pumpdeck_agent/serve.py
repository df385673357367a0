"""The scoring service of a device. It loads numpy and onnxruntime and nothing that signs or verifies: that is done by children.

One loop does everything that touches the disk; the endpoint's threads only score in memory and wake it.
"""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pumpdeck_agent.alarm_outputs import Announcer
from pumpdeck_agent.api import Api, ApiSettings
from pumpdeck_agent.config import AgentLimits, Layout, read_config
from pumpdeck_agent.endpoint import Endpoint
from pumpdeck_agent.mqtt_service import SiteMqtt
from pumpdeck_agent.own_command import MAIN, own_command
from pumpdeck_agent.platform_here import become
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.probation import AgentReceipts, confirm, successor_command
from pumpdeck_agent.retrain import RetrainDesk
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.serve_settings import ServeSettings, read_settings, read_token
from pumpdeck_agent.shadow_file import wants_a_word
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_agent.state import Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.status import why_wait
from pumpdeck_agent.watch import SiteWatch, make_outputs
from pumpdeck_fleet.core.errors import DamagedError, PumpdeckError

# A child for a package that waits is started at most this often.
_RESUME_EVERY_S = 30.0
_RESUME_TIMEOUT_S = 300.0
_FILES_A_PASS = 8
# Drift, age and volume change by the hour.
_LOOK_EVERY_S = 60.0
_SLOTS_EVERY_S = 2.0

Failure = PumpdeckError | OSError


def make_scorer(platform: Platform, layout: Layout, limits: AgentLimits | None = None) -> Scorer:
    """A scorer of the device with this root folder. Raises: NotFoundError: it is none."""
    return Scorer(platform, layout, read_config(platform.fs, layout), limits or AgentLimits(), ModelCache())


def serve_spool(root: Path, platform: Platform, *, every_s: float, is_once: bool) -> int:
    """Score what arrives until SIGTERM or SIGINT, or until the spool is empty when `is_once`."""
    layout = Layout(root)
    scorer = make_scorer(platform, layout)
    # What a cut left behind is put right before the first row is scored.
    if is_once:
        _resume(root)
        _attempt(lambda: _tidy_outbox(platform, layout, scorer))
        failure = _attempt(scorer.score_spool)
        _say(failure)
        return failure.exit_code if isinstance(failure, PumpdeckError) else int(failure is not None)
    settings = read_settings(platform.fs, layout)
    token = read_token(platform.fs, settings.endpoint) if settings.endpoint.is_on else ""
    service = Service(root, platform, scorer, settings)
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: service.stop())
    _resume(root)
    _attempt(lambda: _tidy_outbox(platform, layout, scorer))
    service.run(token, every_s)
    if service.successor:
        # The same process goes on as the agent that shall run now: nobody need be there to start it.
        become(service.successor)
    return 0


class Service:
    """The loop: load what is active, score the spool, save what came by HTTP, look after packages that wait."""

    def __init__(self, root: Path, platform: Platform, scorer: Scorer, settings: ServeSettings) -> None:
        self._root = root
        self._layout = Layout(root)
        self._platform = platform
        self._scorer = scorer
        self._settings = settings
        self._config = read_config(platform.fs, self._layout)
        self._desk = RetrainDesk(self._config, scorer)
        self._slots = SlotFiles(platform, root)
        self.successor: list[str] = []
        self._stopping = threading.Event()
        self._waking = threading.Event()
        world = platform, self._layout
        self._mqtt = SiteMqtt(settings.mqtt, self._config, world, self._waking.set, _talk)
        outputs = make_outputs(*world, settings.alarms) + self._mqtt.outputs()
        self._watch = SiteWatch(*world, self._config, settings.alarms, Announcer(outputs, _talk))
        scorer.announce_by(self._watch.announce)
        self._saved_at = self._resumed_at = self._looked_at = self._asked_at = time.monotonic()
        self._said = ""
        self._has_backlog = False
        self._is_confirmed = False

    def stop(self) -> None:
        """End `run` after the pass it is at. May be called from a signal handler."""
        self._stopping.set()
        self._waking.set()

    def run(self, token: str, every_s: float) -> None:
        """Serve until `stop`; what was scored is saved before it returns."""
        endpoint = None
        self._report(_attempt(self._mqtt.start))
        failure = _attempt(self._scorer.package)
        failure = _attempt(lambda: self._watch.begin(self._scorer.figures())) or failure
        # What is loaded now stays for months: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        while not self._stopping.is_set():
            if endpoint is None and self._settings.endpoint.is_on:
                endpoint = self._listen(token)
            failure = self._pass() or failure
            self._report(failure)
            self._look_after(failure)
            self._look_at_slots()
            failure = None
            if not self._has_backlog:
                self._waking.wait(every_s)
            self._waking.clear()
        if endpoint is not None:
            endpoint.close()
        self._watch.close()
        self._mqtt.close()
        self._report(_attempt(self._scorer.flush))

    def _pass(self) -> Failure | None:
        """One look at everything. One bad moment (a full disk, a busy lock, a damaged package) must not end scoring for good."""
        failure = _attempt(self._scorer.package) or _attempt(self._score_some)
        if failure is not None:
            # Nothing is taken from the spool now, and the data logger goes on writing.
            _attempt(self._scorer.shrink_spool)
        # What files raised was said before they were saved; these came by HTTP.
        changes = self._scorer.take_changes()
        # Said first, saved second: a disk that hangs must not keep an alarm from the site.
        failure = _attempt(lambda: self._watch.tick(changes)) or failure
        is_due = self._scorer.is_save_due or time.monotonic() - self._saved_at >= self._settings.save_every_s
        if changes or is_due:
            self._saved_at = time.monotonic()
            failure = _attempt(self._scorer.flush) or failure
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            world = self._platform, self._layout
            failure = _attempt(lambda: self._desk.look(world, self._settings.retrain)) or failure
        return failure

    def _score_some(self) -> None:
        # Not the whole spool at once: what these files raise is announced before the next are scored.
        self._has_backlog = False
        self._has_backlog = self._scorer.score_spool(_FILES_A_PASS).files == _FILES_A_PASS

    def _listen(self, token: str) -> Endpoint | None:
        """The endpoint; None while its port is taken: scoring goes on without it."""
        where = self._settings.endpoint
        world = self._platform, self._layout
        api = Api(self._scorer, self._desk, world, ApiSettings(token, self._waking.set, self._mqtt.figures))
        try:
            endpoint = Endpoint(where.host, where.port, api.answer, admit=api.admit)
        except PumpdeckError as error:
            self._report(error)
            return None
        endpoint.start()
        host, port = endpoint.address
        _talk(f"listening on http://{host}:{port}")
        return endpoint

    def _look_after(self, failure: Failure | None) -> None:
        if time.monotonic() - self._resumed_at < _RESUME_EVERY_S:
            return
        if isinstance(failure, DamagedError) or _can_resume(self._platform, self._layout):
            _resume(self._root)
            self._resumed_at = time.monotonic()

    def _look_at_slots(self) -> None:
        """After a pass that ended: an agent on probation has shown that it works; an agent that was replaced makes way."""
        if self._is_confirmed and time.monotonic() - self._asked_at < _SLOTS_EVERY_S:
            return
        self._asked_at = time.monotonic()
        if not self._is_confirmed:
            receipts = AgentReceipts(self._config.device, self._platform)
            self._is_confirmed = _attempt(lambda: confirm(self._slots, receipts)) is None
        self.successor = successor_command(self._slots)
        if self.successor:
            _talk("another agent shall run: making way for it")
            self.stop()

    def _report(self, failure: Failure | None) -> None:
        if failure is not None and str(failure) != self._said:
            _say(failure)
            self._said = str(failure)


def _attempt(work: Callable[[], object]) -> Failure | None:
    try:
        work()
    except (PumpdeckError, OSError) as error:
        return error
    return None


def _say(failure: Failure | None) -> None:
    if failure is not None:
        _talk(str(failure))


def _talk(text: str) -> None:
    sys.stderr.write(f"pumpdeck-agent: {text}\n")
    sys.stderr.flush()


def _tidy_outbox(platform: Platform, layout: Layout, scorer: Scorer) -> None:
    """Once, before anything is scored: with both locks held nobody is writing an item."""
    with platform.locks.hold(layout.install_lock, 1.0), platform.locks.hold(layout.score_lock, 1.0):
        scorer.tidy_outbox()


def _can_resume(platform: Platform, layout: Layout) -> bool:
    state = StateFiles(platform.fs, layout).load()
    if state is None or state.phase is Phase.TRIAL:
        return state is None
    is_held = bool(why_wait(platform.fs, layout, read_config(platform.fs, layout), platform.clock.now_ms()))
    if state.phase is Phase.SHADOW:
        return is_held or wants_a_word(platform.fs, layout, state)
    return state.phase is Phase.STAGED and not is_held


def _resume(root: Path) -> None:
    command = [*own_command(MAIN), "resume", "--root", str(root)]
    try:
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=_RESUME_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        _talk(f"resume: {error}")
