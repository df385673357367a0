"""`pumpdeck trust rules`: the inventory says what devices demand, headquarters signs it, and a plan without papers is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_console.operations.device_rules import demanded
from pumpdeck_console.wiring import open_workspace
from pumpdeck_packaging.device_rules import DeviceRules, SiteRules


@pytest.fixture
def founded(own: Path, tmp_path: Path, run) -> Path:
    """A workspace with founded sites."""
    keys = tmp_path / "keys"
    words = ("trust", "init", "--root-keys", str(keys / "root"), "--store", "file", "--key-folder", str(keys / "mine"))
    code, _, err = run(*words, "--insecure-storage", at=own)
    assert code == 0, err
    return own


def rules(run, founded: Path, *words: str) -> list[dict[str, Any]]:
    code, out, err = run("trust", "rules", *words, "--json", at=founded)
    assert code == 0, err
    return list(json.loads(out))


def demand(founded: Path, line: str) -> str:
    """The rule at the first site of the inventory; the site."""
    file = founded / "fleet.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("[[sites]]\n", f"[[sites]]\n{line}\n", 1), encoding="utf-8")
    with open_workspace(founded) as workspace:
        return workspace.fleet.sites[0].id


def test_what_is_demanded_is_shown_planned_and_signed_once(founded: Path, run) -> None:
    assert {row["demands"] for row in rules(run, founded, "list")} == {"nothing"}
    assert rules(run, founded, "sign") == [], "there is nothing to sign"
    site = demand(founded, "needs_permit = true")
    planned = rules(run, founded, "sign", "--plan")
    assert [(row["site"], row["demands"], row["signed"]) for row in planned] == [(site, "a permit", "nothing")]
    with open_workspace(founded) as workspace:
        assert workspace.trust(site).device_rules() is None, "a plan signs nothing"
    assert rules(run, founded, "sign", "--insecure-storage") == planned
    with open_workspace(founded) as workspace:
        assert workspace.trust(site).device_rules() == SiteRules(DeviceRules(needs_permit=True))
        assert [entry.subject for entry in workspace.store.audit.entries() if entry.action == "trust.rules"] == [site]
    assert rules(run, founded, "sign", "--insecure-storage") == []
    (row,) = [row for row in rules(run, founded, "list") if row["site"] == site]
    assert (row["signed"], row["is_signed"]) == ("a permit", True)


def test_a_rollout_without_a_permit_is_refused_where_one_is_needed(own: Path, run) -> None:
    assert "permit" not in run("rollout", "plan", at=own)[2]
    demand(own, "needs_permit = true")
    code, _, err = run("rollout", "plan", at=own)
    assert code == 3
    assert "takes nothing without a permit" in err
    assert "--permit NUMBER" in err
    assert "takes nothing" not in run("rollout", "plan", "--permit", "WO-1", at=own)[2]


def test_a_site_that_is_none_is_not_found(founded: Path, run) -> None:
    assert run("trust", "rules", "list", "nowhere", at=founded)[0] == 6


def test_a_device_is_enrolled_with_what_its_site_and_class_demand(own: Path) -> None:
    with open_workspace(own) as workspace:
        device = workspace.fleet.devices[0]
        assert demanded(workspace.fleet, device) == DeviceRules()
    demand(own, "needs_permit = false\nundo_needs_token = true")
    file = own / "fleet.toml"
    head = f"[device_classes.{device.device_class}]\n"
    file.write_text(file.read_text(encoding="utf-8").replace(head, f"{head}needs_permit = true\n", 1), encoding="utf-8")
    with open_workspace(own) as workspace:
        assert demanded(workspace.fleet, workspace.fleet.devices[0]) == DeviceRules(True, True)
