"""Runs, trust and upkeep: lists, filters, pages, what each key plans, and what is under way."""

from __future__ import annotations

from typing import Any

import pytest

from pumpdeck_console.operations.run_views import LiveLog, LiveView, ToldLine
from pumpdeck_console.tui.asking import SLOW_EVERY_MS
from pumpdeck_console.tui.dialogs import PlanDialog
from pumpdeck_console.tui.fleet_screen import FleetScreen
from pumpdeck_console.tui.lists_screen import ListsScreen
from pumpdeck_console.tui.live_pane import LivePane
from pumpdeck_console.tui.models_screen import ModelsScreen
from pumpdeck_console.tui.scroll_dialog import ScrollDialog
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import RefusedError
from support.console_pilot import console, running, text_of, until
from support.fleet_views import FakeActions, FakeReaders, unreachable


async def opened(pilot: Any, app: Any, key: str) -> ListsScreen:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, ListsScreen) and app.screen.listing is not None)
    return app.screen  # type: ignore[no-any-return]


async def planned(pilot: Any, app: Any) -> tuple[str, dict[str, str]]:
    await until(pilot, lambda: isinstance(app.screen, PlanDialog))
    return app.desk.asked.operation, dict(app.desk.asked.arguments)


async def test_runs_newest_first_with_the_record_of_the_one_under_the_cursor() -> None:
    app = console(FakeReaders(240))
    async with running(app, (160, 45)) as pilot:
        screen = await opened(pilot, app, "6")
        await until(pilot, lambda: "SEARCH: 3 POINTS" in text_of(app))
        text = text_of(app)
        assert screen.table.cursor == 0 and "1 refused by a gate" in text and "window_s" in text
        await pilot.press("down", "down")
        await until(pilot, lambda: "3 of 25,560 rows differ" in text_of(app) and "left no record" not in text_of(app))
        assert screen.command().startswith("pumpdeck runs show ")


async def test_lists_change_and_each_keeps_its_own_filter_in_the_query_language() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        screen = await opened(pilot, app, "6")
        await pilot.press("slash", *"state:refused", "enter")
        assert len(screen.table.order) == 1
        await pilot.press("v")
        assert screen.listing is not None and screen.listing.name == "snapshots" and len(screen.table.order) == 24
        await pilot.press("slash", *"held:no pumps>80", "enter")
        assert len(screen.table.order) == 1 and screen.filter_text() == "held:no pumps>80"
        await pilot.press("V")
        assert screen.filter_text() == "state:refused" and len(screen.table.order) == 1
        await pilot.press("escape")
        assert len(screen.table.order) == 24
        screen.apply_filter("helth:ok")
        await pilot.pause()
        assert "is not a field" in text_of(app) and len(screen.table.order) == 24


@pytest.mark.parametrize(
    ("keys", "operation", "arguments"),
    [
        (("6", "T"), "train", {"pump_type": "centrifugal_export"}),
        (("6", "v", "v", "D"), "devices.dismiss", {"pump": "gannet/P-101A"}),
        (("6", "v", "v", "T"), "train", {"pump_type": "esp"}),
        (("6", "V", "T"), "experiments.run", {"name": "forest"}),
        (("8", "b", "enter"), "backup", {"to": "/media/ada/BACKUP/north-sea"}),
        (("8", "p", "enter"), "backup.verify", {"source": "/media/ada/BACKUP/north-sea"}),
        (("8", "u", *"/trip", "enter"), "trip.return", {"folder": "/trip"}),
        (("2", "p"), "models.promote", {"model": "centrifugal_export-health", "which": "13"}),
        (("2", "b"), "models.demote", {"model": "centrifugal_export-health"}),
        (("3", "u"), "rollout.resume", {"rollout_id": "r-0007"}),
        (("3", "A"), "rollout.abort", {"rollout_id": "r-0007"}),
        (("3", "D"), "tick", {}),
    ],
)
async def test_what_each_key_plans(keys: tuple[str, ...], operation: str, arguments: dict[str, str]) -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press(keys[0])
        await until(pilot, lambda: not isinstance(app.screen, FleetScreen) and app.screen.table.cursor_key is not None)
        await pilot.press(*keys[1:])
        assert await planned(pilot, app) == (operation, arguments)


