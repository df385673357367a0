"""Gates that need the champion and the fleet: judged at registration, stored, and in the way of a promotion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import main, wiring
from pumpdeck_console.operations.audit import entries
from pumpdeck_console.operations.models import find_version, promote
from pumpdeck_console.operations.selection import wanted_devices
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import GateRefusedError, UsageError
from pumpdeck_fleet.core.registry import Alias, GateVerdict
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, make_champion, trained_row, workspace_with_rows

STRICT = "[alarm]\nbudget_alarms = 0.01\n"
LOUD = "[alarm]\nbudget_alarms = 200.0\n[gates]\nreplay_alarms_warn = 1e3\nreplay_alarms_refuse = 1e4\n"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    workspace = workspace_with_rows(tmp_path / "workspace")
    yield workspace
    workspace.close()


def gates_of(workspace: Workspace, version: int) -> dict[str, tuple[GateVerdict, str]]:
    found = find_version(workspace, f"{kind_of(workspace)}-health", str(version))
    return {gate.name: (gate.verdict, gate.reason) for gate in found.gates}


def refused_version(workspace: Workspace) -> int:
    """A champion that hardly alarms, then a candidate that alarms all the time: registered, and refused."""
    make_champion(workspace, trained_row(workspace, STRICT))
    with pytest.raises(GateRefusedError, match="champion"):
        trained_row(workspace, LOUD)
    return len(workspace.store.registry.versions(f"{kind_of(workspace)}-health"))


def test_every_gate_is_stored_with_the_version(workspace: Workspace) -> None:
    row = trained_row(workspace, STRICT)
    found = gates_of(workspace, row.version)
    assert list(found) == [
        "parity", "replay", "holdout", "backtest", "training_data", "champion", "slices", "coverage", "profile"
    ]  # fmt: skip
    assert found["champion"] == (GateVerdict.WARN, "files of the champion v1 are missing or altered: nothing was compared")
    assert "seasons held:" in found["coverage"][1]


def test_a_candidate_is_judged_against_the_champion_on_the_same_rows(workspace: Workspace) -> None:
    first = trained_row(workspace, STRICT)
    make_champion(workspace, first)
    again = trained_row(workspace, f"{STRICT}[gates]\nslice_margin = 0.4\n")
    version = find_version(workspace, again.model, str(again.version))
    verdict, reason = gates_of(workspace, again.version)["champion"]
    assert verdict is GateVerdict.PASS and reason.startswith(f"against v{first.version} on ")
    assert "has learned from 100 % of these days" in reason
    assert version.judged_against == first.version


def test_a_worse_candidate_is_registered_without_an_alias_and_not_promoted(workspace: Workspace) -> None:
    number = refused_version(workspace)
    model = f"{kind_of(workspace)}-health"
    aliases = workspace.store.registry.aliases(model)
    assert gates_of(workspace, number)["champion"][0] is GateVerdict.REFUSE
    assert aliases[Alias.CANDIDATE] != number
    with pytest.raises(GateRefusedError, match="Two people may override"):
        promote(workspace, model=model, which=str(number))
    assert workspace.store.registry.aliases(model) == aliases
    lacking = {one.lacking for one in wanted_devices(workspace, query="", models={model: str(number)})}
    assert any("quality gate champion refused" in one for one in lacking)


def test_two_people_with_a_reason_override_and_one_alone_does_not(workspace: Workspace) -> None:
    number = refused_version(workspace)
    model, which = f"{kind_of(workspace)}-health", str(number)
    before = workspace.store.registry.aliases(model)
    with pytest.raises(UsageError, match="needs a reason"):
        promote(workspace, model=model, which=which, override=True)
    for _ in range(2):
        noted = promote(workspace, model=model, which=which, override=True, reason="new pumps, old champion")
        assert (noted.changed, noted.missing_people) == (False, 1)
    assert workspace.store.registry.aliases(model) == before
    (workspace.root / "settings.toml").write_text('person = "Second Person"\n', encoding="utf-8", newline="\n")
    with open_workspace(workspace.root) as second:
        done = promote(second, model=model, which=which, override=True, reason="seen, agreed")
        assert (done.changed, done.champion) == (True, number)
        told = [entry for entry in entries(second) if entry.action == "model.override"]
        assert {entry.reason.rpartition(": ")[2] for entry in told} == {"new pumps, old champion", "seen, agreed"}
        assert all(entry.reason.startswith("champion") for entry in told)
        assert len({entry.actor for entry in told}) == 2
        lacking = {one.lacking for one in wanted_devices(second, query="", models={model: which})}
        assert not any("quality gate" in one for one in lacking)


def test_the_commands_tell_verdicts_and_what_is_missing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    number = refused_version(workspace)
    model, words = f"{kind_of(workspace)}-health", ["-w", str(workspace.root), "models"]
    capsys.readouterr()
    assert main.main([*words, "show", model, str(number), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gate_champion"].startswith("refuse: against v") and shown["gates"] == "refuse"
    assert main.main([*words, "promote", model, str(number)]) == 3
    assert "quality gate refused" in capsys.readouterr().err
    assert main.main([*words, "promote", model, str(number), "--override", "--reason", "trial", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["missing_people"] == 1 and "1 more must say the same" in err
