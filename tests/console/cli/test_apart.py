"""`sync`, `backup`, `restore` and `trip` as people type them."""

from __future__ import annotations

import json


def test_a_backup_restored_elsewhere_syncs_back(own, tmp_path, run):
    code, out, _ = run("backup", str(tmp_path / "backup"), "--json", at=own)
    assert code == 0
    assert json.loads(out)["files"] >= 3
    code, out, _ = run("restore", str(tmp_path / "backup"), "--json", at=tmp_path / "new")
    assert code == 0
    restored = json.loads(out)
    assert restored["workspace"] != restored["restored_from"]
    assert restored["unheard"] == 2
    words = ["label", "add", "P-102", "fault:seal", "--from", "2026-02-27", "--to", "2026-02-28T06:00:00Z"]
    assert run(*words, at=tmp_path / "new")[0] == 0
    code, out, _ = run("sync", str(tmp_path / "new"), "--plan", "--json", at=own)
    plan = json.loads(out)
    assert plan["is_plan"] and plan["taken"]["label"] == 1
    code, out, err = run("sync", str(tmp_path / "new"), at=own)
    assert code == 0
    assert "label" in out and "taken from workspace" in err
    code, out, _ = run("sync", str(tmp_path / "new"), "--json", at=own)
    assert (code, json.loads(out)["taken"]) == (0, {})
    code, out, _ = run("label", "list", "--json", at=own)
    assert len(json.loads(out)) == 2


def test_a_restore_needs_a_new_place(own, tmp_path, run):
    run("backup", str(tmp_path / "backup"), at=own)
    code, _, err = run("restore", str(tmp_path / "backup"), at=own)
    assert code == 7
    assert "is there already" in err
    code, _, err = run("restore", str(own), at=tmp_path / "new")
    assert code == 6
    assert "holds no backup" in err
    assert not (tmp_path / "new").exists()


def test_a_damaged_backup_is_refused_by_name(own, tmp_path, run):
    run("backup", str(tmp_path / "backup"), at=own)
    listed = json.loads((tmp_path / "backup" / "backup.json").read_bytes())
    digest = listed["files"]["fleet.toml"]["digest"]
    path = tmp_path / "backup" / "objects" / "sha256" / digest[:2] / digest
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    code, _, err = run("restore", str(tmp_path / "backup"), at=tmp_path / "new")
    assert code == 5
    assert "fleet.toml" in err
    assert not (tmp_path / "new").exists()


def test_a_sync_with_nothing_there_says_so(own, tmp_path, run):
    assert run("sync", str(tmp_path / "nowhere"), at=own)[0] == 6
    code, out, err = run("sync", "--json", at=own)
    assert (code, json.loads(out)) == (0, [])
    code, _, err = run("sync", str(own), at=own)
    assert code == 7
    assert "this very workspace" in err


def test_a_trip_says_what_speaks_against_leaving(own, tmp_path, run):
    code, out, _ = run("trip", "prepare", "site:gannet", "--to", str(tmp_path / "trip"), "--plan", "--json", at=own)
    told = json.loads(out)
    assert code == 3
    assert not told["is_ready"]
    assert "trust of gannet" in [one["what"] for one in told["findings"] if one["verdict"] == "bad"]
    assert not (tmp_path / "trip").exists()
    code, out, err = run("trip", "prepare", "site:gannet", "--to", str(tmp_path / "trip"), at=own)
    assert code == 3
    assert "to do" in out and "trip return" in err
    assert (tmp_path / "trip" / "WORK.md").read_text(encoding="utf-8").startswith("# Trip: site:gannet")
    code, out, _ = run("pumps", "--json", at=tmp_path / "trip")
    assert code == 0
    seen = {row["pump"] for row in json.loads(out) if row["last_seen"]}
    assert seen and all(pump.startswith("gannet/") for pump in seen)
    code, out, err = run("trip", "return", str(tmp_path / "trip"), at=own)
    assert code == 0
    assert "0 rollouts are driven here again" in err