async def test_a_plan_of_the_worker_is_shown_before_its_action_is_sent() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await opened(pilot, app, "8")
        await pilot.press("y", *"/other", "enter")
        await until(pilot, lambda: bool(actions.submissions))
        assert (actions.submissions[0].operation, actions.submissions[0].arguments) == ("sync.plan", {"folder": "/other"})
        report = {"workspace": "ws-2", "taken": {"telemetry": 1_200}, "receipts": 3, "refused": [["receipt", "wrong key"]],
                  "conflicts": [{"kind": "file", "which": "fleet.toml", "kept": "a", "other": "b"}]}  # fmt: skip
        actions.submissions[0].finish({"report": report, "artifacts": 4})
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        text = text_of(app)
        assert "1,200 rows" in text and "file fleet.toml: here a, there b" in text and "not believed: receipt: wrong key" in text
        await pilot.press("enter")
        assert [one.operation for one in actions.submissions] == ["sync.plan", "sync"]


async def test_a_plan_that_fails_is_said_and_nothing_is_sent() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await opened(pilot, app, "8")
        await pilot.press("t", *"/trip for site:gannet", "enter")
        await until(pilot, lambda: bool(actions.submissions))
        assert actions.submissions[0].arguments == {"to": "/trip", "query": "site:gannet"}
        actions.submissions[0].finish(None, RefusedError("no device is selected", "site:gannet"))
        await until(pilot, lambda: "no device is selected" in text_of(app))
        assert len(actions.submissions) == 1


async def test_progress_is_followed_live_and_its_end_stays_until_escape() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app, (160, 45)) as pilot:
        screen = await opened(pilot, app, "6")
        pane = screen.query_one(LivePane)
        assert not pane.display
        await pilot.press("T")
        await planned(pilot, app)
        await pilot.press("enter")
        await until(pilot, lambda: bool(actions.submissions))
        submission = actions.submissions[0]
        clock = app.settings.clock
        assert isinstance(clock, FixedClock)
        submission.on_progress("esp: limits", 0, 60)
        await until(pilot, lambda: "esp: limits" in text_of(app))
        clock.advance(2_000)
        submission.on_progress("esp: limits", 20, 60)
        await until(pilot, lambda: "20 of 60" in text_of(app))
        assert pane.display and "10.0 a second, 4.0 s left" in text_of(app)
        await pilot.press("down")
        assert screen.table.cursor == 1
        await pilot.press("ctrl+x")
        assert submission.cancelled
        submission.finish(None, RefusedError("stopped as asked", "train"))
        await until(pilot, lambda: "ENDED" in text_of(app) and "stopped as asked" in text_of(app))
        await pilot.press("escape")
        assert not pane.display


async def test_a_training_of_another_process_is_followed_too() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        screen = await opened(pilot, app, "6")
        assert not screen.query_one(LivePane).display
        began = readers.now_ms - 4_000
        lines = (
            ToldLine(began, "begin", "train esp"),
            ToldLine(began, "step", "", "fit", 0, 84),
            ToldLine(began + 4_000, "progress", "", "fit", 42, 84),
            ToldLine(began + 4_000, "pump", "gannet/P-101A: fewer than 2 days of rows", "fit"),
        )
        readers.live_now = LiveView(readers.now_ms, (LiveLog("esp-20260101", began, lines),))
        app._watch()
        await until(pilot, lambda: "42 of 84" in text_of(app))
        text = text_of(app)
        assert "esp-20260101" in text and "fewer than 2 days" in text and "it is stopped there" in text
        assert "10.5 a second, 4.0 s left" in text
        readers.live_now = None
        app._watch()
        await until(pilot, lambda: not screen.query_one(LivePane).display)


