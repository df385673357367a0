"""One transaction helper: all or nothing, nesting, other programs, other threads, other schemas."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import (
    EXIT_BUSY,
    BusyError,
    ConflictError,
    DamagedError,
    NotFoundError,
    PumpdeckError,
)
from pumpdeck_fleet.store import Store, migrations
from pumpdeck_fleet.store.connection import Connection, OutsideTransactionError
from support.stores import T0, open_store

CLOCK = FixedClock(T0)


def names(store: Store) -> list[str]:
    return sorted(store.persons.names().values())


def test_what_is_written_together_is_committed_together(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic() as tx:
            assert tx is store
            tx.persons.actor_for("Ann")
        with pytest.raises(KeyError), store.atomic():
            store.persons.actor_for("Ben")
            store.audit.append("actor-1", "did", "this")
            raise KeyError
        assert names(store) == ["Ann"]
        assert store.audit.head().position == 0


def test_an_inner_block_can_fail_alone(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.persons.actor_for("Ann")
            with pytest.raises(KeyError), store.atomic():
                store.persons.actor_for("Ben")
                with store.atomic():
                    store.persons.actor_for("Cor")
                raise KeyError
            with store.atomic():
                store.persons.actor_for("Dee")
        assert names(store) == ["Ann", "Dee"]


def test_an_outer_block_takes_its_inner_ones_along(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with pytest.raises(KeyError), store.atomic():
            with store.atomic():
                store.persons.actor_for("Ann")
            raise KeyError
        assert names(store) == []


def test_writing_outside_a_transaction_is_a_defect(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with pytest.raises(OutsideTransactionError):
            store.audit.append("actor-1", "did", "this")
        assert store.audit.head().position == 0


def test_readers_see_the_state_before_and_are_not_blocked(tmp_path: Path) -> None:
    with open_store(tmp_path) as writer, Store.open(tmp_path / "pumpdeck.db", CLOCK, read_only=True) as reader:
        with writer.atomic():
            writer.persons.actor_for("Ann")
            assert names(reader) == []
        assert names(reader) == ["Ann"]
        with reader.reading():
            assert names(reader) == ["Ann"]
            with writer.atomic():
                writer.persons.actor_for("Ben")
            assert names(reader) == ["Ann"]
        assert names(reader) == ["Ann", "Ben"]


def test_a_second_writer_is_told_that_the_store_is_busy(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "pumpdeck.db"
    one = Connection(path, create=False, read_only=False)
    other = Connection(path, create=False, read_only=False, busy_timeout_s=0.05)
    with one.atomic(), pytest.raises(BusyError) as caught, other.atomic():
        pytest.fail("two writers at once")
    assert (caught.value.retryable, caught.value.exit_code) == (True, EXIT_BUSY)
    with other.atomic():
        other.write("INSERT INTO fact (name, value) VALUES ('x', 'y')")
    one.close()
    other.close()


def test_a_read_only_store_refuses_to_write(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with Store.open(tmp_path / "pumpdeck.db", CLOCK, read_only=True) as store:
        with pytest.raises(ConflictError), store.atomic():
            store.persons.actor_for("Ann")
        assert names(store) == []


def test_the_change_token_tells_of_own_and_other_commits_and_only_of_those(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, open_store(tmp_path, first=100) as other:
        token = store.change_token()
        assert store.change_token() == token
        with store.atomic():
            store.persons.actor_for("Ann")
        own = store.change_token()
        assert own != token
        with other.atomic():
            other.persons.actor_for("Ben")
        assert store.change_token() != own
        after = store.change_token()
        with pytest.raises(KeyError), other.atomic():
            other.persons.actor_for("Cor")
            raise KeyError
        assert store.change_token() == after


def test_a_missing_store_is_not_made_by_accident(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(NotFoundError):
            Store.open(tmp_path / "none.db", CLOCK, read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "a.db", tmp_path / "b.db"
    text.write_bytes(b"this is no database, whatever its name may say\n" * 30)
    with sqlite3.connect(other) as made:
        made.execute("CREATE TABLE theirs (x)")
    made.close()
    for path in (text, other):
        before = path.read_bytes()
        for create in (False, True):
            with pytest.raises(DamagedError):
                Store.open(path, CLOCK, create=create)
        assert path.read_bytes() == before


def test_the_workspace_id_is_given_once_and_kept(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.workspace == "ws-000000000001"
    with open_store(tmp_path) as again:
        assert again.workspace == "ws-000000000001"


def test_a_step_of_the_schema_and_its_record_commit_together(tmp_path: Path) -> None:
    sql = Connection(tmp_path / "x.db", create=True, read_only=False)
    last = migrations.MIGRATIONS[-1].number
    steps = (*migrations.MIGRATIONS, migrations.Migration(last + 1, "breaks", ("CREATE TABLE new (x)", "CREATE TABLE new (x)")))
    with pytest.raises(PumpdeckError):
        migrations.migrate(sql, CLOCK, steps)
    assert migrations.schema_number(sql) == last
    assert sql.row("SELECT 1 FROM sqlite_master WHERE name = 'new'") is None
    good = (*migrations.MIGRATIONS, migrations.Migration(last + 1, "works", ("CREATE TABLE new (x)",)))
    assert migrations.migrate(sql, CLOCK, good) == 1
    assert migrations.migrate(sql, CLOCK, good) == 0
    sql.close()


def test_a_store_of_a_newer_program_is_refused_and_unchanged(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "pumpdeck.db"
    with sqlite3.connect(path) as newer:
        newer.execute("INSERT INTO migration VALUES (99, 'from the future', 0)")
    newer.close()
    for read_only in (False, True):
        with pytest.raises(ConflictError, match="newer Pumpdeck"):
            Store.open(path, CLOCK, read_only=read_only)
    with sqlite3.connect(path) as check:
        assert check.execute("SELECT max(number) FROM migration").fetchone() == (99,)
    check.close()


def test_a_reader_brings_an_old_store_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path).close()
    number = migrations.MIGRATIONS[-1].number + 1
    newer = (*migrations.MIGRATIONS, migrations.Migration(number, "adds", ("CREATE TABLE added (x)",)))
    monkeypatch.setattr(migrations, "MIGRATIONS", newer)
    monkeypatch.setattr(migrations.migrate, "__defaults__", (newer,))
    monkeypatch.setattr(migrations.check_not_newer, "__defaults__", (newer,))
    with Store.open(tmp_path / "pumpdeck.db", CLOCK, read_only=True) as store:
        assert store.workspace
    sql = Connection(tmp_path / "pumpdeck.db", create=False, read_only=True)
    assert migrations.schema_number(sql) == newer[-1].number
    sql.close()


def test_lists_do_without_numpy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pumpdeck_fleet.core.clock import SystemClock\n"
        "from pumpdeck_fleet.store import Store\n"
        "store = Store.open(Path(sys.argv[1]), SystemClock(), create=True)\n"
        "store.facts(), store.devices.statuses(), store.registry.models(), store.audit.latest()\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'tomlkit', 'onnxruntime', 'textual', 'paramiko', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.db")], check=True)


def test_a_process_that_dies_in_a_transaction_leaves_the_state_before(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pumpdeck_fleet.core.clock import SystemClock\n"
        "from pumpdeck_fleet.store import Store\n"
        "store = Store.open(Path(sys.argv[1]), SystemClock(), create=True)\n"
        "with store.atomic():\n"
        "    store.persons.actor_for('Ann')\n"
        "with store.atomic():\n"
        "    store.persons.actor_for('Ben')\n"
        "    os._exit(9)\n"
    )
    path = tmp_path / "pumpdeck.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    with Store.open(path, CLOCK) as store:
        assert names(store) == ["Ann"]
