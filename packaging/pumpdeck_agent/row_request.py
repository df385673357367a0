"""Rows of a `POST /score`, parsed at the door: all of them make sense, or none is scored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pumpdeck_agent.http_wire import HttpError
from pumpdeck_agent.loaded import LoadedPump
from pumpdeck_agent.scorer import LiveRow
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import FormatError

MAX_ROWS = 1000
_LATEST_MS = 1 << 53

FindPump = Callable[[str], LoadedPump | None]


def parse_object(body: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises: HttpError."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise HttpError(400, "The body is not a JSON object.")
    return value


def parse_rows(body: bytes, find: FindPump) -> list[LiveRow]:
    """`{"rows": [row, ..]}` or one row `{"time": .., "pump": .., "<channel>": number or null, ..}`. Raises: HttpError."""
    value = parse_object(body)
    rows = value.get("rows") if set(value) == {"rows"} else [value]
    if not isinstance(rows, list) or not rows:
        raise HttpError(400, "rows is not a list with at least one row.")
    if len(rows) > MAX_ROWS:
        raise HttpError(413, f"Too many rows: at most {MAX_ROWS} in one request; for more use the spool.")
    return [_row(place, row, find) for place, row in enumerate(rows)]


def _row(place: int, row: Any, find: FindPump) -> LiveRow:
    if not isinstance(row, dict) or not isinstance(row.get("pump"), str):
        raise HttpError(400, f"Row {place} has no pump.")
    pump = find(row["pump"].lower())
    if pump is None:
        raise HttpError(404, f"No model scores pump {row['pump'][:40]} here.")
    values = np.full(len(pump.spec.channels), np.nan, np.float32)
    for name, value in row.items():
        if name in ("pump", "time"):
            continue
        if name not in pump.places:
            channels = ", ".join(pump.spec.channels)
            raise HttpError(400, f"Row {place} has an unknown channel {name[:40]}; {pump.entry.tag} has {channels}.")
        values[pump.places[name]] = _number(place, name, value)
    return LiveRow(pump.entry.tag.lower(), _time(place, row.get("time")), values)


def _number(place: int, name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 3.4e38:
        raise HttpError(400, f"Row {place}: {name} is not a number.")
    return float(value)


def _time(place: int, value: Any) -> int:
    if type(value) is int and 0 <= value < _LATEST_MS:
        return value
    if isinstance(value, str):
        try:
            return parse_ms(value)
        except FormatError:
            pass
    raise HttpError(400, f"Row {place}: time is neither milliseconds since 1970 nor RFC 3339 with offset.")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number here")
