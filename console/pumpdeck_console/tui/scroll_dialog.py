"""A page over a screen that scrolls and closes: model card, comparison, one run, one row of a list in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from .cells import Parts
from .dialogs import TextPane

WIDTH = 100

MakeLines = Callable[[int], Sequence[Parts]]
"""Width in cells -> the lines of the page."""


class ScrollDialog(ModalScreen[None]):
    """Scrolls; Esc closes; ``c`` copies the command that shows the same."""

    BINDINGS = [
        Binding("escape,q,enter", "dismiss", "close"),
        Binding("down,j", "roll(1)", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("pagedown,space", "roll(20)", show=False),
        Binding("pageup", "roll(-20)", show=False),
        Binding("g,home", "roll(-100000)", show=False),
        Binding("G,end", "roll(100000)", show=False),
        Binding("c", "copy", "copy the command", show=False),
    ]
    DEFAULT_CSS = """
    ScrollDialog { align: center middle; background: transparent; }
    ScrollDialog TextPane { width: 104; max-width: 100%; height: 100%; }
    """

    def __init__(self, make_lines: MakeLines, command: str = "") -> None:
        super().__init__()
        self._make_lines, self._command = make_lines, command

    def compose(self) -> ComposeResult:
        width = min(WIDTH, max(self.app.size.width - 4, 20))
        lines = list(self._make_lines(width))
        if self._command:
            shown: Parts = [("  $ ", "panel_dim"), (self._command, "panel")]
            lines += [[], shown, [("  Esc closes, c copies the command", "panel_dim")]]
        yield TextPane(lines, id="page")

    def action_roll(self, step: int) -> None:
        self.query_one(TextPane).roll(step)

    def action_copy(self) -> None:
        if self._command:
            self.app.copy_to_clipboard(self._command)
