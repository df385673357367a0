"""The console's actions: one worker process for most of them, and a second one for what must never wait."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pumpdeck_console.worker_process import Json, Progress, Task, WorkerProcess


class TwoWorkers:
    """`tui.readers.Actions`. The second process starts with the first urgent operation; SQLite keeps the two apart."""

    def __init__(self, opener: str, context: Mapping[str, Json], log: Path, urgent: Collection[str]) -> None:
        self._names = frozenset(urgent)
        self._ordinary = WorkerProcess(opener, context, log)
        self._urgent = WorkerProcess(opener, context, log)

    def submit(self, operation: str, arguments: Mapping[str, Json], on_progress: Progress) -> Task:
        """Start an operation; returns at once. Raises: WorkerDiedError when no worker can be started."""
        worker = self._urgent if operation in self._names else self._ordinary
        return worker.submit(operation, arguments, on_progress)

    def warm(self) -> None:
        """Start the process for most actions now; returns at once."""
        self._ordinary.warm()

    def close(self) -> None:
        """Let both end."""
        self._ordinary.close()
        self._urgent.close()
