"""Operations through the real worker process, as the console runs them."""

from __future__ import annotations

import threading

import pytest

from pumpdeck_console.start import _OPENER
from pumpdeck_console.wiring import open_workspace
from pumpdeck_console.worker_process import OperationFailedError, WorkerProcess
from pumpdeck_fleet.core.registry import Alias
from support.seeded_workspace import seeded_workspace

WAIT_S = 60.0


@pytest.fixture
def worker(tmp_path):
    seeded_workspace(tmp_path / "w").close()
    made = WorkerProcess(_OPENER, {"workspace": str(tmp_path / "w")}, log=tmp_path / "worker.log")
    yield made
    made.close()


def test_an_operation_changes_the_workspace_of_the_console(worker, tmp_path):
    task = worker.submit("models.promote", {"model": "esp-health", "which": "2", "reason": "better"}, lambda *_: None)
    assert task.result(WAIT_S)["champion"] == 2
    with open_workspace(tmp_path / "w") as workspace:
        assert workspace.store.registry.aliases("esp-health")[Alias.CHAMPION] == 2
        assert [entry.action for entry in workspace.store.audit.entries()][-1] == "model.promote"


def test_a_training_reports_progress_and_its_refusal_comes_back_as_it_was(worker):
    steps: list[str] = []
    ended = threading.Event()
    # Two hours of rows are too few for a model: the gates say so.
    task = worker.submit("train", {"pump_type": "esp"}, lambda step, _done, _total: steps.append(step))
    task.on_done(ended.set)
    with pytest.raises(OperationFailedError) as caught:
        task.result(WAIT_S)
    assert ended.wait(WAIT_S)
    assert caught.value.exit_code == 3
    assert any(step.startswith("esp: ") for step in steps)


def test_what_is_no_operation_of_the_worker_is_not_found(worker):
    with pytest.raises(OperationFailedError) as caught:
        worker.submit("pumps.list", {}, lambda *_: None).result(WAIT_S)
    assert caught.value.exit_code == 6
