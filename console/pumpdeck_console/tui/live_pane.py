"""What an action under way tells: its newest step with count, pace and time left, and the steps before it."""

from __future__ import annotations

from .cells import Parts, fit, number, progress_bar, sides
from .lines import LinePane
from .task_log import StepTold, TaskLog

HEIGHT = 8
STOP = (" ctrl+x ", "stops it at its next safe point; what was done is kept")
ELSEWHERE = (" ", "another process does this; it is stopped there")
AWAY = (" Esc ", "puts this away")
_OUTCOME_STYLES = {"info": "panel_ok", "warn": "panel_drift", "error": "panel_alarm"}


class LivePane(LinePane):
    """Shows a ``TaskLog``; takes no room without one."""

    DEFAULT_CSS = f"LivePane {{ height: {HEIGHT}; display: none; }}"
    FILL = "panel"

    def __init__(self) -> None:
        super().__init__(id="live")
        self.log_shown: TaskLog | None = None
        self.now_ms = 0

    def show(self, log: TaskLog | None, now_ms: int) -> None:
        """Show another story, or how it goes on."""
        self.log_shown, self.now_ms = log, now_ms
        self.display = log is not None
        self.redraw()

    def draw_line(self, y: int, width: int) -> Parts:
        if self.log_shown is None:
            return []
        lines = live_lines(self.log_shown, self.now_ms, (width, self.size.height), self.glyphs)
        return lines[y] if y < len(lines) else []


def live_lines(log: TaskLog, now_ms: int, size: tuple[int, int], glyphs: str) -> list[Parts]:
    """Lines for a pane of that width and height."""
    width, height = size
    clock = span_text(log.took_s(now_ms))
    word = "UNDER WAY" if log.is_running else "ENDED"
    head = [(f" {word} ", "panel_key"), (log.title, "panel_title")]
    lines: list[Parts] = [sides(head, [(f"{clock} ", "panel")], width, "panel")]
    if log.is_running:
        lines.append(_newest_line(log, now_ms, width, glyphs))
    else:
        lines.append([(f" {log.outcome}", _OUTCOME_STYLES[log.level])])
    room = max(0, height - 3)
    notes = log.notes[-min(len(log.notes), room // 2) :] if room > 1 else []
    told = list(log.steps.values())[-(room - len(notes)) :] if room > len(notes) else []
    lines += [_step_line(step, now_ms, glyphs) for step in told]
    lines += [[("   ", "panel"), (fit(note, width - 4), "panel_drift")] for note in notes]
    lines += [[]] * (height - 1 - len(lines))
    key, meaning = (STOP if log.is_ours else ELSEWHERE) if log.is_running else AWAY
    lines.append([(key, "panel_key"), (meaning, "panel_dim")])
    return lines[:height]


def _newest_line(log: TaskLog, now_ms: int, width: int, glyphs: str) -> Parts:
    step = log.newest
    if step is None:
        return [(" starts", "panel_dim")]
    left: list[tuple[str, str]] = [(f" {step.name}", "panel")]
    if step.total:
        bar = progress_bar(log.part, max(8, min(30, width // 4)), glyphs)
        left += [("  ", "panel"), (bar, "panel_accent"), (f" {step.done:,} of {step.total:,}", "panel")]
    elif step.done:
        left.append((f"  {step.done:,}", "panel"))
    rate, left_s = step.rate_per_s, step.left_s(now_ms)
    words = f"{number(rate, 1 if rate < 100 else 0)} a second" if rate else ""
    if left_s is not None:
        words += f", {span_text(left_s)} left"
    return sides(left, [(f"{words} ", "panel")], width, "panel")


def _step_line(step: StepTold, now_ms: int, glyphs: str) -> Parts:
    done, going = ("+", ">") if glyphs == "ascii" else ("✓", "▶")
    sign, style = (done, "panel_ok") if step.is_done else (going, "panel_accent")
    count = f"{step.done:,} of {step.total:,}" if step.total else f"{step.done:,}" if step.done else ""
    took_ms = (step.last_ms if step.is_done else now_ms) - step.first_ms
    return [
        (f" {sign} ", style),
        (fit(step.name, 36), "panel"),
        (fit(count, 18, "right"), "panel_dim"),
        (fit(span_text(took_ms / 1000), 9, "right"), "panel_dim"),
    ]


def span_text(seconds: float) -> str:
    """A span for people: ``0.4 s``, ``41 s``, ``3:20``, ``2:03:20``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
