"""A device whose agent is a process of its own: bytes pass both ways, it ends when its client does, nothing is left over."""

from __future__ import annotations

import io
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from pumpdeck_sample.agent_process import AgentProcess

# Stands in for the real agent's `rpc` and `serve`, to give the plumbing hard cases; the real one is run in tests/e2e.
SCRIPT = textwrap.dedent(
    """
    import os, sys, time
    what, root = sys.argv[1], sys.argv[3]
    open(os.path.join(root, "pid-" + what), "w").write(str(os.getpid()))
    if what == "serve":
        sys.stdin.buffer.read()
    elif os.path.exists(os.path.join(root, "endless")):
        while True:
            sys.stdout.buffer.write(b"x" * 65536)
    else:
        data = sys.stdin.buffer.read()
        sys.stdout.buffer.write(data[::-1])
        sys.exit(5)
    """
)


@pytest.fixture
def agent(tmp_path: Path):
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT, encoding="utf-8")
    agent = AgentProcess(tmp_path, os.environ, (sys.executable, str(script)))
    yield agent
    agent.close()


def pid_of(root: Path, what: str) -> int:
    path = root / f"pid-{what}"
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, f"{what} never started"
        time.sleep(0.01)
    return int(path.read_text(encoding="utf-8"))


def wait_gone(pid: int) -> None:
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
    assert not psutil.pid_exists(pid)


def test_a_conversation_passes_every_byte_both_ways_and_hands_back_the_exit_status(agent: AgentProcess) -> None:
    payload = os.urandom(2_000_003)
    answer = io.BytesIO()
    write = io.BufferedWriter(answer)  # type: ignore[arg-type]
    assert agent.rpc(io.BufferedReader(io.BytesIO(payload)), write) == 5
    write.flush()
    assert answer.getvalue() == payload[::-1]


def test_a_client_that_stops_reading_leaves_no_process_behind(agent: AgentProcess, tmp_path: Path) -> None:
    class Gone(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            raise BrokenPipeError("gone")

    (tmp_path / "endless").touch()
    with pytest.raises(BrokenPipeError):
        agent.rpc(io.BufferedReader(io.BytesIO(b"")), io.BufferedWriter(Gone()))
    wait_gone(pid_of(tmp_path, "rpc"))


def test_closing_ends_the_scoring_process(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT, encoding="utf-8")
    agent = AgentProcess(tmp_path, os.environ, (sys.executable, str(script)))
    pid = agent.start_scoring()
    assert pid == pid_of(tmp_path, "serve")
    agent.close()
    wait_gone(pid)


def test_a_device_whose_process_was_killed_answers_nobody(agent: AgentProcess, tmp_path: Path) -> None:
    pid = agent.start_scoring()
    assert pid == pid_of(tmp_path, "serve")
    read, write = io.BufferedReader(io.BytesIO(b"abc")), io.BufferedWriter(io.BytesIO())
    assert agent.rpc(read, write) == 5
    psutil.Process(pid).kill()
    wait_gone(pid)
    (tmp_path / "pid-rpc").unlink()
    assert agent.rpc(read, write) == 4
    assert not (tmp_path / "pid-rpc").exists()


def test_no_thread_is_left_when_the_process_ends_first(agent: AgentProcess, tmp_path: Path) -> None:
    """The client's end stays open; once the channel is closed by the server its reader ends, and the feeder with it."""
    read_end, write_end = os.pipe()
    (tmp_path / "endless").touch()

    class Once(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            raise BrokenPipeError("gone")

    before = threading.active_count()
    read = os.fdopen(read_end, "rb")
    with pytest.raises(BrokenPipeError):
        agent.rpc(read, io.BufferedWriter(Once()))
    os.close(write_end)
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    read.close()
