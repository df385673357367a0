"""The same rows, spec and lock in two fresh workspaces give the same package digests, whatever the keys and the clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations.packages import build_packages
from pumpdeck_console.operations.training import train_models
from pumpdeck_console.operations.trust import TrustRequest, init_trust
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_sample.history import simulate_history
from pumpdeck_sample.physics import SimulatedRows
from pumpdeck_sample.scenario import demo_scenario
from support.small_fleet import NOW_MS, SEED, small_fleet, small_workspace


def packages_of(folder: Path, rows: list[SimulatedRows], clock: FixedClock) -> dict[str, str]:
    """Package digest by device, made in a fresh workspace with fresh keys and no cache."""
    with small_workspace(folder / "workspace", clock) as workspace:
        keys = folder / "keys"
        init_trust(workspace, TrustRequest(keys / "root", Source.PLAIN_FILE, str(keys / "mine"), insecure_storage=True))
        with workspace.store.atomic() as store:
            for of_type in rows:
                flags = np.zeros(len(of_type.at_ms), dtype=np.uint16)
                for index, pump in enumerate(of_type.pump_ids):
                    values = np.ascontiguousarray(of_type.values[:, index, :].T)
                    store.telemetry.append(pump, TelemetryFrame(of_type.channels, of_type.at_ms, values, flags))
        assert all(row.version for row in train_models(workspace, use_cache=False).models)
        report = build_packages(workspace)
        assert not report.left_out
        return {row.device: row.sha256 for row in report.packages}


def test_two_fresh_workspaces_build_the_same_packages(tmp_path):
    fleet = small_fleet()
    rows = simulate_history(fleet, demo_scenario(fleet, NOW_MS, SEED), NOW_MS, SEED, days=8)
    first = packages_of(tmp_path / "first", rows, FixedClock(NOW_MS))
    second = packages_of(tmp_path / "second", rows, FixedClock(NOW_MS + 3 * DAY_MS))
    assert len(first) == 2
    assert first == second
