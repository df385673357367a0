"""The four lists of the runs screen as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pumpdeck_console.operations.query_rows import run_facts, snapshot_facts
from pumpdeck_console.operations.run_views import RunsView
from pumpdeck_console.operations.runs import RunRow
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.query_fields import RUNS, SNAPSHOTS

from .cells import Parts
from .columns import age_column, count_column, sign_column, text_column
from .filtering import TEXTS, text_facts
from .lists_screen import Listing
from .run_lines import asked_lines, experiment_lines, snapshot_lines
from .shell_words import command
from .virtual_table import TableView

EMPTY_RUNS = (
    "No training run yet.",
    "",
    "T trains a model for a pump type, as does: pumpdeck train TYPE",
    "A training needs rows: pumpdeck ingest FILE",
)
EMPTY_SNAPSHOTS = ("No snapshot yet.", "", "Every training freezes what it learns from: T starts one.")
EMPTY_ASKED = (
    "No device asks for a new model.",
    "",
    "A device asks when its rows have drifted for long; the rows come in with",
    "pumpdeck collect and pumpdeck bundle intake.",
)
EMPTY_EXPERIMENTS = (
    "No experiment yet.",
    "",
    "An experiment is a named branch of a pipeline with other values for some keys:",
    "pumpdeck experiments start NAME --type TYPE --set features.window_s=1800",
)
_REFUSED, _DONE = ("×", "x", "refused", "alarm"), ("✓", "+", "done", "ok")
_HERE, _AWAY = ("✓", "+", "here", "ok"), ("–", "-", "not here", "dim")
_NOT_RUN = ("·", ".", "not run yet", "dim")
_VERDICTS = {"pass": ("✓", "+", "pass", "ok"), "warn": ("▲", "^", "warn", "drift"), "refuse": ("×", "x", "refuse", "alarm")}
Page = Callable[[RunRow, int], Sequence[Parts]]


def runs_list(view: RunsView, glyphs: str, now_ms: int, page: Page) -> Listing:
    """Training runs, newest first; `page` tells one in full."""
    rows = view.runs
    versions = [f"v{version_name(row.version)}" if row.version else "" for row in rows]
    columns = (
        age_column("at", "ENDED", [row.at_ms for row in rows], now_ms, priority=0),
        sign_column("state", "STATE", 9, [_REFUSED if row.state == "refused" else _DONE for row in rows], glyphs, priority=0),
        text_column("model", "MODEL", 18, [row.model for row in rows], priority=0, min_width=10),
        text_column("version", "VERSION", 7, versions, align="right", descending_first=True, priority=0,
                    sort_keys=(np.array([row.version for row in rows], dtype=np.int64),)),
        text_column("run", "RUN", 12, [row.run[:12] for row in rows], "dim", priority=2),
        text_column("snapshot", "SNAPSHOT", 12, [row.snapshot_digest[:12] for row in rows], "dim", priority=5),
        text_column("reason", "REASON", 20, [row.reason for row in rows], "dim", priority=3, grows=True, min_width=8),
    )  # fmt: skip

    def shell(row: int | None) -> str:
        return command("runs", "show", rows[row].run[:12]) if row is not None else command("runs", "list")

    keys = [row.run or f"{row.model} {row.at_ms}" for row in rows]
    hint = "esp-health   state:refused at<7d   type:esp version>3"
    return Listing("runs", "runs", TableView(columns, keys), [run_facts(row) for row in rows], RUNS, EMPTY_RUNS,
                   lambda row, width: page(rows[row], width), shell, hint)  # fmt: skip


def snapshots_list(view: RunsView, glyphs: str, now_ms: int) -> Listing:
    """Frozen training sets."""
    rows = view.snapshots
    versions = [", ".join(f"v{version_name(one)}" for one in row.versions) for row in rows]
    columns = (
        age_column("end", "DATA TO", [row.data_end_ms for row in rows], now_ms, priority=0),
        text_column("snapshot", "SNAPSHOT", 12, [row.snapshot_digest[:12] for row in rows], priority=0),
        text_column("type", "TYPE", 14, [row.pump_type for row in rows], priority=0, min_width=8),
        text_column("versions", "VERSIONS", 14, versions, grows=True, descending_first=True,
                    sort_keys=(np.array([len(row.versions) for row in rows], dtype=np.int64),)),
        count_column("pumps", "PUMPS", 6, [row.pumps for row in rows]),
        sign_column("held", "ROWS", 10, [_HERE if row.held else _AWAY for row in rows], glyphs, priority=0),
        text_column("alias", "ALIASES", 20, [", ".join(row.aliases) for row in rows], "accent", priority=3, min_width=10),
    )  # fmt: skip

    def shell(row: int | None) -> str:
        return command("snapshots", "show", rows[row].snapshot_digest[:12]) if row is not None else command("snapshots", "list")

    keys = [f"{row.snapshot_digest} {row.model}" for row in rows]
    facts = [snapshot_facts(row) for row in rows]
    hint = "held:no   type:esp pumps>50   alias:champion"
    return Listing("snapshots", "snapshots", TableView(columns, keys), facts, SNAPSHOTS, EMPTY_SNAPSHOTS,
                   lambda row, width: snapshot_lines(rows[row], width), shell, hint)  # fmt: skip


def asked_list(view: RunsView, now_ms: int) -> Listing:
    """Open requests of devices."""
    rows, kinds = view.asked, view.pump_type_of or {}
    columns = (
        age_column("asked", "ASKED", [row.entry.at_ms for row in rows], now_ms, priority=0),
        text_column("pump", "PUMP", 20, [row.entry.pump for row in rows], priority=0, min_width=12),
        text_column("type", "TYPE", 14, [kinds.get(row.entry.pump, "") for row in rows], min_width=8),
        text_column("trigger", "TRIGGER", 12, [row.entry.trigger for row in rows], "drift"),
        text_column("reason", "REASON", 24, [row.entry.reason for row in rows], "dim", priority=2, grows=True),
        text_column("device", "DEVICE", 16, [row.entry.device for row in rows], "dim", priority=3),
    )
    texts = [f"{row.entry.pump} {kinds.get(row.entry.pump, '')} {row.entry.trigger} {row.entry.reason} {row.entry.device}"
             for row in rows]  # fmt: skip
    return Listing("asked", "asked for", TableView(columns, [row.entry.digest for row in rows]), text_facts(texts), TEXTS,
                   EMPTY_ASKED, lambda row, width: asked_lines(rows[row], kinds.get(rows[row].entry.pump, ""), width),
                   lambda _row: command("devices", "requests"))  # fmt: skip


def experiments_list(view: RunsView, glyphs: str) -> Listing:
    """Branches of pipelines."""
    rows = view.experiments
    columns = (
        text_column("name", "EXPERIMENT", 18, [row.name for row in rows], priority=0),
        text_column("type", "TYPE", 14, [row.pump_type for row in rows], min_width=8),
        sign_column("verdict", "GATES", 13, [_VERDICTS.get(row.verdict, _NOT_RUN) for row in rows], glyphs, priority=0),
        count_column("runs", "RUNS", 4, [row.runs for row in rows]),
        text_column("changes", "CHANGES", 24, [row.changes for row in rows], "dim", priority=2, grows=True),
        text_column("run", "RUN", 12, [row.run[:12] for row in rows], "dim", priority=4),
    )
    texts = [f"{row.name} {row.pump_type} {row.verdict} {row.changes}" for row in rows]
    return Listing("experiments", "experiments", TableView(columns, [row.name for row in rows]), text_facts(texts), TEXTS,
                   EMPTY_EXPERIMENTS, lambda row, width: experiment_lines(rows[row], width),
                   lambda _row: command("experiments", "list"))  # fmt: skip

