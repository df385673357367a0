"""Signed statements of people, and signed heads of audit chains: what a workspace can show to others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.statements import Kind, Statement, claim_of
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.json_rows import from_text, to_text


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A statement as it stands; `digest` is that of the envelope."""

    digest: str
    statement: Statement
    envelope: bytes


@dataclass(frozen=True, slots=True)
class SealRow:
    """A signed head: up to `position` the chain was what the envelope says."""

    chain: str
    position: int
    envelope: bytes


class StatementTable:
    """Statements are added, never changed. What stands here was signed here or verified when it came in."""

    def __init__(self, sql: Connection, workspace: str) -> None:
        self._sql = sql
        self._workspace = workspace

    def next_seq(self) -> int:
        """The number of this workspace's next statement."""
        row = self._sql.row("SELECT coalesce(max(seq), 0) + 1 FROM statement WHERE workspace = ?", (self._workspace,))
        return int(row[0]) if row else 1

    def add(self, statement: Statement, envelope: bytes) -> bool:
        """Keep a statement; false when it is known."""
        kind, subject, _ = statement.claim
        values = (canonical.digest(envelope), kind, subject, statement.workspace, statement.seq, to_text(statement), envelope)
        return bool(
            self._sql.write(
                "INSERT INTO statement (digest, kind, subject, workspace, seq, body, envelope) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO NOTHING",
                values,
            )
        )

    def of(self, kind: Kind, subject: str = "") -> list[StatementRow]:
        """Statements of that kind, of one subject when given."""
        # Two questions, not one with OR: asked once a device, that would read every statement each time.
        narrowed, values = (" AND subject = ?", (kind.value, subject)) if subject else ("", (kind.value,))
        sql = f"SELECT digest, body, envelope FROM statement WHERE kind = ?{narrowed} ORDER BY digest"
        return [
            StatementRow(digest, from_text(Statement, body, f"statement {digest[:12]}"), envelope)
            for digest, body, envelope in self._sql.each(sql, values)
        ]

    def all(self) -> Iterator[StatementRow]:
        """Every statement, in order of its digest."""
        for digest, body, envelope in self._sql.each("SELECT digest, body, envelope FROM statement ORDER BY digest"):
            yield StatementRow(digest, from_text(Statement, body, f"statement {digest[:12]}"), envelope)

    def claims(self) -> set[tuple[str, str, str]]:
        """What all of them say, whoever says it."""
        return {row.statement.claim for row in self.all()}

    def has_claim(self, kind: Kind, subject: str, about: dict[str, str]) -> bool:
        """True when somebody has signed exactly this."""
        wanted = claim_of(kind, subject, about)
        return any(row.statement.claim == wanted for row in self.of(kind, subject))

    def put_seal(self, row: SealRow) -> bool:
        """Keep a signed head; false when it is known."""
        return bool(
            self._sql.write(
                "INSERT INTO audit_seal (chain, position, digest, envelope) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (row.chain, row.position, canonical.digest(row.envelope), row.envelope),
            )
        )

    def seals(self, chain: str = "") -> list[SealRow]:
        """Signed heads, the furthest first; of one chain when given."""
        sql = "SELECT chain, position, envelope FROM audit_seal WHERE ? = '' OR chain = ? ORDER BY position DESC, digest"
        return [SealRow(*row) for row in self._sql.rows(sql, (chain, chain))]

    def sealed(self, chain: str) -> int:
        """The furthest position of the chain under a signed head; 0 when there is none."""
        row = self._sql.row("SELECT max(position) FROM audit_seal WHERE chain = ?", (chain,))
        return int(row[0] or 0) if row else 0
