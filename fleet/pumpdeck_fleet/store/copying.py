"""A copy of a store at one moment, taken while others read and write it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from pumpdeck_fleet.core.errors import DamagedError, NotFoundError
from pumpdeck_fleet.store.connection import APPLICATION_ID, translate


def copy_store(source: Path, target: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Write the store in `source` as it stands at one moment into the new file `target`: one file, no log beside it.

    Writers are not held up: who writes meanwhile is in the copy whole or not at all.

    Raises:
        NotFoundError: there is no store. DamagedError: it is not one, or damaged. BusyError: the disk is full.
    """
    if not source.is_file():
        raise NotFoundError("no store here", str(source))

    def report(_status: int, left: int, total: int) -> None:
        if on_progress is not None:
            on_progress(total - left, total)

    try:
        with contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old:
            (found,) = old.execute("PRAGMA application_id").fetchone()
            if found != APPLICATION_ID:
                raise DamagedError("is not a Pumpdeck store", str(source), expected=hex(APPLICATION_ID), found=hex(found))
            with contextlib.closing(sqlite3.connect(target)) as new:
                # In one step: with smaller ones a busy writer makes SQLite begin again and again.
                old.backup(new, pages=-1, progress=report)
                new.execute("PRAGMA journal_mode=DELETE")
                (verdict,) = new.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        raise translate(error, source) from error
    if verdict != "ok":
        raise DamagedError("the store is damaged", str(source), found=verdict, hint="restore the latest backup")
