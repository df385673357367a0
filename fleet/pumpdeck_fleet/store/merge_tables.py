"""The tables that merging knows, as rows under the identity of `core/merging.py`: read from one store, written into another.

A row here means the same in every workspace: model versions go by content digest, never by number. What is derived (roll-ups,
live tasks, the newest figures of a pump) is not read; `merge.py` makes it anew.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_fleet.core.merging import Key, Row, local_number
from pumpdeck_fleet.store.connection import Connection

SKETCH_HEAD_BYTES = 12
"""`PDS1` and the digest of the edges; what follows is one zlib stream that begins with the number of rows."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a store is meant; None is all. `since_ms` bounds what is measured: rows, scores, sketches, alarms, drift."""

    pumps: frozenset[str] | None = None
    devices: frozenset[str] | None = None
    since_ms: int = 0

    def holds(self, columns: tuple[str, ...], key: Key) -> bool:
        """True when a row with that key belongs to the part."""
        for column, value in zip(columns, key, strict=True):
            if column == "pump" and self.pumps is not None and value not in self.pumps:
                return False
            if column == "device" and self.devices is not None and value not in self.devices:
                return False
            if column in ("at_ms", "day_ms") and value < self.since_ms:
                return False
        return True


ALL = Scope()
ALL_DEVICES: frozenset[str] = frozenset(("*",))
"""Of a row that belongs to every part."""


@dataclass(frozen=True, slots=True)
class Side:
    """One store as merging sees it: its connection, its id, and its version numbers both ways."""

    sql: Connection
    workspace: str
    digests: dict[tuple[str, int], str] = field(default_factory=dict)

    def know_versions(self) -> None:
        """Read which number is which content."""
        self.digests.clear()
        rows = self.sql.rows("SELECT model, number, content_digest FROM model_version")
        self.digests.update({(model, number): digest for model, number, digest in rows})

    def number_of(self, content: str) -> int:
        """The number of a version here, by its content digest or by what stands for one that was never registered."""
        if content.startswith("?"):
            workspace, _, number = content[1:].partition("/")
            return local_number({workspace: int(number)}, self.workspace)
        return local_number(self.names(content), self.workspace)

    def names(self, content: str) -> dict[str, int]:
        """Workspace -> the number it gave that version."""
        return dict(self.sql.rows("SELECT workspace, number FROM version_name WHERE content_digest = ?", (content,)))

    def content_of(self, model: str, number: int) -> str:
        """The content digest of a numbered version."""
        return self.digests.get((model, number)) or f"?{self.workspace}/{number}"


@dataclass(frozen=True, slots=True)
class Table:
    """How one table is read and written. `where` narrows it; a row that is not there yet is inserted, else updated."""

    name: str
    source: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    where: str = "1"
    export: Callable[[Side, Key, Row], Row] | None = None
    put: Callable[[Side, Key, Row], None] | None = None
    devices: Callable[[Row], frozenset[str]] | None = None
    """The devices a row is about, where its key does not say."""

    def rows(self, side: Side, scope: Scope = ALL) -> Iterator[tuple[Key, Row]]:
        """Every row of that part, in order of its identity."""
        names = ", ".join((*self.key, *self.columns))
        sql = f"SELECT {names} FROM {self.source} WHERE {self.where} ORDER BY {', '.join(self.key)}"
        for values in side.sql.each(sql):
            key = values[: len(self.key)]
            if not scope.holds(self.key, key):
                continue
            row = self._row(side, key, values)
            about = ALL_DEVICES if scope.devices is None or self.devices is None else self.devices(row)
            if about is ALL_DEVICES or (scope.devices or frozenset()) & about:
                yield key, row

    def get(self, side: Side, key: Key) -> Row | None:
        """The row of that identity."""
        same = " AND ".join(f"{name} = ?" for name in self.key)
        sql = f"SELECT {', '.join((*self.key, *self.columns))} FROM {self.source} WHERE {self.where} AND {same}"
        values = side.sql.row(sql, key)
        return self._row(side, key, values) if values else None

    def write(self, side: Side, key: Key, row: Row) -> None:
        """Make the row stand in the store."""
        if self.put is not None:
            self.put(side, key, row)
            return
        names = (*self.key, *self.columns)
        there = ", ".join(f"{name} = excluded.{name}" for name in self.columns)
        action = f"UPDATE SET {there}" if there else "NOTHING"
        marks = ", ".join("?" * len(names))
        sql = f"INSERT INTO {self.source} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({', '.join(self.key)}) DO {action}"
        side.sql.write(sql, (*key, *(row[name] for name in self.columns)))

    def _row(self, side: Side, key: Key, values: tuple[Any, ...]) -> Row:
        row: Row = dict(zip(self.columns, values[len(self.key) :], strict=True))
        return self.export(side, key, row) if self.export else row


def _text(plain: Any) -> str:
    return canonical.encode(plain).decode("utf-8")


# Persons


