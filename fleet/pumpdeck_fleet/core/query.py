"""The query language: one parser for screens, command line, rollouts and policies. docs/query.md has the grammar.

Text in, a frozen tree out; the tree becomes one closure over rows, so that ten thousand rows are filtered in milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from pumpdeck_fleet.core.query_fields import PUMPS, Field, Vocabulary
from pumpdeck_fleet.core.query_terms import Compare, Row, Test, Word, term_test
from pumpdeck_fleet.core.query_tokens import QuerySyntaxError, Token, TokenKind, quoted, scan

__all__ = ["And", "Compare", "Node", "Not", "Or", "Query", "QuerySyntaxError", "Word", "parse_query"]

MAX_DEPTH = 40
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class And:
    """All of them; two or more."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them; two or more."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Not this."""

    term: Node


Node = And | Or | Not | Compare | Word


@dataclass(frozen=True)
class Query:
    """A parsed query over things of one kind. `root` is `None` for the empty query, which selects everything."""

    root: Node | None
    known: Vocabulary = PUMPS

    def matches(self, row: Row, now_ms: int) -> bool:
        """True when the row is selected. A field the row lacks is not known: no comparison but `!=` holds for it."""
        return self._test(row, now_ms)

    def select(self, items: Iterable[R], row_of: Callable[[R], Row], now_ms: int) -> list[R]:
        """The items whose row is selected, in their order."""
        test = self._test
        return [item for item in items if test(row_of(item), now_ms)]

    @cached_property
    def _test(self) -> Test:
        return _compile(self.root, self.known) if self.root is not None else lambda _row, _now_ms: True

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the fields that decide."""
        return frozenset(_fields(self.root, self.known.words)) if self.root is not None else frozenset()

    def __str__(self) -> str:
        """The query in its canonical form; parsing that gives the same query."""
        return _text(self.root) if self.root is not None else ""


def parse_query(text: str, known: Vocabulary = PUMPS) -> Query:
    """The query that `text` says about things of that kind.

    Raises:
        QuerySyntaxError: it says none; names the position, what was expected and what was found.
    """
    return _Parser(scan(text), known).query()


class _Parser:
    """Recursive descent over the tokens; one method for each rule of the grammar."""

    def __init__(self, tokens: list[Token], known: Vocabulary) -> None:
        self._tokens = tokens
        self._known = known
        self._at = 0

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def query(self) -> Query:
        if self._peek().kind is TokenKind.END:
            return Query(None, self._known)
        root = self._or(0)
        if self._peek().kind is not TokenKind.END:
            raise QuerySyntaxError("does not fit here", self._peek(), expected="a term, and, or, or the end")
        return Query(root, self._known)

    def _or(self, depth: int) -> Node:
        terms = [self._and(depth)]
        while self._peek().is_keyword("or"):
            self._take()
            terms.append(self._and(depth))
        return _joined(Or, terms)

    def _and(self, depth: int) -> Node:
        terms = [self._not(depth)]
        while True:
            if self._peek().is_keyword("and"):
                self._take()
            elif self._peek().kind not in _STARTS or self._peek().is_keyword("or"):
                return _joined(And, terms)
            terms.append(self._not(depth))

    def _not(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise QuerySyntaxError("is nested too deeply", self._peek(), expected=f"at most {MAX_DEPTH} levels")
        if self._peek().is_keyword("not"):
            self._take()
            return Not(self._not(depth + 1))
        return self._primary(depth)

    def _primary(self, depth: int) -> Node:
        token = self._take()
        if token.kind is TokenKind.OPEN:
            inner = self._or(depth + 1)
            if self._peek().kind is not TokenKind.CLOSE:
                raise QuerySyntaxError("ends too early", self._peek(), expected=f"a ) for the ( at {token.position + 1}")
            self._take()
            return inner
        if token.kind is TokenKind.FIELD:
            return self._comparison(token)
        if token.kind is TokenKind.WORD and not token.is_any_keyword:
            return Word(token.text)
        raise QuerySyntaxError("does not fit here", token, expected="a word, a field such as site:gannet, not, or (")

    def _comparison(self, name: Token) -> Compare:
        field = self._known.fields.get(name.text.lower())
        if field is None:
            raise _unknown_field(name, self._known)
        operator = self._take()
        values = [self._value(field)]
        while self._peek().kind is TokenKind.COMMA:
            self._take()
            values.append(self._value(field))
        compare = Compare(field.name, operator.text, tuple(value.as_value() for value in values))
        # Read once here, so that a wrong value is told with its place.
        term_test(compare, self._known, operator, values)
        return compare

    def _value(self, field: Field) -> Token:
        if self._peek().kind is not TokenKind.VALUE:
            raise QuerySyntaxError("lacks a value", self._peek(), expected=f"a {field.kind} for {field.name}")
        return self._take()


_STARTS = frozenset({TokenKind.WORD, TokenKind.FIELD, TokenKind.OPEN})


def _joined(kind: type[And] | type[Or], terms: list[Node]) -> Node:
    """One node for the terms; nested nodes of the same kind are laid flat, so that one meaning has one tree."""
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, kind) else (term,))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _unknown_field(name: Token, known: Vocabulary) -> QuerySyntaxError:
    close = difflib.get_close_matches(name.text.lower(), known.fields, 1)
    hint = f"did you mean {close[0]}?" if close else "put a text with such a sign in quotes"
    return QuerySyntaxError("is not a field", name, expected=f"one of {', '.join(known.fields)}", hint=hint)


def _compile(node: Node, known: Vocabulary) -> Test:
    if isinstance(node, Not):
        inner = _compile(node.term, known)
        return lambda row, now_ms: not inner(row, now_ms)
    if isinstance(node, And):
        return _all([_compile(term, known) for term in node.terms])
    if isinstance(node, Or):
        return _any([_compile(term, known) for term in node.terms])
    return term_test(node, known)


def _all(tests: list[Test]) -> Test:
    def holds(row: Row, now_ms: int) -> bool:
        for test in tests:  # noqa: SIM110 - all() with a generator costs twice as much, for every row
            if not test(row, now_ms):
                return False
        return True

    return holds


def _any(tests: list[Test]) -> Test:
    def holds(row: Row, now_ms: int) -> bool:
        for test in tests:  # noqa: SIM110 - any() with a generator costs twice as much, for every row
            if test(row, now_ms):
                return True
        return False

    return holds


def _fields(node: Node, words: tuple[str, ...]) -> Iterable[str]:
    if isinstance(node, Compare):
        yield node.field
    elif isinstance(node, Not):
        yield from _fields(node.term, words)
    elif isinstance(node, And | Or):
        for term in node.terms:
            yield from _fields(term, words)
    else:
        yield from words


def _text(node: Node) -> str:
    if isinstance(node, Word):
        return quoted(node.text, bare=True)
    if isinstance(node, Compare):
        return f"{node.field}{node.operator}" + ",".join(str(value) for value in node.values)
    if isinstance(node, Not):
        return f"not {_inner(node.term)}"
    if isinstance(node, And):
        return " ".join(_inner(term) for term in node.terms)
    return " or ".join(_inner(term) for term in node.terms)


def _inner(node: Node) -> str:
    return f"({_text(node)})" if isinstance(node, And | Or) else _text(node)


def query_row(values: Mapping[str, object], known: Vocabulary = PUMPS) -> Row:
    """A row with every field, `None` where `values` lacks one; raises KeyError for a name that is no field."""
    unknown = set(values) - set(known.fields)
    if unknown:
        raise KeyError(f"not a field of a query: {', '.join(sorted(unknown))}")
    return {name: values.get(name) for name in known.fields}
