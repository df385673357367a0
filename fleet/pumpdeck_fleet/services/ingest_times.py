"""Times of a file as UTC milliseconds: with a zone, without one, as numbers, in the spellings that loggers use. Vectorised."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import InputError

Int64 = NDArray[np.int64]
Status = NDArray[np.uint8]

_QUARTER_MS = 900_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock without a zone is what this module turns into UTC
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/\d{4}(.*)")
_DOTS = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}(.*)")
_YEAR_FIRST = re.compile(r"\d{4}/\d{1,2}/\d{1,2}(.*)")
_NUMBER = re.compile(r"\d{9,13}(?:\.\d+)?")
# Later than the year 5138 as seconds, earlier than 1973 as milliseconds: no telemetry mistakes one for the other.
_SECONDS_BELOW = 100_000_000_000


class TimeStatus(enum.IntEnum):
    """What became of one time."""

    READ = 0
    MISSING = 1
    UNREADABLE = 2
    AMBIGUOUS = 3
    NONEXISTENT = 4


class TimeReader:
    """Reads the time column of one file. The spelling is found in the first block and kept for the whole file."""

    def __init__(self, zone: ZoneInfo | None, time_format: str, where: str) -> None:
        """`zone`: of times without one; `None` lets such times be refused. `where` names the column in errors."""
        self._zone = zone
        self._format = time_format
        self._where = where

    def read(self, column: pa.Array) -> tuple[Int64, Status]:
        """UTC milliseconds and `TimeStatus` of each; the time of one that was not read is 0.

        Raises:
            InputError: no zone is known, or day and month cannot be told apart.
        """
        kind = column.type
        if pa.types.is_dictionary(kind):
            return self.read(column.dictionary_decode())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return self._from_text(column)
        if pa.types.is_timestamp(kind):
            millis = _to_numpy(column.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64()))
            status = _missing(column)
            return (millis, status) if kind.tz else self._from_local(millis, status)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _from_numbers(column.cast(pa.float64(), safe=False))
        raise InputError("is not a column of times", self._where, expected="times, texts or numbers", found=kind)

    def _from_text(self, column: pa.Array) -> tuple[Int64, Status]:
        column = pc.utf8_trim_whitespace(column)
        if self._format:
            return self._from_format(column)
        try:
            nanos = column.cast(pa.timestamp("ns", "UTC"))
            return _to_numpy(nanos.cast(pa.int64())) // 1_000_000, _missing(column)
        except pa.ArrowInvalid:
            pass
        try:
            nanos = column.cast(pa.timestamp("ns"))
            return self._from_local(_to_numpy(nanos.cast(pa.int64())) // 1_000_000, _missing(column))
        except pa.ArrowInvalid:
            pass
        known = next((text for text in column.to_pylist() if text), "")
        if _NUMBER.fullmatch(known):
            return self._each(column, _number_ms)
        self._format = _guess_format(column, known, self._where)
        if self._format:
            return self._from_format(column)
        return self._each(column, self._iso_ms)

    def _from_format(self, column: pa.Array) -> tuple[Int64, Status]:
        parsed = pc.strptime(column, format=self._format, unit="ms", error_is_null=True)
        status = _missing(column)
        status[(status == TimeStatus.READ) & _nulls(parsed)] = TimeStatus.UNREADABLE
        millis = _to_numpy(parsed.cast(pa.int64()))
        return (millis, status) if "%z" in self._format else self._from_local(millis, status)

    def _each(self, column: pa.Array, read: Callable[[str], tuple[int, bool]]) -> tuple[Int64, Status]:
        """One by one: only for blocks in which some time has no spelling the fast ways know."""
        millis, status = np.zeros(len(column), np.int64), _missing(column)
        local = np.zeros(len(column), np.bool_)
        for index, text in enumerate(column.to_pylist()):
            if text:
                try:
                    millis[index], local[index] = read(text)
                except (ValueError, OverflowError):
                    status[index] = TimeStatus.UNREADABLE
        if local.any():
            millis[local], status[local] = self._from_local(millis[local], status[local])
        return millis, status

    @staticmethod
    def _iso_ms(text: str) -> tuple[int, bool]:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return round(moment.timestamp() * 1000), False
        return (moment - _EPOCH) // timedelta(milliseconds=1), True

    def _from_local(self, wall_ms: Int64, status: Status) -> tuple[Int64, Status]:
        if self._zone is None:
            raise InputError(
                "has times without a zone",
                self._where,
                expected="times with Z or an offset, or a known zone",
                hint="give the zone with --time-zone, or the site with --site",
            )
        quarters, places = np.unique(wall_ms // _QUARTER_MS, return_inverse=True)
        offsets = np.array([_offsets_ms(int(quarter) * _QUARTER_MS, self._zone) for quarter in quarters], np.int64)
        first, second = offsets.reshape(-1, 2)[places].T
        status = status.copy()
        read = status == TimeStatus.READ
        status[read & (first > second)] = TimeStatus.AMBIGUOUS
        status[read & (first < second)] = TimeStatus.NONEXISTENT
        return np.where(status == TimeStatus.READ, wall_ms - first, 0), status


def _offsets_ms(wall_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    """Offset from UTC of a wall clock time, taken as the first and as the second time it is shown."""
    wall = _EPOCH + timedelta(milliseconds=wall_ms)
    found = (wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    first, second = (offset // timedelta(milliseconds=1) for offset in found)
    return first, second


def _number_ms(text: str) -> tuple[int, bool]:
    number = float(text)
    return round(number * 1000 if number < _SECONDS_BELOW else number), False


def _from_numbers(column: pa.Array) -> tuple[Int64, Status]:
    status = _missing(column)
    numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False)
    status[~np.isfinite(numbers)] = TimeStatus.UNREADABLE
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    return np.rint(np.where(np.abs(numbers) < _SECONDS_BELOW, numbers * 1000, numbers)).astype(np.int64), status


def _guess_format(column: pa.Array, known: str, where: str) -> str:
    if found := _DOTS.fullmatch(known):
        return "%d.%m.%Y" + _clock_format(found[1])
    if found := _YEAR_FIRST.fullmatch(known):
        return "%Y/%m/%d" + _clock_format(found[1])
    if found := _SLASHES.fullmatch(known):
        return _day_or_month_first(column, where) + _clock_format(found[3])
    return ""


def _day_or_month_first(column: pa.Array, where: str) -> str:
    pairs = [found for text in column.to_pylist() if text and (found := _SLASHES.fullmatch(text))]
    if any(int(found[1]) > 12 for found in pairs):
        return "%d/%m/%Y"
    if any(int(found[2]) > 12 for found in pairs):
        return "%m/%d/%Y"
    raise InputError(
        "does not show whether day or month stands first",
        where,
        found=repr(pairs[0][0]),
        hint="say it with --time-format '%d/%m/%Y %H:%M:%S'",
    )


def _clock_format(text: str) -> str:
    """strptime format of what stands behind the date."""
    seconds = ":%S" if text.count(":") > 1 else ""
    if not text.strip():
        return ""
    gap = text[0]
    return f"{gap}%I:%M{seconds} %p" if text.rstrip().upper().endswith("M") else f"{gap}%H:%M{seconds}"


def _missing(column: pa.Array) -> Status:
    status = np.zeros(len(column), np.uint8)
    status[_nulls(column)] = TimeStatus.MISSING
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        status[pc.equal(column, "").fill_null(False).to_numpy(zero_copy_only=False)] = TimeStatus.MISSING
    return status


def _nulls(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), np.bool_)


def _to_numpy(column: pa.Array) -> Int64:
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def format_utc(at_ms: int) -> str:
    """A time for messages."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
