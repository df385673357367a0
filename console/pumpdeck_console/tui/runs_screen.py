"""Runs: trainings with their gates and searches, snapshots, what devices ask for, experiments; live while one is under way."""

from __future__ import annotations

from textual.binding import Binding
from textual.timer import Timer

from pumpdeck_console.operations.run_views import ExperimentLine, RunDetail, RunsView
from pumpdeck_console.operations.runs import RunRow
from pumpdeck_fleet.core.merging import version_name

from .cells import Parts
from .lists_screen import Listing, ListsScreen
from .run_lines import log_notes, log_of, run_lines, run_summary
from .run_tables import asked_list, experiments_list, runs_list, snapshots_list
from .task_log import TaskLog

TRAININGS = frozenset({"train", "experiments.run"})
REST_S = 0.15
"""How long the cursor rests on a run before its record is read."""


class RunsScreen(ListsScreen):
    """Start a training and follow it; look into runs, compare them; answer what devices ask for."""

    NAME = "runs"
    QUESTIONS = ("runs", "live")
    WATCHED = ("live",)
    KEYS = (("v", "next list"), ("T", "train"), ("Enter", "in full"), ("=", "compare"), ("D", "dismiss"), ("/", "filter"),
            ("^x", "stop"), ("c", "command"), ("q", "quit"))  # fmt: skip
    BINDINGS = [
        Binding("T", "train", "train a model of this pump type", show=False),
        Binding("equals_sign", "compare", "compare two runs", show=False),
        Binding("D", "dismiss_request", "dismiss what a device asks for", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rest: Timer | None = None
        self._detail: RunDetail | None = None

    @property
    def view(self) -> RunsView | None:
        return self.console.views.runs

    def source(self) -> object:
        return self.view

    def summary(self) -> Parts:
        view = self.view
        return run_summary(view, self.console.now_ms()) if view is not None else []

    def listings(self) -> tuple[Listing, ...]:
        view, now_ms = self.view, self.console.now_ms()
        assert view is not None
        glyphs = self.console.glyphs
        return (
            runs_list(view, glyphs, now_ms, self._run_page),
            snapshots_list(view, glyphs, now_ms),
            asked_list(view, now_ms),
            experiments_list(view, glyphs),
        )

    def _run_page(self, run: RunRow, width: int) -> list[Parts]:
        detail = self._detail if self._detail is not None and self._detail.row.run == run.run else None
        return run_lines(run, detail, width)

    def show_views(self) -> None:
        super().show_views()
        detail = self.console.views.run
        if detail is not None and detail is not self._detail:
            self._detail = detail
            self.show_page()
        elif self._detail is None:
            self.row_changed()

    # What is under way, here or in another process

    def task_log(self) -> TaskLog | None:
        own, view = super().task_log(), self.console.views.live
        running = view.runs[0] if view is not None and view.runs else None
        if own is not None and own.operation in TRAININGS and own.is_running:
            own.notes = log_notes(running) if running is not None else own.notes
            return own
        return log_of(running) if running is not None else own

    # The run under the cursor is read when the cursor rests

    @property
    def chosen_run(self) -> RunRow | None:
        view, row = self.view, self.row
        is_runs = self.listing is not None and self.listing.name == "runs"
        return view.runs[row] if is_runs and view is not None and row is not None else None

    def row_changed(self) -> None:
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST_S, self._ask_run)

    def _ask_run(self) -> None:
        run = self.chosen_run
        if run is not None and run.run and (self._detail is None or self._detail.row.run != run.run):
            self.console.ask_run(run.run)

    # Actions

    def _pump_type(self) -> str:
        view, row, listing = self.view, self.row, self.listing
        if view is None:
            return ""
        found = ""
        if row is not None and listing is not None:
            found = {
                "runs": lambda: view.runs[row].pump_type,
                "snapshots": lambda: view.snapshots[row].pump_type,
                "asked": lambda: (view.pump_type_of or {}).get(view.asked[row].entry.pump, ""),
                "experiments": lambda: view.experiments[row].pump_type,
            }[listing.name]()
        return found if found in view.pump_types else next(iter(view.pump_types), "")

    def action_train(self) -> None:
        experiment = self._experiment()
        if experiment is not None:
            self.console.plan("experiments.run", {"name": experiment.name})
        elif kind := self._pump_type():
            self.console.plan("train", {"pump_type": kind})

    def _experiment(self) -> ExperimentLine | None:
        is_shown = self.listing is not None and self.listing.name == "experiments"
        view, row = self.view, self.row
        return view.experiments[row] if is_shown and view is not None and row is not None else None

    def action_dismiss_request(self) -> None:
        view, row = self.view, self.row
        if view is not None and row is not None and self.listing is not None and self.listing.name == "asked":
            self.console.plan("devices.dismiss", {"pump": view.asked[row].entry.pump}, "why is no new model needed?")
        else:
            self.console.say("D dismisses what a device asks for: v goes to that list", "warn")

    def action_compare(self) -> None:
        run, view = self.chosen_run, self.view
        if run is None or view is None:
            return
        older = [one for one in view.runs if one.model == run.model and one.at_ms < run.at_ms]
        before = older[0].run[:12] if older else ""
        name = f"{run.model} v{version_name(run.version)}" if run.version else run.run[:12]
        self.open_prompt("compare", before, f"run to compare {name} with: the beginning of its digest")

    def accept_prompt(self, purpose: str, text: str) -> None:
        run = self.chosen_run
        if purpose == "compare" and run is not None and text:
            self.console.ask_run_diff(text, run.run)
        elif purpose != "compare":
            super().accept_prompt(purpose, text)
