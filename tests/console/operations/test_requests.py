"""A device's request for a new model, from the table to a training run that answers it or a person who dismisses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import main
from pumpdeck_console.operations.fleet_view import pump_detail
from pumpdeck_console.operations.requests import dismiss_requests, list_requests
from pumpdeck_console.operations.training import train_models
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.errors import IllegalMoveError, NotFoundError, UsageError
from pumpdeck_fleet.core.retraining import RequestState, RetrainEntry
from support.seeded_workspace import seeded_workspace
from support.small_fleet import NOW_MS
from support.trained_workspace import kind_of, workspace_with_rows

AT_MS = NOW_MS - 2 * DAY_MS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    seeded_workspace(root).close()
    return root


@pytest.fixture
def workspace(root: Path) -> Iterator[Workspace]:
    with open_workspace(root) as opened:
        yield opened


def entry(workspace: Workspace, place: int, *, trigger: str = "drift", at_ms: int = AT_MS) -> RetrainEntry:
    pump = workspace.fleet.pumps[place]
    digest = canonical.digest(f"{pump.id} {trigger} {at_ms}".encode())
    return RetrainEntry(digest, pump.id, pump.device, at_ms, trigger, "the baseline was far for 24 h", "a" * 64)


def ask(workspace: Workspace, *entries: RetrainEntry) -> list[bool]:
    with workspace.store.atomic() as store:
        return [store.retraining.add(one) for one in entries]


def actions(workspace: Workspace) -> list[str]:
    return [one.action for one in workspace.store.audit.entries(limit=10_000)]


def test_a_request_that_comes_again_is_one_request_also_when_it_is_closed(workspace: Workspace) -> None:
    one = entry(workspace, 0)
    assert ask(workspace, one, one) == [True, False]
    dismiss_requests(workspace, pump=one.pump, reason="season")
    assert ask(workspace, one) == [False]
    assert list_requests(workspace) == ()
    (row,) = list_requests(workspace, with_closed=True)
    assert (row.entry.state, row.entry.note, row.dismissed_by) == (RequestState.DISMISSED, "season", workspace.person)


def test_requests_are_listed_newest_first_for_the_pumps_that_a_query_selects(workspace: Workspace) -> None:
    old, new = entry(workspace, 0, at_ms=AT_MS - 5), entry(workspace, 1)
    ask(workspace, old, new)
    assert [row.entry.pump for row in list_requests(workspace)] == [new.pump, old.pump]
    tag = workspace.fleet.pumps[0].tag
    assert [row.entry.pump for row in list_requests(workspace, query=f"tag:{tag}")] == [old.pump]


def test_dismissing_needs_a_reason_and_something_to_dismiss(workspace: Workspace) -> None:
    one = entry(workspace, 0)
    with pytest.raises(NotFoundError):
        dismiss_requests(workspace, pump=one.pump, reason="season")
    ask(workspace, one)
    with pytest.raises(UsageError):
        dismiss_requests(workspace, pump=one.pump, reason="  ")
    assert len(list_requests(workspace)) == 1
    assert "retrain.dismissed" not in actions(workspace)
    closed = dismiss_requests(workspace, pump=one.pump, reason="season")
    with pytest.raises(IllegalMoveError):
        closed[0].answer("r", "m", "c", AT_MS)


def test_the_pump_shows_what_is_asked_for_it(workspace: Workspace) -> None:
    one = entry(workspace, 0)
    ask(workspace, one)
    facts = dict(pump_detail(workspace, pump=one.pump).facts)
    assert facts["asks for a model"].startswith("drift, ")
    assert "the baseline was far for 24 h" in facts["asks for a model"]
    assert "asks for a model" not in dict(pump_detail(workspace, pump=workspace.fleet.pumps[1].id).facts)


def test_training_answers_what_was_asked_for_its_pumps_and_for_no_others(tmp_path: Path) -> None:
    workspace = workspace_with_rows(tmp_path / "workspace")
    kind = kind_of(workspace)
    foreign = next(place for place, pump in enumerate(workspace.fleet.pumps) if pump.type != kind)
    asked, other = entry(workspace, 0, at_ms=NOW_MS - 5 * DAY_MS), entry(workspace, foreign)
    ask(workspace, asked, other)
    # Rows before the request say nothing about what it asks for.
    train_models(workspace, pump_type=kind, until_ms=NOW_MS - 6 * DAY_MS)
    assert len(list_requests(workspace)) == 2
    with workspace.store.atomic() as store:
        store.retraining.put(other.dismiss(workspace.actor, "season", NOW_MS))
    (row,) = train_models(workspace, only_requested=True).models
    assert (row.pump_type, row.verdict != "refuse") == (kind, True)
    found = {one.entry.pump: one.entry for one in list_requests(workspace, with_closed=True)}
    answered = found[asked.pump]
    assert (answered.state, answered.run, answered.model) == (RequestState.ANSWERED, row.run, row.model)
    assert answered.content_digest == row.content_digest
    assert found[other.pump].state is RequestState.DISMISSED
    assert actions(workspace).count("retrain.answered") == 1
    assert train_models(workspace, only_requested=True).models == ()
    workspace.store.audit.verify()
    workspace.store.close()


def test_the_command_line_lists_dismisses_and_has_nothing_to_train(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_workspace(root) as workspace:
        one = entry(workspace, 0)
        ask(workspace, one)
    where = ["-w", str(root)]
    assert main.main([*where, "devices", "requests", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["pump"], row["state"], row["trigger"], row["request"]) == (one.pump, "open", "drift", one.digest)
    assert main.main([*where, "devices", "dismiss", one.pump, "--reason", "season", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "dismissed"
    assert main.main([*where, "train", "--requested", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main.main([*where, "devices", "dismiss", one.pump, "--reason", "again"]) == 6
