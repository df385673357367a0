"""What a single term of a query asks of a row: one closure each, its values read beforehand."""

from __future__ import annotations

import math
import operator as operators
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pumpdeck_fleet.core.clock import DAY_MS, parse_ms
from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.core.query_fields import Field, FieldKind, Vocabulary
from pumpdeck_fleet.core.query_tokens import QuerySyntaxError, Token, TokenKind, Value

Row = Mapping[str, object]
Test = Callable[[Row, int], bool]
ValueTest = Callable[[Any, int], bool]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ":": operators.eq,
    "=": operators.eq,
    "!=": operators.eq,  # turned round where the values of a term come together
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
_EQUAL = frozenset({":", "=", "!="})
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class Compare:
    """A field, one of `: = != < <= > >=`, and one value or several of which any will do."""

    field: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Word:
    """A text that is part of one of the fields which the vocabulary names for words."""

    text: str


def term_test(
    node: Compare | Word, known: Vocabulary, operator: Token | None = None, tokens: Sequence[Token] = ()
) -> Test:
    """The closure of one term. With the tokens it came from, an error names their places.

    Raises:
        QuerySyntaxError: the field does not take this operator or value.
    """
    if isinstance(node, Word):
        return _word_test(node.text.casefold(), known.words)
    field = known.fields[node.field]
    sign = operator or Token(TokenKind.OPERATOR, node.operator, 0)
    places = tokens or [Token(TokenKind.VALUE, value.text, 0, value.is_quoted) for value in node.values]
    tests = [_value_test(field, sign, value, place) for value, place in zip(node.values, places, strict=True)]
    return _field_test(node.field, tests, negated=node.operator == "!=")




def _word_test(text: str, names: Sequence[str]) -> Test:
    def holds(row: Row, _now_ms: int) -> bool:
        for name in names:
            value = row.get(name)
            if value is None:
                continue
            texts = value if isinstance(value, tuple) else (value,)
            for one in texts:
                if text in str(one).casefold():
                    return True
        return False

    return holds


def _field_test(name: str, tests: Sequence[ValueTest], *, negated: bool) -> Test:
    if len(tests) == 1 and not negated:
        (only,) = tests
        return lambda row, now_ms: only(row.get(name), now_ms)

    def holds(row: Row, now_ms: int) -> bool:
        value = row.get(name)
        return any(test(value, now_ms) for test in tests) is not negated

    return holds


def _value_test(field: Field, sign: Token, value: Value, place: Token) -> ValueTest:
    if value.is_none:
        if sign.text not in _EQUAL:
            raise QuerySyntaxError("is not known and cannot be less or more", place, expected=f"{field.name}:none")
        return lambda found, _now_ms: found is None or found == "" or found == ()
    return _READERS[field.kind](field, sign, value, place)


def _text_test(field: Field, sign: Token, value: Value, _place: Token) -> ValueTest:
    _need_equal(field, sign)
    wanted = value.text.casefold()
    if sign.text == "=" or value.is_quoted or not ("*" in wanted or "?" in wanted):
        return lambda found, _now_ms: found is not None and str(found).casefold() == wanted
    whole = re.compile(re.escape(wanted).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL).fullmatch
    return lambda found, _now_ms: found is not None and whole(str(found).casefold()) is not None


def _list_test(field: Field, sign: Token, value: Value, place: Token) -> ValueTest:
    one = _text_test(field, sign, value, place)

    def holds(found: Any, now_ms: int) -> bool:
        return found is not None and any(one(item, now_ms) for item in found)

    return holds


def _number_test(field: Field, sign: Token, value: Value, place: Token) -> ValueTest:
    try:
        wanted = float(value.text)
    except ValueError:
        wanted = math.nan
    if not math.isfinite(wanted):
        raise QuerySyntaxError("is not a number", place, expected=f"a number for {field.name}")
    compare = _COMPARE[sign.text]
    return lambda found, _now_ms: found is not None and compare(found, wanted)


def _choice_test(field: Field, sign: Token, value: Value, place: Token) -> ValueTest:
    wanted = value.text.lower().replace("-", "_")
    if wanted not in field.choices:
        raise QuerySyntaxError(f"is not a {field.name}", place, expected=", ".join(field.choices))
    if field.kind is FieldKind.CHOICE:
        _need_equal(field, sign)
        return lambda found, _now_ms: found is not None and str(found).lower() == wanted
    compare = _COMPARE[sign.text]
    rank_of = {name: rank for rank, name in enumerate(field.choices)}
    rank = rank_of[wanted]
    return lambda found, _now_ms: found is not None and compare(rank_of.get(str(found).lower(), -1), rank)


def _time_test(field: Field, sign: Token, value: Value, place: Token) -> ValueTest:
    if age := _AGE.fullmatch(value.text.lower()):
        age_ms = round(float(age[1]) * _UNIT_MS[age[2]])
        if sign.text in _EQUAL:
            raise QuerySyntaxError("is an age", sign, expected=f"{field.name}<{value.text} or {field.name}>{value.text}")
        compare = _COMPARE[sign.text]
        return lambda found, now_ms: found is not None and compare(now_ms - found, age_ms)
    start_ms = _moment(field, value, place)
    # A day stands for its whole 24 hours, a moment for itself: `<=` reaches to its end, `>` starts behind it.
    last_ms = start_ms + (DAY_MS - 1 if _DAY.fullmatch(value.text) else 0)
    bound = last_ms if sign.text in ("<=", ">") else start_ms
    if sign.text not in _EQUAL:
        compare = _COMPARE[sign.text]
        return lambda found, _now_ms: found is not None and compare(found, bound)
    return lambda found, _now_ms: found is not None and start_ms <= found <= last_ms


def _moment(field: Field, value: Value, place: Token) -> int:
    text = f"{value.text}T00:00:00Z" if _DAY.fullmatch(value.text) else value.text
    try:
        return parse_ms(text)
    except FormatError as error:
        expected = "an age such as 90m, 2h, 3d, 1w, or a time such as 2026-01-31 or 2026-01-31T06:00:00Z"
        raise QuerySyntaxError(f"is not a time for {field.name}", place, expected=expected) from error


def _need_equal(field: Field, sign: Token) -> None:
    if sign.text not in _EQUAL:
        raise QuerySyntaxError(f"does not go with {field.name}, which has no order", sign, expected=": = or !=")


_READERS: Mapping[FieldKind, Callable[[Field, Token, Value, Token], ValueTest]] = {
    FieldKind.TEXT: _text_test,
    FieldKind.LIST: _list_test,
    FieldKind.NUMBER: _number_test,
    FieldKind.CHOICE: _choice_test,
    FieldKind.ORDERED: _choice_test,
    FieldKind.TIME: _time_test,
}
