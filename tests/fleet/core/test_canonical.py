"""Canonical JSON: one spelling for every value, and a reader that refuses what is not exactly as promised."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.canonical import MAX_DEPTH, MAX_SAFE_INTEGER
from pumpdeck_fleet.core.errors import FormatError, TooLargeError

LIMIT = 10_000
texts = st.text(st.characters(codec="utf-8"))
integers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    name: str
    size: float


@dataclass(frozen=True)
class Whole:
    format: int
    ok: bool
    colour: Colour
    parts: tuple[Part, ...]
    pair: tuple[int, str]
    by_name: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None
    extra: Part | None = None


WHOLE = Whole(1, True, Colour.BLUE, (Part("a", 1.5), Part("b", 2.0)), (7, "x"), {"p": 0.25}, None, Part("c", 3.0))


def read(data: bytes) -> Any:
    return canonical.parse_json(data, "thing", max_bytes=LIMIT)


def read_whole(**changes: object) -> Whole:
    plain = {**canonical.to_plain(WHOLE), **changes}
    return canonical.from_plain(Whole, {k: v for k, v in plain.items() if v != "GONE"}, "thing")


@given(values)
def test_a_value_comes_back_and_its_bytes_with_it(value: Any) -> None:
    data = canonical.encode(value)
    assert read_any(data) == value
    assert canonical.encode(read_any(data)) == data


def read_any(data: bytes) -> Any:
    return canonical.parse_json(data, "thing", max_bytes=10**7)


@given(st.dictionaries(texts, scalars, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], chance: Any) -> None:
    items = list(value.items())
    chance.shuffle(items)
    assert canonical.encode(dict(items)) == canonical.encode(value)


def test_the_spelling_is_fixed() -> None:
    value = {"b": [1, 1.0, 0.1, 1e21, True, None], "a": "é\n\"\\/", "€": {}, "Z": 2**53 - 1}
    expected = '{"Z":9007199254740991,"a":"é\\n\\"\\\\/","b":[1,1.0,0.1,1e+21,true,null],"€":{}}'
    assert canonical.encode(value).decode() == expected
    assert canonical.digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {"a": [float("-inf")]}, "\ud800"])
def test_values_without_a_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical.encode(value)


def test_things_that_are_no_values_are_a_defect() -> None:
    with pytest.raises(TypeError):
        canonical.encode({"a": object()})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nope",
        b"NaN",
        b"[Infinity]",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b"9007199254740992",
        b"123456789012345678901234567890",
        b"1e999",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"1 2",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises((FormatError, TooLargeError)):
        canonical.parse_json(data, "thing", max_bytes=200_000)


def test_depth_counts_outside_texts_only() -> None:
    text = json.dumps("[" * 100 + '"\\')
    assert read(text.encode()) == "[" * 100 + '"\\'
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    read(deep)
    wide = b"[" + b",".join([b"[]"] * 100) + b"]"
    assert len(read(wide)) == 100


def test_size_is_checked_first() -> None:
    with pytest.raises(TooLargeError, match="thing"):
        canonical.parse_json(b" " * 11 + b"!", "thing", max_bytes=10)


def test_a_dataclass_comes_back() -> None:
    data = canonical.encode(WHOLE)
    assert canonical.decode(Whole, data, "thing", max_bytes=LIMIT) == WHOLE
    assert b'"note"' not in data
    assert read_whole(extra="GONE", by_name="GONE").by_name == {}


def test_a_whole_number_is_a_number_too() -> None:
    assert read_whole(parts=[{"name": "a", "size": 3}]).parts[0].size == 3.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "green"}, "thing.colour"),
        ({"format": 1.5}, "thing.format"),
        ({"format": True}, "thing.format"),
        ({"ok": 1}, "thing.ok"),
        ({"parts": {}}, "thing.parts"),
        ({"parts": [{"name": 3, "size": 1}]}, "thing.parts[0].name"),
        ({"parts": [{"name": "a"}]}, "expected size"),
        ({"parts": [{"name": "a", "size": 1, "weight": 2}]}, "unknown field"),
        ({"pair": [1]}, "thing.pair"),
        ({"pair": [1, 2]}, "thing.pair[1]"),
        ({"by_name": {"p": "x"}}, "thing.by_name.p"),
        ({"by_name": []}, "thing.by_name"),
        ({"extra": []}, "thing.extra"),
        ({"ok": "GONE"}, "expected ok"),
        ({"colour": None}, "thing.colour"),
    ],
)
def test_what_is_not_as_promised_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_whole(**changes)
    assert words in caught.value.sentence()
    assert caught.value.sentence().startswith("thing")


@given(values)
def test_any_value_is_a_whole_or_refused(value: Any) -> None:
    try:
        canonical.from_plain(Whole, value, "thing")
    except FormatError as error:
        assert "thing" in error.sentence()
