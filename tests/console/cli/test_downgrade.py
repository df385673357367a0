"""`pumpdeck trust downgrade`: two people sign a word into a file, the next assignment of its package carries it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pumpdeck_console.operations.assigning import SiteAssigner
from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ReplayError
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.trust_repository import PackageRelease
from pumpdeck_packaging.verify import TrustState, verify_assignment
from support.packages import built_package
from support.small_fleet import NOW_MS


@pytest.fixture
def founded(own: Path, tmp_path: Path, run) -> Path:
    """A workspace with founded sites; root keys lie in `keys/root`."""
    keys = tmp_path / "keys"
    words = ("trust", "init", "--root-keys", str(keys / "root"), "--store", "file", "--key-folder", str(keys / "mine"))
    code, _, err = run(*words, "--insecure-storage", at=own)
    assert code == 0, err
    return own


def _device(workspace: Path) -> tuple[str, str, str]:
    """A device with a package in the workspace: device, site, digest."""
    with open_workspace(workspace) as one:
        for device in one.fleet.devices:
            rows = one.store.packages.for_device(device.id)
            if rows:
                return device.id, device.site, rows[0].sha256
    raise AssertionError("the seeded workspace has no package")


def _ask(run, founded: Path, file: Path, *more: str):
    device, _, package = _device(founded)
    words = ("--package", package[:10], "--reason", "v9 alarms at night", "--to", str(file), "--json", *more)
    return run("trust", "downgrade", "ask", device, *words, at=founded)


def test_two_people_sign_and_the_word_waits_for_its_rollout(founded: Path, tmp_path: Path, run) -> None:
    file, root_key = tmp_path / "word.json", tmp_path / "keys" / "root" / "root-2.key"
    device, site, package = _device(founded)
    code, out, err = _ask(run, founded, file)
    assert code == 0, err
    assert (json.loads(out)["missing"], json.loads(out)["package"]) == (1, package)
    code, _, err = run("trust", "downgrade", "take", str(file), at=founded)
    assert code == 3
    assert "two people" in err
    sign = ("trust", "downgrade", "sign", str(file), "--yes")
    code, _, err = run(*sign, at=founded)
    assert code == 3, "the same person again"
    assert "already" in err
    code, out, err = run(*sign, "--root-key", str(root_key), "--insecure-storage", "--json", at=founded)
    assert code == 0, err
    assert json.loads(out)["missing"] == 0
    assert "v9 alarms at night" in err
    assert run("trust", "downgrade", "take", str(file), at=founded)[0] == 0
    rows = json.loads(run("trust", "downgrade", "list", "--json", at=founded)[1])
    assert [(row["device"], row["site"], row["package"]) for row in rows] == [(device, site, package)]
    with open_workspace(founded) as workspace:
        actions = [entry.action for entry in workspace.store.audit.entries()]
    assert [action for action in actions if action.startswith("downgrade.")] == [
        "downgrade.ask", "downgrade.sign", "downgrade.take"
    ]  # fmt: skip


def test_a_file_that_is_there_is_not_written_over(founded: Path, tmp_path: Path, run) -> None:
    file = tmp_path / "word.json"
    file.write_bytes(b"mine")
    code, _, err = _ask(run, founded, file)
    assert (code, file.read_bytes()) == (3, b"mine")
    assert "never written over" in err


def test_a_package_that_is_not_this_devices_is_not_found(founded: Path, tmp_path: Path, run) -> None:
    device, _, _ = _device(founded)
    words = ("--package", "0123456789", "--reason", "x", "--to", str(tmp_path / "word.json"))
    assert run("trust", "downgrade", "ask", device, *words, at=founded)[0] == 6


def test_an_altered_file_is_refused(founded: Path, tmp_path: Path, run) -> None:
    file = tmp_path / "word.json"
    _ask(run, founded, file)
    file.write_bytes(file.read_bytes().replace(b"payloadType", b"payloadTypo"))
    assert run("trust", "downgrade", "sign", str(file), "--yes", at=founded)[0] == 5


def test_the_assignment_carries_the_word_once(founded: Path, tmp_path: Path, run) -> None:
    """From the shelf into one signed assignment, which the device's own verifier takes; the next one has none."""
    with open_workspace(founded) as workspace:
        device = workspace.fleet.devices[0]
        built = built_package(device.id)
        trust = workspace.trust(device.site)
        trust.release([PackageRelease(built, {"esp-health": 1})], [workspace.signing_key("release", device.site).signer])
        shelf = workspace.downgrades(device.site)
        word = shelf.new_word(device.id, built.sha256, "v9 alarms at night", trust.next_seq() + 200)
        file = tmp_path / "word.json"
        from pumpdeck_packaging.downgrade import sign_downgrade

        file.write_bytes(sign_downgrade(word, workspace.signing_key("deploy", device.site).signer))
    root_key = tmp_path / "keys" / "root" / "root-3.key"
    sign = ("trust", "downgrade", "sign", str(file), "--yes", "--root-key", str(root_key), "--insecure-storage")
    assert run(*sign, at=founded)[0] == 0
    assert run("trust", "downgrade", "take", str(file), at=founded)[0] == 0
    with open_workspace(founded) as workspace:
        trust, assigner = workspace.trust(device.site), SiteAssigner(workspace)
        seq = trust.next_seq() + 1
        assigner.assign(device.site, [Assignment(1, device.id, built.sha256, seq, NOW_MS, 0, "t-1")])
        files = dict(assigner.files_for(device.site, device.id))
        state = TrustState(device.id, device.site, files["1.root.json"])
        verified = verify_assignment(state, files, now_ms=NOW_MS, clock_synced=False)
        assert verified.token is not None
        assert verified.token.digest == canonical.digest(canonical.encode(word))
        assert workspace.downgrades(device.site).waiting() == ()
        assigner.assign(device.site, [Assignment(1, device.id, built.sha256, seq, NOW_MS, 0, "t-1")])
        assert dict(assigner.files_for(device.site, device.id)) == files, "signing again says the same"
        assigner.assign(device.site, [Assignment(1, device.id, built.sha256, seq + 300, NOW_MS, 0, "t-2")])
        later = dict(assigner.files_for(device.site, device.id))
        assert verify_assignment(state, later, now_ms=NOW_MS, clock_synced=False).token is None
        assigner.assign(device.site, [Assignment(1, device.id, built.sha256, seq + 301, NOW_MS, 0, "t-3")])
        with pytest.raises(ReplayError):
            assigner.assign(device.site, [Assignment(1, device.id, built.sha256, seq, NOW_MS, 0, "t-9")])


def test_terms_stand_in_the_plan_and_a_bad_permit_is_a_usage_error(own: Path, run) -> None:
    words = ("rollout", "plan", "--permit", "WO-77", "--retry", "--shadow-hours", "24")
    code, _, err = run(*words, at=own)
    assert code in (0, 3)
    if code == 0:
        assert "permit WO-77, tried again where it failed before, 24 h of shadow scoring" in err
    code, _, err = run("rollout", "plan", "--permit", "WO;77", at=own)
    assert code == 2
    assert "permit" in err
