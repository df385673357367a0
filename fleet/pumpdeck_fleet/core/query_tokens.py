"""The words of a query with their places."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import QueryError

QUERY_MAX_CHARACTERS = 2_000
KEYWORDS = frozenset({"and", "or", "not"})

_SPACE = re.compile(r"\s*")
_FIELD = re.compile(r"[^\W\d]\w*(?=\s*[:<>=!])")
_OPERATOR = re.compile(r"<=|>=|!=|[:<>=!]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_VALUE = re.compile(r'[^\s(),"]+')
_WORD = re.compile(r'[^\s(),":<>=!]+')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class TokenKind(enum.Enum):
    """What a token is."""

    WORD = "a word"
    FIELD = "a field"
    OPERATOR = "an operator"
    VALUE = "a value"
    COMMA = ","
    OPEN = "("
    CLOSE = ")"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Value:
    """A value as written; a quoted one is never a keyword and has no wildcards."""

    text: str
    is_quoted: bool = False

    @property
    def is_none(self) -> bool:
        """True for the word `none`: not known."""
        return not self.is_quoted and self.text.lower() == "none"

    def __str__(self) -> str:
        return quoted(self.text, bare=False, always=self.is_quoted)


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `position` counts characters from 0."""

    kind: TokenKind
    text: str
    position: int
    is_quoted: bool = False

    def is_keyword(self, keyword: str) -> bool:
        return self.kind is TokenKind.WORD and not self.is_quoted and self.text.lower() == keyword

    @property
    def is_any_keyword(self) -> bool:
        return not self.is_quoted and self.text.lower() in KEYWORDS

    def as_value(self) -> Value:
        return Value(self.text, self.is_quoted)


class QuerySyntaxError(QueryError):
    """A text that is no query; `position` is the place in it, from 0."""

    def __init__(self, what: str, token: Token, *, expected: object = None, hint: str = "") -> None:
        found = token.kind.value if token.kind is TokenKind.END else repr(token.text[:40])
        which = f"query, character {token.position + 1}"
        super().__init__(what, which, expected=expected, found=found, hint=hint or "see docs/query.md")
        self.position = token.position


def scan(text: str) -> list[Token]:
    """All tokens, the last of which is END.

    Raises:
        QuerySyntaxError: too long, an open quote, or a sign that cannot stand there.
    """
    if len(text) > QUERY_MAX_CHARACTERS:
        where = Token(TokenKind.WORD, text[:20], 0)
        raise QuerySyntaxError("is too long", where, expected=f"at most {QUERY_MAX_CHARACTERS} characters")
    tokens: list[Token] = []
    at = _skip(text, 0)
    while at < len(text):
        after_comparison = bool(tokens) and tokens[-1].kind in (TokenKind.OPERATOR, TokenKind.COMMA)
        token, at = _value_token(text, at) if after_comparison else _token(text, at, tokens)
        tokens.append(token)
        at = _skip(text, at)
    return [*tokens, Token(TokenKind.END, "", len(text))]


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _token(text: str, at: int, before: list[Token]) -> tuple[Token, int]:
    sign = text[at]
    if sign == "(":
        return Token(TokenKind.OPEN, sign, at), at + 1
    if sign == ")":
        return Token(TokenKind.CLOSE, sign, at), at + 1
    if sign == "," and before and before[-1].kind is TokenKind.VALUE:
        return Token(TokenKind.COMMA, sign, at), at + 1
    if sign == '"':
        return _quoted_token(text, at, TokenKind.WORD)
    if before and before[-1].kind is TokenKind.FIELD and (found := _OPERATOR.match(text, at)):
        return Token(TokenKind.OPERATOR, "!=" if found[0] == "!" else found[0], at), found.end()
    if found := _FIELD.match(text, at):
        return Token(TokenKind.FIELD, found[0], at), found.end()
    if found := _WORD.match(text, at):
        return Token(TokenKind.WORD, found[0], at), found.end()
    raise QuerySyntaxError("cannot stand here", Token(TokenKind.WORD, sign, at), expected="a word, a field, not, or (")


def _value_token(text: str, at: int) -> tuple[Token, int]:
    if text[at] == '"':
        return _quoted_token(text, at, TokenKind.VALUE)
    found = _VALUE.match(text, at)
    if found is None:
        raise QuerySyntaxError("is not a value", Token(TokenKind.VALUE, text[at], at), expected="a value, or a text in quotes")
    return Token(TokenKind.VALUE, found[0], at), found.end()


def _quoted_token(text: str, at: int, kind: TokenKind) -> tuple[Token, int]:
    found = _QUOTED.match(text, at)
    if found is None:
        raise QuerySyntaxError("has an open quote", Token(kind, text[at:], at), expected='a " that closes it')
    return Token(kind, _ESCAPE.sub(r"\1", found[1]), at, is_quoted=True), found.end()


def quoted(text: str, *, bare: bool, always: bool = False) -> str:
    """The text as it must be written: a bare word or value where that says the same, else in quotes."""
    pattern = _WORD if bare else _VALUE
    found = pattern.fullmatch(text)
    if found and not always and not (bare and text.lower() in KEYWORDS):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
