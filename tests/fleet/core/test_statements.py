"""What people sign: it is read strictly, and people are counted, not keys, names or laptops."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.statements import (
    ABOUT,
    UNNAMED,
    Kind,
    Statement,
    Voice,
    count_people,
    has_spoken,
    parse_statement,
)

APPROVAL = Statement(
    1, Kind.APPROVAL, "r0001-1", ("gannet",), {"plan": "a" * 64, "actor": "actor-1", "at_ms": "5"}, "ws-1", "actor-1", 1, 5
)


def test_every_kind_says_what_it_is_about() -> None:
    assert set(ABOUT) == set(Kind)


def test_a_statement_reads_back() -> None:
    assert parse_statement(canonical.encode(APPROVAL)) == APPROVAL


@pytest.mark.parametrize(
    "bent",
    [{"format": 2}, {"kind": "rollout.start"}, {"about": {"plan": "a"}}, {"sites": []}, {"sites": ["heron", "gannet"]},
     {"about": {"plan": "a", "actor": "b", "at_ms": "-1"}}, {"about": {"plan": "a", "actor": "b", "at_ms": "9" * 16}},
     {"more": 1}],
)  # fmt: skip
def test_what_is_no_statement_is_refused(bent: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        parse_statement(canonical.encode({**canonical.to_plain(APPROVAL), **bent}))


def test_a_claim_is_the_same_whoever_makes_it() -> None:
    again = dataclasses.replace(APPROVAL, workspace="ws-2", actor="actor-9", seq=7, at_ms=9)
    assert again.claim == APPROVAL.claim
    assert dataclasses.replace(APPROVAL, subject="r0002-1").claim != APPROVAL.claim


@pytest.mark.parametrize(
    ("voices", "people"),
    [
        ([], 0),
        ([("a", "p-1"), ("b", "p-1")], 1),
        ([("a", "p-1"), ("b", "p-2")], 2),
        ([("a", ""), ("b", "")], 2),
        ([("a", ""), ("b", "p-1")], 1),
        ([("a", ""), ("b", ""), ("c", "p-1")], 2),
        ([("a", UNNAMED), ("b", UNNAMED)], 1),
        ([("a", UNNAMED), ("b", "p-1")], 1),
        ([("a", UNNAMED), ("b", "p-1"), ("c", "p-2")], 2),
    ],
)
def test_people_are_counted_at_the_very_least(voices: list[tuple[str, str]], people: int) -> None:
    """An unsigned voice and a signed one, or two keys without a name, may be one person: they are not added up."""
    found = [Voice(*one) for one in voices]
    assert count_people(found) == people
    assert count_people(reversed(found)) == people
    assert count_people([*found, *found]) == people


def test_a_person_speaks_once() -> None:
    said = [Voice("a", "p-1")]
    assert has_spoken(said, Voice("a"))
    assert has_spoken(said, Voice("b", "p-1"))
    assert not has_spoken(said, Voice("b", "p-2"))
    assert not has_spoken(said, Voice("b"))
