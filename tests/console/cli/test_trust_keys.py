"""`pumpdeck trust add .. publish`: ceremonies as people do them, over files; what is refused leaves every file as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_packaging.signing import generate_key
from support.ceremony import tree
from support.small_fleet import NOW_MS


@pytest.fixture
def founded(own, tmp_path, run):
    """A workspace with trust at both sites; `keys/root` holds the three root keys."""
    keys = tmp_path / "keys"
    words = ["--root-keys", str(keys / "root"), "--store", "file", "--key-folder", str(keys / "mine"), "--insecure-storage"]
    assert run("trust", "init", *words, at=own)[0] == 0
    return own


def found_keys(run, at: Path, role: str, site: str = "gannet") -> list[dict]:
    status = json.loads(run("trust", "status", "--json", at=at)[1])
    return [row for row in status["roles"] if (row["role"], row["site"]) == (role, site)]


def pub(path: Path) -> Path:
    path.write_text(generate_key().openssh_public + " new\n", encoding="ascii")
    return path


def roots(tmp_path: Path, *numbers: int) -> list[str]:
    return [word for number in numbers for word in ("--key-file", f"root-{number}={tmp_path}/keys/root/root-{number}.key")]


def test_status_says_who_holds_what_until_when(founded, run):
    status = json.loads(run("trust", "status", "gannet", "--json", at=founded)[1])
    assert {row["site"] for row in status["roles"]} == {"gannet"}
    root = found_keys(run, founded, "root")
    assert [(row["holder"], row["threshold"], row["role_keys"], row["here"]) for row in root] == [
        ("root-1", 2, 3, False), ("root-2", 2, 3, False), ("root-3", 2, 3, False),
    ]  # fmt: skip
    (deploy,) = found_keys(run, founded, "deploy")
    assert (deploy["holder"], deploy["slot"], deploy["here"], deploy["version"]) == ("Ada Field, deploy", 0, True, 64)
    assert deploy["expires"].startswith("2026-08") and deploy["warning"] == ""


def test_status_warns_long_before_anything_binds(founded, run, monkeypatch):
    from pumpdeck_console import wiring

    late = NOW_MS + 150 * 86_400_000
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(late))
    (deploy,) = found_keys(run, founded, "deploy")
    assert deploy["warning"].startswith("runs out on 2026-08")


def test_a_ceremony_over_two_computers(founded, tmp_path, run):
    """Proposed here, signed twice elsewhere without a workspace, published here."""
    file, elsewhere = tmp_path / "change.json", tmp_path / "elsewhere"
    new = pub(tmp_path / "laptop-2.pub")
    code, out, err = run(
        "trust", "add", "deploy", str(new), "--holder", "laptop 2", "--to", str(file), "--yes", "--json", at=founded
    )
    assert code == 0, err
    told = json.loads(out)
    lacks = {(lack["site"], lack["role"], lack["has"]) for lack in told["lacks"]}
    assert lacks == {("gannet", "root", 0), ("wadi-rahl", "root", 0)}
    before = tree(founded / "trust")
    code, _, err = run("trust", "publish", str(file), "--yes", at=founded)
    assert code == 3 and "not signed by enough people" in err and "root-1" in err
    for number in (1, 3):
        code, out, err = run("trust", "sign", str(file), *roots(tmp_path, number), "--yes", "--json", at=elsewhere)
        assert code == 0, err
        assert json.loads(out)["words"] == told["words"]
    assert tree(founded / "trust") == before
    code, out, err = run("trust", "publish", str(file), "--yes", "--json", at=founded)
    assert code == 0, err
    assert json.loads(out)["published"] == {"gannet": 2, "wadi-rahl": 2}
    holders = [(row["holder"], row["slot"]) for row in found_keys(run, founded, "deploy")]
    assert holders == [("Ada Field, deploy", 0), ("laptop 2", 1)]
    with open_workspace(founded) as workspace:
        entries = [entry for entry in workspace.store.audit.entries() if entry.action == "trust.change"]
    assert len(entries) == 2 and "+deploy" in entries[0].reason
    code, out, _ = run("trust", "publish", str(file), "--yes", "--json", at=founded)
    assert (code, json.loads(out)["already"]) == (0, ["gannet", "wadi-rahl"])


def test_copies_signed_apart_are_published_together(founded, tmp_path, run):
    file = tmp_path / "change.json"
    run("trust", "renew", "--site", "gannet", "--to", str(file), "--yes", at=founded)
    copies = []
    for number in (2, 3):
        copy = tmp_path / f"copy-{number}.json"
        copy.write_bytes(file.read_bytes())
        assert run("trust", "sign", str(copy), *roots(tmp_path, number), "--yes", at=tmp_path)[0] == 0
        assert run("trust", "publish", str(copy), "--yes", at=founded)[0] == 3
        copies.append(str(copy))
    code, out, err = run("trust", "publish", *copies, "--yes", "--json", at=founded)
    assert (code, json.loads(out)["published"]) == (0, {"gannet": 2}), err


def test_a_lost_laptop_is_revoked_everywhere_and_what_it_signed_is_listed(founded, tmp_path, run):
    (lost,) = found_keys(run, founded, "deploy")
    new = json.loads(run("trust", "new-key", "deploy", "--store", "file", "--insecure-storage", "--json", at=founded)[1])
    assert new["name"] == "deploy-2"
    file = tmp_path / "change.json"
    folder = str(tmp_path / "keys" / "root")
    words = ["--holder", "the new laptop", "--root-keys", folder, "--to", str(file), "--yes"]
    assert run("trust", "add", "deploy", new["public_file"], *words, at=founded)[0] == 0
    assert run("trust", "publish", str(file), "--yes", at=founded)[0] == 0
    revoke = ["trust", "revoke", lost["key_id"][:12], "--root-keys", folder, "--to", str(file), "--yes", "--json"]
    code, out, err = run(*revoke, at=founded)
    told = json.loads(out)
    assert code == 0 and told["complete"] and told["signed"] == [], err
    code, out, err = run("trust", "publish", str(file), "--yes", "--json", at=founded)
    assert (code, json.loads(out)["published"]) == (0, {"gannet": 3, "wadi-rahl": 3}), err
    assert [row["key_id"] for row in found_keys(run, founded, "deploy")] == [new["key_id"]]
    exposed = json.loads(run("trust", "exposed", "--json", at=founded)[1])
    with open_workspace(founded) as workspace:
        assert [row["device"] for row in exposed] == sorted(workspace.store.devices.identities())
        holders = json.loads((founded / "trust" / "gannet" / "holders.json").read_bytes())
    assert holders["keys"][lost["key_id"]]["ended"] == "lost key"


@pytest.mark.parametrize("role", ["root", "targets", "release", "deploy"])
def test_a_key_of_each_role_is_rotated(founded, tmp_path, run, role):
    old = found_keys(run, founded, role)[0]
    place = ["--to", str(tmp_path / "root-4.key")] if role == "root" else []
    words = ["--store", "file", "--insecure-storage", "--json", *place]
    new = json.loads(run("trust", "new-key", role, *words, at=founded)[1])
    file = tmp_path / "change.json"
    change = ["trust", "rotate", role, old["key_id"], new["public_file"], "--holder", "new one", "--site", "gannet",
              "--root-keys", str(tmp_path / "keys" / "root"), "--to", str(file), "--yes", "--json"]  # fmt: skip
    code, out, err = run(*change, at=founded)
    assert code == 0 and json.loads(out)["complete"], err
    code, _, err = run("trust", "publish", str(file), "--yes", at=founded)
    assert code == 0, err
    after = found_keys(run, founded, role)
    assert new["key_id"] in {row["key_id"] for row in after} and old["key_id"] not in {row["key_id"] for row in after}
    assert found_keys(run, founded, role, "wadi-rahl")[0]["key_id"] == old["key_id"]


def test_what_is_refused_writes_nothing(founded, tmp_path, run):
    """A private key, a key that is there already, too few left, a stranger's signature, nobody to say yes."""
    file, (deploy,) = tmp_path / "change.json", found_keys(run, founded, "deploy")
    before = tree(founded / "trust")
    mine = tmp_path / "keys" / "mine"
    ways = [
        (2, "private key", ["add", "deploy", str(mine / "deploy.key"), "--holder", "x"]),
        (7, "already", ["add", "release", str(mine / "deploy.pub"), "--holder", "x"]),
        (7, "already", ["add", "root", str(mine / "release.pub"), "--holder", "x"]),
        (3, "slot", ["remove", "deploy", deploy["key_id"][:10]]),
        (6, "no such key", ["remove", "deploy", "0000", "--site", "gannet"]),
        (3, "threshold", ["threshold", "release", "2"]),
    ]
    for code, match, words in ways:
        found, _, err = run("trust", *words, "--to", str(file), "--yes", at=founded)
        assert (found, match in err) == (code, True), (words, err)
        assert not file.exists()
    assert run("trust", "renew", "--to", str(file), at=founded)[0] == 2
    assert not file.exists()
    run("trust", "renew", "--site", "gannet", "--to", str(file), "--yes", at=founded)
    bytes_before = file.read_bytes()
    code, _, err = run("trust", "sign", str(file), "--key-file", f"x={mine / 'deploy.key'}", "--yes", at=tmp_path)
    assert code == 3 and "may sign nothing" in err
    assert file.read_bytes() == bytes_before and tree(founded / "trust") == before


