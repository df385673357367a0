"""Canonical JSON and a strict reader of frozen dataclasses: the one door for every wire format of Pumpdeck.

Canonical form: UTF-8, keys sorted by code point, no white space, no escapes but those JSON demands, numbers as Python's shortest
round-trip form, no NaN or infinity, no duplicate keys. The same value always gives the same bytes, so digests and signatures
can be taken over them (the spirit of RFC 8785; numbers differ in spelling only).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from pumpdeck_fleet.core.errors import FormatError, TooLargeError

MAX_DEPTH = 24
MAX_SAFE_INTEGER = 2**53 - 1

# A string ends at its quote or at the end of the data: it always matches, so no text makes the search go back.
_STRINGS_AND_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def digest(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 of exact bytes, lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def encode(value: Any) -> bytes:
    """Canonical JSON of plain values, mappings, sequences, enums and dataclasses.

    Raises:
        ValueError: a number is not finite or an integer does not fit 53 bits.
    """
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def to_plain(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None; dataclass fields that are None are left out."""
    kind: Any = type(value)
    # What nearly all values are, by exact type; their subclasses, enums above all, take the longer way below.
    if kind is str or kind is bool:
        return value
    if kind is dict:
        return {name if type(name) is str else str(name): to_plain(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [to_plain(item) for item in value]
    names = _field_names(kind)
    if names:
        fields = ((name, getattr(value, name)) for name in names)
        return {name: to_plain(item) for name, item in fields if item is not None}
    return _to_plain(value)


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def _to_plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError(f"integer {value} does not fit 53 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number must be finite")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_plain(item) for name, item in fields if item is not None}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    raise TypeError(f"no canonical form for {type(value).__name__}")


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands twice")
    return seen


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number here")


def _parse_int(text: str) -> int:
    if len(text) > 17:
        raise ValueError("an integer does not fit 53 bits")
    number = int(text)
    if abs(number) > MAX_SAFE_INTEGER:
        raise ValueError("an integer does not fit 53 bits")
    return number


def _parse_float(text: str) -> float:
    number = float(text) if len(text) <= 64 else math.inf
    if not math.isfinite(number):
        raise ValueError("a number must be finite")
    return number


def _check_depth(data: bytes, what: str) -> None:
    # A scan of brackets outside strings keeps the recursive parser away from hostile nesting.
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(data):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise FormatError("nested too deeply", what, expected=f"at most {MAX_DEPTH} levels")
        elif mark in (b"]", b"}"):
            depth -= 1


def parse_json(data: bytes, what: str, *, max_bytes: int) -> Any:
    """Plain values from JSON bytes, with limits on size, depth and numbers.

    Raises:
        TooLargeError: more than `max_bytes`.
        FormatError: not JSON, duplicate keys, NaN, too deep, a number out of range, or not UTF-8.
    """
    if len(data) > max_bytes:
        raise TooLargeError("is too large", what, expected=f"at most {max_bytes} bytes", found=f"{len(data)} bytes")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(data, what)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_reject_duplicates,
            parse_constant=_reject_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
        )
        if b"\\u" in data:
            # Half a surrogate pair can be escaped in JSON but has no UTF-8: it would fail later, where nobody expects it.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise FormatError(f"is not valid JSON ({error})", what) from error


def decode(cls: type[T], data: bytes, what: str, *, max_bytes: int) -> T:
    """A frozen dataclass `cls` from JSON bytes; unknown or missing fields and wrong types are refused by name.

    Raises:
        TooLargeError, FormatError: as `parse_json`; the field's path stands in the message.
    """
    return from_plain(cls, parse_json(data, what, max_bytes=max_bytes), what)


def from_plain(cls: type[T], value: Any, what: str) -> T:
    """A frozen dataclass `cls` from plain values, checked field by field.

    Raises:
        FormatError: names the path of the first wrong field, what was expected and what was found.
    """
    return typing.cast(T, _convert(cls, value, what))


_SCALARS = frozenset({str, int, float, bool})
_HINTS: dict[type[Any], dict[str, tuple[Any, bool]]] = {}


def _hints(cls: type[Any]) -> dict[str, tuple[Any, bool]]:
    # Resolving annotations costs more than a whole small message; they never change.
    if cls in _HINTS:
        return _HINTS[cls]
    hints = typing.get_type_hints(cls)
    result: dict[str, tuple[Any, bool]] = {}
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        result[field.name] = (hints[field.name], required)
    _HINTS[cls] = result
    return result


def _wrong(where: str, expected: str, value: Any) -> FormatError:
    found = "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
    return FormatError("has the wrong type", where, expected=expected, found=found)


def _convert_dataclass(cls: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    hints = _hints(cls)
    for name in value:
        if name not in hints:
            known = ", ".join(sorted(hints))
            raise FormatError("has an unknown field", where, expected=f"only {known}", found=repr(str(name)[:60]))
    arguments = {}
    for name, (hint, required) in hints.items():
        if name in value:
            item = value[name]
            # Most values are scalars of the very type: they need no rule and no path.
            is_plain = type(item) is hint and hint in _SCALARS
            arguments[name] = item if is_plain else _convert(hint, item, f"{where}.{name}")
        elif required:
            raise FormatError("lacks a field", where, expected=name)
    try:
        return cls(**arguments)
    except ValueError as error:
        raise FormatError(f"is not valid ({error})", where) from error


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise _wrong(where, {str: "a text", int: "an integer", float: "a number", bool: "true or false"}[hint], value)
    return value


def _convert_enum(hint: type[enum.Enum], value: Any, where: str) -> enum.Enum:
    try:
        return hint(value)
    except ValueError as error:
        choices = ", ".join(str(member.value) for member in hint)
        raise FormatError("is not one of the choices", where, expected=choices, found=repr(str(value)[:60])) from error


@functools.cache
def _parts_of(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint in _SCALARS:
        return _convert_scalar(hint, value, where)
    if hint is Any:
        return value
    origin, arguments = _parts_of(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (item for item in arguments if item is not type(None))
        return _convert(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _convert_enum(hint, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _convert_dataclass(hint, value, where)
    raise TypeError(f"no rule to read {hint!r}")


def _convert_tuple(arguments: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kind = arguments[0]
        if kind in _SCALARS and all(type(item) is kind for item in value):
            return tuple(value)
        return tuple([_convert(kind, item, f"{where}[{index}]") for index, item in enumerate(value)])
    if len(arguments) != len(value):
        raise FormatError("has the wrong length", where, expected=len(arguments), found=len(value))
    return tuple(
        _convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )
