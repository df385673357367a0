"""What a text file is made of: encoding, separator, decimal sign, names of columns. And where in it a row stands."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.services.ingest_options import IngestOptions

SAMPLE_BYTES = 256 * 1024
SEPARATORS = (";", ",", "\t", "|")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_POINT = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_SAMPLE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the file is written. `columns` are the names in its header line, stripped."""

    path: Path
    encoding: str
    separator: str
    decimal: str
    header_line: int
    columns: tuple[str, ...]

    def open(self) -> TextIO:
        """The file as text."""
        return self.path.open(encoding=self.encoding, newline="")

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """(line, fields) of every row behind the header; empty lines are left out as the fast reader leaves them out.

        Raises:
            InputError: bytes that are not of this encoding; names line and byte.
        """
        with self.open() as text:
            rows = csv.reader(text, delimiter=self.separator)
            try:
                for row in rows:
                    if row and rows.line_num > self.header_line:
                        yield rows.line_num, row
            except UnicodeDecodeError as error:
                raise wrong_encoding(self.path, self.encoding, error) from error
            except csv.Error as error:
                raise InputError(f"cannot be read ({error})", f"{self.path}, line {rows.line_num}") from error


def wrong_encoding(path: Path, encoding: str, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are not of the encoding, with their line."""
    data = path.read_bytes() if path.stat().st_size < 256 * SAMPLE_BYTES else b""
    bad = error.object[error.start : error.start + 1]
    at = _first_bad(data, encoding)
    newlines = 0 if at is None else data.count(b"\n", 0, at)
    line = "" if at is None else f", line {newlines + 1}"
    hint = "give it with --encoding, such as cp1252 or utf-16" if encoding.startswith("utf-8") else "give another --encoding"
    return InputError(f"is not {encoding}", f"{path}{line}", expected=encoding, found=f"byte 0x{bad.hex()}", hint=hint)


def _first_bad(data: bytes, encoding: str) -> int | None:
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return None


def find_dialect(path: Path, options: IngestOptions) -> Dialect:
    """How the file is written.

    Raises:
        InputError: it is empty, not text, or no separator splits its header line.
    """
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    if not sample.strip(b"\0 \t\r\n"):
        raise InputError("is empty", str(path), expected="a header line and rows", found=f"{path.stat().st_size} bytes")
    encoding = options.encoding or _encoding(path, sample)
    lines = _sample_lines(path, sample, encoding, options.header_line)
    separator = options.separator or _separator(path, lines, options.header_line)
    columns = _split(lines[0], separator)
    if len(columns) < 2:
        raise _no_columns(path, lines[0], separator, options.header_line)
    rows = [_split(line, separator) for line in lines[1:]]
    decimal = options.decimal or _decimal(rows, separator)
    return Dialect(path, encoding, separator, decimal, options.header_line, tuple(name.strip() for name in columns))


def _encoding(path: Path, sample: bytes) -> str:
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        halves = sample[0::2].count(0), sample[1::2].count(0)
        if max(halves) > len(sample) // 4:
            return "utf-16-le" if halves[1] > halves[0] else "utf-16-be"
        line = sample.count(b"\n", 0, sample.index(b"\0")) + 1
        raise InputError("is not a text file", f"{path}, line {line}", expected="text", found="a zero byte", hint="is it cut?")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=False)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _sample_lines(path: Path, sample: bytes, encoding: str, header_line: int) -> list[str]:
    """The header line and what follows it in the sample; whole lines only, unless there is but one."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample, final=False)
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, encoding, error) from error
    except LookupError as error:
        raise InputError("is no encoding", encoding, expected="utf-8, cp1252, utf-16 or the like") from error
    lines = io.StringIO(text, newline=None).read().split("\n")
    if len(lines) > 2 and len(sample) == SAMPLE_BYTES:
        lines.pop()
    lines = [line for line in lines[header_line - 1 :] if line.strip()]
    if not lines:
        raise InputError("has no header line", f"{path}, line {header_line}", expected="names of columns", found="nothing")
    return lines[: _SAMPLE_ROWS + 1]


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _separator(path: Path, lines: list[str], header_line: int) -> str:
    """The sign that splits the header, and as many rows as can be, into the same number of fields; more fields win."""

    def fitness(sign: str) -> tuple[int, int]:
        width = len(_split(lines[0], sign))
        fitting = sum(len(_split(line, sign)) == width for line in lines[1:])
        return (fitting if width > 1 else -1, width)

    best = max(SEPARATORS, key=fitness)
    if len(_split(lines[0], best)) < 2:
        raise _no_columns(path, lines[0], "", header_line)
    return best


def _no_columns(path: Path, header: str, separator: str, header_line: int) -> InputError:
    counts = Counter(sign for sign in header if sign in SEPARATORS)
    hint = "give it with --separator"
    if counts:
        sign = counts.most_common(1)[0][0]
        hint = f"the separator looks like {'a tab' if sign == chr(9) else repr(sign)}"
    expected = f"columns split by {separator!r}" if separator else "columns split by one of ; , tab |"
    return InputError(
        "has one column only", f"{path}, line {header_line}, column 1", expected=expected, found=repr(header[:60]), hint=hint
    )


def _decimal(rows: list[list[str]], separator: str) -> str:
    if separator == ",":
        # An unquoted comma splits; a file with quoted numbers says so with its quotes.
        quoted = [field for row in rows for field in row if _COMMA.fullmatch(field.strip())]
        return "," if quoted else "."
    fields = [field.strip() for row in rows for field in row]
    commas = sum(_COMMA.fullmatch(field) is not None for field in fields)
    points = sum(_POINT.fullmatch(field) is not None for field in fields)
    return "," if commas > points else "."
