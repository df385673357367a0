"""Rollouts: all of them above, the waves of the chosen one, its device tasks below; live while it runs."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical

from pumpdeck_console.operations.views import RolloutDetail, RolloutRow, RolloutsView, WaveRow
from pumpdeck_fleet.core.merging import version_name
from pumpdeck_fleet.core.sizes import size_words

from .cells import Parts, age, fit, progress_bar
from .console_screen import ConsoleScreen
from .dialogs import TextPane
from .shell_words import command
from .virtual_table import Column, TableView, VirtualTable

STATE_SIGNS = {
    "RUNNING": ("▶", ">", "accent"), "APPROVED": ("◇", "a", "accent"), "HALTED": ("■", "#", "alarm"),
    "COMPLETED": ("✓", "+", "ok"), "ABORTED": ("×", "x", "stale"), "REVERTING": ("◀", "<", "drift"),
    "REVERTED": ("◀", "<", "stale"), "REVERT_INCOMPLETE": ("◀", "!", "alarm"),
    "PASSED": ("✓", "+", "ok"), "FAILED": ("■", "#", "alarm"), "OPEN": ("▶", ">", "accent"),
    "SOAKING": ("◔", "o", "drift"), "COMMITTED": ("✓", "+", "ok"), "ALREADY": ("✓", "+", "ok"),
    "REFUSED": ("×", "x", "alarm"), "ROLLED_BACK": ("◀", "<", "alarm"), "FAILED_INCONSISTENT": ("!", "!", "alarm"),
    "UNKNOWN": ("?", "?", "drift"), "SENDING": ("▶", ">", "accent"), "STAGED": ("◇", "a", "accent"),
    "TRIAL": ("◔", "o", "drift"),
}  # fmt: skip
"""Sign, ascii sign and style of a state of rollout, wave or device task; others are plain."""
EMPTY_ROLLOUTS = (
    "No rollout yet.",
    "",
    "On the models screen (2), o starts one for a version, as does:",
    "pumpdeck rollout start MODEL vN QUERY",
)
TASK_ORDER = ("FAILED_INCONSISTENT", "ROLLED_BACK", "REFUSED", "UNKNOWN", "TRIAL", "STAGED", "SENDING", "WAIT_WINDOW",
              "WAIT_COURIER", "QUEUED", "CANCELLED", "SUPERSEDED", "ALREADY", "COMMITTED")  # fmt: skip


class RolloutsScreen(ConsoleScreen):
    """Follow rollouts; approve, halt, resume, abort, carry out what is due."""

    NAME = "rollouts"
    QUESTIONS = ("rollouts", "rollout")
    KEYS = (("a", "approve"), ("h", "halt"), ("u", "resume"), ("A", "abort"), ("D", "deliver"), ("/", "filter tasks"),
            ("Tab", "pane"), ("s r", "sort"), ("c", "command"), ("q", "quit"))  # fmt: skip
    FILTER_HINT = "words match device, site, state, reason"
    BINDINGS = [
        Binding("a", "approve", "approve the plan", show=False),
        Binding("h", "halt", "halt the rollout", show=False),
        Binding("u", "resume", "resume a halted rollout", show=False),
        Binding("A", "abort", "end the rollout for good", show=False),
        Binding("D", "deliver", "carry out what is due", show=False),
    ]
    DEFAULT_CSS = """
    RolloutsScreen #rollouts { height: 30%; min-height: 5; max-height: 12; }
    RolloutsScreen #waves { height: 6; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: RolloutsView | None = None
        self._detail: RolloutDetail | None = None
        self._filter = ""

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield VirtualTable(id="rollouts", empty=EMPTY_ROLLOUTS)
            yield TextPane([], id="waves")
            yield VirtualTable(id="tasks")

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#rollouts", VirtualTable)

    @property
    def tasks(self) -> VirtualTable:
        return self.query_one("#tasks", VirtualTable)

    @property
    def chosen(self) -> RolloutRow | None:
        row = self.table.cursor_row
        return self._shown.rollouts[row] if self._shown is not None and row is not None else None

    def show_views(self) -> None:
        view, detail = self.console.views.rollouts, self.console.views.rollout
        if view is not None and view is not self._shown:
            self._shown = view
            self.table.show(rollouts_table(view, self.console.glyphs, self.console.now_ms()))
            self._ask_detail()
        chosen = self.chosen
        if detail is not None and chosen is not None and detail.rollout.rollout_id == chosen.rollout_id:
            self._show_detail(detail)

    def _show_detail(self, detail: RolloutDetail) -> None:
        if detail is self._detail:
            return
        self._detail = detail
        pane = self.query_one("#waves", TextPane)
        pane.show(wave_lines(detail, self.console.glyphs))
        pane.styles.height = min(10, max(3, len(pane.lines)))
        self.tasks.show(tasks_table(detail, self.console.glyphs, self.console.now_ms()), self._mask(detail))
        self.show_right(f"{len(self.tasks.order)} device tasks" + (f"  /{self._filter}" if self._filter else ""))

    def _ask_detail(self) -> None:
        chosen = self.chosen
        if chosen is not None:
            self.console.ask_rollout(chosen.rollout_id)

    def on_virtual_table_cursor_moved(self, event: VirtualTable.CursorMoved) -> None:
        if event.table is self.table:
            self._ask_detail()

    def on_virtual_table_opened(self, event: VirtualTable.Opened) -> None:
        if event.table is self.table:
            self.tasks.focus()

    def _mask(self, detail: RolloutDetail) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        words = self._filter.lower().split()
        if not words:
            return None
        texts = (
            f"{detail.devices[i]} {detail.sites[i]} {detail.states[i]} {detail.reasons[i]}".lower()
            for i in range(len(detail))
        )
        return np.array([all(word in text for word in words) for text in texts], dtype=bool)

    def filter_text(self) -> str:
        return self._filter

    def apply_filter(self, text: str) -> None:
        self._filter = text.strip()
        if self._detail is not None:
            detail, self._detail = self._detail, None
            self._show_detail(detail)

    def command(self) -> str:
        chosen = self.chosen
        return command("rollout", "show", chosen.rollout_id) if chosen else command("rollout", "list")

    def action_approve(self) -> None:
        if (chosen := self.chosen) is not None:
            self.console.plan("rollout.approve", {"rollout_id": chosen.rollout_id})

    def action_halt(self) -> None:
        self._plan_with_reason("rollout.halt")

    def action_resume(self) -> None:
        self._plan_with_reason("rollout.resume")

    def action_abort(self) -> None:
        self._plan_with_reason("rollout.abort")

    def action_deliver(self) -> None:
        self.console.plan("tick", {})

    def _plan_with_reason(self, operation: str) -> None:
        if (chosen := self.chosen) is not None:
            self.console.plan(operation, {"rollout_id": chosen.rollout_id}, "why? (goes into the audit)")


