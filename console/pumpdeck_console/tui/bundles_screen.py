"""Bundles: sticks above, who is awaited below; write one, take one in, mark one as lost."""

from __future__ import annotations

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical

from pumpdeck_console.operations.bundle_view import AwaitedLine, BundlesView, StickLine
from pumpdeck_fleet.core.sizes import size_words

from .cells import Parts, age, fit
from .console_screen import ConsoleScreen
from .dialogs import TextPane
from .shell_words import command
from .virtual_table import Column, TableView, VirtualTable

STICK_SIGNS = {
    "EXPORTED": ("◇", "a", "accent"), "CARRIED": ("▶", ">", "accent"), "RETURNED": ("◔", "o", "drift"),
    "TAKEN_IN": ("✓", "+", "ok"), "LOST": ("■", "#", "alarm"), "REISSUED": ("×", "x", "stale"),
}  # fmt: skip
"""Sign, ascii sign and style of a stick's state."""
EMPTY_STICKS = (
    "No stick has left yet.",
    "",
    "Sites without a network are served by people with sticks: e writes what",
    "waits for them, i takes in what they bring back, as do:",
    "pumpdeck bundle export --drive      pumpdeck bundle intake DIR",
)
EMPTY_AWAITED = ("Nobody is awaited.",)
STATE_ORDER = ("LOST", "RETURNED", "CARRIED", "EXPORTED", "REISSUED", "TAKEN_IN")
EXPORT_HINT = "folder on the stick or FILE.tar, then perhaps: for QUERY"


