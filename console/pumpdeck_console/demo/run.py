"""Run the demo: make it or take up one that was made, start its devices, and walk through the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pumpdeck_console.demo import delivering, judging, learning
from pumpdeck_console.demo.home import DemoHome, DemoMark, DemoSize, last_hour_ms
from pumpdeck_console.demo.making import make_demo, remember_ports, start_devices, write_endpoints
from pumpdeck_console.demo.steps import Stage, Step, run_steps
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.ports import FileSystem, Progress

STEPS: Mapping[str, Step] = {
    "ingest": learning.ingest,
    "train": learning.train,
    "package": learning.package,
    "rollout": delivering.rollout,
    "receipts": delivering.receipts,
    "scores": judging.scores,
    "drift": judging.drift,
    "audit": judging.audit,
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How large, and when the history ends; 0 is the last full hour. Both count for a new demo only."""

    size: DemoSize
    end_ms: int = 0


def made_demo(home: DemoHome, options: DemoOptions, fs: FileSystem, clock: Clock, on_progress: Progress) -> DemoMark:
    """The demo of that home: the one that is there, or a new one."""
    mark = home.read_mark(fs)
    if mark is not None and home.is_whole(mark, fs):
        return mark
    return make_demo(home, options.size, options.end_ms or last_hour_ms(clock.now_ms()), fs, on_progress)


def run_loop(
    home: DemoHome,
    options: DemoOptions,
    fs: FileSystem,
    clock: Clock,
    on_progress: Progress,
    *,
    on_started: Callable[[str], None],
) -> dict[str, Any]:
    """The whole loop once; the summary with the evidence of every step. `on_started` hears which process is which device."""
    began_s = time.monotonic()
    mark = made_demo(home, options, fs, clock, on_progress)
    with start_devices(home, mark, is_live=False) as devices, open_workspace(home.workspace, fs=fs) as workspace:
        endpoints = devices.wait_ready()
        settle_endpoints(home, workspace, endpoints)
        for device, pid in sorted(devices.agent_pids.items()):
            on_started(f"Device {device} runs as process {pid}")
        on_started(f"{len(endpoints) - len(devices.agent_pids)} devices run in process {devices.pid}")
        stage = Stage(workspace, home, mark, on_progress)
        steps = run_steps(stage, STEPS)
    is_ok = all(step["ok"] for step in steps.values())
    if is_ok and not mark.is_ready:
        home.write_mark(fs, replace(mark, is_ready=True))
    return {
        "workspace": str(home.workspace),
        "devices": str(home.simulation / "devices"),
        "keys": f"throwaway keys in 0600 files under {home.keys}",
        "seed": mark.size.seed,
        "seconds": round(time.monotonic() - began_s, 2),
        "ok": is_ok,
        "steps": steps,
    }


def settle_endpoints(home: DemoHome, workspace: Workspace, endpoints: Mapping[str, Any]) -> None:
    """Let inventory and plan say where the devices listen now."""
    write_endpoints(workspace, endpoints)
    remember_ports(home, endpoints, workspace.fs)