def test_names_of_holders_stay_here_and_can_be_erased(founded, run):
    (deploy,) = found_keys(run, founded, "deploy")
    assert run("trust", "name", "gannet", deploy["key_id"][:10], "Grace Rig", at=founded)[0] == 0
    assert found_keys(run, founded, "deploy")[0]["holder"] == "Grace Rig"
    metadata = b"".join(tree(founded / "trust" / "gannet" / "metadata").values())
    assert b"Grace" not in metadata and b"Ada" not in metadata
    run("trust", "name", "gannet", deploy["key_id"][:10], "", at=founded)
    assert found_keys(run, founded, "deploy")[0]["holder"] is None


def test_devices_are_retired_with_a_plan_and_their_history_is_shown(founded, run):
    code, _, err = run("devices", "retire", "gannet-d1", at=founded)
    assert code == 2 and "is believed no more" in err
    code, out, _ = run("devices", "retire", "gannet-d1", "--reason", "scrapped", "--yes", "--json", at=founded)
    assert code == 0 and json.loads(out)["is_retired"]
    rows = json.loads(run("devices", "history", "gannet-d1", "--json", at=founded)[1])
    assert [row["what"] for row in rows] == ["key", "receipt"] and "scrapped" in rows[0]["note"]
    assert json.loads(run("devices", "show", "gannet-d1", "--json", at=founded)[1])["enrolled"] is False
    assert "retired" in run("why", "gannet-d1", at=founded)[1]
