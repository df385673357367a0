"""One SQLite connection: opening, nested transactions, and the only place where sqlite3's errors become ours.

WAL, synchronous FULL: a committed transaction survives a power cut; readers are never blocked. A connection belongs to the
thread that opened it; open one per thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pumpdeck_fleet.core.errors import BusyError, ConflictError, DamagedError, NotFoundError, PumpdeckError

APPLICATION_ID = 0x50444B31  # "PDK1" in the file's header: not every SQLite file is a store
BUSY_TIMEOUT_S = 10.0
PAGE_BYTES = 8192
Row = tuple[Any, ...]
Values = Sequence[Any]


class OutsideTransactionError(PumpdeckError):
    """A write was tried outside `atomic()`: a defect of the caller."""


def translate(error: sqlite3.Error, path: Path) -> PumpdeckError:
    """Our error for one of sqlite3's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    which = str(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError("the store is held by another program", which, hint="try again when it is done")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError("the store is damaged", which, found=str(error), hint="restore the latest backup")
    if code == sqlite3.SQLITE_CANTOPEN:
        return NotFoundError("the store cannot be opened", which, found=str(error), hint="create a workspace: pumpdeck init")
    if code == sqlite3.SQLITE_FULL:
        return BusyError("no room is left on the disk; nothing was written", which, hint="free some room and try again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ConflictError("the store may only be read here", which, found=str(error))
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError("the store refuses this change", which, found=str(error))
    if code == sqlite3.SQLITE_IOERR:
        return DamagedError("the disk failed", which, found=str(error), hint="check the disk, then run: pumpdeck doctor")
    return PumpdeckError("the store failed", which, found=str(error))


class Connection:
    """SQL in, tuples out. Reading is always allowed, writing only inside `atomic()`."""

    def __init__(self, path: Path, *, create: bool, read_only: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open the file.

        Raises:
            NotFoundError: it is not there and `create` is off.
            DamagedError: it is not a store.
        """
        self.path = path
        self.read_only = read_only
        self.undone = 0
        """How often something was rolled back: what was remembered of the store before may not be true any more."""
        self._depth = 0
        self._commits = 0
        if not create and not path.exists():
            raise NotFoundError("no store here", str(path), hint="create a workspace: pumpdeck init")
        mode = "ro" if read_only else "rwc" if create else "rw"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        try:
            self._sql = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None)
            self._prepare(create)
        except sqlite3.Error as error:
            raise translate(error, path) from error

    def _prepare(self, create: bool) -> None:
        (found,) = self._sql.execute("PRAGMA application_id").fetchone()
        (version,) = self._sql.execute("PRAGMA schema_version").fetchone()
        if found != APPLICATION_ID and not (create and version == 0):
            self._sql.close()
            raise DamagedError("is not a Pumpdeck store", str(self.path), expected=hex(APPLICATION_ID), found=hex(found))
        if not self.read_only:
            if found != APPLICATION_ID:
                self._sql.execute(f"PRAGMA page_size={PAGE_BYTES}")
                self._sql.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._sql.execute("PRAGMA journal_mode=WAL")
            self._sql.execute("PRAGMA synchronous=FULL")
        self._sql.execute("PRAGMA foreign_keys=ON")
        # INSERT OR REPLACE deletes the old row; only with this do the triggers that keep audit entries see it.
        self._sql.execute("PRAGMA recursive_triggers=ON")
        # An erased name must not stay behind in a free part of a page.
        self._sql.execute("PRAGMA secure_delete=FAST")
        self._sql.execute("PRAGMA temp_store=MEMORY")
        self._sql.execute("PRAGMA cache_size=-16384")

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        self._sql.close()

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a query."""
        try:
            return self._sql.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def each(self, sql: str, values: Values = ()) -> Iterator[Row]:
        """The rows of a query one by one, for results that should not stand in memory whole."""
        try:
            cursor = self._sql.execute(sql, values)
            while row := cursor.fetchone():
                yield row
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def row(self, sql: str, values: Values = ()) -> Row | None:
        """The first row of a query."""
        try:
            found: Row | None = self._sql.execute(sql, values).fetchone()
            return found
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def write(self, sql: str, values: Values = ()) -> int:
        """Change rows; the number changed.

        Raises:
            OutsideTransactionError: no `atomic()` is open.
        """
        self.check_writing()
        try:
            return self._sql.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def write_many(self, sql: str, values: Iterable[Values]) -> int:
        """The same change for many values; the number of rows changed."""
        self.check_writing()
        try:
            return self._sql.executemany(sql, values).rowcount
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def check_writing(self) -> None:
        """Raises OutsideTransactionError when no `atomic()` is open."""
        if not self._depth:
            raise OutsideTransactionError("a write outside a transaction", str(self.path), hint="use: with store.atomic()")

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Everything inside is committed together at the end of the outermost block, or not at all.

        An exception that leaves an inner block undoes that block only; the outer one may go on.

        Raises:
            BusyError: another program held the store longer than the time-out.
        """
        begin, commit, undo = self._words(self._depth)
        self._run(begin)
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            self._undo(undo)
            raise
        self._depth -= 1
        try:
            self._run(commit)
        except PumpdeckError:
            self._undo(undo)
            raise
        self._commits += not self._depth

    @staticmethod
    def _words(depth: int) -> tuple[str, str, tuple[str, ...]]:
        if not depth:
            # IMMEDIATE: the write lock is taken before anything is read, so what was read is still true when it is written.
            return "BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",)
        name = f"level_{depth}"
        return f"SAVEPOINT {name}", f"RELEASE {name}", (f"ROLLBACK TO {name}", f"RELEASE {name}")

    def _undo(self, words: tuple[str, ...]) -> None:
        self.undone += 1
        # SQLite has rolled back by itself after a full disk or an I/O error.
        if self._sql.in_transaction:
            for word in words:
                self._run(word)

    def _run(self, word: str) -> None:
        try:
            self._sql.execute(word)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All queries inside see one and the same moment."""
        if self._sql.in_transaction:
            yield
            return
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("ROLLBACK")

    def change_token(self) -> int:
        """A number that differs after any commit, of this connection or of another program."""
        row = self.row("PRAGMA data_version")
        assert row is not None
        return (int(row[0]) << 32) + self._commits
