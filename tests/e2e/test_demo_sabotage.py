"""A demo that was tampered with says so: the step that depends on it is not ok, and the exit code is 1.

Each test spoils one thing in a copy of a finished, good demo and runs the same command on it again.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from pumpdeck_packaging.signing import generate_key
from support.demo_run import DemoRun, copy_demo, process_of_simulator, run_demo

pytestmark = pytest.mark.e2e


@pytest.fixture
def copy(demo: DemoRun, tmp_path: Path) -> Path:
    """The workspace of a copy that may be spoiled."""
    assert demo.code == 0
    return copy_demo(demo, tmp_path / "fleet")


def flip(path: Path, at: int) -> None:
    """Change one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_an_untouched_copy_is_as_good_as_the_original(copy: Path, demo: DemoRun) -> None:
    """Without this the other tests could pass because of the copying. A second run also changes no figure."""
    run = run_demo(copy)
    assert run.code == 0, run.summary
    assert run.steps_not_ok() == set()
    assert run.evidence("scores")["rows"] == demo.evidence("scores")["rows"]
    assert run.evidence("receipts") == demo.evidence("receipts")
    assert run.evidence("train") == demo.evidence("train")
    assert [one["new"] for one in run.evidence("ingest")["files"]] == [0] * len(run.evidence("ingest")["files"])


def test_a_byte_of_a_package_in_the_workspace(copy: Path, demo: DemoRun) -> None:
    package = demo.evidence("package")["packages"][0]["sha256"]
    (path,) = (copy / "artifacts" / "sha256").glob(f"{package[:2]}/*{package[2:]}")
    flip(path, path.stat().st_size // 2)
    run = run_demo(copy)
    assert run.code == 1
    assert "package" in run.steps_not_ok()
    assert package[:12] in run.problems("package")


def test_another_key_on_a_device(copy: Path) -> None:
    root = copy.with_name("fleet-demo") / "simulation" / "devices" / "gannet-d2"
    other = generate_key()
    (root / "device.key").write_bytes(other.private_pem())
    (root / "device.pub").write_text(other.public_pem, encoding="ascii", newline="\n")
    run = run_demo(copy)
    assert run.code == 1
    assert "receipts" in run.steps_not_ok()
    assert "gannet-d2" in run.problems("receipts")


def test_another_key_under_which_receipts_are_checked(copy: Path) -> None:
    with sqlite3.connect(copy / "pumpdeck.db") as connection:
        pem = generate_key().public_pem
        assert connection.execute("UPDATE device SET public_pem = ? WHERE device = 'gannet-d1'", (pem,)).rowcount == 1
    connection.close()
    run = run_demo(copy)
    assert run.code == 1
    assert "receipts" in run.steps_not_ok()
    assert "gannet-d1" in run.problems("receipts")


def test_a_row_of_the_audit_chain(copy: Path) -> None:
    """Somebody who writes to the database file directly can also remove its triggers."""
    with sqlite3.connect(copy / "pumpdeck.db") as connection:
        connection.execute("DROP TRIGGER audit_is_final")
        assert connection.execute("UPDATE audit SET reason = reason || ' not' WHERE position = 9").rowcount == 1
    connection.close()
    run = run_demo(copy)
    assert run.code == 1
    assert run.steps_not_ok() == {"audit"}
    assert "audit entry 9" in run.problems("audit")


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a POSIX signal")
def test_devices_that_were_killed(copy: Path, demo: DemoRun) -> None:
    """The simulator's process dies as soon as it says that it lives; nothing of it answers any more."""

    def kill(line: str) -> None:
        process = process_of_simulator(line)
        if process is not None:
            os.kill(process, signal.SIGKILL)

    run = run_demo(copy, on_line=kill)
    assert run.code == 1
    assert "rollout" in run.steps_not_ok()
    for device in demo.evidence("rollout")["tasks"]:
        assert device in run.problems("rollout")
