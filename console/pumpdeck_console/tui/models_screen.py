"""Models: versions with their aliases and gates, the chosen version in detail, training runs below."""

from __future__ import annotations

import math
import textwrap

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical

from pumpdeck_console.operations.views import ModelsView, ModelVersionRow, TrainingRunRow
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.merging import parse_version_name, version_name
from pumpdeck_fleet.core.query_fields import MODELS
from pumpdeck_fleet.core.registry import FOREIGN, Alias

from .cells import Parts, age, fit, number, progress_bar
from .console_screen import ConsoleScreen
from .dialogs import TextPane
from .filtering import Mask, query_mask
from .shell_words import command
from .virtual_table import Column, TableView, VirtualTable

VERDICT_STYLES = {"pass": "panel_ok", "warn": "panel_drift", "refuse": "panel_alarm"}
EMPTY_MODELS = (
    "No model yet.",
    "",
    "T trains one for a pump type, as does: pumpdeck train TYPE",
    "A training needs rows: pumpdeck ingest FILE",
)
EMPTY_FILTER = ("No version matches.", "", "Esc clears the filter.")
RUN_LINES = 4
PANE = 48
"""Width of the pane with one version."""


class ModelsScreen(ConsoleScreen):
    """Compare versions, promote one or go back, start a training or a rollout."""

    NAME = "models"
    QUESTIONS = ("models",)
    KEYS = (("m", "card"), ("=", "compare"), ("p", "promote"), ("b", "roll back"), ("T", "train"), ("o", "rollout"),
            ("/", "filter"), ("s r", "sort"), ("c", "command"), ("q", "quit"))  # fmt: skip
    FILTER_HINT = "esp-health   alias:champion   gates<refuse running>0   made<7d"
    BINDINGS = [
        Binding("T", "train", "train this model anew", show=False),
        Binding("m", "card", "show the model card", show=False),
        Binding("equals_sign", "compare", "compare two versions", show=False),
        Binding("p", "promote", "make this version the champion", show=False),
        Binding("b", "demote", "take the champion back", show=False),
        Binding("escape", "clear_filter", "clear the filter", show=False),
        Binding("o", "start_rollout", "start a rollout of this version", show=False),
    ]
    DEFAULT_CSS = """
    ModelsScreen #model { width: 48; height: 1fr; }
    ModelsScreen #runs { height: 6; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: ModelsView | None = None
        self._filter = ""

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield VirtualTable(id="versions", empty=EMPTY_MODELS)
            yield TextPane([], id="runs")
        yield TextPane([], id="model")

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#versions", VirtualTable)

    def show_views(self) -> None:
        view = self.console.views.models
        if view is None or view is self._shown:
            return
        self._shown = view
        self.table.show(models_table(view, self.console.now_ms()), self._mask(view))
        self.query_one("#runs", TextPane).show(run_lines(view.runs, self.console.now_ms(), self.console.glyphs))
        self._show_version()
        self._show_count()

    @property
    def version(self) -> ModelVersionRow | None:
        """The version under the cursor."""
        row = self.table.cursor_row
        return self._shown.versions[row] if self._shown is not None and row is not None else None

    def _mask(self, view: ModelsView) -> Mask | None:
        try:
            return self._mask_of(view, self._filter)
        except PumpdeckError:
            return None

    def _mask_of(self, view: ModelsView, text: str) -> Mask | None:
        return query_mask([row.facts for row in view.versions], text, MODELS, self.console.now_ms())

    def filter_text(self) -> str:
        return self._filter

    def apply_filter(self, text: str) -> None:
        if self._shown is not None:
            try:
                mask = self._mask_of(self._shown, text)
            except PumpdeckError as error:
                self.show_right(f"? {error.what}")
                return
            self.table.empty_lines = EMPTY_FILTER if text.strip() else EMPTY_MODELS
            self.table.keep(mask)
        self._filter = text.strip()
        self._show_count()

    def action_clear_filter(self) -> None:
        self.apply_filter("")

    def _show_count(self) -> None:
        self.show_right(f"{len(self.table.order)} versions" + (f"  /{self._filter}" if self._filter else ""))

    def on_virtual_table_cursor_moved(self) -> None:
        self._show_version()

    def _show_version(self) -> None:
        version = self.version
        self.query_one("#model", TextPane).show(version_lines(version, PANE) if version is not None else [])

    def on_resize(self) -> None:
        self.query_one("#model").display = self.app.size.width >= 100

    def command(self) -> str:
        version = self.version
        return command("models", "show", version.model, version_name(version.version)) if version else command("models", "list")

    def action_train(self) -> None:
        version = self.version
        types = self._shown.pump_types if self._shown is not None else ()
        kind = version.pump_type if version is not None else next(iter(types), "")
        if kind:
            self.console.plan("train", {"pump_type": kind})

    def action_card(self) -> None:
        version = self.version
        if version is not None:
            self.console.ask_card(version.model, version.version)

    def action_compare(self) -> None:
        version = self.version
        if version is not None:
            other = Alias.PREVIOUS if Alias.CHAMPION in version.aliases else Alias.CHAMPION
            name = f"{version.model} v{version_name(version.version)}"
            self.open_prompt("compare", other.value, f"version or alias to compare {name} with")

    def accept_prompt(self, purpose: str, text: str) -> None:
        version = self.version
        if purpose != "compare":
            super().accept_prompt(purpose, text)
        elif version is not None and text:
            number = parse_version_name(text)
            before = version_name(number) if number is not None else text
            self.console.ask_comparison(version.model, before, version_name(version.version))

    def action_promote(self) -> None:
        version = self.version
        if version is not None:
            arguments = {"model": version.model, "which": version_name(version.version)}
            self.console.plan("models.promote", arguments, "why? (goes into the audit)")

    def action_demote(self) -> None:
        version = self.version
        if version is not None:
            self.console.plan("models.demote", {"model": version.model}, "why? (goes into the audit)")

    def action_start_rollout(self) -> None:
        version = self.version
        if version is not None:
            self.console.plan("rollout.start", {"model": version.model, "version": version_name(version.version)})


def models_table(view: ModelsView, now_ms: int) -> TableView:
    """Versions as a table, newest first."""
    rows = view.versions
    worst = [_worst_gate(row) for row in rows]
    models = sorted({row.model for row in rows})
    created = np.array([row.created_ms for row in rows], dtype=np.int64)
    columns = (
        Column("model", "MODEL", 16, lambda i, w: [(fit(rows[i].model, w), "text")],
               (np.array([models.index(row.model) for row in rows]),), 0, grows=True),
        Column("version", "VERSION", 8, lambda i, w: [(fit(f"v{version_name(rows[i].version)}", w, "right"), "text")],
               (np.array([row.version for row in rows]),), 0, "right", True),
        Column("alias", "ALIAS", 20, lambda i, w: [(fit(", ".join(_marks(rows[i])) or "-", w), "accent")], (), 0, min_width=10),
        Column("gates", "GATES", 8, lambda i, w: [(fit(worst[i], w), VERDICT_STYLES.get(worst[i], "panel").replace("panel_", "")
               if worst[i] in VERDICT_STYLES else "dim")], (), 1),
        Column("pumps", "PUMPS", 6, lambda i, w: [(fit(str(rows[i].pumps), w, "right"), "text")],
               (np.array([row.pumps for row in rows]),), 1, "right", True),
        Column("created", "MADE", 5, lambda i, w: [(fit(age(rows[i].created_ms, now_ms), w, "right"), "dim")],
               (-created,), 2, "right"),
        Column("digest", "DIGEST", 12, lambda i, w: [(fit(rows[i].digest[:12], w), "dim")], (), 5),
    )  # fmt: skip
    return TableView(columns, [f"{row.model} v{version_name(row.version)}" for row in rows])


def _marks(row: ModelVersionRow) -> tuple[str, ...]:
    """What stands beside a version in the list: its aliases, and that it is foreign."""
    return (*row.aliases, FOREIGN) if row.origin else row.aliases


def _worst_gate(row: ModelVersionRow) -> str:
    verdicts = {verdict for _, verdict, _ in row.gates}
    return next((verdict for verdict in ("refuse", "warn", "pass") if verdict in verdicts), "-")


def version_lines(row: ModelVersionRow, width: int) -> list[Parts]:
    """One version in full: gates with reasons, metrics, digest."""
    lines: list[Parts] = [
        [(f" {row.model} ", "panel_title"), (f"v{version_name(row.version)}", "panel_title")],
        [(f" {', '.join(row.aliases) or 'no alias'}", "panel_key"), (f"   {row.pumps} pumps run it", "panel")],
        [],
    ]
    if row.origin:
        lines.append([(" FOREIGN", "panel_drift"), ("  not learned here", "panel")])
        for text in row.origin:
            lines += [[(f" {line}", "panel")] for line in textwrap.wrap(text, width - 2)]
        lines.append([])
    lines.append([(" GATES", "panel_dim")])
    for gate, verdict, reason in row.gates:
        style = VERDICT_STYLES.get(verdict, "panel")
        lines.append([(f" {verdict:<7}", style), (gate.replace("_", " "), "panel")])
        lines += [[(f"        {line}", "panel_dim")] for line in textwrap.wrap(reason, width - 9)]
    lines += [[], [(" METRICS", "panel_dim")]]
    for name, value in row.metrics:
        whole = math.isfinite(value) and value == round(value)
        shown = f"{int(value):,}" if whole else number(value, 3)
        lines.append(
            [(f" {fit(name.replace('_', ' '), 26)}", "panel"), (fit(shown, 12, "right"), "panel")]
        )
    lines += [[], [(" DIGEST", "panel_dim")], [(f" {row.digest[:32]}", "panel")], [(f" {row.digest[32:]}", "panel")]]
    if row.notes:
        lines += [[], [(f" {row.notes}", "panel")]]
    return lines


def run_lines(runs: tuple[TrainingRunRow, ...], now_ms: int, glyphs: str) -> list[Parts]:
    """The newest training runs, one line each."""
    lines: list[Parts] = [[(" TRAINING RUNS", "panel_dim")]]
    for run in runs[:RUN_LINES]:
        bar = (
            f"{progress_bar(run.progress, 12, glyphs)} {run.progress * 100:3.0f} %"
            if run.progress == run.progress
            else ""
        )
        ago = age(run.ended_ms if run.ended_ms >= 0 else run.started_ms, now_ms)
        state = "panel_ok" if run.state.upper() == "DONE" else "panel_alarm" if run.state.upper() == "FAILED" else "panel_key"
        lines.append([(f" {fit(run.run_id, 12)} ", "panel"), (fit(run.state, 9), state),
                      (fit(ago, 6, "right") + "  ", "panel_dim"), (bar or run.result, "panel"),
                      (f"  {run.trigger}", "panel_dim")])  # fmt: skip
    if not runs:
        lines.append([(" none yet; T starts one", "panel_dim")])
    return lines
