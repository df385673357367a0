"""How commands speak: stdout is data, stderr is talk. A list is an aligned table for people or one JSON array of flat objects."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.plain_text import plain
from pumpdeck_fleet.core.sizes import size_words

Row = Mapping[str, Any]
_GAP = "  "
_NARROWEST = 8
_EXACT = 1e15


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people: the row's key, the heading, and how a value is written."""

    key: str
    title: str = ""
    write: Callable[[Any], str] | None = None
    right: bool = False

    @property
    def heading(self) -> str:
        return self.title or self.key.replace("_", " ")


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")(command)


def query_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """`QUERY`: words of the query language (docs/query.md), joined by spaces."""
    return click.argument("query", nargs=-1, metavar="[QUERY]...", callback=_join)(command)


def _join(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> str:
    return " ".join(words)


def write_json(value: object) -> None:
    """One JSON document and a line end. ASCII only, so that every code page and every pipe carries it."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(", ", ": ")) + "\n")


def write_rows(rows: Iterable[Row], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """A list: a JSON array of flat objects, or a table; `empty` is said on stderr when there are no rows."""
    listed = list(rows)
    if as_json:
        sys.stdout.write(json.dumps([_finite(row) for row in listed], allow_nan=False) + "\n")
    elif listed:
        sys.stdout.write(table(listed, columns, _width()))
    else:
        say(empty)


def write_object(row: Row, *, as_json: bool) -> None:
    """One thing: a JSON object, or a line for each key."""
    if as_json:
        write_json(row)
        return
    longest = max((len(key) for key in row), default=0)
    for key, value in row.items():
        sys.stdout.write(f"{key.replace('_', ' ').ljust(longest)}  {_multiline(plain(show(value)), longest + 2)}\n")


def say(text: str) -> None:
    """Talk: one line on stderr."""
    sys.stderr.write(plain(text.rstrip("\n")) + "\n")


def show(value: object) -> str:
    """A value for people: `-` for nothing, short numbers, lists with commas."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # A count of rows is not worth less for being a float.
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(item) for item in value) if value else "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items()) if value else "-"
    return str(value)


def show_digest(value: object) -> str:
    """The first 12 characters of a digest: enough for people, the whole stands in `--json`."""
    return str(value)[:12] if value else "-"


def show_bytes(value: object) -> str:
    """A size in words, for a column that may hold none."""
    return size_words(value) if isinstance(value, (int, float)) else "-"


def time_text(at_ms: int | None) -> str | None:
    """RFC 3339 in UTC, `None` where there is no time."""
    return None if at_ms is None else format_ms(at_ms)


def table(rows: Sequence[Row], columns: Sequence[Column], width: int) -> str:
    """Aligned text; the widest column gives way when a line would not fit into `width` characters."""
    texts = [[_one_line((column.write or show)(row.get(column.key))) for column in columns] for row in rows]
    widths = [max(len(column.heading), *(len(line[i]) for line in texts)) for i, column in enumerate(columns)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = [[column.heading for column in columns], *texts]
    rights = [column.right for column in columns]
    return "".join(_line(line, widths, rights) for line in lines)


def _line(texts: Sequence[str], widths: Sequence[int], rights: Sequence[bool]) -> str:
    cells = [_cell(text, width, right) for text, width, right in zip(texts, widths, rights, strict=True)]
    return _GAP.join(cells).rstrip() + "\n"


def _cell(text: str, width: int, right: bool) -> str:
    if len(text) > width:
        text = text[: width - 1] + "~"
    return text.rjust(width) if right else text.ljust(width)


def _one_line(text: str) -> str:
    return text if text.isprintable() else plain(" ".join(text.split()))


def _multiline(text: str, indent: int) -> str:
    return text.replace("\n", "\n" + " " * indent)


def _width() -> int:
    # A pipe gets whole lines: what reads it can cut for itself.
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 1_000


def _finite(value: Any) -> Any:
    """The value with numbers that JSON cannot hold as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def say_unsigned(why: str, what: str) -> None:
    """Say plainly that a person's word carries no signature, where it does not."""
    if why:
        say(f"Not signed ({why}). The {what} counts in this workspace and is not believed by others; later: pumpdeck trust vouch")
