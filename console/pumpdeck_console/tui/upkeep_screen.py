"""Upkeep: what is wrong with this workspace, where its backups lie, which trips are out, what two workspaces differed on."""

from __future__ import annotations

import numpy as np
from textual.binding import Binding

from pumpdeck_console.operations.upkeep_view import OLD_BACKUP_MS, BackupLine, ConflictLine, TripLine, UpkeepView
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_fleet.core.clock import format_ms

from .cells import Parts, age
from .columns import age_column, count_column, sign_column, text_column
from .filtering import TEXTS, text_facts
from .lists_screen import Listing, ListsScreen
from .shell_words import command
from .texts import commands, heading, pairs, wrapped
from .virtual_table import TableView

EMPTY_BACKUPS = (
    "This workspace was never backed up from here.",
    "",
    "b writes a backup, as does: pumpdeck backup DIR",
    "Take another disk: what is lost with this one cannot be signed again by anybody.",
)
EMPTY_TRIPS = (
    "No trip was prepared.",
    "",
    "t cuts out what a trip offshore needs, as does: pumpdeck trip prepare QUERY --to DIR",
    "u takes one in again that has returned.",
)
EMPTY_CONFLICTS = (
    "No two workspaces differed on anything so far.",
    "",
    "y takes in what another workspace knows, after it has shown what would come.",
)
VERDICTS = {"ok": ("✓", "+", "ok", "ok"), "warn": ("▲", "^", "warn", "drift"), "bad": ("■", "#", "bad", "alarm")}
_YES, _NO = ("✓", "+", "yes", "ok"), ("–", "-", "no", "dim")


class UpkeepScreen(ListsScreen):
    """Look after the workspace itself."""

    NAME = "upkeep"
    QUESTIONS = ("upkeep",)
    KEYS = (("v", "next list"), ("b", "back up"), ("p", "prove"), ("y", "sync"), ("t", "trip"), ("u", "trip returned"),
            ("/", "filter"), ("c", "command"), ("q", "quit"))  # fmt: skip
    BINDINGS = [
        Binding("b", "back_up", "back the workspace up", show=False),
        Binding("p", "prove", "read a backup back", show=False),
        Binding("y", "sync", "take in another workspace", show=False),
        Binding("t", "trip", "prepare a trip", show=False),
        Binding("u", "trip_returned", "take a trip in", show=False),
    ]

    @property
    def view(self) -> UpkeepView | None:
        return self.console.views.upkeep

    def source(self) -> object:
        return self.view

    def summary(self) -> Parts:
        return upkeep_summary(self.view, self.console.now_ms()) if self.view is not None else []

    def listings(self) -> tuple[Listing, ...]:
        view, now_ms, glyphs = self.view, self.console.now_ms(), self.console.glyphs
        assert view is not None
        backups = backups_list(view, now_ms, glyphs)
        return (checks_list(view, glyphs), backups, trips_list(view, now_ms), conflicts_list(view, now_ms))

    # Actions: a place is asked for, then the plan is shown

    @property
    def _backup(self) -> BackupLine | None:
        view, row = self.view, self.row
        if view is None or not view.backups:
            return None
        is_shown = self.listing is not None and self.listing.name == "backups"
        return view.backups[row] if is_shown and row is not None else view.backups[0]

    def action_back_up(self) -> None:
        place = self._backup.place if self._backup is not None else ""
        self.open_prompt("backup", place, "folder on another disk, or FILE.tar")

    def action_prove(self) -> None:
        place = self._backup.place if self._backup is not None else ""
        self.open_prompt("prove", place, "folder or file of the backup")

    def action_sync(self) -> None:
        self.open_prompt("sync", "", "folder of the other workspace, or of a backup of it")

    def action_trip(self) -> None:
        self.open_prompt("trip", "", "new folder, then perhaps: for QUERY")

    def action_trip_returned(self) -> None:
        self.open_prompt("return", "", "folder of the trip")

    def accept_prompt(self, purpose: str, text: str) -> None:
        if not text:
            return
        if purpose == "backup":
            self.console.plan("backup", {"to": text})
        elif purpose == "prove":
            self.console.plan("backup.verify", {"source": text})
        elif purpose == "sync":
            self.console.plan_in_worker("sync", "sync.plan", {"folder": text})
        elif purpose == "trip":
            place, _, query = text.partition(" for ")
            self.console.plan_in_worker("trip.prepare_to", "trip.plan_to", {"to": place.strip(), "query": query.strip()})
        elif purpose == "return":
            self.console.plan("trip.return", {"folder": text})
        else:
            super().accept_prompt(purpose, text)


