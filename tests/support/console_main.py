"""A console over a synthetic fleet, as a process of its own: for the pty tests and the benchmarks.

``python tests/support/console_main.py --pumps 10000 [--frame-cache FILE] [--unpaced] [--peer]``; ``--peer`` shows the same
figures in Textual's own DataTable instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pumps", type=int, default=240)
    parser.add_argument("--frame-cache", type=Path)
    parser.add_argument("--unpaced", action="store_true")
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if options.peer:
        return run_peer(options.pumps)
    from pumpdeck_console.tui.app import ConsoleOptions, ConsoleWorld, run_console
    from pumpdeck_fleet.core.clock import SystemClock
    from pumpdeck_fleet.core.files import RealFileSystem

    def readers() -> object:
        from support.fleet_views import FakeReaders

        return FakeReaders(options.pumps)

    class NoActions:
        def submit(self, operation: str, arguments: object, on_progress: object) -> object:
            raise NotImplementedError(operation)

        def warm(self) -> None:
            pass

        def close(self) -> None:
            pass

    selectors: list[object] = []

    def select(view: object, text: str) -> object:
        if not selectors:
            from pumpdeck_console.operations.selector import QuerySelector

            selectors.append(QuerySelector())
        return selectors[0](view, text)

    return run_console(
        readers,
        NoActions(),
        options=ConsoleOptions("north sea", frame_cache=options.frame_cache, is_paced=not options.unpaced),
        world=ConsoleWorld(SystemClock(), RealFileSystem(), os.environ, select),
    )


def run_peer(pumps: int) -> int:
    """The same rows and columns in Textual's DataTable, with a filter that refills it."""
    from textual.app import App
    from textual.binding import Binding
    from textual.widgets import DataTable, Input

    from pumpdeck_console.tui.fleet_table import fleet_table
    from pumpdeck_console.tui.selecting import select_words
    from support.fleet_views import fleet_view

    view = fleet_view(pumps)
    table_view = fleet_table(view, "braille", lambda: view.as_of_ms)
    columns = table_view.columns[:10]

    class Peer(App[None]):
        BINDINGS = [Binding("slash", "filter"), Binding("s", "sort"), Binding("q", "quit")]

        def compose(self):
            table = DataTable(cursor_type="row")
            yield table
            field = Input()
            field.cursor_blink = False
            yield field

        def on_mount(self) -> None:
            table = self.query_one(DataTable)
            for column in columns:
                table.add_column(column.title, key=column.key, width=column.width)
            self.fill("")
            table.focus()

        def fill(self, text: str) -> None:
            table = self.query_one(DataTable)
            table.clear()
            mask = select_words(view, text)
            for row in range(len(view)):
                if mask[row]:
                    cells = ["".join(part for part, _ in column.draw(row, column.width)) for column in columns]
                    table.add_row(*cells, key=str(row))
            self.sub_title = "ready"

        def action_filter(self) -> None:
            self.query_one(Input).focus()

        def action_sort(self) -> None:
            self.query_one(DataTable).sort("pump")

        def on_input_changed(self, event: Input.Changed) -> None:
            self.fill(event.value)

    Peer().run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
