"""The audit chain of a workspace and the names behind its pseudonyms."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from pumpdeck_fleet.core.audit import GENESIS, AuditBrokenError, AuditEntry, AuditHead, verify_chain
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import FormatError, NotFoundError
from pumpdeck_fleet.core.merging import ForkedError
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
        self._put_head(AuditHead(entry.chain, entry.position, digest))
        return entry

    def head(self, chain: str = "") -> AuditHead:
        """The end of a chain (this workspace's) as last written; position 0 when nothing was."""
        chain = chain or self._chain
        row = self._sql.row("SELECT position, digest FROM audit_head WHERE chain = ?", (chain,))
        return AuditHead(chain, *row) if row else AuditHead(chain, 0, GENESIS)

    def digest_at(self, position: int, chain: str = "") -> str | None:
        """The digest of the entry at that position, as stored; the genesis digest at 0, `None` behind the end."""
        if position == 0:
            return GENESIS
        sql = "SELECT digest FROM audit WHERE chain = ? AND position = ?"
        row = self._sql.row(sql, (chain or self._chain, position))
        return str(row[0]) if row else None

    def entries(self, after: int = 0, limit: int = 1000, chain: str = "") -> list[AuditEntry]:
        """Up to `limit` entries of a chain (this workspace's) behind position `after`, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE chain = ? AND position > ? ORDER BY position LIMIT ?"
        return [_entry(row) for row in self._sql.rows(sql, (chain or self._chain, after, limit))]

    def actors(self, action: str, digests: Mapping[str, str]) -> list[str]:
        """Who did that in this workspace with exactly these digests, or more of them, each once; in order of time."""
        sql = "SELECT actor, digests FROM audit WHERE chain = ? AND action = ? ORDER BY position"
        rows = [(str(actor), json.loads(text)) for actor, text in self._sql.rows(sql, (self._chain, action))]
        return list(dict.fromkeys(actor for actor, named in rows if digests.items() <= named.items()))

    def latest(self, limit: int = 100) -> list[AuditEntry]:
        """The last `limit` entries, newest first."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE chain = ? ORDER BY position DESC LIMIT ?"
        return [_entry(row) for row in self._sql.rows(sql, (self._chain, limit))]

    def chains(self) -> list[str]:
        """Every chain that stands here, this workspace's first: one for each workspace whose history was merged into this one."""
        rows = self._sql.rows("SELECT chain FROM audit_head UNION SELECT DISTINCT chain FROM audit ORDER BY chain")
        return [self._chain, *(row[0] for row in rows if row[0] != self._chain)]

    def verify(self) -> AuditHead:
        """Walk every chain from its first entry; the head of this workspace's.

        Raises:
            AuditBrokenError: names the first position of a chain that was altered, lost or added.
        """
        with self._sql.reading():
            heads = [self._verified(chain) for chain in self.chains()]
        return heads[0]

    def _verified(self, chain: str) -> AuditHead:
        found = verify_chain(self._stored(chain), chain)
        head = self.head(chain)
        if found != head:
            raise AuditBrokenError(
                "the chain does not end where it was left",
                f"audit entry {min(found.position, head.position) + 1} of {chain}",
                expected=f"{head.position} entries, last {head.digest[:12]}",
                found=f"{found.position} entries, last {found.digest[:12]}",
            )
        return head

    def _stored(self, chain: str) -> Iterator[tuple[AuditEntry, str]]:
        # The chain's name is under each digest: an entry moved to another chain is a gap here and broken there.
        for row in self._sql.each(f"SELECT {_COLUMNS} FROM audit WHERE chain = ? ORDER BY position", (chain,)):
            yield _entry(row), row[9]

    def take(self, other: AuditTable, upto: Mapping[str, int] | None = None) -> int:
        """Take in what `other` has of every chain beyond what stands here; how many entries tell of more than of syncs.

        Each is proven on the way. `upto` is the last position of each chain that may come in; None: all of it.

        Raises:
            ForkedError: one chain goes on in two ways: a workspace was copied and both copies were written to.
            AuditBrokenError: an entry does not follow the one before it.
        """
        self._sql.check_writing()
        return sum(self._take_chain(other, chain, None if upto is None else upto[chain]) for chain in sorted(other.chains()))

    def _take_chain(self, other: AuditTable, chain: str, upto: int | None) -> int:
        mine, theirs = self.head(chain), other.head(chain)
        common = min(mine.position, theirs.position)
        here, there = self.digest_at(common, chain), other.digest_at(common, chain)
        if here != there:
            raise ForkedError(
                "the audit chain goes on in two ways",
                f"audit entry {common} of {chain}",
                expected=here,
                found=there,
                hint="one of the two folders is a copy; give it a name of its own: pumpdeck backup, then restore",
            )
        if upto is not None and upto < theirs.position:
            digest = other.digest_at(upto, chain)
            theirs = AuditHead(chain, upto, digest or "")
        if theirs.position <= mine.position:
            return 0
        verify_chain(other._stored_after(mine, theirs.position), chain, mine)
        sql = f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._sql.write_many(sql, other.raw_after(mine, theirs.position))
        self._put_head(theirs)
        row = self._sql.row(
            "SELECT count(*) FROM audit WHERE chain = ? AND position > ? AND action NOT LIKE 'sync.%'", (chain, mine.position)
        )
        return int(row[0]) if row else 0

    def _stored_after(self, head: AuditHead, last: int) -> Iterator[tuple[AuditEntry, str]]:
        for row in self.raw_after(head, last):
            yield _entry(row), row[9]

    def raw_after(self, head: AuditHead, last: int) -> Iterator[Row]:
        """The rows of a chain behind that position up to `last`, as they stand."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE chain = ? AND position > ? AND position <= ? ORDER BY position"
        return self._sql.each(sql, (head.chain, head.position, last))

    def _put_head(self, head: AuditHead) -> None:
        self._sql.write(
            "INSERT INTO audit_head (chain, position, digest) VALUES (?, ?, ?)"
            " ON CONFLICT (chain) DO UPDATE SET position = excluded.position, digest = excluded.digest",
            (head.chain, head.position, head.digest),
        )


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

    def __init__(self, sql: Connection, new_hex: Callable[[int], str], workspace: str) -> None:
        self._sql = sql
        self._new_hex = new_hex
        self._workspace = workspace

    def actor_for(self, name: str) -> str:
        """The actor of that name, `actor-<12 hex>`; a new one when the name is new (that needs `atomic()`).

        The pseudonym is random, not derived: nobody finds the name again by trying names.
        """
        # The same name in another workspace is another actor: nobody here can tell whether it is the same person.
        sql = "SELECT actor FROM person WHERE name = ? AND workspace = ?"
        row = self._sql.row(sql, (name, self._workspace))
        if row:
            return str(row[0])
        actor = f"actor-{self._new_hex(6)}"
        sql = "INSERT INTO person (actor, name, workspace) VALUES (?, ?, ?)"
        self._sql.write(sql, (actor, name, self._workspace))
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
        # So that a copy made before cannot bring it back.
        self._sql.write("INSERT INTO person_erased (actor) VALUES (?) ON CONFLICT DO NOTHING", (actor,))
