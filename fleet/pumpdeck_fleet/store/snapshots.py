"""Snapshots that are held: their manifests, and which version of a chunk each of them needs.

A pin names one version of a chunk. When late rows change a pinned chunk, `ChunkTable` lays its old version aside (`lay_aside`),
so that the snapshot still gives the rows it gave.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.clock import HOUR_MS
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError
from pumpdeck_fleet.core.snapshots import MANIFEST_MAX_BYTES, PART_MAX_BYTES, PumpSnapshot, SnapshotManifest
from pumpdeck_fleet.store.connection import Connection
from pumpdeck_fleet.store.series import SeriesTable

COLUMNS = "place, digest, hours, rows, channels, flagged, data"


def lay_aside(sql: Connection, first: int, last: int, places: Iterable[int]) -> None:
    """Keep the version of those chunks (all between `first` and `last`) that a snapshot needs, before they change or go."""
    pinned = {place for (place,) in sql.rows("SELECT DISTINCT place FROM chunk_pin WHERE place BETWEEN ? AND ?", (first, last))}
    wanted = [(place,) for place in places if place in pinned]
    if wanted:
        sql.write_many(
            f"INSERT OR IGNORE INTO chunk_kept ({COLUMNS}) SELECT {COLUMNS} FROM chunk WHERE place = ?"
            " AND EXISTS (SELECT 1 FROM chunk_pin WHERE chunk_pin.place = chunk.place AND chunk_pin.digest = chunk.digest)",
            wanted,
        )


class SnapshotTable:
    """Manifests by digest."""

    def __init__(self, sql: Connection) -> None:
        self._sql = sql
        self._series = SeriesTable(sql, "telemetry")

    def hold(self, parts: Mapping[str, PumpSnapshot]) -> SnapshotManifest:
        """Keep the manifest and pin its chunks; what is held already stays as it is.

        Raises:
            OutsideTransactionError: no `atomic()` is open.
        """
        encoded = {pump: part.encode() for pump, part in parts.items()}
        names = {pump: digest(data) for pump, data in encoded.items()}
        manifest = SnapshotManifest(names)
        if self.has(manifest.digest):
            return manifest
        sql = "INSERT OR IGNORE INTO snapshot_part (digest, body) VALUES (?, ?)"
        self._sql.write_many(sql, ((names[pump], zlib.compress(data, 1)) for pump, data in encoded.items()))
        sql = "INSERT INTO snapshot (digest, body) VALUES (?, ?)"
        self._sql.write(sql, (manifest.digest, zlib.compress(manifest.encode(), 1)))
        self._pin(parts)
        return manifest

    def _pin(self, parts: Mapping[str, PumpSnapshot]) -> None:
        numbers = self._series.numbers()
        self._sql.write_many(
            "INSERT OR IGNORE INTO chunk_pin (place, digest) VALUES (?, ?)",
            (
                (_place(numbers[pump], start_ms), bytes.fromhex(name))
                for pump, part in parts.items()
                for start_ms, name in part.chunks
            ),
        )

    def has(self, name: str) -> bool:
        """True when the snapshot of that digest is held here."""
        return self._sql.row("SELECT 1 FROM snapshot WHERE digest = ?", (name,)) is not None

    def digests(self) -> list[str]:
        """All that are held, sorted."""
        return [row[0] for row in self._sql.rows("SELECT digest FROM snapshot ORDER BY digest")]

    def manifest(self, name: str) -> SnapshotManifest:
        """Raises: NotFoundError - not held. DamagedError - the manifest is not what its digest says."""
        data = self._body("snapshot", name, MANIFEST_MAX_BYTES)
        return SnapshotManifest.parse(data, f"snapshot {name[:12]}")

    def part(self, name: str) -> PumpSnapshot:
        """What a manifest holds of one pump. Raises: as `manifest`."""
        return PumpSnapshot.parse(self._body("snapshot_part", name, PART_MAX_BYTES), f"snapshot part {name[:12]}")

    def _body(self, table: str, name: str, most: int) -> bytes:
        row = self._sql.row(f"SELECT body FROM {table} WHERE digest = ?", (name,))
        if row is None:
            hint = "it was made in another workspace, or let go by retention"
            raise NotFoundError("no such snapshot is held here", name[:12], hint=hint)
        reader = zlib.decompressobj()
        try:
            data = reader.decompress(row[0], most)
        except zlib.error as error:
            raise DamagedError("cannot be unpacked", f"snapshot {name[:12]}") from error
        if digest(data) != name:
            raise DamagedError("was altered", f"snapshot {name[:12]}", expected=name, found=digest(data))
        return data

    def release(self, names: Iterable[str]) -> int:
        """Let snapshots go, with the pins and laid-aside chunks that no other one needs; how many chunks went.

        Rows that stand in the telemetry itself stay.
        """
        gone = [(name,) for name in names]
        if not gone:
            return 0
        self._sql.write_many("DELETE FROM snapshot WHERE digest = ?", gone)
        kept_parts, pins = set(), set()
        numbers = self._series.numbers()
        for name in self.digests():
            for pump, part in self.manifest(name).pumps.items():
                if part not in kept_parts:
                    kept_parts.add(part)
                    pins |= {(_place(numbers[pump], at), bytes.fromhex(one)) for at, one in self.part(part).chunks}
        parts = [row[0] for row in self._sql.rows("SELECT digest FROM snapshot_part")]
        self._sql.write_many("DELETE FROM snapshot_part WHERE digest = ?", ((one,) for one in parts if one not in kept_parts))
        held = [(int(row[0]), bytes(row[1])) for row in self._sql.rows("SELECT place, digest FROM chunk_pin")]
        unused = [one for one in held if one not in pins]
        self._sql.write_many("DELETE FROM chunk_pin WHERE place = ? AND digest = ?", unused)
        return self._sql.write_many("DELETE FROM chunk_kept WHERE place = ? AND digest = ?", unused) if unused else 0

    def aside(self) -> tuple[int, int]:
        """(laid-aside chunks, their bytes)."""
        row = self._sql.row("SELECT count(*), coalesce(sum(length(data)), 0) FROM chunk_kept")
        assert row is not None
        return int(row[0]), int(row[1])

    def pinned(self, names: Iterable[str]) -> Iterator[tuple[str, int]]:
        """(pump, start of the chunk) of every chunk that these snapshots need."""
        seen: set[str] = set()
        for name in names:
            for pump, part in self.manifest(name).pumps.items():
                if part not in seen:
                    seen.add(part)
                    yield from ((pump, start_ms) for start_ms, _ in self.part(part).chunks)


def _place(series: int, start_ms: int) -> int:
    return (series << 24) + start_ms // HOUR_MS
