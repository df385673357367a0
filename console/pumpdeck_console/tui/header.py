"""The two lines at the top, the key line at the bottom and the notice line above it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rich.cells import cell_len
from textual import events

from pumpdeck_console.operations.views import HEALTH_WORDS, NO_HEALTH, LinkView, RolloutRow

from .cells import Parts, clock_text, fit, progress_bar, sides
from .lines import LinePane
from .palette import HEALTH_LABELS, HEALTH_SIGNS, HEALTH_SIGNS_ASCII, HEALTH_STYLES

SCREENS = (("1", "fleet", "Fleet"), ("2", "models", "Models"), ("3", "rollouts", "Rollouts"), ("4", "audit", "Audit"),
           ("5", "bundles", "Bundles"), ("6", "runs", "Runs"), ("7", "trust", "Trust"), ("8", "upkeep", "Upkeep"))  # fmt: skip
"""Key, screen name and title of every screen there is."""


WIDE, WIDEST = 112, 140
"""Widths from which the tabs have room around their words, and from which everything does."""


@dataclass(frozen=True, slots=True)
class HeaderState:
    """What the header shows, on every screen the same."""

    title: str = ""
    screen: str = "fleet"
    as_of_ms: int = -1
    counts: tuple[int, ...] = ()
    """Pumps per health code, the last for pumps without a fact."""
    rollout: RolloutRow | None = None
    """The rollout under way, if there is one."""
    link: LinkView | None = None
    is_stale: bool = False
    task: str = ""
    """What the worker is doing, with progress."""


class Header(LinePane):
    """Where am I, how is the fleet, what is under way."""

    DEFAULT_CSS = "Header { height: 2; }"
    FILL = "bar"

    def __init__(self) -> None:
        super().__init__(id="header")
        self.state = HeaderState()
        self._tabs: list[tuple[int, int, str]] = []

    def show(self, state: HeaderState) -> None:
        if state != self.state:
            self.state = state
            self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:
        return self._places(width) if y == 0 else self._figures(width)

    def _places(self, width: int) -> Parts:
        state = self.state
        is_wide = width >= WIDE
        left: list[tuple[str, str]] = [(" Pumpdeck " if is_wide else " ", "bar_title")]
        shown = fit(state.title, min(24, cell_len(state.title)))
        if shown and width >= WIDE + cell_len(shown) + 2:
            left.append((shown + "  ", "bar_dim"))
        self._tabs, x = [], sum(cell_len(text) for text, _ in left)
        for key, name, title in SCREENS:
            # Narrow: the time of the figures, and that they are old, must keep their place.
            word = f" {key} {title} " if is_wide else f"{key}{title} "
            left.append((word, "bar_on" if name == state.screen else "bar"))
            self._tabs.append((x, x + len(word), name))
            x += len(word)
        mark = "STALE " if state.is_stale else ""
        before = "as of " if is_wide or not mark else ""
        zone = "UTC " if width >= WIDEST else ""
        right = [(f"{mark}{before}{clock_text(state.as_of_ms)} {zone}", "warn_bar" if mark else "bar_dim")]
        return sides(left, right, width, "bar")

    def _figures(self, width: int) -> Parts:
        left = health_parts(self.state.counts, self.glyphs, width < 100)
        right: list[tuple[str, str]] = []
        rollout, link = self.state.rollout, self.state.link
        if self.state.task:
            right.append((f"{self.state.task}  ", "bar_key"))
        if rollout is not None:
            bar = progress_bar(rollout.progress, 10, self.glyphs)
            right.append((f"{rollout.rollout_id} {bar} {rollout.progress * 100:3.0f} %  ", "bar"))
        if link is not None and width >= 64:
            style = "bar_dim" if link.reached == link.devices else "bar"
            right.append((f"{link.reached}/{link.devices} devices  outbox {link.outbox} ", style))
        used = sum(cell_len(text) for text, _ in left)
        while right and used + sum(cell_len(text) for text, _ in right) >= width:
            right.pop()
        return sides(left, right, width, "bar")

    def on_click(self, event: events.Click) -> None:
        for start, end, name in self._tabs:
            if event.y == 0 and start <= event.x < end:
                self.app.call_later(self.app.run_action, f"go('{name}')")


def health_parts(counts: tuple[int, ...], glyphs: str, short: bool) -> list[tuple[str, str]]:
    """Counts worst first, as sign, number and word; healths nobody has are left out."""
    signs = HEALTH_SIGNS_ASCII if glyphs == "ascii" else HEALTH_SIGNS
    parts: list[tuple[str, str]] = [(" ", "bar")]
    for code in [*reversed(range(len(HEALTH_WORDS))), NO_HEALTH]:
        if counts and counts[code]:
            word = "no facts" if code == NO_HEALTH else HEALTH_LABELS[code]
            parts.append((f"{signs[code]} {counts[code]:,} {word}".strip(), f"bar_{HEALTH_STYLES[code]}"))
            parts.append((" " if short else "   ", "bar"))
    if len(parts) == 1:
        parts.append(("no pumps yet", "bar_dim"))
    return parts


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the operator. ``warn`` and ``error`` stay until their cause is gone."""

    text: str
    level: str = "info"
    """``info``, ``warn`` or ``error``."""


class NoticeLine(LinePane):
    """Shows one notice; takes no room without one. A lasting banner comes back after a passing info."""

    DEFAULT_CSS = "NoticeLine { height: 1; display: none; }"
    FILL = "bar"
    STYLES = {"info": "bar_key", "warn": "warn_bar", "error": "error_bar"}
    SIGNS = {"info": "", "warn": "! ", "error": "!! "}

    def __init__(self) -> None:
        super().__init__(id="notice")
        self.notice: Notice | None = None

    def show(self, notice: Notice | None) -> None:
        if notice != self.notice:
            self.notice = notice
            self.display = notice is not None
            self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:
        notice = self.notice
        if notice is None or y:
            return []
        return [(fit(f" {self.SIGNS[notice.level]}{notice.text}", width), self.STYLES[notice.level])]


class KeyLine(LinePane):
    """Which keys do what here. Keys that do not fit are left out from the right; ``? help`` stays."""

    DEFAULT_CSS = "KeyLine { height: 1; }"
    FILL = "bar"

    def __init__(self, keys: tuple[tuple[str, str], ...]) -> None:
        super().__init__(id="keys")
        self.keys = keys
        self.right = ""
        """Short text at the right end, such as how many rows are shown."""

    def show(self, right: str) -> None:
        if right != self.right:
            self.right = right
            self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:
        if y:
            return []
        right = f" {self.right} " if self.right else ""
        room = width - len(right) - 8
        left: list[tuple[str, str]] = [(" ? ", "bar_key"), ("help", "bar_dim")]
        used = 7
        for key, word in self.keys:
            used += len(key) + len(word) + 4
            if used > room:
                break
            left += [(f"   {key} ", "bar_key"), (word, "bar_dim")]
        return sides(left, [(right, "bar")], width, "bar")


def task_text(title: str, part: float, step: str) -> str:
    """Progress of an action for the header: ``train esp 42 % features``."""
    percent = "" if math.isnan(part) else f" {part * 100:.0f} %"
    return f"{title}{percent} {step}".rstrip()


def with_task(state: HeaderState, task: str) -> HeaderState:
    """The same header with another task text."""
    return replace(state, task=task)
