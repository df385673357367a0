"""Workspaces that worked apart: in whatever order they meet, the rows end the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import ConflictError
from pumpdeck_fleet.core.merging import ForkedError, version_name
from pumpdeck_fleet.core.registry import Alias
from pumpdeck_fleet.store import Store
from pumpdeck_fleet.store.merge import StoreMerge, dump, dump_digest, merge_store, note_conflicts
from support.histories import BELIEFS, DEVICES, PUMPS, empty_store, history, seal
from support.workspaces import MODEL


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    folder = tmp_path_factory.mktemp("histories")
    stores = [history(folder / str(number), number) for number in range(1, 6)]
    yield stores
    for store in stores:
        store.close()


def merge(mine: Store, theirs: Store) -> StoreMerge:
    with mine.atomic():
        done = merge_store(mine, theirs, beliefs=BELIEFS)
    assert not done.refused and not done.unsealed
    return done


def gathered(folder: Path, stores: list[Store]) -> Store:
    """An empty workspace that took all of them in, in that order."""
    store = empty_store(folder, 77)
    for other in stores:
        merge(store, other)
    return store


def test_five_histories_end_the_same_in_every_order(tmp_path: Path, histories: list[Store]) -> None:
    found = set()
    for number, order in enumerate(itertools.permutations(histories)):
        store = gathered(tmp_path / str(number), list(order))
        found.add(dump_digest(store))
        store.close()
    assert number == 119
    assert len(found) == 1


def test_every_tree_of_pairwise_merges_ends_the_same(tmp_path: Path, histories: list[Store]) -> None:
    """Each merge goes into a fresh copy of a history, so the one that takes in differs from tree to tree."""
    found = set()
    for number, tree in enumerate(trees((1, 2, 3, 4, 5))):
        folder = tmp_path / str(number)
        found.add(dump_digest(_grown(folder, tree)))
    assert number >= 13
    assert len(found) == 1


def trees(numbers: tuple[int, ...]) -> list[object]:
    """Every way to put brackets around the numbers, and the mirror image of each."""
    if len(numbers) == 1:
        return [numbers[0]]
    found: list[object] = []
    for cut in range(1, len(numbers)):
        for left, right in itertools.product(trees(numbers[:cut]), trees(numbers[cut:])):
            found.append((left, right) if cut % 2 else (right, left))
    return found


def _grown(folder: Path, tree: object) -> Store:
    if isinstance(tree, int):
        return history(folder / str(tree), tree)
    assert isinstance(tree, tuple)
    left, right = (_grown(folder, branch) for branch in tree)
    merge(left, right)
    right.close()
    return left


def test_a_second_merge_of_the_same_brings_nothing(tmp_path: Path, histories: list[Store]) -> None:
    store = gathered(tmp_path, histories)
    before = dump(store)
    for other in histories:
        again = merge(store, other)
        assert not again.is_news, again.taken
    assert dump(store) == before


def test_both_laptops_end_with_the_same_rows(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    merge(one, two)
    merge(two, one)
    assert dump(one) == dump(two)


def test_a_merge_that_fails_changes_nothing(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    before = dump(one)
    with pytest.raises(RuntimeError), one.atomic():
        merge_store(one, two)
        raise RuntimeError
    assert dump(one) == before


def test_a_device_has_one_live_task_whoever_merged(tmp_path: Path, histories: list[Store]) -> None:
    store = gathered(tmp_path, histories)
    live = store.rollouts.live_tasks()
    # Histories 4 and 5 share the highest number; 4 has handed over to the first device, so its task stands there.
    assert live[DEVICES[0]][1] == "r0001-000004"
    assert set(live) == set(DEVICES)


def test_versions_keep_their_names_and_foreign_ones_say_whose_they_are(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    own = {version.content_digest: version.number for version in one.registry.versions(MODEL)}
    merge(one, two)
    merged = {version.content_digest: version.number for version in one.registry.versions(MODEL)}
    assert own.items() <= merged.items()
    foreign = [version_name(number) for digest, number in merged.items() if digest not in own]
    assert foreign == ["1@00000002", "2@00000002"]
    package = one.packages.for_device(DEVICES[0])
    known = {version.number for version in one.registry.versions(MODEL)}
    assert {pump.number for row in package for pump in row.pumps} == known


def test_a_new_version_after_a_merge_gets_the_next_plain_number(tmp_path: Path) -> None:
    from support.workspaces import make_version

    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    merge(one, two)
    with one.atomic():
        assert one.registry.add(make_version(999)) == 3


def test_the_later_move_of_an_alias_stands_and_is_listed(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    wanted = two.registry.alias(MODEL, Alias.CANDIDATE)
    done = merge(one, two)
    found = one.registry.alias(MODEL, Alias.CANDIDATE)
    assert wanted is not None and found is not None
    assert found.content_digest == wanted.content_digest
    assert f"{MODEL} candidate" in [conflict.which for conflict in done.conflicts]


def test_an_erased_name_does_not_come_back(tmp_path: Path) -> None:
    one = empty_store(tmp_path / "1", 1)
    with one.atomic():
        actor = one.persons.actor_for("Ann Other")
    two = empty_store(tmp_path / "2", 2)
    merge(two, one)
    assert two.persons.name_of(actor) == "Ann Other"
    with one.atomic():
        one.persons.erase(actor)
    merge(one, two)
    assert one.persons.name_of(actor) == actor
    merge(two, one)
    assert two.persons.name_of(actor) == actor


def test_every_chain_of_a_merged_store_is_verified(tmp_path: Path, histories: list[Store]) -> None:
    store = gathered(tmp_path, histories)
    assert len(store.audit.chains()) == 6
    assert store.audit.verify().position == 0


def test_a_copied_workspace_that_was_written_to_is_refused(tmp_path: Path) -> None:
    """Attack: one folder copied, both written to; the chain would go on in two ways."""
    one, copy = history(tmp_path / "1", 1), history(tmp_path / "copy", 1)
    base = empty_store(tmp_path / "base", 9)
    merge(base, one)
    with copy.atomic():
        copy.audit.append("actor-x", "work", "behind the back")
        seal(copy, 1)
    with one.atomic():
        one.audit.append("actor-x", "work", "openly")
        seal(one, 1)
    merge(base, one)
    before = dump(base)
    with pytest.raises(ForkedError, match="two ways"):
        merge(base, copy)
    assert dump(base) == before
    with pytest.raises(ConflictError, match="this very workspace"):
        merge(one, copy)


def test_a_conflict_is_listed_once(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    done = merge(one, two)
    kinds = {conflict.kind for conflict in done.conflicts}
    assert {"alias", "telemetry"} <= kinds
    with one.atomic():
        assert len(note_conflicts(one, two.workspace, done.conflicts)) == len(done.conflicts)
        assert note_conflicts(one, two.workspace, done.conflicts) == []


def test_rows_of_both_are_joined_channel_by_channel(tmp_path: Path) -> None:
    one, two = history(tmp_path / "1", 1), history(tmp_path / "2", 2)
    spans = [store.telemetry.span(PUMPS[0]) for store in (one, two)]
    merge(one, two)
    span = one.telemetry.span(PUMPS[0])
    assert span is not None and spans[0] is not None and spans[1] is not None
    assert span[:2] == (spans[0][0], spans[1][1])
    frame = one.telemetry.frame(PUMPS[0], 0, 1 << 45)
    assert frame.channels == ("extra_0", "extra_1", "flow_m3_h")
    assert span[2] == len(frame) == 180
