"""What the demo says of itself is true: each figure is computed again from its folders, by other code than the demo's.

Files are hashed with hashlib, signatures checked with cryptography, packages opened with tarfile, the database read with sqlite3,
rows read with pyarrow and csv. Of the product only the readers of its store's scores and of its edge format are used.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import SSlibKey

from pumpdeck_fleet.numeric.edges import decode_edges
from support.demo_run import DAY_MS, END_MS, DemoRun, run_demo

pytestmark = pytest.mark.e2e

STEPS = ["ingest", "train", "package", "rollout", "receipts", "scores", "drift", "audit"]
ROWS_A_PUMP = 29 * 144 + 1440
WINDOW_ROWS = 30


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain_json(value: Any) -> bytes:
    """Canonical JSON by the standard library alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


@pytest.fixture(scope="module")
def sql(demo: DemoRun) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{demo.database.as_posix()}?mode=ro", uri=True)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def truth(demo: DemoRun) -> dict[str, Any]:
    return json.loads((demo.history / "truth.json").read_text(encoding="utf-8"))


def artifact(demo: DemoRun, digest: str) -> bytes:
    """An artifact, found by its own bytes' digest wherever it stands."""
    (path,) = (demo.workspace / "artifacts" / "sha256").glob(f"{digest[:2]}/*{digest[2:]}")
    data = path.read_bytes()
    assert sha256(data) == digest
    return data


def device_state(root: Path) -> dict[str, Any]:
    """The newer of the two state copies whose digest line is right."""
    found = []
    for name in ("state.0", "state.1"):
        if (root / name).exists():
            digest, _, body = (root / name).read_bytes().partition(b"\n")
            if sha256(body) == digest.decode():
                found.append(json.loads(body))
    return max(found, key=lambda state: state["record"])


