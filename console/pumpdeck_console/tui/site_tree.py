"""The tree on the left: the whole fleet, kinds of site, sites; each with its worst health and counts."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.binding import Binding
from textual.message import Message

from pumpdeck_console.operations.views import HEALTH_WORDS, SiteNode, worst_of

from .cells import Parts, fit
from .lines import LinePane
from .palette import HEALTH_SIGNS, HEALTH_SIGNS_ASCII, HEALTH_STYLES

STALE_AND_WORSE = range(2, len(HEALTH_WORDS))


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One visible line of the tree."""

    kind: str
    """``fleet``, ``group`` or ``site``."""
    name: str
    counts: tuple[int, ...]
    depth: int
    is_open: bool = True

    @property
    def pumps(self) -> int:
        return sum(self.counts)


def tree_rows(nodes: tuple[SiteNode, ...], folded: frozenset[str]) -> tuple[TreeRow, ...]:
    """Visible rows: the fleet, then groups by kind of site (where there is more than one kind), then sites."""
    if not nodes:
        return ()
    rows = [TreeRow("fleet", "all sites", _sum(nodes), 0)]
    kinds = sorted({node.kind for node in nodes})
    if len(kinds) < 2:
        return (*rows, *(TreeRow("site", node.site, node.counts, 1) for node in nodes))
    for kind in kinds:
        inside = [node for node in nodes if node.kind == kind]
        is_open = kind not in folded
        rows.append(TreeRow("group", kind or "other", _sum(inside), 1, is_open))
        if is_open:
            rows += [TreeRow("site", node.site, node.counts, 2) for node in inside]
    return tuple(rows)


def tail_text(row: TreeRow) -> str:
    """Pumps that are stale or worse, of all."""
    ill = sum(row.counts[code] for code in STALE_AND_WORSE)
    return f"{ill or '-'}/{row.pumps}"


def _sum(nodes: tuple[SiteNode, ...] | list[SiteNode]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*(node.counts for node in nodes), strict=True))


class SiteTree(LinePane, can_focus=True):
    """Moving the cursor chooses what the table shows; enter or space folds a group."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "move(-10)", "page up", show=False),
        Binding("pagedown", "move(10)", "page down", show=False),
        Binding("home,g", "move(-100000)", "first", show=False),
        Binding("end,G", "move(100000)", "last", show=False),
        Binding("enter,space", "fold", "fold or unfold", show=False),
    ]
    DEFAULT_CSS = "SiteTree { width: 27; height: 1fr; }"
    FILL = "panel"

    @dataclass
    class Chosen(Message):
        """Another part of the fleet is to be shown."""

        kind: str
        name: str

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, SiteTree.Chosen)

    def __init__(self) -> None:
        super().__init__(id="sites")
        self.nodes: tuple[SiteNode, ...] = ()
        self.rows: tuple[TreeRow, ...] = ()
        self.cursor = 0
        self.top = 0
        self._folded: frozenset[str] = frozenset()
        self._tail_width = 1

    @property
    def chosen(self) -> TreeRow | None:
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def show(self, nodes: tuple[SiteNode, ...]) -> None:
        """Show new roll-ups; the cursor stays on the same site."""
        chosen = self.chosen
        self.nodes, self.rows = nodes, tree_rows(nodes, self._folded)
        self._tail_width = 1 + max((len(tail_text(row)) for row in self.rows), default=0)
        if chosen is not None:
            self.choose(chosen.kind, chosen.name)
        self.redraw()

    def choose(self, kind: str, name: str) -> None:
        """Put the cursor on a row without telling anybody; on the whole fleet if it is gone."""
        found = (i for i, row in enumerate(self.rows) if row.kind == kind and row.name == name)
        self.cursor = next(found, 0)
        self._scroll()
        self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:
        if y == 0:
            return [(fit(" SITES", width - 9), "panel_title"), (fit("ILL/ALL ", 9, "right"), "panel_dim")]
        index = self.top + y - 1
        if index >= len(self.rows):
            return []
        row = self.rows[index]
        signs = HEALTH_SIGNS_ASCII if self.glyphs == "ascii" else HEALTH_SIGNS
        worst = worst_of(row.counts)
        open_sign, folded_sign = ("-", "+") if self.glyphs == "ascii" else ("▾", "▸")
        fold = (open_sign if row.is_open else folded_sign) + " " if row.kind == "group" else ""
        room = self._tail_width
        tail = fit(tail_text(row), room, "right")
        name = fit(f"{' ' * max(0, row.depth - 1)}{fold}{row.name}", max(1, width - room - 4))
        if index == self.cursor:
            style = "cursor" if self.has_focus else "cursor_idle"
            return [(f" {signs[worst]} {name}{tail} ", style)]
        name_style = "panel" if row.kind == "site" else "panel_title"
        return [(f" {signs[worst]} ", f"panel_{HEALTH_STYLES[worst]}"), (name, name_style), (tail + " ", "panel_dim")]

    def action_move(self, step: int) -> None:
        cursor = max(0, min(self.cursor + step, len(self.rows) - 1))
        if cursor != self.cursor:
            self.cursor = cursor
            self._scroll()
            self.redraw()
            self._tell()

    def action_fold(self) -> None:
        row = self.chosen
        if row is None or row.kind != "group":
            return
        kind = "" if row.name == "other" else row.name
        self._folded = self._folded ^ {kind}
        self.rows = tree_rows(self.nodes, self._folded)
        self.redraw()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def on_resize(self) -> None:
        self._scroll()

    def on_click(self, event: events.Click) -> None:
        index = self.top + event.y - 1
        if event.y and index < len(self.rows):
            self.cursor = index
            self.redraw()
            self._tell()
            if self.rows[index].kind == "group" and event.chain > 1:
                self.action_fold()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._roll(2)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._roll(-2)

    def _roll(self, step: int) -> None:
        self.top = max(0, min(self.top + step, len(self.rows) - (self.size.height - 1)))
        self.redraw()

    def _scroll(self) -> None:
        height = max(1, self.size.height - 1)
        self.top = max(0, min(self.top, self.cursor, len(self.rows) - height))
        if self.cursor >= self.top + height:
            self.top = self.cursor - height + 1

    def _tell(self) -> None:
        if (row := self.chosen) is not None:
            self.post_message(self.Chosen(row.kind, row.name))
