"""What every screen shares: header, body, notice line, prompt and key line."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, TypeVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import Widget

from .header import Header, HeaderState, KeyLine, Notice, NoticeLine
from .lines import LinePane
from .prompt import Prompt
from .virtual_table import VirtualTable

if TYPE_CHECKING:
    from .console_app import ConsoleApp

Keys = tuple[tuple[str, str], ...]
W = TypeVar("W", bound=Widget)


class ConsoleScreen(Screen[None]):
    """A screen of the console. It draws the views the app holds and asks the app for more; it never reads."""

    AUTO_FOCUS = "VirtualTable"
    NAME = ""
    """The name in ``header.SCREENS``."""
    QUESTIONS: tuple[str, ...] = ()
    """Views this screen needs besides those of the header."""
    WATCHED: tuple[str, ...] = ()
    """Views that change without the store: asked every second while this screen is in front."""
    KEYS: Keys = ()
    FILTER_HINT = ""
    """What the filter prompt says while it is empty; no filter without it."""
    DEFAULT_CSS = "ConsoleScreen { layout: vertical; } ConsoleScreen #body { height: 1fr; }"

    @property
    def console(self) -> ConsoleApp:
        from .console_app import ConsoleApp  # deferred: the app imports its screens

        assert isinstance(self.app, ConsoleApp)
        return self.app

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(id="body"):
            yield from self.compose_body()
        yield NoticeLine()
        yield Prompt()
        yield KeyLine(self.KEYS)

    def compose_body(self) -> ComposeResult:
        """The widgets between header and key line."""
        raise NotImplementedError

    def show_views(self) -> None:
        """Draw what the app holds; called on start and whenever a view of this screen arrived."""
        raise NotImplementedError

    @property
    def table(self) -> VirtualTable:
        """The table that export and filter act on."""
        raise NotImplementedError

    def command(self) -> str:
        """The shell command that shows what this screen shows."""
        raise NotImplementedError

    def filter_text(self) -> str:
        """The filter in force."""
        return ""

    def apply_filter(self, text: str) -> None:
        """Filter while the operator types."""

    def jump_to(self, word: str) -> bool:
        """Go to the thing named ``word`` on this screen; false if there is none."""
        return self.table.move_to_key(word)

    # Shared widgets

    def show_header(self, state: HeaderState) -> None:
        if (header := self._find(Header)) is not None:
            header.show(state)

    def show_notice(self, notice: Notice | None) -> None:
        if (line := self._find(NoticeLine)) is not None:
            line.show(notice)

    def show_right(self, text: str) -> None:
        """Short text at the right end of the key line."""
        if (line := self._find(KeyLine)) is not None:
            line.show(text)

    def _find(self, kind: type[W]) -> W | None:
        try:
            return self.query_one(kind)
        except NoMatches:
            return None

    def open_prompt(self, purpose: str, text: str = "", hint: str = "") -> None:
        self.query_one(Prompt).open(purpose, text, hint)

    def on_prompt_typed(self, event: Prompt.Typed) -> None:
        self.apply_filter(event.text)

    def on_prompt_closed(self, event: Prompt.Closed) -> None:
        self.table.focus()
        if event.purpose == "filter":
            self.apply_filter(event.text if event.accepted else "")
        elif event.accepted:
            self.accept_prompt(event.purpose, event.text.strip())

    def accept_prompt(self, purpose: str, text: str) -> None:  # noqa: ARG002 - for screens that ask for more
        """A prompt other than the filter was answered."""
        self.console.jump(text)

    def on_mount(self) -> None:
        self.table.focus()
        self.console.arrive_on(self)

    def on_screen_resume(self) -> None:
        if self.is_mounted:
            self.console.arrive_on(self)

    def repaint(self) -> None:
        """Draw everything anew (another theme or glyph mode)."""
        for pane in self.query(LinePane):
            pane.forget()

    def csv_text(self) -> str:
        """The table as shown: its columns, its filter, its order."""
        table = self.table
        columns = [column for column in table.view.columns if column.key != "spark"]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["key", *(column.key for column in columns)])
        for row in table.order.tolist():
            cells = ["".join(part for part, _ in column.draw(row, max(column.width, 80))).strip() for column in columns]
            writer.writerow([table.view.keys[row], *cells])
        return text.getvalue()
