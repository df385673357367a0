"""TOML files that people edit, read strictly: every error names file, line, key, what was expected and what was found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect
import tomli

from pumpdeck_fleet.core.errors import InputError, NotFoundError, PumpdeckError
from pumpdeck_fleet.core.files import read_at_most
from pumpdeck_fleet.services.toml_places import Path as KeyPath
from pumpdeck_fleet.services.toml_places import line_of

TOML_MAX_BYTES = 64 * 1024 * 1024
T = TypeVar("T")

_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")
_SYNTAX_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_EXPECTED = re.compile(r"Expected (.*?)(?:, got .*)?$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WORDS = {
    "`str`": "a text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a table",
    "`datetime`": "a time with zone, such as 2026-03-01T06:00:00Z",
    "`datetime` with a timezone component": "a time with zone, such as 2026-03-01T06:00:00Z",
}


class TomlError(InputError):
    """A key or value that cannot be used; `which` holds file and line."""


@dataclass(frozen=True, slots=True)
class TomlText:
    """The text of one file, and how to tell where in it something is wrong."""

    path: Path
    data: bytes
    text: str

    def wrong(self, at: KeyPath, what: str, *, expected: object = None, found: object = None, hint: str = "") -> TomlError:
        """The error for the value at that path."""
        which = f"{self.path}, line {line_of(self.text, at)}"
        if at:
            which += f", {_key(at)}"
        return TomlError(what, which, expected=expected, found=found, hint=hint)

    def reworded(self, at: KeyPath, error: PumpdeckError) -> TomlError:
        """The same complaint, with its place in this file."""
        return self.wrong(at, error.what, expected=error.expected, found=error.found, hint=error.hint)


def read_toml(path: Path) -> TomlText:
    """The file's text.

    Raises:
        NotFoundError: it is not there.
        TooLargeError: over 64 MiB.
        TomlError: not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = read_at_most(stream, TOML_MAX_BYTES, str(path))
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(path), hint="create a workspace: pumpdeck init") from error
    try:
        # TOML takes both line ends; one of them keeps the line numbers true.
        return TomlText(path, data, data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte {data[error.start]:#04x}"
        raise TomlError("is not UTF-8", f"{path}, line {line}", expected="UTF-8", found=found) from error


def parse_toml(source: TomlText) -> dict[str, Any]:
    """The file's tables as plain values.

    Raises:
        TomlError: not TOML.
    """
    try:
        return tomli.loads(source.text)
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError is one, and so is a number of more digits than Python reads.
        message = str(error)
        place = _SYNTAX_PLACE.search(message)
        line = int(place[1]) if place and place[1] else source.text.count("\n") + 1
        column = f", column {place[2]}" if place and place[2] else ""
        what = f"is not TOML ({_SYNTAX_PLACE.sub('', message)})"
        raise TomlError(what, f"{source.path}, line {line}{column}", hint="see docs/fleet.example.toml") from error


def convert(source: TomlText, plain: object, cls: type[T], at: KeyPath = ()) -> T:
    """A msgspec struct (or any type msgspec knows) from the plain values that stand at `at`.

    Tables whose keys people choose are converted entry by entry, so that an error can name the key.

    Raises:
        TomlError: an unknown or missing key, a wrong type or value.
    """
    try:
        return msgspec.convert(plain, cls)
    except msgspec.ValidationError as error:
        raise _wrong_value(source, plain, cls, at, str(error)) from error


def _wrong_value(source: TomlText, plain: object, cls: Any, at: KeyPath, message: str) -> TomlError:
    told, _, where = message.partition(" - at `")
    inner = tuple(int(position) if position else name for name, position in _STEP.findall(where))
    place = (*at, *inner)
    if unknown := _UNKNOWN.fullmatch(told):
        return source.wrong((*place, unknown[1]), "is an unknown key", hint="every key that is understood stands in docs/")
    if missing := _MISSING.fullmatch(told):
        return source.wrong(place, "lacks a key", expected=missing[1])
    value = _at(plain, inner)
    found = type(value).__name__ if isinstance(value, dict | list) else repr(value)[:60]
    if expected := _EXPECTED.match(told):
        wanted = _WORDS.get(expected[1], expected[1].replace("`", ""))
        return source.wrong(place, "has the wrong type or value", expected=wanted, found=found)
    if told.startswith("Invalid enum"):
        return source.wrong(place, "is not one of the choices", expected=_choices(cls, inner), found=found)
    return source.wrong(place, told, found=found)


def _choices(cls: Any, path: KeyPath) -> str | None:
    """The values that the type at `path` inside `cls` allows, in words."""
    kind: Any = msgspec.inspect.type_info(cls)
    for step in path:
        if isinstance(kind, msgspec.inspect.StructType):
            kind = next((entry.type for entry in kind.fields if entry.encode_name == step), None)
        else:
            kind = getattr(kind, "item_type", None)
    if isinstance(kind, msgspec.inspect.EnumType):
        return ", ".join(str(choice.value) for choice in kind.cls)
    if isinstance(kind, msgspec.inspect.LiteralType):
        return ", ".join(str(choice) for choice in kind.values)
    return None


def _at(plain: Any, path: KeyPath) -> Any:
    for step in path:
        plain = plain[step]
    return plain


def _key(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
