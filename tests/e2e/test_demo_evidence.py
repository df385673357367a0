"""Everything that the demo's summary claims, counted again by other code from the files it left behind."""

from __future__ import annotations

import copy
import csv
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from support import recount
from support.demo_runs import Demo
from support.recount_store import DAY_MS, StoreRecount

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def store(demo: Demo) -> Iterator[StoreRecount]:
    found = StoreRecount(demo.workspace)
    yield found
    found.close()


def device_root(demo: Demo, device: str) -> Path:
    return demo.devices / device


def devices_of(demo: Demo) -> list[str]:
    return sorted(path.name for path in demo.devices.iterdir())


def pumps_of(demo: Demo, device: str) -> list[str]:
    config = json.loads((device_root(demo, device) / "agent.json").read_bytes())
    return [f"{config['site']}/{pump['tag']}" for pump in config["pumps"]]


def rows_in(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    with path.open(newline="", encoding="utf-8") as stream:
        return sum(1 for _ in csv.reader(stream, delimiter=";")) - 1


def test_every_step_is_ok_and_lists_no_problem(demo: Demo) -> None:
    steps = demo.summary["steps"]
    assert list(steps) == ["ingest", "train", "package", "rollout", "receipts", "scores", "drift", "audit"]
    assert all(step["ok"] is True and step["evidence"]["problems"] == [] for step in steps.values())
    assert demo.summary["ok"] is True


def test_ingest_files_are_those_on_disk_row_by_row(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("ingest")
    on_disk = sorted(path.name for path in demo.history.iterdir() if path.suffix in (".csv", ".parquet"))
    assert sorted(one["file"] for one in evidence["files"]) == [name for name in on_disk if name != "labels.csv"]
    sources = {row[0] for row in store.sql.execute("SELECT digest FROM source")}
    for one in evidence["files"]:
        path = demo.history / one["file"]
        assert one["sha256"] == recount.sha256(path.read_bytes())
        assert one["rows"] == one["new"] == rows_in(path)
        assert one["source"] == store.source_digest(path, path.name.rpartition("-")[0])
        assert one["source"] in sources
    assert evidence["rows"] == sum(one["rows"] for one in evidence["files"])
    assert evidence["labels"] == store.count("label")
    with (demo.history / "labels.csv").open(newline="", encoding="utf-8") as stream:
        assert evidence["labels"] == sum(1 for _ in csv.DictReader(stream))


def test_ingest_rows_are_in_the_store_chunk_by_chunk(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("ingest")
    rows = {pump: store.rows("telemetry", pump) for pump in store.pumps("telemetry")}
    assert evidence["rows_in_store"] == sum(len(one.at_ms) for one in rows.values()) == evidence["rows"]
    assert evidence["pumps"] == len(rows) == 24
    flagged = {pump: int((one.flags != 0).sum()) for pump, one in rows.items()}
    assert evidence["flagged"] == sum(flagged.values())
    types = {pump["pump"]: version["pump_type"] for version in store.versions() for pump in version["pumps"]}
    for one in evidence["files"]:
        site, _, pump_type = Path(one["file"]).stem.rpartition("-")
        of_file = [count for pump, count in flagged.items() if pump.startswith(f"{site}/") and types[pump] == pump_type]
        assert one["flagged"] == sum(of_file)


def test_models_and_their_digests(demo: Demo, store: StoreRecount) -> None:
    models = demo.evidence("train")["models"]
    assert [(one["model"], one["version"]) for one in models] == [(v["model"], v["number"]) for v in store.versions()]
    for one in models:
        version = store.version(one["model"], one["version"])
        assert one["content_digest"] == store.content_digest(version)
        for name in ("onnx", "card", "run_record"):
            assert one[f"{name}_digest"] == recount.sha256(store.artifact(one[f"{name}_digest"]))
        record = store.json_artifact(one["run_record_digest"])
        of_run = {gate["name"]: gate["verdict"] for gate in record["gates"]}
        registered = {"champion", "slices", "coverage", "profile"}
        assert one["gates"] == {gate["name"]: gate["verdict"] for gate in version["gates"]}
        assert one["gates"].items() >= of_run.items() and one["gates"].keys() - of_run.keys() == registered
        assert one["pumps"] == len(record["pumps"]) == len(version["pumps"])


def test_snapshot_digests_name_exactly_the_rows_before_the_last_day(demo: Demo, store: StoreRecount) -> None:
    end_ms = demo.mark()["end_ms"]
    for one in demo.evidence("train")["models"]:
        record = store.json_artifact(one["run_record_digest"])
        request = record["request"]
        assert request["end_ms"] == end_ms - DAY_MS + 1
        assert one["snapshot_digest"] == store.snapshot_digest(
            sorted(record["pumps"]), request["start_ms"], request["end_ms"]
        )


def test_packages_in_the_artifacts(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("package")
    assert sorted(one["device"] for one in evidence["packages"]) == devices_of(demo)
    for one in evidence["packages"]:
        data = store.artifact(one["sha256"])
        members = recount.unpack(data)
        manifest = recount.check_manifest(members)
        assert (one["bytes"], one["device"]) == (len(data), manifest["device"])
        assert one["pumps"] == [pump["tag"] for pump in manifest["pumps"]]
        site = one["device"].rpartition("-")[0]
        assert sorted(f"{site}/{tag}" for tag in one["pumps"]) == sorted(pumps_of(demo, one["device"]))
        for model in manifest["models"]:
            (version,) = [v for v in store.versions() if v["model"] == model["model"]]
            assert model["content_digest"] == version["content_digest"]
            (payload,) = [entry for entry in manifest["payloads"] if entry["path"] == model["payload"]]
            assert recount.sha256(members[model["payload"]]) == payload["digest"] == version["onnx_digest"]
            assert recount.sha256(members[model["golden"]]) == version["golden_digest"]
    assert evidence["bytes"] == sum(one["bytes"] for one in evidence["packages"])


def test_each_device_holds_and_runs_exactly_its_package(demo: Demo, store: StoreRecount) -> None:
    active = demo.evidence("rollout")["active"]
    packages = {one["device"]: one["sha256"] for one in demo.evidence("package")["packages"]}
    assert active == packages
    for device, digest in packages.items():
        root = device_root(demo, device)
        state = recount.device_state(root)
        held = recount.folder_members(root / "store" / digest)
        assert (state["active"]["sha256"], state["phase"]) == (digest, "ACTIVE")
        assert state["active"]["manifest"] == recount.sha256(held["manifest.json"])
        recount.check_manifest(held)
        assert held == recount.unpack(store.artifact(digest))
        assert [path.name for path in (root / "store").iterdir()] == [digest]


def test_the_rollout_is_what_the_store_says(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("rollout")
    (rollout,) = store.rollouts()
    assert evidence["rollout"] == rollout["plan"]["id"]
    assert evidence["plan_digest"] == recount.sha256(recount.canonical(rollout["plan"]))
    assert evidence["state"] == rollout["state"] == "COMPLETED"
    assert evidence["waves"] == [wave["state"] for wave in rollout["waves"]] == ["PASSED"] * 3
    assert evidence["tasks"] == {device: task["state"] for device, task in rollout["tasks"].items()}
    assert set(evidence["tasks"].values()) == {"COMMITTED"}
    assert [len(evidence["agents_as_processes"]), evidence["agents_in_simulator"]] == [3, len(devices_of(demo)) - 3]
    assert evidence["agents_as_processes"] == demo.mark()["processes"]
    assert evidence["champion"] == store.aliases("champion")
    assert evidence["delivery_problems"] == {}
    # An agent that is a process of its own leaves a log; those in the simulator do not.
    with_log = {path.parent.name for path in demo.devices.glob("*/agent.log")}
    assert with_log == set(evidence["agents_as_processes"])


def test_receipts_are_signed_by_the_key_in_the_device_folder(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("receipts")
    claimed = {(one["device"], one["counter"]): one for one in evidence["receipts"]}
    stored = store.receipts()
    assert sorted(claimed) == [(device, counter) for device, counter, _, _ in stored]
    for device, counter, key_id, envelope in stored:
        public_pem = (device_root(demo, device) / "device.pub").read_text(encoding="ascii")
        told = recount.open_envelope(envelope, recount.RECEIPT_TYPE, public_pem)
        one = claimed[device, counter]
        assert one["sha256"] == recount.sha256(envelope)
        assert one["key_id"] == key_id == recount.key_id(public_pem)
        assert (told["device"], told["counter"]) == (device, counter)
        assert (one["outcome"], one["package_sha256"]) == (told["outcome"], told["package_sha256"])
        assert told["active_sha256"] == recount.device_state(device_root(demo, device))["active"]["sha256"]
    assert evidence["devices"] == len({device for device, _ in claimed}) == len(devices_of(demo))


def test_scored_rows_in_the_store_and_on_the_devices(demo: Demo, store: StoreRecount) -> None:
    evidence, end_ms = demo.evidence("scores"), demo.mark()["end_ms"]
    for device in devices_of(demo):
        figures = recount.device_figures(device_root(demo, device))
        on_device = {f"{device.rpartition('-')[0]}/{tag}": one["scored_rows"] for tag, one in figures.items()}
        scores = {pump: store.rows("scores", pump) for pump in pumps_of(demo, device)}
        in_store = {pump: len(rows.between(end_ms - DAY_MS + 1, end_ms + 1).at_ms) for pump, rows in scores.items()}
        assert on_device == in_store
        assert evidence["rows_by_device"][device] == sum(in_store.values()) == 4 * 24 * 60
        # Each score stands at the time of a row that the device was given.
        for pump, rows in scores.items():
            given = store.rows("telemetry", pump).between(end_ms - DAY_MS + 1, end_ms + 1)
            assert rows.at_ms.tolist() == given.at_ms.tolist()
    assert evidence["rows"] == sum(evidence["rows_by_device"].values())


def test_alarms_against_the_injected_faults(demo: Demo, store: StoreRecount) -> None:
    evidence, end_ms = demo.evidence("scores"), demo.mark()["end_ms"]
    truth = json.loads((demo.history / "truth.json").read_text(encoding="utf-8"))
    injected = {one["pump"]: one for one in truth["faults"] if one["alarm_expected_last_day"]}
    raised = alarms_from_scores(store, end_ms)
    notices = [one for one in store.alarms() if one["raised"]]
    assert sorted((one["pump"], one["at_ms"]) for one in notices) == raised
    assert evidence["faults_injected"] == len(injected) > 0
    firsts = {
        pump: min((at for name, at in raised if name == pump and at >= fault["onset_ms"]), default=None)
        for pump, fault in injected.items()
    }
    channels = {(one["pump"], one["at_ms"]): one["channel"] for one in notices}
    for one in evidence["faults"]:
        fault = injected[one["pump"]]
        assert (one["kind"], one["onset_ms"]) == (fault["kind"], fault["onset_ms"])
        assert one["alarmed_ms"] == firsts[one["pump"]]
        assert one["channel"] == channels.get((one["pump"], one["alarmed_ms"]), "")
    assert sorted(one["pump"] for one in evidence["faults"]) == sorted(injected)
    assert evidence["faults_alarmed"] == sum(first is not None for first in firsts.values()) > 0
    onsets = {one["pump"]: one["onset_ms"] for one in truth["faults"]}
    false = [(pump, at) for pump, at in raised if at < onsets.get(pump, math.inf)]
    assert evidence["false_alarms"] == len(false)
    assert evidence["pumps_with_false_alarms"] == sorted({pump for pump, _ in false})


def alarms_from_scores(store: StoreRecount, end_ms: int) -> list[tuple[str, int]]:
    """(pump, time) of each row at which a device's own scores turn to alarmed."""
    found = []
    for pump in store.pumps("scores"):
        rows = store.rows("scores", pump).between(end_ms - DAY_MS + 1, end_ms + 1)
        alarmed = rows.column("alarmed") > 0.5
        assert len(alarmed) == len(rows.at_ms)
        turned = alarmed & ~np.concatenate([[False], alarmed[:-1]])
        found += [(pump, int(at)) for at in rows.at_ms[turned]]
    return found


def test_psi_from_the_raw_rows(demo: Demo, store: StoreRecount) -> None:
    evidence, end_ms = demo.evidence("drift"), demo.mark()["end_ms"]
    versions = {held["pump"]: version for version in store.versions() for held in version["pumps"]}
    psi = {pump: store.psi(pump, version, (end_ms - DAY_MS + 1, end_ms + 1)) for pump, version in versions.items()}
    worst = {pump: max(found.values()) for pump, found in psi.items()}
    assert evidence["psi"] == pytest.approx(worst, abs=1e-6)
    assert evidence["pumps"] == len(worst) == 24
    policies = tomllib.loads((demo.workspace / "policies.toml").read_text(encoding="utf-8"))
    assert evidence["limit"] == policies["health"]["drift_psi"]
    assert evidence["drifted"] == sum(value > evidence["limit"] for value in worst.values())
    for one in evidence["worst"]:
        assert one["psi"] == pytest.approx(psi[one["pump"]][one["channel"]], abs=1e-6)
        assert one["rows"] == 24 * 60
    ranked = sorted(worst.values(), reverse=True)
    assert [one["psi"] for one in evidence["worst"]] == pytest.approx(ranked[:5], abs=1e-6)
    for pump, at_ms, body in store.sql.execute("SELECT pump, at_ms, body FROM drift"):
        assert json.loads(body) == pytest.approx(psi[pump], abs=1e-9)
        assert at_ms == end_ms


def test_the_audit_chain_entry_by_entry(demo: Demo, store: StoreRecount) -> None:
    evidence = demo.evidence("audit")
    chain, position, head = store.audit_head()
    assert (evidence["chain"], evidence["entries"], evidence["head"]) == (chain, position, head)
    assert store.sql.execute("SELECT chain, position, digest FROM audit_head").fetchall() == [(chain, position, head)]
    actions = store.audit_actions()
    assert actions["package.release"] == actions["task.committed"] == actions["device.enrol"] == len(devices_of(demo))
    assert actions["ingest"] == len(demo.evidence("ingest")["files"])


RECOUNTS = {
    "ingest": (test_ingest_files_are_those_on_disk_row_by_row, test_ingest_rows_are_in_the_store_chunk_by_chunk),
    "train": (test_models_and_their_digests, test_snapshot_digests_name_exactly_the_rows_before_the_last_day),
    "package": (test_packages_in_the_artifacts, test_each_device_holds_and_runs_exactly_its_package),
    "rollout": (test_the_rollout_is_what_the_store_says, test_each_device_holds_and_runs_exactly_its_package),
    "receipts": (test_receipts_are_signed_by_the_key_in_the_device_folder,),
    "scores": (test_scored_rows_in_the_store_and_on_the_devices, test_alarms_against_the_injected_faults),
    "drift": (test_psi_from_the_raw_rows,),
    "audit": (test_the_audit_chain_entry_by_entry,),
}


def test_no_figure_can_be_changed_without_a_recount_that_sees_it(demo: Demo, store: StoreRecount) -> None:
    """Each kind of figure in the evidence, changed one at a time: the tests above fail. New evidence needs a recount."""
    unseen = []
    for step, recounts in RECOUNTS.items():
        for path in kinds_of_figures(demo.evidence(step)):
            summary = copy.deepcopy(demo.summary)
            spoil(summary["steps"][step]["evidence"], path)
            if not any(fails(one, Demo(demo.workspace, summary), store) for one in recounts):
                unseen.append((step, path))
    assert unseen == []


def kinds_of_figures(evidence: dict[str, Any]) -> list[tuple[Any, ...]]:
    """A path to one figure of each kind: entries of one list or of one mapping by device or pump are of one kind."""
    found: dict[tuple[str, ...], tuple[Any, ...]] = {}

    def walk(value: Any, path: tuple[Any, ...], kind: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*path, key), (*kind, "*" if "-" in key or "/" in key else key))
        elif isinstance(value, list) and value:
            walk(value[0], (*path, 0), (*kind, "*"))
        elif path[0] != "problems":
            found.setdefault(kind, path)

    walk(evidence, (), ())
    return list(found.values())


def spoil(evidence: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Change the figure at that path."""
    holder: Any = evidence
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    if isinstance(old, str):
        holder[path[-1]] = old[:-1] + ("1" if old.endswith("0") else "0")
    elif isinstance(old, (int, float)):
        holder[path[-1]] = old + 1
    else:
        holder[path[-1]] = ["other"] if isinstance(old, list) else {"other": 1}


def fails(recount_of: Callable[[Demo, StoreRecount], None], demo: Demo, store: StoreRecount) -> bool:
    """True when that recount does not agree with the demo's summary."""
    try:
        recount_of(demo, store)
    except (AssertionError, LookupError, OSError, ValueError):
        return True
    return False
