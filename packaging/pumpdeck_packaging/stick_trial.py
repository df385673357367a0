"""A stick is tried before it leaves: is what it takes what it gives back, how fast is it, and what does its file system not take?

Everything that is written for that bears names of its own and is gone afterwards; after a cut the next trial removes it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pumpdeck_fleet.core.ids import is_reserved
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.room import check_room
from pumpdeck_packaging.bundle_index import FILE_MAX_BYTES, TRIAL_NAME
from pumpdeck_packaging.bundle_stick import REREADS_MEDIUM, Stick, StickFailedError, stick_errors

TRIAL_BYTES = 32 * 1024 * 1024
PIECE_BYTES = 8 * 1024 * 1024
ENOUGH_S = 20.0
"""A slow stick has told its speed by then; what is left of the trial is not waited for."""
_CASE_NAME = f"{TRIAL_NAME}case"
_BAD_SIGNS = frozenset('\\:*?"<>|')


@dataclass(frozen=True, slots=True)
class StickFigures:
    """What a trial found. Speeds are of bytes that were on the medium, not in a cache, where `is_past_cache`; else only writing
    is, for nothing here can read past the cache.
    """

    folder: str
    free_bytes: int
    tried_bytes: int
    write_bytes_per_s: float
    read_bytes_per_s: float
    is_past_cache: bool
    folds_case: bool

    def seconds_for(self, count_bytes: int) -> float:
        """How long so many bytes take, written and read back."""
        return count_bytes / self.write_bytes_per_s + count_bytes / self.read_bytes_per_s


def try_stick(
    stick: Stick, now_s: Callable[[], float], on_progress: Progress, *, amount_bytes: int = TRIAL_BYTES
) -> StickFigures:
    """Write into the stick's folder, which is there, read back from the medium, compare, measure, remove.

    Raises:
        StickFailedError: pulled, full, write-protected, or it gives back other bytes. RefusedError: it has no room for the trial.
    """
    with stick_errors(stick.folder):
        _clear(stick)
        check_room(stick.fs, stick.folder, amount_bytes + PIECE_BYTES, "has no room for the trial of a stick")
        free = stick.fs.free_bytes(stick.folder)
        try:
            folds = _folds_case(stick)
            written, write_s, read_s = _measure(stick, now_s, on_progress, amount_bytes)
        finally:
            _clear(stick)
    return StickFigures(
        folder=str(stick.folder),
        free_bytes=free,
        tried_bytes=written,
        write_bytes_per_s=written / write_s,
        read_bytes_per_s=written / read_s,
        is_past_cache=REREADS_MEDIUM,
        folds_case=folds,
    )


def name_traps(sizes: Iterable[tuple[str, int]], *, folds_case: bool = True, most_bytes: int = FILE_MAX_BYTES) -> tuple[str, ...]:
    """What FAT, exFAT or Windows would not take of files of these paths (`/` between parts) and lengths: a sentence for each."""
    listed = list(sizes)
    found = []
    for path, size in listed:
        for part in PurePosixPath(path).parts:
            if is_reserved(part):
                found.append(f"{path}: {part} is a name of Windows itself")
            elif part[-1] in " ." or any(ord(sign) < 32 or sign in _BAD_SIGNS for sign in part):
                found.append(f"{path}: {part!r} is no name there")
        if size > most_bytes:
            found.append(f"{path}: is over 4 GB, which FAT does not take")
    if folds_case:
        twins = Counter(path.casefold() for path, _ in listed)
        found += [f"{path}: another file has that name but for its case" for path, _ in listed if twins[path.casefold()] > 1]
    return tuple(found)


def _measure(stick: Stick, now_s: Callable[[], float], on_progress: Progress, amount: int) -> tuple[int, float, float]:
    """Bytes tried, seconds to write and sync them, seconds to read them again. At least one piece is tried."""
    start_s, written, write_s, read_s = now_s(), 0, 0.0, 0.0
    for number in range(-(-amount // PIECE_BYTES)):
        data = _noise(number, min(PIECE_BYTES, amount - written))
        path = stick.folder / f"{TRIAL_NAME}{number}"
        before_s = now_s()
        handle = stick.fs.open_write(path)
        try:
            handle.write(data)
            handle.fsync()
        finally:
            handle.close()
        between_s = now_s()
        if stick.reread(path, len(data)) != data:
            raise StickFailedError("the stick gives back other bytes than were written", str(path), hint="use another stick")
        after_s = now_s()
        write_s, read_s, written = write_s + between_s - before_s, read_s + after_s - between_s, written + len(data)
        on_progress("try the stick", written, amount)
        if after_s - start_s > ENOUGH_S:
            break
    # A clock with coarse steps may see no time go by.
    return written, max(write_s, 1e-6), max(read_s, 1e-6)


def _noise(number: int, count: int) -> bytes:
    """Bytes that no controller can shorten, the same at every trial."""
    return hashlib.shake_128(f"pumpdeck stick trial {number}".encode()).digest(count)


def _folds_case(stick: Stick) -> bool:
    handle = stick.fs.open_write(stick.folder / _CASE_NAME)
    try:
        handle.write(b"case")
        handle.fsync()
    finally:
        handle.close()
    return stick.fs.exists(stick.folder / _CASE_NAME.upper())


def _clear(stick: Stick) -> None:
    """Remove what a trial left, by its own names alone."""
    for name in stick.fs.listdir(stick.folder):
        if name.lower().startswith(TRIAL_NAME):
            stick.fs.unlink(stick.folder / name)
