"""What commands print, as files: read every difference before you renew one (UPDATE_GOLDEN=1)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"

CASES = {
    "sites": ["sites"],
    "sites_json": ["sites", "--json"],
    "pumps": ["pumps"],
    "pumps_json": ["pumps", "--json"],
    "pumps_query": ["pumps", "health>=drift", "site:gannet"],
    "pumps_none": ["pumps", "site:nowhere"],
    "pump": ["pumps", "show", "gannet/P-101"],
    "devices": ["devices"],
    "devices_json": ["devices", "--json"],
    "device": ["devices", "show", "gannet-d1"],
    "models": ["models"],
    "models_json": ["models", "--json"],
    "model": ["models", "show", "esp-health", "v1"],
    "snapshots": ["snapshots"],
    "runs": ["runs"],
    "drift": ["drift"],
    "drift_json": ["drift", "--json"],
    "labels": ["label", "list"],
    "telemetry": ["telemetry", "gannet/P-101", "--from", "30m"],
    "scores_csv": ["telemetry", "gannet/P-101", "--scores", "--csv", "--from", "30m"],
    "rollouts": ["rollout", "list"],
    "why": ["why", "gannet-d1"],
    "help": ["--help"],
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_command_prints_is_the_golden_output(name, seeded, run):
    code, out, err = run(*CASES[name], at=seeded)
    said = f"exit {code}\n--- stdout\n{out}--- stderr\n{err}"
    for actor in {word for word in said.replace('"', " ").split() if word.startswith("actor-")}:
        said = said.replace(actor, "actor-000000000000")
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said, encoding="utf-8", newline="\n")
    assert said == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("_json")])
def test_a_list_as_json_is_one_array_of_flat_objects_with_the_same_keys(name, seeded, run):
    code, out, err = run(*CASES[name], at=seeded)
    rows = json.loads(out)
    assert code == 0
    assert rows
    assert err == ""
    for row in rows:
        assert all(value is None or isinstance(value, (str, int, float, bool)) for value in row.values()), row
    if name != "drift_json":
        assert len({tuple(row) for row in rows}) == 1