def upkeep_summary(view: UpkeepView, now_ms: int) -> Parts:
    """One line: is anything wrong, how old is the last backup, who is out."""
    bad = sum(one.verdict == "bad" for one in view.checks)
    warn = sum(one.verdict == "warn" for one in view.checks)
    parts: list[tuple[str, str]] = []
    if bad or warn:
        parts.append((f" {bad} wrong, {warn} to look at", "panel_alarm" if bad else "panel_drift"))
    else:
        parts.append((" every check holds", "panel_ok"))
    if view.backups:
        last = view.backups[0]
        is_old = now_ms - last.at_ms > OLD_BACKUP_MS
        parts.append((f"   last backup {ago_text(last.at_ms, now_ms)}", "panel_drift" if is_old else "panel"))
    else:
        parts.append(("   NEVER BACKED UP", "panel_alarm"))
    out = sum(not one.returned_ms for one in view.trips)
    parts.append((f"   {out} {'trip is' if out == 1 else 'trips are'} out", "panel_key") if out else ("", "panel"))
    if view.synced_ms:
        parts.append((f"   synced {ago_text(view.synced_ms, now_ms)}", "panel"))
    return parts


def ago_text(at_ms: int, now_ms: int) -> str:
    """`now`, or `3 h ago`."""
    words = age(at_ms, now_ms)
    return words if words == "now" else f"{words} ago"


def checks_list(view: UpkeepView, glyphs: str) -> Listing:
    """What `pumpdeck doctor` looks at, the bad ones first."""
    rows = view.checks

    order = np.array([{"bad": 0, "warn": 1}.get(row.verdict, 2) for row in rows], dtype=np.int64)
    hints = ["accent" if row.hint else "dim" for row in rows]
    columns = (
        sign_column("verdict", "STATE", 7, [VERDICTS[row.verdict] for row in rows], glyphs, priority=0, sort_keys=(order,)),
        text_column("what", "CHECK", 16, [row.what for row in rows], priority=0),
        text_column("found", "FOUND", 30, [row.found for row in rows], priority=0, grows=True, min_width=16, sort_keys=()),
        text_column("hint", "WHAT TO DO", 24, [row.hint for row in rows], hints, sort_keys=()),
    )
    texts = [f"{row.verdict} {row.what} {row.found} {row.hint}" for row in rows]
    table = TableView(columns, [row.what for row in rows])
    return Listing("checks", "checks", table, text_facts(texts), TEXTS, ("Nothing was checked.",),
                   lambda row, width: check_lines(rows[row], width), lambda _row: command("doctor"))  # fmt: skip


def check_lines(row: Finding, width: int) -> list[Parts]:
    """One check in full."""
    style = f"panel_{VERDICTS[row.verdict][3]}"
    lines: list[Parts] = [[(f" {row.what}  ", "panel_title"), (row.verdict.upper(), style)], [], *wrapped(row.found, width)]
    return [*lines, *heading("what to do"), *wrapped(row.hint, width, "panel_key")] if row.hint else lines


def backups_list(view: UpkeepView, now_ms: int, glyphs: str) -> Listing:
    """Places that hold backups of this workspace."""
    rows = view.backups
    looks = ["drift" if now_ms - row.at_ms > OLD_BACKUP_MS else "text" for row in rows]
    made = [age(row.at_ms, now_ms) for row in rows]
    columns = (
        text_column("made", "MADE", 5, made, looks, align="right", priority=0,
                    sort_keys=(np.array([-row.at_ms for row in rows], dtype=np.int64),)),
        text_column("place", "BACKUP IN", 32, [row.place or "not noted" for row in rows], priority=0, grows=True, min_width=16),
        sign_column("there", "IN REACH", 8, [_YES if row.is_there else _NO for row in rows], glyphs, priority=0),
        age_column("proven", "READ BACK", [row.proven_ms or row.at_ms for row in rows], now_ms),
        text_column("by", "BY", 16, [row.by for row in rows], priority=2),
        count_column("times", "TIMES", 5, [row.times for row in rows], "dim", priority=3),
    )  # fmt: skip

    def shell(row: int | None) -> str:
        return command("backup", rows[row].place or "DIR") if row is not None else command("backup", "DIR")

    texts = [f"{row.place} {row.by}" for row in rows]
    return Listing("backups", "backups", TableView(columns, [row.place or "-" for row in rows]), text_facts(texts), TEXTS,
                   EMPTY_BACKUPS, lambda row, width: backup_lines(rows[row], now_ms, width), shell)  # fmt: skip


