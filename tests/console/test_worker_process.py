"""A real child process each: frames, progress, cancel, death and restart."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console.worker_process import (
    MAX_FRAME_BYTES,
    CancelledError,
    OperationFailedError,
    WorkerDiedError,
    WorkerProcess,
    read_frame,
    write_frame,
)
from pumpdeck_fleet.core.errors import EXIT_REFUSED, DamagedError

WAIT_S = 30.0
OPENER = "support.worker_operations:opener"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WorkerProcess]:
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
    worker = WorkerProcess(OPENER, {"workspace": "north sea ø"}, tmp_path / "worker.log")
    yield worker
    worker.close()


def nothing(step: str, done: int, total: int) -> None:
    pass


def test_frames_come_back_and_end_cleanly() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"id": 1, "text": "ø", "none": None})
    stream.seek(0)
    assert read_frame(stream) == {"id": 1, "text": "ø", "none": None}
    assert read_frame(stream) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        struct.pack(">I", 10) + b"{}",
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 2) + b"{'",
        struct.pack(">I", 5),
    ],
)
def test_a_damaged_frame_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        read_frame(io.BytesIO(data))


def test_the_worker_is_started_by_the_first_operation_and_serves_the_next(worker: WorkerProcess) -> None:
    assert worker.pid is None
    first = worker.submit("echo", {"query": "site:gannet"}, nothing)
    assert first.result(WAIT_S) == {"context": {"workspace": "north sea ø"}, "arguments": {"query": "site:gannet"}}
    pid = worker.pid
    assert worker.submit("echo", {}, nothing).result(WAIT_S)["arguments"] == {}
    assert worker.pid == pid
    assert worker.starts == 1


def test_progress_is_told_before_the_result(worker: WorkerProcess) -> None:
    told: list[tuple[str, int, int]] = []
    task = worker.submit("count", {}, lambda step, done, total: told.append((step, done, total)))
    assert task.result(WAIT_S) == 3
    assert told == [("counting", 0, 3), ("counting", 1, 3), ("counting", 2, 3)]


def test_what_a_library_prints_does_not_get_between_frames(worker: WorkerProcess, tmp_path: Path) -> None:
    assert worker.submit("print", {}, nothing).result(WAIT_S) == "printed"
    assert "and so does a C library" in (tmp_path / "worker.log").read_text(encoding="utf-8")


def test_an_operation_stops_when_it_is_cancelled_and_the_worker_goes_on(worker: WorkerProcess) -> None:
    started = threading.Event()
    task = worker.submit("wait", {}, lambda *_: started.set())
    assert started.wait(WAIT_S)
    task.cancel()
    with pytest.raises(CancelledError):
        task.result(WAIT_S)
    assert worker.submit("count", {}, nothing).result(WAIT_S) == 3
    assert worker.starts == 1


def test_an_operation_cancelled_before_its_turn_never_runs(worker: WorkerProcess) -> None:
    started = threading.Event()
    first = worker.submit("wait", {}, lambda *_: started.set())
    second = worker.submit("die", {}, nothing)
    assert started.wait(WAIT_S)
    second.cancel()
    first.cancel()
    with pytest.raises(CancelledError):
        second.result(WAIT_S)
    assert worker.starts == 1


def test_an_error_comes_back_with_its_words_and_exit_code(worker: WorkerProcess) -> None:
    with pytest.raises(OperationFailedError) as caught:
        worker.submit("refuse", {}, nothing).result(WAIT_S)
    assert caught.value.kind == "GateRefusedError"
    assert caught.value.exit_code == EXIT_REFUSED
    assert caught.value.sentence() == "esp-health v13: is worse than the champion; expected 0.9; found 0.7. Train longer"


def test_a_defect_is_told_and_leaves_the_worker_alive(worker: WorkerProcess, tmp_path: Path) -> None:
    with pytest.raises(OperationFailedError, match="ZeroDivisionError"):
        worker.submit("nonsense", {}, nothing).result(WAIT_S)
    assert worker.submit("count", {}, nothing).result(WAIT_S) == 3
    assert "a defect" in (tmp_path / "worker.log").read_text(encoding="utf-8")


def test_a_dead_worker_is_told_to_every_caller_and_started_again(worker: WorkerProcess) -> None:
    first = worker.submit("die", {}, nothing)
    second = worker.submit("echo", {}, nothing)
    for task in (first, second):
        with pytest.raises(WorkerDiedError, match="exit code 9"):
            task.result(WAIT_S)
    assert worker.submit("echo", {}, nothing).result(WAIT_S)
    assert worker.starts == 2


def test_a_worker_that_cannot_start_is_told_and_not_tried_for_ever(tmp_path: Path) -> None:
    worker = WorkerProcess("no.such.module:opener", {}, tmp_path / "worker.log")
    with pytest.raises(WorkerDiedError):
        worker.submit("echo", {}, nothing).result(WAIT_S)
    assert worker.starts == 1
    worker.close()


def test_the_worker_ends_with_the_console(worker: WorkerProcess) -> None:
    started = threading.Event()
    task = worker.submit("wait", {}, lambda *_: started.set())
    assert started.wait(WAIT_S)
    worker.close()
    with pytest.raises((WorkerDiedError, CancelledError)):
        task.result(WAIT_S)
    assert worker.pid is None


def test_done_is_told_once_whether_asked_before_or_after(worker: WorkerProcess) -> None:
    calls: list[str] = []
    done = threading.Event()
    task = worker.submit("echo", {}, nothing)
    task.on_done(lambda: (calls.append("before"), done.set()))
    assert done.wait(WAIT_S)
    task.on_done(lambda: calls.append("after"))
    assert calls == ["before", "after"]