def model_name(row: RolloutRow) -> str:
    """Model and version; the model's words alone where the rollout brings several."""
    return f"{row.model} v{version_name(row.version)}" if row.version else row.model


def state_part(state: str, width: int, glyphs: str, prefix: str = "") -> Parts:
    """A state as sign and word."""
    sign, plain, style = STATE_SIGNS.get(state, ("·", ".", "text" if not prefix else ""))
    name = f"{prefix}{style}" if style else prefix.rstrip("_")
    return [(fit(f"{plain if glyphs == 'ascii' else sign} {state.replace('_', ' ')}", width), name)]


def rollouts_table(view: RolloutsView, glyphs: str, now_ms: int) -> TableView:
    """Rollouts, newest first."""
    rows = view.rollouts

    def progress(i: int, width: int) -> Parts:
        row = rows[i]
        return [(progress_bar(row.progress, width - 6, glyphs), "accent"), (f" {row.progress * 100:3.0f} %", "text")]

    def bad(i: int, width: int) -> Parts:
        return [(fit(str(rows[i].bad), width, "right"), "alarm" if rows[i].bad else "dim")]

    columns = (
        Column("rollout", "ROLLOUT", 13, lambda i, w: [(fit(rows[i].rollout_id, w), "text")], (), 0),
        Column("model", "MODEL", 22, lambda i, w: [(fit(model_name(rows[i]), w), "text")], (), 1),
        Column("state", "STATE", 12, lambda i, w: state_part(rows[i].state, w, glyphs), (), 0),
        Column("progress", "COMMITTED", 18, progress, (), 1),
        Column("devices", "DEVICES", 7, lambda i, w: [(fit(f"{rows[i].committed}/{rows[i].devices}", w, "right"), "text")], (),
               2, "right"),
        Column("bad", "BAD", 4, bad, (), 1, "right"),
        Column("waves", "WAVES", 5, lambda i, w: [(fit(f"{rows[i].waves_passed}/{rows[i].waves}", w, "right"), "text")], (), 3,
               "right"),
        Column("changed", "MOVED", 5, lambda i, w: [(fit(age(rows[i].changed_ms, now_ms), w, "right"), "dim")], (), 3, "right"),
        Column("reason", "REASON", 16, lambda i, w: [(fit(rows[i].reason, w), "dim")], (), 4, grows=True),
    )  # fmt: skip
    return TableView(columns, [row.rollout_id for row in rows])