def backup_lines(row: BackupLine, now_ms: int, width: int) -> list[Parts]:
    """One backup place and how a workspace is made from it."""
    later = f"{_time(row.proven_ms)}, {ago_text(row.proven_ms, now_ms)}" if row.proven_ms else "when it was made, not since"
    facts = [
        ("place", row.place or "an older console did not note it"),
        ("made", f"{_time(row.at_ms)}, {ago_text(row.at_ms, now_ms)}, by {row.by}"),
        ("read back", later),
        ("in reach", "yes" if row.is_there else "no: its disk is not here now"),
        ("backups there", str(row.times)),
    ]
    place = row.place or "DIR"
    todo = [("b writes it anew; only what changed", f"pumpdeck backup {place}"),
            ("p reads all of it back", f"pumpdeck backup verify {place}"),
            ("after a loss: a new workspace from it", f"pumpdeck -w NEW restore {place}")]  # fmt: skip
    return [[(" backup", "panel_title")], [], *pairs(facts, width), *heading("what next"), *commands(todo, width)]


def trips_list(view: UpkeepView, now_ms: int) -> Listing:
    """Trips that were prepared here; those that are out first."""
    rows = view.trips

    states = ["returned" if row.returned_ms else "OUT" for row in rows]
    out_first = (np.array([row.returned_ms > 0 for row in rows]), np.array([-row.prepared_ms for row in rows], dtype=np.int64))
    looks = ["dim" if row.returned_ms else "accent" for row in rows]
    columns = (
        text_column("state", "STATE", 8, states, looks, priority=0, sort_keys=out_first),
        age_column("left", "LEFT", [row.prepared_ms for row in rows], now_ms, priority=0),
        text_column("by", "BY", 16, [row.by for row in rows]),
        text_column("words", "WHAT WENT", 28, [row.words for row in rows], priority=0, grows=True, min_width=14),
        text_column("lent", "DRIVES", 20, [", ".join(row.lent) for row in rows]),
        text_column("trip", "WORKSPACE", 16, [row.trip for row in rows], "dim", priority=2),
    )
    texts = [f"{row.trip} {row.by} {row.words} {' '.join(row.lent)} {states[i]}" for i, row in enumerate(rows)]
    table = TableView(columns, [f"{row.trip} {row.prepared_ms}" for row in rows])
    return Listing("trips", "trips", table, text_facts(texts), TEXTS, EMPTY_TRIPS,
                   lambda row, width: trip_lines(rows[row], width), lambda _row: command("trip", "--help"))  # fmt: skip


def trip_lines(row: TripLine, width: int) -> list[Parts]:
    """One trip and how it comes home."""
    facts = [
        ("workspace", row.trip),
        ("left", f"{_time(row.prepared_ms)}, prepared by {row.by}"),
        ("took", row.words),
        ("drives", ", ".join(row.lent) or "no rollout now"),
        ("returned", _time(row.returned_ms) if row.returned_ms else "not yet"),
    ]
    todo = [("u takes it in when it has returned", "pumpdeck trip return DIR")]
    if row.lent and not row.returned_ms:
        lost = f'pumpdeck rollout adopt {row.lent[0]} --reason "..."'
        todo.append(("its laptop is lost: drive its rollouts here again", lost))
    return [[(" trip", "panel_title")], [], *pairs(facts, width), *heading("what next"), *commands(todo, width)]


def conflicts_list(view: UpkeepView, now_ms: int) -> Listing:
    """What workspaces differed on when they met, the newest first."""
    rows = view.conflicts
    columns = (
        age_column("found", "FOUND", [row.found_ms for row in rows], now_ms, priority=0),
        text_column("kind", "KIND", 12, [row.kind for row in rows], "drift", priority=0),
        text_column("which", "WHICH", 24, [row.which for row in rows], priority=0, grows=True, min_width=12),
        text_column("kept", "KEPT", 18, [row.kept for row in rows]),
        text_column("other", "OTHER SIDE", 18, [row.other for row in rows], "dim", priority=2),
        text_column("advice", "ADVICE", 24, [row.advice for row in rows], "dim", priority=3),
    )
    texts = [f"{row.kind} {row.which} {row.kept} {row.other} {row.workspace}" for row in rows]
    keys = [f"{row.found_ms} {row.kind} {row.which}" for row in rows]
    return Listing("conflicts", "conflicts", TableView(columns, keys), text_facts(texts), TEXTS, EMPTY_CONFLICTS,
                   lambda row, width: conflict_lines(rows[row], width), lambda _row: command("sync"))  # fmt: skip


def conflict_lines(row: ConflictLine, width: int) -> list[Parts]:
    """One thing on which two workspaces differed."""
    facts = [("which", row.which), ("kept", row.kept), ("other side", row.other), ("workspace", row.workspace),
             ("found", _time(row.found_ms))]  # fmt: skip
    lines: list[Parts] = [[(f" {row.kind}", "panel_title")], [], *pairs(facts, width)]
    return [*lines, *heading("advice"), *wrapped(row.advice, width)]


def _time(at_ms: int) -> str:
    return format_ms(at_ms // 1000 * 1000)
