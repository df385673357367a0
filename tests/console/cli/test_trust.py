"""`pumpdeck trust`: keys are made once, sites are founded once, nothing secret is printed or kept in the workspace."""

from __future__ import annotations

import json

import pytest

from pumpdeck_console.wiring import open_workspace


@pytest.fixture
def init_words(tmp_path):
    keys = tmp_path / "keys"
    return [
        "trust", "init", "--root-keys", str(keys / "root"), "--store", "file", "--key-folder", str(keys / "mine"),
        "--insecure-storage", "--json",
    ]  # fmt: skip


def test_trust_is_founded_once_for_every_site(own, init_words, run):
    code, out, err = run(*init_words, at=own)
    assert code == 0, err
    made = json.loads(out)
    assert made["founded"] == ["gannet", "wadi-rahl"]
    assert set(made["made_keys"]) == {"root-1", "root-2", "root-3", "targets", "release", "deploy", "ssh", "recipient"}
    assert "without a passphrase" in err
    roots = {site: run("trust", "root", site, at=own)[1] for site in made["founded"]}
    again = json.loads(run(*init_words, at=own)[1])
    assert (again["founded"], again["made_keys"]) == ([], [])
    assert {site: run("trust", "root", site, at=own)[1] for site in roots} == roots
    status = json.loads(run("trust", "status", "--json", at=own)[1])
    assert [row["founded"] for row in status["sites"]] == [True, True]
    assert {row["key"]: row["found_in"] for row in status["keys"]} == dict.fromkeys(
        ("targets", "release", "deploy", "ssh"), "plain file"
    )
    with open_workspace(own) as workspace:
        actions = [entry.action for entry in workspace.store.audit.entries()]
    assert actions.count("trust.found") == 2


def test_no_private_key_lies_in_the_workspace(own, init_words, run):
    run(*init_words, at=own)
    for path in own.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), path


def test_keys_inside_the_workspace_are_refused_and_nothing_is_founded(own, run):
    words = ["trust", "init", "--root-keys", str(own / "keys"), "--store", "file", "--insecure-storage"]
    code, _, err = run(*words, at=own)
    assert code == 2
    assert "workspace" in err
    status = json.loads(run("trust", "status", "--json", at=own)[1])
    assert [row["founded"] for row in status["sites"]] == [False, False]


def test_without_a_terminal_passphrases_cannot_be_given(own, tmp_path, run):
    code, _, err = run("trust", "init", "--root-keys", str(tmp_path / "root"), at=own)
    assert code == 2
    assert "passphrase" in err
    assert not (tmp_path / "root").exists()


def test_new_root_keys_beside_founded_sites_are_refused(own, init_words, tmp_path, run):
    run(*init_words, at=own)
    text = (own / "fleet.toml").read_text(encoding="utf-8")
    more = '\n[[sites]]\nid = "brent"\nname = "Brent"\nkind = "platform"\nlink = "ssh"\n'
    (own / "fleet.toml").write_text(text + more, encoding="utf-8")
    other = [str(tmp_path / "other") if word == str(tmp_path / "keys" / "root") else word for word in init_words]
    code, _, err = run(*other, at=own)
    assert code == 6
    assert "root keys" in err
    assert json.loads(run(*init_words, at=own)[1])["founded"] == ["brent"]


def test_a_device_without_a_host_key_cannot_be_enrolled(own, run):
    text = (own / "fleet.toml").read_text(encoding="utf-8")
    (own / "fleet.toml").write_text(text.replace('host_key = "ssh-ed25519 AAAA"\n', ""), encoding="utf-8")
    code, _, err = run("devices", "enrol", "gannet-d1", at=own)
    assert code == 2
    assert "--host-key" in err
    assert run("devices", "enrol", at=own)[0] == 2
    assert run("devices", "enrol", "nothing", at=own)[0] == 6
