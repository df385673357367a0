"""The outbox: what a device has to say, kept until the console acknowledged it, within bounds.

Drop policy of a full outbox: raw segments go first, oldest first, then scores, sketches, pinned segments (rows around an alarm),
retrain requests. Receipts and alarms are never dropped. The same goes on a disk that is full before the outbox is.

A file holds one JSON line (ReturnItem) and then the item's bytes; its name is `<order>-<kind>-<sha256>`, with `-pinned` behind it
where it is.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pumpdeck_agent.config import AgentLimits, Layout
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, PumpdeckError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import ReturnItem, ReturnKind

ITEM_MAX_BYTES = 4 * 1024 * 1024
COLLECT_MAX_ITEMS = 256
_LINE_MAX_BYTES = 1024
_KINDS = frozenset(kind.value for kind in ReturnKind)
_RANK = {kind: rank for rank, kind in enumerate(ReturnKind)}
_DROPPED_NAME = "dropped"
_PINNED = "-pinned"
# Of a pinned segment: after what says that something happened, before what describes ordinary days.
_PINNED_RANK = _RANK[ReturnKind.RETRAIN_REQUEST] + 0.5
_NEVER_DROPPED = (ReturnKind.RECEIPT, ReturnKind.AGENT_RECEIPT, ReturnKind.ALARM)
# Beside the item itself: the line in front of it. Where that is not enough, more is given up at the next try.
_ROOM_BYTES = 1024
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One thing to be put into the outbox."""

    kind: ReturnKind
    data: bytes
    pump: str = ""
    start_ms: int = 0
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """How full the outbox is; `dropped` counts what a full outbox had to give up since enrolment."""

    items: int
    bytes: int
    dropped: int


@dataclass(frozen=True, slots=True)
class _Entry:
    order: int
    kind: ReturnKind
    digest: str
    name: str

    @property
    def is_pinned(self) -> bool:
        """True when it holds rows around an alarm."""
        return self.name.endswith(_PINNED)

    @property
    def rank(self) -> float:
        """Its worth: the lowest is handed over first and dropped last."""
        return _PINNED_RANK if self.is_pinned else _RANK[self.kind]


