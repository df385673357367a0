"""The model card of a version: Markdown as lines, wrapped, with headings marked."""

from __future__ import annotations

import textwrap

from textual.binding import Binding

from pumpdeck_console.operations.views import ModelCardView
from pumpdeck_fleet.core.merging import version_name

from .cells import Parts, clean
from .scroll_dialog import ScrollDialog
from .shell_words import command


class CardDialog(ScrollDialog):
    """Scrolls; Esc closes."""

    BINDINGS = [Binding("m", "dismiss", "close", show=False)]

    def __init__(self, card: ModelCardView) -> None:
        shown = command("models", "show", card.model, version_name(card.version), "--card")
        super().__init__(lambda width: card_lines(card, width), shown)
        self.card = card


def card_lines(card: ModelCardView, width: int) -> list[Parts]:
    """The card's Markdown as lines of at most `width` cells: headings stand out, table rows lose their bars."""
    title = f"  {card.model} v{version_name(card.version)}"
    lines: list[Parts] = [[(title, "panel_key"), ("   Esc closes, G goes to the end", "panel_dim")]]
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
