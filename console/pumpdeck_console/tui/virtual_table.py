"""A table for tens of thousands of rows: only visible lines are built, each once.

Rows are never copied. A ``TableView`` holds columns that draw a cell for a row number; ``order`` is an array of row
numbers after filter and sort. The header stays; columns that do not fit are left out by priority, so there is no
sideways scrolling. Filter, sort and reload keep the cursor on the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip

from .cells import Parts, fit, strip_of
from .lines import LinePane

Order = npt.NDArray[np.intp]
Draw = Callable[[int, int], Parts]

ROW_CACHE_SIZE = 1_000
GAP = 2
"""Cells between columns."""
PLAIN_STYLES = ("text", "dim", "title")
"""Styles that say nothing; on the cursor's row they give way to its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column: how a cell is drawn and by what it sorts."""

    key: str
    title: str
    width: int
    draw: Draw
    """(row number, width) -> parts of exactly that width."""
    sort_keys: tuple[npt.NDArray[np.generic], ...] = ()
    """Arrays of length n, most significant first; NaN sorts last either way."""
    priority: int = 1
    """0 is always shown; the highest numbers go first when the table is narrow."""
    align: str = "left"
    descending_first: bool = False
    grows: bool = False
    """Takes the width that is left over."""
    min_width: int = 0
    """Width down to which the column may shrink before it is left out; 0 is ``width``."""


@dataclass(frozen=True, slots=True, eq=False)
class TableView:
    """What a table shows: columns over n rows, each row with a lasting key."""

    columns: tuple[Column, ...]
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)


EMPTY_TABLE = TableView((), ())


def sorted_order(column: Column, descending: bool, size: int) -> Order:
    """Row numbers 0..size-1 ordered by the column's keys; stable, missing numbers last in both directions."""
    if not column.sort_keys or size == 0:
        return np.arange(size)
    keys: list[npt.NDArray[np.generic]] = []
    for position, key in enumerate(column.sort_keys):
        flip = descending and position == 0
        keys.append(-key.astype(np.float64) if flip else key)
    if len(keys) == 1:
        return np.argsort(keys[0], kind="stable")
    return np.lexsort(tuple(reversed(keys)))


