"""Model versions, aliases and the packages built from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError
from pumpdeck_fleet.core.merging import OWN_NUMBERS, version_name
from pumpdeck_fleet.core.registry import Alias, ModelVersion
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.json_rows import from_text, to_text


class RegistryTable:
    """Immutable numbered versions of models, and the movable names in front of them."""

    def __init__(self, sql: Connection, clock: Clock, workspace: str) -> None:
        self._sql = sql
        self._clock = clock
        self._workspace = workspace

    def add(self, version: ModelVersion) -> int:
        """The version's number in this workspace: the next of its model, or the old one when its content is known.

        The number that `version` carries is not looked at.

        Raises:
            ConflictError: another model has this very content.
        """
        known = self.by_digest(version.content_digest)
        if known is not None:
            if known.model != version.model:
                raise ConflictError("this content belongs to another model", version.model, found=known.model)
            return known.number
        sql = "SELECT coalesce(max(number), 0) + 1 FROM model_version WHERE model = ? AND number < ?"
        row = self._sql.row(sql, (version.model, OWN_NUMBERS))
        assert row is not None
        number = int(row[0])
        body = to_text(dataclasses.replace(version, number=number))
        self._sql.write(
            "INSERT INTO model_version (model, number, content_digest, body) VALUES (?, ?, ?, ?)",
            (version.model, number, version.content_digest, body),
        )
        self._sql.write(
            "INSERT INTO version_name (content_digest, workspace, number) VALUES (?, ?, ?)",
            (version.content_digest, self._workspace, number),
        )
        return number

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises: NotFoundError."""
        row = self._sql.row("SELECT body FROM model_version WHERE model = ? AND number = ?", (model, number))
        if row is None:
            which = f"{model} {version_name(number)}"
            raise NotFoundError("no such model version", which, hint="list them with: pumpdeck models")
        return from_text(ModelVersion, row[0], f"{model} {number}")

    def by_digest(self, content_digest: str) -> ModelVersion | None:
        """The version with that content, whatever its number."""
        row = self._sql.row("SELECT body FROM model_version WHERE content_digest = ?", (content_digest,))
        return from_text(ModelVersion, row[0], content_digest[:12]) if row else None

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first; empty for an unknown model."""
        rows = self._sql.rows("SELECT body FROM model_version WHERE model = ? ORDER BY number", (model,))
        return [from_text(ModelVersion, row[0], model) for row in rows]

    def models(self) -> list[str]:
        """Names of all models that have a version, sorted."""
        return [row[0] for row in self._sql.rows("SELECT DISTINCT model FROM model_version ORDER BY model")]

    def set_alias(self, model: str, alias: Alias, number: int) -> None:
        """Point `alias` at a version.

        Raises:
            NotFoundError: no such version.
        """
        found = self.version(model, number)
        sql = "INSERT OR REPLACE INTO alias (model, alias, number) VALUES (?, ?, ?)"
        self._sql.write(sql, (model, alias.value, number))
        row = self._sql.row("SELECT max(at_ms) FROM alias_move WHERE model = ? AND alias = ?", (model, alias.value))
        # Later than every move known here, whatever the clock says: a person who moves an alias has seen where it stood.
        last_ms = int(row[0]) if row and row[0] is not None else -1
        self._sql.write(
            "INSERT INTO alias_move (model, alias, at_ms, workspace, content_digest) VALUES (?, ?, ?, ?, ?)",
            (model, alias.value, max(self._clock.now_ms(), last_ms + 1), self._workspace, found.content_digest),
        )

    def alias(self, model: str, alias: Alias) -> ModelVersion | None:
        """The version that an alias points at; `None` when it points nowhere."""
        row = self._sql.row("SELECT number FROM alias WHERE model = ? AND alias = ?", (model, alias.value))
        return self.version(model, row[0]) if row else None

    def own_moves(self) -> list[tuple[str, str, int, str, str]]:
        """Moves of aliases made in this workspace: (model, alias, at_ms, workspace, content digest)."""
        columns = "model, alias, at_ms, workspace, content_digest"
        sql = f"SELECT {columns} FROM alias_move WHERE workspace = ? ORDER BY at_ms, model, alias"
        return [(row[0], row[1], row[2], row[3], row[4]) for row in self._sql.rows(sql, (self._workspace,))]

    def aliases(self, model: str) -> dict[Alias, int]:
        """Number by alias."""
        rows = self._sql.rows("SELECT alias, number FROM alias WHERE model = ? ORDER BY alias", (model,))
        return {Alias(name): number for name, number in rows}


@dataclass(frozen=True, slots=True)
class PackagePump:
    """Which model version a package holds for one pump (its identity), and the pump's limit."""

    pump: str
    model: str
    number: int
    limit: float


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One package, built for one device; its bytes stand in the artifacts under `sha256`."""

    sha256: str
    device: str
    site: str
    bytes: int
    unpacked_bytes: int
    created_ms: int
    pumps: tuple[PackagePump, ...]

    @property
    def versions(self) -> dict[str, int]:
        """Number by model."""
        return {pump.model: pump.number for pump in self.pumps}


class PackageTable:
    """Packages that were built."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql

    def put(self, package: PackageRow) -> bool:
        """False when it is there already: a package's digest says everything that is in it."""
        sql = "INSERT INTO package (sha256, device, created_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT (sha256) DO NOTHING"
        if not self._sql.write(sql, (package.sha256, package.device, package.created_ms, to_text(package))):
            return False
        self._sql.write_many(
            "INSERT INTO package_pump (sha256, pump, model, number, score_limit) VALUES (?, ?, ?, ?, ?)",
            [(package.sha256, pump.pump, pump.model, pump.number, pump.limit) for pump in package.pumps],
        )
        return True

    def get(self, sha256: str) -> PackageRow | None:
        """The package of that digest."""
        row = self._sql.row("SELECT body FROM package WHERE sha256 = ?", (sha256,))
        return from_text(PackageRow, row[0], sha256[:12]) if row else None

    def for_device(self, device: str) -> list[PackageRow]:
        """All packages of a device, newest first."""
        sql = "SELECT body FROM package WHERE device = ? ORDER BY created_ms DESC, sha256"
        return [from_text(PackageRow, row[0], device) for row in self._sql.rows(sql, (device,))]
