"""Pictures of every screen at 80x24 and 120x40. Read every difference before accepting it (``--snapshot-update``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from pumpdeck_console.tui.dialogs import PlanDialog
from pumpdeck_console.tui.fleet_screen import FleetScreen
from pumpdeck_console.tui.scroll_dialog import ScrollDialog
from support.console_pilot import console, fleet_is_shown, until
from support.fleet_views import FakeReaders, unreachable

SIZES = [(80, 24), (120, 40)]
Step = Callable[[Pilot[Any]], Awaitable[None]]


async def ready(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: fleet_is_shown(pilot.app))  # type: ignore[arg-type]


def keys(*names: str, then: Callable[[Any], bool] = lambda app: True) -> Step:
    async def press(pilot: Pilot[Any]) -> None:
        await ready(pilot)
        for name in names:
            await pilot.press(name)
            await pilot.pause()
        await until(pilot, lambda: then(pilot.app))

    return press


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_fleet(snap_compare: Any, size: tuple[int, int]) -> None:
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_fleet_filtered(snap_compare: Any, size: tuple[int, int]) -> None:
    typed = keys("slash", *"gannet", "enter", then=lambda app: pane_follows(app))
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=typed)


def pane_follows(app: Any) -> bool:
    """The pane shows the pump under the cursor, or is folded away."""
    screen = app.screen
    assert isinstance(screen, FleetScreen)
    detail = screen.pane.detail
    return not screen.pane.display or (detail is not None and detail.pump_id == screen.table.cursor_key)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_pump(snap_compare: Any, size: tuple[int, int]) -> None:
    opened = keys("enter", then=lambda app: app.screen.pane.display and pane_follows(app))
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=opened)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_empty_fleet(snap_compare: Any, size: tuple[int, int]) -> None:
    assert snap_compare(console(FakeReaders(0)), terminal_size=size, run_before=ready)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_models(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("2", then=lambda app: len(app.screen.table.order) == 12)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_rollouts(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("3", then=lambda app: len(app.screen.tasks.order) == 60)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@pytest.mark.parametrize("size", [(80, 24), (160, 45)], ids=["80x24", "160x45"])
def test_bundles(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("5", then=lambda app: len(app.screen.table.order) == 6)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_empty_bundles(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("5", then=lambda app: app.views.bundles is not None)
    assert snap_compare(console(FakeReaders(0)), terminal_size=size, run_before=shown)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_audit(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("4", then=lambda app: len(app.screen.table.order) == 300 and app.views.audit_check is not None)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


BOTH = pytest.mark.parametrize("size", [(80, 24), (160, 45)], ids=["80x24", "160x45"])


@BOTH
def test_runs(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("6", then=lambda app: len(app.screen.table.order) == 24 and app.views.run is not None)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@BOTH
def test_trust(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("7", then=lambda app: len(app.screen.table.order) == 36)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@BOTH
def test_upkeep(snap_compare: Any, size: tuple[int, int]) -> None:
    shown = keys("8", then=lambda app: len(app.screen.table.order) == 4)
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=shown)


@pytest.mark.parametrize("key", ["6", "7"])
def test_empty_lists_teach(snap_compare: Any, key: str) -> None:
    shown = keys(key, then=lambda app: bool(app.screen.listing))
    assert snap_compare(console(FakeReaders(0)), terminal_size=(80, 24), run_before=shown)


# As wide as the page: what stands beside it is not the matter.
@pytest.mark.parametrize("size", [(80, 24), (104, 40)], ids=["80x24", "104x40"])
def test_comparison(snap_compare: Any, size: tuple[int, int]) -> None:
    async def press(pilot: Pilot[Any]) -> None:
        await keys("2", then=lambda app: len(app.screen.table.order) == 12)(pilot)
        await pilot.press("equals_sign", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ScrollDialog))

    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=press)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_help(snap_compare: Any, size: tuple[int, int]) -> None:
    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=keys("question_mark"))


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])
def test_plan(snap_compare: Any, size: tuple[int, int]) -> None:
    async def press(pilot: Pilot[Any]) -> None:
        await ready(pilot)
        await pilot.press("3")
        await until(pilot, lambda: len(pilot.app.screen.tasks.order) == 60)  # type: ignore[attr-defined]
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, PlanDialog))

    assert snap_compare(console(FakeReaders(240)), terminal_size=size, run_before=press)


@pytest.mark.parametrize("theme", ["high-contrast", "ansi-16", "mono"])
def test_themes(snap_compare: Any, theme: str) -> None:
    app = console(FakeReaders(240), theme=theme, glyphs="ascii" if theme == "mono" else "block")
    assert snap_compare(app, terminal_size=(120, 40), run_before=ready)


def test_a_failing_store(snap_compare: Any) -> None:
    readers = FakeReaders(240)

    async def fail(pilot: Pilot[Any]) -> None:
        await ready(pilot)
        readers.failure = unreachable()
        await until(pilot, lambda: bool(pilot.app.failures))  # type: ignore[attr-defined]

    assert snap_compare(console(readers), terminal_size=(80, 24), run_before=fail)