def rows_of_type(demo: DemoRun, pump_type: str) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Rows by pump as the sites handed them over: times and values by channel. Parquet only."""
    found = {}
    for path in demo.history.glob(f"*-{pump_type}.parquet"):
        table = pyarrow.parquet.read_table(path)
        pumps = np.array(table["pump"].to_pylist())
        times = table["time"].cast("int64").to_numpy()
        for pump in np.unique(pumps):
            here = pumps == pump
            channels = {name: table[name].to_numpy()[here] for name in table.column_names[2:]}
            found[str(pump)] = (times[here], channels)
    return found


def package_of(demo: DemoRun, root: Path) -> Path:
    """The folder of the package that a device runs."""
    return root / "store" / device_state(root)["active"]["sha256"]


def test_the_run_ends_well_and_every_step_is_ok(demo: DemoRun) -> None:
    assert demo.code == 0, demo.summary
    assert list(demo.summary["steps"]) == STEPS
    assert demo.steps_not_ok() == set()
    assert demo.summary["ok"] is True
    assert "Device gannet-d1 runs as process" in demo.talk
    assert "1 device" in demo.talk


def test_ingest_every_row_of_every_file_is_in_the_store(demo: DemoRun, sql, truth) -> None:
    evidence = demo.evidence("ingest")
    counted = {}
    for path in demo.history.iterdir():
        if path.suffix == ".parquet":
            counted[path.name] = pyarrow.parquet.read_metadata(path).num_rows
        elif path.suffix == ".csv" and path.name != "labels.csv":
            with path.open(encoding="utf-8", newline="") as stream:
                counted[path.name] = sum(1 for _ in csv.reader(stream, delimiter=";")) - 1
    assert {one["file"]: one["rows"] for one in evidence["files"]} == counted
    for one in evidence["files"]:
        assert sha256((demo.history / one["file"]).read_bytes()) == one["sha256"]
    query = (
        "SELECT series.pump, SUM(chunk.rows) FROM chunk JOIN series ON series.id = chunk.place / 16777216"
        " WHERE series.kind = 'telemetry' AND chunk.place % 16777216 + chunk.hours <= ? GROUP BY series.pump"
    )
    stored = dict(sql.execute(query, (END_MS // 3_600_000 + 24,)).fetchall())
    assert len(stored) == 16
    assert set(stored.values()) == {ROWS_A_PUMP}
    assert evidence["rows"] == evidence["rows_in_store"] == sum(stored.values()) == truth["rows"]


def test_train_the_artifacts_are_what_their_digests_say_and_the_graph_computes_maxz(demo: DemoRun, sql) -> None:
    models = demo.evidence("train")["models"]
    assert {one["model"] for one in models} == {"esp-health", "pcp-health", "export-health", "injection-health"}
    for one in models:
        body = sql.execute(
            "SELECT body FROM model_version WHERE model = ? AND number = ?", (one["model"], one["version"])
        ).fetchone()[0]
        stored = json.loads(body)
        assert stored["content_digest"] == one["content_digest"]
        assert {gate["verdict"] for gate in stored["gates"]} <= {"pass", "warn"}
        record = json.loads(artifact(demo, one["run_record_digest"]))
        assert record["lineage"]["snapshot_digest"] == one["snapshot_digest"]
        assert record["request"]["end_ms"] == END_MS - DAY_MS + 1
        assert one["snapshot_digest"] == snapshot_digest(sql, record)
        assert artifact(demo, one["card_digest"]).startswith(b"#")
        check_graph(artifact(demo, one["onnx_digest"]))


def snapshot_digest(sql: sqlite3.Connection, record: dict[str, Any]) -> str:
    """The digest of a training set from the chunk table and the labels, as docs say it is made."""
    start, end = record["request"]["start_ms"], record["request"]["end_ms"]
    pumps = {}
    for pump in record["pumps"]:
        rows = sql.execute(
            "SELECT place % 16777216, hours, hex(digest) FROM chunk WHERE place / 16777216 ="
            " (SELECT id FROM series WHERE kind = 'telemetry' AND pump = ?) ORDER BY place",
            (pump,),
        ).fetchall()
        hour = 3_600_000
        chunks = [
            [at * hour, text.lower()] for at, hours, text in rows if at * hour < end and (at + hours) * hour > start
        ]
        assert sql.execute("SELECT COUNT(*) FROM label WHERE pump = ?", (pump,)).fetchone() == (0,)
        pumps[pump] = sha256(plain_json([start, end, chunks, []]))
    return sha256(plain_json(pumps))


def check_graph(onnx: bytes) -> None:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    centre, scale = rng.normal(50, 20, 8).astype(np.float32), rng.uniform(0.5, 3, 8).astype(np.float32)
    votes = np.array([1, 1, 1, 0, 1, 1, 1, 1], np.float32)
    rows = (centre + rng.normal(0, 4, (50, 8)) * scale).astype(np.float32)
    rows[7, 2] = np.nan
    feeds = {"x": rows, "centre": centre, "scale": scale, "votes": votes, "limit": np.array([4.0], np.float32)}
    score, probability = session.run(["score", "probability"], feeds)
    expected = np.nan_to_num(np.abs(rows - centre) / scale * votes).max(axis=1)
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    np.testing.assert_allclose(probability, expected / (expected + 4.0), rtol=1e-5)


def test_package_each_device_holds_exactly_what_was_built_for_it(demo: DemoRun) -> None:
    packages = {one["device"]: one for one in demo.evidence("package")["packages"]}
    assert set(packages) == {root.name for root in demo.devices}
    for root in demo.devices:
        one = packages[root.name]
        data = artifact(demo, one["sha256"])
        assert len(data) == one["bytes"]
        held = package_of(demo, root)
        assert held.name == one["sha256"]
        archive = root.parent / f"{root.name}.tar.xz"
        archive.write_bytes(data)
        with tarfile.open(archive, "r:xz") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        archive.unlink()
        assert members == {
            path.relative_to(held).as_posix(): path.read_bytes() for path in held.rglob("*") if path.is_file()
        }
        manifest = json.loads(members["manifest.json"])
        config = json.loads((root / "agent.json").read_text(encoding="utf-8"))
        assert [pump["tag"] for pump in manifest["pumps"]] == one["pumps"] == [p["tag"] for p in config["pumps"]]
        for name, entry in manifest["files"].items():
            assert sha256(members[name]) == entry["digest"]


def test_rollout_every_device_runs_what_the_rollout_says_and_every_task_is_committed(demo: DemoRun, sql) -> None:
    evidence = demo.evidence("rollout")
    assert evidence["state"] == "COMPLETED"
    assert set(evidence["waves"]) == {"PASSED"}
    assert set(evidence["tasks"].values()) == {"COMMITTED"}
    for root in demo.devices:
        assert device_state(root)["active"]["sha256"] == evidence["active"][root.name]
    aliases = dict(sql.execute("SELECT model, number FROM alias WHERE alias = 'champion'").fetchall())
    assert aliases == evidence["champion"]
    assert len(aliases) == 4
    assert (len(evidence["agents_as_processes"]), evidence["agents_in_simulator"]) == (3, 1)


def test_receipts_are_signed_by_the_key_that_lies_on_the_device(demo: DemoRun, sql) -> None:
    listed = demo.evidence("receipts")["receipts"]
    stored = sql.execute("SELECT device, counter, envelope FROM receipt ORDER BY device, counter").fetchall()
    assert len(listed) == len(stored) == 4
    by_place = {(one["device"], one["counter"]): one for one in listed}
    for device, counter, envelope in stored:
        one = by_place[device, counter]
        assert sha256(envelope) == one["sha256"]
        root = next(root for root in demo.devices if root.name == device)
        key = load_pem_public_key((root / "device.pub").read_bytes())
        assert SSlibKey.from_crypto(key).keyid == one["key_id"]
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"])
        kind = parsed["payloadType"].encode()
        pre_authentication = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        key.verify(base64.b64decode(parsed["signatures"][0]["sig"]), pre_authentication)  # raises when it is not so
        receipt = json.loads(payload)
        assert (receipt["device"], receipt["outcome"]) == (device, "committed")
        assert receipt["active_sha256"] == one["package_sha256"] == device_state(root)["active"]["sha256"]


def test_scores_the_devices_own_status_counts_the_same_rows(demo: DemoRun) -> None:
    evidence = demo.evidence("scores")
    for root in demo.devices:
        done = subprocess.run(
            [sys.executable, "-m", "pumpdeck_agent.main", "status", "--root", str(root)],
            capture_output=True,
            check=True,
        )
        pumps = json.loads(done.stdout)["pumps"]
        assert {one["scored_rows"] for one in pumps.values()} == {1440}
        assert sum(one["scored_rows"] for one in pumps.values()) == evidence["rows_by_device"][root.name]
        assert not any((root / "spool" / "in").iterdir())
    assert evidence["rows"] == 16 * 1440


def test_scores_the_first_hours_are_the_distance_of_half_hour_means_from_the_baseline(demo: DemoRun, sql) -> None:
    """Until the first clock hour turns, the adaptive baseline stands at its reference, so a score is plain arithmetic."""
    checked = 0
    for root in demo.devices:
        package = package_of(demo, root)
        site = json.loads((root / "agent.json").read_text(encoding="utf-8"))["site"]
        for entry in json.loads((package / "manifest.json").read_bytes())["pumps"]:
            handed_over = rows_of_type(demo, entry["pump_type"]).get(f"{site}/{entry['tag']}")
            if handed_over is None:
                continue
            scores = stored_scores(sql, f"{site}/{entry['tag']}")
            expected = plain_scores((package / entry["block"]).read_bytes(), handed_over, entry["channels"])
            np.testing.assert_allclose(scores.values[:59, 0], expected[:59], rtol=2e-4)
            checked += 1
    assert checked == 8


def stored_scores(sql: sqlite3.Connection, pump: str) -> Any:
    query = (
        "SELECT place % 16777216, hours FROM chunk WHERE place / 16777216 ="
        " (SELECT id FROM series WHERE kind = 'scores' AND pump = ?) ORDER BY place"
    )
    assert sql.execute(query, (pump,)).fetchone() is not None
    from pumpdeck_fleet.core.clock import FixedClock
    from pumpdeck_fleet.store.store import Store

    database = Path(sql.execute("PRAGMA database_list").fetchone()[2])
    with Store.open(database, FixedClock(END_MS), read_only=True) as store:
        return store.scores.frame(pump, END_MS - DAY_MS + 1, END_MS + 1)


def plain_scores(block: bytes, rows: tuple[np.ndarray, dict[str, np.ndarray]], channels: list[dict]) -> np.ndarray:
    """maxz by hand: mean of the last 30 rows, largest voting |mean - centre| / max(scale, floor)."""
    count = block[5]
    votes = struct.unpack_from("<I", block, 12)[0]
    centre, scale, floor = np.frombuffer(block, "<f4", 3 * count, 24).reshape(3, count).astype(np.float64)
    at_ms, values = rows
    last = np.flatnonzero(at_ms > END_MS - DAY_MS)
    table = np.stack([values[channel["name"]] for channel in channels], axis=1).astype(np.float64)
    means = np.stack([table[max(last[0], row - WINDOW_ROWS + 1) : row + 1].mean(axis=0) for row in last[:120]])
    away = np.abs(means - centre) / np.maximum(scale, floor)
    return away[:, [bool(votes >> place & 1) for place in range(count)]].max(axis=1)


def test_scores_alarms_are_held_against_the_truth(demo: DemoRun, sql, truth) -> None:
    evidence = demo.evidence("scores")
    raised = [
        json.loads(body) for (body,) in sql.execute("SELECT body FROM alarm WHERE raised = 1 ORDER BY at_ms").fetchall()
    ]
    injected = [fault for fault in truth["faults"] if fault["alarm_expected_last_day"]]
    assert evidence["faults_injected"] == len(injected) == 1
    for fault, found in zip(injected, evidence["faults"], strict=True):
        times = [one["at_ms"] for one in raised if one["pump"] == fault["pump"] and one["at_ms"] >= fault["onset_ms"]]
        assert found["alarmed_ms"] == min(times)
        assert 0 < found["alarmed_ms"] - fault["onset_ms"] < 6 * 3_600_000
    faulty = {fault["pump"] for fault in truth["faults"]}
    assert evidence["false_alarms"] == sum(one["pump"] not in faulty for one in raised) == 0


def test_drift_is_the_published_psi_of_the_rows_themselves(demo: DemoRun) -> None:
    """Both windows are counted anew from the files of the sites; only where the decile edges lie is read from the package."""
    stated = demo.evidence("drift")["psi"]
    assert len(stated) == 16
    checked = 0
    for root in demo.devices:
        package = package_of(demo, root)
        site = json.loads((root / "agent.json").read_text(encoding="utf-8"))["site"]
        for entry in json.loads((package / "manifest.json").read_bytes())["pumps"]:
            pump = f"{site}/{entry['tag']}"
            handed_over = rows_of_type(demo, entry["pump_type"]).get(pump)
            if handed_over is None:
                continue
            names = tuple(channel["name"] for channel in entry["channels"])
            edges = decode_edges((package / entry["edges"]).read_bytes(), names)
            at_ms, values = handed_over
            before, now = at_ms <= END_MS - DAY_MS, at_ms > END_MS - DAY_MS
            figures = []
            for name, edge in zip(names, edges.edges, strict=True):
                lines = np.array(edge.cuts.decile_cuts) * 2.0**edge.cuts.exponent
                shares = []
                for window in (before, now):
                    bins = np.searchsorted(lines, values[name][window].astype(np.float64), side="left")
                    shares.append(np.maximum(np.bincount(bins, minlength=lines.size + 1) / window.sum(), 1e-4))
                figures.append(float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()))
            assert max(figures) == pytest.approx(stated[pump], abs=1e-6)
            checked += 1
    assert checked == 8


def test_audit_the_chain_holds_from_its_first_entry_to_its_head(demo: DemoRun, sql) -> None:
    evidence = demo.evidence("audit")
    columns = "chain, position, previous, at_ms, actor, action, subject, reason, digests, digest"
    previous, digests = "0" * 64, []
    for row in sql.execute(f"SELECT {columns} FROM audit ORDER BY position"):
        entry = dict(zip(columns.split(", "), row, strict=True))
        stored = entry.pop("digest")
        entry["digests"] = json.loads(entry["digests"])
        assert entry["chain"] == evidence["chain"]
        assert entry["position"] == len(digests) + 1
        assert entry["previous"] == previous
        assert sha256(plain_json(entry)) == stored
        previous = stored
        digests.append(stored)
    assert evidence["entries"] <= len(digests)
    assert digests[evidence["entries"] - 1] == evidence["head"]


def test_another_demo_of_the_same_seed_builds_the_same_packages_with_other_keys(demo: DemoRun, tmp_path: Path) -> None:
    """Two fresh workspaces, nothing cached: the rows, the models and the packages have the same digests."""
    again = run_demo(tmp_path / "fleet")
    assert again.code == 0, again.summary
    models = ("model", "content_digest", "snapshot_digest", "onnx_digest", "run_record_digest")
    first, second = (
        [[one[name] for name in models] for one in run.evidence("train")["models"]] for run in (demo, again)
    )
    assert first == second
    assert demo.evidence("package")["packages"] == again.evidence("package")["packages"]
    keys = [{one["key_id"] for one in run.evidence("receipts")["receipts"]} for run in (demo, again)]
    assert not keys[0] & keys[1]
