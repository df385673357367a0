"""A workspace with a month of rows of one pump type, ready to be trained again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pumpdeck_console.operations.models import promote
from pumpdeck_console.operations.training import TrainedRow, train_models
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import DAY_MS, MINUTE_MS
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from support.seeded_workspace import seeded_workspace
from support.small_fleet import NOW_MS

DAYS = 20


Change = Callable[[int, NDArray[np.int64], NDArray[np.float64]], None]
"""Makes a pump's healthy rows ill: number of the pump, at_ms [n], values [n, c] to be changed in place."""


def workspace_with_rows(root: Path, change: Change = lambda _number, _at_ms, _values: None) -> Workspace:
    """Opened; the caller closes it. Rows of the first pump's type, seeded, ten minutes apart, for 20 days."""
    seeded_workspace(root).close()
    workspace = open_workspace(root).__enter__()
    kind = kind_of(workspace)
    channels = workspace.fleet.pump_types[kind].channels
    names = tuple(one.name for one in channels)
    at_ms = np.arange(NOW_MS - (DAYS + 1) * DAY_MS, NOW_MS - DAY_MS, 10 * MINUTE_MS, dtype=np.int64)
    middle = np.array([(one.low + one.high) / 2 for one in channels])
    width = np.array([(one.high - one.low) / 100 for one in channels])
    with workspace.store.atomic() as store:
        for number, pump in enumerate(pump for pump in workspace.fleet.pumps if pump.type == kind):
            noise = np.random.default_rng(number).standard_normal((len(at_ms), len(channels)))
            values = middle + width * noise
            change(number, at_ms, values)
            flags = np.zeros(len(at_ms), np.uint16)
            store.telemetry.append(pump.id, TelemetryFrame(names, at_ms, values.astype(np.float32), flags))
    return workspace


def kind_of(workspace: Workspace) -> str:
    """The pump type that has rows."""
    return workspace.fleet.pumps[0].type


def write_spec(workspace: Workspace, text: str) -> None:
    """`pipelines/<type>.toml` with these lines below its head."""
    kind = kind_of(workspace)
    workspace.pipelines_path.mkdir(exist_ok=True)
    path = workspace.pipelines_path / f"{kind}.toml"
    path.write_text(f'format = 1\npump_type = "{kind}"\n{text}', encoding="utf-8", newline="\n")


def trained_row(workspace: Workspace, text: str = "", **more: object) -> TrainedRow:
    """Train with that spec."""
    write_spec(workspace, text)
    (row,) = train_models(workspace, pump_type=kind_of(workspace), **more).models
    return row


def make_champion(workspace: Workspace, row: TrainedRow) -> None:
    """Promote what was trained."""
    promote(workspace, model=row.model, which=str(row.version))
