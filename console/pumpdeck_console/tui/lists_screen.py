"""A screen with several lists of which one is on show, a page about the row under the cursor, and what is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical

from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.query_fields import Vocabulary

from .cells import Parts
from .console_screen import ConsoleScreen
from .dialogs import TextPane
from .filtering import Mask, query_mask
from .lines import LinePane
from .live_pane import LivePane
from .scroll_dialog import ScrollDialog
from .task_log import TaskLog
from .virtual_table import TableView, VirtualTable

PANE_FROM = 100
"""Width from which the page about a row stands beside the list."""
PANE, PANE_NARROW, ROOMY_FROM = 54, 46, 140
"""Cells of the page about a row, and of the one on terminals narrower than the last."""
_NOT_READ = ("Reading ...",)


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """One list: its rows as a table, what a query sees of them, and what is said about one."""

    name: str
    title: str
    table: TableView
    facts: Sequence[Mapping[str, object]]
    known: Vocabulary
    empty: Sequence[str]
    detail: Callable[[int, int], Sequence[Parts]]
    """(row number, width) -> the page about that row."""
    command: Callable[[int | None], str]
    """(row number, ``None`` for the whole list) -> the shell command that shows the same."""
    hint: str = "words of a line"


class ListTabs(LinePane):
    """Names and sizes of the lists; the one on show stands out."""

    DEFAULT_CSS = "ListTabs { height: 1; }"
    FILL = "panel"

    def __init__(self) -> None:
        super().__init__(id="lists")
        self.entries: tuple[tuple[str, int], ...] = ()
        self.current = 0
        self._places: list[tuple[int, int]] = []

    def show(self, entries: tuple[tuple[str, int], ...], current: int) -> None:
        self.entries, self.current = entries, current
        self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:  # noqa: ARG002 - one line, cut where it ends
        parts: list[tuple[str, str]] = []
        self._places, x = [], 0
        for number, (title, count) in enumerate(self.entries):
            on = number == self.current
            text = f" {title.upper() if on else title} {count:,} "
            parts.append((text, "panel_key" if on else "panel_dim"))
            self._places.append((x, x + len(text)))
            x += len(text)
        return [*parts, ("   v ", "panel_key"), ("next list", "panel_dim")]

    def on_click(self, event: events.Click) -> None:
        for number, (start, end) in enumerate(self._places):
            if start <= event.x < end and isinstance(self.screen, ListsScreen):
                self.screen.choose_list(number)


class ListsScreen(ConsoleScreen):
    """Subclasses make ``listings`` from the app's views; lists, filter, page and live pane work by themselves."""

    BINDINGS = [
        Binding("v", "next_list(1)", "next list", show=False),
        Binding("V", "next_list(-1)", "previous list", show=False),
        Binding("escape", "put_away", "clear the filter", show=False),
    ]
    FILTER_HINT = "words of a line"
    DEFAULT_CSS = f"""
    ListsScreen #page {{ width: {PANE}; height: 1fr; }}
    ListsScreen #summary {{ height: 1; }}
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: object = None
        self._listings: tuple[Listing, ...] = ()
        self._current = 0
        self._filters: dict[str, str] = {}
        self._hidden_log: object = None

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield LivePane()
            yield TextPane([], id="summary")
            yield ListTabs()
            with Horizontal():
                yield VirtualTable(id="rows", empty=_NOT_READ)
                yield TextPane([], id="page")

    # What subclasses say

    def source(self) -> object:
        """What ``listings`` is made from; another object means other rows."""
        raise NotImplementedError

    def listings(self) -> tuple[Listing, ...]:
        """The lists over the newest view, always in the same order."""
        raise NotImplementedError

    def summary(self) -> Parts:
        """One line above the lists."""
        raise NotImplementedError

    def row_changed(self) -> None:
        """The cursor stands on another row; for screens that read more about it."""

    # What they share

    @property
    def table(self) -> VirtualTable:
        return self.query_one("#rows", VirtualTable)

    @property
    def listing(self) -> Listing | None:
        """The list on show."""
        return self._listings[self._current] if self._current < len(self._listings) else None

    @property
    def _page_width(self) -> int:
        return PANE if self.app.size.width >= ROOMY_FROM else PANE_NARROW

    @property
    def row(self) -> int | None:
        """Number of the row under the cursor."""
        return self.table.cursor_row if self.listing is not None else None

    def show_views(self) -> None:
        source = self.source()
        if source is not None and source is not self._shown:
            self._shown = source
            self._listings = self.listings()
            self._show_list()
        self.show_task()

    def show_task(self) -> None:
        """Draw what is under way, once more."""
        pane = self._find(LivePane)
        if pane is not None:
            pane.show(self.task_log(), self.console.now_ms())

    def task_log(self) -> TaskLog | None:
        """The story to show: that of the newest action, until it is put away."""
        log = self.console.desk.log
        return None if log is self._hidden_log else log

    def _show_list(self) -> None:
        listing = self.listing
        if listing is None:
            return
        self.query_one("#summary", TextPane).show([self.summary()])
        self.query_one(ListTabs).show(tuple((one.title, len(one.table)) for one in self._listings), self._current)
        text = self.filter_text()
        self.table.empty_lines = (f"Nothing matches {text}", "", "Esc clears the filter.") if text else listing.empty
        self.table.show(listing.table, self._mask(listing, text))
        self._show_count()
        self.show_page()

    def _mask(self, listing: Listing, text: str) -> Mask | None:
        try:
            return query_mask(listing.facts, text, listing.known, self.console.now_ms())
        except PumpdeckError:
            return None

    def _show_count(self) -> None:
        listing = self.listing
        if listing is not None:
            shown, text = len(self.table.order), self.filter_text()
            count = f"{shown:,}" if shown == len(listing.table) else f"{shown:,} of {len(listing.table):,}"
            self.show_right(f"{listing.title}: {count}" + (f"  /{text}" if text else ""))

    def show_page(self) -> None:
        """Draw the page about the row under the cursor."""
        listing, row = self.listing, self.row
        lines = listing.detail(row, self._page_width) if listing is not None and row is not None else []
        self.query_one("#page", TextPane).show(lines)

    def choose_list(self, number: int) -> None:
        """Put another list on show."""
        self._current = number % max(1, len(self._listings))
        self.table.top = self.table.cursor = 0
        self._show_list()
        self.row_changed()

    def action_next_list(self, step: int) -> None:
        self.choose_list(self._current + step)

    def action_put_away(self) -> None:
        log = self.console.desk.log
        if log is not None and not log.is_running and log is not self._hidden_log:
            self._hidden_log = log
            self.show_task()
        elif self.filter_text():
            self.apply_filter("")

    def open_prompt(self, purpose: str, text: str = "", hint: str = "") -> None:
        listing = self.listing
        super().open_prompt(purpose, text, listing.hint if purpose == "filter" and listing is not None else hint)

    def filter_text(self) -> str:
        return self._filters.get(self.listing.name, "") if self.listing is not None else ""

    def apply_filter(self, text: str) -> None:
        listing, text = self.listing, text.strip()
        if listing is None:
            return
        try:
            query_mask(listing.facts[:1], text, listing.known, self.console.now_ms())
        except PumpdeckError as error:
            self.show_right(f"? {error.what}")
            return
        self._filters[listing.name] = text
        self._show_list()

    def on_virtual_table_cursor_moved(self) -> None:
        self.show_page()
        self.row_changed()

    def on_virtual_table_opened(self) -> None:
        listing, row = self.listing, self.row
        if listing is not None and row is not None:
            self.app.push_screen(ScrollDialog(lambda width: listing.detail(row, width), listing.command(row)))

    def on_resize(self) -> None:
        page = self.query_one("#page")
        page.display, page.styles.width = self.app.size.width >= PANE_FROM, self._page_width
        self.show_page()

    def command(self) -> str:
        return self.listing.command(self.row) if self.listing is not None else "pumpdeck"
