"""Argument types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, parse_ms
from pumpdeck_fleet.core.errors import FormatError

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class When(click.ParamType[Any]):
    """A time: RFC 3339, a day in UTC, or so long ago (`24h`, `7d`). The value is a function of now, both in ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Callable[[int], int]:
        if callable(value):
            return value
        text = str(value).strip().lower()
        if text == "now":
            return lambda now_ms: now_ms
        if ago := _AGO.fullmatch(text.removesuffix(" ago")):
            back_ms = int(ago[1]) * _UNITS[ago[2]]
            return lambda now_ms: now_ms - back_ms
        try:
            at_ms = parse_ms(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text.upper())
        except FormatError:
            self.fail(f"{value!r} is not a time; write 2026-01-31T06:00:00Z, 2026-01-31, 24h or 7d", param, ctx)
        return lambda _now_ms: at_ms


WHEN = When()
