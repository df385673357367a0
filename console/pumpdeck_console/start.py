"""Opening the console: the workspace's readers, its worker process, and the app."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pumpdeck_console.wiring import Workspace, open_workspace

if TYPE_CHECKING:
    from pumpdeck_console.operations.selector import QuerySelector
    from pumpdeck_console.operations.views import FleetView
    from pumpdeck_console.tui.readers import Readers
    from pumpdeck_console.tui.selecting import Mask
    from pumpdeck_fleet.core.inventory import Fleet

_OPENER = "pumpdeck_console.operations.table:open_worker"


def open_console(path: Path | None) -> int:
    """Run the console on the workspace at `path` until the person leaves it; its exit code.

    Raises:
        NotFoundError: there is no workspace.
    """
    with open_workspace(path) as workspace:
        return run_workspace(workspace)


def run_workspace(workspace: Workspace) -> int:
    """The console on an open workspace."""
    # Everything heavy is imported inside run_console, after the first paint.
    from pumpdeck_console.tui.app import ConsoleOptions, ConsoleWorld, run_console
    from pumpdeck_console.tui.readers import URGENT
    from pumpdeck_console.two_workers import TwoWorkers

    folder = workspace.root / "console"
    workspace.fs.mkdir(folder)
    options = ConsoleOptions(
        title=workspace.root.name,
        frame_cache=folder / "frame.json",
        export_folder=Path.cwd(),
        is_paced=os.environ.get("PUMPDECK_UNPACED") is None,
    )
    selector = _LazySelector()
    world = ConsoleWorld(clock=workspace.clock, fs=workspace.fs, environ=os.environ, selector=selector)
    actions = TwoWorkers(_OPENER, {"workspace": str(workspace.root)}, folder / "worker.log", URGENT)

    def readers() -> Readers:
        from pumpdeck_console.operations.readers import StoreReaders  # deferred: numpy, in the reader thread

        return StoreReaders(workspace, on_fleet=selector.know)

    return run_console(readers, actions, options=options, world=world)


class _LazySelector:
    """The query selector, imported with numpy at its first use: after the first paint."""

    def __init__(self) -> None:
        self._selector: QuerySelector | None = None
        self._fleet: Fleet | None = None

    def know(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __call__(self, view: FleetView, text: str) -> Mask:
        if self._selector is None:
            from pumpdeck_console.operations.selector import QuerySelector  # deferred: numpy

            self._selector = QuerySelector()
        if self._fleet is not None:
            self._selector.know(self._fleet)
        return self._selector(view, text)
