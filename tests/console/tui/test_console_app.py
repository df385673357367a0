from __future__ import annotations

import csv
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_console.operations.views import HEALTH_WORDS
from pumpdeck_console.tui.card_dialog import CardDialog
from pumpdeck_console.tui.dialogs import HelpDialog, PlanDialog, TextPane
from pumpdeck_console.tui.fleet_screen import FleetScreen
from pumpdeck_console.tui.header import NoticeLine
from pumpdeck_console.tui.models_screen import ModelsScreen
from pumpdeck_console.tui.rollouts_screen import RolloutsScreen
from pumpdeck_fleet.core.errors import RefusedError
from support.console_pilot import console, fleet_is_shown, running, text_of, until
from support.fleet_views import FakeActions, FakeReaders, unreachable

BLOCK_S = 20.0


async def test_the_fleet_is_shown_worst_first_with_sign_and_word() -> None:
    app = console(FakeReaders(240))
    async with running(app):
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        view = app.views.fleet
        assert view is not None
        health = view.health[screen.table.order]
        assert (health[:-1] >= health[1:]).all()
        text = text_of(app)
        assert "◆ ALARM" in text
        assert "240 pumps" in text
        assert screen.pane.detail is not None
        assert screen.pane.detail.pump_id == screen.table.cursor_key


async def test_an_empty_fleet_teaches_what_to_type() -> None:
    app = console(FakeReaders(0))
    async with running(app) as pilot:
        await until(pilot, lambda: "pumpdeck demo" in text_of(app))
        for key in ("2", "3", "4"):
            await pilot.press(key)
        await until(pilot, lambda: "No audit entry yet" in text_of(app))


async def test_the_filter_works_while_typing_and_escape_clears_it() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        await pilot.press("slash", *"gannet")
        assert len(screen.table.order) == 20
        await pilot.press("enter")
        assert screen.table.has_focus
        assert screen.filter_text() == "gannet"
        assert "20 of 240" in text_of(app)
        await pilot.press("slash", "escape")
        assert len(screen.table.order) == 240


async def test_a_query_the_parser_refuses_keeps_the_old_rows() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        screen = app.screen
        assert isinstance(screen, FleetScreen)

        def refuse(view: object, text: str) -> object:
            raise RefusedError("unknown field", text)

        screen.apply_filter("gannet")
        app.selector = refuse  # type: ignore[assignment]
        screen.apply_filter("nonsense:1")
        await pilot.pause()
        assert len(screen.table.order) == 20
        assert screen.filter_text() == "gannet"
        assert "unknown field" in text_of(app)


async def test_choosing_a_site_shows_its_pumps_only() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        screen.sites.focus()
        await pilot.press("down", "down")
        chosen = screen.sites.chosen
        assert chosen is not None
        assert chosen.kind == "site"
        assert len(screen.table.order) == chosen.pumps == 20
        assert chosen.name in screen.command()


async def test_jump_finds_pumps_sites_screens_and_themes() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press("colon", *"p-150a", "enter")
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        assert (screen.table.cursor_key or "").endswith("P-150A")
        await pilot.press("colon", *"rollouts", "enter")
        assert isinstance(app.screen, RolloutsScreen)
        await pilot.press("colon", *"r-0005", "enter")
        assert app.screen.table.cursor_key == "r-0005"
        await pilot.press("colon", *"tern", "enter")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen) and len(app.screen.table.order) == 20)
        await pilot.press("colon", *"theme mono", "enter")
        assert app.palette.name == "mono"
        await pilot.press("colon", *"nowhere", "enter")
        assert "Nothing here is called nowhere" in text_of(app)


async def test_a_failing_reader_leaves_the_last_view_and_says_so() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        readers.failure = unreachable()
        await until(pilot, lambda: "store did not answer" in text_of(app))
        assert app.screen.query_one(NoticeLine).display
        assert "STALE as of" in text_of(app)
        assert "◆ ALARM" in text_of(app)
        assert len(app.screen.table.order) == 240
        readers.failure = None
        await until(pilot, lambda: "store did not answer" not in text_of(app))
        assert "STALE as of" not in text_of(app)


async def test_a_slow_reader_never_holds_a_key_and_is_named() -> None:
    gate, blocked = threading.Event(), threading.Event()

    def block(name: str) -> None:
        if name == "fleet" and readers.calls.count("fleet") > 1:
            blocked.set()
            gate.wait(BLOCK_S)

    readers = FakeReaders(240, before=block)
    app = console(readers)
    async with running(app) as pilot:
        await pilot.press("R")
        await until(pilot, blocked.is_set)
        await pilot.press("down", "down", "down")
        assert app.screen.table.cursor == 3
        for _ in range(3):
            app._watch()
        await pilot.pause()
        assert "Reading (fleet) takes long" in text_of(app)
        assert len(app.screen.table.order) == 240
        gate.set()
        await until(pilot, lambda: not app.threads.reading.busy_with)
        app._watch()
        await pilot.pause()
        assert "takes long" not in text_of(app)


async def test_a_change_in_the_store_comes_to_the_screen_by_itself() -> None:
    readers = FakeReaders(240)
    app = console(readers)
    async with running(app) as pilot:
        before = app.views.fleet
        readers._fleet = None
        readers.pumps = 120
        readers.token += 1
        await until(pilot, lambda: app.views.fleet is not before and len(app.screen.table.view) == 120)
        assert "120 pumps" in text_of(app)


async def test_nothing_changes_before_the_plan_was_shown_and_accepted() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: app.screen.table.cursor_key == "r-0007")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert "pumpdeck rollout approve r-0007" in text_of(app)
        assert actions.submissions == []
        await pilot.press("escape")
        assert actions.submissions == []
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        await pilot.press("enter")
        assert [one.operation for one in actions.submissions] == ["rollout.approve"]
        assert actions.submissions[0].arguments == {"rollout_id": "r-0007"}