async def test_a_halt_never_waits_for_what_is_under_way() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: app.screen.table.cursor_key == "r-0007")
        for key in ("a", "h"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, PlanDialog))
            await pilot.press(*("" if key == "a" else "leak"), "enter")
        assert [one.operation for one in actions.submissions] == ["rollout.approve", "rollout.halt"]
        await pilot.press("u")
        await pilot.pause()
        assert "One action is under way" in text_of(app)
        actions.submissions[1].finish({})
        await until(pilot, lambda: "Done: rollout.halt" in text_of(app))
        assert "rollout.approve" in app.desk.words


async def test_two_versions_are_compared_and_a_wrong_one_is_said_once() -> None:
    app = console(FakeReaders(240))
    async with running(app, (80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.version is not None)
        await pilot.press("equals_sign", "enter")
        await until(pilot, lambda: isinstance(app.screen, ScrollDialog))
        assert "v12 against v13" in text_of(app) and "maker KSB" in text_of(app)
        await pilot.press("escape", "equals_sign", *["backspace"] * 8, *"v99", "enter")
        await until(pilot, lambda: "no such version" in text_of(app))
        assert "STALE" not in text_of(app).replace("STALE ▲", "").split("\n")[0]


async def test_two_runs_are_compared() -> None:
    app = console(FakeReaders(240))
    async with running(app, (80, 24)) as pilot:
        await opened(pilot, app, "6")
        await pilot.press("equals_sign", "enter")
        await until(pilot, lambda: isinstance(app.screen, ScrollDialog))
        assert "features.window_s" in text_of(app) and "other bytes reach devices" in text_of(app)


async def test_models_are_filtered_by_query() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: len(app.screen.table.order) == 12)
        await pilot.press("slash", *"alias:champion type:esp", "enter")
        assert len(app.screen.table.order) == 1
        await pilot.press("escape")
        assert len(app.screen.table.order) == 12


@pytest.mark.parametrize("size", [(80, 24), (160, 45), (30, 8), (3, 2)])
async def test_every_list_and_page_is_drawn_at_every_size(size: tuple[int, int]) -> None:
    app = console(FakeReaders(240))
    async with running(app, size) as pilot:
        for key in ("6", "7", "8"):
            screen = await opened(pilot, app, key)
            for _ in range(4):
                await pilot.press("v")
                await pilot.pause()
                await pilot.press("enter")
                if screen.row is not None:
                    await until(pilot, lambda: isinstance(app.screen, ScrollDialog))
                    await pilot.press("escape")
        assert all(char.isprintable() or char == "\n" for char in text_of(app))


async def test_the_audit_chain_is_checked_in_the_background() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "chain holds, checked 14:02:11" in text_of(app))


async def test_slow_questions_wait_their_time_unless_a_person_asks() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        await opened(pilot, app, "7")
        assert readers.calls.count("keys") == 1
        before = app.views.keys
        readers.token += 1
        await until(pilot, lambda: "keys" in app._slow_due)
        assert readers.calls.count("keys") == 1
        clock = app.settings.clock
        assert isinstance(clock, FixedClock)
        clock.advance(SLOW_EVERY_MS)
        app._watch()
        await until(pilot, lambda: app.views.keys is not before)
        await pilot.press("R")
        await until(pilot, lambda: readers.calls.count("keys") == 3)


async def test_a_list_that_cannot_be_read_says_so_and_keeps_its_rows() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        screen = await opened(pilot, app, "7")
        readers.failure = unreachable()
        await until(pilot, lambda: "store did not answer" in text_of(app))
        assert len(screen.table.order) == 36
        readers.failure = None
        await until(pilot, lambda: "store did not answer" not in text_of(app))
