"""The bundles screen: places are asked for, plans are shown, what was refused is said with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console.operations.bundle_view import bundles_view
from pumpdeck_console.operations.bundles import export_bundle
from pumpdeck_console.operations.plans import plan
from pumpdeck_console.operations.sticks import lose_stick
from pumpdeck_console.tui.bundles_screen import BundlesScreen
from pumpdeck_console.tui.dialogs import PlanDialog
from pumpdeck_console.tui.outcomes import outcome_words
from support.console_pilot import console, running, text_of, until
from support.courier_fleet import courier_fleet
from support.fleet_views import FakeActions, FakeReaders


async def opened(pilot: Any, app: Any) -> BundlesScreen:
    await pilot.press("5")
    await until(pilot, lambda: isinstance(app.screen, BundlesScreen) and app.views.bundles is not None)
    await until(pilot, lambda: len(app.screen.table.order) == 6)
    return app.screen  # type: ignore[no-any-return]


async def test_sticks_and_who_is_awaited() -> None:
    app = console(FakeReaders(240))
    async with running(app, (160, 45)) as pilot:
        screen = await opened(pilot, app)
        assert screen.table.cursor_key == "b-52aa0be41c7d"
        assert len(screen.awaited.order) == 20
        text = text_of(app)
        assert "LOST" in text and "Bo Hansen" in text and "no stick yet" in text and "late" in text
        assert screen.command() == "pumpdeck bundle sticks"
        await pilot.press("slash", *"gannet", "enter")
        await until(pilot, lambda: len(screen.table.order) == 2)
        assert len(screen.awaited.order) == 5


@pytest.mark.parametrize(("size", "mark"), [((80, 24), "as of"), ((160, 45), "as of")])
async def test_the_time_of_the_figures_is_seen_at_every_size(size: tuple[int, int], mark: str) -> None:
    app = console(FakeReaders(240))
    async with running(app, size) as pilot:
        await opened(pilot, app)
        assert mark in text_of(app)


async def test_an_export_asks_for_the_place_and_shows_its_plan() -> None:
    actions = FakeActions()
    app = console(FakeReaders(240), actions)
    async with running(app) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("e")
        assert screen.query_one("#prompt").value == "/media/ada/STICK/pumpdeck"  # type: ignore[attr-defined]
        await pilot.press(*" for site:gannet", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert app.desk.asked.arguments == {"to": "/media/ada/STICK/pumpdeck", "query": "site:gannet"}
        assert app.desk.asked.operation == "bundle.export"


@pytest.mark.parametrize(
    ("key", "typed", "operation", "arguments"),
    [
        ("e", "/tmp/letter.tar", "bundle.tar", {"file": "/tmp/letter.tar", "query": ""}),
        ("i", "/media/x", "bundle.intake", {"folder": "/media/x"}),
        ("w", "Cai", "bundle.carry", {"stick": "b-52aa0be41c7d", "carrier": "Cai"}),
        ("n", "/media/y", "bundle.reissue", {"stick": "b-52aa0be41c7d", "to": "/media/y"}),
    ],
)
async def test_what_each_key_plans(key: str, typed: str, operation: str, arguments: dict[str, str]) -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(key)
        screen.query_one("#prompt").value = typed  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert (app.desk.asked.operation, app.desk.asked.arguments) == (operation, arguments)


async def test_escape_asks_nothing_and_lost_asks_how() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await opened(pilot, app)
        await pilot.press("e", "escape")
        assert app.desk.asked.operation == ""
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert app.desk.asked.operation == "bundle.lost"


def test_what_an_intake_refused_is_said_with_its_reason() -> None:
    result = {
        "devices": [{}, {}], "rows": 40, "stored": {"receipt": 2, "retrain_request": 1},
        "problems": [["gannet-d9", "gannet-d9: is not a device"], ["x", "y"]],
    }  # fmt: skip
    words, level = outcome_words("bundle.intake", "Take in", result)
    assert level == "warn" and "Refused: gannet-d9: gannet-d9: is not a device and 1 more" in words
    assert "2 devices: 2 receipt, 1 retrain request; 40 rows" in words
    assert outcome_words("bundle.intake", "", {**result, "problems": []})[1] == "info"
    assert outcome_words("train", "Train esp", None) == ("Done: Train esp", "info")


def test_the_plans_over_a_real_workspace(tmp_path: Path) -> None:
    yard = courier_fleet(tmp_path)
    try:
        yard.start()
        stick = str(tmp_path / "stick")
        view = plan(yard.workspace, "bundle.export", {"to": stick, "query": ""})
        assert view.refusal == "" and view.command == f"pumpdeck bundle export --to {stick}"
        assert dict(view.lines)["devices"] == "2 at 2 sites, 2 packages"
        assert bundles_view(yard.workspace).ready == 2
        made = export_bundle(yard.workspace, to=stick, carrier="Ada")
        seen = bundles_view(yard.workspace)
        assert (seen.ready, len(seen.sticks), seen.sticks[0].awaited, seen.sticks[0].carrier) == (0, 1, 2, "Ada")
        assert {one.stick for one in seen.awaited} == {made.bundle}
        assert "EXPORTED" in dict(plan(yard.workspace, "bundle.export", {"to": stick}).lines)["stick"]
        yard.visit(yard.devices[0].id)
        assert yard.devices[0].id in dict(plan(yard.workspace, "bundle.intake", {"folder": stick}).lines)["returns of"]
        assert plan(yard.workspace, "bundle.intake", {"folder": str(tmp_path / "gone")}).refusal
        assert plan(yard.workspace, "bundle.reissue", {"stick": made.bundle, "to": "/x"}).refusal == "it is EXPORTED, not LOST"
        assert plan(yard.workspace, "bundle.lost", {"stick": made.bundle}).refusal == ""
        lose_stick(yard.workspace, stick=made.bundle)
        assert plan(yard.workspace, "bundle.carry", {"stick": made.bundle, "carrier": "Bo"}).refusal == "it is LOST"
        assert plan(yard.workspace, "bundle.reissue", {"stick": made.bundle, "to": "/x"}).refusal == ""
        assert plan(yard.workspace, "bundle.export", {"to": stick, "query": "site:nowhere"}).refusal
    finally:
        yard.workspace.close()
