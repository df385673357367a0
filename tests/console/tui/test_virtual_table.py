from __future__ import annotations

import numpy as np
import pytest
from textual.geometry import Region

from pumpdeck_console.tui.fleet_table import fleet_table
from pumpdeck_console.tui.virtual_table import Column, VirtualTable, fit_columns, sorted_order
from support.console_pilot import console, running, text_of, until
from support.fleet_views import FakeReaders, fleet_view


def column(key: str, width: int, priority: int, **more: object) -> Column:
    return Column(key, key.upper(), width, lambda row, cells: [(" " * cells, "text")], (), priority, **more)  # type: ignore[arg-type]


def test_sorting_is_stable_and_puts_missing_numbers_last_in_both_directions() -> None:
    figures = np.array([2.0, np.nan, 1.0, 2.0, np.nan], dtype=np.float32)
    by = Column("score", "SCORE", 6, lambda row, cells: [], (figures,))
    assert sorted_order(by, False, 5).tolist() == [2, 0, 3, 1, 4]
    assert sorted_order(by, True, 5).tolist() == [0, 3, 2, 1, 4]


def test_the_second_key_decides_ties_and_is_not_turned_round() -> None:
    first, second = np.array([1, 1, 0]), np.array([5, 3, 9])
    by = Column("a", "A", 6, lambda row, cells: [], (first, second))
    assert sorted_order(by, False, 3).tolist() == [2, 1, 0]
    assert sorted_order(by, True, 3).tolist() == [1, 0, 2]


def test_the_least_important_columns_go_first_and_spare_width_is_used() -> None:
    columns = [column("a", 10, 0), column("b", 20, 3), column("c", 8, 1), column("d", 24, 2, min_width=6, grows=True)]
    assert [one.key for one, _ in fit_columns(columns, 10)] == ["a"]
    assert [(one.key, width) for one, width in fit_columns(columns, 28)] == [("a", 10), ("c", 8), ("d", 6)]
    assert [(one.key, width) for one, width in fit_columns(columns, 100)] == [("a", 10), ("b", 20), ("c", 8), ("d", 56)]
    assert [one.key for one, _ in fit_columns(columns, 1)] == ["a"]


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_fitted_columns_never_exceed_the_width(width: int) -> None:
    view = fleet_table(fleet_view(5), "braille", lambda: 0)
    fitted = fit_columns(view.columns, width)
    assert sum(cells + 2 for _, cells in fitted) - 2 <= max(width, 21)


async def test_a_cursor_move_repaints_two_lines_only() -> None:
    app = console(FakeReaders(10_000))
    async with running(app) as pilot:
        table: VirtualTable = app.screen.table
        regions: list[Region] = []
        table.refresh = lambda *given, **more: regions.extend(given) or table  # type: ignore[method-assign]
        await pilot.press("down")
        assert sorted(region.y for region in regions) == [1, 2]
        assert {region.height for region in regions} == {1}


async def test_only_visible_rows_are_built() -> None:
    app = console(FakeReaders(10_000))
    async with running(app, (120, 40)):
        table: VirtualTable = app.screen.table
        assert len(table.order) == 10_000
        assert len(table._row_strips) <= table.body_height + 1


async def test_sort_and_filter_keep_the_cursor_on_its_pump() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        table: VirtualTable = app.screen.table
        await pilot.press("down", "down", "down")
        key = table.cursor_key
        await pilot.press("s")
        assert table.sort_key == "pump"
        assert table.cursor_key == key
        assert table.top <= table.cursor < table.top + table.body_height
        table.keep(np.array([one == key for one in table.view.keys]))
        assert table.cursor_key == key
        assert table.cursor == 0
        table.keep(None)
        assert table.cursor_key == key


async def test_a_filter_that_leaves_nothing_says_what_to_do() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        await pilot.press("slash", *"zzz", "enter")
        assert app.screen.table.cursor_key is None
        await until(pilot, lambda: "No pump matches" in text_of(app))


SIZES = [(1, 1), (2, 3), (10, 2), (20, 5), (40, 12), (80, 24), (109, 30), (110, 10), (149, 50), (200, 60)]


@pytest.mark.parametrize("size", SIZES)
async def test_every_screen_survives_every_size(size: tuple[int, int]) -> None:
    app = console(FakeReaders(240))
    async with running(app, size) as pilot:
        for key in ("d", "t", "2", "3", "4", "1", "question_mark", "escape", "pagedown", "end", "d", "t"):
            await pilot.press(key)
            await pilot.pause()
        await pilot.resize_terminal(120, 40)
        await pilot.pause()


async def test_page_down_repaints_what_it_scrolled_to() -> None:
    app = console(FakeReaders(240))
    async with running(app) as pilot:
        table: VirtualTable = app.screen.table
        before = [table._line(y).text for y in range(1, 5)]
        await pilot.press("pagedown")
        assert table.top > 0
        assert [table._line(y).text for y in range(1, 5)] != before
        row = int(table.order[table.top])
        assert app.views.fleet is not None
        assert app.views.fleet.tags[row] in table._line(1).text
