"""Rollouts as they stand, and the outbox of commands that are still to be carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, NotFoundError, RefusedError
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import from_text, to_text


class StoredTask(Protocol):
    """What the store must know of a device task."""

    @property
    def id(self) -> str: ...

    @property
    def is_live(self) -> bool:
        """True while the task may still change what its device runs."""
        ...


class StoredRollout(Protocol):
    """What the store must know of a rollout; the rest is its canonical JSON."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def tasks(self) -> Mapping[str, StoredTask]:
        """Tasks by device."""
        ...


class StoredCommand(Protocol):
    """What the store must know of a command. `id` is stable: adding it twice changes nothing."""

    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=StoredRollout)
C = TypeVar("C", bound=StoredCommand)


class RolloutTable(Generic[R]):
    """Rollouts by id, and which task is live on which device."""

    def __init__(self, sql: Connection, clock: Clock, rollout_type: type[R], workspace: str) -> None:
        self._sql = sql
        self._workspace = workspace
        self._clock = clock
        self._type = rollout_type
        self._read: dict[str, tuple[str, R]] = {}

    def save(self, rollout: R) -> None:
        """Keep the rollout as it stands now.

        Raises:
            ConflictError: a device of it has a live task of another rollout.
        """
        body = to_text(rollout)
        self._sql.write(
            "INSERT OR REPLACE INTO rollout (id, state, changed_ms, body) VALUES (?, ?, ?, ?)",
            (rollout.id, str(rollout.state), self._clock.now_ms(), body),
        )
        self._read[rollout.id] = (body, rollout)
        self._sql.write("DELETE FROM live_task WHERE rollout = ?", (rollout.id,))
        tasks = {device: task.id for device, task in rollout.tasks.items() if task.is_live}
        self._check_free(rollout.id, tasks)
        self._sql.write_many(
            "INSERT INTO live_task (device, task, rollout) VALUES (?, ?, ?)",
            [(device, task, rollout.id) for device, task in tasks.items()],
        )

    def _check_free(self, rollout: str, tasks: Mapping[str, str]) -> None:
        for device, task, other in self._sql.rows("SELECT device, task, rollout FROM live_task"):
            if device in tasks:
                raise ConflictError(
                    "the device has a live task of another rollout",
                    device,
                    expected=f"no live task beside {tasks[device]} of {rollout}",
                    found=f"{task} of {other}",
                )

    def homes(self) -> dict[str, str]:
        """Rollout -> the other workspace that drives it; those driven here are left out."""
        sql = "SELECT rollout, workspace FROM rollout_home WHERE workspace != ? ORDER BY rollout"
        return dict(self._sql.rows(sql, (self._workspace,)))

    def check_home(self, rollout: str) -> None:
        """Raises: RefusedError: another workspace drives the rollout; two drivers would undo each other's work."""
        row = self._sql.row("SELECT workspace FROM rollout_home WHERE rollout = ?", (rollout,))
        if row is not None and row[0] != self._workspace:
            raise RefusedError(
                "is driven by another workspace",
                rollout,
                expected=self._workspace,
                found=row[0],
                hint=f"act there and sync, or take it over: pumpdeck rollout adopt {rollout}",
            )

    def set_home(self, rollout: str, workspace: str) -> None:
        """Let that workspace drive the rollout from now on; copies made before know nothing of it and lose against this one."""
        self._sql.write(
            "INSERT INTO rollout_home (rollout, workspace, epoch) VALUES (?, ?, 1)"
            " ON CONFLICT (rollout) DO UPDATE SET workspace = excluded.workspace, epoch = epoch + 1",
            (rollout, workspace),
        )

    def taken_over(self) -> list[tuple[str, int]]:
        """Rollouts that this workspace drives and another one drove before, with how often the driver has changed."""
        sql = "SELECT rollout, epoch FROM rollout_home WHERE workspace = ? AND epoch > 0 ORDER BY rollout"
        return [(str(row[0]), int(row[1])) for row in self._sql.rows(sql, (self._workspace,))]

    def epoch(self, rollout: str) -> int:
        """How often the rollout has changed its driver."""
        row = self._sql.row("SELECT epoch FROM rollout_home WHERE rollout = ?", (rollout,))
        return int(row[0]) if row else 0

    def load(self, rollout: str) -> R:
        """Raises: NotFoundError."""
        row = self._sql.row("SELECT body FROM rollout WHERE id = ?", (rollout,))
        if row is None:
            raise NotFoundError("no such rollout", rollout, hint="list them with: pumpdeck rollout list")
        return self._parsed(rollout, row[0])

    def _parsed(self, rollout: str, body: str) -> R:
        # One delivery reads the same text hundreds of times, and a rollout is frozen: the text decides, nobody's memory does.
        known = self._read.get(rollout)
        if known is None or known[0] != body:
            known = self._read[rollout] = (body, from_text(self._type, body, f"rollout {rollout}"))
        return known[1]

    def all(self) -> list[R]:
        """Every rollout, in order of id."""
        rows = self._sql.rows("SELECT id, body FROM rollout ORDER BY id")
        return [self._parsed(identity, body) for identity, body in rows]

    def states(self) -> dict[str, str]:
        """State by rollout, without reading the rollouts."""
        return dict(self._sql.rows("SELECT id, state FROM rollout ORDER BY id"))

    def live_task(self, device: str) -> str | None:
        """Id of the one task that may still change what the device runs."""
        row = self._sql.row("SELECT task FROM live_task WHERE device = ?", (device,))
        return str(row[0]) if row else None

    def live_tasks(self) -> dict[str, tuple[str, str]]:
        """(task, rollout) by device."""
        return {row[0]: (row[1], row[2]) for row in self._sql.rows("SELECT device, task, rollout FROM live_task")}


