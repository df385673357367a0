from __future__ import annotations

import inspect

import textual
from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.screen import Screen

from pumpdeck_console.tui.pacing import LOST_S, PROBE_S, Pace, Pacer


class Hand:
    """A clock moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pacing(rtt_s: float) -> tuple[Pacer, Hand]:
    clock = Hand()
    pacer = Pacer(clock)
    pacer.probe()
    clock.now += rtt_s
    pacer.answered()
    return pacer, clock


def test_nothing_is_held_before_the_terminal_has_answered() -> None:
    pacer = Pacer(Hand())
    assert not pacer.holds
    pacer.probe()
    assert pacer.awaits
    assert not pacer.holds


def test_a_silent_terminal_is_never_waited_for() -> None:
    clock = Hand()
    pacer = Pacer(clock)
    pacer.probe()
    clock.now += PROBE_S
    pacer.expire()
    assert pacer.pace is Pace.OFF
    assert not pacer.awaits
    pacer.sent()
    assert not pacer.holds


def test_one_frame_is_on_the_way_on_a_slow_link_and_two_on_a_fast_one() -> None:
    slow, _ = pacing(0.6)
    slow.sent()
    assert slow.holds
    fast, _ = pacing(0.001)
    fast.sent()
    assert not fast.holds
    fast.sent()
    assert fast.holds


def test_an_answer_lets_the_next_frame_go() -> None:
    pacer, clock = pacing(0.6)
    pacer.sent()
    clock.now += 1.4
    pacer.answered()
    assert not pacer.holds
    assert 0.6 < pacer.rtt_s < 1.4


def test_one_lost_answer_is_forgiven_and_two_switch_pacing_off() -> None:
    pacer, clock = pacing(0.6)
    pacer.sent()
    clock.now += LOST_S
    pacer.expire()
    assert pacer.pace is Pace.ON
    assert not pacer.holds
    pacer.sent()
    clock.now += LOST_S
    pacer.expire()
    assert pacer.pace is Pace.OFF


def test_an_answer_nobody_asked_for_changes_nothing() -> None:
    pacer, _ = pacing(0.6)
    pacer.answered()
    assert pacer.pace is Pace.ON
    assert not pacer.holds


def test_the_private_names_of_textual_are_what_pacing_leans_on() -> None:
    """Pinned; when this fails after an upgrade, read ``pacing.PacedApp`` against the new sources."""
    assert textual.__version__ == "8.2.8"
    assert list(inspect.signature(App._display).parameters) == ["self", "screen", "renderable"]
    assert "_batch_count" in inspect.getsource(Screen._on_timer_update)
    assert "_batch_count" in inspect.getsource(Screen._on_idle)
    assert "self._batch_count += 1" in inspect.getsource(App._begin_batch)
    assert "self._batch_count -= 1" in inspect.getsource(App._end_batch)
    parser = XTermParser()
    found = [event for event in parser.feed("\x1b[3;4R") if isinstance(event, events.CursorPosition)]
    assert [(event.x, event.y) for event in found] == [(3, 2)]
