"""Rows to be scored: files in `spool/in`, CSV, JSON lines or binary segments, taken in order of name (docs/formats.md)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_agent.spool_binary import decode_segment
from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import FormatError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.numeric.frame import TelemetryFrame

SUFFIXES = (".csv", ".jsonl", ".pdc")
MAX_CHANNELS = 64
_KEPT_REFUSED = 16
_LINE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file: frames by tag in lower case, and the rows that could not be read."""

    name: str
    digest: str
    frames: Mapping[str, TelemetryFrame]
    refused_rows: int


class Spool:
    """The spool folder of one device."""

    def __init__(self, fs: FileSystem, layout: Layout, limits: AgentLimits) -> None:
        self._fs = fs
        self._layout = layout
        self._limits = limits

    def names(self) -> list[str]:
        """Files that are waiting, in the order in which they are taken."""
        return [name for name in self._fs.listdir(self._layout.spool_in) if name.endswith(SUFFIXES)]

    def read(self, name: str) -> SpoolFile:
        """The rows of one file.

        Raises:
            FormatError, TooLargeError: it is not a spool file at all.
            FileNotFoundError: it is gone.
        """
        data = self._fs.read_bytes(self._layout.spool_in / name, self._limits.spool_file_max_bytes)
        return parse_spool(name, data)

    def done(self, name: str) -> None:
        """Remove a file whose rows are scored and saved."""
        self._fs.unlink(self._layout.spool_in / name)
        # Not synced, several removed files could come back after a cut; one is recognised, several would not be.
        self._fs.fsync_dir(self._layout.spool_in)

    def refuse(self, name: str) -> None:
        """Put aside a file that cannot be read; the newest few are kept for people."""
        self._fs.rename(self._layout.spool_in / name, self._layout.spool_refused / name)
        self._fs.fsync_dir(self._layout.spool_refused)
        self._keep_few()

    def put(self, name: str, data: bytes) -> None:
        """A file to be scored, whole and on the medium when this returns. Raises: OSError."""
        path = self._layout.spool_in / name
        try:
            replace_file(self._fs, path, data)
        except OSError:
            with contextlib.suppress(OSError):
                self._fs.unlink(path.with_name(path.name + ".part"))
            raise

    def keep_apart(self, name: str, data: bytes) -> None:
        """Something that could not be read and was no file yet, for people. Raises: OSError."""
        replace_file(self._fs, self._layout.spool_refused / name, data)
        self._keep_few()

    def _keep_few(self) -> None:
        kept = self._fs.listdir(self._layout.spool_refused)
        for old in kept[: max(0, len(kept) - _KEPT_REFUSED)]:
            self._fs.unlink(self._layout.spool_refused / old)

    def shrink(self) -> int:
        """While nothing scores, the oldest files go when the folder is over its limit. Returns how many went."""
        names = self.names()
        sizes = {name: self._fs.size(self._layout.spool_in / name) for name in names}
        total, gone = sum(sizes.values()), 0
        for name in names:
            if total <= self._limits.spool_max_bytes:
                break
            self._fs.unlink(self._layout.spool_in / name)
            total, gone = total - sizes[name], gone + 1
        return gone


@dataclass
class _Rows:
    """Rows of one pump as they come, possibly out of order."""

    at_ms: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)


def parse_spool(name: str, data: bytes) -> SpoolFile:
    """Frames of the pumps in a spool file.

    A row that cannot be read is counted, not guessed; a second row of one pump and time is dropped; channels without any value
    for a pump are left out of its frame.

    Raises:
        FormatError: not UTF-8, no header, or no such kind of file.
        TooLargeError: a binary segment that would take too much memory.
    """
    if name.endswith(".pdc"):
        tag, frame = decode_segment(name, data)
        if len(frame.channels) > MAX_CHANNELS:
            raise FormatError("has too many channels", name, expected=MAX_CHANNELS, found=len(frame.channels))
        return SpoolFile(name, digest_of(data), {tag.lower(): frame}, 0)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("is not UTF-8", name) from error
    if name.endswith(".csv"):
        channels, rows, refused = _read_csv(name, text)
    elif name.endswith(".jsonl"):
        channels, rows, refused = _read_jsonl(text)
    else:
        raise FormatError("is not a spool file", name, expected=" or ".join(SUFFIXES))
    frames = {tag: _frame(channels, found) for tag, found in rows.items()}
    return SpoolFile(name, digest_of(data), frames, refused)


