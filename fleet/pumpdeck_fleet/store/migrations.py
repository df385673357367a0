"""The schema as numbered steps. A step and its record commit together, so a cut leaves the store before it or after it.

A step that has been released is never edited; the schema changes by adding one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import ConflictError
from pumpdeck_fleet.store import schema
from pumpdeck_fleet.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: SQL statements in order."""

    number: int
    name: str
    statements: Sequence[str]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first schema", schema.FIRST),
    Migration(2, "counters of returns", schema.RETURN_COUNTERS),
    Migration(3, "inventory of sticks", schema.STICKS),
    Migration(4, "merging", schema.MERGING),
    Migration(5, "keys of devices", schema.DEVICE_KEYS),
    Migration(6, "requests for new models", schema.RETRAINING),
    Migration(7, "age keys of devices", schema.DEVICE_AGE_KEYS),
    Migration(8, "snapshots", schema.SNAPSHOTS),
    Migration(9, "signed statements", schema.STATEMENTS),
    Migration(10, "lookups of signed statements", schema.STATEMENT_LOOKUPS),
)


def schema_number(sql: Connection) -> int:
    """The number of the last step this store has taken; 0 for an empty file."""
    if sql.row("SELECT 1 FROM sqlite_master WHERE name = 'migration'") is None:
        return 0
    row = sql.row("SELECT max(number) FROM migration")
    return int(row[0] or 0) if row else 0


def check_not_newer(sql: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Raises ConflictError when a newer Pumpdeck has changed the schema."""
    found, known = schema_number(sql), migrations[-1].number
    if found > known:
        raise ConflictError(
            "the store was made by a newer Pumpdeck",
            str(sql.path),
            expected=f"schema {known} or older",
            found=f"schema {found}",
            hint="update this Pumpdeck",
        )


def migrate(sql: Connection, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Take every missing step; how many were taken.

    Raises:
        ConflictError: the store is newer than this program.
    """
    check_not_newer(sql, migrations)
    taken = 0
    for step in migrations:
        with sql.atomic():
            # Asked again under the lock: another process may have taken the step meanwhile.
            if schema_number(sql) >= step.number:
                continue
            for statement in step.statements:
                sql.write(statement)
            sql.write(
                "INSERT INTO migration (number, name, at_ms) VALUES (?, ?, ?)", (step.number, step.name, clock.now_ms())
            )
            taken += 1
    return taken
