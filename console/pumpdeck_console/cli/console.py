"""Opening the console: the workspace's readers, its worker process, and the app."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pumpdeck_console.cli.session import Session
    from pumpdeck_console.wiring import Workspace

_OPENER = "pumpdeck_console.operations.table:open_worker"


def open_console(session: Session) -> int:
    """Run the console until the person leaves it; its exit code.

    Raises:
        NotFoundError: there is no workspace.
    """
    return run_workspace(session.workspace())


def run_workspace(workspace: Workspace) -> int:
    """The console on an open workspace."""
    # Everything heavy is imported inside run_console, after the first paint.
    from pumpdeck_console.tui.app import ConsoleOptions, ConsoleWorld, run_console
    from pumpdeck_console.worker_process import WorkerProcess

    folder = workspace.root / "console"
    workspace.fs.mkdir(folder)
    options = ConsoleOptions(
        title=workspace.root.name,
        frame_cache=folder / "frame.json",
        export_folder=Path.cwd(),
        is_paced=os.environ.get("PUMPDECK_UNPACED") is None,
    )
    world = ConsoleWorld(clock=workspace.clock, fs=workspace.fs, environ=os.environ)
    actions = WorkerProcess(_OPENER, {"workspace": str(workspace.root)}, log=folder / "worker.log")

    def readers() -> object:
        from pumpdeck_console.operations.readers import StoreReaders  # deferred: numpy, in the reader thread

        return StoreReaders(workspace)

    return run_console(readers, actions, options=options, world=world)  # type: ignore[arg-type]
