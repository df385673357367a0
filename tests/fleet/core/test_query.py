"""The query language selects what docs/query.md says, and tells where a text stops being a query."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from pumpdeck_fleet.core.errors import EXIT_USAGE
from pumpdeck_fleet.core.query import And, Compare, Not, Or, QuerySyntaxError, Word, parse_query
from pumpdeck_fleet.core.query_fields import KINDS, MODELS, PUMPS, RUNS, SNAPSHOTS
from pumpdeck_fleet.core.query_tokens import QUERY_MAX_CHARACTERS

NOW_MS = 1_767_225_600_000 + 12 * HOUR_MS  # 2026-01-01T12:00:00Z
ROW = {
    "pump": "gannet/P-101A",
    "tag": "P-101A",
    "site": "gannet",
    "kind": "platform",
    "link": "ssh",
    "device": "gannet-d1",
    "type": "esp",
    "maker": "Northfield Pumps",
    "maker_model": None,
    "criticality": 2,
    "group": "",
    "label": ("wet-gas", "test-7"),
    "health": "STALE",
    "score": 2.5,
    "limit": 4.0,
    "model": "esp-health",
    "version": 12,
    "drift": None,
    "seen": NOW_MS - 2 * HOUR_MS,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "P-101",
        "p-101a",
        "gannet",
        "GANN 101",
        '"gannet/P"',
        "site:gannet",
        "SITE:Gannet",
        "site=GANNET",
        "site:gan*",
        "site:g?nnet",
        "site:brent,gannet",
        "site!=brent",
        "site!brent",
        "site != brent",
        "tag:*101?",
        'maker:"northfield pumps"',
        "maker:north*",
        "label:wet-gas",
        "label:test*",
        "label!=dry",
        "criticality<3",
        "criticality <= 2",
        "version:12",
        "version=12.0",
        "version>11 version<13",
        "version:11,12",
        "score>=2.5",
        "score>-1e3",
        "health:stale",
        "health>=stale",
        "health<alarm",
        "health!=ok",
        "health:sensor-fault,stale",
        "link:ssh",
        "drift:none",
        "drift!=0.3",
        "maker_model:none",
        "group:none",
        "not drift<1",
        "version!=none",
        "seen>1h",
        "seen<3h",
        "seen>=2h",
        "seen<=120m",
        "seen>7199s",
        "seen<1d",
        "seen<1.5w",
        "seen:2026-01-01",
        "seen>=2026-01-01",
        "seen<=2026-01-01",
        "seen<2026-01-02",
        "seen>2025-12-31",
        "seen>2026-01-01T09:59:59Z",
        "seen=2026-01-01T12:00:00+02:00",
        "site:brent or type:esp",
        "site:brent or type:esp and link:ssh",
        "not site:brent",
        "not not site:gannet",
        "not (site:brent or link:courier)",
        "(site:brent or site:gannet) (type:pcp or type:esp)",
        "site:gannet AND type:esp Or no-such",
        '"or" or gannet',
    ],
)
def test_selected(text: str) -> None:
    assert parse_query(text).matches(ROW, NOW_MS)


@pytest.mark.parametrize(
    "text",
    [
        "P-102",
        "esp",
        '"or"',
        "site:gan",
        "site=gan*",
        'site:"gan*"',
        "site!=gannet",
        "site!=brent,gannet",
        "site:g??net2",
        "label:wet",
        "label:dry",
        "label!=wet-gas",
        "criticality>2",
        "version<12",
        "version!=12",
        "health>stale",
        "health:ok",
        "link:courier",
        "link!=ssh",
        "drift<1",
        "drift>=0",
        "not drift:none",
        "maker_model:x",
        "seen>2h",
        "seen<2h",
        "seen:2026-01-02",
        "seen>2026-01-01",
        "seen<2026-01-01",
        "seen:none",
        "site:brent and type:esp or site:brent",
        "not site:gannet type:esp",
        "type:esp not gannet",
    ],
)
def test_not_selected(text: str) -> None:
    assert not parse_query(text).matches(ROW, NOW_MS)


def test_a_field_that_a_row_lacks_is_not_known() -> None:
    assert parse_query("version:none site!=x").matches({}, NOW_MS)
    assert not parse_query("version:1 or gannet or seen>1h").matches({}, NOW_MS)


def test_not_binds_before_and_before_or() -> None:
    query = parse_query("a or not b c and d")
    assert query.root == Or((Word("a"), And((Not(Word("b")), Word("c"), Word("d")))))


def test_select_keeps_order() -> None:
    rows = [{"version": number} for number in (5, 1, 4, 2)]
    assert parse_query("version>1").select(rows, lambda row: row, NOW_MS) == [{"version": 5}, {"version": 4}, {"version": 2}]


def test_fields_are_told() -> None:
    assert parse_query("seen>1h or not drift:none").fields == {"seen", "drift"}
    assert parse_query("x").fields == {"pump", "tag", "site"}
    assert parse_query("").fields == frozenset()


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("site:gannet and", 15, "does not fit here"),
        ("or a", 0, "does not fit here"),
        ("a or", 4, "found the end"),
        ("not", 3, "found the end"),
        ("(a", 2, "expected a ) for the ( at 1"),
        ("a)", 1, "does not fit here"),
        ("()", 1, "does not fit here"),
        ("sit:gannet", 0, "Did you mean site?"),
        ("zzz>3", 0, "is not a field"),
        ("site:", 5, "lacks a value"),
        ("site: (a)", 6, "is not a value"),
        ("site:a,", 7, "lacks a value"),
        ("site:a, ,b", 8, "is not a value"),
        ("x site<3", 6, "which has no order"),
        ("link>ssh", 4, "which has no order"),
        ("link:usb", 5, "ssh, courier, mqtt"),
        ("drift>much", 6, "is not a number"),
        ("drift>nan", 6, "is not a number"),
        ("drift>inf", 6, "is not a number"),
        ("version:1,x", 10, "is not a number"),
        ("health:bad", 7, "sensor_fault"),
        ("seen:2h", 4, "seen<2h or seen>2h"),
        ("seen>yesterday", 5, "2026-01-31T06:00:00Z"),
        ("seen>2026-02-30", 5, "is not a time"),
        ("seen>none", 5, "is not known"),
        ('a "b', 2, "open quote"),
        ("a , b", 2, "cannot stand here"),
        (": x", 0, "cannot stand here"),
        ("a" * (QUERY_MAX_CHARACTERS + 1), 0, "is too long"),
        ("(" * 60 + "a" + ")" * 60, 41, "nested too deeply"),
        ("not " * 60 + "a", 164, "nested too deeply"),
    ],
)
def test_errors_name_their_place(text: str, position: int, words: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse_query(text)
    assert caught.value.position == position
    assert words in caught.value.sentence()
    assert f"character {position + 1}" in caught.value.sentence()
    assert caught.value.exit_code == EXIT_USAGE


def test_an_age_of_a_time_in_the_future_is_negative() -> None:
    row = {"seen": NOW_MS + 5 * MINUTE_MS}
    assert parse_query("seen<1s").matches(row, NOW_MS)
    assert not parse_query("seen>0s").matches(row, NOW_MS)
    assert DAY_MS


def test_the_page_shows_every_field_and_its_examples_parse() -> None:
    page = (Path(__file__).parents[3] / "docs" / "query.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)` \| (text|list of texts|number|choice|ordered choice|time)", page, re.MULTILINE)
    fields = [field for kind in KINDS for field in kind.fields.values()]
    assert shown == [(field.name, field.kind.value) for field in fields]
    for field in fields:
        assert field.meaning in page
    examples = page.split("```")[1].strip().splitlines()
    assert len(examples) == 4
    for example in examples:
        parse_query(example)
    for example, kind in zip(page.split("```")[3].strip().splitlines(), (MODELS, RUNS, SNAPSHOTS), strict=True):
        assert parse_query(example, kind).fields <= set(kind.fields)
    message = page.split("```")[-2].strip()
    with pytest.raises(QuerySyntaxError) as caught:
        parse_query("drift>x")
    assert caught.value.sentence() == message


def test_each_kind_of_thing_has_its_own_fields_and_words() -> None:
    row = {"name": "esp-health v13", "alias": ("candidate", "champion"), "gates": "warn", "made": NOW_MS - DAY_MS}
    for text in ("esp-health v13", "champ", "alias:champion", "gates>=warn made<2d", "not gates:refuse"):
        assert parse_query(text, MODELS).matches(row, NOW_MS), text
    for text in ("previous", "alias:previous", "gates:pass", "made>2d"):
        assert not parse_query(text, MODELS).matches(row, NOW_MS), text
    with pytest.raises(QuerySyntaxError, match="is not a field"):
        parse_query("health:ok", MODELS)
    with pytest.raises(QuerySyntaxError, match="Did you mean gates"):
        parse_query("gate:pass", MODELS)
    assert parse_query("site:gannet") == parse_query("site:gannet", PUMPS)
    assert parse_query("pump type:esp", RUNS).fields == {"run", "name", "type", "reason"}


def test_compare_holds_what_was_written() -> None:
    (root,) = [parse_query('Site != "a b",c').root]
    assert isinstance(root, Compare)
    assert (root.field, root.operator, [value.text for value in root.values]) == ("site", "!=", ["a b", "c"])
