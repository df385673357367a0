"""The console as a process in a real pty: bytes, colours, exit. No wall time is asserted here (see tests/bench)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("a pty is a POSIX thing", allow_module_level=True)

from support.pty_probe import PtyProbe

MAIN = str(Path(__file__).parents[2] / "support" / "console_main.py")


@contextmanager
def console(*words: str, **more: Any) -> Iterator[PtyProbe]:
    with PtyProbe([sys.executable, MAIN, *words], **more) as probe:
        probe.wait(lambda text: re.search(r"\d pumps", text) is not None and "% of score" in text)
        probe.settle()
        yield probe


def test_an_idle_console_sends_no_byte() -> None:
    with console() as probe:
        before = probe.size
        for _ in range(30):
            probe.pump(0.1)
        assert probe.size == before


def test_a_cursor_move_costs_few_bytes() -> None:
    with console("--pumps", "10000") as probe:
        sizes = sorted(probe.key("down").size for _ in range(9))
        assert sizes[4] < 700


def test_with_no_color_no_colour_is_sent() -> None:
    with console(environ={"NO_COLOR": "1"}) as probe:
        probe.key("down")
        colours = re.findall(rb"\x1b\[[0-9;]*m", probe.raw)
        numbers = {int(number) for one in colours for number in one[2:-1].split(b";") if number}
        assert not any(30 <= number <= 49 or 90 <= number <= 107 for number in numbers)
        assert 7 in numbers


def test_sixteen_colours_are_enough_for_a_plain_terminal() -> None:
    with console(environ={"TERM": "linux", "COLORTERM": ""}) as probe:
        assert b"38;2;" not in probe.raw
        assert b"38;5;" not in probe.raw
        assert "! ALARM" in probe.text


def test_a_terminal_that_never_answers_is_not_waited_for() -> None:
    with console(answers=False) as probe:
        for _ in range(20):
            probe.pump(0.1)
        for _ in range(5):
            probe.key("down")


def held_bytes(*words: str, link: tuple[float, float] | None) -> int:
    """Bytes that a hundred presses of a held key take, 30 ms apart."""
    with PtyProbe([sys.executable, MAIN, "--pumps", "10000", *words], size=(100, 30), link=link) as probe:
        probe.wait(lambda text: re.search(r"\d pumps", text) is not None)
        probe.settle(0.8)
        before = probe.size
        for _ in range(100):
            probe.send("\x1b[B")
            probe.pump(0.03)
        probe.settle(1.4)
        assert "◆ ALARM" in probe.text
        return probe.size - before


def test_a_held_key_on_a_slow_link_sends_a_fraction() -> None:
    """64 kbit/s and 600 ms: what was not sent yet is overtaken, not replayed."""
    assert held_bytes(link=(8_000.0, 0.6)) < held_bytes("--unpaced", link=None) / 2


def test_the_screen_is_given_back_and_the_figures_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "frame.json"
    with console("--frame-cache", str(cache)) as probe:
        probe.send("q")
        for _ in range(100):
            probe.pump(0.05)
            if probe.is_over:
                break
        assert probe.is_over
        assert probe.raw.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h")) or b"\x1b[?1049l" in probe.raw[-200:]
    with PtyProbe([sys.executable, MAIN, "--frame-cache", str(cache)]) as probe:
        probe.wait(lambda text: "loading" in text and "ALARM" in text)
        probe.wait(lambda text: "240 pumps" in text)
