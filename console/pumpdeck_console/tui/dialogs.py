"""Dialogs over a screen: help, and the plan that is shown before anything changes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from pumpdeck_console.operations.views import PlanView

from .cells import Parts, clean, fit
from .lines import LinePane


class TextPane(LinePane):
    """Lines made once for a width; scrolls when they are more than fit."""

    FILL = "panel"

    def __init__(self, lines: Sequence[Parts], id: str) -> None:
        super().__init__(id=id)
        self.lines = lines
        self.top = 0

    def show(self, lines: Sequence[Parts]) -> None:
        self.lines = lines
        self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:  # noqa: ARG002 - lines know their width already
        index = self.top + y
        return self.lines[index] if index < len(self.lines) else []

    def roll(self, step: int) -> None:
        self.top = max(0, min(self.top + step, len(self.lines) - self.size.height))
        self.redraw()


class HelpDialog(ModalScreen[None]):
    """Keys and the query language on one page."""

    HOLDS_KEYS = True
    """Keys of the screens below do nothing while this is open."""

    BINDINGS = [
        Binding("escape,question_mark,q,enter", "dismiss", "close"),
        Binding("down,j", "roll(1)", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("pagedown,space", "roll(10)", show=False),
        Binding("pageup", "roll(-10)", show=False),
    ]
    DEFAULT_CSS = """
    HelpDialog { align: center middle; background: transparent; }
    HelpDialog TextPane { width: 76; max-width: 100%; height: 34; max-height: 100%; }
    """

    def __init__(self, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        super().__init__()
        self._sections = sections

    def compose(self) -> ComposeResult:
        yield TextPane(help_lines(self._sections), id="help")

    def action_roll(self, step: int) -> None:
        self.query_one(TextPane).roll(step)

    def on_click(self) -> None:
        self.dismiss()


def help_lines(sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> list[Parts]:
    """Help as lines of one key or example and its meaning."""
    lines: list[Parts] = [[]]
    for title, rows in sections:
        lines.append([(f"  {title}", "panel_title")])
        for key, meaning in rows:
            lines.append([(fit(f"  {key}", 27), "panel_key"), (meaning, "panel")])
        lines.append([])
    lines.append([("  Esc closes this page", "panel_dim")])
    return lines


class PlanDialog(ModalScreen["str | None"]):
    """Shows a plan; closes with the reason typed (may be empty) when it is accepted, with ``None`` when not."""

    HOLDS_KEYS = True

    BINDINGS = [
        Binding("escape,n", "give_up", "leave it as it is"),
        Binding("enter,y", "accept", "go ahead"),
        Binding("c", "copy", "copy the command"),
    ]
    DEFAULT_CSS = """
    PlanDialog { align: center middle; background: transparent; }
    PlanDialog Vertical { width: 74; max-width: 100%; height: auto; max-height: 100%; }
    PlanDialog Input { height: 1; border: none; padding: 0 2; background: $panel; color: $foreground; }
    PlanDialog Input:ansi { background: ansi_default; color: ansi_default; }
    """

    def __init__(self, plan: PlanView, reason_hint: str = "") -> None:
        super().__init__()
        self.plan = plan
        self._reason_hint = reason_hint

    def compose(self) -> ComposeResult:
        lines = plan_lines(self.plan, 74)
        with Vertical():
            pane = TextPane(lines, id="plan")
            pane.styles.height = len(lines)
            yield pane
            if self._reason_hint and not self.plan.refusal:
                reason = Input(placeholder=self._reason_hint, id="reason", compact=True)
                reason.cursor_blink = False
                yield reason
            keys = TextPane([_plan_keys(self.plan), []], id="plan-keys")
            keys.styles.height = 2
            yield keys

    def on_mount(self) -> None:
        for reason in self.query(Input):
            reason.focus()

    def action_give_up(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.plan.command)

    def action_accept(self) -> None:
        if self.plan.refusal:
            self.dismiss(None)
            return
        reason = next((field.value.strip() for field in self.query(Input)), "")
        if not reason and self._reason_hint:
            return
        self.dismiss(reason)

    def on_input_submitted(self) -> None:
        self.action_accept()

    def on_click(self, event: events.Click) -> None:
        if event.widget is not None and event.widget.id == "plan-keys":
            if event.x < 16 and not self.plan.refusal:
                self.action_accept()
            else:
                self.action_give_up()


def plan_lines(plan: PlanView, width: int) -> list[Parts]:
    """A plan as lines: title, what changes, warnings or the refusal, and the same as a command."""
    lines: list[Parts] = [[], [(fit(f"  {plan.title}", width), "panel_title")], []]
    label = min(24, max((len(word) for word, _ in plan.lines), default=0) + 2)
    for word, value in plan.lines:
        for i, piece in enumerate(textwrap.wrap(value, width - label - 4) or [""]):
            lines.append([(fit("" if i else f"  {word}", label + 2), "panel_dim"), (clean(piece), "panel")])
    if plan.lines:
        lines.append([])
    for warning in plan.warnings:
        lines += [[(f"  {piece}", "panel_drift")] for piece in textwrap.wrap(clean(f"! {warning}"), width - 4)]
    if plan.refusal:
        lines += [[(f"  {piece}", "panel_alarm")] for piece in textwrap.wrap(clean(f"Refused: {plan.refusal}"), width - 4)]
    lines += [[("  $ ", "panel_dim"), (fit(plan.command, width - 6), "panel")], []]
    return lines


def _plan_keys(plan: PlanView) -> Parts:
    copy = [("   c ", "panel_key"), ("copy the command", "panel")]
    if plan.refusal:
        return [("  Esc ", "panel_key"), ("close", "panel"), *copy]
    return [("  Enter ", "panel_key"), ("go ahead", "panel"), ("   Esc ", "panel_key"), ("leave as is", "panel"), *copy]
