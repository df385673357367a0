"""The model card of a version over the models screen: Markdown as lines, wrapped, with headings marked."""

from __future__ import annotations

import textwrap

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from pumpdeck_console.operations.views import ModelCardView

from .cells import Parts, clean
from .dialogs import TextPane

WIDTH = 100


class CardDialog(ModalScreen[None]):
    """Scrolls; Esc closes."""

    BINDINGS = [
        Binding("escape,q,m,enter", "dismiss", "close"),
        Binding("down,j", "roll(1)", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("pagedown,space", "roll(20)", show=False),
        Binding("pageup", "roll(-20)", show=False),
        Binding("g,home", "roll(-100000)", show=False),
        Binding("G,end", "roll(100000)", show=False),
    ]
    DEFAULT_CSS = """
    CardDialog { align: center middle; background: transparent; }
    CardDialog TextPane { width: 104; max-width: 100%; height: 100%; }
    """

    def __init__(self, card: ModelCardView) -> None:
        super().__init__()
        self.card = card

    def compose(self) -> ComposeResult:
        width = min(WIDTH, max(self.app.size.width - 4, 20))
        yield TextPane(card_lines(self.card, width), id="card")

    def action_roll(self, step: int) -> None:
        self.query_one(TextPane).roll(step)


def card_lines(card: ModelCardView, width: int) -> list[Parts]:
    """The card's Markdown as lines of at most `width` cells: headings stand out, table rows lose their bars."""
    lines: list[Parts] = [[(f"  {card.model} v{card.version}", "panel_key"), ("   Esc closes, G goes to the end", "panel_dim")]]
    for raw in card.text.splitlines():
        text = clean(raw)
        if set(text) and set(text) <= set("|-"):
            continue
        if text.startswith("#"):
            lines += [[], [(f"  {text.lstrip('# ')}", "panel_title")]]
            continue
        if text.startswith("|"):
            text = "   ".join(cell.strip() for cell in text.strip("|").split("|"))
        hanging = "    " if text.startswith("- ") or raw.startswith("|") else "  "
        wrapped = textwrap.wrap(text, width, initial_indent="  ", subsequent_indent=hanging)
        lines += [[(line, "panel")] for line in wrapped] or [[]]
    return lines
