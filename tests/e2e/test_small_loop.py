"""The whole loop in small, through the command line: 2 sites, 8 pumps, real SSH on loopback, real agents."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from pumpdeck_console import main
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import RECEIPT_MAX_BYTES, RECEIPT_PAYLOAD_TYPE, Outcome, Receipt
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_sample.fleet import FleetSize
from support.living_fleet import LivingFleet, living_fleet

pytestmark = pytest.mark.e2e

SCORING_LIMIT_S = 90.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingFleet]:
    with living_fleet(tmp_path_factory.mktemp("loop"), FleetSize(2, 1, 4)) as made:
        yield made


class Console:
    """Commands of one workspace; `expect` is the exit code that must come."""

    def __init__(self, fleet: LivingFleet, capsys: pytest.CaptureFixture[str]) -> None:
        self._root = str(fleet.root)
        self._capsys = capsys

    def __call__(self, *words: str, expect: int = 0):
        code = main.main(["-w", self._root, *words, "--json"])
        out, err = self._capsys.readouterr()
        assert code == expect, f"{words}: {code}\n{out}\n{err}"
        return json.loads(out) if out else json.loads(err)


def test_the_loop_from_a_file_to_a_signed_receipt_and_back(fleet, capsys):
    console = Console(fleet, capsys)
    devices = [device.id for device in fleet.fleet.devices]

    accepted = 0
    for file in fleet.history.files:
        (report,) = console("ingest", str(file.path), "--site", file.site)
        accepted += report["accepted"]
        (again,) = console("ingest", str(file.path), "--site", file.site)
        assert (again["accepted"], again["already"]) == (0, report["accepted"])
    assert accepted == 8 * 5616
    console("label", "import", str(fleet.history.labels))

    trained = console("train")
    assert [row["model"] for row in trained] == ["esp-health", "export-health"]
    assert {row["version"] for row in console("train")} == {1}

    built = console("package", "build")
    assert {row["device"] for row in built} == set(devices)
    again = console("package", "build")
    assert [row["new"] for row in again] == [False, False]
    assert [row["package"] for row in again] == [row["package"] for row in built]
    package_of = {row["device"]: row["package"] for row in built}

    planned = console("rollout", "plan")
    assert {row["package"] for row in planned} == set(package_of.values())
    assert console("rollout", "list") == []
    started = console("rollout", "start")
    assert started["state"] == "PLANNED"
    wrong = console("approve", started["rollout"], "--plan-digest", "0" * 64, expect=3)
    assert wrong["exit_code"] == 3
    running = console("approve", started["rollout"])
    assert running["state"] == "RUNNING"
    told = console("tick", "--until-idle", "--limit", "120")
    assert told["committed"] == 2
    shown = console("rollout", "show", started["rollout"])
    assert shown["state"] == "COMPLETED"
    assert [task["state"] for task in shown["tasks"]] == ["COMMITTED", "COMMITTED"]
    assert console("why", devices[0]) == []

    _check_receipts(fleet, shown, package_of)
    _check_scores(fleet, console)

    figures = console("drift")
    assert {row["pump"] for row in figures} == {pump.id for pump in fleet.fleet.pumps}
    pumps = console("pumps")
    assert {row["version"] for row in pumps} == {1}
    assert {row["package"] for row in pumps} == set(package_of.values())
    assert all(row["score"] is not None and row["health"] is not None for row in pumps)
    champions = [row["model"] for row in console("models") if "champion" in row["aliases"]]
    assert sorted(champions) == ["esp-health", "export-health"]

    verified = console("audit", "verify")
    actions = {row["action"] for row in console("audit", "--limit", "1000")}
    assert verified["verified"] is True
    assert {"workspace.init", "trust.found", "device.enrol", "ingest", "train.run", "package.release"} <= actions
    assert {"rollout.approve", "return.collect", "alias.champion", "drift.judged"} <= actions


def _check_receipts(fleet: LivingFleet, shown: dict, package_of: dict[str, str]) -> None:
    """Each device's receipt, verified here again, from the store and for the package it was sent."""
    with fleet.open() as workspace:
        for task in shown["tasks"]:
            (row,) = workspace.store.receipts.of(task["device"])
            assert canonical.digest(row.envelope) == task["receipt"]
            public = (fleet.device_folder(task["device"]) / "device.pub").read_text(encoding="ascii")
            keys = {row.key_id: public}
            payload = verify_dsse(row.envelope, RECEIPT_PAYLOAD_TYPE, keys, RECEIPT_MAX_BYTES)
            receipt = canonical.decode(Receipt, payload, "receipt", max_bytes=RECEIPT_MAX_BYTES)
            assert receipt.outcome is Outcome.COMMITTED
            assert receipt.package_sha256 == package_of[task["device"]]


def _check_scores(fleet: LivingFleet, console: Console) -> None:
    """Every row of the last day is scored on the device, once, and comes back."""
    deadline = time.monotonic() + SCORING_LIMIT_S
    expected = 1440 * len(fleet.fleet.pumps)
    while True:
        console("collect")
        rows = 0
        with fleet.open() as workspace:
            for pump in fleet.fleet.pumps:
                span = workspace.store.scores.span(pump.id)
                rows += span[2] if span else 0
        if rows >= expected or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert rows == expected
    assert all(row["rows"] == 0 and row["problems"] == "" for row in console("collect"))
