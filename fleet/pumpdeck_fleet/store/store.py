"""The store of a workspace: all tables over one connection, one transaction helper, one way to open it.

Tables that need numpy are made on first use: a list of sites or pumps must not pay for importing it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, get_args

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.store import facts, migrations
from pumpdeck_fleet.store.age_keys import AgeKeyTable
from pumpdeck_fleet.store.audit_table import AuditTable, PersonTable
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.devices import DeviceTable
from pumpdeck_fleet.store.drift_table import DriftTable, SketchTable
from pumpdeck_fleet.store.labels import LabelTable, SourceTable
from pumpdeck_fleet.store.life import LifeTable
from pumpdeck_fleet.store.models import PackageTable, RegistryTable
from pumpdeck_fleet.store.receipts import AlarmTable, ReceiptTable
from pumpdeck_fleet.store.rollouts import OutboxTable, RolloutTable

if TYPE_CHECKING:
    from pumpdeck_fleet.core.rollout import Rollout
    from pumpdeck_fleet.core.rollout_events import Command
    from pumpdeck_fleet.store.chunks import ChunkTable
    from pumpdeck_fleet.store.merge_tables import Side
    from pumpdeck_fleet.store.retraining import RetrainTable
    from pumpdeck_fleet.store.snapshots import SnapshotTable
    from pumpdeck_fleet.store.statements import StatementTable
    from pumpdeck_fleet.store.sticks import StickTable


class Store:
    """Everything a workspace knows besides its files. Belongs to the thread that opened it; open one for each thread."""

    def __init__(self, sql: Connection, clock: Clock, new_hex: Callable[[int], str]) -> None:
        """Use `Store.open`."""
        self._sql = sql
        self.clock = clock
        self.workspace = _workspace(sql)
        self.lives = LifeTable(sql, self.workspace)
        self.labels = LabelTable(sql)
        self.sources = SourceTable(sql, clock)
        self.registry = RegistryTable(sql, clock, self.workspace)
        self.packages = PackageTable(sql)
        self.audit = AuditTable(sql, clock, self.workspace)
        self.persons = PersonTable(sql, new_hex, self.workspace)
        self.devices = DeviceTable(sql)
        self.age_keys = AgeKeyTable(sql)
        self.receipts = ReceiptTable(sql, clock)
        self.alarms = AlarmTable(sql)
        self.sketches = SketchTable(sql, clock)
        self.drift = DriftTable(sql)

    @classmethod
    def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        create: bool = False,
        read_only: bool = False,
        new_hex: Callable[[int], str] = secrets.token_hex,
    ) -> Store:
        """The store in that file, its schema brought up to date. `new_hex` gives n random bytes as hex, for new identities.

        Raises:
            NotFoundError: no file there, and `create` is off.
            DamagedError: the file is not a store.
            ConflictError: a newer Pumpdeck made it.
            BusyError: another program holds it.
        """
        if not read_only:
            sql = Connection(path, create=create, read_only=False)
            return cls._ready(sql, clock, new_hex)
        sql = Connection(path, create=False, read_only=True)
        if migrations.schema_number(sql) < migrations.MIGRATIONS[-1].number:
            # An old store is brought up to date by whoever comes first, a reader too.
            sql.close()
            cls.open(path, clock, new_hex=new_hex).close()
            sql = Connection(path, create=False, read_only=True)
        try:
            migrations.check_not_newer(sql)
            return cls(sql, clock, new_hex)
        except BaseException:
            sql.close()
            raise

    @classmethod
    def _ready(cls, sql: Connection, clock: Clock, new_hex: Callable[[int], str]) -> Store:
        try:
            migrations.migrate(sql, clock)
            if sql.row("SELECT 1 FROM fact WHERE name = 'workspace'") is None:
                with sql.atomic():
                    name = f"ws-{new_hex(6)}"
                    sql.write("INSERT INTO fact (name, value) VALUES ('workspace', ?) ON CONFLICT DO NOTHING", (name,))
            return cls(sql, clock, new_hex)
        except BaseException:
            sql.close()
            raise

    @cached_property
    def telemetry(self) -> ChunkTable:
        """Rows that sensors measured."""
        from pumpdeck_fleet.store.chunks import ChunkTable  # deferred: numpy; lists do without

        return ChunkTable(self._sql, "telemetry")

    @cached_property
    def scores(self) -> ChunkTable:
        """What devices computed: channels `score`, `limit`, `alarmed`, `drift_index`."""
        from pumpdeck_fleet.store.chunks import ChunkTable  # deferred: numpy; lists do without

        # Figures of every day are kept: the fleet list draws a sparkline of scores for each pump.
        return ChunkTable(self._sql, "scores", facts.SCORE_CHANNELS, rollup_rows=0)

    @cached_property
    def rollouts(self) -> RolloutTable[Rollout]:
        """Rollouts as they stand."""
        from pumpdeck_fleet.core.rollout import Rollout  # deferred: lists of pumps need no rollout

        return RolloutTable(self._sql, self.clock, Rollout, self.workspace)

    @cached_property
    def outbox(self) -> OutboxTable[Command]:
        """Commands that are still to be carried out."""
        from pumpdeck_fleet.core.rollout_events import Command  # deferred: lists of pumps need no rollout

        return OutboxTable(self._sql, self.clock, get_args(Command))

    @cached_property
    def sticks(self) -> StickTable:
        """Which stick is where."""
        from pumpdeck_fleet.store.sticks import StickTable  # deferred: lists of pumps need no stick

        return StickTable(self._sql)

    @cached_property
    def retraining(self) -> RetrainTable:
        """What devices ask for."""
        from pumpdeck_fleet.store.retraining import RetrainTable  # deferred: lists of pumps need no request

        return RetrainTable(self._sql)

    @cached_property
    def snapshots(self) -> SnapshotTable:
        """Training sets as manifests over chunks of telemetry."""
        from pumpdeck_fleet.store.snapshots import SnapshotTable  # deferred: lists of pumps need no snapshot

        return SnapshotTable(self._sql)

    @cached_property
    def statements(self) -> StatementTable:
        """What people signed, for others to believe."""
        from pumpdeck_fleet.store.statements import StatementTable  # deferred: lists of pumps need no signed word

        return StatementTable(self._sql, self.workspace)

    def side(self) -> Side:
        """This store as merging sees it; for `store/merge.py` and its like."""
        from pumpdeck_fleet.store.merge_tables import Side  # deferred: only merging needs it

        return Side(self._sql, self.workspace)

    def facts(self) -> dict[str, facts.PumpFacts]:
        """What is known of every pump the store has heard of, by pump."""
        return facts.read_facts(self._sql)

    @contextmanager
    def atomic(self) -> Iterator[Store]:
        """The store for writing: all or nothing, committed at the end of the outermost block. Nests.

        Raises:
            BusyError: another program held the store too long.
        """
        with self._sql.atomic():
            yield self

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """The store at one moment: every read inside sees the same state."""
        with self._sql.reading():
            yield self

    def change_token(self) -> int:
        """A number that differs after any program committed a change."""
        return self._sql.change_token()

    def close(self) -> None:
        """Close the file; what was not committed is gone."""
        self._sql.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _workspace(sql: Connection) -> str:
    row = sql.row("SELECT value FROM fact WHERE name = 'workspace'")
    if row is None:
        raise NotFoundError("the store has no workspace id", str(sql.path), hint="create a workspace: pumpdeck init")
    return str(row[0])
