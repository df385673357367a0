"""Commands that change something: what they change, what they say, and that refusing changes nothing."""

from __future__ import annotations

import json

from pumpdeck_console.wiring import open_workspace
from pumpdeck_fleet.core.registry import Alias


def audit_actions(root):
    with open_workspace(root) as workspace:
        return [entry.action for entry in workspace.store.audit.entries()]


def test_init_makes_a_workspace_that_every_list_can_read(tmp_path, run):
    root = tmp_path / "new"
    code, out, _ = run("init", str(root), "--name", 'North "Sea"', "--json", at=root)
    assert code == 0
    assert set(json.loads(out)["files"]) == {"fleet.toml", "policies.toml", "pipelines/esp.toml"}
    for words in (
        ["sites"],
        ["pumps"],
        ["devices"],
        ["models"],
        ["rollout", "list"],
        ["drift"],
        ["label", "list"],
        ["runs"],
    ):
        code, out, err = run(*words, "--json", at=root)
        assert (code, out.strip(), err) == (0, "[]", "")
        code, out, err = run(*words, at=root)
        assert (code, out) == (0, "")
        assert err.strip()
    code, out, _ = run("doctor", "--json", at=root)
    assert code == 0
    assert {row["what"]: row["verdict"] for row in json.loads(out)}["store"] == "ok"


def test_init_refuses_a_folder_that_is_a_workspace_and_leaves_it_alone(own, run):
    before = {path: path.read_bytes() for path in own.glob("*.toml")}
    code, _, err = run("init", str(own), at=own)
    assert code == 7
    assert "fleet.toml" in err
    assert {path: path.read_bytes() for path in own.glob("*.toml")} == before


def test_a_label_is_written_once_however_often_it_is_given(own, run):
    words = ["label", "add", "P-102", "fault:seal", "--from", "2026-02-27", "--to", "2026-02-28T06:00:00Z", "--json"]
    assert json.loads(run(*words, at=own)[1]) == {"added": 1, "already": 0}
    assert json.loads(run(*words, at=own)[1]) == {"added": 0, "already": 1}
    rows = json.loads(run("label", "list", "P-102", "--json", at=own)[1])
    assert [(row["pump"], row["verdict"], row["start"]) for row in rows] == [
        ("gannet/P-102", "fault:seal", "2026-02-27T00:00:00Z")
    ]
    assert audit_actions(own).count("label.add") == 1


def test_a_wrong_label_is_refused_and_nothing_is_written(own, run):
    for verdict, start in (("broken", "7d"), ("fault", "7d"), ("normal:x", "7d")):
        code, _, err = run("label", "add", "P-102", verdict, "--from", start, at=own)
        assert code == 2
        assert "false_alarm" in err or "kind" in err
    assert run("label", "add", "P-102", "normal", "--from", "1h", "--to", "2h", at=own)[0] == 2
    assert run("label", "add", "P-999", "normal", "--from", "1h", at=own)[0] == 6
    assert json.loads(run("label", "list", "P-102", "--json", at=own)[1]) == []


def test_a_csv_of_labels_comes_in_whole_or_not_at_all(own, tmp_path, run):
    path = tmp_path / "labels.csv"
    good = "gannet/P-102,2026-02-01T00:00:00Z,2026-02-02T00:00:00Z,fault:seal,found dry\n"
    path.write_text("pump,start,end,verdict,note\n" + good + "gannet/P-102,soon,later,normal,\n", encoding="utf-8")
    code, _, err = run("label", "import", str(path), at=own)
    assert code == 2
    assert "labels.csv:3" in err
    assert json.loads(run("label", "list", "P-102", "--json", at=own)[1]) == []
    path.write_text("pump,start,end,verdict,note\n" + good + good, encoding="utf-8")
    assert json.loads(run("label", "import", str(path), "--json", at=own)[1]) == {"added": 1, "already": 1}
    assert len(json.loads(run("label", "list", "P-102", "--json", at=own)[1])) == 1


def test_promoting_moves_the_champion_once_and_is_audited(own, run):
    code, out, _ = run("models", "promote", "esp-health", "v2", "--reason", "better", "--json", at=own)
    assert code == 0
    assert json.loads(out) == {"model": "esp-health", "champion": 2, "previous": 1, "changed": True}
    assert json.loads(run("models", "promote", "esp-health", "2", "--json", at=own)[1])["changed"] is False
    with open_workspace(own) as workspace:
        aliases = workspace.store.registry.aliases("esp-health")
    assert (aliases[Alias.CHAMPION], aliases[Alias.PREVIOUS]) == (2, 1)
    assert audit_actions(own).count("model.promote") == 1


def test_demoting_takes_the_champion_back_and_doing_it_twice_undoes_it(own, run):
    assert run("models", "demote", "esp-health", at=own)[0] == 6
    assert "model.demote" not in audit_actions(own)
    run("models", "promote", "esp-health", "v2", at=own)
    code, out, _ = run("models", "demote", "esp-health", "--reason", "too many alarms", "--json", at=own)
    assert (code, json.loads(out)) == (0, {"model": "esp-health", "champion": 1, "previous": 2, "changed": True})
    assert json.loads(run("models", "demote", "esp-health", "--json", at=own)[1])["champion"] == 2
    assert audit_actions(own).count("model.demote") == 2


def test_promoting_what_is_not_there_is_not_found(own, run):
    assert run("models", "promote", "esp-health", "v9", at=own)[0] == 6
    assert run("models", "promote", "nothing", at=own)[0] == 6
    assert run("models", "promote", "esp-health", "newest", at=own)[0] == 2


def test_the_audit_chain_is_listed_verified_and_exported(own, tmp_path, run):
    run("models", "promote", "esp-health", "v2", at=own)
    rows = json.loads(run("audit", "--json", at=own)[1])
    assert [row["action"] for row in rows] == ["workspace.init", "model.promote"]
    assert {row["name"] for row in rows} == {"Ada Field"}
    assert [row["action"] for row in json.loads(run("audit", "list", "promote", "--json", at=own)[1])] == [
        "model.promote"
    ]
    verified = json.loads(run("audit", "verify", "--json", at=own)[1])
    assert verified["entries"] == 2
    assert verified["head"] == rows[-1]["digest"]
    out = tmp_path / "audit.jsonl"
    assert run("audit", "export", "-o", str(out), at=own)[0] == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["digest"] for line in lines] == [row["digest"] for row in rows]
    assert "Ada" not in out.read_text(encoding="utf-8")


def test_an_altered_audit_entry_ends_with_5_and_its_position(own, run):
    import sqlite3

    run("models", "promote", "esp-health", "v2", at=own)
    with sqlite3.connect(own / "pumpdeck.db") as sql:
        sql.execute("DROP TRIGGER audit_is_final")
        sql.execute("UPDATE audit SET reason = 'nothing happened' WHERE position = 2")
    code, out, err = run("audit", "verify", at=own)
    assert (code, out) == (5, "")
    assert "audit entry 2" in err


def test_a_rollout_without_packages_is_refused_with_the_way_out(own, run):
    code, out, err = run("rollout", "plan", "--model", "esp-health=2", at=own)
    assert (code, out) == (3, "")
    assert "package" in err
    assert run("rollout", "start", at=own)[0] == 3
    assert json.loads(run("rollout", "list", "--json", at=own)[1]) == []


def test_why_says_what_a_device_lacks(own, run):
    code, out, _ = run("why", "gannet-d1", "--json", at=own)
    assert code == 0
    assert "no rollout" in json.loads(out)[0]["reason"]
    assert run("why", "nothing", at=own)[0] == 6