def tasks_table(detail: RolloutDetail, glyphs: str, now_ms: int) -> TableView:
    """Device tasks: what needs eyes first, then what moves, then what is done."""
    place = {state: i for i, state in enumerate(TASK_ORDER)}
    order_of_word = np.array([place.get(word, 0) for word in detail.states.words], dtype=np.int64)
    states = order_of_word[detail.states.codes] if len(order_of_word) else np.zeros(0, dtype=np.int64)

    def sent(i: int, width: int) -> Parts:
        done, total = int(detail.sent_bytes[i]), int(detail.total_bytes[i])
        text = (
            "-"
            if not total
            else size_words(total)
            if done >= total
            else f"{done * 100 // total} % of {size_words(total)}"
        )
        return [(fit(text if done else "-", width, "right"), "text")]

    columns = (
        Column("state", "STATE", 14, lambda i, w: state_part(detail.states[i], w, glyphs), (states, detail.wave), 0),
        Column("device", "DEVICE", 20, lambda i, w: [(fit(detail.devices[i], w), "text")], (np.arange(len(detail)),), 0,
               min_width=12),
        Column("site", "SITE", 12, lambda i, w: [(fit(detail.sites[i] or "-", w), "text")], (detail.sites.codes,), 1),
        Column("wave", "WAVE", 4, lambda i, w: [(fit(str(detail.wave[i]), w, "right"), "text")], (detail.wave,), 2, "right"),
        Column("sent", "SENT", 14, sent, (detail.sent_bytes,), 3, "right", True),
        Column("changed", "MOVED", 5, lambda i, w: [(fit(age(int(detail.changed_ms[i]), now_ms), w, "right"), "dim")],
               (-detail.changed_ms,), 2, "right"),
        Column("reason", "REASON", 20, lambda i, w: [(fit(detail.reasons[i], w), "dim")], (), 4, grows=True),
    )  # fmt: skip
    return TableView(columns, detail.devices)


def wave_lines(detail: RolloutDetail, glyphs: str) -> list[Parts]:
    """The chosen rollout and one line a wave."""
    row = detail.rollout
    head: list[tuple[str, str]] = [(f" {row.rollout_id}  {model_name(row)}  ", "panel_title")]
    head += state_part(row.state, cell_len(row.state) + 4, glyphs, "panel_")
    head.append((f"plan {detail.plan_hash[:12]}", "panel_dim"))
    lines: list[Parts] = [head]
    if row.reason:
        lines.append([(f" {row.reason}", "panel_alarm")])
    return [*lines, *(_wave_line(wave, glyphs) for wave in detail.waves)]


def _wave_line(wave: WaveRow, glyphs: str) -> Parts:
    part = wave.committed / wave.devices if wave.devices else 0.0
    bad = f"  {wave.bad} bad" if wave.bad else ""
    unknown = f"  {wave.unknown} unknown" if wave.unknown else ""
    return [
        (f" wave {wave.number:<2} ", "panel"),
        *state_part(wave.state, 10, glyphs, "panel_"),
        (f" {progress_bar(part, 24, glyphs)} ", "panel_accent"),
        (f"{wave.committed:>4} of {wave.devices:<4} needs {wave.needed}", "panel"),
        (bad, "panel_alarm"),
        (unknown, "panel_drift"),
    ]
