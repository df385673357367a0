"""The journal: hash-chained lines, one for every receipt and every downgrade word that is used up.

It is the last resort when both state copies are lost.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from pathlib import Path

from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import FileSystem

JOURNAL_MAX_BYTES = 16 * 1024 * 1024
_LINE_MAX_BYTES = 4096
_START = "0" * 64


class JournalKind(enum.StrEnum):
    """What a line records."""

    COMMIT = "commit"
    ROLL_BACK = "roll_back"
    FALL_BACK = "fall_back"
    ANSWER = "answer"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """`before` is the digest of the line before this one (64 zeros for the first).

    `newest_release` is the state's, `token` and `until_seq` are those of a downgrade word that is used up from here on.
    """

    at_ms: int
    kind: JournalKind
    active: str
    active_manifest: str
    package_sha256: str
    seq: int
    counter: int
    reason: str
    before: str = ""
    newest_release: int | None = None
    token: str | None = None
    until_seq: int | None = None


class Journal:
    """Reads and extends one device's journal."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._fs = fs
        self._path = path

    def lines(self) -> tuple[JournalLine, ...]:
        """The lines whose chain holds, from the first on. A cut last line and all behind a broken link are left out."""
        return self._read()[0]

    def add(self, line: JournalLine) -> None:
        """Append one line behind the last sound one and sync it; `before` is set here."""
        lines, end, last = self._read()
        data = seal(canonical.encode(replace(line, reason=line.reason[:500], before=last))).replace(b"\n", b" ", 1)
        handle = self._fs.open_write(self._path, truncate=False)
        try:
            handle.seek(end)
            # Blanks cover what a cut line may have left behind; the reader stops at them.
            handle.write(data + b"\n" + self._blanks(end + len(data) + 1))
            handle.fsync()
        finally:
            handle.close()
        if not lines:
            self._fs.fsync_dir(self._path.parent)

    def _blanks(self, end: int) -> bytes:
        over = self._fs.size(self._path) - end if self._fs.exists(self._path) else 0
        return b"\n" * max(over, 0)

    def _read(self) -> tuple[tuple[JournalLine, ...], int, str]:
        """Sound lines, the offset behind the last of them, and its digest."""
        try:
            data = self._fs.read_bytes(self._path, JOURNAL_MAX_BYTES)
        except (OSError, PumpdeckError):
            # Unreadable is the same as gone: the caller then runs nothing rather than guess.
            return (), 0, _START
        lines: list[JournalLine] = []
        end, last = 0, _START
        while (stop := data.find(b"\n", end)) >= 0:
            raw = data[end:stop]
            try:
                line = canonical.decode(JournalLine, _body(raw), "journal", max_bytes=_LINE_MAX_BYTES)
            except PumpdeckError:
                break
            if line.before != last:
                break
            lines.append(line)
            end, last = stop + 1, canonical.digest(raw)
        return tuple(lines), end, last


def _body(raw: bytes) -> bytes:
    # The chain tells of every line but the last; its own digest tells of that one too. Early journals had bare lines.
    return raw if raw.startswith(b"{") else unseal(raw.replace(b" ", b"\n", 1), "journal")
