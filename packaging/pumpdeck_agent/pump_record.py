"""What a pump's scoring carries from row to row, in one file that is replaced whole: so a row counts once or not at all.

Window, alarm state, the day's sketch, rows and scores that are not in the outbox yet, and the status' figures move together.
The figures stand in a JSON line of their own: reading them needs no numpy.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

RECORD_FORMAT = 1
RECORD_MAX_BYTES = 96 * 1024 * 1024
_HEAD_MAX_BYTES = 64 * 1024
_MAGIC = b"PDP1 "
BLOBS = ("window", "alarm", "rows", "scores", "sketch")


class ProcessState(enum.StrEnum):
    """What the newest rows say of the process; only a steady or stopped pump may see a trial."""

    UNKNOWN = "unknown"
    STEADY = "steady"
    STOPPED = "stopped"
    CHANGING = "changing"
    TRIPPED = "tripped"


@dataclass(frozen=True, slots=True)
class PumpFigures:
    """The figures of one pump. `last_file`: digest of the last spool file whose rows are in here.

    `open_start_ms`: time of the first row that is not in the outbox yet. `pin_*_ms`: rows in between are pinned.
    `tripped_ms`: when the pump came to a sudden stop after which it has not run; None when it did not.
    """

    format: int
    tag: str
    package_sha256: str
    scored_rows: int = 0
    late_rows: int = 0
    last_row_ms: int | None = None
    score: float | None = None
    alarmed: bool = False
    drift_index: float = 0.0
    process: ProcessState = ProcessState.UNKNOWN
    last_file: str = ""
    open_start_ms: int | None = None
    sketch_day_ms: int | None = None
    is_sketch_sent: bool = False
    pin_from_ms: int | None = None
    pin_to_ms: int | None = None
    tripped_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PumpRecord:
    """Figures and the bytes of everything else, by the names in BLOBS; an empty one is absent."""

    figures: PumpFigures
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Head:
    figures: PumpFigures
    bytes: Mapping[str, int]


def encode_record(record: PumpRecord) -> bytes:
    """Magic and digest on the first line, then the head as one JSON line, then the blobs in the order of BLOBS."""
    head = _Head(record.figures, {name: len(record.blobs.get(name, b"")) for name in BLOBS})
    body = canonical.encode(head) + b"\n" + b"".join(record.blobs.get(name, b"") for name in BLOBS)
    return _MAGIC + canonical.digest(body).encode("ascii") + b"\n" + body


def decode_record(data: bytes, what: str) -> PumpRecord:
    """Raises: FormatError, DigestMismatchError: cut, altered, or not such a record."""
    first, _, body = data.partition(b"\n")
    if not first.startswith(_MAGIC):
        raise FormatError("is not a pump record", what, expected=_MAGIC.decode().strip())
    if canonical.digest(body).encode("ascii") != first[len(_MAGIC) :]:
        raise DigestMismatchError("is cut or altered", what)
    raw, _, rest = body.partition(b"\n")
    head = canonical.decode(_Head, raw, what, max_bytes=_HEAD_MAX_BYTES)
    if head.figures.format != RECORD_FORMAT or set(head.bytes) != set(BLOBS) or sum(head.bytes.values()) != len(rest):
        raise FormatError("has an unknown format or length", what, expected=RECORD_FORMAT, found=head.figures.format)
    blobs, at = {}, 0
    for name in BLOBS:
        blobs[name] = rest[at : at + head.bytes[name]]
        at += head.bytes[name]
    return PumpRecord(head.figures, blobs)


def read_record(fs: FileSystem, path: Path) -> tuple[PumpRecord, str] | None:
    """The record and the digest of its file; None when there is none, or the disk damaged it."""
    try:
        data = fs.read_bytes(path, RECORD_MAX_BYTES)
        return decode_record(data, path.name), canonical.digest(data)
    except (OSError, PumpdeckError):
        return None


def write_record(fs: FileSystem, path: Path, record: PumpRecord) -> str:
    """Replace the record; returns the digest of its file once it is on the medium."""
    data = encode_record(record)
    replace_file(fs, path, data)
    return canonical.digest(data)