class VirtualTable(LinePane, can_focus=True):
    """The table widget. ``show`` gives it rows; ``keep`` filters them; ``sort_by`` orders them."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "page up", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", "page down", show=False),
        Binding("home,g", "end(-1)", "first", show=False),
        Binding("end,G", "end(1)", "last", show=False),
        Binding("enter", "open", "open", show=False),
        Binding("s", "next_sort(1)", "sort by next column", show=False),
        Binding("S", "next_sort(-1)", "sort by previous column", show=False),
        Binding("r", "reverse_sort", "reverse the order", show=False),
    ]
    DEFAULT_CSS = "VirtualTable { height: 1fr; width: 1fr; }"

    @dataclass
    class CursorMoved(Message):
        """The cursor stands on another row (or on none)."""

        table: VirtualTable
        key: str | None

        @property
        def control(self) -> VirtualTable:
            return self.table

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, VirtualTable.CursorMoved) and message.table is self.table

    @dataclass
    class Opened(Message):
        """Enter or a second click on a row."""

        table: VirtualTable
        key: str

        @property
        def control(self) -> VirtualTable:
            return self.table

    def __init__(self, *, id: str | None = None, empty: Sequence[str] = ()) -> None:
        super().__init__(id=id)
        self.view = EMPTY_TABLE
        self.order: Order = np.arange(0)
        self.cursor = 0
        self.top = 0
        self.sort_key = ""
        self.descending = False
        self.empty_lines: Sequence[str] = empty
        """What stands where rows would: it tells what to do next."""
        self._mask: npt.NDArray[np.bool_] | None = None
        self._row_strips: dict[tuple[int, str], Strip] = {}
        self._layout: list[tuple[Column, int]] = []
        self._layout_width = -1

    # What is shown

    def show(self, view: TableView, mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Show new rows; the cursor stays on the row with the same key, the sort stays."""
        key = self.cursor_key
        self.view, self._mask = view, mask
        if not any(column.key == self.sort_key for column in view.columns):
            self.sort_key = view.columns[0].key if view.columns else ""
        self._layout_width = -1
        self._row_strips.clear()
        self._arrange(key)

    def keep(self, mask: npt.NDArray[np.bool_] | None) -> None:
        """Show only rows where ``mask`` (bool[n]) is true; ``None`` shows all."""
        key = self.cursor_key
        self._mask = mask
        self._arrange(key)

    def sort_by(self, key: str, descending: bool) -> None:
        """Order rows by a column; the cursor stays on its row."""
        cursor_key = self.cursor_key
        self.sort_key, self.descending = key, descending
        self._layout_width = -1
        self._arrange(cursor_key)

    def forget(self) -> None:
        self._row_strips.clear()
        self._layout_width = -1
        super().forget()

    @property
    def cursor_row(self) -> int | None:
        """Row number under the cursor."""
        return int(self.order[self.cursor]) if 0 <= self.cursor < len(self.order) else None

    @property
    def cursor_key(self) -> str | None:
        row = self.cursor_row
        return self.view.keys[row] if row is not None and row < len(self.view) else None

    @property
    def body_height(self) -> int:
        return max(0, self.size.height - 1)

    def move_to_key(self, key: str) -> bool:
        """Put the cursor on the row with ``key``; false if it is not shown."""
        position = self._position_of(key)
        if position is None:
            return False
        self._move_cursor(position)
        return True

    # Arrangement

    def _arrange(self, key: str | None) -> None:
        column = next((column for column in self.view.columns if column.key == self.sort_key), None)
        order = sorted_order(column, self.descending, len(self.view)) if column else np.arange(len(self.view))
        if self._mask is not None and len(self._mask) == len(self.view):
            order = order[self._mask[order]]
        self.order = order
        position = self._position_of(key) if key is not None else 0
        self.cursor = min(self.cursor, max(0, len(order) - 1)) if position is None else position
        self._scroll_to_cursor()
        self.redraw()
        if self.cursor_key != key:
            self.post_message(self.CursorMoved(self, self.cursor_key))

    def _position_of(self, key: str) -> int | None:
        try:
            row = self.view.keys.index(key)
        except ValueError:
            return None
        found = np.flatnonzero(self.order == row)
        return int(found[0]) if len(found) else None

    def _scroll_to_cursor(self) -> bool:
        """Bring the cursor's line into sight; true if the table scrolled."""
        height, old = self.body_height, self.top
        top = min(self.top, self.cursor)
        if height and self.cursor >= top + height:
            top = self.cursor - height + 1
        self.top = max(0, min(top, len(self.order) - height))
        return self.top != old

    def on_resize(self) -> None:
        self._scroll_to_cursor()

    # Drawing

    def draw_strip(self, y: int, width: int) -> Strip:
        if self._layout_width != width:
            self._layout, self._layout_width = fit_columns(self.view.columns, width - 2), width
            self._row_strips.clear()
        if y == 0:
            return self._header_strip(width)
        position = self.top + y - 1
        if position >= len(self.order):
            return self._empty_strip(y, width)
        row = int(self.order[position])
        look = "" if position != self.cursor else "cursor" if self.has_focus else "cursor_idle"
        strip = self._row_strips.get((row, look))
        if strip is None:
            if len(self._row_strips) > ROW_CACHE_SIZE:
                self._row_strips.clear()
            strip = self._row_strips[row, look] = self._row_strip(row, width - 1, look)
        return Strip([*strip, self._scrollbar(y)], width)

    def _row_strip(self, row: int, width: int, look: str) -> Strip:
        styles = self.palette.styles
        tint = Style(bgcolor=styles[look].bgcolor, bold=True) if look and self.palette.tints_cursor else None
        parts: list[tuple[str, Style]] = [(" ", styles[look or self.FILL])]
        for column, cells in self._layout:
            for text, name in (*column.draw(row, cells), ("  ", "text")):
                style = styles[name]
                if look:
                    style = styles[look] if tint is None or name in PLAIN_STYLES else style + tint
                parts.append((text, style))
        return strip_of(parts, width, styles[look or self.FILL])

    def _header_strip(self, width: int) -> Strip:
        styles = self.palette.styles
        arrow = ("v" if self.descending else "^") if self.glyphs == "ascii" else ("▼" if self.descending else "▲")
        parts: list[tuple[str, Style]] = [(" ", styles["panel"])]
        for column, cells in self._layout:
            sorted_here = column.key == self.sort_key
            title = fit(column.title + (arrow if sorted_here else ""), cells, column.align)
            parts += [(title, styles["panel_title" if sorted_here else "panel_dim"]), ("  ", styles["panel"])]
        return strip_of(parts, width, styles["panel"])

    def _empty_strip(self, y: int, width: int) -> Strip:
        styles = self.palette.styles
        line = ""
        if not len(self.order) and 2 <= y < 2 + len(self.empty_lines):
            line = "  " + self.empty_lines[y - 2]
        return strip_of([(fit(line, width), styles["dim"])], width, styles[self.FILL])

    def _scrollbar(self, y: int) -> Segment:
        styles, height, rows = self.palette.styles, self.body_height, len(self.order)
        if rows <= height:
            return Segment(" ", styles[self.FILL])
        size = max(1, height * height // rows)
        start = (height - size) * self.top // max(1, rows - height)
        inside = start <= y - 1 < start + size
        glyph = ("#" if inside else "|") if self.glyphs == "ascii" else ("┃" if inside else "│")
        return Segment(glyph, styles["dim" if inside else "rule"])

    # Keys and mouse

    def _move_cursor(self, position: int) -> None:
        position = max(0, min(position, len(self.order) - 1))
        if position == self.cursor or not len(self.order):
            return
        old, self.cursor = self.cursor, position
        if self._scroll_to_cursor():
            self.redraw()
        else:
            self.redraw_lines(old - self.top + 1, position - self.top + 1)
        self.post_message(self.CursorMoved(self, self.cursor_key))

    def action_move(self, step: int) -> None:
        self._move_cursor(self.cursor + step)

    def action_page(self, direction: int) -> None:
        step = max(1, self.body_height - 1) * direction
        top = max(0, min(self.top + step, len(self.order) - self.body_height))
        has_rolled, self.top = top != self.top, top
        self._move_cursor(self.cursor + step)
        if has_rolled:
            self.redraw()

    def action_end(self, direction: int) -> None:
        self._move_cursor(0 if direction < 0 else len(self.order) - 1)

    def action_open(self) -> None:
        if (key := self.cursor_key) is not None:
            self.post_message(self.Opened(self, key))

    def action_next_sort(self, step: int) -> None:
        columns = [column for column in self.view.columns if column.sort_keys]
        if not columns:
            return
        index = next((i for i, column in enumerate(columns) if column.key == self.sort_key), -1)
        column = columns[(index + step) % len(columns)]
        self.sort_by(column.key, column.descending_first)

    def action_reverse_sort(self) -> None:
        self.sort_by(self.sort_key, not self.descending)

    def on_focus(self) -> None:
        self._redraw_cursor()

    def on_blur(self) -> None:
        self._redraw_cursor()

    def _redraw_cursor(self) -> None:
        self.redraw_lines(self.cursor - self.top + 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-3)

    def _scroll(self, step: int) -> None:
        """Scroll without moving the cursor off the sight: it is pushed along at the edges."""
        top = max(0, min(self.top + step, len(self.order) - self.body_height))
        if top == self.top:
            return
        self.top = top
        self.cursor = max(top, min(self.cursor, top + self.body_height - 1))
        self.redraw()
        self.post_message(self.CursorMoved(self, self.cursor_key))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._click_header(event.x)
            return
        position = self.top + event.y - 1
        if position >= len(self.order):
            return
        if position == self.cursor and event.chain > 1:
            self.action_open()
        self._move_cursor(position)

    def _click_header(self, x: int) -> None:
        left = 1
        for column, cells in self._layout:
            left += cells + GAP
            if x < left:
                if column.key == self.sort_key:
                    self.action_reverse_sort()
                elif column.sort_keys:
                    self.sort_by(column.key, column.descending_first)
                return


def fit_columns(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Columns with their widths that fit into ``width``.

    Columns are taken in by priority at their least width, those that do not fit are left out; then they get their full
    width by priority, and what is left over goes to the growing ones.
    """
    taken: dict[int, int] = {}
    left = width + GAP
    for i in sorted(range(len(columns)), key=lambda i: (columns[i].priority, i)):
        least = columns[i].min_width or columns[i].width
        if columns[i].priority == 0 or least + GAP <= left:
            taken[i] = least
            left -= least + GAP
    for i in taken:
        extra = max(0, min(columns[i].width - taken[i], left))
        taken[i] += extra
        left -= extra
    growing = [i for i in taken if columns[i].grows]
    for n, i in enumerate(growing):
        extra = max(0, left) // (len(growing) - n)
        taken[i] += extra
        left -= extra
    return [(columns[i], taken[i]) for i in sorted(taken)]
