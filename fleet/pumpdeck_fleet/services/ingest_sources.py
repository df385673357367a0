"""Rows out of a CSV or Parquet file, block by block, so that a file of any size needs the same memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.services.ingest_options import IngestOptions
from pumpdeck_fleet.services.ingest_text import Dialect, find_dialect, wrong_encoding

CSV_BLOCK_BYTES = 16 * 1024 * 1024
LINE_MAX_BYTES = 1024 * 1024
PARQUET_BATCH_ROWS = 262_144
NO_VALUES = ("", "NaN", "nan", "NAN", "NULL", "Null", "null", "NA", "N/A", "n/a", "-", "--")

_ROWS_COUNTED_BY_LINE = 1_000_000  # further down a report says the row: finding its line means reading all before it

_MAGIC = b"PAR1"
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"


@dataclass(frozen=True, eq=False)
class Block:
    """Rows as they stand in the file. values: float64 [n, columns asked for], NaN = missing. `first_row` counts rows from 0.

    `refused`: rows with something that is no number, when bad rows are skipped.
    """

    first_row: int
    times: pa.Array
    pumps: pa.Array | None
    values: NDArray[np.float64]
    refused: NDArray[np.bool_] | None = None


class Source(Protocol):
    """A file of telemetry. `header` says where its names of columns stand; `skipped_rows` had too many or too few columns."""

    columns: tuple[str, ...]
    header: str
    skipped_rows: int

    def blocks(self, time: int, pump: int | None, values: Sequence[int]) -> Iterator[Block]:
        """All rows, in order.

        Raises:
            InputError: the file is damaged or holds something that is no number; names the place.
        """
        ...

    def place(self, row: int, column: int | None = None) -> str:
        """Where a row stands, for messages: file, line or row, column."""
        ...

    def places(self, rows: Iterable[int]) -> dict[int, str]:
        """Where several rows stand, found in one go; -1 is the file itself."""
        ...

    def text(self, row: int, column: int | None, /) -> str | None:
        """What stands there, as the file spells it, for messages."""
        ...

    def progress(self) -> tuple[int, int]:
        """(bytes or rows read, all of them)."""
        ...


def open_source(path: Path, options: IngestOptions) -> Source:
    """The file, its kind known by its first bytes.

    Raises:
        InputError: empty, cut, or of another kind.
    """
    with path.open("rb") as stream:
        head = stream.read(4)
    if head == _MAGIC:
        return ParquetSource(path)
    if path.suffix.lower() in (".parquet", ".pq") and head:
        raise InputError("is not a Parquet file", str(path), expected="PAR1 at its start", found=head.hex(), hint="copy it again")
    for magic, kind, hint in _OTHER_KINDS:
        if head.startswith(magic):
            raise InputError(f"is {kind}", str(path), expected="a CSV or Parquet file", hint=hint)
    return CsvSource(find_dialect(path, options), skip_bad=options.skip_bad)


_OTHER_KINDS = (
    (b"\x1f\x8b", "compressed (gzip)", "unpack it first"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
)


class CsvSource:
    """A text file, cut into blocks of whole lines that Arrow reads; Python's reader is asked only where something is wrong."""

    def __init__(self, dialect: Dialect, *, skip_bad: bool) -> None:
        self.columns = dialect.columns
        self.header = f"{dialect.path}, line {dialect.header_line}"
        self.skipped_rows = 0
        self._dialect = dialect
        self._skip_bad = skip_bad
        self._read_bytes = 0
        self._bytes = dialect.path.stat().st_size

    def blocks(self, time: int, pump: int | None, values: Sequence[int]) -> Iterator[Block]:
        first_row = 0
        options = self._convert_options(time, pump, values)
        for lines in self._lines():
            table = self._table(lines, options, first_row, values)
            if table is not None and table.num_rows:
                columns = {name: _one(table.column(name)) for name in table.column_names}
                matrix, refused = self._matrix([columns[_name(column)] for column in values], table.num_rows)
                pumps = None if pump is None else columns[_name(pump)]
                yield Block(first_row, columns[_name(time)], pumps, matrix, refused)
                first_row += table.num_rows

    def _lines(self) -> Iterator[bytes]:
        """Whole lines behind the header as UTF-8, some megabytes at a time."""
        dialect = self._dialect
        is_utf8 = dialect.encoding.replace("-", "").replace("_", "").lower() in ("utf8", "utf8sig")
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
        rest, to_skip = b"", dialect.header_line
        with dialect.path.open("rb") as stream:
            while True:
                raw = stream.read(CSV_BLOCK_BYTES)
                self._read_bytes += len(raw)
                data = rest + (raw if is_utf8 else self._decoded(decoder, raw))
                end = len(data) if not raw else data.rfind(b"\n") + 1
                start = 0
                while to_skip and (found := data.find(b"\n", start, end)) >= 0:
                    start, to_skip = found + 1, to_skip - 1
                rest = data[max(end, start) :]
                if not to_skip and start < end:
                    yield data[start:end]
                if not raw:
                    return
                if len(rest) > LINE_MAX_BYTES:
                    raise InputError("has no line ends", str(dialect.path), expected=f"lines of at most {LINE_MAX_BYTES} bytes")

    def _decoded(self, decoder: codecs.IncrementalDecoder, raw: bytes) -> bytes:
        try:
            return decoder.decode(raw, final=not raw).encode("utf-8")
        except UnicodeDecodeError as error:
            raise wrong_encoding(self._dialect.path, self._dialect.encoding, error) from error

    def _convert_options(self, time: int, pump: int | None, values: Sequence[int]) -> Any:
        text = [time] if pump is None else [time, pump]
        types: dict[str, pa.DataType] = {_name(column): pa.string() for column in text}
        types |= {_name(column): pa.string() if self._skip_bad else pa.float64() for column in values}
        return pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            decimal_point=self._dialect.decimal,
            null_values=NO_VALUES,
            strings_can_be_null=True,
        )

    def _table(self, lines: bytes, options: Any, first_row: int, values: Sequence[int]) -> Any:
        names = [_name(column) for column in range(len(self.columns))]
        skip = self._skip_row if self._skip_bad else None
        try:
            return pyarrow.csv.read_csv(
                pa.BufferReader(lines),
                read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=names),
                parse_options=pyarrow.csv.ParseOptions(delimiter=self._dialect.separator, invalid_row_handler=skip),
                convert_options=options,
            )
        except (pa.ArrowInvalid, UnicodeError) as error:
            if "Empty CSV file" in str(error):
                return None
            raise self._explain(first_row, values, error) from error

    def _skip_row(self, _row: Any) -> str:
        self.skipped_rows += 1
        return "skip"

    def _matrix(self, columns: Sequence[Any], rows: int) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        if not self._skip_bad:
            return _to_matrix(columns, rows), None
        refused = np.zeros(rows, np.bool_)
        return _to_matrix([_numbers_or_refused(column, self._dialect.decimal, refused) for column in columns], rows), refused

    def _explain(self, first_row: int, values: Sequence[int], error: Exception) -> InputError:
        """What is wrong in the first bad row from `first_row` on, with its place."""
        path, separator, width = self._dialect.path, self._dialect.separator, len(self.columns)
        last = None
        for index, (line, fields) in enumerate(self._dialect.records()):
            if index < first_row:
                continue
            last = line
            if len(fields) != width:
                where = f"{path}, line {line}, column {min(len(fields), width) + (len(fields) > width)}"
                hint = f"is the file cut, or {separator!r} not its separator?"
                found = f"{len(fields)}: {separator.join(fields)[:60]!r}"
                return InputError("has the wrong number of columns", where, expected=width, found=found, hint=hint)
            for column in values:
                if not _is_number(fields[column], self._dialect.decimal):
                    where = f"{path}, line {line}, column {column + 1} ({self.columns[column]})"
                    expected = f"a number such as 12{self._dialect.decimal}5"
                    return InputError("is not a number", where, expected=expected, found=repr(fields[column][:40]))
        return InputError(f"cannot be read ({error})", f"{path}, near line {last or self._dialect.header_line}")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """(line, fields) of the rows that were handed out, in their order."""
        width = len(self.columns)
        return (record for record in self._dialect.records() if not self._skip_bad or len(record[1]) == width)

    def _record(self, row: int) -> tuple[int, list[str]]:
        return next(islice(self._records(), row, row + 1), (self._dialect.header_line, list(self.columns)))

    def place(self, row: int, column: int | None = None) -> str:
        line, _ = self._record(row)
        where = f"{self._dialect.path}, line {line}"
        return where if column is None else f"{where}, column {column + 1} ({self.columns[column]})"

    def places(self, rows: Iterable[int]) -> dict[int, str]:
        wanted = set(rows)
        found = {row: str(self._dialect.path) if row < 0 else f"row {row + 1}" for row in wanted}
        last = max((row for row in wanted if row < _ROWS_COUNTED_BY_LINE), default=-1)
        if last >= 0:
            for index, (line, _) in enumerate(self._records()):
                if index in wanted:
                    found[index] = f"line {line}"
                if index >= last:
                    break
        return found

    def text(self, row: int, column: int | None) -> str | None:
        _, fields = self._record(row)
        return repr(fields[column][:40]) if column is not None and column < len(fields) else None

    def progress(self) -> tuple[int, int]:
        return self._read_bytes, self._bytes


