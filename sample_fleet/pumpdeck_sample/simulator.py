"""`python -m pumpdeck_sample.simulator`: one process that is many devices, reached over real SSH on loopback.

When all devices listen it prints one line of JSON: `{"ready": true, "pid", "devices": {id: {"port", "host_key"}}, "agent_pids"}`.
It ends when its standard input ends, so it never outlives the program that started it.
"""

from __future__ import annotations

import os

# ONNX Runtime's Linux wheels call home unless told otherwise before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.hosted import HostedDevice
from pumpdeck_agent.platform_here import FileLocks, is_clock_synced
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.trial import FreshChildRunner, TrialRunner, WarmPoolRunner
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import Clock, SystemClock
from pumpdeck_fleet.core.errors import PumpdeckError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem

from .agent_process import AgentProcess
from .heartbeat import Heartbeat, HeartbeatFile
from .hosting import HostedAgent, LostAgent, SimulatedDevices, live_feed
from .live import LiveFeed, Pace
from .plan import SimulationPlan, device_root, read_plan

TURN_S = 0.5
HEARTBEAT_S = 2.0


@dataclass(frozen=True)
class Roster:
    """Which devices this process is, and which of them have agents that are processes of their own."""

    devices: tuple[str, ...]
    processes: tuple[str, ...]

    @classmethod
    def of(cls, plan: SimulationPlan, devices: str, processes: str) -> Roster:
        """The roster from the command line's comma-separated lists; no devices means all.

        Raises:
            UsageError: a name is not a device of the plan.
        """
        known = [device.id for device in plan.fleet().devices]
        chosen = tuple(filter(None, devices.split(","))) or tuple(known)
        own = tuple(filter(None, processes.split(",")))
        for name in (*chosen, *own):
            if name not in known:
                raise UsageError("is no device of this simulation", name, expected=f"one of {', '.join(known[:5])}, ..")
        return cls(chosen, tuple(name for name in own if name in chosen))


class Simulator:
    """The devices of one process with all that they need: agents, trial pool, SSH server, new rows, heartbeat."""

    def __init__(self, root: Path, plan: SimulationPlan, roster: Roster, fs: FileSystem, clock: Clock) -> None:
        self._roster = roster
        self._pool: TrialRunner = FreshChildRunner() if sys.platform == "win32" else WarmPoolRunner()
        platform = Platform(fs, clock, FileLocks(), is_clock_synced)
        models = ModelCache()
        agents: dict[str, HostedAgent] = {}
        self._processes: dict[str, AgentProcess] = {}
        for device in roster.devices:
            folder = device_root(root, device)
            try:
                if device in roster.processes:
                    self._processes[device] = agents[device] = AgentProcess(folder, os.environ)
                else:
                    agents[device] = HostedDevice(folder, platform=platform, runner=self._pool, models=models)
            except (PumpdeckError, OSError) as error:
                # One device that is broken must not take the others of this process with it.
                agents[device] = LostAgent(str(error))
        self.devices = SimulatedDevices(plan, root, agents, fs)

    def start(self) -> dict[str, int]:
        """Start to answer and to score; returns the process ids of the agents that are processes."""
        self.devices.start()
        return {device: agent.start_scoring() for device, agent in self._processes.items()}

    def ready_line(self, agent_pids: dict[str, int]) -> bytes:
        """What is said when all devices listen."""
        devices = {name: {"port": port, "host_key": key} for name, (port, key) in self.devices.endpoints.items()}
        ready = {"ready": True, "pid": os.getpid(), "devices": devices, "agent_pids": agent_pids}
        return canonical.encode(ready) + b"\n"

    def close(self) -> None:
        """End everything that was started."""
        self.devices.close()
        if isinstance(self._pool, WarmPoolRunner):
            self._pool.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulator until its standard input ends; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options, RealFileSystem(), SystemClock())
    except PumpdeckError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _run(options: argparse.Namespace, fs: FileSystem, clock: Clock) -> int:
    plan = read_plan(fs, options.root)
    roster = Roster.of(plan, options.devices, options.processes)
    heartbeat = HeartbeatFile(fs, options.root, options.name)
    since_ms = _since(options.since_ms, heartbeat.read(), plan)
    simulator = Simulator(options.root, plan, roster, fs, clock)
    present = simulator.devices.present
    feed = live_feed(plan, options.root, present, since_ms, fs) if options.speed > 0 else None
    stopping = threading.Event()
    try:
        agent_pids = simulator.start()
        sys.stdout.buffer.write(simulator.ready_line(agent_pids))
        sys.stdout.buffer.flush()
        threading.Thread(target=_wait_for_end_of_input, args=(stopping,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            _loop(simulator.devices, (feed, options.speed), heartbeat, clock, stopping)
    finally:
        simulator.close()
    return 0


def _loop(
    devices: SimulatedDevices,
    live: tuple[LiveFeed | None, float],
    heartbeat: HeartbeatFile,
    clock: Clock,
    stopping: threading.Event,
) -> None:
    feed, speed = live
    # In real time rows bear the time of day; faster, simulated time starts at the last row and runs ahead.
    pace = Pace(clock.now_ms() if speed == 1.0 or feed is None else feed.fed_ms, speed)
    started_s = time.monotonic()
    beat_s = -HEARTBEAT_S
    while not stopping.is_set():
        if feed is not None:
            devices.mark(feed.feed(pace.simulated_ms(time.monotonic() - started_s)))
        devices.score_marked(TURN_S)
        if time.monotonic() - beat_s >= HEARTBEAT_S:
            beat_s = time.monotonic()
            devices.mark_waiting()
            fed_ms = feed.fed_ms if feed is not None else 0
            heartbeat.write(Heartbeat(os.getpid(), clock.now_ms(), fed_ms, devices.scored_rows, dict(devices.refusals)))


def _since(asked_ms: int | None, last: Heartbeat | None, plan: SimulationPlan) -> int:
    """Where new rows begin: after what was asked, after an earlier run's last row, after the history."""
    fed_ms = last.fed_ms if last is not None else 0
    return max(plan.end_ms, fed_ms, asked_ms or 0)


def _wait_for_end_of_input(stopping: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    stopping.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pumpdeck_sample.simulator", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the simulation's folder (holds simulation.json)")
    parser.add_argument("--devices", default="", help="comma-separated devices to be; default all")
    parser.add_argument("--processes", default="", help="those of them whose agent runs as processes of its own")
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds a second; 0 for no new rows")
    parser.add_argument("--since-ms", type=int, default=None, help="new rows begin after this time")
    parser.add_argument("--name", default="simulator", help="name of the heartbeat file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