class Outbox:
    """The outbox folder of one device."""

    def __init__(self, fs: FileSystem, layout: Layout, limits: AgentLimits) -> None:
        self._fs = fs
        self._folder = layout.outbox
        self._limits = limits

    def add(self, items: Sequence[Outgoing]) -> list[str]:
        """Put these in and return their digests once all of them are on the medium. What is there already stays once.

        A day's sketch grows until the day ends: a newer one takes the place of an older one that nobody has fetched.
        """
        if not items:
            return []
        entries = self._entries()
        here = {entry.digest for entry in entries}
        order = max((entry.order for entry in entries), default=0)
        digests: list[str] = []
        written = False
        for item in items:
            digest = canonical.digest(item.data)
            digests.append(digest)
            if digest in here:
                continue
            here.add(digest)
            order += 1
            written |= self._write_with_room(order, digest, item)
        if written:
            self._fs.fsync_dir(self._folder)
            self._supersede([item for item in items if item.kind is ReturnKind.SKETCH])
            if any(item.is_pinned for item in items):
                self._unpin_oldest()
            self._shrink()
        return digests

    def take(self, max_bytes: int, max_items: int = COLLECT_MAX_ITEMS) -> tuple[list[tuple[ReturnItem, bytes]], bool]:
        """The next items in the order they are handed over, and whether more wait behind them. Nothing is removed."""
        entries = sorted(self._entries(), key=lambda entry: (entry.rank, entry.order))
        taken: list[tuple[ReturnItem, bytes]] = []
        total = 0
        for place, entry in enumerate(entries):
            loaded = self._load(entry)
            if loaded is None:
                continue
            if taken and (total + len(loaded[1]) > max_bytes or len(taken) >= max_items):
                return taken, place < len(entries)
            taken.append(loaded)
            total += len(loaded[1])
        return taken, False

    def each(self, max_bytes: int, max_items: int, around_bytes: int = 0) -> Iterator[tuple[ReturnItem, bytes]]:
        """What `take` gives, one item in memory at a time. `around_bytes`: what each item needs beside its own bytes."""
        total = count = 0
        for entry in sorted(self._entries(), key=lambda entry: (entry.rank, entry.order)):
            loaded = self._load(entry)
            if loaded is None:
                continue
            total += len(loaded[1]) + around_bytes
            count += 1
            if count > max_items or (count > 1 and total > max_bytes):
                return
            yield loaded

    def pin(self, pump: str, from_ms: int) -> int:
        """Pin the pump's segments that hold rows from `from_ms` on, and are here already. Returns how many became so."""
        pinned = 0
        for entry in sorted(self._entries(), key=lambda entry: -entry.order):
            loaded = self._load(entry) if entry.kind is ReturnKind.SEGMENT else None
            if loaded is None or loaded[0].pump != pump:
                continue
            if not entry.is_pinned:
                self._fs.rename(self._folder / entry.name, self._folder / (entry.name + _PINNED))
                pinned += 1
            if loaded[0].start_ms <= from_ms:
                break
        if pinned:
            self._fs.fsync_dir(self._folder)
            self._unpin_oldest()
        return pinned

    def remove(self, digests: Collection[str]) -> int:
        """Take these out; those that are not there are passed over. Returns how many were removed."""
        wanted = {check_digest(digest, "outbox item") for digest in digests}
        found = [entry for entry in self._entries() if entry.digest in wanted]
        for entry in found:
            self._fs.unlink(self._folder / entry.name)
        return len(found)

    def make_room(self, wanted_bytes: int, rank: float = 0.0) -> int:
        """On a full disk: give up items of that worth or less, the least and oldest first, until so much is free. How many went.

        Receipts and alarms stay.
        """
        freed = dropped = 0
        for entry in self._droppable(self._entries()):
            if freed >= wanted_bytes + _ROOM_BYTES or entry.rank < rank:
                break
            freed += self._size(entry)
            self._fs.unlink(self._folder / entry.name)
            dropped += 1
        if dropped:
            # The figure itself needs room; a wrong one is better than no room.
            with contextlib.suppress(OSError):
                self._count_dropped(dropped)
        return dropped

    def tidy(self) -> None:
        """Remove what a cut left half-written. Only where nobody else can be writing."""
        for name in self._fs.listdir(self._folder):
            if name.endswith(".part"):
                self._fs.unlink(self._folder / name)

    def has_any(self, digests: Collection[str]) -> bool:
        """True when at least one of these waits here."""
        return bool(digests) and any(entry.digest in digests for entry in self._entries())

    def counts(self) -> OutboxCounts:
        """How full it is."""
        entries = self._entries()
        sizes = sum(self._size(entry) for entry in entries)
        return OutboxCounts(len(entries), sizes, self._dropped())

    def _supersede(self, sketches: Sequence[Outgoing]) -> None:
        if not sketches:
            return
        newest = {(item.pump, item.start_ms, _edges(item.data)): canonical.digest(item.data) for item in sketches}
        stale = []
        for entry in self._entries():
            found = self._load(entry) if entry.kind is ReturnKind.SKETCH else None
            if found is not None:
                fresh = newest.get((found[0].pump, found[0].start_ms, _edges(found[1])), entry.digest)
                stale += [entry.digest] if fresh != entry.digest else []
        self.remove(stale)

    def _write(self, order: int, digest: str, item: Outgoing) -> None:
        line = canonical.encode(ReturnItem(item.kind, digest, len(item.data), item.pump, item.start_ms))
        name = f"{order:012d}-{item.kind.value}-{digest}{_PINNED if item.is_pinned else ''}"
        part = self._folder / f"{name}.part"
        try:
            handle = self._fs.open_write(part)
            try:
                handle.write(line + b"\n" + item.data)
                handle.fsync()
            finally:
                handle.close()
        except OSError:
            # On a full disk half an item would only be in the way.
            with contextlib.suppress(OSError):
                self._fs.unlink(part)
            raise
        self._fs.rename(part, self._folder / name)

    def _write_with_room(self, order: int, digest: str, item: Outgoing) -> bool:
        """On a full disk what is worth no more gives way; an item for which nothing can is given up itself, an alarm never."""
        try:
            with_room(partial(self._write, order, digest, item), partial(self.make_room, len(item.data), _rank_of(item)))
        except OSError as error:
            if error.errno not in _FULL or item.kind in _NEVER_DROPPED:
                raise
            with contextlib.suppress(OSError):
                self._count_dropped(1)
            return False
        return True

    def _entries(self) -> list[_Entry]:
        entries = []
        for name in self._fs.listdir(self._folder):
            order, _, rest = name.partition("-")
            kind, _, digest = rest.removesuffix(_PINNED).partition("-")
            if order.isdigit() and len(digest) == 64 and kind in _KINDS:
                entries.append(_Entry(int(order), ReturnKind(kind), digest, name))
        return entries

    def _load(self, entry: _Entry) -> tuple[ReturnItem, bytes] | None:
        """Item and bytes; None, and the file is gone, when the disk damaged it."""
        path = self._folder / entry.name
        try:
            line, _, data = self._fs.read_bytes(path, ITEM_MAX_BYTES + _LINE_MAX_BYTES).partition(b"\n")
            item = canonical.decode(ReturnItem, line, entry.name, max_bytes=_LINE_MAX_BYTES)
            if item.kind is not entry.kind or item.digest != entry.digest or item.bytes != len(data):
                raise FormatError("is not the item of its name", entry.name)
            if canonical.digest(data) != entry.digest:
                raise DigestMismatchError("is damaged", entry.name)
        except FileNotFoundError:
            return None
        except (OSError, PumpdeckError):
            self._fs.unlink(path)
            self._count_dropped(1)
            return None
        return item, data

    def _size(self, entry: _Entry) -> int:
        try:
            return self._fs.size(self._folder / entry.name)
        except OSError:
            return 0

    def _shrink(self) -> None:
        entries = self._entries()
        sizes = {entry.name: self._size(entry) for entry in entries}
        total, count = sum(sizes.values()), len(entries)
        dropped = 0
        for entry in self._droppable(entries):
            if total <= self._limits.outbox_max_bytes and count <= self._limits.outbox_max_items:
                break
            self._fs.unlink(self._folder / entry.name)
            total, count, dropped = total - sizes[entry.name], count - 1, dropped + 1
        if dropped:
            self._count_dropped(dropped)

    def _droppable(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """What may go, in the order in which it goes."""
        found = [entry for entry in entries if entry.kind not in _NEVER_DROPPED]
        return sorted(found, key=lambda entry: (-entry.rank, entry.order))

    def _unpin_oldest(self) -> None:
        """Keep what is pinned within its quota: the oldest are ordinary segments again."""
        left = self._limits.capture_max_bytes
        for entry in sorted(self._entries(), key=lambda entry: -entry.order):
            if entry.is_pinned:
                left -= self._size(entry)
                if left < 0:
                    self._fs.rename(self._folder / entry.name, self._folder / entry.name.removesuffix(_PINNED))

    def _dropped(self) -> int:
        try:
            return int(self._fs.read_bytes(self._folder / _DROPPED_NAME, 32))
        except (OSError, ValueError, PumpdeckError):
            return 0

    def _count_dropped(self, more: int) -> None:
        replace_file(self._fs, self._folder / _DROPPED_NAME, str(self._dropped() + more).encode("ascii"))


def with_room(work: Callable[[], Result], make_room: Callable[[], int]) -> Result:
    """Do the work; while the disk is full and `make_room` finds something to give up, do it again. Raises: OSError."""
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in _FULL or not make_room():
                raise


def _rank_of(item: Outgoing) -> float:
    return _PINNED_RANK if item.is_pinned else _RANK[item.kind]


def _edges(sketch: bytes) -> bytes:
    """Magic and digest of the edge set a sketch stands on: sketches on different ones tell different things."""
    return sketch[:12]
