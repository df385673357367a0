"""Frames that wait for the terminal: at most one or two on the way, newer state overtakes what was not sent yet.

After each frame the terminal is asked for its cursor position (``CSI 6n``). Its answer says that the frame has arrived,
over SSH as over a serial line, which no write() can tell. While an answer is due nothing is painted; widgets stay dirty
and the next frame shows the newest state. So a held arrow key on a slow link settles at once instead of replaying every
row. A terminal that does not answer within a second is never waited for.

``Pacer`` is pure. ``PacedApp`` leans on private names of Textual (pinned; ``tests/console/tui/test_pacing.py`` checks them).
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual import events
from textual.app import App

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.screen import Screen

ASK = "\x1b[6n"
PROBE_S = 1.0
"""No answer to the first question within this: pacing goes off for good."""
LOST_S = 10.0
"""An answer that takes longer than this is lost; two lost ones switch pacing off."""
FAST_RTT_S = 0.03
"""Round trip below which two frames may be on the way."""


class Pace(enum.Enum):
    """Off, waiting for the first answer, or pacing."""

    OFF = "off"
    PROBING = "probing"
    ON = "on"


class Pacer:
    """Decides when a frame may be painted. Times come from ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent: deque[float] = deque()
        self._lost = 0
        self.pace = Pace.OFF
        self.rtt_s = 0.0

    @property
    def window(self) -> int:
        """How many frames may be on the way."""
        return 2 if self.rtt_s < FAST_RTT_S else 1

    @property
    def holds(self) -> bool:
        """Whether painting has to wait."""
        return self.pace is Pace.ON and len(self._sent) >= self.window

    @property
    def awaits(self) -> bool:
        """Whether an answer is due."""
        return bool(self._sent)

    def probe(self) -> None:
        """The first question is sent."""
        self.pace = Pace.PROBING
        self._sent.append(self._clock())

    def sent(self) -> None:
        """A frame with its question is sent."""
        self._sent.append(self._clock())

    def answered(self) -> None:
        """The terminal answered the oldest question."""
        if not self._sent:
            return
        rtt = self._clock() - self._sent.popleft()
        self.rtt_s = rtt if self.pace is Pace.PROBING else 0.7 * self.rtt_s + 0.3 * rtt
        if self.pace is Pace.PROBING:
            self.pace = Pace.ON
        self._lost = 0

    def expire(self) -> None:
        """Give up on answers that are overdue."""
        limit = PROBE_S if self.pace is Pace.PROBING else LOST_S
        while self._sent and self._clock() - self._sent[0] >= limit:
            self._sent.popleft()
            self._lost += 1
            if self.pace is Pace.PROBING or self._lost >= 2:
                self.pace = Pace.OFF
                self._sent.clear()


class PacedApp(App[None]):
    """An app whose frames wait for the terminal once ``start_pacing`` was called."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pacer = Pacer(time.monotonic)
        self._is_holding = False
        self._has_missed = False

    def start_pacing(self) -> None:
        """Ask the terminal whether it answers; nothing is held back before it did."""
        if self._driver is not None and not self.is_headless and not self._driver.is_inline:
            self._driver.write(ASK)
            self._driver.flush()
            self.pacer.probe()
            self.set_timer(PROBE_S, self._expire)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        if self._is_holding:
            self._has_missed = self._has_missed or renderable is not None
            return
        super()._display(screen, renderable)
        if renderable is not None and self.pacer.pace is Pace.ON and not self._batch_count and self._driver is not None:
            self._driver.write(ASK)
            self._driver.flush()
            if not self.pacer.awaits:
                self.set_timer(LOST_S, self._expire)
            self.pacer.sent()
            self._hold_or_release()

    def _on_cursor_position(self, event: events.CursorPosition) -> None:
        event.stop()
        self.pacer.answered()
        self._hold_or_release()

    def _expire(self) -> None:
        self.pacer.expire()
        self._hold_or_release()
        if self.pacer.awaits:
            self.set_timer(LOST_S / 4, self._expire)

    def _hold_or_release(self) -> None:
        if self.pacer.holds == self._is_holding:
            return
        self._is_holding = self.pacer.holds
        if self._is_holding:
            self._begin_batch()
            return
        self._end_batch()
        if self._has_missed:
            self._has_missed = False
            self.screen.refresh()
        self.screen.check_idle()
