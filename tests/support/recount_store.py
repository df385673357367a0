"""A second opinion on a workspace's store: plain SQL over `pumpdeck.db` and its own arithmetic, without the product's code."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from support.recount import artifact, canonical, sha256
from support.recount_rows import Rows, join, parse_edges, unpack_chunk

PLACES = 1 << 24
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class StoreRecount:
    """Everything that can be counted again in one workspace. Opens the store read-only and reads each chunk once."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._chunks: dict[tuple[str, str], list[tuple[int, int, Rows]]] = {}
        self._psi: dict[tuple[str, str, tuple[int, int]], dict[str, float]] = {}
        self.sql = sqlite3.connect(f"file:{workspace / 'pumpdeck.db'}?mode=ro", uri=True)

    def close(self) -> None:
        self.sql.close()

    def _bodies(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self.sql.execute(query, values)]

    # Rows

    def pumps(self, kind: str) -> list[str]:
        """Pumps with rows of that kind (`telemetry`, `scores`)."""
        return [row[0] for row in self.sql.execute("SELECT pump FROM series WHERE kind = ? ORDER BY pump", (kind,))]

    def chunks(self, kind: str, pump: str) -> list[tuple[int, int, Rows]]:
        """(start, end, rows) of each chunk of a pump, each proven by its digest."""
        if (kind, pump) not in self._chunks:
            self._chunks[kind, pump] = self._read_chunks(kind, pump)
        return self._chunks[kind, pump]

    def _read_chunks(self, kind: str, pump: str) -> list[tuple[int, int, Rows]]:
        query = (
            "SELECT chunk.place, chunk.hours, chunk.rows, channel_set.names, chunk.flagged, chunk.digest, chunk.data"
            " FROM chunk JOIN channel_set ON channel_set.id = chunk.channels JOIN series ON series.id = chunk.place >> 24"
            " WHERE series.kind = ? AND series.pump = ? ORDER BY chunk.place"
        )
        found = []
        for place, hours, count, names, flagged, digest, data in self.sql.execute(query, (kind, pump)):
            rows = unpack_chunk(data, count, json.loads(names), bool(flagged))
            assert rows.digest() == digest.hex(), f"a chunk of {pump} was altered"
            start = place % PLACES * HOUR_MS
            found.append((start, start + hours * HOUR_MS, rows))
        return found

    def rows(self, kind: str, pump: str) -> Rows:
        """All rows of a pump."""
        return join([rows for _, _, rows in self.chunks(kind, pump)])

    # Digests

    def fleet_digest(self) -> str:
        """The inventory's digest: names, lengths and bytes of `fleet.toml` and the maker profiles."""
        paths = [self.workspace / "fleet.toml", *sorted((self.workspace / "makers").glob("*.toml"))]
        parts = [f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes() for path in paths]
        return sha256(b"".join(parts))

    def source_digest(self, file: Path, site: str) -> str:
        """What names the ingest of a file: inventory and options, then the file's bytes."""
        options = {
            "site": site, "pump": "", "maker": "", "columns": {}, "time_zone": "", "time_format": "", "separator": "",
            "decimal": "", "encoding": "", "header_line": 1, "skip_bad": False, "allow_missing": False,
        }  # fmt: skip
        return sha256(canonical({"fleet": self.fleet_digest(), "options": options}) + file.read_bytes())

    def snapshot_digest(self, pumps: list[str], start_ms: int, end_ms: int) -> str:
        """The digest of a training set, for an inventory without dated changes."""
        assert "[[events]]" not in (self.workspace / "fleet.toml").read_text(encoding="utf-8")
        found = {}
        for pump in pumps:
            touching = [one for one in self.chunks("telemetry", pump) if one[0] < end_ms and one[1] > start_ms]
            chunks = [[start, rows.digest()] for start, _, rows in touching]
            found[pump] = sha256(canonical([start_ms, end_ms, chunks, self._faults(pump)]))
        return sha256(canonical(found))

    def _faults(self, pump: str) -> list[list[Any]]:
        labels = self._bodies("SELECT body FROM label WHERE pump = ? ORDER BY start_ms, id", pump)
        return [[one["start_ms"], one["end_ms"], f"fault:{one['kind']}"] for one in labels if one["verdict"] == "fault"]

    def content_digest(self, version: dict[str, Any]) -> str:
        """A model version's identity: over everything that reaches a device."""
        spec = self.json_artifact(version["lineage"]["pipeline_digest"])
        told = {
            "model": version["model"],
            "features": [[one["name"], one["unit"], one["votes"]] for one in spec["channels"]],
            "window_s": spec["window_s"],
            "alarm": spec["alarm"],
            **{name: sha256(self.artifact(version[f"{name}_digest"])) for name in ("onnx", "golden", "card")},
            "pumps": [
                [one["pump"], *(sha256(self.artifact(one[f"{name}_digest"])) for name in ("block", "edges"))]
                for one in version["pumps"]
            ],
        }
        return sha256(canonical(told))

    def artifact(self, digest: str) -> bytes:
        """The proven bytes of an artifact."""
        return artifact(self.workspace, digest)

    def json_artifact(self, digest: str) -> dict[str, Any]:
        """A JSON artifact."""
        told = json.loads(self.artifact(digest))
        assert isinstance(told, dict)
        return told

    # Bodies

    def version(self, model: str, number: int) -> dict[str, Any]:
        """One model version as it is registered."""
        (found,) = self._bodies("SELECT body FROM model_version WHERE model = ? AND number = ?", model, number)
        return found

    def versions(self) -> list[dict[str, Any]]:
        """All model versions."""
        return self._bodies("SELECT body FROM model_version ORDER BY model, number")

    def packages(self) -> list[dict[str, Any]]:
        """All packages."""
        return self._bodies("SELECT body FROM package ORDER BY device, sha256")

    def rollouts(self) -> list[dict[str, Any]]:
        """All rollouts."""
        return self._bodies("SELECT body FROM rollout ORDER BY id")

    def alarms(self) -> list[dict[str, Any]]:
        """All alarm notices, oldest first."""
        return self._bodies("SELECT body FROM alarm ORDER BY at_ms, pump, raised")

    def aliases(self, alias: str) -> dict[str, int]:
        """Version number by model."""
        return dict(self.sql.execute("SELECT model, number FROM alias WHERE alias = ?", (alias,)).fetchall())

    def receipts(self) -> list[tuple[str, int, str, bytes]]:
        """(device, counter, key id, envelope) of each receipt."""
        return self.sql.execute("SELECT device, counter, key_id, envelope FROM receipt ORDER BY device, counter").fetchall()

    def count(self, table: str) -> int:
        """Rows of a table."""
        (found,) = self.sql.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found)

    # Drift

    def psi(self, pump: str, version: dict[str, Any], window: tuple[int, int]) -> dict[str, float]:
        """PSI by channel of the stored rows with `window[0] <= t < window[1]`, from raw rows on both sides.

        The reference counts that travel in the edges must be those of the reference window's own rows.
        """
        key = (pump, version["content_digest"], window)
        if key not in self._psi:
            self._psi[key] = self._psi_of(pump, version, window)
        return self._psi[key]

    def _psi_of(self, pump: str, version: dict[str, Any], window: tuple[int, int]) -> dict[str, float]:
        spec = self.json_artifact(version["lineage"]["pipeline_digest"])
        request = self.json_artifact(version["run_record_digest"])["request"]
        (held,) = [one for one in version["pumps"] if one["pump"] == pump]
        edges = parse_edges(self.artifact(held["edges_digest"]), [one["name"] for one in spec["channels"]])
        rows = self.rows("telemetry", pump)
        # What came in later, though it bears a time of the reference window, was not there to be learned from.
        learned = rows.between(request["start_ms"], min(request["end_ms"], window[0]))
        for start_ms, end_ms, _ in self._faults(pump):
            keep = (learned.at_ms < start_ms) | (learned.at_ms >= end_ms)
            learned = Rows(learned.channels, learned.at_ms[keep], learned.values[keep], learned.flags[keep])
        sound = learned.flags == 0
        learned = Rows(learned.channels, learned.at_ms[sound], learned.values[sound], learned.flags[sound])
        current = rows.between(*window)
        found = {}
        for name, edge in edges.items():
            counts = edge.bin(learned.column(name))
            assert tuple(counts) == edge.counts, f"{pump} {name}: the edges count other reference rows"
            found[name] = edge.psi_of(current.column(name), counts)
        return found

    # Audit

    def audit_head(self) -> tuple[str, int, str]:
        """(chain, position, digest) of the last entry, every link of the chain computed again."""
        columns = "chain, position, previous, at_ms, actor, action, subject, reason, digests, digest"
        names = columns.split(", ")[:8]
        chain, position, previous = "", 0, "0" * 64
        for row in self.sql.execute(f"SELECT {columns} FROM audit ORDER BY position"):
            entry = {**dict(zip(names, row[:8], strict=True)), "digests": json.loads(row[8])}
            chain, position = row[0], position + 1
            assert (entry["position"], entry["previous"]) == (position, previous), f"audit entry {position}"
            previous = sha256(canonical(entry))
            assert row[9] == previous, f"audit entry {position} was altered"
        return chain, position, previous

    def audit_actions(self) -> Counter[str]:
        """How often each action stands in the chain."""
        return Counter(row[0] for row in self.sql.execute("SELECT action FROM audit"))
