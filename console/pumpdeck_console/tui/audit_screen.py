"""The audit chain: who did what when, newest first, and whether the chain holds."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical

from pumpdeck_console.operations.views import AuditCheck, AuditView
from pumpdeck_fleet.core.clock import format_ms

from .cells import Parts, clock_text, fit
from .console_screen import ConsoleScreen
from .dialogs import TextPane
from .fleet_table import text_cell, words_cell
from .shell_words import command
from .virtual_table import Column, TableView, VirtualTable

EMPTY_AUDIT = ("No audit entry yet.", "", "Every change writes one: the first is made by pumpdeck init.")


class AuditScreen(ConsoleScreen):
    """Browse and search the chain."""

    NAME = "audit"
    QUESTIONS = ("audit", "audit_check")
    KEYS = (("/", "search"), ("s r", "sort"), ("c", "command"), ("x", "export"), ("^p", "palette"), ("q", "quit"))
    FILTER_HINT = "words occur in action, subject, actor, reason"
    DEFAULT_CSS = """
    AuditScreen #chain { height: 1; }
    AuditScreen #entry { height: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: AuditView | None = None
        self._checked: AuditCheck | None = None
        self._filter = ""

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield TextPane([], id="chain")
            yield VirtualTable(id="entries", empty=EMPTY_AUDIT)
            yield TextPane([], id="entry")

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#entries", VirtualTable)

    def show_views(self) -> None:
        view, check = self.console.views.audit, self.console.views.audit_check
        if view is None or (view is self._shown and check is self._checked):
            return
        self.query_one("#chain", TextPane).show([chain_line(view, check, self.console.glyphs)])
        self._checked = check
        if view is self._shown:
            return
        self._shown = view
        self.table.show(audit_table(view))
        self._show_entry()
        self.show_right(f"{len(view):,} of {view.total:,}" + (f"  /{self._filter}" if self._filter else ""))

    def filter_text(self) -> str:
        return self._filter

    def apply_filter(self, text: str) -> None:
        self._filter = text.strip()
        self.console.ask_audit(self._filter)

    def on_virtual_table_cursor_moved(self) -> None:
        self._show_entry()

    def _show_entry(self) -> None:
        view, row = self._shown, self.table.cursor_row
        lines: list[Parts] = []
        if view is not None and row is not None:
            lines = [
                [(f" {view.subjects[row]}  ", "panel_title"), (view.reasons[row], "panel")],
                [(f" sha256 {view.digests[row]}", "panel_dim")],
            ]
        self.query_one("#entry", TextPane).show(lines)

    def command(self) -> str:
        return command("audit", "list", self._filter)


def chain_line(view: AuditView, check: AuditCheck | None, glyphs: str) -> Parts:
    """One line: does the chain hold, how long is it, what is its head."""
    good, bad = ("+", "!") if glyphs == "ascii" else ("✓", "■")
    head = (f"   {view.total:,} entries   head {view.head[:16] or '-'}", "panel")
    if check is None:
        return [(" being checked ...", "panel_dim"), head]
    if not check.holds:
        return [(f" {bad} CHAIN BROKEN: {check.sentence}", "panel_alarm")]
    at = f", checked {clock_text(check.as_of_ms)}"
    if check.entries == view.total:
        return [(f" {good} chain holds{at}", "panel_ok"), head]
    return [(f" {good} chain holds up to entry {check.entries:,}{at}", "panel_ok"), head]


def audit_table(view: AuditView) -> TableView:
    """Audit entries as a table, newest first."""
    columns = (
        Column("position", "ENTRY", 7, lambda i, w: [(fit(str(view.positions[i]), w, "right"), "dim")], (-view.positions,), 1,
               "right"),
        Column("at", "TIME (UTC)", 20, lambda i, w: [(fit(format_ms(int(view.at_ms[i]) // 1000 * 1000), w), "text")],
               (-view.at_ms,), 0),
        Column("action", "ACTION", 18, words_cell(view.actions), (view.actions.codes,), 0),
        Column("subject", "SUBJECT", 18, text_cell(view.subjects), (), 0, grows=True),
        Column("actor", "ACTOR", 11, words_cell(view.actors, "dim"), (view.actors.codes,), 2),
        Column("reason", "REASON", 22, text_cell(view.reasons, "dim"), (), 4, grows=True),
        Column("digest", "DIGEST", 12, lambda i, w: [(fit(view.digests[i][:12], w), "dim")], (), 5),
    )  # fmt: skip
    return TableView(columns, [str(position) for position in view.positions.tolist()])
