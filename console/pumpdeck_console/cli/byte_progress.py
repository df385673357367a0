"""A progress line for steps that count bytes: how much, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Callable

from pumpdeck_console.cli.output import show_bytes
from pumpdeck_console.cli.session import ProgressLine

_SETTLED_S = 1.0
"""Before this a speed says nothing."""


class ByteProgress(ProgressLine):
    """As `ProgressLine`; each step's speed counts from its own start."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._step = ""
        self._started_s = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now_s = self._now_s()
        if step != self._step:
            self._step, self._started_s = step, now_s
        super().__call__(f"{step} {rate_words(done, total, now_s - self._started_s)}".rstrip(), done, total)


def rate_words(done: int, total: int, elapsed_s: float) -> str:
    """`12.0 MB of 80.0 MB, 8.0 MB/s, 9 s left`; without a speed while there is none."""
    if not total:
        return ""
    text = f"{show_bytes(done)} of {show_bytes(total)}"
    if elapsed_s < _SETTLED_S or done <= 0:
        return text
    speed = done / elapsed_s
    return f"{text}, {show_bytes(speed)}/s, {span_words((total - done) / speed)} left"


def span_words(seconds: float) -> str:
    """A span of time as people say it: `9 s`, `4 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
