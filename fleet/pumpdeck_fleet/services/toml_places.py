"""Which line of a TOML text a key stands on.

Runs only when something is wrong, so that reading pays nothing for good messages.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")


def line_of(text: str, path: Path) -> int:
    """Line (from 1) of the value at `path`, or of the nearest thing around it; the text must be valid TOML.

    A path has names and positions in lists: `("sites", 0, "devices", 2, "pumps", 0, "tag")`.
    """
    places = _Scanner(text).places()
    while path and path not in places:
        path = path[:-1]
    return text.count("\n", 0, places.get(path, 0)) + 1


class _Scanner:
    """Walks valid TOML and notes where each table, key and list item begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places: dict[Path, int] = {}
        self._lists: dict[Path, int] = {}

    def places(self) -> dict[Path, int]:
        """Offset of every path."""
        table: Path = ()
        self._skip()
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text.startswith("[", self._at):
                table = self._header(1)
            else:
                self._pair(table)
            self._skip()
        return self._places

    def _skip(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _header(self, brackets: int) -> Path:
        start = self._at
        self._at += brackets
        names = self._key()
        self._at += brackets
        path: Path = ()
        for index, name in enumerate(names):
            path = (*path, name)
            if brackets == 2 and index == len(names) - 1:
                self._lists[path] = self._lists.get(path, -1) + 1
            if path in self._lists:
                path = (*path, self._lists[path])
        self._places.setdefault(path, start)
        return path

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip()
            names.append(self._name())
            self._skip()
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _name(self) -> str:
        start = self._at
        if self._text[start] in "\"'":
            self._string()
            return self._text[start + 1 : self._at - 1]
        found = _BARE.match(self._text, start)
        self._at = found.end() if found else start + 1
        return self._text[start : self._at]

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        self._places.setdefault(path, start)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        sign = self._text[self._at : self._at + 1]
        if sign == "[":
            self._items(path)
        elif sign == "{":
            self._inline(path)
        elif sign in ('"', "'"):
            self._string()
        else:
            found = _SCALAR.match(self._text, self._at)
            self._at = found.end() if found else len(self._text)

    def _items(self, path: Path) -> None:
        self._at += 1
        count = 0
        while True:
            self._skip()
            if self._at >= len(self._text) or self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._places.setdefault((*path, count), self._at)
            self._value((*path, count))
            count += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip()
            if self._at >= len(self._text) or self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)

    def _string(self) -> None:
        quote = self._text[self._at]
        marks = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(marks)
        while self._at < len(self._text) and not self._text.startswith(marks, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += len(marks)
        # Up to two more quotes may stand before the three that close.
        while len(marks) == 3 and self._text.startswith(quote, self._at):
            self._at += 1