def _export_person(_side: Side, _key: Key, row: Row) -> Row:
    return {**row, "is_erased": bool(row["is_erased"])}


def _put_person(side: Side, key: Key, row: Row) -> None:
    if row["is_erased"]:
        side.sql.write("DELETE FROM person WHERE actor = ?", key)
        side.sql.write("INSERT INTO person_erased (actor) VALUES (?) ON CONFLICT DO NOTHING", key)
        return
    side.sql.write(
        "INSERT INTO person (actor, name, workspace) VALUES (?, ?, ?)"
        " ON CONFLICT (actor) DO UPDATE SET name = excluded.name, workspace = excluded.workspace",
        (*key, row["name"], row["workspace"]),
    )


_PERSONS = (
    "(SELECT actor, name, workspace, 0 AS is_erased FROM person"
    " UNION ALL SELECT actor, '', '', 1 FROM person_erased)"
)


# Labels


def _put_label(side: Side, key: Key, row: Row) -> None:
    sql = "INSERT INTO label (pump, start_ms, end_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT (body) DO NOTHING"
    side.sql.write(sql, (*key[:3], row["body"]))


# Registry


def _export_version(side: Side, key: Key, row: Row) -> Row:
    plain = json.loads(row["body"])
    plain["number"] = 0
    created_ms = int(plain["created_ms"])
    return {"model": row["model"], "created_ms": created_ms, "body": _text(plain), "names": side.names(str(key[0]))}


def _put_version(side: Side, key: Key, row: Row) -> None:
    (digest,) = key
    for workspace, number in row["names"].items():
        side.sql.write(
            "INSERT INTO version_name (content_digest, workspace, number) VALUES (?, ?, ?)"
            " ON CONFLICT (content_digest, workspace) DO UPDATE SET number = excluded.number",
            (digest, workspace, number),
        )
    number = local_number(row["names"], side.workspace)
    body = _text({**json.loads(row["body"]), "number": number})
    old = side.sql.row("SELECT number FROM model_version WHERE content_digest = ?", key)
    if old is None:
        sql = "INSERT INTO model_version (model, number, content_digest, body) VALUES (?, ?, ?, ?)"
        side.sql.write(sql, (row["model"], number, digest, body))
        return
    side.sql.write("UPDATE model_version SET number = ?, body = ? WHERE content_digest = ?", (number, body, digest))
    if old[0] != number:
        _renumber(side, row["model"], int(old[0]), number)


def _renumber(side: Side, model: str, old: int, new: int) -> None:
    """A version got another name here: packages and aliases follow."""
    side.sql.write("UPDATE alias SET number = ? WHERE model = ? AND number = ?", (new, model, old))
    sql = "SELECT DISTINCT sha256 FROM package_pump WHERE model = ? AND number = ?"
    for (sha256,) in side.sql.rows(sql, (model, old)):
        row = side.sql.row("SELECT body FROM package WHERE sha256 = ?", (sha256,))
        if row is None:
            raise DamagedError("a package lacks its row", sha256)
        plain = json.loads(row[0])
        for pump in plain["pumps"]:
            if (pump["model"], pump["number"]) == (model, old):
                pump["number"] = new
        side.sql.write("UPDATE package SET body = ? WHERE sha256 = ?", (_text(plain), sha256))
    side.sql.write("UPDATE package_pump SET number = ? WHERE model = ? AND number = ?", (new, model, old))


def _export_package(side: Side, _key: Key, row: Row) -> Row:
    plain = json.loads(row["body"])
    for pump in plain["pumps"]:
        pump["content"] = side.content_of(pump["model"], pump.pop("number"))
    plain["created_ms"] = 0
    return {"created_ms": row["created_ms"], "body": _text(plain)}


def _put_package(side: Side, key: Key, row: Row) -> None:
    sha256 = key[0]
    plain = {**json.loads(row["body"]), "created_ms": row["created_ms"]}
    for pump in plain["pumps"]:
        pump["number"] = side.number_of(pump.pop("content"))
    side.sql.write(
        "INSERT INTO package (sha256, device, created_ms, body) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (sha256) DO UPDATE SET created_ms = excluded.created_ms, body = excluded.body",
        (sha256, plain["device"], row["created_ms"], _text(plain)),
    )
    side.sql.write("DELETE FROM package_pump WHERE sha256 = ?", (sha256,))
    side.sql.write_many(
        "INSERT INTO package_pump (sha256, pump, model, number, score_limit) VALUES (?, ?, ?, ?, ?)",
        [(sha256, pump["pump"], pump["model"], pump["number"], pump["limit"]) for pump in plain["pumps"]],
    )


def _package_devices(row: Row) -> frozenset[str]:
    return frozenset([json.loads(row["body"])["device"]])


# Rollouts


def _rollout_devices(row: Row) -> frozenset[str]:
    return frozenset(json.loads(row["body"])["tasks"])