class ParquetSource:
    """A Parquet file, read batch by batch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            schema = pq.read_schema(path)
            self._rows = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError) as error:
            hint = "it may be cut: copy it again"
            raise InputError(f"cannot be read as Parquet ({_first_line(error)})", str(path), hint=hint) from error
        self.columns = tuple(schema.names)
        self.header = str(path)
        self.skipped_rows = 0
        self._schema = schema
        self._read_rows = 0

    def blocks(self, time: int, pump: int | None, values: Sequence[int]) -> Iterator[Block]:
        wanted = [*([] if pump is None else [pump]), time, *values]
        names = [self.columns[column] for column in wanted]
        texts = [self.columns[pump]] if pump is not None else []
        self._read_rows = 0
        try:
            with pq.ParquetFile(self._path, read_dictionary=texts) as file:
                for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names):
                    yield self._block(batch, time, pump, values)
                    self._read_rows += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            where = f"{self._path}, after row {self._read_rows}"
            raise InputError(f"cannot be read to its end ({_first_line(error)})", where, hint="copy it again") from error

    def _block(self, batch: Any, time: int, pump: int | None, values: Sequence[int]) -> Block:
        def column(number: int) -> Any:
            return batch.column(batch.schema.get_field_index(self.columns[number]))

        numbers = [self._numbers(column(number), number) for number in values]
        pumps = None if pump is None else column(pump)
        return Block(self._read_rows, column(time), pumps, _to_matrix(numbers, batch.num_rows))

    def _numbers(self, column: Any, number: int) -> Any:
        try:
            return column.cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            where = f"{self._path}, column {number + 1} ({self.columns[number]})"
            raise InputError("is not a column of numbers", where, expected="numbers", found=str(column.type)) from error

    def place(self, row: int, column: int | None = None) -> str:
        where = f"{self._path}, row {row + 1}"
        return where if column is None else f"{where}, column {column + 1} ({self.columns[column]})"

    def places(self, rows: Iterable[int]) -> dict[int, str]:
        return {row: str(self._path) if row < 0 else f"row {row + 1}" for row in rows}

    def text(self, _row: int, _column: int | None) -> str | None:
        return None

    def progress(self) -> tuple[int, int]:
        return self._read_rows, self._rows


def _one(column: Any) -> Any:
    """A column of a table as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _name(column: int) -> str:
    # Position, not the file's own name: headers may hold one name twice.
    return f"c{column}"


def _to_matrix(columns: Sequence[Any], rows: int) -> NDArray[np.float64]:
    matrix = np.empty((rows, len(columns)), np.float64)
    for index, column in enumerate(columns):
        matrix[:, index] = column.to_numpy(zero_copy_only=False)
    return matrix


def _numbers_or_refused(column: Any, decimal: str, refused: NDArray[np.bool_]) -> Any:
    text = pc.utf8_trim_whitespace(column)
    if decimal != ".":
        text = pc.replace_substring(text, decimal, ".")
    fits = pc.match_substring_regex(text, _NUMBER)
    refused |= ~np.asarray(fits.fill_null(True).to_numpy(zero_copy_only=False), np.bool_)
    return pc.if_else(fits, text, None).cast(pa.float64())


def _is_number(field: str, decimal: str) -> bool:
    text = field.strip()
    return text in NO_VALUES or re.match(_NUMBER, text.replace(decimal, ".", 1) if decimal != "." else text) is not None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
