"""A bundle at the device: installed like over SSH, a signed return on the stick, and a page for the technician."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_agent.main import main
from pumpdeck_agent.trial import TrialReport
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex
from pumpdeck_packaging.bundle_returns import read_envelope, read_item, return_folder
from pumpdeck_packaging.bundle_stick import Stick, StickFileSystem, real_stick
from pumpdeck_packaging.signing import verify_dsse
from support.devices import NOW_MS, Bench, ScriptedRunner, package, quiet_rows
from support.sticks import FullDisk, LyingDisk, ReadOnlyDisk, export_to, parts_for, stick_on

BUILT = package()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def stick(bench: Bench, tmp_path: Path) -> Stick:
    """A stick with the first package for the bench's device."""
    stick = real_stick(tmp_path / "stick" / "pumpdeck")
    export_to(stick, parts_for(bench.assign(BUILT), BUILT))
    return stick


def visit(bench: Bench, stick: Stick) -> StickVisit:
    return install_from(bench.agent(), stick)


def standing(bench: Bench) -> dict[str, object]:
    """The device's status without what other programs change."""
    return {name: value for name, value in bench.status().items() if name != "free_bytes"}


def index_of(bench: Bench, stick: Stick) -> ReturnIndex:
    envelope = read_envelope(stick.fs, stick.folder, bench.device)
    keys = {bench.identity.key_id: bench.identity.public_pem}
    payload = verify_dsse(envelope, RETURN_PAYLOAD_TYPE, keys, 1 << 20)
    return canonical.decode(ReturnIndex, payload, "return", max_bytes=1 << 20)


def test_a_device_without_network_runs_what_the_stick_brought(bench: Bench, stick: Stick) -> None:
    found = visit(bench, stick)
    assert (found.outcome, found.exit_code, found.problem) == ("committed", 0, "")
    assert bench.status()["active"] == BUILT.sha256
    index = index_of(bench, stick)
    assert [item.kind.value for item in index.items] == ["receipt"]
    data = read_item(stick.fs, stick.folder, bench.device, index.items[0])
    assert bench.receipt(data)["outcome"] == "committed"


def test_the_page_has_three_lines_that_say_what_happened(bench: Bench, stick: Stick) -> None:
    visit(bench, stick)
    lines = (return_folder(stick.folder, bench.device) / "report.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert "gannet-d1" in lines[0] and "P-101A" in lines[0]
    assert "runs now" in lines[1]
    assert "pull the stick" in lines[2] and "1 things" in lines[2]


def test_a_second_visit_changes_nothing_and_says_the_same(bench: Bench, stick: Stick) -> None:
    visit(bench, stick)
    before = standing(bench)
    again = visit(bench, stick)
    assert (again.outcome, again.exit_code) == ("committed", 0)
    assert standing(bench) == before
    assert index_of(bench, stick).counter == 2


def test_rows_and_scores_come_back_and_stay_until_the_console_says_so(bench: Bench, stick: Stick) -> None:
    from pumpdeck_agent.config import Layout
    from pumpdeck_agent.serve import make_scorer

    visit(bench, stick)
    bench.spool("a.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    make_scorer(bench.platform, Layout(bench.root)).score_spool()
    visit(bench, stick)
    kinds = [item.kind.value for item in index_of(bench, stick).items]
    assert kinds[0] == "receipt" and {"segment", "scores", "sketch"} <= set(kinds)
    assert bench.status()["outbox"]["items"] == len(kinds)


def test_items_of_the_return_before_are_removed_once_the_new_one_stands(bench: Bench, stick: Stick) -> None:
    visit(bench, stick)
    bench.agent().ack([item.digest for item in index_of(bench, stick).items])
    visit(bench, stick)
    folder = return_folder(stick.folder, bench.device)
    assert sorted(path.name for path in folder.iterdir()) == ["report.txt", "return.json"]
    assert index_of(bench, stick).items == ()


def test_a_failed_trial_comes_back_as_a_signed_word(tmp_path: Path) -> None:
    bench = Bench(tmp_path, runner=ScriptedRunner(TrialReport(False, "a golden answer differs", None)))
    stick = real_stick(tmp_path / "stick")
    export_to(stick, parts_for(bench.assign(BUILT), BUILT))
    found = visit(bench, stick)
    assert (found.outcome, found.exit_code) == ("rolled_back", 0)
    assert bench.status()["state"] == "NO_MODEL"
    assert "failed its trial" in (return_folder(stick.folder, bench.device) / "report.txt").read_text(encoding="utf-8")


def test_a_stick_for_others_takes_the_return_along(bench: Bench, tmp_path: Path) -> None:
    other = package("gannet-d2")
    stick = real_stick(tmp_path / "stick")
    bench.install(BUILT)
    files = bench.assign(package(shift=0.5))
    export_to(stick, parts_for(files, other, device="gannet-d2"))
    found = visit(bench, stick)
    assert (found.outcome, found.returned, found.exit_code) == ("none", 1, 0)
    assert bench.status()["active"] == BUILT.sha256


def test_without_a_whole_bundle_nothing_is_read_or_written(bench: Bench, stick: Stick) -> None:
    (stick.folder / "bundle.json").unlink()
    found = visit(bench, stick)
    assert (found.outcome, found.exit_code) == ("refused", 6)
    assert bench.status()["state"] == "NO_MODEL"
    assert not (stick.folder / "returns").exists()


def test_a_write_protected_stick_still_installs_and_the_receipt_waits(bench: Bench, stick: Stick) -> None:
    locked = stick_on(ReadOnlyDisk(StickFileSystem(stick.folder)), stick.folder)  # type: ignore[arg-type]
    found = visit(bench, locked)
    assert (found.outcome, found.returned, found.exit_code) == ("committed", -1, 4)
    assert "Read-only" in found.problem
    assert bench.status()["outbox"]["items"] == 1
    assert visit(bench, stick).returned == 1


@pytest.mark.parametrize("room", [0, 10, 400, 900, 1500])
def test_a_full_stick_still_installs_and_is_usable_when_emptied(bench: Bench, stick: Stick, room: int) -> None:
    full = stick_on(FullDisk(StickFileSystem(stick.folder), room, said=1 << 30), stick.folder)  # type: ignore[arg-type]
    found = visit(bench, full)
    assert found.outcome == "committed"
    assert bench.status()["active"] == BUILT.sha256
    assert (found.returned, found.exit_code) == (-1, 4) or room == 1500
    assert visit(bench, stick).returned == 1


def test_a_lying_stick_is_found_out_before_the_return_counts(bench: Bench, stick: Stick) -> None:
    lying = stick_on(LyingDisk(StickFileSystem(stick.folder), 700), stick.folder)  # type: ignore[arg-type]
    found = visit(bench, lying)
    assert (found.outcome, found.returned, found.exit_code) == ("committed", -1, 4)
    assert "other bytes" in found.problem
    assert not (return_folder(stick.folder, bench.device) / "return.json").exists()


def test_the_command_prints_json_and_its_exit_code_tells(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["install-from", "--root", str(bench.root), str(tmp_path / "empty")]) == 6
    said = json.loads(capsysbinary.readouterr().out)
    assert said["outcome"] == "refused" and "bundle.json" in said["reason"]
