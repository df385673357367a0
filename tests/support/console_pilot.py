"""Runs the console without a terminal over fake readers; waits on state, never on time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from pumpdeck_console.tui.asking import Threads
from pumpdeck_console.tui.console_app import ConsoleApp
from pumpdeck_console.tui.console_state import ConsoleSettings
from pumpdeck_console.tui.exporting import Exports
from pumpdeck_console.tui.fleet_screen import FleetScreen
from pumpdeck_console.tui.lines import LinePane
from pumpdeck_console.tui.palette import PALETTES
from pumpdeck_console.tui.reading import ReaderThread
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from support.fleet_views import NOW_MS, FakeActions, FakeReaders

ROUNDS = 1_000


class QuickReaderThread(ReaderThread):
    """Polls ten times as often, so that a test need not wait a second."""

    def __init__(self, name: str, factory: Any, polls: bool) -> None:
        super().__init__(name, factory, polls, poll_s=0.02)


def console(
    readers: FakeReaders,
    actions: FakeActions | None = None,
    theme: str = "night",
    glyphs: str = "braille",
    exports: Path | None = None,
) -> ConsoleApp:
    """A console over ``readers`` with a clock that stands."""
    reading = QuickReaderThread("reading", lambda: readers, True)
    for name in ("fleet", "rollouts", "link"):
        reading.ask(name, lambda source, name=name: getattr(source, name)())
    asking = QuickReaderThread("asking", lambda: readers, False)
    checking = QuickReaderThread("checking", lambda: readers, False)
    for thread in (reading, asking, checking):
        thread.start()
    settings = ConsoleSettings(
        title="north sea",
        clock=FixedClock(readers.now_ms),
        palette=PALETTES[theme],
        glyphs=glyphs,
        exports=Exports(RealFileSystem(), exports) if exports is not None else None,
    )
    return ConsoleApp(settings, Threads(reading, asking, checking), actions or FakeActions())


@asynccontextmanager
async def running(app: ConsoleApp, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Pilot[None]]:
    """The app, run until the fleet is on screen; afterwards no line may have failed to draw."""
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: fleet_is_shown(app))
        yield pilot
        failures = [
            pane.failure for screen in app.screen_stack for pane in screen.query(LinePane) if pane.failure is not None
        ]
        assert failures == []


def fleet_is_shown(app: ConsoleApp) -> bool:
    """The fleet has arrived and been drawn, and the pane shows the pump under the cursor."""
    screen = app.screen
    if (
        not isinstance(screen, FleetScreen)
        or not screen.is_mounted
        or app.views.fleet is None
        or app.views.link is None
    ):
        return False
    table = screen.table
    shown = len(table.view) == len(app.views.fleet)
    pane = screen.pane
    return shown and (not pane.display or not len(table.view) or pane.detail is not None)


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Let the app work until ``condition`` holds; fails when it does not come true in many rounds."""
    for _ in range(ROUNDS):
        await pilot.pause()
        if condition():
            await pilot.pause()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the awaited state did not come")


def text_of(app: ConsoleApp) -> str:
    """Everything on screen as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)


__all__ = ["NOW_MS", "console", "fleet_is_shown", "running", "text_of", "until"]
