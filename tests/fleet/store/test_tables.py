"""The small tables: what goes in comes out, twice is once, and what contradicts is refused with nothing changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS, FixedClock
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus, PumpStatus, Veto
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, FormatError, NotFoundError, ReplayError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import AlarmNotice, Outcome, Receipt
from pumpdeck_fleet.core.registry import Alias, GateVerdict, Lineage, ModelVersion, PumpParameters, QualityGate
from pumpdeck_fleet.core.telemetry import IngestProblem, IngestReport, Label, Verdict
from pumpdeck_fleet.store import ArtifactStore
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from support.stores import T0, open_store

PUMP = "gannet/P-101A"


def sha(text: str) -> str:
    return canonical.digest(text.encode())


def version(content: str = "one", model: str = "esp-health") -> ModelVersion:
    return ModelVersion(
        model=model,
        number=0,
        content_digest=sha(content),
        pump_type="esp",
        model_type="maxz",
        onnx_digest=sha("onnx"),
        card_digest=sha("card"),
        golden_digest=sha("golden"),
        run_record_digest=sha("run"),
        created_ms=T0,
        data_end_ms=T0 - DAY_MS,
        metrics={"alarms": 0.5},
        gates=(QualityGate("parity", GateVerdict.PASS, "equal", 1.0, 0.9999),),
        lineage=Lineage(sha("s"), sha("p"), sha("c"), sha("l"), 7),
        pumps=(PumpParameters(PUMP, sha("b"), sha("e"), 4.2, "gumbel", False, 1),),
    )


def receipt(counter: int, active: str = "a" * 64, device: str = "gannet-d1", reason: str = "") -> Receipt:
    return Receipt(
        format=1, device=device, task=f"t{counter}", package_sha256=active, seq=counter, outcome=Outcome.COMMITTED,
        reason=reason, active_sha256=active, previous_sha256="", counter=counter, at_ms=T0, clock_synced=False,
        agent_version="0.1.0", runtime_version="1.20",
    )  # fmt: skip


def test_labels(tmp_path: Path) -> None:
    label = Label(PUMP, T0, T0 + 1000, Verdict.FAULT, "cavitation", "actor-1", T0 + 5000, "heard it")
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.labels.add(label)
            assert not store.labels.add(label)
            assert store.labels.add(dataclasses.replace(label, pump="gannet/P-2"))
            with pytest.raises(UsageError):
                store.labels.add(dataclasses.replace(label, end_ms=T0))
        assert store.labels.of(PUMP, T0 + 999, T0 + 9999) == [label]
        assert store.labels.of(PUMP, T0 + 1000, T0 + 9999) == []
        assert store.labels.of(PUMP, T0 - 9999, T0) == []
        assert [one.pump for one in store.labels.all()] == [PUMP, "gannet/P-2"]


def test_sources(tmp_path: Path) -> None:
    report = IngestReport("x.csv", sha("x"), 3, 1, 0, 0, (PUMP,), T0, T0 + 1, (IngestProblem("gap", "line 3", 1),))
    with open_store(tmp_path) as store:
        assert store.sources.seen(sha("x")) is None
        with store.atomic():
            store.sources.add(report)
        assert store.sources.seen(sha("x")) == report
        assert store.sources.all() == [report]


def test_versions_are_numbered_by_model_and_known_by_content(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.registry.add(version("one")) == 1
            assert store.registry.add(version("two")) == 2
            assert store.registry.add(version("one")) == 1
            assert store.registry.add(version("three", "pcp-health")) == 1
            with pytest.raises(ConflictError):
                store.registry.add(version("one", "pcp-health"))
        assert store.registry.models() == ["esp-health", "pcp-health"]
        assert store.registry.version("esp-health", 2) == dataclasses.replace(version("two"), number=2)
        assert store.registry.by_digest(sha("two")) == store.registry.version("esp-health", 2)
        assert store.registry.by_digest(sha("none")) is None
        assert [one.number for one in store.registry.versions("esp-health")] == [1, 2]
        with pytest.raises(NotFoundError):
            store.registry.version("esp-health", 3)


def test_aliases_move_and_never_point_to_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.registry.add(version("one"))
            store.registry.add(version("two"))
            assert store.registry.alias("esp-health", Alias.CHAMPION) is None
            store.registry.set_alias("esp-health", Alias.CHAMPION, 1)
            store.registry.set_alias("esp-health", Alias.CHAMPION, 2)
            store.registry.set_alias("esp-health", Alias.PREVIOUS, 1)
            with pytest.raises(NotFoundError):
                store.registry.set_alias("esp-health", Alias.CHAMPION, 3)
        assert store.registry.aliases("esp-health") == {Alias.CHAMPION: 2, Alias.PREVIOUS: 1}
        champion = store.registry.alias("esp-health", Alias.CHAMPION)
        assert champion is not None
        assert champion.number == 2


def test_packages(tmp_path: Path) -> None:
    row = PackageRow(sha("p1"), "gannet-d1", "gannet", 4000, 9000, T0, (PackagePump(PUMP, "esp-health", 3, 4.5),))
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.packages.put(row)
            assert not store.packages.put(row)
            store.packages.put(dataclasses.replace(row, sha256=sha("p2"), created_ms=T0 + 1))
        assert store.packages.get(sha("p1")) == row
        assert store.packages.get(sha("p3")) is None
        assert [one.sha256 for one in store.packages.for_device("gannet-d1")] == [sha("p2"), sha("p1")]
        assert row.versions == {"esp-health": 3}


def test_devices(tmp_path: Path) -> None:
    status = DeviceStatus(
        state="ACTIVE",
        active="a" * 64,
        previous="",
        seq=3,
        counter=2,
        free_bytes=10**9,
        outbox=OutboxStatus(2, 300),
        pumps={"P-101A": PumpStatus(7, T0, 1.5, False, 0.1)},
        veto=Veto("work", T0),
    )
    with open_store(tmp_path) as store:
        with store.atomic():
            store.devices.put_status("gannet-d1", status, T0)
            assert store.devices.identity("gannet-d1") is None
            store.devices.put_identity("gannet-d1", "PEM", "key", "ssh-ed25519 A", T0)
            store.devices.put_identity("gannet-d1", "PEM2", "key2", "ssh-ed25519 B", T0 + 1)
            store.devices.put_status("gannet-d1", dataclasses.replace(status, seq=1), T0 - 1)
        identity = store.devices.identity("gannet-d1")
        assert identity is not None
        assert (identity.public_pem, identity.key_id, identity.enrolled_ms) == ("PEM2", "key2", T0 + 1)
        found = store.devices.status("gannet-d1")
        assert found is not None
        assert (found.status, found.at_ms) == (status, T0)
        assert list(store.devices.identities()) == list(store.devices.statuses()) == ["gannet-d1"]
        assert store.devices.status("nowhere") is None


def test_receipts_count_once_and_the_newest_says_what_runs(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.receipts.add(receipt(2, "b" * 64), b"envelope 2", "key")
            assert store.receipts.add(receipt(1, "a" * 64), b"envelope 1", "key")
            assert not store.receipts.add(receipt(2, "b" * 64), b"envelope 2", "key")
        with pytest.raises(ReplayError), store.atomic():
            store.receipts.add(receipt(2, "b" * 64, reason="another story"), b"forged", "key")
        rows = store.receipts.of("gannet-d1")
        assert [row.receipt.counter for row in rows] == [1, 2]
        assert (rows[1].envelope, rows[1].digest) == (b"envelope 2", sha("envelope 2"))
        assert store.devices.active() == {"gannet-d1": "b" * 64}
        assert store.receipts.last_counter("gannet-d1", "key") == 2
        assert store.receipts.last_counter("other", "key") == 0
        assert len(store.receipts.all()) == 2
        assert store.receipts.all(after_ms=T0) == []


def test_alarms_are_open_until_they_are_cleared(tmp_path: Path) -> None:
    def notice(at_ms: int, raised: bool, pump: str = PUMP) -> AlarmNotice:
        return AlarmNotice(1, "gannet-d1", pump, at_ms, raised, 5.0, 4.0, "flow_m3_h", "a" * 64)

    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.alarms.add(notice(T0, True))
            assert not store.alarms.add(notice(T0, True))
            assert store.alarms.add(notice(T0 + 5, True, "gannet/P-2"))
        assert [one.pump for one in store.alarms.open()] == ["gannet/P-2", PUMP]
        with store.atomic():
            store.alarms.add(notice(T0 + 9, False))
            store.alarms.add(notice(T0 - 9, True))  # late, and long over
        assert [one.pump for one in store.alarms.open()] == ["gannet/P-2"]
        assert [one.at_ms for one in store.alarms.of(PUMP)] == [T0 - 9, T0, T0 + 9]
        with pytest.raises(FormatError), store.atomic():
            store.alarms.add(notice(T0, True, "P-101A"))


def test_sketches_of_a_day_are_replaced_and_ranged(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            assert store.sketches.put(PUMP, T0, "e1", b"half a day")
            assert store.sketches.put(PUMP, T0, "e1", b"the day")
            assert not store.sketches.put(PUMP, T0, "e1", b"the day")
            store.sketches.put(PUMP, T0 + DAY_MS, "e1", b"next")
            store.sketches.put("gannet/P-2", T0, "e2", b"other")
        found = store.sketches.get(PUMP, T0)
        assert found is not None
        assert found.data == b"the day"
        assert store.sketches.get(PUMP, T0 - DAY_MS) is None
        assert [row.data for row in store.sketches.range(PUMP, T0, T0 + DAY_MS)] == [b"the day"]
        assert [row.data for row in store.sketches.of_days(T0, T0 + 1)] == [b"the day", b"other"]


def test_drift_keeps_history_and_knows_the_newest(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.drift.put(PUMP, T0 + 5, {"a": 0.1, "b": 0.4}, 0.4)
            store.drift.put(PUMP, T0, {"a": 0.9}, 0.9)
        row = store.drift.latest()[PUMP]
        assert (row.at_ms, row.worst, row.psi_by_channel) == (T0 + 5, 0.4, {"a": 0.1, "b": 0.4})
        assert [one.worst for one in store.drift.of(PUMP)] == [0.9, 0.4]
        facts = store.facts()[PUMP]
        assert (facts.drift_psi, facts.drift_channel, facts.drift_ms) == (0.4, "b", T0 + 5)


def test_a_row_that_was_damaged_is_told_as_damage(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.atomic():
            store.registry.add(version())
            store._sql.write("UPDATE model_version SET body = '{}'")
        with pytest.raises(DamagedError, match="cannot be read"):
            store.registry.versions("esp-health")


def test_artifacts_are_kept_by_digest_and_proven_on_reading(tmp_path: Path) -> None:
    artifacts = ArtifactStore(tmp_path, RealFileSystem())
    digest = artifacts.put(b"bytes")
    assert digest == sha("bytes")
    assert artifacts.put(b"bytes") == digest
    assert (artifacts.has(digest), artifacts.get(digest)) == (True, b"bytes")
    assert artifacts.path(digest) == tmp_path / "sha256" / digest[:2] / digest
    artifacts.path(digest).write_bytes(b"bitten")
    with pytest.raises(DamagedError):
        artifacts.get(digest)
    artifacts.put(b"bytes")
    assert artifacts.get(digest) == b"bytes"
    assert not artifacts.has(sha("none"))
    with pytest.raises(NotFoundError):
        artifacts.get(sha("none"))
    with pytest.raises(FormatError):
        artifacts.path("../../etc/passwd")


def test_the_clock_is_the_one_handed_in(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert isinstance(store.clock, FixedClock)
        with store.atomic():
            assert store.audit.append("actor-1", "did", "this").at_ms == T0