def _export_rollout(side: Side, _key: Key, row: Row) -> Row:
    plain = json.loads(row["body"])
    approvals = {approval["actor"]: _text(approval) for approval in plain.pop("approvals", [])}
    return {
        "home": row["home"] or side.workspace,
        "epoch": row["epoch"] or 0,
        "moves": plain.get("moves", 0),
        "body": _text(plain),
        "approvals": approvals,
    }


def _put_rollout(side: Side, key: Key, row: Row) -> None:
    given = sorted((json.loads(text) for text in row["approvals"].values()), key=lambda one: (one["at_ms"], one["actor"]))
    plain = {**json.loads(row["body"]), "approvals": given}
    side.sql.write(
        "INSERT OR REPLACE INTO rollout (id, state, changed_ms, body) VALUES (?, ?, ?, ?)",
        (key[0], plain["state"], plain.get("changed_ms", 0), _text(plain)),
    )
    if row["home"] != side.workspace or row["epoch"]:
        sql = "INSERT OR REPLACE INTO rollout_home (rollout, workspace, epoch) VALUES (?, ?, ?)"
        side.sql.write(sql, (key[0], row["home"], row["epoch"]))


# Sketches


def _export_sketch(_side: Side, _key: Key, row: Row) -> Row:
    return {**row, "rows": sketch_rows(row["data"])}


def _put_sketch(side: Side, key: Key, row: Row) -> None:
    sql = "INSERT OR REPLACE INTO sketch_day (pump, day_ms, edges_digest, put_ms, data) VALUES (?, ?, ?, ?, ?)"
    side.sql.write(sql, (*key, row["put_ms"], row["data"]))


def sketch_rows(data: bytes) -> int:
    """How many rows a sketch counts: of two of one day the one that counts more is the later one. 0 when it cannot be read."""
    try:
        head = zlib.decompressobj().decompress(data[SKETCH_HEAD_BYTES:], 10)
    except zlib.error:
        return 0
    rows = shift = 0
    for byte in head:
        rows |= (byte & 0x7F) << shift
        if byte < 0x80:
            return rows
        shift += 7
    return 0


# Statements


def _statement_devices(row: Row) -> frozenset[str]:
    return frozenset((row["subject"],)) if row["kind"].startswith("device.") else ALL_DEVICES


TABLES: tuple[Table, ...] = (
    Table("person", _PERSONS, ("actor",), ("name", "workspace", "is_erased"), export=_export_person, put=_put_person),
    Table(
        "statement",
        "statement",
        ("digest",),
        ("kind", "subject", "workspace", "seq", "body", "envelope"),
        devices=_statement_devices,
    ),
    Table("label", "label", ("pump", "start_ms", "end_ms", "body"), ("body",), put=_put_label),
    Table("source", "source", ("digest",), ("at_ms", "body")),
    Table("version", "model_version", ("content_digest",), ("model", "body"), export=_export_version, put=_put_version),
    Table("alias_move", "alias_move", ("model", "alias", "at_ms", "workspace", "content_digest"), ()),
    Table(
        "package",
        "package",
        ("sha256",),
        ("created_ms", "body"),
        export=_export_package,
        put=_put_package,
        devices=_package_devices,
    ),
    Table(
        "rollout",
        "(SELECT rollout.id, body, workspace AS home, epoch FROM rollout LEFT JOIN rollout_home ON rollout = rollout.id)",
        ("id",),
        ("body", "home", "epoch"),
        export=_export_rollout,
        put=_put_rollout,
        devices=_rollout_devices,
    ),
    Table(
        "device_key",
        "device_key",
        ("device", "key_id"),
        ("public_pem", "host_key", "enrolled_ms", "ended_ms", "ended"),
    ),
    Table("device_age_key", "device_age_key", ("device",), ("age_key", "at_ms")),
    Table("device_trust", "device_trust", ("device",), ("site", "version", "root", "at_ms", "how")),
    Table("status", "device", ("device",), ("status", "status_ms"), where="status IS NOT NULL"),
    Table("receipt", "receipt", ("device", "key_id", "counter"), ("received_ms", "body", "envelope")),
    Table(
        "receipt_apart",
        "receipt_apart",
        ("digest",),
        ("device", "key_id", "counter", "received_ms", "reason", "body", "envelope"),
        devices=lambda row: frozenset([row["device"]]),
    ),
    Table("stick", "stick", ("id",), ("state", "changed_ms", "body")),
    Table("return_counter", "return_counter", ("device", "key_id"), ("counter",)),
    Table("alarm", "alarm", ("pump", "at_ms", "raised"), ("body",)),
    Table(
        "retrain_request",
        "retrain_request",
        ("digest",),
        ("pump", "device", "at_ms", "state", "closed_ms", "body"),
        devices=lambda row: frozenset((row["device"],)),
    ),
    Table(
        "sketch_day",
        "sketch_day",
        ("pump", "day_ms", "edges_digest"),
        ("put_ms", "data"),
        export=_export_sketch,
        put=_put_sketch,
    ),
    Table("drift", "drift", ("pump", "at_ms"), ("worst", "body")),
)