async def test_a_refused_plan_cannot_be_accepted() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: app.screen.table.cursor_key == "r-0007")
        await pilot.press("end", "a")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert "Refused: the plan is already approved" in text_of(app)
        await pilot.press("enter")
        assert actions.submissions == []


async def test_halting_asks_for_the_reason() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: app.screen.table.cursor_key == "r-0007")
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        await pilot.press("enter")
        assert actions.submissions == []
        await pilot.press(*"seal leak", "enter")
        assert actions.submissions[0].arguments == {"rollout_id": "r-0007", "reason": "seal leak"}


@pytest.mark.parametrize("size", [(160, 45), (80, 24), (30, 8)])
async def test_the_model_card_opens_scrolls_and_closes(size: tuple[int, int]) -> None:
    app = console(FakeReaders(240))
    async with running(app, size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.version is not None)
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, CardDialog))
        shown = app.screen.query_one(TextPane)
        await pilot.press("pagedown")
        assert shown.top > 0
        await pilot.press("escape")
        assert isinstance(app.screen, ModelsScreen)


async def test_progress_and_the_end_of_an_action_are_told() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app, (160, 45)) as pilot:
        await pilot.press("T")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        await pilot.press("y")
        submission = actions.submissions[0]
        assert submission.operation == "train"
        submission.on_progress("features", 42, 100)
        await until(pilot, lambda: "42 % features" in text_of(app))
        await pilot.press("T")
        await pilot.pause()
        assert "One action is under way" in text_of(app)
        await pilot.press("ctrl+x")
        assert submission.cancelled
        submission.finish(None, RefusedError("too few rows", "esp"))
        await until(pilot, lambda: "too few rows" in text_of(app))
        assert "42 %" not in text_of(app)


async def test_the_mouse_chooses_screens_rows_and_the_sort() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        table = app.screen.table
        await pilot.click(table, offset=(5, 7))
        assert table.cursor == 6
        await pilot.click(table, offset=(14, 0))
        assert (table.sort_key, table.descending) == ("pump", False)
        await pilot.click(table, offset=(14, 0))
        assert table.descending
        header = app.screen.query_one("#header")
        await pilot.click(header, offset=(text_of(app).index("Rollouts") + 1, 0))
        await until(pilot, lambda: isinstance(app.screen, RolloutsScreen))


async def test_nothing_that_comes_from_a_device_can_command_the_terminal() -> None:
    """A tag, a reason or a fact may hold escape sequences; not one control character may be drawn."""
    evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\n\r\t\x9b31m\u202e"
    readers = FakeReaders(240)
    view = readers.fleet()
    readers._fleet = replace(view, tags=(evil, *view.tags[1:]), reasons=tuple(evil + reason for reason in view.reasons))
    app = console(readers)
    async with running(app, (160, 45)) as pilot:
        for key in ("G", "g", "d", "d", "2", "3", "4"):
            await pilot.press(key)
            await pilot.pause()
            drawn = text_of(app).replace("\n", "")
            assert drawn.isprintable(), [char for char in drawn if not char.isprintable()]


async def test_help_lists_the_keys_of_the_screen() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpDialog)
        assert "site tree" in text_of(app)
        await pilot.press("escape")
        assert fleet_is_shown(app)


async def test_the_table_is_exported_as_it_is_shown(tmp_path: Path) -> None:
    app = console(FakeReaders(240), exports=tmp_path / "out")
    async with running(app) as pilot:
        await pilot.press("slash", *"gannet", "enter", "x", "X")
        await until(pilot, lambda: len(list((tmp_path / "out").glob("*"))) == 2)
        (path,) = (tmp_path / "out").glob("*.csv")
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 20
        assert {row["site"] for row in rows} == {"gannet"}
        assert all(any(word.split("_")[0] in row["health"] for word in HEALTH_WORDS) for row in rows)
        (picture,) = (tmp_path / "out").glob("*.svg")
        assert "gannet" in picture.read_text(encoding="utf-8")


async def test_the_command_for_a_view_can_be_copied() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press("slash", *"esp alarm", "enter", "c")
        assert app.clipboard == 'pumpdeck pumps list "esp alarm"'
        assert app.clipboard in text_of(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_on_a_narrow_terminal_tree_and_pane_fold_away_and_come_back(size: tuple[int, int]) -> None:
    app = console(FakeReaders(240))
    async with running(app, size) as pilot:
        screen = app.screen
        assert isinstance(screen, FleetScreen)
        is_wide = size[0] > 100
        assert screen.sites.display is is_wide
        assert screen.pane.display is is_wide
        await pilot.press("d")
        assert screen.pane.display is not is_wide
        if not is_wide:
            assert not screen.table.display
            await until(pilot, lambda: screen.pane.detail is not None)
            await pilot.press("d")
            assert screen.table.display


def test_the_console_loads_no_heavy_library() -> None:
    """scikit-learn, pandas, onnxruntime, paramiko and httpx belong into the worker process."""
    code = """
import asyncio, sys
sys.path.insert(0, "tests")
from support.console_pilot import console, running
from support.fleet_views import FakeReaders
async def main():
    async with running(console(FakeReaders(240))) as pilot:
        for key in ("2", "3", "4", "5", "6", "7", "8", "1", "question_mark", "escape", "slash", "escape"):
            await pilot.press(key)
asyncio.run(main())
bad = {"pandas", "sklearn", "onnxruntime", "onnx", "paramiko", "httpx", "scipy", "pyarrow", "cryptography", "sqlite3"}
print("bad:", *sorted(bad & set(sys.modules)))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "bad:"
