"""What an action under way has told so far: its steps with counts, how fast the newest one goes and how long it still takes."""

from __future__ import annotations

from dataclasses import dataclass

MOST_STEPS = 200
"""Steps that are kept; the oldest go first."""


@dataclass
class StepTold:
    """One step: when it was first and last heard of, and how many of how many are done (``total`` 0: not known)."""

    name: str
    first_ms: int
    last_ms: int
    done: int = 0
    total: int = 0

    @property
    def is_done(self) -> bool:
        return 0 < self.total <= self.done

    @property
    def rate_per_s(self) -> float:
        """Done a second since the step began; 0 while nothing can be said."""
        took_ms = self.last_ms - self.first_ms
        return self.done * 1000 / took_ms if took_ms > 0 else 0.0

    def left_s(self, now_ms: int) -> float | None:
        """Seconds until the step ends at its own pace, ``None`` while nothing can be said."""
        rate = self.rate_per_s
        if not rate or not self.total:
            return None
        return max(0.0, (self.total - self.done) / rate - (now_ms - self.last_ms) / 1000)


class TaskLog:
    """The story of one action, from its start to the word it ended with."""

    def __init__(self, operation: str, title: str, started_ms: int, *, is_ours: bool = True) -> None:
        self.operation, self.title, self.started_ms, self.is_ours = operation, title, started_ms, is_ours
        self.steps: dict[str, StepTold] = {}
        self.newest: StepTold | None = None
        self.notes: list[str] = []
        """What was told beside the steps: pumps that gave trouble, warnings."""
        self.ended_ms = -1
        self.outcome = ""
        self.level = "info"

    def told(self, name: str, done: int, total: int, now_ms: int) -> None:
        """Take one progress report."""
        step = self.steps.get(name)
        if step is None:
            step = self.steps[name] = StepTold(name, now_ms, now_ms)
            if len(self.steps) > MOST_STEPS:
                del self.steps[next(iter(self.steps))]
        step.last_ms, step.done, step.total = now_ms, done, total
        self.newest = step

    def noted(self, text: str) -> None:
        """Take a line that is no progress."""
        self.notes.append(text)
        del self.notes[:-MOST_STEPS]

    def end(self, outcome: str, level: str, now_ms: int) -> None:
        """The action has ended with these words."""
        self.ended_ms, self.outcome, self.level = now_ms, outcome, level

    @property
    def is_running(self) -> bool:
        return self.ended_ms < 0

    @property
    def part(self) -> float:
        """How much of the newest step is done, 0 to 1; NaN where nobody knows."""
        step = self.newest
        return min(1.0, step.done / step.total) if step is not None and step.total else float("nan")

    def took_s(self, now_ms: int) -> float:
        """Seconds since the start, or from start to end."""
        return max(0, (self.ended_ms if self.ended_ms >= 0 else now_ms) - self.started_ms) / 1000
