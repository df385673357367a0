"""The table of operations, and the worker that runs them by name."""

from __future__ import annotations

from importlib import import_module

import pytest

from pumpdeck_console.operations.base import no_progress
from pumpdeck_console.operations.plans import _ELSEWHERE, _PLANNERS
from pumpdeck_console.operations.table import OPERATIONS, READERS, WORKERS, open_worker
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from support.seeded_workspace import seeded_workspace


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_entry_is_the_operation_of_that_name_and_runs_where_it_says(name):
    function = OPERATIONS[name].load()
    assert function.operation_name == name
    assert function.runs_in == OPERATIONS[name].runs_in


def test_readers_and_workers_are_kept_apart():
    assert not set(READERS) & set(WORKERS)
    assert {entry.runs_in for entry in READERS.values()} == {"reader"}
    assert {entry.runs_in for entry in WORKERS.values()} == {"worker"}


def test_every_action_with_a_plan_is_an_operation_of_the_worker():
    assert set(_PLANNERS) <= set(WORKERS)
    for module, names in _ELSEWHERE.items():
        assert set(import_module(f"pumpdeck_console.operations.{module}").PLANNERS) == set(names)


def test_the_worker_runs_an_operation_by_name_with_plain_arguments(tmp_path):
    seeded_workspace(tmp_path / "w").close()
    run = open_worker({"workspace": str(tmp_path / "w")})
    result = canonical.to_plain(run("models.promote", {"model": "esp-health", "which": "2"}, no_progress))
    expected = {"model": "esp-health", "champion": 2, "previous": 1, "changed": True}
    assert {name: result[name] for name in expected} == expected


def test_the_worker_refuses_readers_strangers_and_wrong_arguments(tmp_path):
    seeded_workspace(tmp_path / "w").close()
    run = open_worker({"workspace": str(tmp_path / "w")})
    with pytest.raises(NotFoundError):
        run("pumps.list", {}, no_progress)
    with pytest.raises(NotFoundError):
        run("nonsense", {}, no_progress)
    with pytest.raises(UsageError):
        run("models.promote", {"modell": "esp-health"}, no_progress)
