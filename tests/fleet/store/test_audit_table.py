"""The audit chain: whatever is altered, lost, added or moved is found, and its position named."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.audit import GENESIS, AuditBrokenError
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import EXIT_DAMAGED, ConflictError, NotFoundError
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.connection import Connection
from support.stores import T0, open_store

ENTRIES = 7
CHAIN = "ws-000000000001"


def write_entries(store: Store, count: int = ENTRIES) -> None:
    for number in range(count):
        with store.atomic():
            store.audit.append("actor-1", "rollout.approve", f"r{number}", "why not", {"plan": "ab" * 32})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    with open_store(folder) as store:
        write_entries(store)
    return folder / "pumpdeck.db"


def verify_after(written: Path, folder: Path, *statements: str) -> AuditBrokenError:
    """What `verify` says after somebody went into the file by another way than ours."""
    path = folder / "copy.db"
    shutil.copyfile(written, path)
    with sqlite3.connect(path) as sql:
        sql.execute("DROP TRIGGER audit_is_final")
        sql.execute("DROP TRIGGER audit_is_kept")
        for statement in statements:
            sql.execute(statement)
    sql.close()
    with Store.open(path, FixedClock(T0)) as store, pytest.raises(AuditBrokenError) as caught:
        store.audit.verify()
    path.unlink()
    return caught.value


def test_an_untouched_chain_holds(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.audit.verify().digest == GENESIS
        write_entries(store)
        head = store.audit.verify()
        assert (head.chain, head.position) == (CHAIN, ENTRIES)
        entries = store.audit.entries()
        assert [entry.position for entry in entries] == list(range(1, ENTRIES + 1))
        assert entries[-1].digest == head.digest
        assert store.audit.entries(after=5) == entries[5:]
        assert store.audit.entries(limit=2) == entries[:2]
        assert store.audit.latest(2) == entries[:-3:-1]


ALTERATIONS = {
    "at_ms": "at_ms + 1",
    "actor": "'actor-2'",
    "action": "action || ' '",
    "subject": "''",
    "reason": "reason || '!'",
    "digests": "'{}'",
    "previous": "substr(previous, 2) || '1'",
    "digest": "substr(digest, 2) || '-'",
}


@pytest.mark.parametrize("column", ALTERATIONS)
@pytest.mark.parametrize("position", [1, 4, ENTRIES])
def test_any_altered_column_is_found_at_its_position(written: Path, tmp_path: Path, column: str, position: int) -> None:
    error = verify_after(written, tmp_path, f"UPDATE audit SET {column} = {ALTERATIONS[column]} WHERE position = {position}")
    # A changed digest is seen at the entry itself, since its content does not give it.
    assert error.which == f"audit entry {position} of {CHAIN}"
    assert error.exit_code == EXIT_DAMAGED


@pytest.mark.parametrize("position", [1, 4, ENTRIES])
def test_a_lost_entry_is_found(written: Path, tmp_path: Path, position: int) -> None:
    error = verify_after(written, tmp_path, f"DELETE FROM audit WHERE position = {position}")
    assert error.which == f"audit entry {position} of {CHAIN}"


def test_a_cut_tail_is_found_by_the_head(written: Path, tmp_path: Path) -> None:
    error = verify_after(written, tmp_path, "DELETE FROM audit WHERE position > 3")
    assert error.which == f"audit entry 4 of {CHAIN}"


def test_an_emptied_table_is_found(written: Path, tmp_path: Path) -> None:
    assert verify_after(written, tmp_path, "DELETE FROM audit").which == f"audit entry 1 of {CHAIN}"


def test_an_added_entry_is_found(written: Path, tmp_path: Path) -> None:
    copy = "INSERT INTO audit SELECT chain, 8, previous, at_ms, actor, action, subject, reason, digests, digest FROM audit"
    assert verify_after(written, tmp_path, f"{copy} WHERE position = 7").which == f"audit entry 8 of {CHAIN}"


def test_entries_that_changed_places_are_found(written: Path, tmp_path: Path) -> None:
    swap = [f"UPDATE audit SET position = {new} WHERE position = {old}" for old, new in ((2, 90), (3, 2), (90, 3))]
    assert verify_after(written, tmp_path, *swap).which == f"audit entry 2 of {CHAIN}"


def test_an_entry_moved_to_another_chain_is_found(written: Path, tmp_path: Path) -> None:
    error = verify_after(written, tmp_path, f"UPDATE audit SET chain = 'ws-other' WHERE position = {ENTRIES}")
    assert error.which == f"audit entry {ENTRIES} of {CHAIN}"


def test_unreadable_digests_are_an_alteration_not_a_crash(written: Path, tmp_path: Path) -> None:
    error = verify_after(written, tmp_path, "UPDATE audit SET digests = '{' WHERE position = 2")
    assert error.which == f"audit entry 2 of {CHAIN}"


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_altered_character_is_found(written: Path, tmp_path: Path, data: st.DataObject) -> None:
    position = data.draw(st.integers(1, ENTRIES))
    column = data.draw(st.sampled_from(["actor", "action", "subject", "reason", "digests", "previous", "digest"]))
    with sqlite3.connect(written) as sql:
        (text,) = sql.execute(f"SELECT {column} FROM audit WHERE position = ?", (position,)).fetchone()
    sql.close()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8", exclude_characters=text[at] + "'\0 "))
    altered = (text[:at] + other + text[at + 1 :]).replace("'", "''")
    error = verify_after(written, tmp_path, f"UPDATE audit SET {column} = '{altered}' WHERE position = {position}")
    assert error.which == f"audit entry {position} of {CHAIN}"


def test_our_own_way_in_cannot_change_or_delete_an_entry(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        write_entries(store)
    sql = Connection(tmp_path / "pumpdeck.db", create=False, read_only=False)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "INSERT OR REPLACE INTO audit SELECT * FROM audit"):
        with pytest.raises(ConflictError), sql.atomic():
            sql.write(statement)
    sql.close()
    with open_store(tmp_path) as store:
        assert store.audit.verify().position == ENTRIES


def test_two_programs_write_one_chain(tmp_path: Path) -> None:
    with open_store(tmp_path) as one, open_store(tmp_path) as other:
        for store in (one, other, one, one, other):
            write_entries(store, 1)
        assert one.audit.verify() == other.audit.verify()
        assert one.audit.head().position == 5


def test_actors_are_pseudonyms_and_erasing_a_name_keeps_the_chain(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            actor = store.persons.actor_for("Ann Other")
            assert store.persons.actor_for("Ann Other") == actor
            store.audit.append(actor, "did", "this")
        assert actor.startswith("actor-")
        assert "Ann" not in actor
        assert store.persons.name_of(actor) == "Ann Other"
        head = store.audit.verify()
        with store.atomic():
            store.persons.erase(actor)
        assert store.persons.name_of(actor) == actor
        assert store.audit.verify() == head
        assert store.audit.entries()[0].actor == actor
        with store.atomic():
            assert store.persons.actor_for("Ann Other") != actor
        with pytest.raises(NotFoundError), store.atomic():
            store.persons.erase(actor)


def test_no_name_is_in_the_file_after_it_was_erased(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            actor = store.persons.actor_for("Zebedee Quux")
        with store.atomic():
            store.persons.erase(actor)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("pumpdeck.db*"))
    assert b"Zebedee" not in kept
