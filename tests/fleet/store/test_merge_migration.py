"""A store made before merging was known: its versions, aliases, persons and receipts are merged like any other."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.copying import copy_store
from pumpdeck_fleet.store.merge import merge_store
from pumpdeck_fleet.store.migrations import MIGRATIONS, migrate, schema_number
from support.histories import empty_store
from support.stores import T0
from support.workspaces import MODEL, make_version


def old_store(path: Path) -> None:
    """As an earlier Pumpdeck left it: one version, one alias, one person, one audit entry."""
    before = [step for step in MIGRATIONS if step.number < next(one.number for one in MIGRATIONS if one.name == "merging")]
    sql = Connection(path, create=True, read_only=False)
    migrate(sql, FixedClock(T0), before)
    version = make_version(1)
    with sql.atomic():
        sql.write("INSERT INTO fact (name, value) VALUES ('workspace', 'ws-00000000000a')")
        body = canonical.encode(version).decode().replace('"number":0', '"number":1')
        sql.write(
            "INSERT INTO model_version (model, number, content_digest, body) VALUES (?, 1, ?, ?)",
            (MODEL, version.content_digest, body),
        )
        sql.write("INSERT INTO alias (model, alias, number) VALUES (?, 'champion', 1)", (MODEL,))
        sql.write("INSERT INTO person (actor, name) VALUES ('actor-1', 'Ann Other')")
    assert schema_number(sql) == before[-1].number
    sql.close()


def test_an_old_store_is_brought_up_to_date_with_its_names(tmp_path: Path) -> None:
    old_store(tmp_path / "pumpdeck.db")
    with Store.open(tmp_path / "pumpdeck.db", FixedClock(T0)) as store:
        side = store.side()
        assert side.names(make_version(1).content_digest) == {"ws-00000000000a": 1}
        assert store.persons.name_of("actor-1") == "Ann Other"
        with store.atomic():
            assert store.persons.actor_for("Ann Other") == "actor-1"
            assert store.registry.add(make_version(2)) == 2


def test_an_old_store_can_be_taken_in(tmp_path: Path) -> None:
    old_store(tmp_path / "old.db")
    before = (tmp_path / "old.db").read_bytes()
    copy_store(tmp_path / "old.db", tmp_path / "copy.db")
    mine = empty_store(tmp_path / "mine", 1)
    with Store.open(tmp_path / "copy.db", FixedClock(T0)) as theirs, mine.atomic():
        done = merge_store(mine, theirs)
    assert done.taken["version"] == done.taken["alias"] == done.taken["person"] == 1
    assert (tmp_path / "old.db").read_bytes() == before