class BundlesScreen(ConsoleScreen):
    """Follow sticks; export, take in, hand over, lose, write again."""

    NAME = "bundles"
    QUESTIONS = ("bundles",)
    KEYS = (("e", "export"), ("i", "take in"), ("w", "who"), ("l", "lost"), ("n", "again"), ("/", "filter"), ("Tab", "pane"),
            ("c", "command"), ("q", "quit"))  # fmt: skip
    FILTER_HINT = "words match stick, device, site, state, carrier"
    BINDINGS = [
        Binding("e", "export_bundle", "write a bundle", show=False),
        Binding("i", "intake", "take a stick in", show=False),
        Binding("w", "carry", "who carries the stick", show=False),
        Binding("l", "lost", "mark the stick as lost", show=False),
        Binding("n", "reissue", "write a lost stick again", show=False),
    ]
    DEFAULT_CSS = """
    BundlesScreen #sticks { height: 45%; min-height: 6; }
    BundlesScreen #ready { height: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: BundlesView | None = None
        self._filter = ""

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield VirtualTable(id="sticks", empty=EMPTY_STICKS)
            yield TextPane([], id="ready")
            yield VirtualTable(id="awaited", empty=EMPTY_AWAITED)

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#sticks", VirtualTable)

    @property
    def awaited(self) -> VirtualTable:
        return self.query_one("#awaited", VirtualTable)

    @property
    def chosen(self) -> StickLine | None:
        row = self.table.cursor_row
        return self._shown.sticks[row] if self._shown is not None and row is not None else None

    def show_views(self) -> None:
        view = self.console.views.bundles
        if view is None or view is self._shown:
            return
        self._shown = view
        glyphs, now_ms = self.console.glyphs, self.console.now_ms()
        words = self._filter.lower().split()
        self.table.show(sticks_table(view, glyphs, now_ms), _mask([_stick_text(one) for one in view.sticks], words))
        self.awaited.show(awaited_table(view, glyphs, now_ms), _mask([_awaited_text(one) for one in view.awaited], words))
        self.query_one("#ready", TextPane).show(ready_lines(view))
        late = sum(one.deadline_ms <= now_ms for one in view.awaited)
        words_late = f", {late} late" if late else ""
        self.show_right(f"{len(view.awaited)} awaited{words_late}" + (f"  /{self._filter}" if words else ""))

    def filter_text(self) -> str:
        return self._filter

    def apply_filter(self, text: str) -> None:
        self._filter = text.strip()
        self._shown = None
        self.show_views()

    def command(self) -> str:
        return command("bundle", "sticks") if self.focused is not self.awaited else command("bundle", "awaited")

    # Actions: a place or a name is asked for, then the plan is shown

    def action_export_bundle(self) -> None:
        self.open_prompt("export", self._drive(), EXPORT_HINT)

    def action_intake(self) -> None:
        self.open_prompt("intake", self._drive(), "folder on the stick, or the file in which a device answered")

    def action_carry(self) -> None:
        if (chosen := self.chosen) is not None:
            self.open_prompt("carry", chosen.carrier, "who has it now")

    def action_lost(self) -> None:
        if (chosen := self.chosen) is not None:
            self.console.plan("bundle.lost", {"stick": chosen.stick}, "how? (goes into the audit)")

    def action_reissue(self) -> None:
        if (chosen := self.chosen) is not None:
            self.open_prompt("reissue", self._drive(), f"folder on another stick, for the load of {chosen.stick}")

    def accept_prompt(self, purpose: str, text: str) -> None:
        chosen = self.chosen
        if purpose == "export":
            place, _, query = text.partition(" for ")
            operation, name = ("bundle.tar", "file") if place.strip().endswith(".tar") else ("bundle.export", "to")
            self.console.plan(operation, {name: place.strip(), "query": query.strip()})
        elif purpose == "intake":
            self.console.plan("bundle.intake", {"folder": text})
        elif purpose == "carry" and chosen is not None:
            self.console.plan("bundle.carry", {"stick": chosen.stick, "carrier": text})
        elif purpose == "reissue" and chosen is not None:
            self.console.plan("bundle.reissue", {"stick": chosen.stick, "to": text})
        else:
            super().accept_prompt(purpose, text)

    def _drive(self) -> str:
        drives = self._shown.drives if self._shown is not None else ()
        return drives[0].folder if len(drives) == 1 else ""


def _stick_text(one: StickLine) -> str:
    return f"{one.stick} {one.state} {' '.join(one.sites)} {one.carrier} {one.note}"


def _awaited_text(one: AwaitedLine) -> str:
    return f"{one.device} {one.site} {one.state} {one.stick} {one.carrier}"


def _mask(texts: list[str], words: list[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    if not words:
        return None
    return np.array([all(word in text.lower() for word in words) for text in texts], dtype=bool)


def stick_part(state: str, width: int, glyphs: str) -> Parts:
    """A state as sign and word."""
    sign, plain, style = STICK_SIGNS.get(state, ("·", ".", "text"))
    return [(fit(f"{plain if glyphs == 'ascii' else sign} {state.replace('_', ' ')}", width), style)]


def until_part(deadline_ms: int, now_ms: int, width: int) -> Parts:
    """How long a receipt is still waited for: `12 d`, or `late`."""
    if not deadline_ms:
        return [(fit("-", width, "right"), "dim")]
    if deadline_ms <= now_ms:
        return [(fit("late", width, "right"), "alarm")]
    return [(fit(age(now_ms - (deadline_ms - now_ms), now_ms), width, "right"), "text")]


def sticks_table(view: BundlesView, glyphs: str, now_ms: int) -> TableView:
    """Sticks, the one that moved last first."""
    rows = view.sticks
    states = np.array([STATE_ORDER.index(row.state) for row in rows], dtype=np.int64)
    awaited = np.array([-row.awaited for row in rows], dtype=np.int64)
    moved = np.array([-row.moved_ms for row in rows], dtype=np.int64)
    columns = (
        Column("state", "STATE", 11, lambda i, w: stick_part(rows[i].state, w, glyphs), (states,), 0),
        Column("stick", "STICK", 14, lambda i, w: [(fit(rows[i].stick, w), "text")], (), 0),
        Column("carrier", "CARRIER", 14, lambda i, w: [(fit(rows[i].carrier or "-", w), "text")], (), 1, grows=True),
        Column("sites", "SITES", 14, lambda i, w: [(fit(", ".join(rows[i].sites), w), "text")], (), 1, grows=True),
        Column("awaited", "AWAITED", 7, lambda i, w: [(fit(f"{rows[i].awaited}/{rows[i].devices}", w, "right"), "text")],
               (awaited,), 0, "right"),
        Column("until", "UNTIL", 5, lambda i, w: until_part(rows[i].deadline_ms, now_ms, w), (), 1, "right"),
        Column("bytes", "BYTES", 7, lambda i, w: [(fit(size_words(rows[i].bytes), w, "right"), "dim")], (), 3, "right"),
        Column("moved", "MOVED", 5, lambda i, w: [(fit(age(rows[i].moved_ms, now_ms), w, "right"), "dim")], (moved,), 2, "right"),
        Column("kind", "KIND", 6, lambda i, w: [(fit(rows[i].kind, w), "dim")], (), 4),
        Column("note", "NOTE", 18, lambda i, w: [(fit(rows[i].note or rows[i].place, w), "dim")], (), 3, grows=True),
    )  # fmt: skip
    return TableView(columns, [row.stick for row in rows])


def awaited_table(view: BundlesView, glyphs: str, now_ms: int) -> TableView:
    """Devices whose receipt is outstanding, the nearest deadline first."""
    rows = view.awaited

    def where(i: int, width: int) -> Parts:
        row = rows[i]
        if not row.stick:
            return [(fit("no stick yet" if not row.left_ms else "-", width), "drift" if not row.left_ms else "dim")]
        return [(fit(row.stick, width), "alarm" if row.stick_state == "LOST" else "text")]

    columns = (
        Column("device", "AWAITED FROM", 20, lambda i, w: [(fit(rows[i].device, w), "text")], (), 0, min_width=12),
        Column("site", "SITE", 12, lambda i, w: [(fit(rows[i].site, w), "text")], (), 0),
        Column("until", "UNTIL", 5, lambda i, w: until_part(rows[i].deadline_ms, now_ms, w), (), 0, "right"),
        Column("stick", "STICK", 14, where, (), 0),
        Column("carrier", "CARRIER", 14, lambda i, w: [(fit(rows[i].carrier or "-", w), "text")], (), 1, grows=True),
        Column("state", "TASK", 12, lambda i, w: [(fit(rows[i].state.replace("_", " "), w), "dim")], (), 2),
        Column("rollout", "ROLLOUT", 13, lambda i, w: [(fit(rows[i].rollout, w), "dim")], (), 3),
    )  # fmt: skip
    del glyphs
    return TableView(columns, [row.device for row in rows])


def ready_lines(view: BundlesView) -> list[Parts]:
    """What waits for a stick, and which drives are plugged in."""
    if view.ready:
        who = "1 device waits" if view.ready == 1 else f"{view.ready} devices wait"
        first: Parts = [(f" {who} for a stick  ", "panel_title"), ("e writes one", "panel")]
    else:
        first = [(" Nothing waits for a stick", "panel_dim")]
    drives = ", ".join(f"{one.name} {size_words(one.free_bytes)} free" for one in view.drives)
    return [first, [(f" drives: {drives}" if drives else " no removable drive is plugged in", "panel_dim")]]
