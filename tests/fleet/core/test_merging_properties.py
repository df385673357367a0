"""The rules of merging hold for all rows: commutative, associative, idempotent; and never two tasks stand on one device."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core import merging
from pumpdeck_fleet.core.merging import JOINS, OWN_NUMBERS, Row, Tables, TaskClaim, join_rows, join_tables

small = st.integers(0, 3)
words = st.sampled_from(["a", "b", "c"])
names = st.dictionaries(words, small, max_size=3)

COLUMNS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "person": {"name": words, "workspace": words, "is_erased": st.booleans()},
    "statement": {"envelope": st.just(b"the key")},
    "label": {"body": st.just("the key")},
    "source": {"at_ms": small, "body": words},
    "version": {"model": st.just("m"), "created_ms": small, "body": words, "names": names},
    "alias_move": {},
    "package": {"created_ms": small, "body": words},
    "rollout": {"home": words, "epoch": small, "moves": small, "body": words, "approvals": st.dictionaries(words, words)},
    "device_key": {
        "public_pem": words,
        "host_key": words,
        "enrolled_ms": small,
        "ended_ms": st.one_of(st.none(), small),
        "ended": words,
    },
    "device_trust": {"site": words, "version": small, "root": small, "at_ms": small, "how": words},
    "status": {"status": words, "status_ms": small},
    "receipt": {"received_ms": small, "body": words, "envelope": st.binary(max_size=1)},
    "receipt_apart": {"received_ms": small, "reason": words, "body": words},
    "stick": {"state": words, "changed_ms": small, "body": words},
    "return_counter": {"counter": small},
    "alarm": {"body": words},
    "sketch_day": {"rows": small, "put_ms": small, "data": st.binary(max_size=1)},
    "drift": {"worst": small, "body": words},
    "device_age_key": {"age_key": words, "at_ms": small},
    # The body says how it was closed; the rest follows from the digest, which is the key.
    "retrain_request": {"closed_ms": small, "body": words},
}
ROWS: dict[str, st.SearchStrategy[Row]] = {table: st.fixed_dictionaries(columns) for table, columns in COLUMNS.items()}
# An erased person is stored without a name.
ROWS["person"] = ROWS["person"].map(lambda row: {"name": "", "workspace": "", "is_erased": True} if row["is_erased"] else row)
ROWS["device_key"] = ROWS["device_key"].map(lambda row: row if row["ended_ms"] is not None else {**row, "ended": ""})
keys = st.tuples(small)
TABLES: st.SearchStrategy[Tables] = st.fixed_dictionaries(
    {table: st.dictionaries(keys, rows, max_size=3) for table, rows in ROWS.items()}
)


def test_every_table_has_a_rule_and_a_property() -> None:
    assert set(ROWS) == set(JOINS)


@pytest.mark.parametrize("table", sorted(JOINS))
def test_a_rule_holds_whatever_the_order(table: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(one=ROWS[table], two=ROWS[table], three=ROWS[table])
    def holds(one: Row, two: Row, three: Row) -> None:
        assert join_rows(table, one, one) == one
        assert join_rows(table, one, two) == join_rows(table, two, one)
        left = join_rows(table, join_rows(table, one, two), three)
        assert left == join_rows(table, one, join_rows(table, two, three))
        assert join_rows(table, left, two) == left

    holds()


@settings(max_examples=60, deadline=None)
@given(one=TABLES, two=TABLES, three=TABLES)
def test_whole_histories_join_whatever_the_order(one: Tables, two: Tables, three: Tables) -> None:
    left = join_tables(join_tables(one, two), three)
    assert left == join_tables(three, join_tables(two, one))
    assert join_tables(left, one) == left


claims = st.lists(
    st.builds(
        TaskClaim,
        device=words,
        task=st.integers(0, 9).map(lambda number: f"t-{number}"),
        rollout=words,
        seq=st.integers(1, 3),
        is_handed_over=st.booleans(),
        is_live=st.booleans(),
        is_void=st.just(False),
    ),
    max_size=6,
    unique_by=lambda claim: claim.task,
)


@given(listed=claims, seed=st.randoms(use_true_random=False))
def test_one_live_task_at_most_stands_on_a_device(listed: list[TaskClaim], seed: Any) -> None:
    beaten = {loser.task for loser, _ in merging.beaten_claims(listed)}
    standing = [claim for claim in listed if claim.is_live and claim.task not in beaten]
    assert len({claim.device for claim in standing}) == len(standing)
    mixed = list(listed)
    seed.shuffle(mixed)
    assert merging.beaten_claims(mixed) == merging.beaten_claims(listed)


@given(listed=claims, more=claims)
def test_a_task_that_was_beaten_stays_beaten(listed: list[TaskClaim], more: list[TaskClaim]) -> None:
    """What a third workspace knows cannot bring back a task that gave way: two merges end like one."""
    known = {claim.task for claim in listed}
    both = [*listed, *(claim for claim in more if claim.task not in known)]
    before = {loser.task for loser, _ in merging.beaten_claims(listed)}
    assert before <= {loser.task for loser, _ in merging.beaten_claims(both)}


@given(number=st.integers(1, OWN_NUMBERS - 1), tail=st.integers(0, 2**32 - 1))
def test_a_version_has_one_name_and_the_name_finds_it(number: int, tail: int) -> None:
    workspace = f"ws-0000{tail:08x}"
    foreign = merging.local_number({workspace: number}, "ws-000000000abc")
    assert merging.parse_version_name(merging.version_name(foreign)) == foreign
    assert merging.parse_version_name(str(number)) == number
    assert merging.local_number({workspace: number}, workspace) == number
    assert foreign < 2**53


@pytest.mark.parametrize("text", ["", "0", "x", "13@", "13@zz", "-1", "1048576", "champion"])
def test_what_is_no_name_is_none(text: str) -> None:
    assert merging.parse_version_name(text) is None
