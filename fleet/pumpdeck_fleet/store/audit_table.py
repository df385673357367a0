"""The audit chain of a workspace and the names behind its pseudonyms."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from pumpdeck_fleet.core.audit import GENESIS, AuditBrokenError, AuditEntry, AuditHead, verify_chain
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import FormatError, NotFoundError
from pumpdeck_fleet.store.connection import Connection, Row
from pumpdeck_fleet.store.json_rows import to_text

_COLUMNS = "chain, position, previous, at_ms, actor, action, subject, reason, digests, digest"


class AuditTable:
    """Entries are added, never changed. Add one in the same transaction as the change that it records."""

    def __init__(self, sql: Connection, clock: Clock, chain: str) -> None:
        self._sql = sql
        self._clock = clock
        self._chain = chain

    def append(
        self, actor: str, action: str, subject: str, reason: str = "", digests: Mapping[str, str] | None = None
    ) -> AuditEntry:
        """The new last entry of this workspace's chain.

        Raises:
            OutsideTransactionError: no `atomic()` is open.
        """
        self._sql.check_writing()
        head = self.head()
        entry = AuditEntry(
            chain=self._chain,
            position=head.position + 1,
            previous=head.digest,
            at_ms=self._clock.now_ms(),
            actor=actor,
            action=action,
            subject=subject,
            reason=reason,
            digests=dict(digests or {}),
        )
        digest = entry.digest
        values = (entry.chain, entry.position, entry.previous, entry.at_ms, actor, action, subject, reason)
        self._sql.write(
            f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, to_text(entry.digests), digest),
        )
        self._sql.write(
            "INSERT INTO audit_head (chain, position, digest) VALUES (?, ?, ?)"
            " ON CONFLICT (chain) DO UPDATE SET position = excluded.position, digest = excluded.digest",
            (entry.chain, entry.position, digest),
        )
        return entry

    def head(self) -> AuditHead:
        """The end of the chain as last written; position 0 when nothing was."""
        row = self._sql.row("SELECT position, digest FROM audit_head WHERE chain = ?", (self._chain,))
        return AuditHead(self._chain, *row) if row else AuditHead(self._chain, 0, GENESIS)

    def digest_at(self, position: int) -> str | None:
        """The digest of the entry at that position, as stored; the genesis digest at 0, `None` behind the end."""
        if position == 0:
            return GENESIS
        row = self._sql.row("SELECT digest FROM audit WHERE chain = ? AND position = ?", (self._chain, position))
        return str(row[0]) if row else None

    def entries(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        """Up to `limit` entries behind position `after`, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE chain = ? AND position > ? ORDER BY position LIMIT ?"
        return [_entry(row) for row in self._sql.rows(sql, (self._chain, after, limit))]

    def latest(self, limit: int = 100) -> list[AuditEntry]:
        """The last `limit` entries, newest first."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE chain = ? ORDER BY position DESC LIMIT ?"
        return [_entry(row) for row in self._sql.rows(sql, (self._chain, limit))]

    def verify(self) -> AuditHead:
        """Walk the whole chain; its head.

        Raises:
            AuditBrokenError: names the first position that was altered, lost or added.
        """
        with self._sql.reading():
            found = verify_chain(self._stored(), self._chain)
            head = self.head()
        if found != head:
            raise AuditBrokenError(
                "the chain does not end where it was left",
                f"audit entry {min(found.position, head.position) + 1} of {self._chain}",
                expected=f"{head.position} entries, last {head.digest[:12]}",
                found=f"{found.position} entries, last {found.digest[:12]}",
            )
        return head

    def _stored(self) -> Iterator[tuple[AuditEntry, str]]:
        # All chains in the table: an entry that was moved to another chain is a gap here and a stranger there.
        for row in self._sql.each(f"SELECT {_COLUMNS} FROM audit ORDER BY chain = ? DESC, position", (self._chain,)):
            yield _entry(row), row[9]


def _entry(row: Row) -> AuditEntry:
    chain, position, previous, at_ms, actor, action, subject, reason, digests, _ = row
    where = f"audit entry {position} of {chain}"
    try:
        named = json.loads(digests)
        if not isinstance(named, dict):
            raise FormatError("is not an object", where)
        return AuditEntry(chain, position, previous, at_ms, actor, action, subject, reason, named)
    except (ValueError, TypeError, FormatError) as error:
        raise AuditBrokenError("was altered", where, found=f"digests that cannot be read ({error})") from error


class PersonTable:
    """Names behind actors. Erasing a name leaves the chain whole and the actor without a name."""

    def __init__(self, sql: Connection, new_hex: Callable[[int], str]) -> None:
        self._sql = sql
        self._new_hex = new_hex

    def actor_for(self, name: str) -> str:
        """The actor of that name, `actor-<12 hex>`; a new one when the name is new (that needs `atomic()`).

        The pseudonym is random, not derived: nobody finds the name again by trying names.
        """
        row = self._sql.row("SELECT actor FROM person WHERE name = ?", (name,))
        if row:
            return str(row[0])
        actor = f"actor-{self._new_hex(6)}"
        self._sql.write("INSERT INTO person (actor, name) VALUES (?, ?)", (actor, name))
        return actor

    def name_of(self, actor: str) -> str:
        """The name, or the actor itself where the name was erased or never known."""
        row = self._sql.row("SELECT name FROM person WHERE actor = ?", (actor,))
        return str(row[0]) if row else actor

    def names(self) -> dict[str, str]:
        """Name by actor."""
        return dict(self._sql.rows("SELECT actor, name FROM person"))

    def erase(self, actor: str) -> None:
        """Forget the name.

        Raises:
            NotFoundError: no name is known for that actor.
        """
        if not self._sql.write("DELETE FROM person WHERE actor = ?", (actor,)):
            raise NotFoundError("no name is known", actor)
