"""Every table of the store is merged, or it is said here why it is not; a table that is added later is not forgotten."""

from __future__ import annotations

import re
from pathlib import Path

from pumpdeck_fleet.core.merging import JOINS
from pumpdeck_fleet.store.merge_tables import TABLES
from support.histories import empty_store

MERGED_OTHERWISE = {
    "audit": "by chain, each entry proven",
    "audit_seal": "with the chain whose head it signs",
    "series": "by chunk, channel by channel",
    "chunk": "by chunk, channel by channel",
    "channel_set": "names of channels, written with the chunks",
    "version_name": "with its version",
    "package_pump": "with its package",
}
MADE_ANEW = {"alias", "audit_head", "live_task", "pump_now", "rollup_hour"}
STAYS_HERE = {"fact", "merge_conflict", "migration", "outbox"}
# What a training held on to. Another workspace replays a run with `runs export`, which carries the snapshot.
HELD_HERE = {"snapshot", "snapshot_part", "chunk_pin", "chunk_kept"}


def test_every_table_is_merged_made_anew_or_stays_here(tmp_path: Path) -> None:
    with empty_store(tmp_path / "a", 1) as store:
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = {str(row[0]) for row in store.side().sql.rows(sql)}
    words = set(re.findall(r"\w+", " ".join(table.source for table in TABLES)))
    assert tables - words == set(MERGED_OTHERWISE) | MADE_ANEW | STAYS_HERE | HELD_HERE
    assert {table.name for table in TABLES} == set(JOINS)


def test_a_table_without_a_put_of_its_own_carries_every_column(tmp_path: Path) -> None:
    """A column that merging does not know would come over empty, or not at all."""
    with empty_store(tmp_path / "a", 1) as store:
        for table in TABLES:
            if table.put is None and table.source == table.name:
                columns = {str(row[1]) for row in store.side().sql.rows(f"PRAGMA table_info({table.source})")}
                assert columns == {*table.key, *table.columns}, table.name