def _read_csv(name: str, text: str) -> tuple[tuple[str, ...], dict[str, _Rows], int]:
    lines = _csv_lines(text)
    header = next(lines, None) or []
    channels = tuple(header[2:])
    if header[:2] != ["time", "pump"] or not channels or len(set(channels)) != len(channels):
        raise FormatError("has a wrong header", name, expected="time,pump,<channel>,..", found=",".join(header)[:80])
    if len(channels) > MAX_CHANNELS:
        raise FormatError("has too many channels", name, expected=MAX_CHANNELS, found=len(channels))
    rows: dict[str, _Rows] = {}
    times: dict[str, int] = {}
    refused = 0
    for fields in lines:
        if fields is None:
            refused += 1
            continue
        if not fields:
            continue
        try:
            values = [_number(text) for text in fields[2:]]
            if len(values) != len(channels):
                raise ValueError("wrong number of fields")
            at_ms = times[fields[0]] if fields[0] in times else times.setdefault(fields[0], _time(fields[0]))
        except (ValueError, IndexError, PumpdeckError):
            refused += 1
            continue
        found = rows.setdefault(fields[1].lower(), _Rows())
        found.at_ms.append(at_ms)
        found.values.append(values)
    return channels, rows, refused


def _csv_lines(text: str) -> Iterator[list[str] | None]:
    """The fields of each line; None for one that is no CSV, such as a field without end. Any line end is one."""
    reader = csv.reader(io.StringIO(text, newline=""))
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None


def _read_jsonl(text: str) -> tuple[tuple[str, ...], dict[str, _Rows], int]:
    parsed: list[tuple[str, int, dict[str, float]]] = []
    place: dict[str, int] = {}
    refused = 0
    for line in _lines(text):
        row = _json_row(line)
        if row is None or len(place.keys() | row[2].keys()) > MAX_CHANNELS:
            refused += 1
            continue
        for channel in row[2]:
            place.setdefault(channel, len(place))
        parsed.append(row)
    rows: dict[str, _Rows] = {}
    for tag, at_ms, values in parsed:
        found = rows.setdefault(tag.lower(), _Rows())
        found.at_ms.append(at_ms)
        found.values.append([values.get(channel, math.nan) for channel in place])
    return tuple(place), rows, refused


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.split("\n") if line.strip())


def _json_row(line: str) -> tuple[str, int, dict[str, float]] | None:
    """Tag, time and values of one JSON line `{time, pump, <channel>: number | null, ..}`; None when it is not one."""
    try:
        if len(line) > _LINE_MAX:
            return None
        row = json.loads(line)
        time, tag = row.pop("time"), row.pop("pump")
        at_ms = time if type(time) is int else _time(time)
        values = {str(name): math.nan if value is None else float(value) for name, value in row.items()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OverflowError, PumpdeckError):
        return None
    return (tag, at_ms, values) if isinstance(tag, str) and abs(at_ms) < 1 << 53 else None


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _time(text: str) -> int:
    if text.isdigit() and len(text) < 16:
        return int(text)
    return parse_ms(text)


def _frame(channels: tuple[str, ...], rows: _Rows) -> TelemetryFrame:
    at_ms = np.array(rows.at_ms, np.int64)
    with np.errstate(over="ignore"):
        values = np.array(rows.values, np.float64).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    at_ms, first = np.unique(at_ms, return_index=True)
    values = values[first]
    used = np.flatnonzero(~np.isnan(values).all(axis=0))
    names = tuple(channels[place] for place in used.tolist())
    return TelemetryFrame(names, at_ms, np.ascontiguousarray(values[:, used]), np.zeros(len(at_ms), np.uint16))
