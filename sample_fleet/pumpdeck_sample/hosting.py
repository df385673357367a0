"""The devices that one simulator process is: their folders, their agents, what lies in their spools to be scored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from pumpdeck_fleet.core.errors import EXIT_NOT_FOUND, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.ports import FileSystem

from .live import LiveFeed
from .plan import SimulationPlan, host_key_path, inbox_path
from .ssh_keys import load_host_key, public_line
from .ssh_server import SshDevice, SshServer

SCORING_THREADS = 4


class HostedAgent(Protocol):
    """The agent of one device, whatever it runs in."""

    def rpc(self, read: BinaryIO, write: BinaryIO) -> int:
        """Carry one conversation; returns the exit status."""
        ...

    def score(self) -> int:
        """Score what lies in the spool; returns the number of rows. 0 where the agent's own process does it."""
        ...

    def close(self) -> None: ...


class LostAgent:
    """The agent of a device whose folder is gone or damaged: it ends every conversation, as there is nobody to answer."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def rpc(self, read: BinaryIO, write: BinaryIO) -> int:  # noqa: ARG002 - a HostedAgent's
        return EXIT_NOT_FOUND

    def score(self) -> int:
        raise NotFoundError(self._reason)

    def close(self) -> None:
        """Nothing was opened."""


class SimulatedDevices:
    """Devices of one process behind one SSH server; what a conversation or new rows leave to score is scored in turn."""

    def __init__(self, plan: SimulationPlan, root: Path, agents: Mapping[str, HostedAgent], fs: FileSystem) -> None:
        self._fs = fs
        self._agents = dict(agents)
        self._inboxes = {device: inbox_path(root, device) for device in self.present}
        self._server = SshServer()
        self._dirty: set[str] = set(agents)
        self._changed = threading.Condition()
        # Scoring waits for the disk half of its time, so a few devices are scored side by side.
        self._scoring = ThreadPoolExecutor(SCORING_THREADS, thread_name_prefix="score")
        self.scored_rows = 0
        self.refusals: dict[str, str] = {}
        self.endpoints: dict[str, tuple[int, str]] = {}
        for device in self._agents:
            self.endpoints[device] = self._listen(device, plan, root, fs)

    @property
    def present(self) -> list[str]:
        """The devices that are more than an address."""
        return [device for device, agent in self._agents.items() if not isinstance(agent, LostAgent)]

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def mark(self, devices: Iterable[str]) -> None:
        """These devices have something to score."""
        with self._changed:
            self._dirty.update(devices)
            self._changed.notify_all()

    def mark_waiting(self) -> None:
        """Mark the devices in whose spool something lies that nobody announced."""
        self.mark(device for device, inbox in self._inboxes.items() if self._fs.listdir(inbox))

    def score_marked(self, timeout_s: float) -> int:
        """Score the marked devices, waiting for the first mark at most `timeout_s`; returns rows scored."""
        with self._changed:
            if not self._dirty:
                self._changed.wait(timeout_s)
            marked, self._dirty = sorted(self._dirty), set()
        rows = sum(self._scoring.map(self._score, marked))
        self.scored_rows += rows
        return rows

    def close(self) -> None:
        """End all conversations and agents."""
        self._server.close()
        self._scoring.shutdown(cancel_futures=True)
        for agent in self._agents.values():
            agent.close()

    def _score(self, device: str) -> int:
        try:
            rows = self._agents[device].score()
        except (PumpdeckError, OSError) as error:
            # One device that cannot score (a damaged package, a full disk) must not stop the others of this process.
            self.refusals[device] = str(error)
            return 0
        self.refusals.pop(device, None)
        return rows

    def _listen(self, device: str, plan: SimulationPlan, root: Path, fs: FileSystem) -> tuple[int, str]:
        host_key = load_host_key(fs, host_key_path(root, device))
        served = SshDevice(device, host_key, plan.authorised_key, self._conversation(device))
        wanted = plan.ports.get(device, 0)
        try:
            port = self._server.listen(served, wanted)
        except OSError:
            # The port of an earlier run may belong to somebody else by now; the caller reads the new one from the ready line.
            port = self._server.listen(served, 0)
        return port, public_line(host_key)

    def _conversation(self, device: str) -> Callable[[BinaryIO, BinaryIO], int]:
        def serve(read: BinaryIO, write: BinaryIO) -> int:
            try:
                return self._agents[device].rpc(read, write)
            finally:
                self.mark([device])

        return serve


def live_feed(plan: SimulationPlan, root: Path, devices: Sequence[str], since_ms: int, fs: FileSystem) -> LiveFeed:
    """The feed of new rows into the spools of these devices."""
    inboxes = {device: inbox_path(root, device) for device in devices}
    return LiveFeed(plan, inboxes, since_ms, fs)
