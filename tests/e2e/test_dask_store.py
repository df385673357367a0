"""A workspace trained on a Dask cluster that loses a worker holds the same as one trained on this machine's own workers."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path

import psutil
import pytest

from pumpdeck_console.operations.training import train_models
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_sample.history import simulate_history
from pumpdeck_sample.physics import SimulatedRows
from pumpdeck_sample.scenario import demo_scenario
from support.small_fleet import NOW_MS, SEED, small_fleet, small_workspace

pytest.importorskip("distributed", reason="the extra dask is not installed")


class KillOne:
    """Progress that kills one worker process of the cluster when the first pumps are done."""

    def __init__(self) -> None:
        self.killed = 0

    def __call__(self, step: str, done: int, total: int) -> None:
        if self.killed or "fit" not in step:
            return
        for child in psutil.Process().children(recursive=True):
            if any("spawn_main" in word for word in child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                self.killed = child.pid
                return


def stored(folder: Path, rows: list[SimulatedRows], scheduler: str) -> tuple[dict[str, list[tuple[object, ...]]], int]:
    """Every row of every table after a training, and which process was killed meanwhile."""
    killer = KillOne()
    with small_workspace(folder, FixedClock(NOW_MS)) as workspace:
        with workspace.store.atomic() as store:
            for of_type in rows:
                for index, pump in enumerate(of_type.pump_ids):
                    values = of_type.values[:, index, :].T.copy()
                    flags = of_type.at_ms.astype("uint16") * 0
                    store.telemetry.append(pump, TelemetryFrame(of_type.channels, of_type.at_ms, values, flags))
        progress = killer if scheduler else (lambda *_: None)
        report = train_models(workspace, use_cache=False, scheduler=scheduler, on_progress=progress)
        assert all(row.version for row in report.models)
        # A log tells times and processes; everything else is the same to the byte.
        logs = {entry.digests.get("log") for entry in workspace.store.audit.entries()}
        artifacts = sorted(
            (path.name,) for path in workspace.artifacts_path.rglob("*") if path.is_file() and path.name not in logs
        )
    with sqlite3.connect(folder / "pumpdeck.db") as sql:
        names = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        tables: dict[str, list[tuple[object, ...]]] = {
            name: sorted(sql.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names
        }
    return {**tables, "artifacts": artifacts}, killer.killed


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a POSIX signal")
def test_the_store_is_the_same_with_a_worker_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = small_fleet()
    rows = simulate_history(fleet, demo_scenario(fleet, NOW_MS, SEED), NOW_MS, SEED, days=8)
    here, _ = stored(tmp_path / "here", rows, "")
    there, killed = stored(tmp_path / "there", rows, "local")
    assert killed
    own = set(here) - {name for name in here if here[name] == there[name]}
    # What a workspace and its people are called, and the audit chain over that, differ between any two workspaces.
    assert own <= {"fact", "audit", "audit_head", "person", "version_name", "alias_move"}
    assert here["model_version"] and here["artifacts"]