@dataclass(frozen=True, slots=True)
class OutboxRow(Generic[C]):
    """One command that waits: when it is due, how often it was tried, and why it did not go through."""

    command: C
    due_ms: int
    tries: int
    why: str


class OutboxTable(Generic[C]):
    """Commands, written in the transaction that decided them, carried out after it, and kept until they are done."""

    def __init__(self, sql: Connection, clock: Clock, command_types: Iterable[type[C]]) -> None:
        self._sql = sql
        self._clock = clock
        self._types: dict[str, type[Any]] = {kind.__name__: kind for kind in command_types}

    def add(self, commands: Sequence[C], due_ms: int | None = None) -> int:
        """Put commands at the end, due now unless said otherwise or by the command itself; how many were new.

        A command with an attribute `device` can be asked for by device; one with `not_before_ms` is not due before it.
        """
        row = self._sql.row("SELECT coalesce(max(position), 0) FROM outbox")
        assert row is not None
        now_ms = self._clock.now_ms() if due_ms is None else due_ms
        added = 0
        for position, command in enumerate(commands, int(row[0]) + 1):
            due = max(now_ms, getattr(command, "not_before_ms", now_ms))
            values = (command.id, position, type(command).__name__, getattr(command, "device", ""), due, to_text(command))
            added += self._sql.write(
                "INSERT INTO outbox (id, position, kind, device, due_ms, body) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING",
                values,
            )
        return added

    def due(self, now_ms: int, limit: int = 1000) -> list[OutboxRow[C]]:
        """Commands that may be carried out now, oldest first."""
        sql = f"SELECT {_OUTBOX} FROM outbox WHERE done_ms IS NULL AND due_ms <= ? ORDER BY position LIMIT ?"
        return [self._outbox_row(row) for row in self._sql.rows(sql, (now_ms, limit))]

    def done(self, command: str) -> bool:
        """The command was carried out, or must not be any more; False when it was done before or is unknown."""
        sql = "UPDATE outbox SET done_ms = ? WHERE id = ? AND done_ms IS NULL"
        return self._sql.write(sql, (self._clock.now_ms(), command)) > 0

    def retry(self, command: str, at_ms: int, why: str) -> None:
        """Try again at `at_ms`; one try more is counted."""
        sql = "UPDATE outbox SET due_ms = ?, why = ?, tries = tries + 1 WHERE id = ? AND done_ms IS NULL"
        self._sql.write(sql, (at_ms, why, command))

    def waiting(self, device: str | None = None) -> list[OutboxRow[C]]:
        """Commands that are not done, due or not, oldest first; of one device when given."""
        sql = f"SELECT {_OUTBOX} FROM outbox WHERE done_ms IS NULL AND (? IS NULL OR device = ?) ORDER BY position"
        return [self._outbox_row(row) for row in self._sql.rows(sql, (device, device))]

    def _outbox_row(self, row: Row) -> OutboxRow[C]:
        identity, kind, due_ms, tries, why, body = row
        if kind not in self._types:
            raise DamagedError("a command of unknown kind", identity, expected=", ".join(self._types), found=kind)
        return OutboxRow(from_text(self._types[kind], body, f"command {identity}"), due_ms, tries, why)


_OUTBOX = "id, kind, due_ms, tries, why, body"
