"""Whatever is typed: a query or an error with a place, never a crash; and a query's text means that query."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import QueryError
from pumpdeck_fleet.core.query import And, Compare, Node, Not, Or, Query, QuerySyntaxError, Word, parse_query
from pumpdeck_fleet.core.query_fields import PUMPS, FieldKind
from pumpdeck_fleet.core.query_tokens import Value

NOW_MS = 1_767_225_600_000
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
pieces = st.sampled_from(
    [*":<=!()\",* ", ">=", "!=", "site", "drift", "seen", "health", "and ", "or ", "not ", "2h", "3"]
)


def values(field: str) -> st.SearchStrategy[Value]:
    kind = PUMPS.fields[field].kind
    if kind in (FieldKind.TEXT, FieldKind.LIST):
        return st.builds(Value, texts, st.just(True))
    if kind is FieldKind.NUMBER:
        return st.floats(allow_nan=False, allow_infinity=False).map(lambda number: Value(repr(number)))
    if kind is FieldKind.TIME:
        return st.integers(0, 10**6).map(lambda number: Value(f"{number}m"))
    return st.sampled_from(PUMPS.fields[field].choices).map(Value)


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    field = draw(st.sampled_from(sorted(PUMPS.fields)))
    kind = PUMPS.fields[field].kind
    operators = [":", "=", "!="]
    if kind is FieldKind.TIME:
        operators = ["<", "<=", ">", ">="]
    elif kind in (FieldKind.NUMBER, FieldKind.ORDERED):
        operators += ["<", "<=", ">", ">="]
    return Compare(field, draw(st.sampled_from(operators)), tuple(draw(st.lists(values(field), min_size=1, max_size=3))))


def joined(kind: type[And] | type[Or], terms: list[Node]) -> Node:
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, kind) else (term,))
    return kind(tuple(flat))


leaves = st.one_of(comparisons(), texts.map(Word))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: joined(And, terms)),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: joined(Or, terms)),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {},
    optional={
        "site": st.none() | texts,
        "pump": texts,
        "label": st.lists(texts, max_size=2).map(tuple),
        "drift": st.none() | st.floats(),
        "version": st.none() | st.integers(0, 50),
        "health": st.none() | st.sampled_from(["OK", "ALARM", "STALE"]),
        "seen": st.none() | st.integers(0, 2 * NOW_MS),
    },
)


@given(trees)
@settings(max_examples=300)
def test_the_text_of_a_query_is_that_query(root: Node) -> None:
    assert parse_query(str(Query(root))) == Query(root)


@given(trees, rows)
def test_not_turns_every_answer_round(root: Node, row: dict[str, object]) -> None:
    assert Query(Not(root)).matches(row, NOW_MS) is not Query(root).matches(row, NOW_MS)


@given(trees, trees, rows)
def test_and_and_or_mean_what_they_say(one: Node, other: Node, row: dict[str, object]) -> None:
    first, second = Query(one).matches(row, NOW_MS), Query(other).matches(row, NOW_MS)
    assert parse_query(f"({Query(one)}) ({Query(other)})").matches(row, NOW_MS) is (first and second)
    assert parse_query(f"({Query(one)}) or ({Query(other)})").matches(row, NOW_MS) is (first or second)


@given(st.one_of(st.text(max_size=60), st.lists(pieces | texts, max_size=14).map("".join)), rows)
@settings(max_examples=500)
def test_any_text_is_a_query_or_an_error_with_a_place(text: str, row: dict[str, object]) -> None:
    try:
        query = parse_query(text)
    except QuerySyntaxError as error:
        assert isinstance(error, QueryError)
        assert 0 <= error.position <= len(text)
    else:
        assert query.matches(row, NOW_MS) in (True, False)
        assert parse_query(str(query)) == query
