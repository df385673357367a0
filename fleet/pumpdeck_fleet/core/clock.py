"""Times are integers: milliseconds since 1970-01-01 UTC, named `*_ms`. RFC 3339 stands at the edges only."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pumpdeck_fleet.core.errors import FormatError

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Years 1 to 9999: what a calendar date can be.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Clock(Protocol):
    """Where the time of day comes from."""

    def now_ms(self) -> int:
        """UTC milliseconds since the epoch."""
        ...


class SystemClock:
    """The computer's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class FixedClock:
    """A clock that stands until it is moved."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def advance(self, by_ms: int) -> None:
        """Move the clock by `by_ms` (may be negative: clocks do jump back)."""
        self.at_ms += by_ms


def format_ms(at_ms: int) -> str:
    """RFC 3339 in UTC; milliseconds only when there are any. What no calendar holds, as by a broken clock, stays a number."""
    if not _FIRST_MS <= at_ms <= _LAST_MS:
        return f"{at_ms} ms"
    seconds, millis = divmod(at_ms, 1000)
    # Counted from the epoch: `fromtimestamp` fails before 1970 on Windows, and `%Y` does not pad everywhere.
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    return f"{text}.{millis:03d}Z" if millis else f"{text}Z"


def parse_ms(text: str, what: str = "time") -> int:
    """Milliseconds from an RFC 3339 time with offset.

    Raises:
        FormatError: no such time.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise FormatError(
            "is not a time", what, expected="RFC 3339 such as 2026-01-31T06:00:00Z", found=repr(text[:40])
        )
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    micros = ((fraction or ".0")[1:] + "000000")[:6]
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{micros}{zone}")
    except ValueError as error:
        raise FormatError(f"is not a time ({error})", what, found=repr(text[:40])) from error
    return round(moment.timestamp() * 1000)
