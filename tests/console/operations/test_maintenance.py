"""Maintenance in the inventory: rows of that time teach nothing, are judged by nobody, and the card says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_console import wiring
from pumpdeck_console.operations.models import read_card
from pumpdeck_console.operations.runs import read_run
from pumpdeck_console.operations.training import StoreSource
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.core.inventory import EventKind, InventoryEvent
from pumpdeck_fleet.core.telemetry import Label, Verdict
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.services.inventory_edit import add_event
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, trained_row, workspace_with_rows

BEGAN, ENDED = NOW_MS - 9 * DAY_MS, NOW_MS - 7 * DAY_MS


def shaken(number: int, at_ms: np.ndarray, values: np.ndarray) -> None:
    """While they worked on the first pump, every channel of it went to and fro."""
    if number == 0:
        inside = (at_ms >= BEGAN) & (at_ms < ENDED)
        values[inside] *= 1 + 0.2 * np.sin(np.arange(inside.sum()) / 3)[:, None]


def band(workspace: Workspace, block_digest: str) -> np.ndarray:
    """How far each channel may go from its baseline, in its own unit."""
    channels = tuple(one.name for one in workspace.fleet.pump_types[kind_of(workspace)].channels)
    block = decode_block(workspace.artifacts.get(block_digest), channels)
    return block.width * block.limit


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    return workspace_with_rows(tmp_path / "workspace", shaken)


def test_rows_in_maintenance_widen_no_limit_and_the_card_names_them(workspace: Workspace) -> None:
    pump = next(one.id for one in workspace.fleet.pumps if one.type == kind_of(workspace))
    before = read_run(workspace, run=trained_row(workspace).run)["pumps"][pump]
    add_event(workspace.root, workspace.fs, InventoryEvent(BEGAN, pump, EventKind.MAINTENANCE, "valve work", until_ms=ENDED))
    workspace.forget_fleet()
    row = trained_row(workspace)
    after, card = read_run(workspace, run=row.run)["pumps"][pump], read_card(workspace, model=row.model)
    shipped = read_card(workspace, model=row.model, shipped=True)
    gates = {gate.name: gate.reason for gate in workspace.store.registry.version(row.model, row.version).gates}
    before_band, after_band = (band(workspace, one["block"]) for one in (before, after))
    workspace.close()
    assert after["excluded"] == {"maintenance": 288} and after["used"] == before["used"] - 288
    assert after["snapshot"] != before["snapshot"]
    # What was shaken had widened the band that no alarm leaves, in every channel.
    assert (after_band < before_band / 2).all()
    assert f"288 rows of {pump} lie in maintenance and were neither learned from nor judged" in card
    assert "maintenance 288" in gates["training_data"] and "standstill and maintenance are not" in shipped


def test_a_fault_inside_maintenance_is_not_held_against_the_model(workspace: Workspace) -> None:
    """Nobody scores then: a fault that the crew found in these hours is no fault missed."""
    pump = next(one.id for one in workspace.fleet.pumps if one.type == kind_of(workspace))
    with workspace.store.atomic() as store:
        store.labels.add(Label(pump, BEGAN + DAY_MS, BEGAN + DAY_MS + 3_600_000, Verdict.FAULT, "seal", "crew", NOW_MS))
    asked = read_run(workspace, run=trained_row(workspace).run)["metrics"]["labelled_faults"]
    add_event(workspace.root, workspace.fs, InventoryEvent(BEGAN, pump, EventKind.MAINTENANCE, until_ms=ENDED))
    workspace.forget_fleet()
    row = trained_row(workspace)
    now = read_run(workspace, run=row.run)["metrics"]["labelled_faults"]
    reasons = {one.reason for one in StoreSource(workspace).exclusions(pump)}
    workspace.close()
    assert (asked, now) == (1, 0)
    assert {"maintenance", "fault:seal"} <= reasons
