"""Views that open a page over the screen: which page shows which view."""

from __future__ import annotations

from textual.screen import ModalScreen

from pumpdeck_console.operations.views import ModelCardView
from pumpdeck_fleet.core.merging import version_name

from .scroll_dialog import ScrollDialog
from .shell_words import command

ONE_SHOT = frozenset({"plan", "card", "comparison", "run_diff", "run"})
"""Questions a person asked once: their failure is said once and leaves the screens up to date."""


def page_of(name: str, view: object) -> ModalScreen[None] | None:
    """The page for the answer to the question ``name``; ``None`` for what screens show themselves."""
    if isinstance(view, ModelCardView):
        from .card_dialog import CardDialog  # deferred: few open one

        return CardDialog(view)
    if name == "comparison":
        from pumpdeck_console.operations.comparing import Comparison  # deferred: as above

        from .compare_lines import compare_lines

        assert isinstance(view, Comparison)
        names = (version_name(view.before), version_name(view.after))
        return ScrollDialog(lambda width: compare_lines(view, width), command("models", "compare", view.model, *names))
    if name == "run_diff":
        from pumpdeck_console.operations.run_diff import RunDiff  # deferred: as above

        from .run_lines import diff_lines

        assert isinstance(view, RunDiff)
        return ScrollDialog(lambda width: diff_lines(view, width), command("runs", "diff", view.before[:12], view.after[:12]))
    return None
